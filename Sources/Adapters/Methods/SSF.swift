import TensorCore

/// SSF: a scale and a shift behind every operation, y ⊙ γ + β: the patch embedding, both LayerNorms, qkv, proj, fc1 (before
/// GELU), fc2 and the final LayerNorm; not the head. `linears` leaves it to the Linears of the blocks.
///
/// γ begins as N(1, 0.02²), β as N(0, 0.02²): not the identity. Source: SSF, models/vision_transformer.py,
/// `init_ssf_scale_shift`; arXiv 2210.08823.
struct SSF: TuningMethod {
    let isEverywhere: Bool

    init(_ settings: MethodSettings) throws {
        try settings.allow("ssf", targets: ["all", "linears"])
        isEverywhere = settings.targets != "linears"
    }

    // The authors' names of the Linears' scales, in the order of the sites.
    private static let linears: [(role: LinearRole, place: String, number: Int)] = [
        (.fusedQKV, "attn", 1), (.output, "attn", 2), (.up, "mlp", 1), (.down, "mlp", 2),
    ]

    // The authors' names: the place, the number there, the width.
    private func places(_ shape: TransformerShape) -> [(name: String, number: Int, width: Int)] {
        let d = shape.width
        let blocks = (0..<shape.depth).flatMap { block -> [(name: String, number: Int, width: Int)] in
            let norms = isEverywhere ? [("blocks.\(block)", 1, d), ("blocks.\(block)", 2, d)] : []
            return norms
                + zip(SSF.linears, shape.sites).map {
                    ("blocks.\(block).\($0.place)", $0.number, $1.outputs)
                }
        }
        return isEverywhere ? [("patch_embed", 1, d)] + blocks + [("", 1, d)] : blocks
    }

    private func name(_ place: String, _ kind: String, _ number: Int) -> String {
        (place.isEmpty ? "" : place + ".") + "ssf_\(kind)_\(number)"
    }

    func declarations(_ shape: TransformerShape, seed: Int) -> [ParameterStore.Declaration] {
        var random = Initialization(seed, "ssf")
        return places(shape).flatMap { place in
            [
                random.normal(name(place.name, "scale", place.number), [place.width], mean: 1, 0.02),
                random.normal(name(place.name, "shift", place.number), [place.width], 0.02),
            ]
        }
    }

    func attach(
        to model: inout Attachments, _ store: ParameterStore, _ arena: Arena, _ backend: any Backend
    ) throws {
        let shape = model.shape
        func at(_ place: String, _ number: Int) -> ScaleShift {
            ScaleShift(
                store, scale: name(place, "scale", number), shift: name(place, "shift", number), on: backend)
        }
        for block in 0..<shape.depth {
            for (role, place, number) in SSF.linears {
                let base = model.blocks[block][role].base
                model.blocks[block][role] = AdaptedLinear(
                    base, behind: at("blocks.\(block).\(place)", number))
            }
            if isEverywhere {
                model.blocks[block].norms = [at("blocks.\(block)", 1), at("blocks.\(block)", 2)]
            }
        }
        if isEverywhere {
            model.patches = at("patch_embed", 1)
            model.norm = at("", 1)
        }
    }
}
