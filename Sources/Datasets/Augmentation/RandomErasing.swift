import Foundation
import TensorCore

// Rectangles of a normalised image replaced (timm's `RandomErasing`, random_erasing.py). Of an image of S ×
// S, with k rectangles:
//
//     area ∼ U(0.02, 1/3) · S² / k,  log r ∼ U(log 0.3, log 1/0.3),  h = round √(area · r),  w = round √(area / r)
//
// the first of ten that are smaller than the image on both sides, anywhere in it; where none is, nothing is
// erased.

/// Whether and how parts of an image are erased.
public struct RandomErasing: Hashable, Sendable {
    /// What an erased part becomes.
    public enum Mode: String, CaseIterable, Sendable {
        /// 0, the mean of the training set of the model.
        case const
        /// A normal colour for each rectangle.
        case rand
        /// A normal value for each pixel and channel.
        case pixel
    }

    /// The probability that an image is erased in.
    public var probability: Double
    /// What an erased part becomes.
    public var mode: Mode
    /// The most rectangles; how many is drawn.
    public var count: Int

    /// Never, with zeros, once.
    public init(probability: Double = 0, mode: Mode = .const, count: Int = 1) {
        (self.probability, self.mode, self.count) = (probability, mode, count)
    }

    /// values [3, S, S] with rectangles erased as it is drawn.
    func callAsFunction(_ values: UnsafeMutableBufferPointer<Float>, side S: Int, _ random: inout Random) {
        for box in draw(side: S, &random) {
            let colour = (0..<3).map { _ in mode == .rand ? Float(random.normal()) : 0 }
            RandomErasing.erase(values, side: S, box) { channel in
                mode == .pixel ? Float(random.normal()) : colour[channel]
            }
        }
    }

    /// The rectangles.
    func draw(side S: Int, _ random: inout Random) -> [RGBImage.Box] {
        guard random.uniform() < probability else { return [] }
        let count = 1 + random.index(below: max(1, count))
        let bound = log(1 / 0.3)
        return (0..<count).compactMap { _ in
            for _ in 0..<10 {
                let (height, width) = RandomErasing.size(
                    part: random.uniform(in: 0.02...1.0 / 3), logRatio: random.uniform(in: -bound...bound),
                    side: S, count: count)
                guard width < S, height < S else { continue }
                return RGBImage.Box(
                    left: random.index(below: S - width + 1), top: random.index(below: S - height + 1),
                    width: width, height: height)
            }
            return nil
        }
    }

    /// What a part of the area is in pixels; a side may be 0.
    static func size(part: Double, logRatio: Double, side S: Int, count: Int) -> (height: Int, width: Int) {
        let (area, ratio) = (part * Double(S * S) / Double(count), exp(logRatio))
        func side(_ square: Double) -> Int { Int(square.squareRoot().rounded(.toNearestOrEven)) }
        return (side(area * ratio), side(area / ratio))
    }

    /// values [3, S, S] ← what `value` gives for a channel, in the box, channel by channel and row by row.
    static func erase(
        _ values: UnsafeMutableBufferPointer<Float>, side S: Int, _ box: RGBImage.Box, _ value: (Int) -> Float
    ) {
        for channel in 0..<3 {
            for row in box.top..<box.top + box.height {
                let start = (channel * S + row) * S + box.left
                for i in start..<start + box.width { values[i] = value(channel) }
            }
        }
    }
}
