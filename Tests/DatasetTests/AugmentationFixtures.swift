import Foundation

@testable import Datasets

/// What Pillow, torchvision and timm make of images; see Fixtures/make_augmentation_fixtures.py.
struct AugmentationFixtures: Decodable {
    struct Operation: Decodable {
        let name: String
        let level: Double
        let negated: Bool
        let cubic: Bool
        let view: String
        let hash: String
    }
    struct Crop: Decodable {
        let width: Int
        let height: Int
        let scale: [Double]
        let ratio: [Double]
        let draws: [Double]
        let box: [Int]
    }
    struct Erasing: Decodable {
        let side: Int
        let count: Int
        let mode: String
        let draws: [Double]
        let sizes: [[Int]]
        let box: [Int]?
        let noise: Data?
        let values: Data?
    }
    struct Mixing: Decodable {
        let count: Int
        let side: Int
        let cutmix: Bool
        let drawn: Double
        let centre: [Int]
        let start: Data
        let values: Data
        let weight: Double
        let targets: Data
    }
    struct Box: Decodable {
        let drawn: Double
        let centre: [Int]
        let box: [Int]
    }
    struct Pipeline: Decodable {
        struct Step: Decodable {
            let name: String
            let argument: Double
            let cubic: Bool
        }
        let name: String
        let horizontal: Bool
        let vertical: Bool
        let steps: [Step]
        let cubic: Bool
        let box: [Int]
        let fill: [UInt8]?
        let hash: String
    }
    struct Policy: Decodable {
        let text: String
        let names: [String]
        let layers: Int
        let magnitude: Int
        let probability: Double
        let deviation: Double
        let largest: Int
        let weights: [Double]?
    }

    let operations: [Operation]
    let crops: [Crop]
    let erasings: [Erasing]
    let mixings: [Mixing]
    let boxes: [Box]
    let pipelines: [Pipeline]
    let policies: [Policy]
    let evaluation: String

    static let expected: AugmentationFixtures = {
        do {
            let data = try Data(contentsOf: Fixtures.folder.appendingPathComponent("augmentation.json"))
            return try JSONDecoder().decode(AugmentationFixtures.self, from: data)
        } catch {
            fatalError("Fixtures/augmentation.json can't be read: \(error)")
        }
    }()

    /// The images by the names that the fixtures have for them.
    static let views: [String: RGBImage] = {
        guard let source = try? RGBImage(contentsOf: Fixtures.path("source.png")) else { return [:] }
        let flat = (0..<45).flatMap { _ in [12, 130, 255] as [UInt8] }
        return [
            "whole": source, "square": source.resized(width: 40, height: 40),
            "dim": RGBImage(
                width: source.width, height: source.height, pixels: source.pixels.map { $0 / 4 + 40 }),
            "flat": RGBImage(width: 9, height: 5, pixels: flat),
            "tiny": source.resized(width: 2, height: 2),
        ]
    }()
}

extension RGBImage.Box {
    /// left, top, width, height.
    init(_ values: [Int]) {
        self.init(left: values[0], top: values[1], width: values[2], height: values[3])
    }
}

extension Data {
    /// float32, lowest byte first.
    var floats: [Float] {
        withUnsafeBytes { bytes in
            (0..<bytes.count / 4).map { place in
                Float(
                    bitPattern: UInt32(
                        littleEndian: bytes.loadUnaligned(fromByteOffset: 4 * place, as: UInt32.self)))
            }
        }
    }
}
