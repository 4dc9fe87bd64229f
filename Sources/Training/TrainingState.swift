import Checkpoints
import Foundation
import TensorCore

/// Where a run stands. With the tensors beside it, all that an exact resume needs: draws are functions of seed and step.
public struct TrainingState: Codable, Equatable, Sendable {
    /// The file format; a reader refuses another.
    public var formatVersion = 1
    /// The epoch under way, from 0.
    public var epoch = 0
    /// Steps done in that epoch.
    public var stepInEpoch = 0
    /// Steps done in all.
    public var step = 0
    /// The sum of that epoch's batch losses.
    public var epochLoss = 0.0
    /// The best validation score so far (`EvaluationResult.score`), and the epoch after which it was measured.
    public var bestAccuracy: Double?
    public var bestEpoch: Int?
    /// The latest validation score.
    public var lastAccuracy: Double?
    /// float16's; nil in the other precisions.
    public var lossScale: LossScale?
    /// [K] of a file, which may be another by the time that the run goes on; nil without any.
    public var classWeights: [Double]?
    /// How values were made smaller or larger for the training; nil for other tasks.
    public var targetScale: TargetScale?
    /// AdamW's steps for each tensor.
    public var stepCounts: [String: Int] = [:]

    /// A run's beginning.
    public init() {}
}

extension TrainingState {
    /// Throws `TrainingError.run` for a state that a run of these settings, of so many steps an epoch, can't have reached: its
    /// numbers are counted on from.
    func check(_ options: TrainingOptions, stepsPerEpoch: Int) throws {
        func require(_ holds: Bool, _ what: String) throws {
            if !holds {
                throw TrainingError.run(
                    "the saved state says \(what), which this run can't have reached; put the original last.safetensors back"
                )
            }
        }
        try require((0...options.epochs).contains(epoch), "epoch \(epoch) of \(options.epochs)")
        try require(
            (0..<max(stepsPerEpoch, 1)).contains(stepInEpoch),
            "step \(stepInEpoch) of \(stepsPerEpoch) in an epoch")
        try require(step == epoch * stepsPerEpoch + stepInEpoch, "step \(step) in epoch \(epoch)")
        try require(
            epochLoss.isFinite && (stepInEpoch > 0 ? epochLoss >= 0 : epochLoss == 0),
            "a loss of \(epochLoss)")
        for score in [bestAccuracy, lastAccuracy].compactMap(\.self) {
            try require(
                options.metric.isPossible(score),
                "\(options.metric.article) \(options.metric.name) of \(score)")
        }
        if let bestEpoch {
            try require((0..<max(epoch, 1)).contains(bestEpoch), "the best epoch \(bestEpoch)")
        }
        for (name, count) in stepCounts {
            try require((0...step).contains(count), "\(count) steps of \(name)")
        }
        try require(
            (lossScale != nil) == (options.precision == .float16), "a loss scale for another precision")
        if let lossScale { try require(lossScale.isPossible, "the loss scale \(lossScale.factor)") }
    }
}

/// A run's state with its tensors, as `last.safetensors` and `best.safetensors` hold them: the values under their names, the
/// moments under `moment1.` and `moment2.`, moving averages under `average.`, the state as JSON in the metadata.
public struct TrainingSnapshot: Equatable, Sendable {
    /// Where the run stood.
    public var state: TrainingState
    /// The trained tensors by name.
    public var values: [String: HostTensor]
    /// AdamW's m and v by name.
    public var firstMoments, secondMoments: [String: HostTensor]
    /// The moving averages by name, where there are any.
    public var averages: [String: HostTensor]?

    /// What the run has come to: the averages where there are any, else the values.
    public var result: [String: HostTensor] { averages ?? values }

    /// A snapshot of these parts.
    public init(
        state: TrainingState, values: [String: HostTensor], firstMoments: [String: HostTensor],
        secondMoments: [String: HostTensor], averages: [String: HostTensor]? = nil
    ) {
        (self.state, self.values, self.firstMoments) = (state, values, firstMoments)
        (self.secondMoments, self.averages) = (secondMoments, averages)
    }

    /// Whether every value is a number: a step that was too long shows in the values before it shows in a loss.
    var isFinite: Bool {
        [values, firstMoments, secondMoments, averages ?? [:]].allSatisfy { tensors in
            tensors.values.allSatisfy { $0.values.allSatisfy(\.isFinite) }
        }
    }

    /// Writes the snapshot, whole or not at all. Throws `CheckpointError`.
    public func write(to url: URL) throws {
        var tensors = values
        for (name, tensor) in firstMoments { tensors["moment1." + name] = tensor }
        for (name, tensor) in secondMoments { tensors["moment2." + name] = tensor }
        for (name, tensor) in averages ?? [:] { tensors["average." + name] = tensor }
        let encoder = JSONEncoder()
        encoder.outputFormatting = .sortedKeys
        try writeSafetensors(
            tensors, to: url,
            metadata: ["glora_state": String(decoding: try encoder.encode(state), as: UTF8.self)],
            digest: true)
    }

    /// Reads what `write` wrote. Throws `CheckpointError`, and `TrainingError.run` when it is no such file.
    public init(contentsOf url: URL) throws {
        let file = try SafetensorsFile(
            url,
            remedy:
                "put a copy in its place, which may be one of the other state (last.safetensors, best.safetensors)"
        )
        guard let json = file.metadata["glora_state"], json.utf8.count <= JSONValue.largestText,
            let state = try? JSONDecoder().decode(TrainingState.self, from: Data(json.utf8))
        else { throw TrainingError.run("\(url.path) holds no training state of this program") }
        guard state.formatVersion == TrainingState().formatVersion else {
            throw TrainingError.run(
                "\(url.path) has format version \(state.formatVersion); this program reads version 1")
        }
        self.init(state: state, values: [:], firstMoments: [:], secondMoments: [:])
        for name in file.names {
            let tensor = try file.tensor(name)
            if name.hasPrefix("moment1.") {
                firstMoments[String(name.dropFirst(8))] = tensor
            } else if name.hasPrefix("moment2.") {
                secondMoments[String(name.dropFirst(8))] = tensor
            } else if name.hasPrefix("average.") {
                averages = averages ?? [:]
                averages![String(name.dropFirst(8))] = tensor
            } else {
                values[name] = tensor
            }
        }
    }
}
