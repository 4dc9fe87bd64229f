import TensorCore

// RandAugment as timm has it (auto_augment.py): n operations are drawn of a set, and each is done with
// probability p, at a level that is drawn anew:
//
//     level ∼ N(m, mstd²), or U(0, m) for mstd > 100;  clipped to 0…mmax
//
// What a level ℓ is to an operation (± with equal odds):
//
//     Rotate ±3ℓ degrees   ShearX, ShearY ±0.03 ℓ   TranslateXRel, TranslateYRel ±0.045 ℓ of the side
//     Posterize ⌊0.4 ℓ⌋ bits kept   Solarize from ⌊25.6 ℓ⌋ on, at most 256   SolarizeAdd ⌊11 ℓ⌋, at most 128
//     Color, Contrast, Brightness, Sharpness 0.18 ℓ + 0.1
//
// and of the set that gets stronger with the level (inc1):
//
//     Posterize 4 − ⌊0.4 ℓ⌋   Solarize from 256 − … on   Color, …, Sharpness max(0.1, 1 ± 0.09 ℓ)

/// A policy of timm's RandAugment.
public struct RandAugment: Hashable, Sendable {
    /// m, the mean level: 10 is the most by default.
    public var magnitude = 10
    /// n, how many operations an image gets.
    public var layers = 2
    /// p, the probability that one of them is done.
    public var probability = 0.5
    /// mstd, the level's standard deviation; above 100 it is uniform in 0…m.
    public var deviation = 0.0
    /// mmax, the largest level.
    public var largest = 10
    /// inc1: whether operations get stronger with the level.
    public var increases = false
    /// tweights: whether operations are drawn by timm's weights, and then none twice. They are those of
    /// `increases`.
    public var weighted = false

    /// timm's defaults: `rand`.
    public init() {}

    /// An operation of the set, by timm's name of it without `Increasing`.
    enum Kind: String, CaseIterable, Sendable {
        case autoContrast = "AutoContrast"
        case equalize = "Equalize"
        case invert = "Invert"
        case rotate = "Rotate"
        case posterize = "Posterize"
        case solarize = "Solarize"
        case solarizeAdd = "SolarizeAdd"
        case color = "Color"
        case contrast = "Contrast"
        case brightness = "Brightness"
        case sharpness = "Sharpness"
        case shearX = "ShearX"
        case shearY = "ShearY"
        case translateX = "TranslateXRel"
        case translateY = "TranslateYRel"

        /// What it counts in timm's `weights`.
        var weight: Double {
            switch self {
            case .rotate: 3
            case .shearX, .shearY: 2
            case .translateX, .translateY: 1
            case .color, .sharpness, .autoContrast: 0.25
            case .solarize, .solarizeAdd, .contrast, .brightness, .equalize, .posterize, .invert: 0.05
            }
        }
    }

    /// The operation at a level, `isNegated` where a sign is drawn.
    func operation(_ kind: Kind, level: Double, isNegated: Bool) -> ImageOperation {
        let part = level / 10
        let increases = increases || weighted
        func signed(_ value: Double) -> Double { isNegated ? -value : value }
        func enhanced(_ enhancement: RGBImage.Enhancement) -> ImageOperation {
            .enhance(enhancement, increases ? max(0.1, 1 + signed(part * 0.9)) : part * 1.8 + 0.1)
        }
        switch kind {
        case .autoContrast: return .stretchContrast
        case .equalize: return .equalise
        case .invert: return .invert
        case .rotate: return .rotate(degrees: signed(part * 30))
        case .posterize: return .posterise(bits: increases ? 4 - Int(part * 4) : Int(part * 4))
        case .solarize:
            let threshold = min(256, Int(part * 256))
            return .solarise(from: increases ? 256 - threshold : threshold)
        case .solarizeAdd: return .brightenDark(by: min(128, Int(part * 110)))
        case .color: return enhanced(.colour)
        case .contrast: return enhanced(.contrast)
        case .brightness: return enhanced(.brightness)
        case .sharpness: return enhanced(.sharpness)
        case .shearX: return .shearX(signed(part * 0.3))
        case .shearY: return .shearY(signed(part * 0.3))
        case .translateX: return .translateX(signed(part * 0.45))
        case .translateY: return .translateY(signed(part * 0.45))
        }
    }

    /// The operations that an image gets.
    func draw(_ random: inout Random) -> [ImageOperation] {
        var kinds = Kind.allCases
        return (0..<layers).compactMap { _ in
            let kind = choose(&kinds, &random)
            // All is drawn whatever happens, so that one choice doesn't move the next.
            let (isDone, isNegated) = (random.uniform() < probability, random.uniform() < 0.5)
            let (noise, part) = (random.normal(), random.uniform())
            guard isDone else { return nil }
            let mean = Double(magnitude)
            let level = deviation > 100 ? mean * part : mean + deviation * noise
            return operation(kind, level: max(0, min(level, Double(largest))), isNegated: isNegated)
        }
    }

    /// One of them, which is taken away where they are weighted.
    private func choose(_ kinds: inout [Kind], _ random: inout Random) -> Kind {
        guard weighted else { return kinds[random.index(below: kinds.count)] }
        var place = random.uniform() * kinds.reduce(0) { $0 + $1.weight }
        let index = kinds.dropLast().firstIndex { kind in
            place -= kind.weight
            return place < 0
        }
        return kinds.remove(at: index ?? kinds.count - 1)
    }
}

/// timm's text: `rand-m9-mstd0.5-inc1`.
extension RandAugment: CustomStringConvertible {
    /// Reads timm's text: `rand` and parts `m9`, `n3`, `p0.5`, `mstd0.5`, `mmax10`, `inc1`, `tweights` in any
    /// order. Throws `DatasetError`, also for a part without a number, which timm would ignore.
    public init(_ text: String) throws {
        let parts = text.split(separator: "-", omittingEmptySubsequences: false)
        func refuse(_ part: Substring, _ reason: String) -> DatasetError {
            DatasetError(
                "the augmentation \(text.printable) can't be read: '\(String(part).printable)' \(reason).")
        }
        guard parts.first == "rand" else {
            throw refuse(parts.first ?? "", "should be rand, as in rand-m9-mstd0.5-inc1")
        }
        var seen: Set<Substring> = []
        for part in parts.dropFirst() {
            let key = part.prefix { !$0.isNumber }
            let value = part.dropFirst(key.count)
            guard seen.insert(key).inserted else {
                throw refuse(part, "is the second of its kind; leave one out")
            }
            func whole(_ range: ClosedRange<Int>) throws -> Int {
                guard let number = Int(value), range.contains(number) else {
                    throw refuse(part, "needs a whole number of \(range.lowerBound)...\(range.upperBound)")
                }
                return number
            }
            func number(_ range: ClosedRange<Double>) throws -> Double {
                guard let number = Double(value), range.contains(number) else {
                    throw refuse(part, "needs a number of \(range.lowerBound)...\(range.upperBound)")
                }
                return number
            }
            switch key {
            case "m": magnitude = try whole(0...100)
            case "n": layers = try whole(1...15)
            case "p": probability = try number(0...1)
            case "mstd": deviation = try number(0...1e9)
            case "mmax": largest = try whole(1...100)
            case "inc":
                increases = try whole(0...1) == 1
            case "tweights": weighted = true
            case "t": throw refuse(part, "names a set of operations that isn't known; there is tweights")
            case "w": throw refuse(part, "is no longer timm's; there is tweights, with other weights")
            default: throw refuse(part, "isn't known; there are m, n, p, mstd, mmax, inc1 and tweights")
            }
        }
    }

    /// timm's text of it, without what is default.
    public var description: String {
        let usual = RandAugment()
        var parts = ["rand"]
        if magnitude != usual.magnitude { parts.append("m\(magnitude)") }
        if layers != usual.layers { parts.append("n\(layers)") }
        if probability != usual.probability { parts.append("p\(probability)") }
        if deviation != usual.deviation { parts.append("mstd\(deviation)") }
        if largest != usual.largest { parts.append("mmax\(largest)") }
        if increases { parts.append("inc1") }
        if weighted { parts.append("tweights") }
        return parts.joined(separator: "-")
    }
}
