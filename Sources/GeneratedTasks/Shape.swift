// Signed distances, negative inside, of shapes within the unit disc around the origin. Distances of the polygons and
// differences are bounds (max of half-planes): right at the edge, which is all that anti-aliasing asks for.

/// What an object looks like in outline: the first half of a source class.
enum Shape: Int, CaseIterable {
    case disc, square, triangle, star, cross, ring, crescent, corner, arrow

    /// The outlines of the source classes; the arrow is the orientation task's own.
    static let ofSource = Array(allCases.dropLast())

    /// The distance of `p` from the outline in units of the shape's radius.
    func distance(_ p: Point) -> Float {
        switch self {
        case .disc: return length(p) - 0.9
        case .square: return Shape.box(p, 0.72, 0.72)
        case .triangle:
            // Equilateral, circumradius 1: inradius 1/2, normals 120° apart.
            return max(-p.x, max(0.5 * p.x + 0.866_025_4 * p.y, 0.5 * p.x - 0.866_025_4 * p.y)) - 0.5
        case .star: return Shape.star(p)
        case .cross: return min(Shape.box(p, 0.95, 0.3), Shape.box(p, 0.3, 0.95))
        case .ring: return abs(length(p) - 0.7) - 0.25
        case .crescent: return max(length(p) - 0.95, 0.8 - length(p - Point(0.8, 0)))
        case .corner: return max(Shape.box(p, 0.75, 0.75), -Shape.box(p - Point(0.45, 0.45), 0.7, 0.7))
        case .arrow: return Shape.arrow(p)
        }
    }

    /// Along +x: a head whose sides run from (1, 0) to (0, ±0.75), with normals (0.6, ±0.8), and a shaft.
    private static func arrow(_ p: Point) -> Float {
        let head = max(-p.x, 0.6 * p.x + 0.8 * abs(p.y) - 0.6)
        return min(head, box(p - Point(-0.4, 0), 0.55, 0.25))
    }

    /// A box of half-widths (a, b).
    static func box(_ p: Point, _ a: Float, _ b: Float) -> Float { max(abs(p.x) - a, abs(p.y) - b) }

    /// Five points: the plane is folded into one tenth (mirrors at 36° multiples), where the outline is one line.
    private static func star(_ p: Point) -> Float {
        let k1 = Point(0.809_017, -0.587_785_25)  // normal at −36°
        let k2 = Point(-0.809_017, -0.587_785_25)
        var q = Point(abs(p.y), p.x)
        q -= 2 * max(dot(k1, q), 0) * k1
        q -= 2 * max(dot(k2, q), 0) * k2
        q.x = abs(q.x)
        q.y -= 1
        let edge = Point(-k1.y, k1.x) * 0.45 - Point(0, 1)
        let h = min(max(dot(q, edge) / dot(edge, edge), 0), 1)
        let side: Float = q.y * edge.x - q.x * edge.y < 0 ? -1 : 1
        return length(q - edge * h) * side
    }
}

/// How an object's inside is coloured: the second half of a source class.
enum Fill: Int, CaseIterable {
    case plain, stripes, checks, spots

    /// How much of the second colour shows at `p` (in pixels, along the object's own axes): 0 to 1. `period` in pixels.
    func pattern(_ p: Point, period: Float) -> Float {
        let soft = 2 / period  // a pixel, in units of half a period
        switch self {
        case .plain: return 0
        case .stripes: return clampToUnit(0.5 + Fill.wave(p.x / period) / soft)
        case .checks:
            let product = Fill.wave(p.x / period) * Fill.wave(p.y / period)
            return clampToUnit(0.5 + 2 * product / soft)
        case .spots:
            let cell = Point(p.x / period, p.y / period)
            let local = cell - Point(cell.x.rounded(), cell.y.rounded())
            return clampToUnit(0.5 + (0.3 - length(local)) * period)
        }
    }

    /// A triangle wave of period 1, from −1/2 to 1/2.
    private static func wave(_ t: Float) -> Float {
        let fraction = t - t.rounded(.down)
        return abs(fraction - 0.5) * 2 - 0.5
    }
}
