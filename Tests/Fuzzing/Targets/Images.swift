import CZlib
@testable import Datasets
import Foundation

/// Images: decoded, and where they are small resized.
let imageTargets = [
    Target(name: "png", seeds: { try images(ofType: "png") }) { try decode(withChecksums($0.bytes)) },
    Target(name: "jpeg", seeds: { try images(ofType: "jpg") }) { try decode($0.bytes) },
]

private func images(ofType type: String) throws -> [[UInt8]] {
    try FileManager.default.contentsOfDirectory(atPath: "Tests/DatasetTests/Fixtures")
        .filter { $0.hasSuffix(type) }.map { try fixture("DatasetTests/Fixtures/\($0)") }
        .filter { $0.count < 2000 }
}

private func decode(_ bytes: [UInt8]) throws {
    let image = try bytes.withUnsafeBytes { try RGBImage.decode($0, name: "image") }
    guard image.pixels.count < 1 << 18 else { return }
    let filters = Preprocessing.Filter.allCases
    let preprocessing = Preprocessing(mean: [0, 0, 0], std: [1, 1, 1])
    for crop in Preprocessing.Resize.allCases {
        var preprocessing = preprocessing
        preprocessing.resize = crop
        preprocessing.side = 9
        preprocessing.filter = filters[Int(bytes.last ?? 0) % filters.count]
        _ = try? Preprocessor(preprocessing, imageSize: 8)(image)
    }
}

/// A PNG with its chunks' checksums made right: behind wrong ones the fuzzer wouldn't come.
private func withChecksums(_ bytes: [UInt8]) -> [UInt8] {
    var bytes = bytes
    var start = 8
    while start + 12 <= bytes.count {
        let length = bytes[start..<start + 4].reduce(0) { $0 << 8 | Int($1) }
        let end = start + 8 + length
        guard end + 4 <= bytes.count else { break }
        let checksum = bytes.withUnsafeBufferPointer {
            crc32(0, $0.baseAddress! + start + 4, UInt32(length + 4))
        }
        for index in 0..<4 {
            bytes[end + index] = UInt8(truncatingIfNeeded: checksum >> (24 - 8 * UInt(index)))
        }
        start = end + 4
    }
    return bytes
}
