import TensorCore

// A pixel centre (x + 0.5, y + 0.5) lies in a shape of signed distance d (negative inside) to the degree
//
//     coverage = clamp(1/2 − d, 0, 1),    colour ← colour + coverage · (ink − colour),
//
// which is exact for a straight horizontal or vertical edge.

/// A colour of three channels, 0 to 1.
typealias Colour = SIMD3<Float>

/// A point or direction on the canvas in pixels, y downwards.
typealias Point = SIMD2<Float>

/// A square picture in float32 that shapes are painted on.
///
/// Only + − × / and the square root touch a pixel: IEEE 754 fixes their results, so an image is the same on every
/// machine.
struct Canvas {
    /// Width and height in pixels.
    let size: Int
    /// [size, size], row-major from the top left.
    private(set) var pixels: [Colour]

    /// A canvas filled with one colour.
    init(size: Int, filledWith colour: Colour) {
        self.size = size
        pixels = Array(repeating: colour, count: size * size)
    }

    /// Sets each pixel to `colour` of its centre.
    mutating func fill(_ colour: (Point) -> Colour) {
        for y in 0..<size {
            for x in 0..<size { pixels[y * size + x] = colour(Point(Float(x) + 0.5, Float(y) + 0.5)) }
        }
    }

    /// Paints what `distance` (in pixels, negative inside) describes within `radius` of `centre`.
    mutating func paint(
        around centre: Point, radius: Float, distance: (Point) -> Float, ink: (Point) -> Colour
    ) {
        let reach = radius + 1
        let columns = Canvas.pixelRange(centre.x, reach, size)
        for y in Canvas.pixelRange(centre.y, reach, size) {
            for x in columns {
                let point = Point(Float(x) + 0.5, Float(y) + 0.5)
                let coverage = clampToUnit(0.5 - distance(point))
                if coverage > 0 {
                    let index = y * size + x
                    pixels[index] += coverage * (ink(point) - pixels[index])
                }
            }
        }
    }

    /// Adds uniform noise in ±amplitude to every channel, and to `speckles` of all pixels a colour of noise alone.
    mutating func addNoise(amplitude: Float, speckles: Double = 0, _ random: inout Random) {
        for index in pixels.indices {
            // One draw gives three channels of 21 bits.
            let bits = random.next()
            let noise = Colour(
                Float(bits & 0x1f_ffff), Float(bits >> 21 & 0x1f_ffff), Float(bits >> 42 & 0x1f_ffff))
            let unit = noise * 0x1p-21
            if speckles > 0, random.uniform() < speckles {
                pixels[index] = unit
            } else {
                pixels[index] += amplitude * (2 * unit - 1)
            }
        }
    }

    /// [size, size, 3] bytes, rounded to the nearest.
    func bytes() -> [UInt8] {
        var bytes: [UInt8] = []
        bytes.reserveCapacity(pixels.count * 3)
        for pixel in pixels {
            for channel in 0..<3 { bytes.append(UInt8(clampToUnit(pixel[channel]) * 255 + 0.5)) }
        }
        return bytes
    }

    private static func pixelRange(_ centre: Float, _ reach: Float, _ size: Int) -> Range<Int> {
        let low = max(0, Int((centre - reach).rounded(.down)))
        let high = min(size, Int((centre + reach).rounded(.up)))
        return low..<max(low, high)
    }
}

/// `value`, at least 0 and at most 1.
func clampToUnit(_ value: Float) -> Float { min(max(value, 0), 1) }

/// The scalar product.
func dot(_ a: Point, _ b: Point) -> Float { a.x * b.x + a.y * b.y }

/// The Euclidean length.
func length(_ a: Point) -> Float { dot(a, a).squareRoot() }

/// (cos, sin) of an angle in turns, by Taylor series within an eighth of a turn (error below 1e-9): a C library's
/// sine may differ in its last bit between machines.
func direction(turns: Double) -> Point {
    let eighths = ((turns - turns.rounded(.down)) * 8).rounded(.toNearestOrAwayFromZero)
    let t = (turns - turns.rounded(.down) - eighths / 8) * (2 * Double.pi)  // within ±π/8
    let s = t * t
    let sine = t * (1 - s / 6 * (1 - s / 20 * (1 - s / 42 * (1 - s / 72))))
    let cosine = 1 - s / 2 * (1 - s / 12 * (1 - s / 30 * (1 - s / 56)))
    let h = 0.5.squareRoot()
    let axes: [(Double, Double)] = [(1, 0), (h, h), (0, 1), (-h, h), (-1, 0), (-h, -h), (0, -1), (h, -h)]
    let (c, d) = axes[Int(eighths) % 8]
    return Point(Float(c * cosine - d * sine), Float(d * cosine + c * sine))
}

extension Random {
    /// Uniform in the range, as float32.
    mutating func float(in range: ClosedRange<Float>) -> Float {
        range.lowerBound + (range.upperBound - range.lowerBound) * Float(uniform())
    }

    /// A point of the square [low, high]².
    mutating func point(in range: ClosedRange<Float>) -> Point {
        let x = float(in: range)
        return Point(x, float(in: range))
    }

    /// A colour with every channel in the range.
    mutating func colour(in range: ClosedRange<Float>) -> Colour {
        let red = float(in: range)
        let green = float(in: range)
        return Colour(red, green, float(in: range))
    }
}
