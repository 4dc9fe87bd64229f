import Checkpoints
import Foundation

/// What comes out of replaying one golden file.
public struct GoldenResult: Sendable {
    /// How the replay ended.
    public enum Status: Equatable, Sendable {
        /// Every number is within its bound.
        case passed
        /// At least one isn't, or the file can't be replayed: a sentence.
        case failed(String)
    }

    /// The file's path inside the suite: `vit/fixed_mixed.safetensors`.
    public let name: String
    /// How it ended.
    public let status: Status
    /// The number that came closest to its bound, as in `grad.Ad: error of an element 2.1e-7, bound 9e-7`; empty where
    /// there is none.
    public let detail: String
}

/// A golden file that doesn't say what a replay needs.
struct GoldenError: Error, CustomStringConvertible {
    let description: String
    init(_ description: String) { self.description = description }
}

/// Holds a backend's numbers against the float64 truth of one golden file and remembers what was worst.
///
/// What is allowed follows from what is rounded, see `Bounds`. A NaN is never within a bound.
struct Comparison {
    private var failures: [String] = []
    private var checkCount = 0
    private var worst = (ratio: -1.0, text: "")

    /// Records `error`, which passes when it is at most `bound`.
    mutating func expect(_ name: String, _ measure: String, error: Double, bound: Double) {
        checkCount += 1
        let text = "\(name): \(measure) \(brief(error)), bound \(brief(bound))"
        guard error <= bound else {
            failures.append(text)
            return
        }
        let ratio = bound > 0 ? error / bound : 0
        if ratio > worst.ratio { worst = (ratio, text) }
    }

    /// Records a statement that is true or not; `otherwise` says what is wrong.
    mutating func expect(_ condition: Bool, otherwise: @autoclosure () -> String) {
        checkCount += 1
        if !condition { failures.append(otherwise()) }
    }

    /// Length of the difference from the truth, as a part of the truth's own.
    mutating func distance(_ name: String, _ actual: [Float], truth: [Double], bound: Double) {
        guard hasCount(truth, name, actual) else { return }
        expect(
            name, "relative error", error: relativeDistance(actual.map(Double.init), truth), bound: bound)
    }

    /// The largest difference of an element from the truth beyond `underflow`, as a part of its `magnitudes`.
    mutating func elements(
        _ name: String, _ actual: [Float], truth: [Double], magnitudes: [Float], underflow: Double,
        bound: Double
    ) {
        guard hasCount(truth, name, actual) else { return }
        guard magnitudes.count == truth.count else {
            return expect(
                false, otherwise: "\(name) has \(magnitudes.count) magnitudes for \(truth.count) elements")
        }
        var largest = 0.0
        for ((a, t), magnitude) in zip(zip(actual, truth), magnitudes) {
            let excess = abs(Double(a) - t) - underflow
            // Everything is within a part of infinity.
            let error = magnitude == .infinity ? .nan : excess <= 0 ? 0 : excess / Double(magnitude)
            if !(error <= largest) { largest = error }
            if largest.isNaN { break }
        }
        expect(name, "error of an element", error: largest, bound: bound)
    }

    /// Largest difference from the truth, as a part of its largest element.
    mutating func largest(
        _ name: String, _ actual: [Float], truth: [Double], bound: Double, atLeast least: Double = 0
    ) {
        let most = truth.reduce(0) { max($0, abs($1)) }
        absolute("\(name) of at most \(brief(most))", actual, truth: truth, bound: max(bound * most, least))
    }

    /// Largest absolute difference from the truth.
    mutating func absolute(_ name: String, _ actual: [Float], truth: [Double], bound: Double) {
        guard hasCount(truth, name, actual) else { return }
        var largest = 0.0
        for (a, t) in zip(actual, truth) {
            let difference = abs(Double(a) - t)
            // `max` may drop a NaN; this doesn't.
            if !(difference <= largest) { largest = difference }
            if largest.isNaN { break }
        }
        expect(name, "absolute error", error: largest, bound: bound)
    }

    /// Records a failure where the counts differ.
    private mutating func hasCount(_ truth: [Double], _ name: String, _ actual: [Float]) -> Bool {
        if truth.count == actual.count { return true }
        failures.append("\(name) has \(actual.count) elements, the file \(truth.count)")
        return false
    }

    /// The verdict on the file. Without any check it is a failure: nothing was compared.
    func result(_ name: String) -> GoldenResult {
        if failures.isEmpty, checkCount > 0 {
            let detail = worst.text.isEmpty ? "\(checkCount) comparisons, all equal" : worst.text
            return GoldenResult(name: name, status: .passed, detail: detail)
        }
        var sentence = failures.prefix(3).joined(separator: "; ")
        if failures.count > 3 { sentence += "; and \(failures.count - 3) more of \(checkCount) comparisons" }
        if failures.isEmpty { sentence = "the file holds nothing to compare" }
        return GoldenResult(name: name, status: .failed(sentence), detail: worst.text)
    }
}

/// ‖a−t‖ / ‖t‖.
func relativeDistance(_ actual: [Double], _ truth: [Double]) -> Double {
    let scale = truth.reduce(0) { $0 + square($1) }
    let error = zip(actual, truth).reduce(0) { $0 + square($1.0 - $1.1) }
    return (error / max(scale, .leastNormalMagnitude)).squareRoot()
}

private func square(_ x: Double) -> Double { x * x }

/// Two significant digits, as in 1.2e-10.
private func brief(_ x: Double) -> String { String(format: "%.2g", x) }

// MARK: Reading

extension SafetensorsFile {
    /// The truth and, where it is stored, the authors' float32 of tensor `name`. Throws `CheckpointError`.
    func truth(_ name: String) throws -> (truth: [Double], official: [Double]?) {
        (
            try doubles("\(name).f64"),
            entries["\(name).f32"] == nil ? nil : try doubles("\(name).f32")
        )
    }

    /// The names of all tensors under `prefix`, without it and, where given, without `suffix`.
    func names(under prefix: String, suffix: String = "") -> [String] {
        names.filter { $0.hasPrefix(prefix) && $0.hasSuffix(suffix) }
            .map { String($0.dropFirst(prefix.count).dropLast(suffix.count)) }
    }
}

extension JSONValue {
    /// The member `key` as an integer. Throws `GoldenError`.
    func integer(_ key: String) throws -> Int {
        guard let value = self[key]?.integerValue else {
            throw GoldenError("the description has no number '\(key)'")
        }
        return value
    }

    /// The member `key` as a number. Throws `GoldenError`.
    func number(_ key: String) throws -> Double {
        guard let value = self[key]?.numberValue else {
            throw GoldenError("the description has no number '\(key)'")
        }
        return value
    }

    /// The member `key` as a string. Throws `GoldenError`.
    func string(_ key: String) throws -> String {
        guard let value = self[key]?.stringValue else {
            throw GoldenError("the description has no text '\(key)'")
        }
        return value
    }

    /// The member `key` as a list. Throws `GoldenError`.
    func array(_ key: String) throws -> [JSONValue] {
        guard let value = self[key]?.arrayValue else {
            throw GoldenError("the description has no list '\(key)'")
        }
        return value
    }

    /// The member `key` as a list of strings; empty when it is absent.
    func strings(_ key: String) -> [String] { self[key]?.arrayValue?.compactMap(\.stringValue) ?? [] }
}
