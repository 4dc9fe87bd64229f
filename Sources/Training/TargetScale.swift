import TensorCore

/// Values t of any size as a training sees them, and outputs z back in the values' own units:
///
///     t̂ₖ = (tₖ − mₖ) / sₖ        yₖ = sₖ zₖ + mₖ
///
/// with the mean m and the standard deviation s [K] of the training images' values. A last layer z = W x + c makes y itself with sₖ Wₖ
/// and sₖ cₖ + mₖ, which is how a run is read, its adapter is written and it is merged.
public struct TargetScale: Codable, Equatable, Sendable {
    /// m [K].
    public let means: [Double]
    /// s [K], 1 where all values are equal.
    public let deviations: [Double]

    /// Of these rows of K values. Traps without any.
    init(_ rows: [[Float]]) {
        let count = Double(rows.count)
        let means = rows[0].indices.map { k in rows.reduce(0) { $0 + Double($1[k]) } / count }
        deviations = means.enumerated().map { k, mean in
            let variance = rows.reduce(0) { $0 + (Double($1[k]) - mean) * (Double($1[k]) - mean) } / count
            return variance > 0 ? variance.squareRoot() : 1
        }
        self.means = means
    }

    /// t̂ [K] of t [K].
    func standardised(_ values: [Float]) -> [Float] {
        values.enumerated().map { Float((Double($1) - means[$0]) / deviations[$0]) }
    }

    /// Makes a head's tensors, `head.weight` [K, D] and `head.bias` [K], give values in their own units. Throws `TrainingError.run`
    /// where they are of another number of values.
    func fold(into tensors: inout [String: HostTensor]) throws {
        guard var weight = tensors["head.weight"], var bias = tensors["head.bias"],
            weight.shape[0] == means.count, bias.shape == [means.count], deviations.count == means.count
        else {
            throw TrainingError.run(
                "the saved state scales \(means.count) values, and its head has \(tensors["head.bias"]?.shape ?? []); put the "
                    + "original back")
        }
        let width = weight.shape[1]
        for (k, deviation) in deviations.enumerated() {
            for d in k * width..<(k + 1) * width {
                weight.values[d] = Float(deviation * Double(weight.values[d]))
            }
            bias.values[k] = Float(deviation * Double(bias.values[k]) + means[k])
        }
        (tensors["head.weight"], tensors["head.bias"]) = (weight, bias)
    }
}
