import Adapters
import Foundation
import ModelConfiguration
import TensorCore
import Testing

@testable import Checkpoints

/// Adapters in the names of the model that they were trained on.
@Suite("Adapters in the names of Hugging Face's classes, and beside Linears without a bias")
struct AdapterNamesTests {
    private static func checkpoint(_ change: (inout ViTConfiguration) -> Void) throws -> ViTCheckpoint {
        var configuration = ViTConfiguration(
            imageSize: 16, patchSize: 4, width: 32, depth: 1, heads: 4, hiddenWidth: 64, classCount: 3)
        change(&configuration)
        var tensors: [String: HostTensor] = [:]
        for (seed, (name, shape)) in configuration.tensorShapes.sorted(by: { $0.key < $1.key }).enumerated() {
            tensors[name] = numbers(shape, seed: seed + 1)
        }
        if configuration.queries == .fused, configuration.queryBias == .withoutKeys {
            tensors["blocks.0.attn.qkv.bias"]!.values
                .replaceSubrange(32..<64, with: [Float](repeating: 0, count: 32))
        }
        return try ViTCheckpoint(configuration: configuration, tensors: tensors)
    }

    /// Every Linear on a path of its own as far as it has a bias, every tensor full of numbers.
    private static func adapter(_ model: ViTCheckpoint) -> GLoRAAdapter {
        let paths = [
            GLoRAPath(a: .lowRank(2), b: .constant, c: .vector, d: .constant, e: .vector), .full(rank: 3),
            GLoRAPath(a: .constant, b: .vector, c: .lowRank(1), d: .vector, e: .constant), .lora(rank: 1),
        ]
        var layers: [String: GLoRAAdapter.Layer] = [:]
        for (index, linear) in model.configuration.shape.linears.enumerated() {
            let (site, own) = (linear.site, paths[index % paths.count])
            var tensors: [String: HostTensor] = [:]
            for (letter, rows, columns) in [
                ("A", site.outputs, site.inputs), ("B", site.outputs, site.inputs), ("C", site.inputs, 1),
            ] {
                tensors[letter + "d"] = numbers([rows, 3], seed: index * 10 + 1)
                tensors[letter + "u"] = numbers([3, columns], seed: index * 10 + 2)
            }
            for letter in ["D", "E"] { tensors[letter] = numbers([site.outputs], seed: index * 10 + 3) }
            layers[linear.name] = GLoRAAdapter.Layer(
                path: site.hasBias ? own : GLoRAPath(a: own.a, b: own.b), tensors: tensors)
        }
        return GLoRAAdapter(
            rank: 3, layers: layers,
            head: ["head.weight": numbers([5, model.configuration.featureWidth]), "head.bias": numbers([5])])
    }

    /// The modules of transformers 5.24's classes, by `named_modules`, less the blocks' last Linears.
    static let classes:
        [(String, start: String, output: String, change: @Sendable (inout ViTConfiguration) -> Void)] =
            [
                ("ViT", "vit.layers.0.attention.", "o_proj", { _ in }),
                ("DeiT", "deit.layers.0.attention.", "o_proj", { $0.registers = 1 }),
                (
                    "Dinov2", "dinov2.encoder.layer.0.attention.", "o_proj",
                    { ($0.layerScale, $0.pooling) = (true, .classTokenAndMean) }
                ),
                (
                    "Dinov2WithRegisters", "dinov2_with_registers.encoder.layer.0.attention.", "o_proj",
                    {
                        ($0.layerScale, $0.pooling, $0.registers) = (true, .classTokenAndMean, 4)
                        $0.positions = .patches
                    }
                ),
                (
                    "CLIP", "vision_model.encoder.layers.0.self_attn.", "out_proj",
                    { ($0.normBeforeBlocks, $0.patchBias, $0.pooling) = (true, false, .mean) }
                ),
                (
                    "Siglip", "vision_model.encoder.layers.0.self_attn.", "out_proj",
                    { ($0.hasClassToken, $0.pooling) = (false, .meanAfterNorm) }
                ),
                (
                    "Dinov2, gated", "dinov2.encoder.layer.0.attention.", "o_proj",
                    {
                        ($0.layerScale, $0.pooling) = (true, .classTokenAndMean)
                        $0.feedForward = .gated(.silu, isPacked: true, hasNorm: false)
                    }
                ),
            ]

    @Test("GLoRA comes back from the names of transformers' classes", arguments: 0..<classes.count)
    func gloraComesBack(index: Int) throws {
        let (name, start, output, change) = Self.classes[index]
        let model = try Self.checkpoint(change)
        let adapter = Self.adapter(model)
        try withTemporaryFolder { folder in
            try PEFTAdapter.save(
                adapter, to: folder, names: AdapterNames(model.configuration, isHuggingFace: true))
            let file = try SafetensorsFile(folder.appendingPathComponent("adapter_model.safetensors"))
            for (part, rows) in [("q_proj", 32), ("k_proj", 32), ("v_proj", 32), (output, 32)] {
                #expect(
                    file.shape(of: "base_model.model.\(start)\(part).glora_A.Xd") == [rows, 3], "\(name)")
            }
            #expect(
                file.shape(of: "base_model.model.classifier.weight") == [5, model.configuration.featureWidth])
            let settings = try JSONValue(contentsOf: folder.appendingPathComponent("adapter_config.json"))
            #expect(settings["modules_to_save"] == ["classifier"])
            if name.hasSuffix("gated") {
                let start = "base_model.model.dinov2.encoder.layer.0.mlp."
                for (part, shape) in [
                    ("gate_proj", [64, 3]), ("up_proj", [64, 3]), ("down_proj", [32, 3]),
                ] {
                    #expect(file.shape(of: start + part + ".glora_B.Xd") == shape)
                }
            }
            #expect(settings["target_modules"]?.arrayValue?.contains(.string(start + "k_proj")) == true)
            let loaded = try PEFTAdapter.load(folder, for: model).adapter
            #expect(loaded.head == adapter.head && loaded.layers.count == adapter.layers.count)
            #expect(loaded.layers.mapValues(\.path) == adapter.layers.mapValues(\.path))
            // Equal to the bit: the parts are one layer again, of the rank that it had.
            #expect(
                loaded.layers.mapValues { PEFTAdapter.promoted($0).tensors }
                    == adapter.layers.mapValues { PEFTAdapter.promoted($0).tensors })
        }
    }

    /// The rows of B are the queries', the keys' and the values'.
    @Test("LoRA is written for queries, keys and values apart")
    func loraApart() throws {
        let model = try Self.checkpoint { _ in }
        let factors = LinearFactors(down: numbers([2, 32], seed: 3), up: numbers([96, 2], seed: 4))
        try withTemporaryFolder { folder in
            try PEFTAdapter.saveLoRA(
                ["blocks.0.attn.qkv": factors],
                head: ["head.weight": numbers([5, 32]), "head.bias": numbers([5])], to: folder,
                names: AdapterNames(model.configuration, isHuggingFace: true))
            let file = try SafetensorsFile(folder.appendingPathComponent("adapter_model.safetensors"))
            for (index, part) in ["q_proj", "k_proj", "v_proj"].enumerated() {
                let start = "base_model.model.vit.layers.0.attention.\(part).lora_"
                #expect(try file.tensor(start + "A.weight") == factors.down)
                let rows = Array(factors.up.values[64 * index..<64 * (index + 1)])
                #expect(try file.tensor(start + "B.weight") == HostTensor(shape: [32, 2], values: rows))
            }
            let loaded = try PEFTAdapter.load(folder, for: model).adapter.layers["blocks.0.attn.qkv"]!
            #expect(loaded.path == .lora(rank: 2) && loaded.tensors["Bd"] == factors.up)
            #expect(loaded.tensors["Bu"] == factors.down)
        }
    }

    /// Keys of another rank or factor stay blocks of their own, and other constants, too.
    @Test("Parts that aren't one layer's rows stay parts")
    func partsStayParts() throws {
        let model = try Self.checkpoint { _ in }
        let adapter = Self.adapter(model)
        for changed in ["glora_A.Xu", "glora_B.Xd", "glora_D.X"] {
            try withTemporaryFolder { folder in
                try PEFTAdapter.save(
                    adapter, to: folder, names: AdapterNames(model.configuration, isHuggingFace: true))
                let url = folder.appendingPathComponent("adapter_model.safetensors")
                let file = try SafetensorsFile(url)
                var tensors: [String: HostTensor] = [:]
                for name in file.names { tensors[name] = try file.tensor(name) }
                let name = "base_model.model.vit.layers.0.attention.k_proj.\(changed)"
                tensors[name]!.values = tensors[name]!.values.map { $0 + 1 }
                try writeSafetensors(tensors, to: url, metadata: ["format": "pt"])
                let before = adapter.layers["blocks.0.attn.qkv"]!
                let after = try PEFTAdapter.load(folder, for: model).adapter.layers["blocks.0.attn.qkv"]!
                #expect(after.path != before.path, "\(changed)")
            }
        }
    }

    /// PEFT's layers beside Linears without a bias hold zeros [in, 1], [out], [out] in the place of C, D and E.
    @Test("Beside a Linear without a bias nothing stands for C, D and E but zeros")
    func zeros() throws {
        let model = try Self.checkpoint { ($0.layerScale, $0.queryBias) = (true, .none) }
        let adapter = Self.adapter(model)
        try withTemporaryFolder { folder in
            try PEFTAdapter.save(
                adapter, to: folder, names: AdapterNames(model.configuration, isHuggingFace: false))
            let file = try SafetensorsFile(folder.appendingPathComponent("adapter_model.safetensors"))
            let start = "base_model.model.blocks.0.attn.qkv.glora_"
            #expect(
                Set(file.names.filter { $0.hasPrefix(start) })
                    == Set(
                        ["A.Xd", "A.Xu", "B.Xd", "B.Xu", "C.zeros", "D.zeros", "E.zeros"].map { start + $0 }))
            #expect(
                file.shape(of: start + "C.zeros") == [32, 1] && file.shape(of: start + "D.zeros") == [96])
            let loaded = try PEFTAdapter.load(folder, for: model).adapter
            #expect(loaded.layers.mapValues(\.path) == adapter.layers.mapValues(\.path))
            #expect(file.shape(of: "base_model.model.blocks.0.attn.proj.glora_C.Xd") == [32, 3])
        }
    }

    /// EVA's module has no bias, which timm adds itself: PEFT has zeros for C, D and E, though the Linear here has a bias.
    @Test("PEFT's GLoRA on a projection whose bias timm keeps apart is read")
    func zerosBesideABias() throws {
        let model = try Self.checkpoint { ($0.queryBias, $0.pooling) = (.withoutKeys, .meanBeforeNorm) }
        var adapter = Self.adapter(model)
        adapter.layers["blocks.0.attn.qkv"]!.path = GLoRAPath(a: .lowRank(2), b: .vector)
        try withTemporaryFolder { folder in
            try PEFTAdapter.save(
                adapter, to: folder, names: AdapterNames(model.configuration, isHuggingFace: false))
            let file = try SafetensorsFile(folder.appendingPathComponent("adapter_model.safetensors"))
            #expect(file.shape(of: "base_model.model.blocks.0.attn.qkv.glora_E.zeros") == [96])
            let loaded = try PEFTAdapter.load(folder, for: model).adapter
            #expect(loaded.layers["blocks.0.attn.qkv"]?.path == GLoRAPath(a: .lowRank(2), b: .vector))
        }
    }

    @Test("A head is as wide as what it reads")
    func headWidth() throws {
        let model = try Self.checkpoint { ($0.layerScale, $0.pooling) = (true, .classTokenAndMean) }
        var adapter = Self.adapter(model)
        #expect(adapter.head["head.weight"]!.shape == [5, 64])
        adapter.head["head.weight"] = numbers([5, 32])
        try withTemporaryFolder { folder in
            try PEFTAdapter.save(adapter, to: folder)
            expectError("it reads 64 features") { _ = try PEFTAdapter.load(folder, for: model) }
        }
    }

    /// timm's distilled DeiT has a head on each token; the logits are the mean of both.
    @Test("A distilled DeiT's head is written as two and read as one")
    func twoHeads() throws {
        let model = try Self.checkpoint { ($0.registers, $0.pooling) = (1, .classTokenAndSecond) }
        let adapter = Self.adapter(model)
        try withTemporaryFolder { folder in
            try PEFTAdapter.save(
                adapter, to: folder, names: AdapterNames(model.configuration, isHuggingFace: false))
            let url = folder.appendingPathComponent("adapter_model.safetensors")
            let file = try SafetensorsFile(url)
            let whole = adapter.head["head.weight"]!.values
            for (index, name) in ["head", "head_dist"].enumerated() {
                let weight = try file.tensor("base_model.model.\(name).weight")
                #expect(weight.shape == [5, 32] && weight.values[33] == 2 * whole[64 + 32 * index + 1])
                #expect(try file.tensor("base_model.model.\(name).bias") == adapter.head["head.bias"])
            }
            let settings = try JSONValue(contentsOf: folder.appendingPathComponent("adapter_config.json"))
            #expect(settings["modules_to_save"] == ["head", "head_dist"])
            #expect(try PEFTAdapter.load(folder, for: model).adapter.head == adapter.head)
            let other = folder.appendingPathComponent("huggingface")
            try PEFTAdapter.save(
                adapter, to: other, names: AdapterNames(model.configuration, isHuggingFace: true))
            let second = try SafetensorsFile(other.appendingPathComponent("adapter_model.safetensors"))
            let weight = try second.tensor("base_model.model.distillation_classifier.weight")
            #expect(try weight == file.tensor("base_model.model.head_dist.weight"))
            #expect(second.shape(of: "base_model.model.cls_classifier.bias") == [5])
            #expect(try PEFTAdapter.load(other, for: model).adapter.head == adapter.head)
            var tensors: [String: HostTensor] = [:]
            for name in file.names where !name.contains("head.") { tensors[name] = try file.tensor(name) }
            try writeSafetensors(tensors, to: url, metadata: ["format": "pt"])
            expectError("the heads 'head' and 'head_dist'") { _ = try PEFTAdapter.load(folder, for: model) }
        }
    }
}
