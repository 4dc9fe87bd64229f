import Checkpoints
import Experiments
import Foundation

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
        (self.title, self.output) = (title, output)
    }

    mutating func add(_ title: String, _ body: String) { sections.append(Page.section(title, body)) }

    /// What the first seed's runs take for what, one below the other, on the test that comes first.
    mutating func addMistakes(_ outcomes: [Outcome]) throws {
        let all = try outcomes.compactMap { outcome in
            try Mistakes(outcome.cells[0].cell.directory).map { (outcome, $0) }
        }
        guard !all.isEmpty else { return }
        let tasks = Set(outcomes.map(\.task)).count
        add(
            "Mistakes, first seed",
            all.map { outcome, mistakes in
                let title = (tasks > 1 ? "\(outcome.task), " : "") + outcome.method.description
                return "<details><summary>\(Page.escape(title))</summary>\(mistakes.html)</details>"
            }.joined())
    }

    /// How it was done, and what does it again: `again`, or else this command.
    mutating func addProtocol(_ lines: [String], again: String? = nil) {
        add(
            "How this was done",
            "<ul>" + lines.map { "<li>\(Page.escape($0))</li>" }.joined() + "</ul>")
        let words = CommandLine.arguments.dropFirst().map(\.shellQuoted)
        let again = again ?? "glora " + words.joined(separator: " ")
        add("To make it again", "<pre>\(Page.escape(again))</pre>")
    }

    /// Writes OUTPUT/report.html and says so, unless it is one that `isFollowed`.
    func write(_ console: Console, isFollowed: Bool = false) throws {
        let file = output.appendingPathComponent("report.html")
        try AtomicFile.write(Page.html(title: title, isFollowed: isFollowed, sections), to: file)
        if !isFollowed { console.say("wrote \(file.path)") }
    }
}
