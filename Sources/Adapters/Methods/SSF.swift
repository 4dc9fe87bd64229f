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

    // The authors' names: the place, the number there, the width.
    private func places(_ shape: TransformerShape) -> [(name: String, number: Int, width: Int)] {
        let d = shape.width
        let blocks = (0..<shape.depth).flatMap { block -> [(name: String, number: Int, width: Int)] in
            let norms = isEverywhere ? [("blocks.\(block)", 1, d), ("blocks.\(block)", 2, d)] : []
            return norms + [
                ("blocks.\(block).attn", 1, 3 * d), ("blocks.\(block).attn", 2, d),
                ("blocks.\(block).mlp", 1, shape.hiddenWidth), ("blocks.\(block).mlp", 2, d),
            ]
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

    func attachments(
        _ shape: TransformerShape, _ store: ParameterStore, _ arena: Arena, _ backend: any Backend
    ) throws -> Attachments {
        var result = Attachments(depth: shape.depth)
        func at(_ place: String, _ number: Int) -> ScaleShift {
            ScaleShift(store, scale: name(place, "scale", number), shift: name(place, "shift", number))
        }
        for block in 0..<shape.depth {
            for (index, place) in [("attn", 1), ("attn", 2), ("mlp", 1), ("mlp", 2)].enumerated() {
                result.blocks[block].linears[index].behind = at("blocks.\(block).\(place.0)", place.1)
            }
            if isEverywhere {
                result.blocks[block].norms = [at("blocks.\(block)", 1), at("blocks.\(block)", 2)]
            }
        }
        if isEverywhere {
            result.patches = at("patch_embed", 1)
            result.norm = at("", 1)
        }
        return result
    }
}
