import Foundation
import TensorCore

/// What turns the gradients in a store into a step.
public protocol Optimizer: AnyObject {
    /// Steps that each segment has made, in the store's order; 0 for one that has made none.
    var stepCounts: [Int] { get set }
    /// Each segment's shares of the rate and of the decay.
    var groups: ParameterGroups { get set }
    /// One step with the gradients in the store. `names` are the tensors that have one.
    func step(learningRate: Double, weightDecay: Double, onPath names: Set<String>)
}

extension Optimizer {
    /// [segments, 4] (r, 1, 1, d) of what has a gradient, and zeros of the rest; counts its steps.
    fileprivate func plainTable(_ store: ParameterStore, _ names: Set<String>) -> [Float] {
        store.segments.enumerated().flatMap { index, segment -> [Float] in
            guard names.contains(segment.name) else { return [0, 0, 0, 0] }
            stepCounts[index] += 1
            return [groups.rates[index], 1, 1, groups.decays[index]]
        }
    }
}

/// SGD with momentum as PyTorch's: g ← g + λθ, v ← μv + g, θ ← θ − ηv, or with Nesterov's look ahead θ − η(g + μv). A tensor
/// without a gradient is left alone. The velocities take the place of AdamW's first moments.
public final class SGD: Optimizer {
    private let store: ParameterStore
    private let backend: any Backend
    private let momentum: Double
    private let nesterov: Bool
    public var stepCounts: [Int]
    public var groups: ParameterGroups

    /// An optimizer at its beginning.
    public init(
        _ store: ParameterStore, momentum: Double = 0.9, nesterov: Bool = false, on backend: any Backend
    ) {
        (self.store, self.backend, self.momentum, self.nesterov) = (store, backend, momentum, nesterov)
        (stepCounts, groups) = (Array(repeating: 0, count: store.segments.count), ParameterGroups(store))
    }

    public func step(learningRate: Double, weightDecay: Double, onPath names: Set<String>) {
        backend.upload(store.segmentTable, plainTable(store, names))
        var settings = SGDSettings(learningRate: learningRate, weightDecay: weightDecay)
        (settings.momentum, settings.nesterov) = (momentum, nesterov)
        backend.sgd(
            store.values, store.firstMoments, store.gradients, store.segmentOfBlock, store.segmentTable,
            settings)
    }
}

/// Lion (Chen et al., arXiv 2302.06675). A tensor without a gradient is left alone.
public final class Lion: Optimizer {
    private let store: ParameterStore
    private let backend: any Backend
    private let betas: (Double, Double)
    public var stepCounts: [Int]
    public var groups: ParameterGroups

    /// An optimizer at its beginning.
    public init(_ store: ParameterStore, betas: (Double, Double) = (0.9, 0.99), on backend: any Backend) {
        (self.store, self.backend, self.betas) = (store, backend, betas)
        (stepCounts, groups) = (Array(repeating: 0, count: store.segments.count), ParameterGroups(store))
    }

    public func step(learningRate: Double, weightDecay: Double, onPath names: Set<String>) {
        backend.upload(store.segmentTable, plainTable(store, names))
        var settings = LionSettings(learningRate: learningRate, weightDecay: weightDecay)
        (settings.beta1, settings.beta2) = betas
        backend.lion(
            store.values, store.firstMoments, store.gradients, store.segmentOfBlock, store.segmentTable,
            settings)
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
    /// β and ε; the rate and the decay come with each step.
    private let constants: AdamWSettings

    /// Steps that each segment has made, in the store's order; 0 for one that was never on a path.
    public var stepCounts: [Int]
    public var groups: ParameterGroups

    /// An optimizer at its beginning. Of `constants` β and ε count.
    public init(
        _ store: ParameterStore, mode: Mode,
        constants: AdamWSettings = AdamWSettings(learningRate: 0, weightDecay: 0), on backend: any Backend
    ) {
        (self.store, self.backend, self.mode, self.constants) = (store, backend, mode, constants)
        (stepCounts, groups) = (Array(repeating: 0, count: store.segments.count), ParameterGroups(store))
    }

    public func step(learningRate: Double, weightDecay: Double, onPath: Set<String>) {
        var settings = constants
        (settings.learningRate, settings.weightDecay) = (learningRate, weightDecay)
        step(settings, onPath: onPath)
    }

    /// One step with the gradients in the store. `onPath` names the tensors that the step's paths read.
    public func step(_ settings: AdamWSettings, onPath: Set<String>) {
        var table: [Float] = []
        table.reserveCapacity(4 * store.segments.count)
        for (index, segment) in store.segments.enumerated() {
            let isOnPath = onPath.contains(segment.name)
            guard isOnPath || (mode == .dense && stepCounts[index] > 0) else {
                table += [0, 0, 0, 0]
                continue
            }
            stepCounts[index] += 1
            let t = Double(stepCounts[index])
            table += [
                groups.rates[index], Float(1 / (1 - pow(settings.beta1, t))),
                Float(1 / (1 - pow(settings.beta2, t)).squareRoot()), groups.decays[index],
            ]
        }
        backend.upload(store.segmentTable, table)
        backend.adamW(
            store.values, store.firstMoments, store.secondMoments,
            store.gradients, store.segmentOfBlock, store.segmentTable, settings)
    }
}
