// Pillow's changes of colour, pixel by pixel (ImageOps.py, ImageEnhance.py, Blend.c, Filter.c, Convert.c).
// With a value v of 0…255, its channel's histogram h, and the image's grey L:
//
//     L = (19595 R + 38470 G + 7471 B + 2¹⁵) / 2¹⁶                       (ITU-R 601-2, rounded)
//     enhanced = ⌊d + f · (v − d)⌋, clipped to 0…255, in float32          (`Image.blend` of d and v by f)
//         d = 0 for brightness, the mean of L for contrast, L for colour, and for sharpness the mean of
//         the 3 × 3 around v in which v itself counts five times (the border keeps v)
//     equalised = (Σ_{u < v} h(u) + ⌊s / 2⌋) / s,   s = ⌊(Σ h − h(largest value that occurs)) / 255⌋
//     contrast stretched = ⌊(v − lowest) · 255 / (highest − lowest)⌋

extension RGBImage {
    /// What lies between a degenerate image (factor 0) and this one (factor 1), and beyond it.
    enum Enhancement: String, CaseIterable, Sendable {
        case brightness, contrast, colour, sharpness
    }

    /// The image with more (factor above 1) or less of it: Pillow's `ImageEnhance`.
    func enhanced(_ enhancement: Enhancement, by factor: Double) -> RGBImage {
        let factor = Float(factor)
        if factor == 1 { return self }
        switch enhancement {
        case .brightness: return mapped { blend(0, $0, factor) }
        case .contrast:
            let total = grey.reduce(0) { $0 + Int($1) }
            let mean = Int(Double(total) / Double(width * height) + 0.5)
            return mapped { blend(mean, $0, factor) }
        case .colour:
            let grey = grey
            return filled { out in
                for (pixel, level) in grey.enumerated() {
                    for i in 3 * pixel..<3 * pixel + 3 {
                        out[i] = UInt8(blend(Int(level), Int(pixels[i]), factor))
                    }
                }
            }
        case .sharpness:
            let smooth = smooth
            return filled { out in
                for i in 0..<pixels.count { out[i] = UInt8(blend(Int(smooth[i]), Int(pixels[i]), factor)) }
            }
        }
    }

    /// The negative.
    var inverted: RGBImage { mapped { 255 - $0 } }

    /// Values from the threshold on inverted.
    func solarised(from threshold: Int) -> RGBImage { mapped { $0 < threshold ? $0 : 255 - $0 } }

    /// Values below 128 made brighter by so much.
    func brightenedDark(by added: Int) -> RGBImage { mapped { $0 < 128 ? min(255, $0 + added) : $0 } }

    /// Only the highest bits kept: all from 8 on, none of 0 or fewer.
    func posterised(bits: Int) -> RGBImage {
        bits >= 8 ? self : mapped { bits <= 0 ? 0 : ($0 >> (8 - bits)) << (8 - bits) }
    }

    /// Each channel stretched to 0…255; one with a single value stays.
    var contrastStretched: RGBImage {
        mappedByHistogram { histogram in
            guard let lowest = histogram.firstIndex(where: { $0 > 0 }),
                let highest = histogram.lastIndex(where: { $0 > 0 }), lowest < highest
            else { return nil }
            let scale = 255 / Double(highest - lowest)
            let offset = -Double(lowest) * scale
            return (0..<256).map { Int(Double($0) * scale + offset) }
        }
    }

    /// Each channel with a histogram as flat as it can be; one with a single value stays.
    var equalised: RGBImage {
        mappedByHistogram { histogram in
            guard let highest = histogram.lastIndex(where: { $0 > 0 }) else { return nil }
            let step = (histogram.reduce(0, +) - histogram[highest]) / 255
            guard step > 0 else { return nil }
            var sum = step / 2
            return histogram.map { count in
                defer { sum += count }
                return sum / step
            }
        }
    }

    /// [height, width] the brightness.
    private var grey: [UInt8] {
        [UInt8](unsafeUninitializedCapacity: width * height) { out, count in
            count = width * height
            pixels.withUnsafeBufferPointer { pixels in
                for i in 0..<count {
                    let (red, green, blue) = (
                        Int(pixels[3 * i]), Int(pixels[3 * i + 1]), Int(pixels[3 * i + 2])
                    )
                    out[i] = UInt8(
                        truncatingIfNeeded: (red * 19595 + green * 38470 + blue * 7471 + 0x8000) >> 16)
                }
            }
        }
    }

    /// [height, width, 3] each pixel averaged with its neighbours (`ImageFilter.SMOOTH`), in Pillow's order
    /// of sums.
    private var smooth: [UInt8] {
        guard width >= 3, height >= 3 else { return pixels }
        let (side, middle) = (1 / Float(13), 5 / Float(13))
        let row = width * 3
        var out = pixels
        pixels.withUnsafeBufferPointer { pixels in
            out.withUnsafeMutableBufferPointer { out in
                for y in 1..<height - 1 {
                    for i in y * row + 3..<(y + 1) * row - 3 {
                        func line(_ i: Int, _ centre: Float) -> Float {
                            Float(pixels[i - 3]) * side + Float(pixels[i]) * centre + Float(pixels[i + 3])
                                * side
                        }
                        var sum: Float = 0.5
                        sum += line(i + row, side)
                        sum += line(i, middle)
                        sum += line(i - row, side)
                        out[i] = UInt8(min(255, sum))
                    }
                }
            }
        }
        return out
    }

    /// Every value replaced by what it becomes, clipped to 0…255.
    private func mapped(_ value: (Int) -> Int) -> RGBImage {
        let table = (0..<256).map { UInt8(clamping: value($0)) }
        return filled { out in
            pixels.withUnsafeBufferPointer { pixels in
                for i in 0..<pixels.count { out[i] = table[Int(pixels[i])] }
            }
        }
    }

    /// Every channel's values replaced by what its histogram [256] gives [256], clipped; nil leaves it.
    private func mappedByHistogram(_ table: ([Int]) -> [Int]?) -> RGBImage {
        var histograms = [[Int]](repeating: [Int](repeating: 0, count: 256), count: 3)
        for channel in 0..<3 {
            for i in stride(from: channel, to: pixels.count, by: 3) {
                histograms[channel][Int(pixels[i])] += 1
            }
        }
        let tables = histograms.map { (table($0) ?? Array(0..<256)).map { UInt8(clamping: $0) } }
        return filled { out in
            for channel in 0..<3 {
                let table = tables[channel]
                for i in stride(from: channel, to: pixels.count, by: 3) { out[i] = table[Int(pixels[i])] }
            }
        }
    }

    /// An image of this one's size with what `body` writes into all of its values.
    private func filled(_ body: (UnsafeMutableBufferPointer<UInt8>) -> Void) -> RGBImage {
        let values = [UInt8](unsafeUninitializedCapacity: pixels.count) { out, count in
            count = pixels.count
            body(out)
        }
        return RGBImage(width: width, height: height, pixels: values)
    }
}

/// `Image.blend` of one value: float32, and truncated.
@inline(__always)
private func blend(_ degenerate: Int, _ value: Int, _ factor: Float) -> Int {
    Int(max(0, min(255, Float(degenerate) + factor * Float(value - degenerate))))
}
