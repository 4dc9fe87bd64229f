import Datasets
import Foundation
import ModelConfiguration
import TensorCore

/// Google's published vision transformers (`ViT-B_16.npz`), as timm's `_load_weights` reads them: kernels are
/// [in, out], the patch's [height, width, in, out], those of attention [D, heads, D/heads] or [heads, D/heads, D].
///
/// Two libraries wrote them, which number the parts of a block differently:
///
///     vision_transformer (vit_jax)  LayerNorm_0, MultiHeadDotProductAttention_1, LayerNorm_2, MlpBlock_3
///     big_vision                    LayerNorm_0, MultiHeadDotProductAttention_0, LayerNorm_1, MlpBlock_0
///
/// big_vision's newer files stack all blocks ([layers, …] under `encoderblock`) and keep positions as
/// `pos_embedding`, of which a class token has none.
enum GoogleFormat {
    static func load(_ url: URL, heads: Int?) throws -> ViTCheckpoint {
        let archive = try NPZArchive(url)
        let file = archive.names
        guard !file.contains(where: { $0.hasPrefix("params/img/") || $0.hasPrefix("params/txt/") }) else {
            throw CheckpointError(
                "\(archive.path) holds an image and a text model of big_vision, which is not supported; use a plain ViT"
            )
        }
        let prefix = ["opt/target/", "params/"].first { file.contains($0 + "embedding/kernel") } ?? ""
        try archive.refuseUnknownParts(except: ["pre_logits"])
        if file.contains(where: { $0.hasPrefix(prefix + "conv_root/") }) {
            throw CheckpointError(
                "\(archive.path) is a hybrid with a ResNet, which is not supported; use a plain ViT")
        }
        let source: any TensorSource = try UnstackedBlocks(archive, prefix: prefix) ?? archive
        let names = Names(source, prefix: prefix)
        func shape(_ name: String, rank: Int) throws -> [Int] {
            try source.shape(orThrow: prefix + name, rank: rank)
        }
        let kernel = try shape("embedding/kernel", rank: 4)
        let query = try shape(names.attention(0) + "query/kernel", rank: 3)
        let hidden = try shape(names.mlp(0) + "Dense_0/kernel", rank: 2)
        let positions = try shape(names.positions, rank: 3)[1]
        let hasClassToken = source.shape(of: prefix + "cls") != nil
        // A class token that has no position is one whose position is zero.
        let lacksPosition = hasClassToken && TimmFormat.side(ofSquare: positions) != nil
        let tokens = positions + (lacksPosition ? 1 : 0)
        let blocks = source.names.filter { $0.hasPrefix(prefix + "Transformer/encoderblock_") }.map {
            $0.dropFirst(prefix.count).split(separator: "/")[1]
        }
        // A head behind pre_logits means nothing without it; timm drops both.
        let hasPreLogits = source.names.contains { $0.hasPrefix(prefix + "pre_logits/") }
        let hasHead = !hasPreLogits && source.shape(of: prefix + "head/kernel") != nil
        var configuration = ViTConfiguration(
            imageSize: try TimmFormat.imageSize(
                positions: tokens, prefix: hasClassToken ? 1 : 0, patch: Array(kernel[..<2]),
                path: source.path),
            patchSize: kernel[0], width: kernel[3], depth: Set(blocks).count, heads: query[1],
            hiddenWidth: hidden[1],
            classCount: hasHead ? try shape("head/kernel", rank: 2)[1] : 0)
        configuration.channels = kernel[2]
        configuration.hasClassToken = hasClassToken
        configuration.pooling = hasClassToken ? .classToken : .meanAfterNorm
        (configuration.preprocessing.mean, configuration.preprocessing.std) = Preprocessing.inception
        guard heads == nil || heads == configuration.heads else {
            throw CheckpointError(
                "\(source.path) has \(configuration.heads) heads, not \(heads!); leave the number out")
        }
        try configuration.check(source: source.path)
        var notes = [
            "npz: eps 1e-6 is assumed. Google's models take images squashed to the input size (bicubic) and pixels of "
                + "−1…1 (mean and std 0.5); VTAB-1K's protocols use ImageNet's numbers (`normalize imagenet`)"
        ]
        if hasPreLogits { notes.append("npz: pre_logits and the head behind it are left out") }
        let recipes = configuration.tensorShapes.map { name, shape in
            let shape = name == "pos_embed" ? [1, positions, shape[2]] : shape
            return (name, names.recipe(name, shape, heads: configuration.heads))
        }
        var tensors = try source.read(Dictionary(uniqueKeysWithValues: recipes)) {
            // The optimizer's state beside opt/target, and what pre_logits took with it.
            !$0.hasPrefix(prefix)
                || hasPreLogits && ($0.hasPrefix(prefix + "pre_logits/") || $0.hasPrefix(prefix + "head/"))
        }
        if lacksPosition {
            let zeros = [Float](repeating: 0, count: configuration.width)
            tensors["pos_embed"] = HostTensor(
                shape: [1, tokens, configuration.width], values: zeros + tensors["pos_embed"]!.values)
        }
        var checkpoint = try ViTCheckpoint(configuration: configuration, tensors: tensors, notes: notes)
        checkpoint.preprocessingOrigin = .google
        return checkpoint
    }
}

/// The names of one library's file.
private struct Names {
    let prefix: String
    let isBigVision: Bool
    /// The position embeddings' name, without the prefix.
    let positions: String

    init(_ source: any TensorSource, prefix: String) {
        self.prefix = prefix
        isBigVision = source.names.contains { $0.contains("/MultiHeadDotProductAttention_0/") }
        let old = "Transformer/posembed_input/pos_embedding"
        positions =
            source.shape(of: prefix + old) == nil && source.shape(of: prefix + "pos_embedding") != nil
            ? "pos_embedding" : old
    }

    func block(_ index: some CustomStringConvertible) -> String { "Transformer/encoderblock_\(index)/" }
    func attention(_ index: some CustomStringConvertible) -> String {
        block(index) + "MultiHeadDotProductAttention_\(isBigVision ? 0 : 1)/"
    }
    func mlp(_ index: some CustomStringConvertible) -> String {
        block(index) + "MlpBlock_\(isBigVision ? 0 : 3)/"
    }

    /// How timm's tensor is made.
    func recipe(_ name: String, _ shape: [Int], heads: Int) -> TensorRecipe {
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
            return TensorRecipe(shape: shape, parts: [part(positions, shape)])
        case "patch_embed":
            let there = isWeight ? [shape[2], shape[3], shape[1], shape[0]] : shape
            return TensorRecipe(
                shape: shape, parts: [part("embedding/\(kernel)", there)],
                layout: isWeight ? .channelsLast : .same)
        case "norm": return norm("Transformer/encoder_norm")
        case "head": return linear("head")
        default: break
        }
        let (block, attention, mlp) = (block(words[1]), attention(words[1]), mlp(words[1]))
        let D = shape.last! / (words[2...].contains("qkv") && !isWeight ? 3 : 1)
        switch words[2...].dropLast().joined(separator: ".") {
        case "norm1": return norm(block + "LayerNorm_0")
        case "norm2": return norm(block + "LayerNorm_\(isBigVision ? 1 : 2)")
        case "attn.qkv":
            let there = (isWeight ? [D] : []) + [heads, D / heads]
            return TensorRecipe(
                shape: shape,
                parts: ["query", "key", "value"].map { part(attention + "\($0)/\(kernel)", there) },
                layout: isWeight ? .transposed : .same)
        case "attn.proj":
            let there = isWeight ? [heads, D / heads, D] : [D]
            return TensorRecipe(
                shape: shape, parts: [part(attention + "out/\(kernel)", there)],
                layout: isWeight ? .transposed : .same)
        case "mlp.fc1": return linear(mlp + "Dense_0")
        default: return linear(mlp + "Dense_1")
        }
    }
}

/// big_vision's stacked blocks, `Transformer/encoderblock/X` of [layers, …], as `Transformer/encoderblock_N/X`.
private final class UnstackedBlocks: TensorSource {
    private let archive: NPZArchive
    private let stack: String
    private let depth: Int
    /// Stacks that have been read: each is asked for once a layer.
    private var stacks: [String: HostTensor] = [:]

    /// Nil for an archive whose blocks aren't stacked. Throws `CheckpointError` when their layers disagree.
    init?(_ archive: NPZArchive, prefix: String) throws {
        self.archive = archive
        stack = prefix + "Transformer/encoderblock/"
        let stacked = archive.names.filter { [stack] in $0.hasPrefix(stack) }
        guard let first = stacked.first else { return nil }
        depth = archive.shape(of: first)?.first ?? 0
        // As many names as a file of blocks apart could have, so that a false shape can't ask for billions.
        guard (1...4096).contains(depth), stacked.allSatisfy({ archive.shape(of: $0)?.first == depth }) else {
            throw CheckpointError(
                "\(archive.path): the stacked blocks '\(first)' and others have different numbers of layers; "
                    + "download the file again")
        }
    }

    var path: String { archive.path }
    var names: [String] {
        archive.names.flatMap { name in
            name.hasPrefix(stack)
                ? (0..<depth).map { "\(stack.dropLast())_\($0)/\(name.dropFirst(stack.count))" } : [name]
        }
    }

    func shape(of name: String) -> [Int]? {
        guard let (whole, _) = place(name) else { return archive.shape(of: name) }
        return archive.shape(of: whole).map { Array($0.dropFirst()) }
    }

    func tensor(_ name: String) throws -> HostTensor {
        guard let (whole, layer) = place(name) else { return try archive.tensor(name) }
        let tensor = try stacks[whole] ?? archive.tensor(whole)
        stacks[whole] = tensor
        let count = tensor.values.count / depth
        return HostTensor(
            shape: Array(tensor.shape.dropFirst()),
            values: Array(tensor.values[layer * count..<(layer + 1) * count]))
    }

    /// The stack that holds `Transformer/encoderblock_N/X`, and N.
    private func place(_ name: String) -> (whole: String, layer: Int)? {
        let start = stack.dropLast() + "_"
        guard name.hasPrefix(start) else { return nil }
        let parts = name.dropFirst(start.count).split(separator: "/", maxSplits: 1)
        guard parts.count == 2, let layer = Int(parts[0]), (0..<depth).contains(layer) else { return nil }
        return (stack + parts[1], layer)
    }
}
