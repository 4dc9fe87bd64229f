import Adapters
import ArgumentParser
import TensorCore
import Training
import Transformers
import VisionModels

struct BenchStep: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "step",
        abstract: "A training step: forward, loss, backward, AdamW.",
        discussion: """
            glora draws a random path for every layer and step, as a supernet does; lora is B alone, lowRank, in every
            layer; full and none are those paths of the original's space. Images and weights are made up.

            Example:
              glora bench step --device opencl:0 --batch 8
            """)

    enum Method: String, CaseIterable, ExpressibleByArgument {
        case glora, lora, full, none
    }

    @OptionGroup var flags: BenchFlags
    @Option(help: "glora, lora, full or none.")
    var method = Method.glora
    @Option(help: "The rank of the lowRank forms.")
    var rank = 4
    @Option(help: "low, balanced or fast: less memory, or fewer things computed twice.")
    var memory = MemoryPolicy.balanced
    @Option(help: "Steps to time, after one that isn't.")
    var steps = 5

    func validate() throws {
        guard steps > 0, (1...4096).contains(rank) else {
            throw ValidationError("--steps must be at least 1, --rank from 1 to 4096")
        }
    }

    func run() throws {
        let console = flags.common.console
        let backend = try flags.backend()
        let before = ResidentMemory.current
        let checkpoint = try flags.checkpoint()
        try flags.device.tuneIfNew(backend, checkpoint.configuration, batch: flags.batch, console)
        let space = try SearchSpace(ranks: [rank])
        let roles = checkpoint.configuration.shape.sites.map(\.role)
        let model = try VisionTransformer(
            checkpoint, classCount: BenchFlags.classCount,
            method: GLoRA(rank: rank, roles: roles), seed: 1, memory: memory, on: backend)
        console.say(
            "\(flags.model), batch \(flags.batch), --memory \(memory.rawValue): "
                + "\(model.plannedByteCount(batch: flags.batch) >> 20) MiB planned")
        let plan = try model.plan(batch: flags.batch, isForTraining: true)
        backend.upload(
            plan.images, (0..<plan.images.count).map { Float(($0 &* 7919) % 2003) / 1001 - 1 })
        backend.upload(plan.labels, (0..<flags.batch).map { Int32($0 % BenchFlags.classCount) })
        let optimizer = AdamW(model.store, mode: .dense, on: backend)
        var random = Random(1, "bench-paths")
        func step() {
            model.layers.take(paths(model, space, &random))
            model.store.clearGradients()
            model.forward(plan)
            model.loss(plan)
            model.backward(plan)
            optimizer.step(
                AdamWSettings(learningRate: 1e-4, weightDecay: 1e-4), onPath: model.trainedNames)
        }
        let watch = Stopwatch(backend: backend)
        let first = watch.time(step)
        let times = (0..<steps).map { _ in watch.time(step) }.sorted()
        let seconds = times[times.count / 2]
        let loss = backend.values(plan.losses).reduce(0, +) / Float(flags.batch)
        try backend.checkForFailure()
        let peak = flags.device.isOnHost(backend) ? ResidentMemory.peak - before : backend.heldByteCount
        let rate = Double(flags.batch) / seconds
        console.say(
            "\(rate.fixed(2)) images/s: \(seconds.fixed(3)) s a step (from \(times.first!.fixed(3)) to "
                + "\(times.last!.fixed(3)), the first \(first.fixed(3))), loss \(Double(loss).fixed(4)), "
                + "\(peak >> 20) MiB at the peak")
        guard loss.isFinite else { throw TrainingError.settings("the benchmark's loss is not a number") }
        let bandwidth = try watch.copyBandwidth()
        let productRate = try watch.productRate(
            model.configuration, rows: flags.batch * model.configuration.tokenCount)
        try console.result(
            BenchResult(
                roofs: Roofs(flopsPerSecond: productRate, bytesPerSecond: bandwidth), seconds: seconds,
                imagesPerSecond: rate,
                shareOfRoof: model.stepCost(batch: flags.batch, paths: paths(model, space, &random))
                    .share(seconds, flopsPerSecond: productRate, bytesPerSecond: bandwidth), peakBytes: peak),
            schema: "glora.bench.step/1")
    }

    private func paths(
        _ model: VisionTransformer, _ space: SearchSpace, _ random: inout Random
    ) -> [GLoRAPath] {
        switch method {
        case .glora: model.layers.drawPaths(from: space, using: &random)
        case .lora:
            model.layers.uniformPath(GLoRAPath(a: .none, b: .lowRank(rank), c: .none, d: .none, e: .none))
        case .full: model.layers.uniformPath(space.fullPath)
        case .none: model.layers.uniformPath(.none)
        }
    }
}

struct BenchInference: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "inference",
        abstract: "A merged model's logits, batch after batch.",
        discussion: """
            Example:
              glora bench inference --device opencl:0 --batch 8
            """)

    @OptionGroup var flags: BenchFlags

    func run() throws {
        let console = flags.common.console
        let backend = try flags.backend()
        let before = ResidentMemory.current
        let checkpoint = try flags.checkpoint()
        try flags.device.tuneIfNew(backend, checkpoint.configuration, batch: flags.batch, console)
        let model = try VisionTransformer(
            checkpoint, classCount: BenchFlags.classCount, method: Backbone.frozen, seed: 1,
            forInference: true, on: backend)
        let plan = try model.plan(batch: flags.batch, isForTraining: false)
        backend.upload(
            plan.images, (0..<plan.images.count).map { Float(($0 &* 7919) % 2003) / 1001 - 1 })
        try model.prepare()
        let watch = Stopwatch(backend: backend)
        var logits: [Float] = []
        let seconds = try watch.medians(budget: 8, least: 5) {
            model.forward(plan)
            logits = backend.values(plan.logits)
        }
        guard logits.allSatisfy(\.isFinite) else {
            throw TrainingError.settings("the benchmark's logits are not numbers")
        }
        let rate = Double(flags.batch) / seconds
        let peak = flags.device.isOnHost(backend) ? ResidentMemory.peak - before : backend.heldByteCount
        console.say(
            "\(rate.fixed(2)) images/s: \(seconds.fixed(3)) s a batch of \(flags.batch), \(peak >> 20) MiB at the peak"
        )
        let bandwidth = try watch.copyBandwidth()
        let productRate = try watch.productRate(
            model.configuration, rows: flags.batch * model.configuration.tokenCount)
        try console.result(
            BenchResult(
                roofs: Roofs(flopsPerSecond: productRate, bytesPerSecond: bandwidth), seconds: seconds,
                imagesPerSecond: rate,
                shareOfRoof: model.forwardCost(batch: flags.batch)
                    .share(seconds, flopsPerSecond: productRate, bytesPerSecond: bandwidth), peakBytes: peak),
            schema: "glora.bench.inference/1")
    }
}

extension Stopwatch {
    fileprivate func medians(budget: Double, least: Int, _ body: () -> Void) throws -> Double {
        try withoutActuallyEscaping(body) { try medians(budget: budget, least: least, [$0])[0] }
    }
}
