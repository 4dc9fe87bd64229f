import Foundation

/// Compiled programs on disk. A file that can't be read, or belongs to something else, is as good as none.
///
/// A file is a header of text (what the program was compiled from and for, the names of its kernels, then the length and the
/// hash of the binary), a zero byte, and the binary. It is written to a temporary name and renamed, so that a second
/// process sees the old one, the new one or none.
package struct ProgramCache {
    /// Raised when the layout of the files changes.
    private static let formatVersion = 2

    /// A compiled program.
    package struct Stored: Equatable {
        /// The names of its kernels, in the alphabet's order.
        package var kernels: [String]
        /// What the driver gave.
        package var binary: Data

        package init(kernels: [String], binary: Data) { (self.kernels, self.binary) = (kernels, binary) }
    }

    /// Where the files lie.
    package let directory: URL

    /// `$GLORA_CACHE`, else `$XDG_CACHE_HOME/swift-glora`, else `~/.cache/swift-glora`.
    package init(environment: [String: String] = ProcessInfo.processInfo.environment) {
        func folder(_ key: String) -> URL? {
            environment[key].flatMap { $0.isEmpty ? nil : URL(fileURLWithPath: $0, isDirectory: true) }
        }
        directory =
            folder("GLORA_CACHE")
            ?? (folder("XDG_CACHE_HOME")
            ?? FileManager.default.homeDirectoryForCurrentUser.appendingPathComponent(".cache"))
            .appendingPathComponent("swift-glora")
    }

    /// A cache in a folder of its own, for tests.
    package init(directory: URL) { self.directory = directory }

    /// Everything that decides about a binary: the same key, the same binary.
    package static func key(source: String, options: String, device: OpenCLDevice) -> String {
        """
        swift-glora program \(formatVersion)
        source \(source.utf8.count) \(hash(source.utf8))
        options \(options)
        device \(device.name)
        driver \(device.driverVersion)
        platform \(device.platformName) \(device.platformVersion)
        """
    }

    /// The file that belongs to a key.
    package func file(_ key: String) -> URL {
        directory.appendingPathComponent("program-\(ProgramCache.hash(key.utf8)).bin")
    }

    /// The program stored under the key, or nil.
    package func load(_ key: String) -> Stored? {
        guard let data = try? Data(contentsOf: file(key)), let end = data.firstIndex(of: 0) else {
            return nil
        }
        let kernels = String(decoding: data[..<end], as: UTF8.self).split(separator: "\n")
            .last { $0.hasPrefix("kernels ") }?.split(separator: " ").dropFirst().map(String.init)
        let stored = Stored(kernels: kernels ?? [], binary: Data(data[(end + 1)...]))
        return data[..<end].elementsEqual(header(key, stored).utf8) ? stored : nil
    }

    /// Stores a program; a folder that can't be written to costs the next start its time, and nothing else.
    package func store(_ key: String, _ program: Stored) {
        let temporary = directory.appendingPathComponent(
            "program-\(ProcessInfo.processInfo.processIdentifier)-\(UInt32.random(in: 0...UInt32.max)).tmp")
        do {
            try FileManager.default.createDirectory(at: directory, withIntermediateDirectories: true)
            try (Data(header(key, program).utf8) + [0] + program.binary).write(to: temporary)
            guard rename(temporary.path, file(key).path) == 0 else { throw CocoaError(.fileWriteUnknown) }
        } catch {
            try? FileManager.default.removeItem(at: temporary)
        }
    }

    private func header(_ key: String, _ program: Stored) -> String {
        """
        \(key)
        kernels \(program.kernels.joined(separator: " "))
        binary \(program.binary.count) \(ProgramCache.hash(program.binary))

        """
    }

    /// FNV-1a in 64 bits: against accidents, not against attackers, who could write the binary itself.
    static func hash(_ bytes: some Sequence<UInt8>) -> String {
        var hash: UInt64 = 0xcbf2_9ce4_8422_2325
        for byte in bytes { hash = (hash ^ UInt64(byte)) &* 0x100_0000_01b3 }
        return String(hash, radix: 16)
    }
}
