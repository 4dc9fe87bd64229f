import TensorCore

/// A shape at a place, with a size, a turn and a fill.
struct Object {
    /// Outline and fill.
    var shape: Shape
    var fill: Fill
    /// Centre, in pixels.
    var centre: Point
    /// Circumradius in pixels.
    var radius: Float
    /// The object's own x axis, a unit vector.
    var axis: Point
    /// The fill's two colours; a plain one shows the first.
    var inks: [Colour]
    /// The pattern's period in pixels.
    var period: Float

    /// `p` (in pixels, on the canvas) along the object's own axes, in pixels from its centre.
    func local(_ p: Point) -> Point {
        let offset = p - centre
        return Point(dot(offset, axis), dot(offset, Point(-axis.y, axis.x)))
    }

    /// The signed distance from the outline, in pixels.
    func distance(_ p: Point) -> Float { radius * shape.distance(local(p) / radius) }

    /// The fill's colour at a point of the canvas.
    func ink(_ p: Point) -> Colour { inks[0] + fill.pattern(local(p), period: period) * (inks[1] - inks[0]) }
}

extension Canvas {
    /// Paints an object.
    mutating func paint(_ object: Object) {
        paint(around: object.centre, radius: object.radius, distance: object.distance, ink: object.ink)
    }

    /// Paints a line of `width` pixels from a point along a unit vector.
    mutating func paintLine(from start: Point, along axis: Point, length: Float, width: Float, ink: Colour) {
        let half = length / 2
        let centre = start + half * axis
        let distance = { (p: Point) -> Float in
            let offset = p - centre
            return Shape.box(Point(dot(offset, axis), dot(offset, Point(-axis.y, axis.x))), half, width / 2)
        }
        paint(around: centre, radius: half + width, distance: distance, ink: { _ in ink })
    }
}

/// What the pictures of all tasks are made of, drawn from one image's own random stream.
struct Scene {
    /// Width and height in pixels.
    static let size = 32
    var random: Random
    var canvas = Canvas(size: size, filledWith: Colour())

    /// An empty scene that will draw from `random`.
    init(_ random: Random) { self.random = random }

    /// A whole number in 0..<bound.
    mutating func draw(below bound: Int) -> Int { Int(random.uniform() * Double(bound)) }

    /// A unit vector in any direction.
    mutating func axis() -> Point { direction(turns: random.uniform()) }

    /// A gradient between two dark colours along a random direction.
    mutating func paintBackground() {
        let first = random.colour(in: 0...0.45)
        let second = random.colour(in: 0...0.45)
        let along = axis()
        let span = Float(Scene.size)
        canvas.fill { p in
            let t = clampToUnit(0.5 + dot(p - Point(repeating: span / 2), along) / span)
            return first + t * (second - first)
        }
    }

    /// Thin lines and small dots that mean nothing.
    mutating func paintClutter(lines: Int, dots: Int) {
        let span = Float(Scene.size)
        for _ in 0..<lines {
            let start = random.point(in: 0...span)
            let along = axis()
            canvas.paintLine(
                from: start, along: along, length: random.float(in: 8...24),
                width: random.float(in: 0.7...1.5), ink: random.colour(in: 0...1))
        }
        for _ in 0..<dots {
            let centre = random.point(in: 0...span)
            let radius = random.float(in: 0.7...1.6)
            let ink = random.colour(in: 0...1)
            canvas.paint(
                around: centre, radius: radius, distance: { length($0 - centre) - radius }, ink: { _ in ink })
        }
    }

    /// An object in bright ink, its pattern in a darker shade of it; all but outline and fill is left to chance.
    mutating func object(_ shape: Shape, _ fill: Fill, radius: ClosedRange<Float>) -> Object {
        let r = random.float(in: radius)
        let ink = random.colour(in: 0.55...1)
        let second = ink * random.float(in: 0.2...0.5)
        return Object(
            shape: shape, fill: fill, centre: random.point(in: r * 0.85...Float(Scene.size) - r * 0.85),
            radius: r, axis: axis(), inks: [ink, second], period: random.float(in: 3.6...5.6))
    }
}
