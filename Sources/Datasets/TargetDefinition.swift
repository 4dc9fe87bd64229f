/// What a head is to say of images, as tables define it: the task, and what its K outputs are.
struct TargetDefinition {
    let task: LearningTask
    /// K
    let count: Int
    /// [K]; nil for classes by number.
    let names: [String]?
    /// Where names are, by name.
    private let places: [String: Int]
    private let areNumbered: Bool
    /// Between the names of labels in a cell; nil for blanks.
    private let separator: Character?
    /// The files that say so.
    private let origin: String

    /// `task`: which one it has to be; nil takes what the tables look like, columns of zeros and ones as labels. `order`: the names in
    /// classes.txt, if there is one; else names are in the header's order, or sorted by bytes.
    ///
    /// Throws `DatasetError`, with the line where there is one, when that can't be. Traps without a table.
    init(_ tables: [TargetTable], for asked: LearningTask?, order: [String]?) throws {
        let header = tables[0].csv.header
        origin = tables.map(\.csv.file.description).joined(separator: " and ")
        var found: [String]?
        switch tables[0].columns {
        case .label:
            task = .classes
            separator = nil
            let cells = tables.flatMap { table in table.csv.rows.map { table.names($0) } }
            // Numbers are classes by number, as in lists, unless classes.txt has such names.
            let ordered = Set(order ?? [])
            areNumbered = cells.allSatisfy { Int($0) != nil } && !cells.allSatisfy(ordered.contains)
            found = order ?? (areNumbered ? nil : TargetDefinition.sorted(cells))
            let largest = areNumbered ? cells.reduce(-1) { max($0, Int($1) ?? 0) } : 0
            count = found?.count ?? min(largest, ListFile.largestLabel) + 1
        case .labels:
            task = .labels
            areNumbered = false
            let cells = tables.flatMap { table in table.csv.rows.map { table.names($0) } }
            let marks = (["|", ";"] as [Character]).filter { mark in cells.contains { $0.contains(mark) } }
            guard marks.count < 2 else {
                throw DatasetError(
                    "\(origin): names of labels are separated by '|' and by ';', and no name may hold either; keep one."
                )
            }
            separator = marks.first
            let names =
                order
                ?? TargetDefinition.sorted(
                    cells.flatMap { TargetDefinition.split($0, at: marks.first) })
            guard !names.isEmpty else {
                throw DatasetError("\(origin): no image has a label; write their names.")
            }
            found = names
            count = names.count
        case .numbers(let columns):
            separator = nil
            areNumbered = false
            let names = columns.map { header[$0] }
            let areMarks = try tables.allSatisfy { table in
                let own = names.compactMap(table.column)
                return try table.csv.rows.allSatisfy { row in
                    try own.allSatisfy { [0, 1].contains(try table.number(row, $0)) }
                }
            }
            task = asked == .labels || asked != .values && areMarks ? .labels : .values
            found = names
            count = names.count
        }
        guard count <= ImageList.largestClassCount else {
            throw DatasetError(
                "\(origin) names \(count) \(task), more than the limit of \(ImageList.largestClassCount); check that the column "
                    + "is the right one.")
        }
        names = found
        places = Dictionary((found ?? []).enumerated().map { ($1, $0) }) { first, _ in first }
        if let asked, asked != task {
            let advice =
                switch asked {
                case .classes: "a column label with a class's name or number"
                case .labels: "a column labels with names, or columns of zeros and ones"
                case .values: "columns of numbers"
                }
            throw DatasetError(
                "\(tables[0].csv.file), line 1: the columns (\(enumeration(header))) are for \(task), not for "
                    + "\(asked), which need \(advice).")
        }
    }

    /// The images of a table with their classes, and targets [images · K], none for classes. Throws `DatasetError` with file and line
    /// for what this definition has no place for.
    func read(_ table: TargetTable) throws -> (entries: [ImageList.Entry], targets: [Float]) {
        var entries: [ImageList.Entry] = []
        var targets: [Float] = []
        let columns = try self.columns(of: table)
        for row in table.csv.rows {
            var label = 0
            switch table.columns {
            case .label: label = try number(of: table.names(row), row, table)
            case .labels:
                var marks = [Float](repeating: 0, count: count)
                for name in TargetDefinition.split(table.names(row), at: separator) {
                    marks[try number(of: name, row, table)] = 1
                }
                targets += marks
            case .numbers:
                for column in columns {
                    let value = try table.number(row, column)
                    guard task == .values || value == 0 || value == 1 else {
                        throw table.problem(
                            row,
                            "\(row.cells[column]) for \(table.csv.header[column]) is neither 0 nor 1; write one of them"
                        )
                    }
                    targets.append(value)
                }
            }
            entries.append(
                ImageList.Entry(path: table.path(row), label: label, origin: table.origin(row)))
        }
        return (entries, targets)
    }

    /// [K] where the outputs' numbers stand; empty for names.
    private func columns(of table: TargetTable) throws -> [Int] {
        func refuse(_ what: String) -> DatasetError {
            DatasetError("\(table.csv.file), line 1: \(what), as \(origin) has it.")
        }
        switch (table.columns, task) {
        case (.label, .classes): return []
        case (.labels, .labels): return []
        case (.numbers(let all), .labels), (.numbers(let all), .values):
            let names = names ?? []
            let missing = names.filter { table.column(of: $0) == nil }
            let others = all.map { table.csv.header[$0] }.filter { places[$0] == nil }
            guard missing.isEmpty else { throw refuse("add a column for \(enumeration(missing))") }
            guard others.isEmpty else { throw refuse("remove the columns \(enumeration(others))") }
            return names.compactMap { table.column(of: $0) }
        default:
            throw refuse(
                "the columns (\(enumeration(table.csv.header))) are for another task; make them for \(task)")
        }
    }

    /// Which output a name is, or a class's number.
    private func number(of name: String, _ row: CSV.Row, _ table: TargetTable) throws -> Int {
        guard !name.isEmpty else {
            throw table.problem(row, "the label is missing; write it or remove the line")
        }
        if let place = areNumbered ? Int(name) : places[name], (0..<count).contains(place) { return place }
        let known = areNumbered ? "0 to \(count - 1)" : enumeration(names ?? [])
        throw table.problem(
            row,
            "\(name.prefix(80)) is not one of the \(task.counted(count)) of \(origin) (\(known)); correct it, or add such "
                + "images there")
    }

    /// Each once, by bytes, as class folders are.
    private static func sorted(_ names: [String]) -> [String] {
        Set(names).filter { !$0.isEmpty }.sorted { $0.utf8.lexicographicallyPrecedes($1.utf8) }
    }

    private static func split(_ cell: String, at separator: Character?) -> [String] {
        cell.split { character in separator.map { $0 == character } ?? character.isWhitespace }
            .map { String(decoding: ListFile.trimmed(Array($0.utf8)[...]), as: UTF8.self) }
            .filter { !$0.isEmpty }
    }
}

extension TargetTable {
    /// The cell of an image's label or labels; empty where there are columns of numbers.
    fileprivate func names(_ row: CSV.Row) -> String {
        switch columns {
        case .label(let column), .labels(let column): row.cells[column]
        case .numbers: ""
        }
    }
}
