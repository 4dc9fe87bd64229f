import TensorCore

/// LoRA: y += (α / r) · x Aᵀ Bᵀ beside a frozen Linear.
///
/// - `all`: every Linear of the blocks, A [r, in], B [out, r].
/// - `qv` (the default, as in the article's experiments): A [2r, D] holds r rows for q and r for v, B [2D, r] likewise; k stays.
///   Where queries and values are Linears of their own, each has its A and B.
///
/// A begins as a Linear's weight, B at zero. loralib's dropout of x (0 by default) is not here. Source: microsoft/LoRA, loralib/layers.py, `Linear` and `MergedLinear`.
struct LoRA: TuningMethod {
    let rank: Int
    let alpha: Double
    let isEverywhere: Bool

    init(_ settings: MethodSettings) throws {
        try settings.allow("lora", [settings.$rank, settings.$alpha], targets: ["qv", "all"])
        rank = settings.rank ?? 8
        alpha = settings.alpha ?? Double(rank)
        isEverywhere = settings.targets == "all"
    }

    func declarations(_ shape: TransformerShape, seed: Int) -> [ParameterStore.Declaration] {
        var random = Initialization(seed, "lora")
        return (0..<shape.depth).flatMap { block in
            shape.sites.filter { isAdapted($0.role) }.flatMap { linear in
                let name = "blocks.\(block).\(linear.name)"
                let (rows, outputs) =
                    isTwo(linear.role) ? (2 * rank, 2 * shape.width) : (rank, linear.outputs)
                return [
                    random.linear("\(name).lora_A", [rows, linear.inputs], inputs: linear.inputs),
                    zeros("\(name).lora_B", [outputs, rank]),
                ]
            }
        }
    }

    private func isAdapted(_ role: LinearRole) -> Bool {
        isEverywhere || [.fusedQKV, .query, .value].contains(role)
    }

    /// Whether a Linear has the updates of queries and values.
    private func isTwo(_ role: LinearRole) -> Bool { !isEverywhere && role == .fusedQKV }

    func attach(
        to model: inout Attachments, _ store: ParameterStore, _ arena: Arena, _ backend: any Backend
    ) throws {
        let shape = model.shape
        let d = shape.width
        // B's rows of q and of v, in the rows of q and of v and the columns of their rows of A.
        let thirds = [(0, 0), (2, 1)].map { third, half in
            Bottleneck.Up.Block(
                offset: half * d * rank, stride: rank, row: third * d, column: half * rank, rows: d,
                columns: rank)
        }
        for block in 0..<shape.depth {
            for linear in shape.sites where isAdapted(linear.role) {
                let (base, isTwo) = (model.blocks[block][linear.role].base, isTwo(linear.role))
                let term = try Bottleneck(
                    inputs: linear.inputs, outputs: linear.outputs, hidden: isTwo ? 2 * rank : rank,
                    down: store["\(base.name).lora_A"]!, up: store["\(base.name).lora_B"]!,
                    upBlocks: isTwo ? thirds : [], scale: .constant(alpha / Double(rank)),
                    place: shape.ordinal(block, linear.role), arena, backend)
                model.blocks[block][linear.role] = AdaptedLinear(base, beside: term)
            }
        }
    }
}
