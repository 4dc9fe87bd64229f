import Foundation
import Testing

@testable import Checkpoints

@Suite("Files are written whole or not at all")
struct AtomicFileTests {
    private func contents(_ folder: URL) throws -> [String] {
        try FileManager.default.contentsOfDirectory(atPath: folder.path).sorted()
    }

    @Test("A file is replaced whole")
    func filesAreReplacedWhole() throws {
        try withTemporaryFolder { folder in
            let url = folder.appendingPathComponent("a.txt")
            try AtomicFile.write("one", to: url)
            try AtomicFile.write("two", to: url)
            #expect(try String(contentsOf: url, encoding: .utf8) == "two")
            #expect(try contents(folder) == ["a.txt"])
        }
    }

    @Test("A failure leaves the old file and nothing else")
    func aFailureLeavesTheOldFileAndNothingElse() throws {
        try withTemporaryFolder { folder in
            let url = folder.appendingPathComponent("a.txt")
            try AtomicFile.write("old", to: url)
            let error = message {
                try AtomicFile.write(to: url) { writer in
                    try Array("half".utf8).withUnsafeBytes { try writer.write($0) }
                    #expect(try contents(folder).count == 2)
                    throw CheckpointError("stop")
                }
            }
            #expect(error == "stop")
            #expect(try String(contentsOf: url, encoding: .utf8) == "old")
            #expect(try contents(folder) == ["a.txt"])
        }
    }

    /// /dev/full answers every write as a full disk does.
    @Test("A full disk is an error that says so")
    func aFullDiskIsSaid() throws {
        let descriptor = open("/dev/full", O_WRONLY)
        defer { close(descriptor) }
        let writer = AtomicFile.Writer(descriptor: descriptor, path: "/somewhere/model.safetensors")
        let error = message { try [UInt8](repeating: 0, count: 10).withUnsafeBytes { try writer.write($0) } }
        #expect(
            error == "cannot write /somewhere/model.safetensors: No space left on device; "
                + "free some space or choose another disk")
    }

    @Test("A place that can't be written to is named")
    func placesThatCantBeWrittenAreNamed() throws {
        try withTemporaryFolder { folder in
            let missing = folder.appendingPathComponent("absent/a.txt")
            expectError("make its folder first") { try AtomicFile.write("x", to: missing) }
            expectError("is not a file") { try AtomicFile.write("x", to: folder) }
            // A pipe stands for the devices, whose place a rename would take.
            let pipe = folder.appendingPathComponent("pipe")
            #expect(mkfifo(pipe.path, 0o600) == 0)
            expectError("is not a file") { try AtomicFile.write("x", to: pipe) }
            try AtomicFile.write("x", to: folder.appendingPathComponent("file"))
            let below = folder.appendingPathComponent("file/folder")
            expectError("cannot make the folder") { try AtomicFile.createFolder(below) }
        }
    }

    @Test("A symbolic link is replaced and never written through")
    func aLinkIsReplacedAndNeverWrittenThrough() throws {
        try withTemporaryFolder { folder in
            let (target, link) = (
                folder.appendingPathComponent("target"), folder.appendingPathComponent("link")
            )
            try AtomicFile.write("old", to: target)
            try FileManager.default.createSymbolicLink(at: link, withDestinationURL: target)
            expectError("it is a symbolic link") { try AtomicFile.append("new", to: link) }
            try AtomicFile.write("new", to: link)
            try AtomicFile.append("er", to: link)
            #expect(try String(contentsOf: target, encoding: .utf8) == "old")
            #expect(try String(contentsOf: link, encoding: .utf8) == "newer")
        }
    }
}

@Suite("JSON is read strictly and written the same way every time")
struct JSONTests {
    @Test("Values of every kind are read and written")
    func valuesAreReadAndWritten() throws {
        let text = #"{"a": [1, -2.5, 1e3, true, null], "b": {"c": "\u00e4\ud83d\ude00\n\"/"}, "d": []}"#
        let value = try JSONValue(parsing: text.utf8)
        #expect(
            value == [
                "a": [1, -2.5, .number(1000), true, nil], "b": ["c": "ä😀\n\"/"], "d": [],
            ])
        #expect(try JSONValue(parsing: value.text().utf8) == value)
        #expect(try JSONValue(parsing: value.text(indented: true).utf8) == value)
        #expect(value.text() == #"{"a": [1, -2.5, 1000.0, true, null], "b": {"c": "ä😀\n\"/"}, "d": []}"#)
        #expect((["x": [1, 2]] as JSONValue).text(indented: true) == "{\n  \"x\": [1, 2]\n}")
    }

    @Test(
        "What isn't JSON is refused",
        arguments: [
            "", "{", "[1,]", "{\"a\":1,}", "{'a':1}", "01", "1.", "+1", ".5", "1e", "nul", "\"\t\"",
            "\"\\x\"",
            "\"\\ud800\"",
            "\"\\ud800\\u0041\"", "\"\\u12\"", "\"\\u+123\"", "[1 2]", "{\"a\" 1}", "{\"a\":1,\"a\":2}",
            "1e999",
            "NaN", "1 1",
        ])
    func whatIsNotJSONIsRefused(_ text: String) {
        #expect(message { _ = try JSONValue(parsing: text.utf8) }?.hasPrefix("invalid JSON") == true)
    }
}
