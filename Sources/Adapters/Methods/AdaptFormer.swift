import TensorCore

/// AdaptFormer: a bottleneck beside the MLP or behind it, with r the residual stream before LN₂ and m = MLP(LN₂ r):
///
///     parallel:    x ← r + m + s · Up(ReLU(Down r))
///     sequential:  x ← r + m + s · Up(ReLU(Down m))
///
/// Down [d, D] and Up [D, d] have biases; s is 0.1, or trained from 1; a LayerNorm (eps 1e-5) before Down or behind Up where
/// told. Down begins as a Linear's weight, Up and the biases at zero. Dropout 0.1 behind ReLU. Nothing merges: ReLU is between.
/// Source: AdaptFormer, models/adapter.py; arXiv 2205.13535.
struct AdaptFormer: TuningMethod {
    let width: Int
    let scale: Double
    let isScaleTrained: Bool
    let isSequential: Bool
    let norm: String
    let dropout: Double

    init(_ settings: MethodSettings) throws {
        try settings.allow(
            "adaptformer",
            [
                settings.$scale, settings.$width, settings.$dropout, settings.$placement,
                settings.$adapterNorm, settings.$learnableScale,
            ])
        width = settings.width ?? 64
        isScaleTrained = settings.learnableScale ?? false
        if isScaleTrained, settings.scale != nil {
            throw MethodError("`learnable-scale` begins at 1; leave `scale` out")
        }
        scale = settings.scale ?? 0.1
        isSequential = settings.placement == "sequential"
        norm = settings.adapterNorm ?? "none"
        dropout = settings.dropout ?? 0.1
    }

    let unmergeable: String? =
        "AdaptFormer's ReLU stands between its matrices, so no weight can stand for both"

    func declarations(_ shape: TransformerShape, seed: Int) -> [ParameterStore.Declaration] {
        var random = Initialization(seed, "adaptformer")
        let d = shape.width
        return (0..<shape.depth).flatMap { block -> [ParameterStore.Declaration] in
            let name = "blocks.\(block).adaptmlp"
            var declared: [ParameterStore.Declaration] = [
                random.linear("\(name).down_proj.weight", [width, d], inputs: d),
                zeros("\(name).down_proj.bias", [width]),
                zeros("\(name).up_proj.weight", [d, width]),
                zeros("\(name).up_proj.bias", [d]),
            ]
            if isScaleTrained {
                declared.append(.init("\(name).scale", [1], repeating: 1))
            }
            // One module whether it is used before or behind, and named so.
            if norm != "none" {
                declared += [
                    .init("\(name).adapter_layer_norm_before.weight", [d], repeating: 1),
                    zeros("\(name).adapter_layer_norm_before.bias", [d]),
                ]
            }
            return declared
        }
    }

    func attach(
        to model: inout Attachments, _ store: ParameterStore, _ arena: Arena, _ backend: any Backend
    ) throws {
        let shape = model.shape
        for block in 0..<shape.depth {
            let name = "blocks.\(block).adaptmlp"
            let update = try Bottleneck(
                inputs: shape.width, outputs: shape.width, hidden: width,
                down: store["\(name).down_proj.weight"]!, downBias: store["\(name).down_proj.bias"]!,
                up: store["\(name).up_proj.weight"]!, upBias: store["\(name).up_proj.bias"]!,
                activation: .relu,
                scale: store["\(name).scale"].map { .learned($0) } ?? .constant(scale), dropout: dropout,
                norm: norm == "none"
                    ? nil
                    : Bottleneck.Norm(
                        weight: store["\(name).adapter_layer_norm_before.weight"]!,
                        bias: store["\(name).adapter_layer_norm_before.bias"]!, isBefore: norm == "in"),
                place: block, arena, backend)
            if isSequential {
                model.blocks[block].behindMLP = update
            } else {
                model.blocks[block].besideMLP = update
            }
        }
    }
}
