import Foundation

// Pillow's `crop`, `transpose`, `rotate` and affine `transform` (Image.py, Geometry.c). A pixel of the result
// takes what lies where its centre came from, with nothing averaged when that is smaller:
//
//     (x', y') = (a (x + ½) + b (y + ½) + c, d (x + ½) + e (y + ½) + f)
//
// Outside of the image it takes the fill colour. Inside, the 2 × 2 or 4 × 4 pixels around are interpolated in
// double precision, those beyond the border being the border's, and the result is truncated, not rounded:
//
//     bilinear(u, v; t) = u + (v − u) t
//     bicubic(p, q, r, s; t) = q + t (r − p + t (2 (p − q) + r − s + t (q − p + s − r)))      (Keys' kernel with a = −1)

/// Where a pixel of the result comes from.
struct AffineMap {
    var a = 1.0
    var b = 0.0
    var c = 0.0
    var d = 0.0
    var e = 1.0
    var f = 0.0
}

extension RGBImage {
    /// A rectangle of an image, in pixels.
    struct Box: Hashable, Sendable {
        var left: Int
        var top: Int
        var width: Int
        var height: Int
    }

    /// The part in the box, which lies in the image.
    func cropped(to box: Box) -> RGBImage {
        if box.width == width, box.height == height { return self }
        var part: [UInt8] = []
        part.reserveCapacity(box.width * box.height * 3)
        for row in box.top..<box.top + box.height {
            let start = (row * width + box.left) * 3
            part += pixels[start..<start + box.width * 3]
        }
        return RGBImage(width: box.width, height: box.height, pixels: part)
    }

    /// Left and right exchanged.
    var flippedHorizontally: RGBImage { permuted(width, height) { x, y in (width - 1 - x, y) } }

    /// Top and bottom exchanged.
    var flippedVertically: RGBImage { permuted(width, height) { x, y in (x, height - 1 - y) } }

    /// Turned counterclockwise about its centre, at the same size. Quarter turns are exact where the size
    /// allows them.
    func rotated(degrees: Double, cubic: Bool, fill: [UInt8]) -> RGBImage {
        var angle = fmod(degrees, 360)
        if angle < 0 { angle += 360 }
        switch angle {
        case 0, 360: return self
        case 180: return permuted(width, height) { x, y in (width - 1 - x, height - 1 - y) }
        case 90 where width == height: return permuted(height, width) { x, y in (width - 1 - y, x) }
        case 270 where width == height: return permuted(height, width) { x, y in (y, height - 1 - x) }
        default: break
        }
        /// To 15 decimals, as Python's `round`.
        func rounded(_ value: Double) -> Double { Double(String(format: "%.15f", value)) ?? value }
        let radians = -(angle * (.pi / 180))
        let (x, y) = (Double(width) / 2, Double(height) / 2)
        var map = AffineMap(a: rounded(cos(radians)), b: rounded(sin(radians)), d: rounded(-sin(radians)))
        map.e = map.a
        map.c = map.a * -x + map.b * -y + x
        map.f = map.d * -x + map.e * -y + y
        return transformed(map, cubic: cubic, fill: fill)
    }

    /// The image of the same size whose pixels come from where the map says.
    func transformed(_ map: AffineMap, cubic: Bool, fill: [UInt8]) -> RGBImage {
        let (w, h) = (Double(width), Double(height))
        let values = [UInt8](unsafeUninitializedCapacity: pixels.count) { out, count in
            count = pixels.count
            pixels.withUnsafeBufferPointer { pixels in
                let source = Source(pixels.baseAddress!, width, height)
                var next = out.baseAddress!
                for y in 0..<height {
                    let yIn = Double(y) + 0.5
                    for x in 0..<width {
                        let xIn = Double(x) + 0.5
                        let fromX = map.a * xIn + map.b * yIn + map.c
                        let fromY = map.d * xIn + map.e * yIn + map.f
                        if fromX >= 0, fromX < w, fromY >= 0, fromY < h {
                            cubic ? source.bicubic(next, fromX, fromY) : source.bilinear(next, fromX, fromY)
                        } else {
                            (next[0], next[1], next[2]) = (fill[0], fill[1], fill[2])
                        }
                        next += 3
                    }
                }
            }
        }
        return RGBImage(width: width, height: height, pixels: values)
    }

    /// An image of this size whose pixel at (x, y) is the one here.
    private func permuted(_ newWidth: Int, _ newHeight: Int, _ place: (Int, Int) -> (Int, Int)) -> RGBImage {
        let values = [UInt8](unsafeUninitializedCapacity: pixels.count) { out, count in
            count = pixels.count
            pixels.withUnsafeBufferPointer { pixels in
                var next = out.baseAddress!
                for y in 0..<newHeight {
                    for x in 0..<newWidth {
                        let (fromX, fromY) = place(x, y)
                        let pixel = pixels.baseAddress! + (fromY * width + fromX) * 3
                        (next[0], next[1], next[2]) = (pixel[0], pixel[1], pixel[2])
                        next += 3
                    }
                }
            }
        }
        return RGBImage(width: newWidth, height: newHeight, pixels: values)
    }
}

/// The pixels that are interpolated between.
private struct Source {
    let pixels: UnsafePointer<UInt8>
    let (width, height): (Int, Int)

    init(_ pixels: UnsafePointer<UInt8>, _ width: Int, _ height: Int) {
        (self.pixels, self.width, self.height) = (pixels, width, height)
    }

    /// The pixel, or the border's next to it.
    @inline(__always)
    private func at(_ x: Int, _ y: Int) -> SIMD4<Double> {
        let column = max(0, min(width - 1, x))
        let row = max(0, min(height - 1, y))
        let pixel = pixels + (row * width + column) * 3
        return SIMD4(Double(pixel[0]), Double(pixel[1]), Double(pixel[2]), 0)
    }

    @inline(__always)
    private func write(_ out: UnsafeMutablePointer<UInt8>, _ value: SIMD4<Double>) {
        let clipped = value.clamped(lowerBound: SIMD4(repeating: 0), upperBound: SIMD4(repeating: 255))
        out[0] = UInt8(clipped[0])
        out[1] = UInt8(clipped[1])
        out[2] = UInt8(clipped[2])
    }

    /// out [3] ← what lies at a place inside of the image, in pixels from its corner.
    @inline(__always)
    func bilinear(_ out: UnsafeMutablePointer<UInt8>, _ xIn: Double, _ yIn: Double) {
        let (left, top) = ((xIn - 0.5).rounded(.down), (yIn - 0.5).rounded(.down))
        let (dx, dy) = (xIn - 0.5 - left, yIn - 0.5 - top)
        let (x, y) = (Int(left), Int(top))
        func line(_ y: Int) -> SIMD4<Double> {
            let first = at(x, y)
            return first + (at(x + 1, y) - first) * dx
        }
        let first = line(y)
        write(out, first + (line(y + 1) - first) * dy)
    }

    /// The same by the 4 × 4 pixels around.
    @inline(__always)
    func bicubic(_ out: UnsafeMutablePointer<UInt8>, _ xIn: Double, _ yIn: Double) {
        let (left, top) = ((xIn - 0.5).rounded(.down), (yIn - 0.5).rounded(.down))
        let (dx, dy) = (xIn - 0.5 - left, yIn - 0.5 - top)
        let (x, y) = (Int(left) - 1, Int(top) - 1)
        func line(_ y: Int) -> SIMD4<Double> { cubic(at(x, y), at(x + 1, y), at(x + 2, y), at(x + 3, y), dx) }
        write(out, cubic(line(y), line(y + 1), line(y + 2), line(y + 3), dy))
    }

    /// The operations in Pillow's order, which shows in the last bit.
    @inline(__always)
    private func cubic(
        _ v1: SIMD4<Double>, _ v2: SIMD4<Double>, _ v3: SIMD4<Double>, _ v4: SIMD4<Double>, _ d: Double
    ) -> SIMD4<Double> {
        let p2 = v3 - v1
        let p3 = 2 * (v1 - v2) + v3 - v4
        let p4 = v2 - v1 - v3 + v4
        return v2 + d * (p2 + d * (p3 + d * p4))
    }
}
