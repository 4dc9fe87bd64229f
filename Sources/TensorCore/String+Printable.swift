extension String {
    /// The text as it can be shown on a terminal and in a log: what these would obey rather than show is written as an escape, such
    /// as `\n` or `\u{1b}`. Those are control characters, line and paragraph separators, and the characters that turn the direction
    /// of the text around them: names in files that strangers made may hold any.
    package var printable: String {
        guard unicodeScalars.contains(where: \.isObeyed) else { return self }
        return unicodeScalars.reduce(into: "") { text, scalar in
            guard scalar.isObeyed else { return text.unicodeScalars.append(scalar) }
            switch scalar {
            case "\n": text += "\\n"
            case "\r": text += "\\r"
            case "\t": text += "\\t"
            default: text += "\\u{\(String(scalar.value, radix: 16))}"
            }
        }
    }

    /// The lines of this text, each printable.
    package var printableLines: String {
        split(separator: "\n", omittingEmptySubsequences: false).map { String($0).printable }
            .joined(separator: "\n")
    }

    /// The sentence with its settings as a command line's flags. Below the command line a sentence names a setting between backquotes,
    /// alone or with its value: `batch-size` between them becomes `--batch-size`, and `checkpoint last` becomes `--checkpoint last`. More
    /// words between backquotes are no setting and stay, as a whole command does.
    package var spelledAsFlags: String {
        replacing(/`([a-z][a-z0-9-]*(?: [^`\s]+)?)`/) { "--" + String($0.1) }
    }

    /// The word as a shell reads it: quoted where it has to be, with control characters as bash's and zsh's `$'…'` has them.
    package var shellQuoted: String {
        let plain: (Unicode.Scalar) -> Bool = {
            $0.isASCII
                && ($0.properties.isAlphabetic || ("0"..."9").contains($0)
                    || "@%+=:,./_-".unicodeScalars.contains($0))
        }
        if !isEmpty, unicodeScalars.allSatisfy(plain) { return self }
        // By scalars: an apostrophe with an accent behind it is another Character, and the same byte to a shell.
        guard unicodeScalars.contains(where: \.isObeyed) else {
            return unicodeScalars.reduce(into: "'") { text, scalar in
                if scalar == "'" { text += "'\\'" }
                text.unicodeScalars.append(scalar)
            } + "'"
        }
        return unicodeScalars.reduce(into: "$'") { text, scalar in
            if scalar.isObeyed {
                for byte in UTF8.encode(scalar)! {
                    text += "\\x" + (byte < 16 ? "0" : "") + String(byte, radix: 16)
                }
            } else {
                if scalar == "'" || scalar == "\\" { text += "\\" }
                text.unicodeScalars.append(scalar)
            }
        } + "'"
    }
}

extension Unicode.Scalar {
    /// Whether a terminal obeys it.
    fileprivate var isObeyed: Bool {
        if value < 0x7f { return value < 0x20 }
        switch properties.generalCategory {
        case .control, .lineSeparator, .paragraphSeparator: return true
        default:
            switch value {
            case 0x061c, 0x200e, 0x200f, 0x202a...0x202e, 0x2066...0x2069: return true
            default: return false
            }
        }
    }
}
