import Foundation
import TensorCore
import Testing

@testable import Checkpoints

/// The reader takes what the format's library writes and nothing that it would refuse.
@Suite("safetensors files, as the format's own library takes them")
struct SafetensorsTests {
    /// Writes a file of this header and these data and opens it.
    private func open(_ header: String, data: [UInt8] = [], length: UInt64? = nil) throws -> SafetensorsFile {
        try withTemporaryFolder { folder in
            let url = folder.appendingPathComponent("x.safetensors")
            let size = withUnsafeBytes(of: (length ?? UInt64(header.utf8.count)).littleEndian) { Array($0) }
            try AtomicFile.write(size + Array(header.utf8) + data, to: url)
            return try SafetensorsFile(url)
        }
    }

    @Test("Written tensors are read back to the bit")
    func writtenTensorsAreReadBack() throws {
        try withTemporaryFolder { folder in
            let url = folder.appendingPathComponent("x.safetensors")
            let special: [Float] = [
                .infinity, -.infinity, -0.0, .leastNonzeroMagnitude, .greatestFiniteMagnitude,
            ]
            let tensors: [String: HostTensor] = [
                "a": numbers([3, 5]), "ä \"quoted\"\n": numbers([2, 1, 4], seed: 2), "scalar": numbers([]),
                "empty": HostTensor(shape: [0, 7], values: []),
                "special": HostTensor(shape: [5], values: special),
            ]
            try writeSafetensors(tensors, to: url, metadata: ["k": "v\u{1}", "format": "pt"])
            let file = try SafetensorsFile(url)
            #expect(file.metadata == ["k": "v\u{1}", "format": "pt"])
            #expect(file.names == tensors.keys.sorted())
            for (name, tensor) in tensors {
                #expect(try file.tensor(name) == tensor)
                #expect(file.shape(of: name) == tensor.shape)
            }
            #expect(try file.tensor("special").values[2].sign == .minus)
            // The same bytes every time, and data at a multiple of 8.
            let bytes = try Data(contentsOf: url)
            try writeSafetensors(tensors, to: url, metadata: ["k": "v\u{1}", "format": "pt"])
            #expect(try Data(contentsOf: url) == bytes)
            #expect(Int(bytes[0]) % 8 == 0)
        }
    }

    @Test("Every flipped bit is noticed or changes nothing")
    func everyFlippedBitIsNoticedOrChangesNothing() throws {
        try withTemporaryFolder { folder in
            let url = folder.appendingPathComponent("x.safetensors")
            let tensors = ["a": numbers([2, 3]), "bä": numbers([4], seed: 2)]
            let metadata = ["state": "{\"step\": 3}"]
            try writeSafetensors(tensors, to: url, metadata: metadata, digest: true)
            let whole = try Data(contentsOf: url)
            let written = try SafetensorsFile(url).metadata
            #expect(written["state"] == metadata["state"] && written["glora_digest"]?.count == 64)
            var refused = 0
            for bit in 0..<8 * whole.count {
                var bytes = whole
                bytes[bit / 8] ^= 1 << (bit % 8)
                try bytes.write(to: url)
                guard let file = try? SafetensorsFile(url) else {
                    refused += 1
                    continue
                }
                // What is left is the digest's own key: then the file says none.
                #expect(file.metadata["glora_digest"] == nil && file.metadata["state"] == metadata["state"])
                for (name, tensor) in tensors { #expect(try file.tensor(name) == tensor) }
            }
            #expect(refused > 8 * (whole.count - "glora_digest".count))
            try Data(whole.dropLast() + [whole.last! ^ 1]).write(to: url)
            expectError(
                "x.safetensors is damaged: it has another digest than when it was written; buy a new one"
            ) {
                _ = try SafetensorsFile(url, remedy: "buy a new one")
            }
        }
    }

    @Test("float16 is rounded to the nearest even number")
    func float16IsRoundedToNearestEven() throws {
        try withTemporaryFolder { folder in
            let url = folder.appendingPathComponent("x.safetensors")
            // 2049 and 2051 lie halfway between the even numbers that float16 has there.
            let values: [Float] = [2049, 2051, 65504, -65519, 1e-8, 6e-8, .infinity]
            let wide = numbers([3])
            try writeSafetensors(
                ["a": HostTensor(shape: [7], values: values), "b": wide], to: url,
                storesAsFloat16: { $0 == "a" })
            let file = try SafetensorsFile(url)
            #expect(file.entries["a"]!.type == "F16")
            #expect(try file.tensor("a").values == [2048, 2052, 65504, -65504, 0, 0x1p-24, .infinity])
            #expect(try file.tensor("b") == wide)
            expectError("'c' holds 65520") {
                try writeSafetensors(["c": HostTensor(shape: [1], values: [65520])], to: url, float16: true)
            }
            #expect(try SafetensorsFile(url).names == ["a", "b"])
        }
    }

    @Test("Numbers of every type are converted")
    func everyNumberTypeIsConverted() throws {
        func entry(_ name: String, _ type: String, _ range: Range<Int>, _ count: Int) -> String {
            "\"\(name)\":{\"dtype\":\"\(type)\",\"shape\":[\(count)],\"data_offsets\":[\(range.lowerBound),\(range.upperBound)]}"
        }
        let doubles = [1.0 / 3, -2e300], integers: [Int64] = [-5, 1 << 40], small: [Int32] = [-7, 9]
        var data = doubles.withUnsafeBytes { Array($0) } + integers.withUnsafeBytes { Array($0) }
        data += small.withUnsafeBytes { Array($0) }
        data += [Float16(1.5), -0.25].withUnsafeBytes { Array($0) }
        data += [UInt16(0x3FC0), 0xC000].withUnsafeBytes { Array($0) }
        let header =
            "{"
            + [
                entry("d", "F64", 0..<16, 2), entry("i", "I64", 16..<32, 2), entry("j", "I32", 32..<40, 2),
                entry("h", "F16", 40..<44, 2), entry("b", "BF16", 44..<48, 2),
            ].joined(separator: ",") + "}"
        try withTemporaryFolder { folder in
            let url = folder.appendingPathComponent("x.safetensors")
            let length = withUnsafeBytes(of: UInt64(header.utf8.count)) { Array($0) }
            try AtomicFile.write(length + Array(header.utf8) + data, to: url)
            let file = try SafetensorsFile(url)
            #expect(try file.doubles("d") == doubles)
            #expect(try file.tensor("d").values == [1.0 / 3, -.infinity])
            #expect(try file.integers("i") == [-5, 1 << 40])
            #expect(try file.integers("j") == [-7, 9])
            #expect(try file.tensor("h").values == [1.5, -0.25])
            #expect(try file.tensor("b").values == [1.5, -2])
            #expect(try file.doubles("b") == [1.5, -2])
            expectError("dtype I64; convert it to F32") { _ = try file.tensor("i") }
            expectError("dtype F64; convert it to I64") { _ = try file.integers("d") }
            expectError("no tensor 'z'") { _ = try file.tensor("z") }
        }
    }

    static let tensor = "\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]}"

    /// A header, the number of bytes of data, and what the error must say.
    @Test(
        "A header that lies is refused",
        arguments: [
            ("{\(tensor)}", 7, "'a' ends at byte 8 of the data, which have 7"), ("{\(tensor)}", 9, "cover 8"),
            ("{\(tensor),\(tensor)}", 8, "'a' occurs twice"),
            ("{\(tensor),\"b\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[4,8]}}", 8, "overlaps"),
            (
                "{\(tensor),\"b\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[12,16]}}", 16,
                "leaves a hole"
            ),
            ("{\"a\":{\"dtype\":\"F32\",\"shape\":[3],\"data_offsets\":[0,8]}}", 8, "takes 12 bytes"),
            ("{\"a\":{\"dtype\":\"F33\",\"shape\":[2],\"data_offsets\":[0,8]}}", 8, "unknown dtype F33"),
            (
                "{\"a\":{\"dtype\":\"F32\",\"shape\":[-2],\"data_offsets\":[0,8]}}", 8,
                "impossible dimension -2"
            ),
            (
                "{\"a\":{\"dtype\":\"F32\",\"shape\":[2.0],\"data_offsets\":[0,8]}}", 8,
                "impossible dimension 2.0"
            ),
            (
                "{\"a\":{\"dtype\":\"F32\",\"shape\":[4611686018427387904,4],\"data_offsets\":[0,8]}}", 8,
                "larger than memory"
            ),
            (
                "{\"a\":{\"dtype\":\"F32\",\"shape\":[99999999999999999999],\"data_offsets\":[0,8]}}", 8,
                "impossible dimension"
            ),
            (
                "{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[8,0]}}", 8,
                "impossible data_offsets"
            ),
            (
                "{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[9223372036854775800,9223372036854775807]}}",
                8, "impossible"
            ),
            ("{\"a\":{\"dtype\":\"F32\",\"shape\":[2]}}", 8, "lacks its dtype, shape or data_offsets"),
            ("{\"a\":3}", 0, "lacks its dtype"), ("{\"__metadata__\":{\"a\":3}}", 0, "else than strings"),
            ("{\"__metadata__\":[]}", 0, "no object"), ("[]", 0, "no JSON object"),
            ("{", 0, "key is missing"),
            ("{\"a\":", 0, "ends too early"),
            (" {}", 0, "no JSON object"), ("{} x", 0, "more text"),
            ("{\"a\":{\"shape\":[01]}}", 0, "invalid JSON"),
            (String(repeating: "[", count: 100_000), 0, "no JSON object"),
            ("{\"a\":\(String(repeating: "[", count: 100_000))", 0, "'a' lacks its dtype"),
            ("{\"a\":{\"x\":[[]]}}", 0, "has a member 'x' that is no number or word"),
            ("{\"a\":{\"dtype\":\"F32\",\"dtype\":\"F32\"}}", 0, "'dtype' occurs twice"),
            ("{\"a\":{\"shape\":[1\(String(repeating: ",1", count: 64))]}}", 0, "lacks its dtype, shape"),
            ("{\"__metadata__\":{\"a\":\"\",\"a\":\"\"}}", 0, "'a' occurs twice"),
            ("{\"__metadata__\":{},\"__metadata__\":{}}", 0, "'__metadata__' occurs twice"),
            (
                "{\"__metadata__\":{" + (0...65536).map { "\"\($0)\":\"\"" }.joined(separator: ",") + "}}", 0,
                "more than 65536 strings"
            ),
        ])
    func lyingHeadersAreRefused(_ header: String, _ count: Int, _ part: String) throws {
        expectError(part) { _ = try open(header, data: [UInt8](repeating: 0, count: count)) }
        expectError("x.safetensors") { _ = try open(header, data: [UInt8](repeating: 0, count: count)) }
    }

    @Test("A header of a wrong length is refused")
    func wrongLengthsAreRefused() throws {
        expectError("truncated within its header") { _ = try open("{}", length: 3) }
        expectError("at most 100000000") { _ = try open("{}", length: 100_000_001) }
        expectError("at most 100000000") { _ = try open("{}", length: .max) }
        expectError("no JSON object") { _ = try open("{}", length: 0) }
        try withTemporaryFolder { folder in
            let url = folder.appendingPathComponent("x")
            expectError("No such file") { _ = try SafetensorsFile(url) }
            expectError("is not a file") { _ = try SafetensorsFile(folder) }
            try AtomicFile.write([1, 2, 3], to: url)
            expectError("only 3 bytes") { _ = try SafetensorsFile(url) }
            try AtomicFile.write("version https://git-lfs.github.com/spec/v1\noid sha256:0a\n", to: url)
            expectError("is a pointer of Git LFS and not the file itself; fetch it with git lfs pull") {
                _ = try SafetensorsFile(url)
            }
            try AtomicFile.write(
                [5, 0, 0, 0, 0, 0, 0, 0] + Array("{\"".utf8) + [0xFF] + Array("\"}".utf8), to: url)
            expectError("UTF-8") { _ = try SafetensorsFile(url) }
        }
    }

    @Test("A file that shrinks after it was opened is an error, not a signal")
    func aFileThatShrinksIsAnError() throws {
        try withTemporaryFolder { folder in
            let url = folder.appendingPathComponent("x.safetensors")
            try writeSafetensors(["a": numbers([1000])], to: url)
            let file = try SafetensorsFile(url)
            #expect(truncate(url.path, 200) == 0)
            expectError("ends at byte 200") { _ = try file.tensor("a") }
        }
    }
}
