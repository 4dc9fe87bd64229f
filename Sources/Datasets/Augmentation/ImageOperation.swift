/// A change of an image that keeps its size, with its argument.
enum ImageOperation: Hashable, Sendable {
    case stretchContrast, equalise, invert
    case posterise(bits: Int)
    case solarise(from: Int)
    case brightenDark(by: Int)
    case enhance(RGBImage.Enhancement, Double)
    case rotate(degrees: Double)
    /// By this part of the other side.
    case shearX(Double), shearY(Double)
    /// By this part of the side; to the left and up where it is positive.
    case translateX(Double), translateY(Double)

    /// Whether it interpolates.
    var isGeometric: Bool {
        switch self {
        case .rotate, .shearX, .shearY, .translateX, .translateY: true
        default: false
        }
    }
}

extension RGBImage {
    /// The changed image. `cubic` says how a geometric change interpolates, `fill` [3] what appears beyond
    /// the border.
    func applying(_ operation: ImageOperation, cubic: Bool, fill: [UInt8]) -> RGBImage {
        func transformed(_ map: AffineMap) -> RGBImage { self.transformed(map, cubic: cubic, fill: fill) }
        switch operation {
        case .stretchContrast: return contrastStretched
        case .equalise: return equalised
        case .invert: return inverted
        case .posterise(let bits): return posterised(bits: bits)
        case .solarise(let threshold): return solarised(from: threshold)
        case .brightenDark(let added): return brightenedDark(by: added)
        case .enhance(let enhancement, let factor): return enhanced(enhancement, by: factor)
        case .rotate(let degrees): return rotated(degrees: degrees, cubic: cubic, fill: fill)
        case .shearX(let factor): return transformed(AffineMap(b: factor))
        case .shearY(let factor): return transformed(AffineMap(d: factor))
        case .translateX(let part): return transformed(AffineMap(c: part * Double(width)))
        case .translateY(let part): return transformed(AffineMap(f: part * Double(height)))
        }
    }
}
