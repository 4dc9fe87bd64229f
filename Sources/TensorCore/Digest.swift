import COpenSSL
import Foundation

/// The SHA-256 of bytes that may come in parts, in hexadecimal: what names a cached file, and what tells that a file's tensors are
/// those that were written.
package final class Digest {
    private let context = EVP_MD_CTX_new()

    /// Of nothing yet.
    package init() { check(EVP_DigestInit_ex(context, EVP_sha256(), nil)) }

    deinit { EVP_MD_CTX_free(context) }

    /// Of these bytes.
    package static func of(_ bytes: some DataProtocol) -> String {
        let digest = Digest()
        for region in bytes.regions { region.withUnsafeBytes { digest.add($0) } }
        return digest.hexadecimal
    }

    /// Goes on with these bytes.
    package func add(_ bytes: UnsafeRawBufferPointer) {
        check(EVP_DigestUpdate(context, bytes.baseAddress, bytes.count))
    }

    /// 64 digits, of all that was added so far.
    package var hexadecimal: String {
        var bytes = [UInt8](repeating: 0, count: 32)
        let copy = EVP_MD_CTX_new()
        defer { EVP_MD_CTX_free(copy) }
        check(EVP_MD_CTX_copy_ex(copy, context))
        check(EVP_DigestFinal_ex(copy, &bytes, nil))
        return bytes.map { byte in String(byte >> 4, radix: 16) + String(byte & 15, radix: 16) }.joined()
    }

    /// OpenSSL says 1 for success; it fails for want of memory, or where SHA-256 was taken out of it.
    private func check(_ status: Int32) {
        guard status == 1 else { fatalError("OpenSSL's SHA-256 fails: is libcrypto built without it?") }
    }
}
