import Adapters
import ArgumentParser
import Experiments
import Foundation
import Training

/// What `compare`, `shift`, `vtab` and `fewshot` share: which methods, and how each is trained. What isn't said is the method's own.
struct CellFlags: ParsableArguments {
    @Option(help: TrainingOptions().$model.flagHelp(default: nil))
    var model: String
    @OptionGroup var input: InputFlags
    @Option(
        name: [.customLong("methods"), .customLong("method")],
        help:
            "Methods, with commas. glora is a supernet, a search and the training of what it found; glora:full, glora:none and glora:FILE.json train that path."
    )
    var methods: String
    @Option(
        help: "Learning rates to try on the first seed; validation chooses one for each method and task.")
    var lrs: FlagValue<[Double]>?
    @Option(help: "The same for methods whose authors train with SGD: vpt and adaptformer (default: --lrs).")
    var sgdLrs: FlagValue<[Double]>?
    @OptionGroup var training: CellTrainingFlags
    @Option(help: "last or best (by validation): which state is tested.")
    var checkpoint = RunState.last
    @Option(help: "A YAML file of these flags.")
    var config: String?
    @OptionGroup var checks: ImageCheckFlags
    @OptionGroup var device: DeviceFlags
    @OptionGroup var common: CommonFlags

    mutating func validate() throws {
        if sgdLrs != nil, lrs == nil { throw ValidationError("--sgd-lrs goes with --lrs") }
        if learningRate != nil, lrs != nil { throw ValidationError("give either --lr or --lrs") }
        let entries = try entries()
        for entry in entries {
            for rate in rates(entry) {
                do { try options(entry, rate: rate, seed: 0).validate() } catch {
                    throw ValidationError(error)
                }
            }
        }
    }

    /// The methods in the order they were given, each once.
    func entries() throws -> [MethodEntry] {
        var entries: [MethodEntry] = []
        for word in methods.split(separator: ",") {
            let entry: MethodEntry
            do { entry = try MethodEntry(word.trimmingCharacters(in: .whitespaces)) } catch {
                throw ValidationError(error)
            }
            if entries.contains(entry) { continue }
            if let twin = entries.first(where: { $0.folderName == entry.folderName }) {
                throw ValidationError(
                    "--methods: \(twin) and \(entry) would share the folder \(entry.folderName); rename a file"
                )
            }
            entries.append(entry)
        }
        guard !entries.isEmpty else { throw ValidationError("--methods names none; write lora,glora") }
        return entries
    }

    /// The rates to choose from; one is no choice.
    func rates(_ entry: MethodEntry) -> [Double] {
        var rates: [Double] = []
        let own = entry.options(training.given)
        let given = own.optimizer == .sgd ? sgdLrs ?? lrs : lrs
        for rate in given?.value ?? [own.learningRate] where !rates.contains(rate) {
            rates.append(rate)
        }
        return rates
    }

    /// All settings of a training but the data's.
    func options(_ entry: MethodEntry, rate: Double, seed: Int) -> TrainingOptions {
        var options = entry.options(training.given)
        options.model = model
        options.take(input.given)
        options.learningRate = rate
        options.precision = device.precision ?? .float32
        options.seed = seed
        return options
    }

    private var learningRate: Double? { training.given["lr"] as? Double }

    /// How all this was done, for under a table.
    func protocolLines(_ grid: Grid, _ task: GridTask) throws -> [String] {
        let cell = task.cell(try entries()[0], 0, task.draws[0], self, in: grid.output)
        let image = try cell.options.preprocessor(for: grid.configuration)
        return [
            "images \(image), augmentation \(cell.options.additions.augment ?? "none")",
            "the \(checkpoint.rawValue) state is tested, once, after the training"
                + (checkpoint == .best ? "; validation chose it" : ""),
            lrs.map {
                "learning rates \($0.value.map(\.short).joined(separator: ", "))"
                    + (sgdLrs.map { ", for SGD \($0.value.map(\.short).joined(separator: ", "))," } ?? "")
                    + " tried on the first seed, chosen by validation accuracy (of equals the loss)"
            } ?? (learningRate.map { "learning rate \($0.short)" } ?? "each method's own learning rate"),
        ]
    }
}

/// What may be said of every method's training.
struct CellTrainingFlags: SettingFlags {
    static var settings: [any AnySetting] {
        let all = TrainingOptions()
        return [
            all.$learningRate, all.$weightDecay, all.$batchSize, all.$epochs, all.$warmupEpochs,
            all.$minimumLearningRate, all.$dropPath, all.$ranks, all.$validateEvery, all.$memory,
            all.additions.$augment, all.additions.$labelSmoothing, all.additions.$schedule,
            all.additions.$learningRateFactors, all.additions.$clipNorm, all.additions.$ema,
        ]
    }

    static func origin(of setting: any AnySetting) -> String? {
        switch setting.name {
        case "schedule": "original"
        case "batch-size", "validate-every": setting.text
        // What is left out changes nothing, and its help says so.
        default:
            setting.origin == nil || setting.text == nil ? setting.origin ?? setting.text : "the method's"
        }
    }

    var given: [String: any SettingValue] = [:]
}

/// `--seeds N`: as many trainings of each cell, with the seeds 0 to N − 1.
struct SeedFlags: ParsableArguments {
    @Option(help: "How many seeds, from 0 on.")
    var seeds = 3

    mutating func validate() throws {
        guard (1...1000).contains(seeds) else {
            throw ValidationError("--seeds must be from 1 to 1000, not \(seeds)")
        }
    }
}
