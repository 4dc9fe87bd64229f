import Adapters
import Checkpoints
import Foundation
import TensorCore
import Training
import Transformers
import VisionModels

/// How strictly a trajectory can be held.
///
/// A constant B or E on proj and fc2, and any bias on the k third of qkv, have gradients that are zero analytically. In
/// float32 they are rounding noise, which AdamW turns into steps of ±η; the constant shares its element with the other
/// forms, so the next draw makes the noise functional. Two exact implementations then part by 3e-3 in loss within 20 steps.
private enum Conditioning {
    /// Draws that avoid those entries: float32 stays within 1.2e-6 in loss and 5e-6 in parameters.
    case well
    /// One path for every step: the noise stays in the k third of qkv's D and E, which the softmax ignores.
    case fixed
    /// Any draws: only the losses say something, and those to 1e-2.
    case sampled

    init(_ sampling: String) throws {
        switch sampling {
        case "wellcond": self = .well
        case "fixed": self = .fixed
        case "sampled": self = .sampled
        default: throw GoldenError("the sampling '\(sampling)' is unknown")
        }
    }

    var lossBound: Double { self == .sampled ? 1e-2 : 2e-6 }
}

/// AdamW steps on given paths and batches: the loss of each, the parameters after the first and the last, and the
/// logits of batch 0 on `eval_configs` afterwards, merged and not.
func replayTrajectory(
    _ file: SafetensorsFile, _ golden: JSONValue, base baseFile: SafetensorsFile, on backend: any Backend
) throws -> Comparison {
    let base = try GoldenBase(baseFile, arch: golden["arch"], description: golden)
    let model = try goldenModel(file, golden, base, prefix: "init.", on: backend)
    let conditioning = try Conditioning(golden.string("sampling"))
    let (settings, mode) = (try adamWSettings(golden), try adamWMode(golden))
    let optimizer = AdamW(model.store, mode: mode, on: backend)
    let paths = try stepPaths(golden, model)
    let batches = try golden.array("batch_of_step").compactMap(\.integerValue)
    let steps = try golden.integer("steps")
    let (truth, _) = try file.truth("out.losses")
    guard batches.count == steps, truth.count == steps, paths.count == steps else {
        throw GoldenError(
            "\(steps) steps have \(batches.count) batches, \(truth.count) losses and \(paths.count) lists of paths"
        )
    }

    let (bounds, isFloat32) = (Bounds(backend.precision), backend.precision == .float32)
    var comparison = Comparison()
    var losses: [Float] = []
    let plan = try model.plan(batch: base.batch, isForTraining: true)
    func compareParameters(_ prefix: String, steps: Int) throws {
        try comparison.parameters(
            prefix, file, model, golden, isFloat32 ? conditioning : .sampled, settings, steps: steps)
    }
    for step in 0..<steps {
        try base.load(batches[step], into: plan, on: backend)
        model.store.clearGradients()
        model.layers.take(paths[step])
        model.forward(plan)
        model.loss(plan)
        model.backward(plan)
        optimizer.step(settings, onPath: model.trainedNames)
        let loss = mean(backend.values(plan.losses))
        losses.append(Float(loss))
        if isFloat32 {
            comparison.expect(
                "loss of step \(step)", "absolute error", error: abs(loss - truth[step]),
                bound: conditioning.lossBound)
        }
        if step == 0 { try compareParameters("step1.", steps: 1) }
    }
    if !isFloat32 { comparison.distance("losses", losses, truth: truth, bound: bounds.losses) }
    try compareParameters("final.", steps: steps)

    model.layers.take(try goldenPaths(golden.array("eval_configs"), golden, model))
    let logits = try evaluate(model, base, batch: 0).logits
    let merged = try evaluateMerged(model, base, batch: 0).logits
    for (name, actual) in [("eval.logits", logits), ("eval.merged_logits", merged)] {
        let (truth, official) = try file.truth(name)
        if !isFloat32 {
            comparison.distance(name, actual, truth: truth, bound: bounds.trainedLogits)
        } else if conditioning == .sampled {
            // Of the order of the logits' own part of a loss difference of 1e-2.
            comparison.absolute(name, actual, truth: truth, bound: 5e-2)
        } else {
            let error = official.map { relativeDistance($0, truth) } ?? 0
            comparison.distance(name, actual, truth: truth, bound: max(1e-5, 4 * error))
        }
    }
    return comparison
}

// MARK: Description

private func adamWSettings(_ golden: JSONValue) throws -> AdamWSettings {
    guard let described = golden["optimizer"], described["name"]?.stringValue == "AdamW" else {
        throw GoldenError("the description has no optimizer AdamW")
    }
    var settings = AdamWSettings(
        learningRate: try described.number("lr"), weightDecay: try described.number("weight_decay"))
    if let betas = described["betas"]?.arrayValue?.compactMap(\.numberValue), betas.count == 2 {
        (settings.beta1, settings.beta2) = (betas[0], betas[1])
    }
    settings.epsilon = described["eps"]?.numberValue ?? settings.epsilon
    return settings
}

/// In place is PyTorch 1.10's zero_grad, which keeps a touched tensor moving; None is that of 2.0 on.
private func adamWMode(_ golden: JSONValue) throws -> AdamW.Mode {
    let text = try golden.string("zero_grad")
    if text.hasPrefix("zerograd_in_place") { return .dense }
    if text.hasPrefix("zerograd_to_none") { return .sparse }
    throw GoldenError("zero_grad '\(text)' is neither zerograd_in_place nor zerograd_to_none")
}

/// The paths of every step: a list of lists, or `configs_fixed` for all.
private func stepPaths(_ golden: JSONValue, _ model: VisionTransformer) throws -> [[GLoRAPath]] {
    if let lists = golden["configs_per_step"]?.arrayValue {
        return try lists.map { try goldenPaths($0.arrayValue ?? [], golden, model) }
    }
    let fixed = try goldenPaths(golden.array("configs_fixed"), golden, model)
    return Array(repeating: fixed, count: try golden.integer("steps"))
}

// MARK: Parameters

extension Comparison {
    /// The trained tensors against those under `prefix`: within max(1e-5, 4 · stored deviation) where the trajectory is well
    /// conditioned, else, and where weights are stored in 16 bits, within the 2 · steps · η by which two runs can part.
    fileprivate mutating func parameters(
        _ prefix: String, _ file: SafetensorsFile, _ model: VisionTransformer, _ golden: JSONValue,
        _ conditioning: Conditioning, _ settings: AdamWSettings, steps: Int
    ) throws {
        let loose = 2.001 * Double(steps) * settings.learningRate  // and what float32 rounds
        let values = model.store.unpack(model.store.values)
        for name in file.names(under: prefix) {
            let actual = values[name]?.values ?? []
            let truth = try file.doubles(prefix + name)
            let hasNoise = name.hasSuffix(".attn.qkv.D") || name.hasSuffix(".attn.qkv.E")
            if conditioning == .sampled {
                absolute(prefix + name, actual, truth: truth, bound: loose)
            } else if conditioning == .fixed, hasNoise, actual.count == truth.count {
                let third = actual.count / 3
                for (part, bound) in [
                    (0..<third, 1e-5), (third..<2 * third, loose), (2 * third..<3 * third, 1e-5),
                ] {
                    absolute(prefix + name, Array(actual[part]), truth: Array(truth[part]), bound: bound)
                }
            } else {
                let deviation = golden["final_f32_dev"]?[name]?.numberValue ?? 0
                absolute(prefix + name, actual, truth: truth, bound: max(1e-5, 4 * deviation))
            }
        }
    }
}
