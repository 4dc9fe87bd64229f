import Foundation

// Resizing, bit for bit that of Pillow (`Image.resize(size, filter)`, Resample.c). With s = in / out:
//
//     out[i] = Σⱼ w(i, j) · in[j],  w(i, j) ∝ f((j + ½ − (i + ½) s) / max(s, 1)),  Σⱼ w(i, j) = 1
//     bicubic(x) = 1.5|x|³ − 2.5|x|² + 1           for |x| < 1   (Keys' kernel with a = −½)
//                = −½ (|x|³ − 5|x|² + 8|x| − 4)    for |x| < 2
//     bilinear(x) = 1 − |x|                        for |x| < 1
//     box(x) = 1                                   for −½ < x ≤ ½
//     hamming(x) = sinc(x) (0.54 + 0.46 cos πx)    for |x| < 1, with sinc(x) = sin πx / πx
//     lanczos(x) = sinc(x) sinc(x / 3)             for −3 ≤ x < 3
//
// Scaling down widens the filter by s, which is the antialiasing. Weights are integers in units of 2⁻²². One direction
// follows the other, rounded and clipped to 8 bits in between, so their order shows (by up to 11 of 255 at hard edges):
// columns come first, unless more than twice as many rows as columns are lost. That rule is Pillow 13's; up to 12.3 columns
// always came first, which differs for tall images only.
//
// The nearest pixel is that which (i + ½) s lies in, with no antialiasing.

extension RGBImage {
    /// The image at another size, squashed when the proportions differ.
    public func resized(width: Int, height: Int, filter: Preprocessing.Filter = .bicubic) -> RGBImage {
        resized(width: width, height: height, columns: 0..<width, rows: 0..<height, filter)
    }

    /// The image in its proportions, its longer side at most `side`.
    public func fitted(into side: Int) -> RGBImage {
        let longer = max(width, height)
        guard longer > side else { return self }
        func shortened(_ length: Int) -> Int { max(1, length * side / longer) }
        return resized(width: shortened(width), height: shortened(height), filter: .bilinear)
    }

    /// The part of `resized(width:height:)` in these columns and rows, without computing the rest.
    func resized(
        width: Int, height: Int, columns: Range<Int>, rows: Range<Int>, _ filter: Preprocessing.Filter
    ) -> RGBImage {
        if width == self.width, height == self.height, columns == 0..<width, rows == 0..<height {
            return self
        }
        let result: [UInt8]  // [rows, columns, 3]
        if filter == .nearest {
            result = picked(
                columns: nearest(from: self.width, to: width)[columns],
                rows: nearest(from: self.height, to: height)[rows])
            return RGBImage(width: columns.count, height: rows.count, pixels: result)
        }
        let horizontal = ResampleWeights(from: self.width, to: width, columns, filter)
        let vertical = ResampleWeights(from: self.height, to: height, rows, filter)
        let loss = (columns: self.width - width, rows: self.height - height)
        if loss.rows > 0, loss.rows > 2 * loss.columns {
            let flat = resizeRows(pixels, rowLength: self.width * 3, firstRow: 0, vertical)
            result = resizeColumns(flat, width: self.width, rows: 0..<rows.count, horizontal)
        } else {
            let needed = vertical.sourceRange
            let narrow = resizeColumns(pixels, width: self.width, rows: needed, horizontal)
            result = resizeRows(
                narrow, rowLength: columns.count * 3, firstRow: needed.lowerBound, vertical)
        }
        return RGBImage(width: columns.count, height: rows.count, pixels: result)
    }

    /// The image at this place of a black square.
    func onBlack(side: Int, left: Int, top: Int) -> RGBImage {
        if width == side, height == side { return self }
        var square = [UInt8](repeating: 0, count: side * side * 3)
        for row in 0..<height {
            let start = ((top + row) * side + left) * 3
            square.replaceSubrange(
                start..<start + width * 3, with: pixels[row * width * 3..<(row + 1) * width * 3])
        }
        return RGBImage(width: side, height: side, pixels: square)
    }

    /// [rows, columns, 3] of these pixels.
    private func picked(columns: ArraySlice<Int>, rows: ArraySlice<Int>) -> [UInt8] {
        var result: [UInt8] = []
        result.reserveCapacity(rows.count * columns.count * 3)
        for row in rows {
            for column in columns {
                let start = (row * width + column) * 3
                result.append(contentsOf: pixels[start..<start + 3])
            }
        }
        return result
    }
}

/// [outputs] the inputs that are taken, by Pillow's own sums (Geometry.c), whose rounding decides between two pixels.
private func nearest(from inputCount: Int, to outputCount: Int) -> [Int] {
    let scale = Double(inputCount) / Double(outputCount)
    var place = scale * 0.5
    return (0..<outputCount).map { _ in
        defer { place += scale }
        return min(Int(place), inputCount - 1)
    }
}

/// [rows, w', 3], these rows of source [h, width, 3] at their new width.
private func resizeColumns(
    _ source: [UInt8], width: Int, rows: Range<Int>, _ weights: ResampleWeights
) -> [UInt8] {
    let newCount = rows.count * weights.spans.count * 3
    return [UInt8](unsafeUninitializedCapacity: newCount) { out, count in
        count = newCount
        source.withUnsafeBufferPointer { source in
            weights.values.withUnsafeBufferPointer { values in
                var next = out.baseAddress!
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
    }
}

/// [h', n], source [rows, n] at its new height; source begins with the image's row `firstRow`.
private func resizeRows(
    _ source: [UInt8], rowLength n: Int, firstRow: Int, _ weights: ResampleWeights
) -> [UInt8] {
    let newCount = weights.spans.count * n
    return [UInt8](unsafeUninitializedCapacity: newCount) { out, count in
        count = newCount
        source.withUnsafeBufferPointer { source in
            // A row of sums stays in the first-level cache, and the loop over it is one that the compiler vectorises.
            withUnsafeTemporaryAllocation(of: Int32.self, capacity: n) { sums in
                let sum = sums.baseAddress!
                for (index, span) in weights.spans.enumerated() {
                    sums.initialize(repeating: ResampleWeights.half)
                    for tap in 0..<span.count {
                        let weight = weights.values[index * weights.stride + tap]
                        let line = source.baseAddress! + (span.lowerBound - firstRow + tap) * n
                        for i in 0..<n { sum[i] &+= Int32(line[i]) &* weight }
                    }
                    let line = out.baseAddress! + index * n
                    for i in 0..<n { line[i] = ResampleWeights.round(sum[i]) }
                }
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

    init(
        from inputCount: Int, to outputCount: Int, _ outputs: Range<Int>, _ filter: Preprocessing.Filter
    ) {
        let scale = Double(inputCount) / Double(outputCount)
        let stretch = max(scale, 1)
        let support = filter.support * stretch
        stride = inputCount == outputCount ? 1 : Int(support.rounded(.up)) * 2 + 1
        spans.reserveCapacity(outputs.count)
        values = [Int32](repeating: 0, count: outputs.count * stride)
        for (index, output) in outputs.enumerated() {
            // Like Pillow, a direction that keeps its size is copied.
            guard inputCount != outputCount else {
                spans.append(output..<output + 1)
                values[index] = 1 << 22
                continue
            }
            let centre = (Double(output) + 0.5) * scale
            let first = max(0, Int(centre - support + 0.5))
            let last = min(inputCount, Int(centre + support + 0.5))
            spans.append(first..<last)
            let raw = (first..<last).map { filter.weight((Double($0) - centre + 0.5) * (1 / stretch)) }
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

extension Preprocessing.Filter {
    /// Beyond this distance it is zero.
    fileprivate var support: Double {
        switch self {
        case .nearest, .box: 0.5
        case .bilinear, .hamming: 1
        case .bicubic: 2
        case .lanczos: 3
        }
    }

    /// The weight, before all are scaled to the sum 1, of a pixel at this distance.
    fileprivate func weight(_ signed: Double) -> Double {
        let x = abs(signed)
        switch self {
        case .nearest, .box: return signed > -0.5 && signed <= 0.5 ? 1 : 0
        case .bilinear: return max(0, 1 - x)
        case .hamming: return x < 1 ? sinc(x) * (0.54 + 0.46 * cos(x * .pi)) : 0
        case .bicubic:
            if x < 1 { return (1.5 * x - 2.5) * x * x + 1 }
            if x < 2 { return (((x - 5) * x + 8) * x - 4) * -0.5 }
            return 0
        case .lanczos: return signed >= -3 && signed < 3 ? sinc(signed) * sinc(signed / 3) : 0
        }
    }
}

private func sinc(_ x: Double) -> Double { x == 0 ? 1 : sin(x * .pi) / (x * .pi) }
