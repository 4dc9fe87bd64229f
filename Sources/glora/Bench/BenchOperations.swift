import Adapters
import ArgumentParser
import Foundation
import ModelConfiguration
import TensorCore

struct BenchGLoRA: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "glora",
        abstract: "A GLoRA layer forward and backward in both formulations, and W's fused pass.",
        discussion: """
            `predicted` is the cost model's weight-space cost over its activation-space cost, `measured` the times'.

            Example:
              glora bench glora --device opencl:0
            """)

    @OptionGroup var flags: BenchFlags
    @Option(help: "The rank of the lowRank forms.")
    var rank = 4

    func validate() throws {
        guard (1...4096).contains(rank) else {
            throw ValidationError("--rank must be from 1 to 4096, not \(rank)")
        }
    }

    func run() throws {
        let console = flags.common.console
        let model = try flags.configuration()
        let backend = try flags.backend()
        let watch = Stopwatch(backend: backend)
        let bandwidth = try watch.copyBandwidth()
        let rows = flags.batch * model.tokenCount
        let rate = try watch.productRate(model, rows: rows)
        var results: [BenchResult.Row] = []
        console.sayHeader()
        func report(_ name: String, _ cost: OperationCost, _ seconds: Double) {
            let row = cost.row(name, seconds, flopsPerSecond: rate, bytesPerSecond: bandwidth)
            console.say(row)
            results.append(row)
        }

        // W [4·D, D], the largest, as rows and where the backend packs it.
        let layer = try BenchLayer(model.hiddenWidth, model.width, rows: rows, rank: rank, backend)
        let full = GLoRAPath(a: .lowRank(rank), b: .lowRank(rank), c: .none, d: .none, e: .none)
        let weightCost = OperationCost.gloraWeight(
            outputs: model.hiddenWidth, inputs: model.width, rankA: rank, rankB: rank)
        let w = try backend.allocate([model.hiddenWidth, model.width], backend.precision.stored)
        let terms = layer.terms(full)
        report(
            "W, rank \(rank), as rows", weightCost,
            try watch.median { backend.gloraWeight(w, layer.weight, terms.a, terms.b) })
        let packing = LinearWeight(layer.weight, a: terms.a, b: terms.b, scratch: w)
        let packed = backend.packs(packing)
        if let packed { report("W, rank \(rank), as panels", weightCost, try watch.median(packed)) }

        // The two formulations in turn, for every form of A and B that allows both.
        let product = OperationCost.product(m: rows, n: model.hiddenWidth, k: model.width)
        console.say("")
        console.say("fc1, forward and backward              weight, ms  activation, ms   measured  predicted")
        let forms: [MatrixForm] = [.none, .constant, .vector, .lowRank(rank)]
        for a in forms.dropLast() {
            for b in forms where a != .none || b != .none {
                let path = GLoRAPath(a: a, b: b, c: .none, d: .none, e: .none)
                let seconds = try watch.medians(
                    budget: 1, Formulation.allCases.map { formulation in { layer.run(path, formulation) } })
                let costs = Formulation.allCases.map {
                    $0.cost(path, rows: rows, inputs: model.width, outputs: model.hiddenWidth)
                }
                console.say(
                    "A \(a), B \(b)".padded(to: 36)
                        + "\((seconds[0] * 1e3).fixed(1))  \((seconds[1] * 1e3).fixed(1))  "
                        + "\((seconds[0] / seconds[1]).fixed(2))  \((costs[0] / costs[1]).fixed(2))")
                for (formulation, time) in zip(Formulation.allCases, seconds) {
                    results.append(
                        BenchResult.Row(
                            name: "A \(a), B \(b), \(formulation) space", seconds: time,
                            gflops: (formulation == .weight ? 3 : 2) * product.flops / time * 1e-9))
                }
            }
        }
        try console.result(
            BenchResult(
                roofs: Roofs(flopsPerSecond: rate, bytesPerSecond: bandwidth), seconds: results[0].seconds,
                gbps: (packed == nil ? results[0] : results[1]).gbps,
                shareOfRoof: (packed == nil ? results[0] : results[1]).shareOfRoof, rows: results),
            schema: "glora.bench.glora/1")
    }
}

/// One GLoRA layer with memory for its step.
struct BenchLayer {
    let layer: GLoRALinear
    private let pass: any LinearPass
    private let x, y, dx: Tensor

    var weight: Tensor { layer.base.weight.value }

    init(_ outputs: Int, _ inputs: Int, rows: Int, rank: Int, _ backend: any Backend) throws {
        let watch = Stopwatch(backend: backend)
        let stored = backend.precision.stored
        var random = Random(1, "bench-layer")
        let store = try ParameterStore(
            backend,
            GLoRALinear.declarations("layer", inputs: inputs, outputs: outputs, rank: rank, random: &random))
        let arena = Arena(backend)
        let scratch = try LinearScratch(
            arena, weightCount: outputs * inputs, outputs: outputs, inputs: inputs)
        let base = BaseLinear(
            "layer", weight: Parameter(name: "weight", value: try watch.stored([outputs, inputs])),
            bias: Parameter(name: "bias", value: try watch.tensor([outputs])), scratch, backend)
        let layer = GLoRALinear(base, GLoRALinear.Support("layer", in: store)!)
        self.layer = layer
        let product = try backend.allocate([rows, outputs], stored)
        pass = try Workspace.layOut(in: arena, isForTraining: true, stored: stored) {
            try layer.pass(rows: rows, product: product, in: $0)
        }
        x = try watch.stored([rows, inputs])
        y = try watch.stored([rows, outputs])
        dx = try backend.allocate([rows, inputs], stored)
    }

    func terms(_ path: GLoRAPath) -> (a: MatrixTerm, b: MatrixTerm) {
        (layer.support.a(path), layer.support.b(path))
    }

    func run(_ path: GLoRAPath, _ formulation: Formulation) {
        (layer.path, layer.forced) = (path, formulation)
        pass.begin()
        pass.forward(y, x, activated: nil, dropoutSeed: nil)
        pass.backward(dx, y, x, dropoutSeed: nil)
    }
}

struct BenchAttention: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "attention", abstract: "Attention, forward and backward.",
        discussion: """
            Example:
              glora bench attention --device opencl:0
            """)

    @OptionGroup var flags: BenchFlags

    func run() throws {
        let model = try flags.configuration()
        let (b, t, d) = (flags.batch, model.tokenCount, model.width)
        try benchPair(flags, model, schema: "glora.bench.attention/1") { backend, watch in
            let (qkv, dqkv) = (
                try watch.stored([b, t, 3 * d]),
                try backend.allocate([b, t, 3 * d], backend.precision.stored)
            )
            let (out, dOut) = (
                try backend.allocate([b, t, d], backend.precision.stored), try watch.stored([b, t, d])
            )
            let logs = try backend.allocate([b, model.heads, t], .float32)
            return [
                (
                    "forward", .attention(batch: b, tokens: t, queries: t, width: d, heads: model.heads),
                    { backend.attention(out, logs, qkv, heads: model.heads) }
                ),
                (
                    "backward",
                    .attentionBackward(batch: b, tokens: t, queries: t, width: d, heads: model.heads),
                    { backend.attentionBackward(dqkv, dOut, out, logs, qkv, heads: model.heads) }
                ),
            ]
        }
    }
}

struct BenchLayerNorm: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "layernorm", abstract: "LayerNorm, forward and backward.",
        discussion: """
            Example:
              glora bench layernorm --device opencl:0
            """)

    @OptionGroup var flags: BenchFlags

    func run() throws {
        let model = try flags.configuration()
        let (n, d) = (flags.batch * model.tokenCount, model.width)
        try benchPair(flags, model, schema: "glora.bench.layernorm/1") { backend, watch in
            let (x, y) = (
                try watch.tensor([n, d]), try backend.allocate([n, d], backend.precision.stored)
            )
            let (dx, dy) = (try watch.tensor([n, d]), try watch.stored([n, d]))
            let (weight, bias) = (try watch.tensor([d]), try watch.tensor([d]))
            let (mean, rstd) = (try backend.allocate([n], .float32), try backend.allocate([n], .float32))
            return [
                (
                    "forward", .layerNorm(rows: n, width: d),
                    { backend.layerNorm(y, mean, rstd, x, weight, bias, epsilon: 1e-6) }
                ),
                (
                    "backward", .layerNormBackward(rows: n, width: d),
                    {
                        backend.layerNormBackward(dx, nil, nil, dy, x, mean, rstd, weight, accumulate: true)
                    }
                ),
            ]
        }
    }
}

struct BenchRMSNorm: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "rmsnorm", abstract: "RMSNorm, forward and backward.",
        discussion: """
            Example:
              glora bench rmsnorm --device opencl:0
            """)

    @OptionGroup var flags: BenchFlags

    func run() throws {
        let model = try flags.configuration()
        let (n, d) = (flags.batch * model.tokenCount, model.width)
        try benchPair(flags, model, schema: "glora.bench.rmsnorm/1") { backend, watch in
            let (x, y) = (try watch.tensor([n, d]), try backend.allocate([n, d], backend.precision.stored))
            let (dx, dy) = (try watch.tensor([n, d]), try watch.stored([n, d]))
            let (weight, rstd) = (try watch.tensor([d]), try backend.allocate([n], .float32))
            return [
                (
                    "forward", .rmsNorm(rows: n, width: d),
                    { backend.rmsNorm(y, rstd, x, weight, epsilon: 1e-6) }
                ),
                (
                    "backward", .rmsNormBackward(rows: n, width: d),
                    { backend.rmsNormBackward(dx, nil, dy, x, rstd, weight, accumulate: true) }
                ),
            ]
        }
    }
}

struct BenchRotate: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "rotate", abstract: "Rotary position embedding of the queries, forward and backward.",
        discussion: """
            Example:
              glora bench rotate --device opencl:0
            """)

    @OptionGroup var flags: BenchFlags

    func run() throws {
        let model = try flags.configuration()
        let (n, t, d) = (flags.batch * model.tokenCount, model.tokenCount, model.width)
        let head = d / model.heads
        try benchPair(flags, model, schema: "glora.bench.rotate/1") { backend, watch in
            let queries = MatrixBlock(try watch.stored([n, 3 * d]), stride: 3 * d)
            let positions = try backend.allocate([n], .int32)
            backend.upload(positions, (0..<n).map { Int32($0 % t) })
            let cosines = try backend.allocate([t, head / 2], .float32)
            let sines = try backend.allocate([t, head / 2], .float32)
            // A rotation by angles that are no angles would grow in time.
            backend.upload(cosines, (0..<cosines.count).map { cos(Float($0)) })
            backend.upload(sines, (0..<sines.count).map { sin(Float($0)) })
            return [("forward", false), ("backward", true)].map { name, inverse in
                (
                    name, .rotate(rows: n, width: d, pairs: head / 2),
                    {
                        backend.rotate(
                            queries, positions: positions, cosines: cosines, sines: sines, heads: model.heads,
                            headWidth: head, layout: .halves, inverse: inverse)
                    }
                )
            }
        }
    }
}

struct BenchGate: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "gate",
        abstract: "A gated activation, SwiGLU's, of the hidden width, forward and backward.",
        discussion: """
            Example:
              glora bench gate --device opencl:0
            """)

    @OptionGroup var flags: BenchFlags

    func run() throws {
        let model = try flags.configuration()
        let (n, f) = (flags.batch * model.tokenCount, model.hiddenWidth)
        try benchPair(flags, model, schema: "glora.bench.gate/1") { backend, watch in
            let (ab, dab) = (
                try watch.stored([n, 2 * f]), try backend.allocate([n, 2 * f], backend.precision.stored)
            )
            let (y, dy) = (try backend.allocate([n, f], backend.precision.stored), try watch.stored([n, f]))
            func halves(_ both: Tensor) -> (MatrixBlock, MatrixBlock) {
                (MatrixBlock(both, stride: 2 * f), MatrixBlock(both, offset: f, stride: 2 * f))
            }
            let ((a, b), (da, db)) = (halves(ab), halves(dab))
            return [
                ("forward", .gate(rows: n, width: f), { backend.gate(y, a, b, .silu) }),
                (
                    "backward", .gateBackward(rows: n, width: f),
                    { backend.gateBackward(da, db, dy, a, b, .silu) }
                ),
            ]
        }
    }
}

/// Measures an operation and its backward and prints them under both roofs.
private func benchPair(
    _ flags: BenchFlags, _ model: ViTConfiguration, schema: String,
    _ make: (any Backend, Stopwatch) throws -> [(name: String, cost: OperationCost, body: () -> Void)]
) throws {
    let console = flags.common.console
    let backend = try flags.backend()
    let watch = Stopwatch(backend: backend)
    let bandwidth = try watch.copyBandwidth()
    let rate = try watch.productRate(model, rows: flags.batch * model.tokenCount)
    console.sayHeader()
    var rows: [BenchResult.Row] = []
    var total = OperationCost(flops: 0, bytes: 0)
    for (name, cost, body) in try make(backend, watch) {
        let row = cost.row(name, try watch.median(body), flopsPerSecond: rate, bytesPerSecond: bandwidth)
        console.say(row)
        rows.append(row)
        total = total + cost
    }
    let seconds = rows.reduce(0) { $0 + $1.seconds }
    try console.result(
        BenchResult(
            roofs: Roofs(flopsPerSecond: rate, bytesPerSecond: bandwidth), seconds: seconds,
            gflops: total.flops / seconds * 1e-9, gbps: total.bytes / seconds * 1e-9,
            shareOfRoof: total.share(seconds, flopsPerSecond: rate, bytesPerSecond: bandwidth), rows: rows),
        schema: schema)
}
