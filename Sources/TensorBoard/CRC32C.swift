/// The cyclic redundancy check of Castagnoli (RFC 3720, B.4), by which a reader of event files knows a torn record.
///
///     crc(b) = b · x³² mod P,  bits reversed,  first and last 32 bits inverted,  P = 0x1edc6f41
///     masked(b) = rotate right 15 (crc(b)) + 0xa282ead8  mod 2³²
///
/// The mask is TensorFlow's, since a check over bytes that hold checks says little (tsl/lib/hash/crc32c.h).
enum CRC32C {
    /// What each byte adds, from P reversed.
    private static let table: [UInt32] = (0..<256).map { byte in
        (0..<8).reduce(UInt32(byte)) { crc, _ in crc & 1 == 0 ? crc >> 1 : crc >> 1 ^ 0x82f6_3b78 }
    }

    static func value(_ bytes: some Sequence<UInt8>) -> UInt32 {
        ~bytes.reduce(~0) { crc, byte in crc >> 8 ^ table[Int(UInt8(truncatingIfNeeded: crc) ^ byte)] }
    }

    static func masked(_ bytes: some Sequence<UInt8>) -> UInt32 {
        let crc = value(bytes)
        return (crc >> 15 | crc << 17) &+ 0xa282_ead8
    }
}
