import Foundation
import TensorCore

/// Compiled programs on disk. A file that can't be read, or belongs to something else, is as good as none.
///
/// A file is a header of text (what the program was compiled from and for, the names of its kernels, then the length and the
/// SHA-256 of the binary), a zero byte, and the binary.
package struct ProgramCache {
    /// Raised when the layout of the files changes.
    private static let formatVersion = 3

    /// A compiled program.
    package struct Stored: Equatable {
        /// The names of its kernels, in the alphabet's order.
        package var kernels: [String]
        /// What the driver gave.
        package var binary: Data

        package init(kernels: [String], binary: Data) { (self.kernels, self.binary) = (kernels, binary) }
    }

    /// Where the files lie.
    package let folder: CacheFolder

    /// The user's.
    package init() { folder = CacheFolder() }

    /// A cache in a folder of its own, for tests.
    package init(directory: URL) { folder = CacheFolder(directory) }

    /// Everything that decides about a binary: the same key, the same binary.
    package static func key(source: String, options: String, device: OpenCLDevice) -> String {
        """
        swift-glora program \(formatVersion)
        source \(Digest.of(Data(source.utf8)))
        options \(options)
        device \(device.name)
        driver \(device.driverVersion)
        platform \(device.platformName) \(device.platformVersion)
        """
    }

    /// The name of the file that belongs to a key.
    package static func name(_ key: String) -> String { "program-\(Digest.of(Data(key.utf8))).bin" }

    /// The program stored under the key, or nil.
    package func load(_ key: String) -> Stored? {
        guard let data = folder.read(ProgramCache.name(key)), let end = data.firstIndex(of: 0) else {
            return nil
        }
        let kernels = String(decoding: data[..<end], as: UTF8.self).split(separator: "\n")
            .last { $0.hasPrefix("kernels ") }?.split(separator: " ").dropFirst().map(String.init)
        let stored = Stored(kernels: kernels ?? [], binary: Data(data[(end + 1)...]))
        return data[..<end].elementsEqual(header(key, stored).utf8) ? stored : nil
    }

    /// Stores a program, if the folder can be written to.
    package func store(_ key: String, _ program: Stored) {
        folder.write(ProgramCache.name(key), Data(header(key, program).utf8) + [0] + program.binary)
    }

    private func header(_ key: String, _ program: Stored) -> String {
        """
        \(key)
        kernels \(program.kernels.joined(separator: " "))
        binary \(program.binary.count) \(Digest.of(program.binary))

        """
    }
}
