import CZlib
import Foundation

/// The members of a zip file, stored or deflated, with zip64 sizes: what numpy's `savez` writes.
///
/// Sizes are what the central directory says; a member whose data disagree with them is an error. Members may not
/// overlap, so that a small file can't hold many times its size. Source: PKWARE's APPNOTE 6.3.9, sections 4.3 to 4.5.
struct ZipArchive {
    struct Member {
        var name: String
        var isDeflated: Bool
        /// CRC-32 of the uncompressed bytes.
        var checksum: UInt32
        var compressedSize: Int
        var size: Int
        /// Where the compressed bytes begin in the file.
        var offset: Int
    }

    let reader: FileReader
    private(set) var members: [Member] = []

    init(_ url: URL) throws {
        reader = try FileReader(url)
        let directory = try centralDirectory()
        var position = 0
        for _ in 0..<directory.count {
            try members.append(member(directory.bytes, &position, directory.offset))
        }
        guard Set(members.map(\.name)).count == members.count else { throw failure("holds a name twice") }
        var end = 0
        for member in members.sorted(by: { $0.offset < $1.offset }) {
            guard member.offset >= end else { throw failure("has members that overlap at '\(member.name)'") }
            end = member.offset + member.compressedSize
        }
        guard end <= directory.offset else { throw failure("has members that overlap its directory") }
    }

    func failure(_ what: String) -> CheckpointError {
        CheckpointError("\(reader.path) \(what); download or write the file again")
    }

    // MARK: Directory

    private func centralDirectory() throws -> (bytes: [UInt8], count: Int, offset: Int) {
        // The end record has 22 bytes and a comment of at most 65535.
        let length = min(reader.size, 22 + 65535)
        let tail = try reader.elements(UInt8.self, count: length, at: reader.size - length)
        let candidates = stride(from: length - 22, through: 0, by: -1)
        guard let end = candidates.first(where: { tail.integer(4, at: $0) == 0x0605_4B50 }) else {
            throw failure("is no complete zip file")
        }
        var count = tail.integer(2, at: end + 10)
        var size = tail.integer(4, at: end + 12)
        var offset = tail.integer(4, at: end + 16)
        if end >= 20, tail.integer(4, at: end - 20) == 0x0706_4B50 {
            let place = tail.integer(8, at: end - 12)
            guard place >= 0, place <= reader.size - 56 else {
                throw failure("is damaged in its zip64 directory")
            }
            let record = try reader.elements(UInt8.self, count: 56, at: place)
            guard record.integer(4, at: 0) == 0x0606_4B50 else {
                throw failure("is damaged in its zip64 directory")
            }
            count = record.integer(8, at: 32)
            size = record.integer(8, at: 40)
            offset = record.integer(8, at: 48)
        }
        guard offset >= 0, size >= 0, offset <= reader.size, size <= reader.size - offset, size <= 64 << 20,
            count >= 0, count <= size / 46
        else { throw failure("has an impossible directory") }
        return (try reader.elements(UInt8.self, count: size, at: offset), count, offset)
    }

    private func member(_ bytes: [UInt8], _ position: inout Int, _ end: Int) throws -> Member {
        let start = position
        guard start + 46 <= bytes.count, bytes.integer(4, at: start) == 0x0201_4B50 else {
            throw failure("is damaged in its directory")
        }
        let flags = bytes.integer(2, at: start + 8)
        let method = bytes.integer(2, at: start + 10)
        let nameLength = bytes.integer(2, at: start + 28)
        let extraLength = bytes.integer(2, at: start + 30)
        let nameEnd = start + 46 + nameLength
        position = nameEnd + extraLength + bytes.integer(2, at: start + 32)
        guard position <= bytes.count,
            let name = String(validating: bytes[start + 46..<nameEnd], as: UTF8.self)
        else {
            throw failure("is damaged in its directory")
        }
        // Nothing is ever unpacked to a path; such a name says that the file means harm.
        let parts = name.split(separator: "/", omittingEmptySubsequences: false)
        guard !name.isEmpty, !name.contains("\\"), !name.contains("\0"), !parts.contains(""),
            !parts.contains("..")
        else {
            throw failure("holds a member with the path '\(name)', which no array has")
        }
        guard flags & 1 == 0 else { throw failure("is encrypted at '\(name)'") }
        guard method == 0 || method == 8 else { throw failure("uses the compression \(method) at '\(name)'") }
        var sizes = [
            bytes.integer(4, at: start + 24), bytes.integer(4, at: start + 20),
            bytes.integer(4, at: start + 42),
        ]
        try readZip64(bytes[nameEnd..<nameEnd + extraLength], into: &sizes, name: name)
        let local = sizes[2]
        guard sizes.allSatisfy({ $0 >= 0 }), local <= end - 30 else {
            throw failure("has impossible sizes at '\(name)'")
        }
        let head = try reader.elements(UInt8.self, count: 30, at: local)
        let offset = local + 30 + head.integer(2, at: 26) + head.integer(2, at: 28)
        guard head.integer(4, at: 0) == 0x0403_4B50, head.integer(2, at: 8) == method,
            head.integer(2, at: 26) == nameLength, offset <= end, sizes[1] <= end - offset,
            try reader.elements(UInt8.self, count: nameLength, at: local + 30) == Array(name.utf8)
        else { throw failure("has a directory that doesn't fit the member '\(name)'") }
        return Member(
            name: name, isDeflated: method == 8, checksum: UInt32(bytes.integer(4, at: start + 16)),
            compressedSize: sizes[1], size: sizes[0], offset: offset)
    }

    /// Replaces each of size, compressed size and offset that is 0xFFFFFFFF by its 64 bits in the extra field 1.
    private func readZip64(_ extra: ArraySlice<UInt8>, into sizes: inout [Int], name: String) throws {
        var position = extra.startIndex
        while position + 4 <= extra.endIndex {
            let length = extra.integer(2, at: position + 2)
            guard position + 4 + length <= extra.endIndex else { throw failure("is damaged at '\(name)'") }
            if extra.integer(2, at: position) == 1 {
                var field = position + 4
                for index in sizes.indices where sizes[index] == 0xFFFF_FFFF {
                    guard field + 8 <= position + 4 + length else { throw failure("is damaged at '\(name)'") }
                    sizes[index] = extra.integer(8, at: field)
                    field += 8
                }
                return
            }
            position += 4 + length
        }
    }

    // MARK: Data

    /// The first `count` bytes of a member, or fewer when it has fewer.
    func prefix(of member: Member, count: Int) throws -> [UInt8] {
        let length = min(count, member.size)
        return try Array(unsafeUninitializedCapacity: length) { buffer, initialized in
            initialized = try unpack(member, into: UnsafeMutableRawBufferPointer(buffer), isWhole: false)
        }
    }

    /// Fills `buffer`, whose size is the member's, with all its bytes; checks their number and their checksum.
    func read(_ member: Member, into buffer: UnsafeMutableRawBufferPointer) throws {
        _ = try unpack(member, into: buffer, isWhole: true)
        // zlib counts in 32 bits.
        var sum = crc32(0, nil, 0)
        for start in stride(from: 0, to: buffer.count, by: 1 << 30) {
            let part = UnsafeRawBufferPointer(buffer)[start..<min(start + 1 << 30, buffer.count)]
            let base = UnsafeRawBufferPointer(rebasing: part).bindMemory(to: UInt8.self).baseAddress
            sum = crc32(sum, base, UInt32(part.count))
        }
        guard UInt32(sum) == member.checksum else {
            throw failure("is damaged: '\(member.name)' has the wrong checksum")
        }
    }

    private func unpack(
        _ member: Member, into buffer: UnsafeMutableRawBufferPointer, isWhole: Bool
    ) throws -> Int {
        guard member.isDeflated else {
            guard member.size == member.compressedSize else {
                throw failure("lies about the size of '\(member.name)'")
            }
            try reader.read(into: buffer, at: member.offset)
            return buffer.count
        }
        var stream = z_stream()
        // Minus: raw deflate, without zlib's own header.
        guard inflateInit2_(&stream, -MAX_WBITS, ZLIB_VERSION, Int32(MemoryLayout<z_stream>.size)) == Z_OK
        else {
            throw CheckpointError("too little memory to unpack \(reader.path); close other programs")
        }
        defer { inflateEnd(&stream) }
        let input = UnsafeMutableBufferPointer<UInt8>.allocate(capacity: 1 << 18)
        // Room for one byte more than the member may have: a longer stream is seen and refused.
        let surplus = UnsafeMutablePointer<UInt8>.allocate(capacity: 1)
        defer {
            input.deallocate()
            surplus.deallocate()
        }
        let output = buffer.assumingMemoryBound(to: UInt8.self).baseAddress
        var consumed = 0
        var produced = 0
        while true {
            if stream.avail_in == 0 {
                let part = min(input.count, member.compressedSize - consumed)
                guard part > 0 else { throw failure("is damaged: '\(member.name)' ends too early") }
                let bytes = UnsafeMutableRawBufferPointer(
                    rebasing: UnsafeMutableRawBufferPointer(input)[..<part])
                try reader.read(into: bytes, at: member.offset + consumed)
                consumed += part
                stream.next_in = input.baseAddress
                stream.avail_in = UInt32(part)
            }
            let room = min(buffer.count - produced, 1 << 30)
            stream.next_out = room > 0 ? output! + produced : surplus
            stream.avail_out = UInt32(max(room, 1))
            let available = stream.avail_out
            let status = inflate(&stream, Z_NO_FLUSH)
            produced += Int(available - stream.avail_out)
            if !isWhole && produced >= buffer.count { return buffer.count }
            guard status == Z_OK || status == Z_STREAM_END else {
                throw failure("is damaged: '\(member.name)' can't be unpacked")
            }
            guard produced <= buffer.count, status == Z_OK || produced == buffer.count else {
                throw failure("lies about the size of '\(member.name)'")
            }
            if status == Z_STREAM_END { return produced }
        }
    }
}

extension RandomAccessCollection<UInt8> where Index == Int {
    /// A little-endian unsigned integer of 2, 4 or 8 bytes; at an index that the caller has checked. Above Int.max
    /// it is negative, which every caller refuses.
    func integer(_ byteCount: Int, at index: Int) -> Int {
        var value: UInt64 = 0
        for offset in 0..<byteCount { value |= UInt64(self[index + offset]) << UInt64(8 * offset) }
        return Int(truncatingIfNeeded: value)
    }
}
