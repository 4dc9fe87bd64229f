import Datasets
import Foundation
import Testing

/// Images and what Pillow makes of them; see Fixtures/make_fixtures.py.
struct Fixtures: Decodable {
    struct Decoded: Decodable, Sendable, CustomTestStringConvertible {
        let file: String
        let width: Int
        let height: Int
        let pixels: Data
        var testDescription: String { file }
    }
    struct Resized: Decodable, Sendable, CustomTestStringConvertible {
        let width: Int
        let height: Int
        let hash: String
        let pixels: Data?
        var testDescription: String { "\(width)x\(height)" }
    }
    struct Cropped: Decodable, Sendable, CustomTestStringConvertible {
        let view: String
        let shorter: Int
        let side: Int
        let hash: String
        var testDescription: String { "\(side) of \(shorter), \(view)" }
    }

    struct Filtered: Decodable, Sendable, CustomTestStringConvertible {
        let filter: Preprocessing.Filter
        let view: String
        let width: Int
        let height: Int
        let hash: String
        let pixels: Data?
        var testDescription: String { "\(filter) \(view) \(width)x\(height)" }
    }
    struct Centred: Decodable, Sendable, CustomTestStringConvertible {
        let crop: Preprocessing.Crop
        let view: String
        let side: Int
        let hash: String
        var testDescription: String { "\(crop) \(view) \(side)" }
    }

    let decoded: [Decoded]
    let resized: [Resized]
    let cropped: [Cropped]
    let filtered: [Filtered]
    let centred: [Centred]

    static let folder = URL(fileURLWithPath: #filePath).deletingLastPathComponent()
        .appendingPathComponent("Fixtures")

    static let expected: Fixtures = {
        do {
            let data = try Data(contentsOf: folder.appendingPathComponent("expected.json"))
            return try JSONDecoder().decode(Fixtures.self, from: data)
        } catch {
            fatalError("Fixtures/expected.json can't be read: \(error)")
        }
    }()

    static func path(_ file: String) -> String { folder.appendingPathComponent(file).path }

    static func bytes(_ file: String) throws -> [UInt8] {
        [UInt8](try Data(contentsOf: folder.appendingPathComponent(file)))
    }
}

/// Decodes bytes that are called `test image`.
func decode(_ bytes: [UInt8]) throws -> RGBImage {
    try bytes.withUnsafeBytes { try RGBImage.decode($0, name: "test image") }
}

/// FNV-1a, 64 bits, in hexadecimal.
func fnv(_ bytes: [UInt8]) -> String {
    let hash = bytes.reduce(0xcbf2_9ce4_8422_2325 as UInt64) { ($0 ^ UInt64($1)) &* 0x100_0000_01b3 }
    let text = String(hash, radix: 16)
    return String(repeating: "0", count: 16 - text.count) + text
}

/// Writes a file whose name is these bytes, which need not be UTF-8. The folder is made if it isn't there.
func write(_ bytes: [UInt8], _ folder: URL, named name: [UInt8]...) throws {
    var path = Array(folder.path.utf8)
    for part in name {
        mkdir(path.map { CChar(bitPattern: $0) } + [0], 0o755)
        path += [UInt8(ascii: "/")] + part
    }
    let file = try #require(fopen(path.map { CChar(bitPattern: $0) } + [0], "w"))
    fwrite(bytes, 1, bytes.count, file)
    fclose(file)
}

/// A folder that is there while `body` runs, with these files by relative path.
func withTemporaryFolder(_ files: [String: [UInt8]], _ body: (URL) throws -> Void) throws {
    let folder = FileManager.default.temporaryDirectory
        .appendingPathComponent("dataset-tests-\(UUID().uuidString)")
    defer { try? FileManager.default.removeItem(at: folder) }
    try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
    for (path, bytes) in files {
        let url = folder.appendingPathComponent(path)
        try FileManager.default.createDirectory(
            at: url.deletingLastPathComponent(), withIntermediateDirectories: true)
        try Data(bytes).write(to: url)
    }
    try body(folder)
}
