import Foundation
import TensorCore

// A part of random size and proportions (timm's `RandomResizedCropAndInterpolation`, transforms.py). Of an
// image of W × H
//
//     area ∼ U(scale) · W H,  log r ∼ U(log ratio),  w = round √(area · r),  h = round √(area / r)
//
// the first of ten (w, h) that fit lies anywhere, each place as likely. Where none fits, it is the middle of
// the image, cut to the nearest ratio that is allowed.

/// How much of an image is cut out, and in which proportions.
public struct RandomResizedCrop: Hashable, Sendable {
    /// The part of the image's area.
    public var scale: ClosedRange<Double>
    /// Width over height.
    public var ratio: ClosedRange<Double>

    /// timm's defaults where nothing else is given.
    public init(scale: ClosedRange<Double> = 0.08...1, ratio: ClosedRange<Double> = 3.0 / 4...4.0 / 3) {
        (self.scale, self.ratio) = (scale, ratio)
    }

    /// A random box in an image of this size.
    func draw(width: Int, height: Int, _ random: inout Random) -> RGBImage.Box {
        for _ in 0..<10 {
            let size = RandomResizedCrop.size(
                part: random.uniform(in: scale),
                logRatio: random.uniform(in: log(ratio.lowerBound)...log(ratio.upperBound)),
                ofWidth: width, height: height)
            guard size.width <= width, size.height <= height else { continue }
            return RGBImage.Box(
                left: random.index(below: width - size.width + 1),
                top: random.index(below: height - size.height + 1), width: size.width, height: size.height)
        }
        return centre(width: width, height: height)
    }

    /// What a part of the area is in pixels. timm lets a side of 0 pass, which Pillow refuses; here it is 1.
    static func size(
        part: Double, logRatio: Double, ofWidth width: Int, height: Int
    ) -> (width: Int, height: Int) {
        let (area, ratio) = (part * Double(width * height), exp(logRatio))
        func side(_ square: Double) -> Int { max(1, Int(square.squareRoot().rounded(.toNearestOrEven))) }
        return (side(area * ratio), side(area / ratio))
    }

    /// The box where no draw fits.
    func centre(width: Int, height: Int) -> RGBImage.Box {
        let own = Double(width) / Double(height)
        var (w, h) = (width, height)
        if own < ratio.lowerBound {
            h = Int((Double(width) / ratio.lowerBound).rounded(.toNearestOrEven))
        } else if own > ratio.upperBound {
            w = Int((Double(height) * ratio.upperBound).rounded(.toNearestOrEven))
        }
        (w, h) = (max(1, w), max(1, h))
        return RGBImage.Box(left: (width - w) / 2, top: (height - h) / 2, width: w, height: h)
    }
}
