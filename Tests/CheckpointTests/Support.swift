import Foundation
import TensorCore
import Testing

@testable import Checkpoints

/// The fixtures' folder, beside this file.
let fixtures = URL(fileURLWithPath: #filePath).deletingLastPathComponent().appendingPathComponent("Fixtures")

func fixture(_ name: String) -> URL { fixtures.appendingPathComponent(name) }

/// What the tools that made the fixtures compute.
func expected(_ name: String) throws -> HostTensor {
    try SafetensorsFile(fixture("logits.safetensors")).tensor(name)
}

/// Runs `body` with a new folder and removes it.
func withTemporaryFolder<Result>(_ body: (URL) throws -> Result) throws -> Result {
    let folder = FileManager.default.temporaryDirectory.appendingPathComponent(
        "checkpoints-\(UUID().uuidString)")
    try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
    defer { try? FileManager.default.removeItem(at: folder) }
    return try body(folder)
}

/// The message of the CheckpointError that `body` throws; nil when it throws none.
func message(_ body: () throws -> Void) -> String? {
    do {
        try body()
        return nil
    } catch let error as CheckpointError {
        return error.description
    } catch {
        return nil
    }
}

/// Values that differ everywhere, the same ones each time.
func numbers(_ shape: [Int], seed: Int = 1) -> HostTensor {
    let count = shape.reduce(1, *)
    var state = UInt64(seed) &* 0x9E37_79B9_7F4A_7C15 | 1
    let values = (0..<count).map { _ -> Float in
        state ^= state << 13
        state ^= state >> 7
        state ^= state << 17
        return Float(Double(state >> 11) / Double(1 << 53) - 0.5)
    }
    return HostTensor(shape: shape, values: values)
}

/// Records an issue unless `body` throws a CheckpointError that says `part`.
func expectError(
    _ part: String, sourceLocation: SourceLocation = #_sourceLocation, _ body: () throws -> Void
) {
    let text = message(body)
    guard text?.contains(part) != true else { return }
    Issue.record("'\(part)' is not said, but: \(text ?? "nothing")", sourceLocation: sourceLocation)
}
