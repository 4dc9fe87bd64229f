// Bicubic resizing, bit for bit that of Pillow (`Image.resize(size, BICUBIC)`, Resample.c). With s = in / out:
//
//     out[i] = Σⱼ w(i, j) · in[j],  w(i, j) ∝ cubic((j + ½ − (i + ½) s) / max(s, 1)),  Σⱼ w(i, j) = 1
//     cubic(x) = 1.5|x|³ − 2.5|x|² + 1           for |x| < 1   (Keys' kernel with a = −½)
//              = −½ (|x|³ − 5|x|² + 8|x| − 4)    for |x| < 2
//
// Scaling down widens the kernel by s, which is the antialiasing. Weights are integers in units of 2⁻²²; columns are
// resized first, rounded to 8 bits, then rows. Published accuracies depend on these details.

extension RGBImage {
    /// The image at another size, squashed when the proportions differ.
    public func resized(width: Int, height: Int) -> RGBImage {
        resized(width: width, height: height, columns: 0..<width, rows: 0..<height)
    }

    /// The part of `resized(width:height:)` in these columns and rows, without computing the rest.
    func resized(width: Int, height: Int, columns: Range<Int>, rows: Range<Int>) -> RGBImage {
        let horizontal = ResampleWeights(from: self.width, to: width, columns)
        let vertical = ResampleWeights(from: self.height, to: height, rows)
        let sourceRows = vertical.sourceRange
        // Like Pillow, a direction that keeps its size is copied: weights of exactly one, and no rounding.
        let narrowedCount = sourceRows.count * columns.count * 3
        let narrowed = [UInt8](unsafeUninitializedCapacity: narrowedCount) { out, count in
            count = out.count
            pixels.withUnsafeBufferPointer { resizeColumns(out, $0, sourceRows, horizontal) }
        }
        let result = [UInt8](unsafeUninitializedCapacity: rows.count * columns.count * 3) { out, count in
            count = out.count
            narrowed.withUnsafeBufferPointer {
                resizeRows(out, $0, columns.count * 3, firstSourceRow: sourceRows.lowerBound, vertical)
            }
        }
        return RGBImage(width: columns.count, height: rows.count, pixels: result)
    }

    /// out [rows, w', 3] ← the rows of source [h, w, 3] at their new width.
    private func resizeColumns(
        _ out: UnsafeMutableBufferPointer<UInt8>, _ source: UnsafeBufferPointer<UInt8>, _ rows: Range<Int>,
        _ weights: ResampleWeights
    ) {
        var next = out.baseAddress!
        weights.values.withUnsafeBufferPointer { values in
            for row in rows {
                let line = source.baseAddress! + row * width * 3
                for (index, span) in weights.spans.enumerated() {
                    var pixel = line + span.lowerBound * 3
                    var red = ResampleWeights.half
                    var green = ResampleWeights.half
                    var blue = ResampleWeights.half
                    let first = values.baseAddress! + index * weights.stride
                    for tap in 0..<span.count {
                        let weight = first[tap]
                        red &+= Int32(pixel[0]) &* weight
                        green &+= Int32(pixel[1]) &* weight
                        blue &+= Int32(pixel[2]) &* weight
                        pixel += 3
                    }
                    next[0] = ResampleWeights.round(red)
                    next[1] = ResampleWeights.round(green)
                    next[2] = ResampleWeights.round(blue)
                    next += 3
                }
            }
        }
    }

    /// out [h', n] ← source [rows, n] at its new height; the first row of source is row `firstSourceRow` of the image.
    private func resizeRows(
        _ out: UnsafeMutableBufferPointer<UInt8>, _ source: UnsafeBufferPointer<UInt8>, _ n: Int,
        firstSourceRow: Int, _ weights: ResampleWeights
    ) {
        withUnsafeTemporaryAllocation(of: Int32.self, capacity: n) { sums in
            // A row of sums stays in the first-level cache, and the loop over it is one that the compiler vectorises.
            let sum = sums.baseAddress!
            for (index, span) in weights.spans.enumerated() {
                sums.initialize(repeating: ResampleWeights.half)
                for tap in 0..<span.count {
                    let weight = weights.values[index * weights.stride + tap]
                    let line = source.baseAddress! + (span.lowerBound - firstSourceRow + tap) * n
                    for i in 0..<n { sum[i] &+= Int32(line[i]) &* weight }
                }
                let line = out.baseAddress! + index * n
                for i in 0..<n { line[i] = ResampleWeights.round(sum[i]) }
            }
        }
    }
}

/// The weights of one direction, for the outputs in a range.
private struct ResampleWeights {
    /// For each output, the inputs that count.
    var spans: [Range<Int>] = []
    /// [outputs, stride] in units of 2⁻²².
    var values: [Int32] = []
    /// Room for one output's weights.
    let stride: Int

    /// One half in units of 2⁻²²: what makes the shift round.
    static let half: Int32 = 1 << 21

    static func round(_ sum: Int32) -> UInt8 { UInt8(truncatingIfNeeded: max(0, min(255, sum >> 22))) }

    init(from inputCount: Int, to outputCount: Int, _ outputs: Range<Int>) {
        let scale = Double(inputCount) / Double(outputCount)
        let stretch = max(scale, 1)
        let support = 2 * stretch
        stride = inputCount == outputCount ? 1 : Int(support.rounded(.up)) * 2 + 1
        spans.reserveCapacity(outputs.count)
        values = [Int32](repeating: 0, count: outputs.count * stride)
        for (index, output) in outputs.enumerated() {
            guard inputCount != outputCount else {
                spans.append(output..<output + 1)
                values[index] = 1 << 22
                continue
            }
            let centre = (Double(output) + 0.5) * scale
            let first = max(0, Int(centre - support + 0.5))
            let last = min(inputCount, Int(centre + support + 0.5))
            spans.append(first..<last)
            let raw = (first..<last).map { cubic((Double($0) - centre + 0.5) * (1 / stretch)) }
            let total = raw.reduce(0, +)
            for (tap, value) in raw.enumerated() {
                let scaled = (total == 0 ? value : value / total) * 0x1p22
                values[index * stride + tap] = Int32(scaled < 0 ? scaled - 0.5 : scaled + 0.5)
            }
        }
    }

    /// The inputs that any of the outputs needs.
    var sourceRange: Range<Int> {
        spans.map(\.lowerBound).min()!..<spans.map(\.upperBound).max()!
    }
}

private func cubic(_ signed: Double) -> Double {
    let x = abs(signed)
    if x < 1 { return (1.5 * x - 2.5) * x * x + 1 }
    if x < 2 { return (((x - 5) * x + 8) * x - 4) * -0.5 }
    return 0
}
