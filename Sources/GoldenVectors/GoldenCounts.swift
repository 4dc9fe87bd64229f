import Adapters
import Checkpoints
import Foundation
import Training

/// Parameter counts of candidates, each a path for every layer, in all and by layer: equal to the authors'.
///
/// Source: ViT-Slim/GLoRA/evolution_utils.py, `get_param`.
func replayParameterCounts(_ content: JSONValue) throws -> Comparison {
    let layers = try content.array("layers").map { layer -> (name: String, inputs: Int, outputs: Int) in
        guard let parts = layer.arrayValue, parts.count == 3, let name = parts[0].stringValue,
            let inputs = parts[1].integerValue, let outputs = parts[2].integerValue
        else { throw GoldenError("a layer is written [name, in, out], not \(layer.text())") }
        return (name, inputs, outputs)
    }
    let order = (content["order"]?.stringValue ?? "A,B,C,D,E").split(separator: ",").map(String.init)
    var comparison = Comparison()
    for (index, candidate) in try content.array("candidates").enumerated() {
        let paths = try candidate.array("configs").map { config -> GLoRAPath in
            guard let words = config.stringValue?.split(separator: ",", omittingEmptySubsequences: false),
                words.count == order.count
            else { return try GLoRAPath(golden: config) }
            let members = zip(order, words).map { ($0, JSONValue.string(String($1))) }
            return try GLoRAPath(golden: .object(Dictionary(members) { first, _ in first }))
        }
        guard paths.count == layers.count else {
            throw GoldenError("candidate \(index) has \(paths.count) paths for \(layers.count) layers")
        }
        let counts = zip(layers, paths).map { $1.parameterCount(inputs: $0.inputs, outputs: $0.outputs) }
        let sum = counts.reduce(0, +)
        let expected = try candidate.integer("params")
        comparison.expect(
            sum == expected, otherwise: "candidate \(index): \(sum) parameters, the file \(expected)")
        if let perLayer = candidate["params_per_layer"]?.arrayValue {
            comparison.expect(
                perLayer.map(\.integerValue) == counts, otherwise: "candidate \(index): other counts by layer"
            )
        }
    }
    return comparison
}

/// The learning rate that every epoch used, within 1e-12 of it.
///
/// Source: timm 0.6.5, `CosineLRScheduler`, stepped as ViT-Slim/GLoRA/supernet.py does.
func replaySchedules(_ content: JSONValue) throws -> Comparison {
    var comparison = Comparison()
    let schedules = (content.objectValue ?? [:]).filter { $0.value.objectValue != nil }
    for (name, described) in schedules.sorted(by: { $0.key < $1.key }) {
        var schedule = CosineSchedule(
            learningRate: try described.number("lr"), epochs: try described.integer("t_initial"),
            warmupEpochs: try described.integer("warmup_t"))
        schedule.warmupLearningRate = try described.number("warmup_lr_init")
        schedule.minimumLearningRate = try described.number("lr_min")
        var largest = 0.0
        for (epoch, value) in try described.array("lr_used_in_epoch").enumerated() {
            guard let rate = value.numberValue else { throw GoldenError("\(name): a rate is no number") }
            let difference = abs(schedule.learningRate(inEpoch: epoch) - rate) / rate
            if !(difference <= largest) { largest = difference }
        }
        comparison.expect(name, "relative error", error: largest, bound: 1e-12)
    }
    return comparison
}
