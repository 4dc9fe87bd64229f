import CZlib
import Foundation
import TensorCore
import Testing

@testable import Checkpoints

/// Archives as numpy writes them, and as somebody who means harm does.
@Suite("NumPy's archives, and archives that mean harm")
struct NPZTests {
    /// A member of an archive that the test makes.
    struct Member {
        var name = "a.npy"
        var data: [UInt8]
        var isDeflated = false
        /// What the archive says in place of the truth.
        var claimedSize: Int?
        var checksum: UInt32?
        var isZip64 = false
    }

    static func bytes(_ value: Int, _ count: Int) -> [UInt8] {
        (0..<count).map { UInt8(value >> (8 * $0) & 255) }
    }

    static func deflated(_ data: [UInt8]) -> [UInt8] {
        var stream = z_stream()
        deflateInit2_(
            &stream, 6, Z_DEFLATED, -MAX_WBITS, 8, Z_DEFAULT_STRATEGY, ZLIB_VERSION,
            Int32(MemoryLayout<z_stream>.size))
        defer { deflateEnd(&stream) }
        var (input, output) = (data, [UInt8](repeating: 0, count: data.count + 1000))
        input.withUnsafeMutableBufferPointer { input in
            output.withUnsafeMutableBufferPointer { output in
                stream.next_in = input.baseAddress
                stream.avail_in = UInt32(input.count)
                stream.next_out = output.baseAddress
                stream.avail_out = UInt32(output.count)
                deflate(&stream, Z_FINISH)
            }
        }
        return Array(output.prefix(Int(stream.total_out)))
    }

    /// A zip file of the members.
    static func zip(_ members: [Member]) -> [UInt8] {
        var (file, directory) = ([UInt8](), [UInt8]())
        for member in members {
            let stored = member.isDeflated ? deflated(member.data) : member.data
            let size = member.claimedSize ?? member.data.count
            let sum = member.checksum ?? UInt32(crc32(0, member.data, UInt32(member.data.count)))
            let (short, compressed) = member.isZip64 ? (0xFFFF_FFFF, 0xFFFF_FFFF) : (size, stored.count)
            let extra =
                member.isZip64 ? bytes(1, 2) + bytes(16, 2) + bytes(size, 8) + bytes(stored.count, 8) : []
            let common =
                bytes(0, 2) + bytes(member.isDeflated ? 8 : 0, 2) + bytes(0, 4) + bytes(Int(sum), 4)
                + bytes(compressed, 4) + bytes(short, 4) + bytes(member.name.utf8.count, 2)
                + bytes(extra.count, 2)
            let offset = file.count
            file += bytes(0x0403_4B50, 4) + bytes(45, 2) + common + Array(member.name.utf8) + extra + stored
            directory += bytes(0x0201_4B50, 4) + bytes(45, 2) + bytes(45, 2) + common + bytes(0, 10)
            directory += bytes(offset, 4) + Array(member.name.utf8) + extra
        }
        let end = bytes(0x0605_4B50, 4) + bytes(0, 4) + bytes(members.count, 2) + bytes(members.count, 2)
        return file + directory + end + bytes(directory.count, 4) + bytes(file.count, 4) + bytes(0, 2)
    }

    /// A .npy array: numpy's header for `type` and `shape`, then `data`.
    static func npy(
        _ type: String, _ shape: String, fortran: Bool = false, version: UInt8 = 1, _ data: [UInt8]
    ) -> [UInt8] {
        let order = fortran ? "True" : "False"
        let header = "{'descr': '\(type)', 'fortran_order': \(order), 'shape': (\(shape)), }\n"
        let length = bytes(header.utf8.count, version == 1 ? 2 : 4)
        return [0x93] + Array("NUMPY".utf8) + [version, 0] + length + Array(header.utf8) + data
    }

    static func raw<Element: BitwiseCopyable>(_ values: [Element]) -> [UInt8] {
        values.withUnsafeBytes { Array($0) }
    }

    func open<Result>(_ file: [UInt8], _ body: (NPZArchive) throws -> Result) throws -> Result {
        try withTemporaryFolder { folder in
            let url = folder.appendingPathComponent("x.npz")
            try AtomicFile.write(file, to: url)
            return try body(NPZArchive(url))
        }
    }

    @Test("Arrays of every kind are read")
    func arraysOfEveryKindAreRead() throws {
        let values = numbers([2, 3]).values
        let large = numbers([300, 500])
        let file = NPZTests.zip([
            Member(name: "f4.npy", data: NPZTests.npy("<f4", "2, 3", NPZTests.raw(values))),
            Member(
                name: "f8.npy",
                data: NPZTests.npy("<f8", "2,3", version: 2, NPZTests.raw(values.map { Double($0) }))),
            Member(
                name: "f2.npy",
                data: NPZTests.npy("<f2", "3,", version: 3, NPZTests.raw([Float16(1.5), -2, 0.1]))),
            Member(
                name: "scalar.npy", data: NPZTests.npy("<f4", "", NPZTests.raw([Float(7)])), isDeflated: true),
            Member(
                name: "columns.npy", data: NPZTests.npy("<f4", "2, 3", fortran: true, NPZTests.raw(values))),
            Member(name: "empty.npy", data: NPZTests.npy("<f4", "0, 4", [])),
            Member(
                name: "a/b/large.npy", data: NPZTests.npy("<f4", "300, 500", NPZTests.raw(large.values)),
                isDeflated: true),
            Member(
                name: "wide.npy", data: NPZTests.npy("<f4", "6", NPZTests.raw(values)), isDeflated: true,
                isZip64: true),
            Member(name: "int.npy", data: NPZTests.npy("<i4", "1", NPZTests.raw([Int32(3)]))),
            Member(name: "big.npy", data: NPZTests.npy(">f4", "1", [0, 0, 0, 0])),
        ])
        try open(file) { (archive: NPZArchive) throws in
            #expect(archive.names.count == 10)
            #expect(try archive.tensor("f4") == HostTensor(shape: [2, 3], values: values))
            #expect(try archive.tensor("f8") == HostTensor(shape: [2, 3], values: values))
            #expect(
                try archive.tensor("f2") == HostTensor(shape: [3], values: [1.5, -2, Float(Float16(0.1))]))
            #expect(try archive.tensor("scalar") == HostTensor(shape: [], values: [7]))
            #expect(try archive.tensor("empty") == HostTensor(shape: [0, 4], values: []))
            #expect(try archive.tensor("a/b/large") == large)
            #expect(try archive.tensor("wide").values == values)
            let columns = [values[0], values[2], values[4], values[1], values[3], values[5]]
            #expect(try archive.tensor("columns") == HostTensor(shape: [2, 3], values: columns))
            #expect(archive.shape(of: "columns") == [2, 3])
            #expect(archive.shape(of: "absent") == nil)
            expectError("no array 'absent'") { _ = try archive.tensor("absent") }
            expectError("type '<i4'") { _ = try archive.tensor("int") }
            expectError("type '>f4'") { _ = try archive.tensor("big") }
        }
    }

    /// One array of four numbers, changed.
    static let data = npy("<f4", "4", raw([Float(1), 2, 3, 4]))

    @Test(
        "An archive that lies is refused by its name and reason",
        arguments: [
            (zip([Member(data: npy("|O", "1", [0x80, 4]))]), "pickled Python object"),
            (zip([Member(data: npy("<f4", "5", raw([Float(1), 2])))]), "lies about 'a'"),
            (
                zip([Member(data: npy("<f4", "4", raw([Float](repeating: 0, count: 4000))), isDeflated: true)]
                ),
                "lies about 'a'"
            ),
            (
                zip([Member(data: data, isDeflated: true, claimedSize: 5 << 30, isZip64: true)]),
                "more than 4 GiB"
            ),
            (zip([Member(name: "../a.npy", data: data)]), "'../a.npy', which no array has"),
            (zip([Member(name: "/etc/a.npy", data: data)]), "which no array has"),
            (zip([Member(name: "a\\b.npy", data: data)]), "which no array has"),
            (zip([Member(name: "a.txt", data: data)]), "no array"),
            (zip([Member(data: data), Member(data: data)]), "a name twice"),
            (zip([Member(data: Array("hello, this is text".utf8))]), "no .npy array"),
            (zip([Member(data: npy("<f4", "-4", []))]), "impossible dimension -4"),
            (zip([Member(data: npy("<f4", "4611686018427387904, 4", []))]), "lies about"),
            (zip([Member(data: npy("<V2", "4", []))]), "type '<V2'"),
            (zip([Member(data: npy("<f4', 'x': '1", "4", []))]), "damaged header"),
            (zip([Member(data: Array(data.prefix(30)))]), "truncated or too long"),
            (zip([Member(data: [0x93] + Array("NUMPY".utf8) + [9, 0, 0, 0])]), "version 9.0"),
            (Array(zip([Member(data: data)]).dropLast(30)), "no complete zip file"),
            (Array(zip([Member(data: data)]).dropFirst(20)), "damaged in its directory"),
            (Array("PK".utf8), "no complete zip file"),
            ([UInt8](repeating: 0, count: 100), "no complete zip file"),
        ])
    func hostileArchivesAreRefused(_ file: [UInt8], _ part: String) throws {
        expectError(part) { try open(file) { _ = $0.names } }
        expectError("x.npz") { try open(file) { _ = $0.names } }
    }

    @Test("A member whose stream isn't what its header says is refused")
    func membersThatLieAreRefused() throws {
        let zeros = NPZTests.npy("<f4", "4000", NPZTests.raw([Float](repeating: 0, count: 4000)))
        func failure(_ member: Member) -> String? {
            message { try open(NPZTests.zip([member])) { _ = try $0.tensor("a") } }
        }
        // Shape and archive agree on 4000 numbers; the stream gives more, and then fewer.
        let longer = Member(
            data: zeros + [UInt8](repeating: 0, count: 100_000), isDeflated: true, claimedSize: zeros.count)
        #expect(failure(longer)!.contains("lies about the size of 'a.npy'"))
        let shorter = Member(data: Array(zeros.dropLast(100)), isDeflated: true, claimedSize: zeros.count)
        #expect(failure(shorter)!.contains("lies about the size of 'a.npy'"))
        let stored = Member(data: zeros + [0, 0], claimedSize: zeros.count)
        #expect(failure(stored)!.contains("lies about the size of 'a.npy'"))
        #expect(failure(Member(data: zeros, isDeflated: true, checksum: 1))!.contains("wrong checksum"))
        #expect(failure(Member(data: zeros)) == nil)
    }

    @Test("Members that overlap are refused")
    func overlappingMembersAreRefused() throws {
        var file = NPZTests.zip([Member(data: NPZTests.data), Member(name: "b.npy", data: NPZTests.data)])
        // The first member's two sizes in the directory, 50 bytes larger than they are.
        let entry = file.indices.first { file[$0...].starts(with: [0x50, 0x4B, 1, 2]) }!
        for field in [20, 24] { file[entry + field] += 50 }
        expectError("overlap at 'b.npy'") { try open(file) { _ = $0.names } }
        // The first member at the place of the second.
        for field in [20, 24] { file[entry + field] -= 50 }
        let next = file.indices.last { file[$0...].starts(with: [0x50, 0x4B, 1, 2]) }!
        file[entry + 42] = file[next + 42]
        expectError("doesn't fit the member 'a.npy'") { try open(file) { _ = $0.names } }
    }

    @Test("A changed byte gives an error or another number, never a crash")
    func damagedArchivesNeverCrash() throws {
        let whole = Array(try Data(contentsOf: fixture("google.npz")))
        var refused = 0
        for position in stride(from: 0, to: whole.count, by: whole.count / 150) {
            var file = whole
            file[position] ^= 0x5A
            let error = message {
                try withTemporaryFolder { folder in
                    let url = folder.appendingPathComponent("x.npz")
                    try Data(file).write(to: url)
                    _ = try ViTCheckpoint.load(url)
                }
            }
            refused += error == nil ? 0 : 1
        }
        // Bytes of times and flags don't matter; the data have checksums.
        #expect(refused > 120)
    }
}
