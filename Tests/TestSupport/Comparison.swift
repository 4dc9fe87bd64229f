import Foundation
import TensorCore
import Testing

/// Σ (a − b)² / Σ b². A NaN anywhere and a difference in count give ∞; a zero reference gives 0
/// when met exactly, else ∞.
public func normalisedSquaredError(_ a: [Float], _ b: [Double]) -> Double {
    guard a.count == b.count else { return .infinity }
    var difference = 0.0
    var scale = 0.0
    for (x, y) in zip(a, b) {
        difference += (Double(x) - y) * (Double(x) - y)
        scale += y * y
    }
    if difference == 0 { return 0 }
    let error = difference / scale
    return error.isNaN ? .infinity : error
}

/// Records an issue unless the normalised squared error is below `limit`. An infinite one never is.
public func expectClose(
    _ a: [Float], _ b: [Double], _ what: String, limit: Double = 1e-10,
    sourceLocation: SourceLocation = #_sourceLocation
) {
    let error = normalisedSquaredError(a, b)
    guard !(error < limit) else { return }
    var message = "\(what): error \(error), limit \(limit)"
    if a.count != b.count {
        message += "; \(a.count) values for \(b.count)"
    } else if let worst = a.indices.max(by: { deviation(a[$0], b[$0]) < deviation(a[$1], b[$1]) }) {
        message += "; worst at \(worst) of \(a.count): \(a[worst]) for \(b[worst])"
    }
    Issue.record("\(message)", sourceLocation: sourceLocation)
}

private func deviation(_ a: Float, _ b: Double) -> Double {
    let difference = abs(Double(a) - b)
    return difference.isNaN ? .infinity : difference
}

/// Records an issue unless both hold the same bits; NaNs of the same bits are equal.
public func expectIdentical(
    _ a: [Float], _ b: [Float], _ what: String, sourceLocation: SourceLocation = #_sourceLocation
) {
    guard a.count == b.count else {
        Issue.record("\(what): \(a.count) values for \(b.count)", sourceLocation: sourceLocation)
        return
    }
    if let i = a.indices.first(where: { a[$0].bitPattern != b[$0].bitPattern }) {
        Issue.record("\(what): \(a[i]) at \(i) of \(a.count), not \(b[i])", sourceLocation: sourceLocation)
    }
}

/// Normally distributed values that depend on the seed only.
public func randomValues(_ count: Int, seed: Int, scale: Double = 1, mean: Double = 0) -> [Float] {
    var random = Random(seed, "test values")
    return (0..<count).map { _ in Float(mean + scale * random.normal()) }
}

/// The same values in double precision, which a reference computes with.
public func doubles(_ values: [Float]) -> [Double] { values.map(Double.init) }
