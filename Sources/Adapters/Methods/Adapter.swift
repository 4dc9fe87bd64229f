import TensorCore

/// Adapter: a bottleneck behind the MLP, m + Up(GELU(Down m)), width 8, with biases.
///
/// Down is Xavier, Up and the biases begin at zero, so that it begins as the identity. Nothing merges: GELU is between.
/// Source: Houlsby et al., arXiv 1902.00751; the place and the width are those of the VTAB-1K tables (NOAH).
struct Adapter: TuningMethod {
    let width: Int
    let dropout: Double

    init(_ settings: MethodSettings) throws {
        try settings.allow("adapter", [settings.$width, settings.$dropout])
        width = settings.width ?? 8
        dropout = settings.dropout ?? 0
    }

    let unmergeable: String? = "Adapter's GELU stands between its matrices, so no weight can stand for both"

    func declarations(_ shape: TransformerShape, seed: Int) -> [ParameterStore.Declaration] {
        var random = Initialization(seed, "adapter")
        let d = shape.width
        return (0..<shape.depth).flatMap { block -> [ParameterStore.Declaration] in
            let name = "blocks.\(block).adapter"
            return [
                random.xavier("\(name).down.weight", [width, d], inputs: d, outputs: width),
                zeros("\(name).down.bias", [width]),
                zeros("\(name).up.weight", [d, width]), zeros("\(name).up.bias", [d]),
            ]
        }
    }

    func attach(
        to model: inout Attachments, _ store: ParameterStore, _ arena: Arena, _ backend: any Backend
    ) throws {
        let shape = model.shape
        for block in 0..<shape.depth {
            let name = "blocks.\(block).adapter"
            model.blocks[block].behindMLP = try Bottleneck(
                inputs: shape.width, outputs: shape.width, hidden: width,
                down: store["\(name).down.weight"]!, downBias: store["\(name).down.bias"]!,
                up: store["\(name).up.weight"]!, upBias: store["\(name).up.bias"]!, activation: .gelu,
                dropout: dropout, place: block, arena, backend)
        }
    }
}
