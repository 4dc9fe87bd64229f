import Foundation
import TensorCore

/// Google's published vision transformers (`ViT-B_16.npz`), as timm's `_load_weights` reads them: kernels are
/// [in, out], the patch's [height, width, in, out], those of attention [D, heads, D/heads] or [heads, D/heads, D].
enum GoogleFormat {
    static func load(_ url: URL, heads: Int?) throws -> ViTCheckpoint {
        let archive = try NPZArchive(url)
        let names = archive.names
        let prefix = ["opt/target/", "params/"].first { names.contains($0 + "embedding/kernel") } ?? ""
        func shape(_ name: String, rank: Int) throws -> [Int] {
            try archive.shape(orThrow: prefix + name, rank: rank)
        }
        try archive.refuseUnknownParts(except: "pre_logits")
        if names.contains(where: { $0.hasPrefix(prefix + "conv_root/") }) {
            throw CheckpointError(
                "\(archive.path) is a hybrid with a ResNet, which is not supported; use a plain ViT")
        }
        let kernel = try shape("embedding/kernel", rank: 4)
        let query = try shape(block(0) + attention + "query/kernel", rank: 3)
        let hidden = try shape(block(0) + "MlpBlock_3/Dense_0/kernel", rank: 2)
        let tokens = try shape("Transformer/posembed_input/pos_embedding", rank: 3)[1]
        let hasClassToken = names.contains(prefix + "cls")
        let blocks = names.filter { $0.hasPrefix(prefix + "Transformer/encoderblock_") }.map {
            $0.dropFirst(prefix.count).split(separator: "/")[1]
        }
        var notes = ["npz: eps 1e-6 and ImageNet's mean and std are assumed"]
        // A head behind pre_logits means nothing without it; timm drops both.
        let hasPreLogits = names.contains { $0.hasPrefix(prefix + "pre_logits/") }
        if hasPreLogits { notes.append("npz: pre_logits and the head behind it are left out") }
        let hasHead = !hasPreLogits && names.contains(prefix + "head/kernel")
        var configuration = ViTConfiguration(
            imageSize: try TimmFormat.imageSize(
                tokens: tokens, hasClassToken: hasClassToken, patchSize: kernel[0], path: archive.path),
            patchSize: kernel[0], width: kernel[3], depth: Set(blocks).count, heads: query[1],
            hiddenWidth: hidden[1],
            classCount: hasHead ? try shape("head/kernel", rank: 2)[1] : 0)
        configuration.channels = kernel[2]
        configuration.hasClassToken = hasClassToken
        configuration.pooling = hasClassToken ? .classToken : .meanAfterNorm
        guard heads == nil || heads == configuration.heads else {
            throw CheckpointError(
                "\(archive.path) has \(configuration.heads) heads, not \(heads!); leave the number out")
        }
        try configuration.check(source: archive.path)
        let recipes = configuration.tensorShapes.map { name, shape in
            (name, recipe(name, shape, prefix: prefix, heads: configuration.heads))
        }
        let tensors = try archive.read(Dictionary(uniqueKeysWithValues: recipes)) {
            // The optimizer's state beside opt/target, and what pre_logits took with it.
            !$0.hasPrefix(prefix)
                || hasPreLogits && ($0.hasPrefix(prefix + "pre_logits/") || $0.hasPrefix(prefix + "head/"))
        }
        return try ViTCheckpoint(configuration: configuration, tensors: tensors, notes: notes)
    }

    private static let attention = "MultiHeadDotProductAttention_1/"
    private static func block(_ index: some CustomStringConvertible) -> String {
        "Transformer/encoderblock_\(index)/"
    }

    private static func recipe(_ name: String, _ shape: [Int], prefix: String, heads: Int) -> TensorRecipe {
        let words = name.split(separator: ".").map(String.init)
        let isWeight = words.last == "weight"
        let kernel = isWeight ? "kernel" : "bias"
        func part(_ name: String, _ shape: [Int]) -> (name: String, shape: [Int]) { (prefix + name, shape) }
        /// A Linear [out, in], there [in, out], or its bias.
        func linear(_ name: String) -> TensorRecipe {
            TensorRecipe(
                shape: shape, parts: [part("\(name)/\(kernel)", shape.reversed())],
                layout: isWeight ? .transposed : .same)
        }
        func norm(_ name: String) -> TensorRecipe {
            TensorRecipe(shape: shape, parts: [part("\(name)/\(isWeight ? "scale" : "bias")", shape)])
        }
        switch words[0] {
        case "cls_token": return TensorRecipe(shape: shape, parts: [part("cls", shape)])
        case "pos_embed":
            return TensorRecipe(
                shape: shape, parts: [part("Transformer/posembed_input/pos_embedding", shape)])
        case "patch_embed":
            let there = isWeight ? [shape[2], shape[3], shape[1], shape[0]] : shape
            return TensorRecipe(
                shape: shape, parts: [part("embedding/\(kernel)", there)],
                layout: isWeight ? .channelsLast : .same)
        case "norm": return norm("Transformer/encoder_norm")
        case "head": return linear("head")
        default: break
        }
        let block = block(words[1])
        let D = shape.last! / (words[2...].contains("qkv") && !isWeight ? 3 : 1)
        switch words[2...].dropLast().joined(separator: ".") {
        case "norm1": return norm(block + "LayerNorm_0")
        case "norm2": return norm(block + "LayerNorm_2")
        case "attn.qkv":
            let there = (isWeight ? [D] : []) + [heads, D / heads]
            return TensorRecipe(
                shape: shape,
                parts: ["query", "key", "value"].map { part(block + attention + "\($0)/\(kernel)", there) },
                layout: isWeight ? .transposed : .same)
        case "attn.proj":
            let there = isWeight ? [heads, D / heads, D] : [D]
            return TensorRecipe(
                shape: shape, parts: [part(block + attention + "out/\(kernel)", there)],
                layout: isWeight ? .transposed : .same)
        case "mlp.fc1": return linear(block + "MlpBlock_3/Dense_0")
        default: return linear(block + "MlpBlock_3/Dense_1")
        }
    }
}
