/// How well outputs y [N, K] rank the images that have each of K labels, t [N, K] of zeros and ones.
///
///     AP = Σ_i (R_i − R_{i−1}) P_i
///
/// over the distinct outputs of a label as thresholds, the largest first: P_i is the share of the images at or above threshold i that have
/// the label, R_i that of the images with the label that are at or above it. Images with equal outputs stand at one threshold.
///
/// Source: scikit-learn, `average_precision_score`.
public struct LabelMetrics: Equatable, Sendable {
    /// [K] average precision, 0 to 1; nil for a label that no image has, NaN where an output isn't finite.
    public let averagePrecision: [Double?]

    /// `outputs` (logits or probabilities: only their order counts) and `targets`: [N · K]. Traps on other counts.
    public init(outputs: [Float], targets: [Float], count: Int) {
        precondition(
            count > 0 && outputs.count == targets.count && outputs.count % count == 0,
            "\(outputs.count) outputs and \(targets.count) targets of \(count) labels")
        averagePrecision = (0..<count).map { label in
            LabelMetrics.averagePrecision(
                stride(from: label, to: outputs.count, by: count).map { (outputs[$0], targets[$0] > 0) })
        }
    }

    /// The mean over the labels that some image has; nil where none has any.
    public var meanAveragePrecision: Double? { mean(averagePrecision.compactMap(\.self)) }

    /// How many labels no image has, which the mean leaves out.
    public var absentCount: Int { averagePrecision.count { $0 == nil } }

    private static func averagePrecision(_ images: [(output: Float, isPositive: Bool)]) -> Double? {
        let positives = images.count { $0.isPositive }
        guard positives > 0 else { return nil }
        guard images.allSatisfy({ $0.output.isFinite }) else { return .nan }
        let ranked = images.sorted { $0.output > $1.output }
        var (sum, found, before) = (0.0, 0, 0)
        for (index, image) in ranked.enumerated() {
            if image.isPositive { found += 1 }
            // Only behind the last of equals is a threshold.
            if index + 1 < ranked.count, ranked[index + 1].output == image.output { continue }
            sum += Double(found - before) / Double(positives) * Double(found) / Double(index + 1)
            before = found
        }
        return sum
    }
}

/// How near outputs y [N, K] are to K values t [N, K] of each image.
///
///     R² = 1 − Σ (t − y)² / Σ (t − mean t)²          MAE = Σ |t − y| / N
///
/// Where all values are equal, R² is 1 for outputs that are right and 0 for others, as scikit-learn has it.
///
/// Source: scikit-learn, `r2_score` and `mean_absolute_error`.
public struct ValueMetrics: Equatable, Sendable {
    /// [K]: 1 is right, 0 as good as the mean, below 0 worse; nil for fewer than two images, NaN where an output isn't finite.
    public let r2: [Double?]
    /// [K] in the values' units; nil without images.
    public let absoluteError: [Double?]

    /// `outputs` and `targets`: [N · K]. Traps on other counts.
    public init(outputs: [Float], targets: [Float], count: Int) {
        precondition(
            count > 0 && outputs.count == targets.count && outputs.count % count == 0,
            "\(outputs.count) outputs and \(targets.count) targets of \(count) values")
        let columns = (0..<count).map { value in
            stride(from: value, to: outputs.count, by: count).map {
                (Double(outputs[$0]), Double(targets[$0]))
            }
        }
        r2 = columns.map(ValueMetrics.r2)
        absoluteError = columns.map { column in mean(column.map { abs($0.1 - $0.0) }) }
    }

    /// The mean over the values; nil for fewer than two images.
    public var meanR2: Double? { mean(r2.compactMap(\.self)) }

    /// The mean over the values; nil without images.
    public var meanAbsoluteError: Double? { mean(absoluteError.compactMap(\.self)) }

    private static func r2(_ column: [(output: Double, target: Double)]) -> Double? {
        guard column.count > 1, let centre = mean(column.map(\.target)) else { return nil }
        let residual = column.reduce(0) { $0 + ($1.target - $1.output) * ($1.target - $1.output) }
        let total = column.reduce(0) { $0 + ($1.target - centre) * ($1.target - centre) }
        guard residual.isFinite else { return .nan }
        if total == 0 { return residual == 0 ? 1 : 0 }
        return 1 - residual / total
    }
}

/// nil of nothing.
private func mean(_ values: [Double]) -> Double? {
    values.isEmpty ? nil : values.reduce(0, +) / Double(values.count)
}
