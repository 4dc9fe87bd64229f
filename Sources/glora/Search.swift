import ArchitectureSearch
import ArgumentParser
import Datasets
import Foundation
import SupernetSearch
import Training

extension SearchSettings.Algorithm: ExpressibleByArgument {}
extension Fitness: ExpressibleByArgument {}

/// A number of parameters: 120000, 0.5M or 30k.
struct ParameterCount: ExpressibleByArgument {
    let value: Int

    init?(argument: String) {
        let scale = ["M": 1e6, "m": 1e6, "K": 1e3, "k": 1e3][argument.suffix(1).description]
        guard let number = Double(scale == nil ? argument : String(argument.dropLast())), number >= 0,
            number * (scale ?? 1) < 1e15
        else { return nil }
        value = Int((number * (scale ?? 1)).rounded())
    }

    /// What the help says after "default:".
    var defaultValueDescription: String { String(value) }
}

struct Search: ParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Find each layer's best path in a trained supernet, under a parameter budget.",
        discussion: """
            Candidates are scored on the validation split; the test split is touched
            once, at the end, by the best of them. RUN/search/ then holds the best
            (architecture.json, adapter/), the front of accuracy against parameters
            (front.json) and every candidate (search.jsonl).

            Example:
              glora search --run runs/a --max-params 0.5M
              glora merge --run runs/a --architecture runs/a/search/architecture.json \\
                --output merged.safetensors
            """)

    private static let defaults = SearchSettings()

    @Option(name: .customLong("run"), help: "The supernet's run.")
    var runFolder: String
    @Option(help: "The most parameters that the result may have, without the head: 500000, 500k or 0.5M.")
    var maxParams: ParameterCount
    @Option(help: "The fewest.")
    var minParams = ParameterCount(argument: "0")!
    @Option(
        help: "evolution, original (the authors', to the letter: evolution by accuracy), nsga2 or random.")
    var algorithm = defaults.algorithm
    @Option(
        help:
            "What candidates are judged by: loss, or accuracy (of equals, the loss) (default: accuracy for original, else loss)."
    )
    var fitness: Fitness?
    @Option(help: "Candidates in a generation.")
    var population = defaults.population
    @Option(help: "Generations after the first candidates.")
    var generations = defaults.generations
    @Option(help: "The best that are kept (evolution, original).")
    var top = defaults.top
    @Option(help: "Mutated candidates in a generation (evolution, original).")
    var mutations = defaults.mutations
    @Option(help: "Crossed candidates in a generation (evolution, original).")
    var crossovers = defaults.crossovers
    @Option(help: "The probability that a gene is drawn again (default: 0.02 for nsga2, else 0.2).")
    var mutationProbability: Double?
    @Option(help: "The seed of every draw.")
    var seed = defaults.seed
    @Option(help: "best (by validation) or last: which of the run's states.")
    var checkpoint = RunState.last
    @Option(help: "The split to score candidates on. test is the original's early protocol, and no result.")
    var fitnessSplit = "val"
    @Option(help: "Images at a time; a candidate can be given up after each batch.")
    var batchSize = 32
    @Option(help: "MiB for activations that candidates share; 0 for none.")
    var sharedMemory = 1024
    @Option(
        help:
            "Train this many of the best candidates, and of the best uniform paths, for a few epochs each and choose by validation (0: don't)."
    )
    var refine = 0
    @Option(help: "Epochs of each of these trainings (default: a quarter of the run's).")
    var refineEpochs: Int?
    @Option(name: .customLong("refine-lr"), help: "Their learning rate (default: the run's).")
    var refineLearningRate: Double?
    @Flag(help: "Score every candidate on all images, also where it can't be among the best any more.")
    var exhaustive = false
    @Flag(help: "Go on exactly where the search in the run's folder stopped.")
    var resume = false
    @OptionGroup var match: MatchFlags
    @OptionGroup var checks: ImageCheckFlags
    @OptionGroup var device: DeviceFlags
    @OptionGroup var common: CommonFlags

    struct Result: Encodable {
        let architecture: String
        let parameters: Int
        let fitnessSplit: String
        let accuracy: Double
        let loss: Double
        let testAccuracy: Double?
        let judged: Int
        let givenUp: Int
        let seconds: Double
    }

    mutating func validate() throws {
        func check(_ holds: Bool, _ message: String) throws {
            if !holds { throw ValidationError(message) }
        }
        try check(minParams.value <= maxParams.value, "--min-params is above --max-params")
        do { try settings.validate() } catch { throw ValidationError(error) }
        try checkBatchSize(batchSize)
        try check((0...1000).contains(refine), "--refine must be from 0 to 1000, not \(refine)")
        try check(
            (1...TrainingOptions.largestEpochCount).contains(refineEpochs ?? 1),
            "--refine-epochs must be from 1 to \(TrainingOptions.largestEpochCount)")
        try check(
            (refineLearningRate ?? 1).isFinite && refineLearningRate ?? 1 >= 0,
            "--refine-lr must be a number from 0 on")
        try check(
            (0...1 << 30).contains(sharedMemory),
            "--shared-memory must be from 0 to \(1 << 30) MiB, not \(sharedMemory)")
    }

    private var settings: SearchSettings {
        var settings = SearchSettings(algorithm)
        settings.fitness = fitness ?? settings.fitness
        settings.population = population
        settings.generations = generations
        settings.top = top
        settings.mutations = mutations
        settings.crossovers = crossovers
        settings.mutationProbability = mutationProbability
        settings.seed = seed
        return settings
    }

    func run() throws {
        let console = common.console
        let directory = RunDirectory(URL(fileURLWithPath: runFolder))
        let lock = try directory.lock(console)
        defer { lock.release() }
        let backend = try device.backend(
            console, productParts: try directory.configuration().productParts)
        let ready = try ReadyModel(run: directory, state: checkpoint, on: backend)
        let task = try TaskFolder.open(URL(fileURLWithPath: ready.options.data), for: ready.task)
        let tests = task.splitNames.filter { Split($0) == .test }
        let lists = try match.open([fitnessSplit] + tests, of: task, for: ready, console)
        let (images, test) = (lists[0], lists.dropFirst().first)
        for note in ready.notes { console.note(note) }
        console.say(ready.preprocessingLine)
        if ready.options.path != "supernet" {
            console.note(
                "\(runFolder) was trained on paths of its own, so that other paths have tensors that nothing was learnt in: "
                    + "search a run of `glora train --path supernet`")
        }
        if Split(fitnessSplit) == .test {
            console.note(
                "candidates are scored on the test split: what it finds has seen the answers and is no result"
            )
        }
        let refinement =
            refine == 0
            ? nil
            : Refinement(
                count: refine, epochs: refineEpochs ?? max(1, ready.options.epochs / 4),
                learningRate: refineLearningRate ?? ready.options.learningRate)
        let folder = SearchDirectory(directory)
        let search = try SearchRun(
            ready, in: folder,
            SearchDirectory.Configuration(
                settings: settings, minParameters: minParams.value, maxParameters: maxParams.value,
                fitnessSplit: fitnessSplit, checkpoint: checkpoint, step: ready.step,
                exhaustive: exhaustive, refinement: refinement), resumes: resume)
        let possible = search.space.parameterCounts
        console.say(
            "candidates have \(possible.lowerBound.grouped) to \(possible.upperBound.grouped) parameters; "
                + "judging \(settings.evaluationCount.grouped) on \(images.count) images")
        Interrupt.install()
        let fitnessImages = try ready.prepare(images)
        let testImages = try test.map { try ready.prepare($0) }
        let (best, summary): (Architecture, SearchDirectory.Summary)
        do {
            try checks.check([fitnessImages] + [testImages].compactMap(\.self), console)
            (best, summary) = try search.run(
                fitness: fitnessImages, test: testImages,
                training: try refinement.map { _ in
                    try ready.prepare(try task.split(ready.options.trainSplit))
                },
                batchSize: min(batchSize, images.count), memoryLimit: sharedMemory << 20,
                onGeneration: { generation in
                    console.say(
                        "generation \(generation.number)/\(generations)  judged \(generation.judged)  best "
                            + "\((100 * generation.accuracy).fixed(2)) % with "
                            + "\(generation.parameters.grouped) parameters  \(generation.seconds.duration)")
                },
                onRefined: { judged, count in
                    let score = judged.score.map {
                        "\((100 * $0.accuracy).fixed(2)) %, loss \($0.loss.fixed(4))"
                    }
                    console.say(
                        "trained one of \(count): \(score ?? "not a number") with \(judged.parameters.grouped) parameters"
                    )
                }, shouldStop: { Interrupt.wasRequested })
        } catch is CancellationError {
            console.say("stopped; go on with the same command and --resume")
            throw ExitCode.stopped
        }
        let marked = Split(fitnessSplit) == .test ? " (chosen on the test split)" : ""
        console.say(
            "best: \((100 * best.accuracy).fixed(2)) % on \(images.name) with \(best.parameters.grouped) "
                + "parameters\(marked)")
        if let test = summary.test {
            console.say(
                "test, scored once: \((100 * test.accuracy).fixed(2)) % (\(test.correct) of \(test.count))\(marked)"
            )
        }
        console.say(
            "\(summary.judged.grouped) candidates in \(summary.seconds.duration), \(summary.givenUp.grouped) given up "
                + "early, \((100 * summary.blocksRun).fixed(0)) % of the blocks of a plain loop; see \(folder.url.path)/"
        )
        try console.result(
            Result(
                architecture: folder.architecture.path, parameters: best.parameters,
                fitnessSplit: fitnessSplit,
                accuracy: best.accuracy, loss: best.loss, testAccuracy: summary.test?.accuracy,
                judged: summary.judged, givenUp: summary.givenUp, seconds: summary.seconds),
            schema: "glora.search/1")
    }
}
