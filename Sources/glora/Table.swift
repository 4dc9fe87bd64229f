/// A table for a terminal and for a page.
struct Table {
    let head: [String]
    var rows: [[String]] = []

    /// Columns as wide as their widest cell: the first flush left, the others right.
    var lines: [String] {
        let all = [head] + rows
        let widths = head.indices.map { column in all.map { $0[column].count }.max() ?? 0 }
        return all.map { row in
            let cells = row.enumerated().map { $1.padded(to: widths[$0], right: $0 > 0) }
            return cells.joined(separator: "  ").replacing(/\ +$/, with: "")
        }
    }

    /// Markdown's lines, the columns aligned as on a terminal.
    var markdown: [String] {
        func line(_ cells: [String]) -> String {
            "| " + cells.map { $0.replacing("|", with: "\\|") }.joined(separator: " | ") + " |"
        }
        return [line(head), line(head.indices.map { $0 == 0 ? "---" : "---:" })] + rows.map(line)
    }

    var html: String { Page.table(head, rows) }
}

extension String {
    /// A cell of a column that is `width` characters wide, flush left or `right`.
    func padded(to width: Int, right: Bool = false) -> String {
        let space = String(repeating: " ", count: max(0, width - count))
        return right ? space + self : self + space
    }
}
