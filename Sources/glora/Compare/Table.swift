import Checkpoints
import Experiments
import Foundation
import Training

/// A table for a terminal and for a page.
struct Table {
    let head: [String]
    var rows: [[String]] = []

    /// Columns as wide as their widest cell: the first flush left, the others right.
    var lines: [String] {
        let all = [head] + rows
        let widths = head.indices.map { column in all.map { $0[column].count }.max() ?? 0 }
        return all.map { row in
            let cells = row.enumerated().map { column, cell in
                let space = String(repeating: " ", count: widths[column] - cell.count)
                return column == 0 ? cell + space : space + cell
            }
            return cells.joined(separator: "  ").replacing(/\ +$/, with: "")
        }
    }

    var html: String { Page.table(head, rows) }
}

extension Spread {
    /// In per cent: `71.3 ± 0.4`, or `71.3` of one seed.
    var percent: String {
        (100 * mean).fixed(1) + (deviation.map { " ± " + (100 * $0).fixed(1) } ?? "")
    }
}

/// The page of a comparison, and its place.
struct ComparisonPage {
    let title: String
    var sections: [String] = []
    private let output: URL

    init(_ title: String, in output: URL) {
        self.title = title
        self.output = output
    }

    mutating func add(_ title: String, _ body: String) { sections.append(Page.section(title, body)) }

    /// How it was done, and the command that does it again.
    mutating func addProtocol(_ lines: [String]) {
        add(
            "How this was done",
            "<ul>" + lines.map { "<li>\(Page.escape($0))</li>" }.joined() + "</ul>")
        let words = CommandLine.arguments.dropFirst().map(\.shellQuoted)
        add("To make it again", "<pre>\(Page.escape("glora " + words.joined(separator: " ")))</pre>")
    }

    /// Writes OUTPUT/report.html and says so.
    func write(_ console: Console) throws {
        let file = output.appendingPathComponent("report.html")
        try AtomicFile.write(Page.html(title: title, sections), to: file)
        console.say("wrote \(file.path)")
    }
}
