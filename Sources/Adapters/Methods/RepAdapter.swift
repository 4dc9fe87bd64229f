import TensorCore

/// RepAdapter: a linear bottleneck before a Linear, on the LayerNorm's output z:
///
///     z ← z + s · (B · drop(A z + a) + b_B)
///
/// A [h, D, 1]; B [D, h/g, 1] in g groups, 2 by default: the first h/g hidden values feed the first D/g outputs, and so on. `block`: before qkv and before fc1; `attention`: before qkv alone. A begins Xavier, the rest at zero.
///
///     merged: W' = W (I + s · B A),  b' = b + s · W (B a + b_B)
///
/// Source: RepAdapter, repadapter.py; arXiv 2302.08106.
struct RepAdapter: TuningMethod {
    let width: Int
    let scale: Double
    let dropout: Double
    let isBlock: Bool
    private let groups: Int

    init(_ settings: MethodSettings, _ shape: TransformerShape) throws {
        try settings.allow(
            "repadapter", [settings.$scale, settings.$width, settings.$groups, settings.$dropout],
            targets: ["block", "attention"])
        width = settings.width ?? 8
        groups = settings.groups ?? 2
        guard width % groups == 0, shape.width % groups == 0 else {
            throw MethodError(
                "`groups \(groups)` must divide repadapter's `width \(width)` and the model's width \(shape.width)"
            )
        }
        scale = settings.scale ?? 1
        dropout = settings.dropout ?? 0.1
        isBlock = settings.targets != "attention"
    }

    private var places: [(name: String, role: LinearRole)] {
        isBlock ? [("adapter_attn", .fusedQKV), ("adapter_mlp", .up)] : [("adapter_attn", .fusedQKV)]
    }

    func declarations(_ shape: TransformerShape, seed: Int) -> [ParameterStore.Declaration] {
        var random = Initialization(seed, "repadapter")
        let d = shape.width
        return (0..<shape.depth).flatMap { block in
            places.flatMap { place -> [ParameterStore.Declaration] in
                let name = "blocks.\(block).\(place.name)"
                return [
                    random.xavier("\(name).conv_A.weight", [width, d, 1], inputs: d, outputs: width),
                    zeros("\(name).conv_A.bias", [width]),
                    zeros("\(name).conv_B.weight", [d, width / groups, 1]),
                    zeros("\(name).conv_B.bias", [d]),
                ]
            }
        }
    }

    func attach(
        to model: inout Attachments, _ store: ParameterStore, _ arena: Arena, _ backend: any Backend
    ) throws {
        let shape = model.shape
        let (rows, columns) = (shape.width / groups, width / groups)
        let blocks = (0..<groups).map {
            Bottleneck.Up.Block(
                offset: $0 * rows * columns, stride: columns, row: $0 * rows, column: $0 * columns,
                rows: rows, columns: columns)
        }
        for block in 0..<shape.depth {
            for place in places {
                let name = "blocks.\(block).\(place.name)"
                let term = try Bottleneck(
                    inputs: shape.width, outputs: shape.width, hidden: width,
                    down: store["\(name).conv_A.weight"]!, downBias: store["\(name).conv_A.bias"]!,
                    up: store["\(name).conv_B.weight"]!, upBlocks: blocks,
                    upBias: store["\(name).conv_B.bias"]!, scale: .constant(scale), dropout: dropout,
                    place: shape.ordinal(block, place.role), arena, backend)
                let base = model.blocks[block][place.role].base
                model.blocks[block][place.role] = AdaptedLinear(base, before: term)
            }
        }
    }
}
