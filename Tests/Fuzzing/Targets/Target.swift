import Foundation

/// A reader, called with whatever bytes.
struct Target: Sendable {
    /// What Scripts/fuzz calls it.
    let name: String
    /// Valid inputs to begin with.
    let seeds: @Sendable () throws -> [[UInt8]]
    /// Reads an input; what it throws is forgotten.
    let run: @Sendable (Input) throws -> Void

    /// Every target.
    static let all =
        modelTargets + adapterTargets + runTargets + imageTargets + [json, tuning, program, path]

    /// The target of this name; without one the process ends.
    static func named(_ name: String) -> Target {
        guard let target = all.first(where: { $0.name == name }) else {
            print("there is no target '\(name)'; Fuzzing list names them")
            exit(64)
        }
        return target
    }
}

/// What the fuzzer made: bytes, or where a reader takes several files, one after another with a zero byte between them.
struct Input {
    let bytes: [UInt8]

    /// The files.
    var parts: [ArraySlice<UInt8>] { bytes.split(separator: 0, omittingEmptySubsequences: false) }

    /// Writes the files under these names into the folder; of those for which there is no part none is there.
    func write(_ names: [String], to scratch: Scratch) {
        let parts = parts
        for (index, name) in names.enumerated() {
            if index < parts.count { scratch.write(parts[index], name) } else { scratch.remove(name) }
        }
    }

    /// The input that has these files.
    static func joined(_ files: [[UInt8]]) -> [UInt8] { Array(files.joined(separator: [0])) }
    static func joined(_ files: [String]) -> [UInt8] { joined(files.map { Array($0.utf8) }) }
}

/// A folder in memory, of this process alone.
struct Scratch: Sendable {
    let url: URL

    init(_ name: String, folder: String = "") {
        url = URL(fileURLWithPath: "/dev/shm/glora-fuzzing-\(getpid())/\(name)")
        try! FileManager.default.createDirectory(
            at: url.appendingPathComponent(folder), withIntermediateDirectories: true)
        atexit { try? FileManager.default.removeItem(atPath: "/dev/shm/glora-fuzzing-\(getpid())") }
    }

    /// Writes a file, `zeros` bytes longer than what is given, which take no memory.
    @discardableResult
    func write(_ bytes: some Collection<UInt8>, _ name: String, zeros: Int = 0) -> URL {
        let file = url.appendingPathComponent(name)
        let descriptor = open(file.path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0o600)
        precondition(descriptor >= 0, "cannot open \(file.path)")
        let bytes = Array(bytes)
        precondition(
            Foundation.write(descriptor, bytes, bytes.count) == bytes.count, "cannot write \(file.path)")
        if zeros > 0 { ftruncate(descriptor, off_t(bytes.count + zeros)) }
        close(descriptor)
        return file
    }

    func remove(_ name: String) { unlink(url.appendingPathComponent(name).path) }
}

/// Files of the tests that are valid.
func fixture(_ path: String) throws -> [UInt8] {
    Array(try Data(contentsOf: URL(fileURLWithPath: "Tests/\(path)")))
}
