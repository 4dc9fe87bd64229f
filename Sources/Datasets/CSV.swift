/// A CSV file's rows, as RFC 4180 has them: cells between commas; in quotation marks where they hold commas, ends of lines or
/// quotation marks, which are doubled there.
///
/// UTF-8 with or without a byte-order mark; lines end with a newline, a return or both. Rows without a cell are passed over, and so are
/// blanks around cells that stand in no quotation marks.
struct CSV {
    struct Row {
        /// That of its first cell, from 1.
        let line: Int
        let cells: [String]
    }

    let file: FilePath
    /// The first row, without blanks around its cells.
    let header: [String]
    /// The others; each has as many cells as the header.
    let rows: [Row]

    /// Throws `DatasetError` with file and line for what is no CSV, and for a row with more or fewer cells than the header.
    init(_ file: FilePath) throws {
        let bytes: [UInt8]
        do throws(FileProblem) { bytes = try file.read() } catch {
            throw DatasetError("the table \(file) can't be read: \(error.reason); give a CSV file.")
        }
        try refuseUTF16(bytes, file)
        var parser = Parser(bytes, file)
        var rows: [Row] = []
        while let row = try parser.next() { rows.append(row) }
        guard let first = rows.first else {
            throw DatasetError(
                "\(file) is empty; write a header such as path,label and a row for each image.")
        }
        self.file = file
        header = first.cells.map { String(decoding: ListFile.trimmed(Array($0.utf8)[...]), as: UTF8.self) }
        for row in rows.dropFirst() where row.cells.count != header.count {
            throw DatasetError(
                "\(file), line \(row.line): the row has \(row.cells.count) cells, the header \(header.count); add or "
                    + "remove some, or put a cell with a comma in quotation marks.")
        }
        self.rows = Array(rows.dropFirst())
    }

    /// Takes rows off the file's bytes.
    private struct Parser {
        private let bytes: [UInt8]
        private let file: FilePath
        private var place: Int
        private var line = 1

        private static let quote = UInt8(ascii: "\"")
        private static let comma = UInt8(ascii: ",")

        init(_ bytes: [UInt8], _ file: FilePath) {
            (self.bytes, self.file) = (bytes, file)
            place = bytes.starts(with: byteOrderMark) ? byteOrderMark.count : 0
        }

        /// The next row that isn't blank, or nil at the end.
        mutating func next() throws -> Row? {
            while place < bytes.count {
                let first = line
                var cells: [String] = [try cell()]
                while place < bytes.count, bytes[place] == Parser.comma {
                    place += 1
                    cells.append(try cell())
                }
                endLine()
                if cells != [""] { return Row(line: first, cells: cells) }
            }
            return nil
        }

        /// Ends before a comma or the line's end.
        private mutating func cell() throws -> String {
            while place < bytes.count, isBlank(bytes[place]) { place += 1 }
            if place < bytes.count, bytes[place] == Parser.quote { return try quotedCell() }
            let start = place
            while place < bytes.count, bytes[place] != Parser.comma, !isEnd(bytes[place]) {
                guard bytes[place] != Parser.quote else {
                    throw problem(
                        line, "a quotation mark stands inside a cell",
                        "put the cell in quotation marks and double those inside")
                }
                place += 1
            }
            return try text(ListFile.trimmed(bytes[start..<place]), line)
        }

        private mutating func quotedCell() throws -> String {
            let first = line
            var cell: [UInt8] = []
            place += 1
            while true {
                guard place < bytes.count else {
                    throw problem(first, "a quotation mark is never closed", "close or double it")
                }
                let byte = bytes[place]
                place += 1
                if byte == Parser.quote {
                    guard place < bytes.count, bytes[place] == Parser.quote else { break }
                    place += 1
                } else if byte == 0x0a || byte == 0x0d && !(place < bytes.count && bytes[place] == 0x0a) {
                    line += 1
                }
                cell.append(byte)
            }
            while place < bytes.count, isBlank(bytes[place]) { place += 1 }
            guard place == bytes.count || bytes[place] == Parser.comma || isEnd(bytes[place]) else {
                throw problem(
                    line, "text follows a closing quotation mark", "put a comma between, or double the mark")
            }
            return try text(cell[...], first)
        }

        private mutating func endLine() {
            guard place < bytes.count else { return }
            let isReturn = bytes[place] == 0x0d
            place += 1
            if isReturn, place < bytes.count, bytes[place] == 0x0a { place += 1 }
            line += 1
        }

        private func isBlank(_ byte: UInt8) -> Bool { byte == 0x20 || byte == 0x09 }

        private func isEnd(_ byte: UInt8) -> Bool { byte == 0x0a || byte == 0x0d }

        private func text(_ cell: ArraySlice<UInt8>, _ line: Int) throws -> String {
            guard let text = String(validating: cell, as: UTF8.self) else {
                throw problem(line, "\"\(FilePath(cell.prefix(80)))\" is no UTF-8", "save the file as UTF-8")
            }
            return text
        }

        private func problem(_ line: Int, _ what: String, _ remedy: String) -> DatasetError {
            DatasetError("\(file), line \(line): \(what); \(remedy).")
        }
    }
}
