import Crypto
import Foundation

/// The SHA-256 of bytes that may come in parts, in hexadecimal: what names a cached file, and what tells that a file's tensors are
/// those that were written.
package struct Digest {
    private var hash = SHA256()

    /// Of nothing yet.
    package init() {}

    /// Of these bytes.
    package static func of(_ bytes: some DataProtocol) -> String {
        var digest = Digest()
        digest.hash.update(data: bytes)
        return digest.hexadecimal
    }

    /// Goes on with these bytes.
    package mutating func add(_ bytes: UnsafeRawBufferPointer) { hash.update(bufferPointer: bytes) }

    /// 64 digits.
    package var hexadecimal: String {
        hash.finalize().map { byte in String(byte >> 4, radix: 16) + String(byte & 15, radix: 16) }.joined()
    }
}
