import Foundation
import TensorCore

// Mixup (Zhang et al. 2018) and CutMix (Yun et al. 2019) of a whole batch, as timm's `Mixup` does in mode
// `batch` (mixup.py): image i is mixed with image n − 1 − i, by one λ ∼ Beta(α, α).
//
//     mixup    xᵢ ← λ xᵢ + (1 − λ) xₙ₋₁₋ᵢ
//     cutmix   a box of S√(1 − λ) on both sides, its centre anywhere, comes from xₙ₋₁₋ᵢ;
//              λ becomes 1 − (the box's area in the image) / S²
//
// The loss is λ that of the own label and 1 − λ that of the partner's.

/// With what probability the images of a batch are mixed in pairs, and how.
public struct BatchMixing: Hashable, Sendable {
    /// α of mixup's λ; 0 for no mixup.
    public var mixup: Double
    /// α of cutmix's λ; 0 for no cutmix.
    public var cutmix: Double
    /// The probability that a batch is mixed at all.
    public var probability: Double
    /// The probability of cutmix where both are on.
    public var switchProbability: Double

    /// timm's probabilities, and no mixing.
    public init(
        mixup: Double = 0, cutmix: Double = 0, probability: Double = 1, switchProbability: Double = 0.5
    ) {
        (self.mixup, self.cutmix) = (mixup, cutmix)
        (self.probability, self.switchProbability) = (probability, switchProbability)
    }

    /// Whether a batch is ever mixed.
    public var isOn: Bool { (mixup > 0 || cutmix > 0) && probability > 0 }

    /// How one batch is mixed.
    enum Draw: Hashable {
        /// The part that stays.
        case mixup(lambda: Double)
        /// What comes from the partner.
        case cutmix(RGBImage.Box)

        /// The weight of the own label, for images of S × S.
        func lambda(side S: Int) -> Double {
            switch self {
            case .mixup(let lambda): lambda
            case .cutmix(let box): 1 - Double(box.width * box.height) / Double(S * S)
            }
        }
    }

    /// How a batch of S × S is mixed; nil for not at all.
    func draw(side S: Int, _ random: inout Random) -> Draw? {
        guard isOn, random.uniform() < probability else { return nil }
        let isSwitched = random.uniform() < switchProbability
        let isCutmix = cutmix > 0 && (mixup <= 0 || isSwitched)
        let lambda = random.beta(isCutmix ? cutmix : mixup)
        if lambda == 1 { return nil }
        guard isCutmix else { return .mixup(lambda: lambda) }
        let (x, y) = (random.index(below: S), random.index(below: S))
        return .cutmix(BatchMixing.box(lambda: lambda, centreX: x, y: y, side: S))
    }

    /// The box of 1 − λ of the area about a pixel, as far as it lies in the image.
    static func box(lambda: Double, centreX x: Int, y: Int, side S: Int) -> RGBImage.Box {
        let cut = Int(Double(S) * (1 - lambda).squareRoot())
        func span(_ centre: Int) -> Range<Int> {
            max(0, centre - cut / 2)..<min(S, centre + (cut + 1) / 2)
        }
        let (columns, rows) = (span(x), span(y))
        return RGBImage.Box(
            left: columns.lowerBound, top: rows.lowerBound, width: columns.count, height: rows.count)
    }

    /// values [n, 3, S, S] ← each image mixed with its partner.
    static func mix(_ values: UnsafeMutableBufferPointer<Float>, count n: Int, side S: Int, _ draw: Draw) {
        let size = 3 * S * S
        for i in 0..<(n + 1) / 2 {
            let (first, second) = (i * size, (n - 1 - i) * size)
            switch draw {
            case .mixup(let lambda):
                let (own, other) = (Float(lambda), Float(1 - lambda))
                for k in 0..<size {
                    let (a, b) = (values[first + k], values[second + k])
                    values[first + k] = a * own + b * other
                    values[second + k] = b * own + a * other
                }
            case .cutmix(let box):
                if first == second { continue }
                for channel in 0..<3 {
                    for row in box.top..<box.top + box.height {
                        let start = (channel * S + row) * S + box.left
                        for k in start..<start + box.width { values.swapAt(first + k, second + k) }
                    }
                }
            }
        }
    }
}

extension Random {
    /// Beta(α, α): G₁ / (G₁ + G₂) of two gamma variables, whose logarithms stay finite for the smallest α.
    mutating func beta(_ alpha: Double) -> Double {
        let (first, second) = (logGamma(alpha), logGamma(alpha))
        return 1 / (1 + exp(second - first))
    }

    /// The logarithm of a Gamma(α) variable (Marsaglia and Tsang 2000), for α < 1 as Gamma(α + 1) · U^(1/α).
    private mutating func logGamma(_ alpha: Double) -> Double {
        let d = (alpha < 1 ? alpha + 1 : alpha) - 1.0 / 3
        let boost = alpha < 1 ? log(1 - uniform()) / alpha : 0
        while true {
            let x = normal()
            let root = 1 + x / (9 * d).squareRoot()
            let v = root * root * root
            let u = 1 - uniform()
            if v > 0, log(u) < 0.5 * x * x + d - d * v + d * log(v) { return log(d * v) + boost }
        }
    }
}
