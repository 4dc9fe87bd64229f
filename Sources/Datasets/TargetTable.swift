import Foundation

/// A CSV file of images and what a head is to say of each, before either is looked up.
///
///     path,label              path,labels             path,cat,dog            path,age,weight
///     a.jpg,cat               a.jpg,cat|dog           a.jpg,1,1               a.jpg,3.5,12
///
/// The first is for classes, by name or by number from 0; the second and third for labels, by name or in a column each of zeros and
/// ones; the last for values. Paths are relative to the file's folder.
struct TargetTable {
    /// Which columns say something of an image, by where they stand in a row.
    enum Columns: Equatable {
        /// The name or number of its class.
        case label(Int)
        /// The names of its labels.
        case labels(Int)
        /// A number each.
        case numbers([Int])
    }

    let csv: CSV
    let columns: Columns
    private let path: Int

    private static let pathNames = ["path", "image", "file", "filename", "file_name"]

    /// Throws `DatasetError` with file and line unless the header says which columns are what, and for a path that is missing or
    /// there twice.
    init(_ file: FilePath) throws {
        csv = try CSV(file)
        let header = csv.header
        func refuse(_ what: String) -> DatasetError { DatasetError("\(file), line 1: \(what).") }
        func column(of names: [String]) throws -> Int? {
            let found = header.indices.filter { names.contains(header[$0].lowercased()) }
            guard found.count < 2 else {
                throw refuse(
                    "\(found.map { header[$0] }.joined(separator: " and ")) mean the same; keep one of these columns"
                )
            }
            return found.first
        }
        for (index, name) in header.enumerated() {
            guard !name.isEmpty, header.firstIndex(of: name) == index else {
                throw refuse(
                    "column \(index + 1) has \(name.isEmpty ? "no name" : "the name \(name) of another"); give it one "
                        + "of its own")
            }
        }
        guard let path = try column(of: TargetTable.pathNames) else {
            throw refuse(
                "the header has no column of paths (it has \(enumeration(header))); begin the file with a line such as "
                    + "path,label")
        }
        let others = header.indices.filter { $0 != path }
        let named = try column(of: ["label", "class", "labels"])
        guard !others.isEmpty, named == nil || others.count == 1 else {
            let names = others.filter { $0 != named }.map { header[$0] }
            throw refuse(
                names.isEmpty
                    ? "\(header[path]) is the only column; add label, labels, or columns of numbers"
                    : "\(header[named!]) already says what the images are; remove \(enumeration(names))")
        }
        self.path = path
        columns =
            switch named {
            case nil: .numbers(others)
            case let named?: header[named].lowercased() == "labels" ? .labels(named) : .label(named)
            }

        var lines: [String: Int] = [:]
        for row in csv.rows {
            let name = row.cells[path]
            guard !name.isEmpty else {
                throw problem(row, "the path is missing; write it or remove the line")
            }
            if let line = lines.updateValue(row.line, forKey: name) {
                throw problem(row, "\(name) is there already, in line \(line); keep one of the lines")
            }
        }
    }

    /// The column of numbers that is called `name`, where that is what this table has.
    func column(of name: String) -> Int? {
        guard case .numbers(let columns) = columns else { return nil }
        return columns.first { csv.header[$0] == name }
    }

    /// The number in a column. Throws `DatasetError` for what is none or not finite in single precision.
    func number(_ row: CSV.Row, _ column: Int) throws -> Float {
        let cell = row.cells[column]
        guard let value = Float(cell), value.isFinite else {
            let name = csv.header[column]
            throw problem(
                row,
                (cell.isEmpty
                    ? "\(name) is missing" : "\"\(cell.prefix(80))\" for \(name) is no finite number")
                    + "; write one or remove the line")
        }
        return value
    }

    func path(_ row: CSV.Row) -> FilePath { FilePath(row.cells[path].utf8) }

    func origin(_ row: CSV.Row) -> ImageList.Origin { ImageList.Origin(place: csv.file, line: row.line) }

    func problem(_ row: CSV.Row, _ what: String) -> DatasetError { DatasetError("\(origin(row)): \(what).") }
}
