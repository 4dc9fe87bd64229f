/// An augmentation as text: a name, or a policy of RandAugment, and what differs from it: `light`,
/// `fewshot,reprob=0,mixup=0.2`, `rand-m9-mstd0.5-inc1,scale=0.35:1`.
extension Augmentation: CustomStringConvertible {
    /// The augmentations that have a name.
    public static let named: [(name: String, augmentation: Augmentation)] = [
        ("none", .none), ("light", .light), ("fewshot", .fewshot),
    ]

    /// Reads a text: `none`, `light`, `fewshot` or `rand-…`, then any of the members' names with their
    /// values, behind commas. Throws `DatasetError` with what can't be read and what there is.
    public init(_ text: String) throws {
        let parts = text.split(separator: ",", omittingEmptySubsequences: false)
        let name = parts[0]
        if let named = Augmentation.named.first(where: { $0.name == name }) {
            self = named.augmentation
        } else if name == "rand" || name.hasPrefix("rand-") {
            self = .policy(try RandAugment(String(name)))
        } else {
            throw DatasetError(
                "the augmentation '\(String(name).printable)' isn't known; there are "
                    + Augmentation.named.map(\.name).joined(separator: ", ")
                    + " and timm's RandAugment, such as rand-m9-mstd0.5-inc1.")
        }
        for part in parts.dropFirst() {
            let pair = part.split(separator: "=", maxSplits: 1, omittingEmptySubsequences: false).map(
                String.init)
            guard pair.count == 2, let member = Member.all.first(where: { $0.name == pair[0] }) else {
                throw DatasetError(
                    "the augmentation's part '\(String(part).printable)' isn't known; there are "
                        + Member.all.map { "\($0.name)=" }.joined(separator: ", ") + ".")
            }
            guard member.read(pair[1], &self) else {
                throw DatasetError(
                    "the augmentation's \(member.name) can't be '\(pair[1].printable)'; \(member.advice).")
            }
        }
        try check()
    }

    /// The text that `init` reads: the name where it has one, or the nearest with what differs.
    public var description: String {
        if let named = Augmentation.named.first(where: { $0.augmentation == self }) { return named.name }
        var (text, base) = ("none", Augmentation.none)
        if let randAugment {
            (text, base) = ("\(randAugment)", .policy(randAugment))
        } else if crop != nil {
            (text, base) = ("light", .light)
        }
        for member in Member.all where member.write(self) != member.write(base) {
            text += ",\(member.name)=\(member.write(self))"
        }
        return text
    }
}

/// A part of the text.
private struct Member: Sendable {
    let name: String
    /// What can be written.
    let advice: String
    let write: @Sendable (Augmentation) -> String
    /// False for a value that can't be read.
    let read: @Sendable (String, inout Augmentation) -> Bool

    static let all: [Member] = [
        Member(
            name: "crop", advice: "write off, or scale= for what is cut out",
            write: { $0.crop == nil ? "off" : "on" },
            read: { text, augmentation in
                if text == "off" { augmentation.crop = nil }
                if text == "on" { augmentation.crop = augmentation.crop ?? RandomResizedCrop() }
                return text == "off" || text == "on"
            }),
        range("scale", \.scale), range("ratio", \.ratio),
        choice("interpolation", \.interpolation),
        number("hflip", \.horizontalFlip), number("vflip", \.verticalFlip), number("jitter", \.colorJitter),
        number("reprob", \.erasing.probability), choice("remode", \.erasing.mode),
        Member(
            name: "recount", advice: "write a whole number", write: { "\($0.erasing.count)" },
            read: { text, augmentation in
                guard let count = Int(text) else { return false }
                augmentation.erasing.count = count
                return true
            }),
        number("mixup", \.mixing.mixup), number("cutmix", \.mixing.cutmix),
        number("mixprob", \.mixing.probability), number("mixswitch", \.mixing.switchProbability),
    ]

    private static func number(
        _ name: String, _ path: WritableKeyPath<Augmentation, Double> & Sendable
    ) -> Member {
        Member(
            name: name, advice: "write a number", write: { "\($0[keyPath: path])" },
            read: { text, augmentation in
                guard let number = Double(text) else { return false }
                augmentation[keyPath: path] = number
                return true
            })
    }

    /// A range of the crop, which there is then.
    private static func range(
        _ name: String, _ path: WritableKeyPath<RandomResizedCrop, ClosedRange<Double>> & Sendable
    ) -> Member {
        Member(
            name: name, advice: "write two numbers, the smaller first, as in 0.5:1",
            write: { augmentation in
                let range = (augmentation.crop ?? RandomResizedCrop())[keyPath: path]
                return "\(range.lowerBound):\(range.upperBound)"
            },
            read: { text, augmentation in
                let bounds = text.split(separator: ":", omittingEmptySubsequences: false).map { Double($0) }
                guard bounds.count == 2, let lower = bounds[0], let upper = bounds[1], lower <= upper
                else { return false }
                augmentation.crop = augmentation.crop ?? RandomResizedCrop()
                augmentation.crop?[keyPath: path] = lower...upper
                return true
            })
    }

    private static func choice<Choice: CaseIterable & RawRepresentable<String> & SendableMetatype>(
        _ name: String, _ path: WritableKeyPath<Augmentation, Choice> & Sendable
    ) -> Member {
        Member(
            name: name, advice: "write " + Choice.allCases.map(\.rawValue).joined(separator: ", "),
            write: { $0[keyPath: path].rawValue },
            read: { text, augmentation in
                guard let choice = Choice(rawValue: text) else { return false }
                augmentation[keyPath: path] = choice
                return true
            })
    }
}
