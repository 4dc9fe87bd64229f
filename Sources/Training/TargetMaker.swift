import Adapters
import Foundation
import TensorCore
import Transformers

/// Targets t [B, K] of a step, where they aren't plain classes: zeros and ones of labels, values as `TargetScale` has them, and of
/// class y, with smoothing s and weights w,
///
///     tₖ = wₖ ((1 − s) [k = y] + s / K) · B / Σᵢ w(yᵢ)
///
/// over the B examples of a step. Of examples that are mixed, λ t(y) + (1 − λ) t(y′) without the last factor.
///
/// Sources: `torch.nn.CrossEntropyLoss` with `label_smoothing` and `weight`, of classes and of probabilities; timm's `mixup_target`.
struct TargetMaker {
    /// The loss that reads them.
    let kind: TargetLoss
    /// Of values.
    let scale: TargetScale?
    /// [examples][K] of labels and values.
    private let targets: [[Float]]
    private let classCount: Int
    private let smoothing: Double
    let weights: [Double]?  // [K]
    private let mixes: Bool

    /// What these settings make of the labels of `examples`; nil where they leave them alone. Throws `TrainingError.settings` for
    /// weights that can't be meant.
    init?(_ additions: TrainingAdditions, _ examples: some ExampleSource, classCount: Int) throws {
        mixes = try additions.augmentation.mixing.isOn
        self.classCount = classCount
        if let kind = examples.targetLoss {
            let rows = (0..<examples.count).map { examples.targets(at: $0) }
            scale = kind == .squared ? TargetScale(rows) : nil
            targets = scale.map { rows.map($0.standardised) } ?? rows
            (self.kind, smoothing, weights) = (kind, 0, nil)
            return
        }
        (kind, scale, targets) = (.softmax, nil, [])
        guard mixes || additions.labelSmoothing ?? 0 > 0 || additions.classWeights != nil else { return nil }
        smoothing = additions.labelSmoothing ?? 0
        weights = try additions.classWeights.map { text in
            text == "balanced"
                ? TargetMaker.balanced(
                    (0..<examples.count).map { examples.label(at: $0) }, classCount: classCount)
                : try TargetMaker.weights(inFile: text, classCount: classCount, names: examples.classNames)
        }
    }

    /// n / (K · nₖ), as scikit-learn's `compute_class_weight("balanced")`; K counts the classes that occur, others weigh nothing.
    static func balanced(_ labels: [Int], classCount: Int) -> [Double] {
        var counts = [Int](repeating: 0, count: classCount)
        for label in labels { counts[label] += 1 }
        let occurring = counts.count { $0 > 0 }
        return counts.map { $0 == 0 ? 0 : Double(labels.count) / Double(occurring * $0) }
    }

    /// A line `class weight` for each class, by its name or its number from 0.
    static func weights(inFile path: String, classCount: Int, names: [String]?) throws -> [Double] {
        func failure(_ what: String) -> TrainingError { .settings("`class-weights` \(path) \(what)") }
        guard let text = try? String(contentsOfFile: path, encoding: .utf8) else {
            throw failure(
                "can't be read as text; give balanced, or a file with a line for each class, its name and its weight"
            )
        }
        var weights = [Double?](repeating: nil, count: classCount)
        for (index, line) in text.split(
            omittingEmptySubsequences: false, whereSeparator: \.isNewline
        ).enumerated() {
            let line = line.trimmingCharacters(in: .whitespaces)
            if line.isEmpty || line.hasPrefix("#") { continue }
            guard let gap = line.lastIndex(where: { $0 == " " || $0 == "\t" || $0 == "," }),
                let weight = Double(line[line.index(after: gap)...]), weight.isFinite, weight >= 0
            else {
                throw failure("has in line \(index + 1) no class and its weight from 0 on: '\(line)'")
            }
            let name = line[..<gap].trimmingCharacters(in: CharacterSet(charactersIn: " \t,"))
            guard let place = names?.firstIndex(of: name) ?? Int(name), weights.indices.contains(place) else {
                throw failure("names a class '\(name)' in line \(index + 1) that the data haven't")
            }
            guard weights[place] == nil else { throw failure("has two weights for class '\(name)'") }
            weights[place] = weight
        }
        if let missing = weights.firstIndex(of: nil) {
            throw failure("has no weight for class \(names?[missing] ?? "\(missing)")")
        }
        guard weights.contains(where: { $0! > 0 }) else { throw failure("has no weight above 0") }
        return weights.map { $0! }
    }

    /// Σᵢ w(yᵢ) / B of a step's labels: what its weights are divided by.
    func weight(of labels: [Int]) -> Double {
        guard let weights, !labels.isEmpty, !mixes else { return 1 }
        let sum = labels.reduce(0) { $0 + weights[$1] }
        // Of classes that weigh nothing there is nothing to learn.
        return sum > 0 ? sum / Double(labels.count) : 1
    }

    /// t [B, K] of a batch, in a step of that `weight`.
    func values(of batch: some ExampleBatch, weight: Double?) -> [Float] {
        guard kind == .softmax else { return batch.indices.flatMap { targets[$0] } }
        return batch.labels.indices.flatMap { row in
            let (own, mix) = (Int(batch.labels[row]), batch.mix)
            return (0..<classCount).map { k in
                let meant =
                    (k == own ? mix?.lambda ?? 1 : 0)
                    + (mix.map { k == Int($0.partners[row]) ? 1 - $0.lambda : 0 } ?? 0)
                let share = (1 - smoothing) * meant + smoothing / Double(classCount)
                return Float(share * (weights?[k] ?? 1) / (weight ?? 1))
            }
        }
    }
}

extension TrainingAdditions {
    /// The optimizer that the settings name.
    func optimizer(
        _ options: TrainingOptions, _ store: ParameterStore, on backend: any Backend
    ) -> any Optimizer {
        switch options.optimizer {
        case .adamw:
            var constants = AdamWSettings(learningRate: 0, weightDecay: 0)
            constants.beta1 = beta1 ?? constants.beta1
            constants.beta2 = beta2 ?? constants.beta2
            constants.epsilon = epsilon ?? constants.epsilon
            return AdamW(store, mode: options.adamw, constants: constants, on: backend)
        case .sgd:
            return SGD(store, momentum: momentum ?? 0.9, nesterov: nesterov ?? false, on: backend)
        case .lion: return Lion(store, betas: (beta1 ?? 0.9, beta2 ?? 0.99), on: backend)
        }
    }
}
