import Foundation
import Testing

@testable import TensorBoard

/// What TensorBoard's own writers make; see Fixtures/make_fixtures.py.
private struct Fixtures: Decodable {
    struct Check: Decodable, Sendable, CustomTestStringConvertible {
        let text: String
        let crc: UInt32
        let masked: UInt32
        var testDescription: String { "\(text.prefix(10))" }
    }
    let time: Double
    let plain: Data
    let purged: Data
    let checks: [Check]

    static let expected: Fixtures = {
        let file = URL(fileURLWithPath: #filePath).deletingLastPathComponent()
            .appendingPathComponent("Fixtures/events.json")
        do { return try JSONDecoder().decode(Fixtures.self, from: try Data(contentsOf: file)) } catch {
            fatalError("\(file.path) can't be read: \(error)")
        }
    }()
}

@Suite("Event files for TensorBoard")
struct EventWriterTests {
    /// A folder's name that nobody has, removed afterwards.
    private func withFolder(_ body: (URL) throws -> Void) throws {
        let folder = FileManager.default.temporaryDirectory.appendingPathComponent(
            "events-\(UUID().uuidString)")
        defer { try? FileManager.default.removeItem(at: folder) }
        try body(folder)
    }

    private func writer(_ folder: URL, purgeStep: Int? = nil) throws -> EventWriter {
        try EventWriter(folder: folder, purgeStep: purgeStep) { Fixtures.expected.time }
    }

    @Test("The check of bytes is TensorBoard's", arguments: Fixtures.expected.checks)
    private func checks(_ check: Fixtures.Check) {
        #expect(CRC32C.value(check.text.utf8) == check.crc)
        #expect(CRC32C.masked(check.text.utf8) == check.masked)
    }

    @Test("Numbers, pictures and text are the bytes that TensorBoard's own writer makes of torch's events")
    func records() throws {
        try withFolder { folder in
            let events = try writer(folder)
            try events.scalar("loss", 0, step: 0)
            try events.scalar("loss/train", 0.1, step: 1)
            try events.scalar("é", .nan, step: 5_000_000_000)
            try events.scalar("loss", -2.5, step: -1)
            try events.image("picture", png: Data(0...255), width: 300, height: 7, step: 7)
            try events.text("settings", String(repeating: "**rank** 8\n", count: 30), step: 300)
            try events.flush()
            #expect(try Data(contentsOf: events.url) == Fixtures.expected.plain)
        }
    }

    @Test(
        "A run that goes on has a new file, which begins with the step from which the others no longer hold")
    func goingOn() throws {
        try withFolder { folder in
            let first = try writer(folder)
            let second = try writer(folder, purgeStep: 129)
            #expect(try Data(contentsOf: second.url) == Fixtures.expected.purged)
            let names = [first, second].map { $0.url.lastPathComponent }
            #expect(names[0].hasPrefix("events.out.tfevents.1700000000."))
            #expect(names[0].hasSuffix(".\(getpid()).0") && names[1].hasSuffix(".\(getpid()).1"))
        }
    }

    @Test("A reader finds whole records after each event, without a flush")
    func growing() throws {
        try withFolder { folder in
            let events = try writer(folder)
            var lengths: [Int] = []
            for step in 0..<3 {
                lengths.append(try Data(contentsOf: events.url).count)
                try events.scalar("loss", 1, step: step + 1)
            }
            // 12 bytes before and 4 behind a message of 9 + 2 + 2 + 2 + 6 + 5.
            #expect(lengths == [40, 82, 124])
        }
    }

    @Test("A full disk, a closed writer and a folder that can't be made are sentences")
    func failures() throws {
        let full = URL(fileURLWithPath: "/dev/full")
        let error = #expect(throws: EventError.self) {
            _ = try EventWriter(full, open(full.path, O_WRONLY), purgeStep: nil) { 0 }
        }
        #expect(
            error?.description
                == "cannot write /dev/full: No space left on device; free some space or choose another disk")
        try withFolder { folder in
            let events = try writer(folder)
            try events.close()
            try events.close()
            try events.flush()
            #expect(throws: EventError.self) { try events.scalar("loss", 1, step: 1) }
            let inFile = events.url.appendingPathComponent("below")
            let error = #expect(throws: EventError.self) { _ = try writer(inFile) }
            #expect(error?.description.hasPrefix("cannot make the folder \(inFile.path); ") == true)
        }
    }

    @Test("Events of several threads are all there, each whole")
    func threads() throws {
        try withFolder { folder in
            let events = try writer(folder)
            DispatchQueue.concurrentPerform(iterations: 64) { step in
                try? events.scalar("loss", 1, step: step + 1)
            }
            #expect(try Data(contentsOf: events.url).count == 40 + 64 * 42)
        }
    }
}
