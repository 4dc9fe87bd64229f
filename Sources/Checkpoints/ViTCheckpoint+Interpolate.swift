import TensorCore

// Position embeddings at another image size, as timm's resample_abs_pos_embed does: torch's
// F.interpolate(mode="bicubic", antialias=True, align_corners=False) on the grid, the class token's position apart.
//
//     out[i] = Σⱼ k((j + ½ − c) / s) · in[j] / Σⱼ k(…),   c = (i + ½) · n/m,  s = max(n/m, 1),  |j + ½ − c| < 2s
//
// along rows, then along columns, from n to m positions. k is Keys' cubic with a = −½ (with antialias torch takes
// Pillow's −½, without it −¾). Without antialias s is 1 and what lies outside counts as its neighbour at the edge.
// Source: aten/src/ATen/native/cpu/UpSampleKernel.cpp.

extension ViTCheckpoint {
    /// The same model for images of `imageSize` pixels: the position embeddings are interpolated, everything else
    /// stays. Throws `CheckpointError` when patches don't fill such an image.
    public func interpolated(toImageSize imageSize: Int) throws -> ViTCheckpoint {
        guard imageSize != configuration.imageSize else { return self }
        var checkpoint = self
        checkpoint.configuration.imageSize = imageSize
        checkpoint.preparedSize = nil
        checkpoint.configuration.preprocessing = configuration.preprocessing
            .scaled(by: Double(imageSize) / Double(configuration.imageSize))
        try checkpoint.configuration.check(source: "image size \(imageSize)")
        // Rotations follow the grid by themselves.
        guard let learned = tensors["pos_embed"] else { return checkpoint }
        let (old, new, D) = (configuration.gridSize, checkpoint.configuration.gridSize, configuration.width)
        let prefix = configuration.positionCount - configuration.patchCount
        let positions = learned.values  // [1, prefix + old², D]
        let weights =
            resizing == .sampled ? sampledWeights(from: old, to: new) : cubicWeights(from: old, to: new)
        // Rows are resized within each line of the grid, then whole lines are combined.
        let grid = Array(positions[(prefix * D)...])  // [old, old, D]
        // [old, new, D], then [new, new, D]
        let wide = resample(grid, lines: old, from: old, to: new, width: D, weights: weights)
        let tall = resample(wide, lines: 1, from: old, to: new, width: new * D, weights: weights)
        checkpoint.tensors["pos_embed"] = HostTensor(
            shape: [1, prefix + new * new, D], values: positions[..<(prefix * D)] + tall)
        return checkpoint
    }
}

/// For each of `to` positions the first of the `from` that it reads, and their weights.
private func cubicWeights(from: Int, to: Int) -> [(first: Int, weights: [Float])] {
    let scale = Double(from) / Double(to)
    let stretch = max(scale, 1)
    func cubic(_ distance: Double) -> Double {
        let (x, a) = (abs(distance), -0.5)
        if x < 1 { return ((a + 2) * x - (a + 3)) * x * x + 1 }
        return x < 2 ? ((x - 5) * x + 8) * x * a - 4 * a : 0
    }
    return (0..<to).map { index in
        let center = scale * (Double(index) + 0.5)
        let first = max(Int(center - 2 * stretch + 0.5), 0)
        let end = min(Int(center + 2 * stretch + 0.5), from)
        let weights = (first..<end).map { cubic((Double($0) + 0.5 - center) / stretch) }
        let total = weights.reduce(0, +)
        return (first, weights.map { Float($0 / total) })
    }
}

/// The same without antialias: four neighbours, those outside being the one at the edge.
private func sampledWeights(from: Int, to: Int) -> [(first: Int, weights: [Float])] {
    let (scale, a) = (Double(from) / Double(to), -0.75)
    func cubic(_ distance: Double) -> Double {
        let x = abs(distance)
        return x <= 1 ? ((a + 2) * x - (a + 3)) * x * x + 1 : ((x - 5) * x + 8) * x * a - 4 * a
    }
    return (0..<to).map { index in
        let center = scale * (Double(index) + 0.5) - 0.5
        let base = Int(center.rounded(.down))
        let first = min(max(base - 1, 0), from - 1)
        var weights = [Float](repeating: 0, count: min(max(base + 2, 0), from - 1) - first + 1)
        for neighbour in base - 1...base + 2 {
            weights[min(max(neighbour, 0), from - 1) - first] += Float(cubic(center - Double(neighbour)))
        }
        return (first, weights)
    }
}

/// values [lines, from, width] → [lines, to, width].
private func resample(
    _ values: [Float], lines: Int, from: Int, to: Int, width: Int, weights: [(first: Int, weights: [Float])]
) -> [Float] {
    var output = [Float](repeating: 0, count: lines * to * width)
    for line in 0..<lines {
        for (index, (first, weights)) in weights.enumerated() {
            let target = (line * to + index) * width
            for (offset, weight) in weights.enumerated() {
                let source = (line * from + first + offset) * width
                for column in 0..<width { output[target + column] += weight * values[source + column] }
            }
        }
    }
    return output
}
