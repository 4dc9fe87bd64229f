// A sweep is a search over the settings of a training:
//
//     grid      every combination of the lists, the last key changing fastest
//     random    draw t draws each key from Random(seed, "sweep", t): of a list every entry alike;
//               uniform [a, b]; log [a, b]: exp u, u uniform in [ln a, ln b]; integers a, a + 1, …, b
//
// Successive halving (Jamieson and Talwalkar 2016): of n trials on one rung max(1, ⌊keep · n + ½⌋) reach the
// next. The learning rate's schedule depends on the number of epochs, so a rung is a whole training of its own,
// with the warm-up shortened alike: w of N epochs are ⌊w · n / N⌋ of n, and none of n < 3.

import Adapters
import Foundation
import TensorCore
import Training

/// What a sweep's file says: which settings are fixed, which vary, and how trials are chosen and judged.
public struct Sweep: Sendable {
    /// What a setting may be.
    public enum Range: Equatable, Sendable {
        /// Each of these words.
        case choices([String])
        /// Any number between the bounds.
        case uniform(ClosedRange<Double>)
        /// Any number between the bounds, its logarithm uniform.
        case log(ClosedRange<Double>)
        /// Any whole number from one bound to the other.
        case integers(ClosedRange<Int>)
    }

    /// A setting that varies.
    public struct Axis: Equatable, Sendable {
        /// Its name.
        public let name: String
        /// What it may be.
        public let range: Range

        /// One of its words for a person: of a number that was drawn three digits.
        public func short(_ word: String) -> String {
            switch range {
            case .choices, .integers: word
            case .uniform, .log: Double(word).flatMap { Double(String(format: "%.2e", $0)) }?.short ?? word
            }
        }
    }

    /// How trials are chosen.
    public enum Search: String, SettingChoice {
        /// Every combination.
        case grid
        /// Draws.
        case random
    }

    /// Successive halving.
    public struct Halving: Equatable, Sendable {
        /// Epochs of each rung, rising.
        public let epochs: [Int]
        /// The share of a rung's trials that reaches the next, above 0 and below 1.
        public let keep: Double

        /// How many of a rung's trials reach the next.
        public func kept(of count: Int) -> Int { min(count, max(1, Int((keep * Double(count)).rounded()))) }
    }

    /// One choice of all settings that vary.
    public struct Trial: Hashable, Sendable {
        /// From 1.
        public let number: Int
        /// The words of the settings that vary, in the order of the axes.
        public let words: [String]
    }

    /// The settings that don't vary: their words by name.
    public internal(set) var fixed: [String: String] = [:]
    /// The settings that vary, in the file's order.
    public internal(set) var axes: [Axis] = []
    /// How trials are chosen.
    public internal(set) var search = Search.grid
    /// Trials that are drawn; nil for a grid.
    public internal(set) var drawCount: Int?
    /// Every trial is trained with each of these seeds, and judged by the mean.
    public internal(set) var seeds = [0]
    /// nil where every trial is trained to its end at once.
    public internal(set) var halving: Halving?
    /// Of the draws.
    public internal(set) var seed = 0
    /// Whether the best trial is scored on the test split at the end.
    public internal(set) var testsBest = false
    /// What computes, where the command line doesn't say it.
    public internal(set) var device: String?
    /// Every trial, in order.
    public internal(set) var trials: [Trial] = []

    /// The most trials of a sweep.
    public static let largestTrialCount = 10_000

    /// The words of every setting of a trial, by name.
    private func words(_ trial: Trial) -> [String: String] {
        fixed.merging(zip(axes.map(\.name), trial.words)) { $1 }
    }

    /// The settings of a trial that vary, with their values.
    public func assignments(_ trial: Trial) -> [(name: String, value: any SettingValue)] {
        zip(axes, trial.words).compactMap { axis, word in
            Sweep.values(axis.name, word)?[axis.name].map { (axis.name, axis.name == "method" ? word : $0) }
        }
    }

    /// The settings of one training on so many images; `epochs` is its rung's, where there are rungs.
    public func options(_ trial: Trial, epochs: Int? = nil, imageCount: Int? = nil, seed: Int)
        -> TrainingOptions
    {
        var given: [String: any SettingValue] = [:]
        for (name, word) in words(trial) { given.merge(Sweep.values(name, word) ?? [:]) { $1 } }
        var options = TrainingOptions(given: given, recipe: .standard)
        options.seed = seed
        if let imageCount { options.fit(imageCount: imageCount) }
        if let epochs, epochs != options.epochs {
            let warmup = Double(options.warmupEpochs) * Double(epochs) / Double(options.epochs)
            // By epoch, a warm-up's first two run at its first rate: fewer than three would be nothing else.
            let least =
                options.additions.schedule ?? .original == .original ? 0 : min(options.warmupEpochs, 1)
            options.warmupEpochs = epochs < 3 ? 0 : max(Int(warmup), least)
            options.epochs = epochs
        }
        return options
    }

    /// What a setting's word means, by name; nil where that can't be meant. `method` takes GLoRA's path behind a colon, as
    /// `MethodEntry` does.
    static func values(_ name: String, _ word: String) -> [String: any SettingValue]? {
        func value<S: AnySetting>(_ setting: S, _ word: String) -> (any SettingValue)? { S.Value(word: word) }
        func value(_ name: String, _ word: String) -> (any SettingValue)? {
            TrainingOptions().settings.first { $0.name == name }.flatMap { value($0, word) }
        }
        if name == "method", word.hasPrefix("glora:") {
            return ["method": MethodName.glora, "path": String(word.dropFirst("glora:".count))]
        }
        return value(name, word).map { [name: $0] }
    }

    // MARK: Trials

    /// Every combination of the axes' lists.
    static func grid(_ axes: [Axis]) -> [Trial] {
        var rows: [[String]] = [[]]
        for axis in axes {
            guard case .choices(let words) = axis.range else { continue }
            rows = rows.flatMap { row in words.map { row + [$0] } }
        }
        return rows.enumerated().map { Trial(number: $0 + 1, words: $1) }
    }

    /// `count` different draws, fewer where there are no more.
    static func draws(_ axes: [Axis], count: Int, seed: Int) -> [Trial] {
        var (trials, seen): ([Trial], Set<[String]>) = ([], [])
        for index in 0..<100 * count where trials.count < count {
            var random = Random(seed, "sweep", index)
            let words = axes.map { $0.range.draw(&random) }
            if seen.insert(words).inserted { trials.append(Trial(number: trials.count + 1, words: words)) }
        }
        return trials
    }
}

extension Sweep.Range {
    func draw(_ random: inout Random) -> String {
        switch self {
        case .choices(let words): return words[random.index(below: words.count)]
        case .uniform(let range): return "\(random.uniform(in: range))"
        case .log(let range):
            let logarithm = random.uniform(
                in: Foundation.log(range.lowerBound)...Foundation.log(range.upperBound))
            // exp of ln a is a only to rounding.
            return "\(min(max(exp(logarithm), range.lowerBound), range.upperBound))"
        case .integers(let range): return "\(Int.random(in: range, using: &random))"
        }
    }

    /// As a sentence says it.
    var text: String {
        switch self {
        case .choices(let words): "[" + words.joined(separator: ", ") + "]"
        case .uniform(let range): "{uniform: [\(range.lowerBound.short), \(range.upperBound.short)]}"
        case .log(let range): "{log: [\(range.lowerBound.short), \(range.upperBound.short)]}"
        case .integers(let range): "{integers: [\(range.lowerBound), \(range.upperBound)]}"
        }
    }
}

extension Sweep {
    /// A trial's settings that vary, for a person: `lr 1e-3, method lora`.
    public func text(_ trial: Trial) -> String {
        zip(axes, trial.words).map { "\($0.name) \($0.short($1))" }.joined(separator: ", ")
    }

    /// In what `other`, the sweep that is begun, has other trials than these or judges them otherwise: a sentence
    /// for each. Where the model and the data lie, the device and the test at the end are left out.
    public func differences(from other: Sweep) -> [String] {
        func texts(_ sweep: Sweep) -> [String: String] {
            var texts = sweep.fixed
            texts["model"] = nil
            texts["data"] = nil
            for axis in sweep.axes { texts[axis.name] = axis.range.text }
            texts["sweep"] = sweep.axes.map(\.name).joined(separator: ", ")
            texts["search"] = sweep.search.rawValue
            texts["trials"] = sweep.drawCount.map(String.init)
            texts["seeds"] = sweep.seeds.map(String.init).joined(separator: ", ")
            texts["seed"] = "\(sweep.seed)"
            texts["halving"] = sweep.halving.map { "\($0.epochs), keep \($0.keep.short)" }
            return texts
        }
        let (mine, theirs) = (texts(self), texts(other))
        return Set(mine.keys).union(theirs.keys).sorted().filter { mine[$0] != theirs[$0] }.map {
            "'\($0)' is \(theirs[$0] ?? "left out") there, \(mine[$0] ?? "left out") here"
        }
    }
}

/// What a trial scored on a rung.
public struct TrialScore: Sendable {
    /// The trial.
    public let trial: Sweep.Trial
    /// From 0; always 0 without rungs.
    public let rung: Int
    /// Epochs of its trainings.
    public let epochs: Int
    /// Over the seeds, of the best state; nil when the loss of one stopped being a number.
    public let validation: Spread?
    /// The mean over the seeds of the validation loss of that state.
    public let loss: Double?

    /// A score of these parts.
    public init(trial: Sweep.Trial, rung: Int, epochs: Int, validation: Spread?, loss: Double?) {
        (self.trial, self.rung, self.epochs) = (trial, rung, epochs)
        (self.validation, self.loss) = (validation, loss)
    }

    /// Best first: the later rung, the better accuracy, of equals the lower loss, of those the earlier trial; last what has none.
    public static func ranked(_ scores: [TrialScore]) -> [TrialScore] {
        func key(_ score: TrialScore) -> (Int, Double, Double, Int) {
            (
                -score.rung, -(score.validation?.mean ?? -1), score.loss ?? .infinity, score.trial.number
            )
        }
        return scores.sorted { key($0) < key($1) }
    }
}
