import Foundation
import TensorCore

/// What turns the gradients in a store into a step.
public protocol Optimizer: AnyObject {
    /// Steps that each segment has made, in the store's order; 0 for one that has made none.
    var stepCounts: [Int] { get set }
    /// One step with the gradients in the store. `names` are the tensors that have one.
    func step(learningRate: Double, weightDecay: Double, onPath names: Set<String>)
}

/// SGD with momentum 0.9 as PyTorch's: g ← g + λθ, v ← 0.9 v + g, θ ← θ − ηv. A tensor without a gradient is left alone. The
/// velocities take the place of AdamW's first moments.
public final class SGD: Optimizer {
    private let store: ParameterStore
    private let backend: any Backend
    public var stepCounts: [Int]

    /// An optimizer at its beginning.
    public init(_ store: ParameterStore, on backend: any Backend) {
        (self.store, self.backend) = (store, backend)
        stepCounts = Array(repeating: 0, count: store.segments.count)
    }

    public func step(learningRate: Double, weightDecay: Double, onPath names: Set<String>) {
        let table = store.segments.enumerated().flatMap { index, segment -> [Float] in
            guard names.contains(segment.name) else { return [0, 0, 0] }
            stepCounts[index] += 1
            return [1, 0, 0]
        }
        backend.upload(store.segmentTable, table)
        backend.sgd(
            store.values, store.firstMoments, store.gradients, store.segmentOfBlock, store.segmentTable,
            SGDSettings(learningRate: learningRate, weightDecay: weightDecay))
    }
}

/// AdamW over a parameter store, in the two ways that a supernet can meet it.
///
/// A supernet's step leaves most tensors without a gradient, and what happens to them depends on PyTorch's version: they
/// differ by up to 0.1 in loss after 20 steps.
///
/// - `dense` (PyTorch 1.10, the published environment): `zero_grad()` zeroes in place, so a tensor that was once on a path
///   keeps receiving zero gradients, and its momentum and weight decay go on while it is off.
/// - `sparse` (PyTorch ≥ 2): `zero_grad()` sets None, so a tensor off the path is skipped.
///
/// In both a tensor that was never on a path is left alone, and each tensor has its own step count for the bias
/// correction: the steps since its first touch (dense), the steps on a path (sparse).
public final class AdamW: Optimizer {
    /// What happens to a tensor that is off the path.
    public enum Mode: String, Codable, CaseIterable, Sendable {
        /// It gets a zero gradient once it has been on a path.
        case dense
        /// It is skipped.
        case sparse
    }

    private let store: ParameterStore
    private let backend: any Backend
    private let mode: Mode

    /// Steps that each segment has made, in the store's order; 0 for one that was never on a path.
    public var stepCounts: [Int]

    /// An optimizer at its beginning.
    public init(_ store: ParameterStore, mode: Mode, on backend: any Backend) {
        (self.store, self.backend, self.mode) = (store, backend, mode)
        stepCounts = Array(repeating: 0, count: store.segments.count)
    }

    public func step(learningRate: Double, weightDecay: Double, onPath: Set<String>) {
        step(AdamWSettings(learningRate: learningRate, weightDecay: weightDecay), onPath: onPath)
    }

    /// One step with the gradients in the store. `onPath` names the tensors that the step's paths read.
    public func step(_ settings: AdamWSettings, onPath: Set<String>) {
        var table: [Float] = []
        table.reserveCapacity(3 * store.segments.count)
        for (index, segment) in store.segments.enumerated() {
            let isOnPath = onPath.contains(segment.name)
            guard isOnPath || (mode == .dense && stepCounts[index] > 0) else {
                table += [0, 0, 0]
                continue
            }
            stepCounts[index] += 1
            let t = Double(stepCounts[index])
            table += [
                1, Float(1 / (1 - pow(settings.beta1, t))),
                Float(1 / (1 - pow(settings.beta2, t)).squareRoot()),
            ]
        }
        backend.upload(store.segmentTable, table)
        backend.adamW(
            store.values, store.firstMoments, store.secondMoments,
            store.gradients, store.segmentOfBlock, store.segmentTable, settings)
    }
}
