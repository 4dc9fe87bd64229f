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

    let decoded: [Decoded]
    let resized: [Resized]
    let cropped: [Cropped]

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
