import Adapters
import Foundation
import TensorCore
import TestSupport
import Testing

@testable import Checkpoints

/// PEFT's adapters in their many names and settings compute what PEFT does, or are refused for the right reason.
@Suite("PEFT's many names and settings are obeyed or refused")
struct PEFTNamesTests {
    let timm = try! ViTCheckpoint.load(fixture("timm"))
    let huggingFace = try! ViTCheckpoint.load(fixture("huggingface"))

    func base(_ name: String) -> ViTCheckpoint { name.hasPrefix("hf") ? huggingFace : timm }

    @Test(
        "An adapter's logits are those that PEFT computes",
        arguments: [
            "lora-patterns", "lora-bias", "lora-layers", "hf-lora", "hf-all-linear", "hf-glora-lora",
            "hf-glora-vector", "hf-glora-constant",
        ])
    func logitsArePEFTs(_ name: String) throws {
        let loaded = try PEFTAdapter.load(fixture("peft/\(name)"), for: base(name))
        let x = try SafetensorsFile(fixture("inputs.safetensors")).tensor("x")
        let truth = try SafetensorsFile(fixture("peft/logits.safetensors")).tensor(name)
        // PEFT computes in float32, our reference in doubles.
        expectClose(truth.values, referenceLogits(merged(base(name), loaded.adapter), x), name, limit: 1e-11)
    }

    @Test("Patterns that match no layer are noted")
    func patternsThatMatchNothingAreTold() throws {
        let notes = try PEFTAdapter.load(fixture("peft/lora-patterns"), for: timm).notes
        #expect(notes.count == 2)
        #expect(
            notes.contains { $0.hasSuffix("'nothing' of rank_pattern matches none of the adapted layers") })
        #expect(
            notes.contains { $0.hasSuffix("'blocks.1' of alpha_pattern matches none of the adapted layers") })
        #expect(try PEFTAdapter.load(fixture("peft/lora-bias"), for: timm).notes.isEmpty)
    }

    /// A copy of an adapter of the fixtures with other names, tensors and settings.
    func edited<Result>(
        _ name: String, settings: [String: JSONValue] = [:],
        tensors change: (inout [String: HostTensor]) throws -> Void = { _ in },
        read: (URL) throws -> Result
    ) throws -> Result {
        try withTemporaryFolder { folder in
            let old = fixture(name.hasPrefix("peft-") ? name : "peft/" + name)
            let config = try JSONValue(contentsOf: old.appendingPathComponent("adapter_config.json"))
            let file = try SafetensorsFile(old.appendingPathComponent("adapter_model.safetensors"))
            var tensors: [String: HostTensor] = [:]
            for name in file.names { tensors[name] = try file.tensor(name) }
            try change(&tensors)
            try writeSafetensors(tensors, to: folder.appendingPathComponent("adapter_model.safetensors"))
            let members = config.objectValue!.merging(settings) { $1 }
            try AtomicFile.write(
                JSONValue.object(members).text(), to: folder.appendingPathComponent("adapter_config.json"))
            return try read(folder)
        }
    }

    func expectRefusal(
        _ part: String, of name: String = "lora-bias", settings: [String: JSONValue] = [:],
        sourceLocation: SourceLocation = #_sourceLocation,
        tensors: (inout [String: HostTensor]) throws -> Void = { _ in }
    ) throws {
        try edited(name, settings: settings, tensors: tensors) { folder in
            expectError(part, sourceLocation: sourceLocation) {
                _ = try PEFTAdapter.load(folder, for: base(name))
            }
        }
    }

    @Test(
        "Every library's names of the same modules are read",
        arguments: [
            // transformers 4, a ViTModel of transformers 5, timm in transformers' wrapper
            (
                "hf-lora",
                "vit.layers.>vit.encoder.layer. q_proj>attention.query v_proj>attention.value o_proj>output.dense",
                #"["query", "value", "attention.output.dense"]"#, #"{"value": 1}"#
            ),
            ("hf-lora", "model.vit.>model.", #"["q_proj", "v_proj", "o_proj"]"#, #"{"^layers.*v_proj": 1}"#),
            ("lora-bias", "model.blocks.>model.timm_model.blocks.", #"["qkv", "mlp.fc1"]"#, "{}"),
        ])
    func modulesHaveManyNames(
        _ name: String, _ changes: String, _ targets: String, _ ranks: String
    ) throws {
        let changes = changes.split(separator: " ").map { $0.split(separator: ">") }
        let plain = try PEFTAdapter.load(fixture("peft/" + name), for: base(name)).adapter
        let settings = [
            "target_modules": try JSONValue(parsing: targets.utf8),
            "rank_pattern": try JSONValue(parsing: ranks.utf8),
        ]
        let renamed = try edited(name, settings: settings) { tensors in
            tensors = Dictionary(
                uniqueKeysWithValues: tensors.map { key, tensor in
                    (changes.reduce(key) { $0.replacingOccurrences(of: $1[0], with: $1[1]) }, tensor)
                })
        } read: {
            try PEFTAdapter.load($0, for: base(name)).adapter
        }
        #expect(renamed == plain)
    }

    @Test("One adapter's name may be in the keys, two may not")
    func oneAdaptersNameMayBeInTheKeys() throws {
        func named(_ key: String, _ adapter: String) -> String {
            var words = key.split(separator: ".").map(String.init)
            if key.contains("classifier") {
                words.insert(contentsOf: ["modules_to_save", adapter], at: words.count - 1)
            } else {
                words.insert(adapter, at: words.count - 1)
            }
            return words.joined(separator: ".")
        }
        let plain = try PEFTAdapter.load(fixture("peft/hf-lora"), for: huggingFace).adapter
        let one = try edited("hf-lora") { tensors in
            tensors = Dictionary(uniqueKeysWithValues: tensors.map { (named($0, "default"), $1) })
        } read: {
            try PEFTAdapter.load($0, for: huggingFace).adapter
        }
        #expect(one == plain)
        try expectRefusal("two adapters, 'first' and 'second'", of: "hf-lora") { tensors in
            tensors = Dictionary(
                uniqueKeysWithValues: tensors.map {
                    (named($0, $0.contains("layers.1") ? "second" : "first"), $1)
                })
        }
        try expectRefusal("two adapters, with", of: "hf-lora") { tensors in
            let key = "base_model.model.vit.layers.0.attention.q_proj.lora_A.weight"
            tensors[named(key, "other")] = tensors[key]
        }
    }

    @Test(
        "Settings that change nothing are accepted",
        arguments: [
            ("init_lora_weights", #""gaussian""#), ("init_lora_weights", #""eva""#),
            ("init_lora_weights", #""orthogonal""#), ("init_lora_weights", #""mica""#),
            ("init_lora_weights", "false"), ("lora_dropout", "0.5"), ("fan_in_fan_out", "true"),
            ("task_type", #""FEATURE_EXTRACTION""#), ("corda_config", #"{"corda_method": "kpm"}"#),
            ("peft_version", #""0.99.0""#), ("use_dora", "null"), ("some_future_switch", "false"),
            ("some_future_table", "{}"), ("glora_note", #""ours""#),
        ])
    func settingsThatChangeNothingAreAccepted(_ key: String, _ text: String) throws {
        let value = try JSONValue(parsing: text.utf8)
        let plain = try PEFTAdapter.load(fixture("peft/lora-bias"), for: timm)
        let loaded = try edited("lora-bias", settings: [key: value]) { try PEFTAdapter.load($0, for: timm) }
        #expect(loaded.adapter == plain.adapter)
        #expect(loaded.extra == (key == "glora_note" ? [key: value] : [:]))
    }

    @Test(
        "Initialisations that change the base model are refused",
        arguments: [
            ("pissa", "pissa"), ("pissa_niter_16", "pissa_niter_16"), ("olora", "olora"), ("OLoRA", "OLoRA"),
            ("corda", "corda"), ("loftq", "loftq"), ("lora_ga", "lora_ga"),
        ])
    func initialisationsThatChangeTheBaseAreRefused(_ value: String, _ name: String) throws {
        try expectRefusal(
            "init_lora_weights = \"\(name)\" changes the base model's weights",
            settings: ["init_lora_weights": .string(value)])
    }

    @Test(
        "Settings that can't be obeyed are refused by name",
        arguments: [
            ("init_lora_weights", #""newer""#, "\"newer\" is unknown"),
            ("use_dora", "true", "use_dora = true is not supported"),
            ("use_qalora", "true", "use_qalora = true"),
            ("layer_replication", "[[0, 2]]", "layer_replication = "),
            ("target_parameters", #"["pos_embed"]"#, "target_parameters = "),
            ("trainable_token_indices", "[1]", "trainable_token_indices = "),
            ("alora_invocation_tokens", "[1]", "alora_invocation_tokens = "),
            ("kasa_config", #"{"beta": 0.1}"#, "kasa_config = "),
            ("use_bdlora", #"{"nblocks": 2}"#, "use_bdlora = "),
            ("arrow_config", #"{"top_k": 1}"#, "arrow_config = "),
            ("monteclora_config", #"{"samples": 1}"#, "monteclora_config = "),
            ("loftq_config", #"{"loftq_bits": 4}"#, "loftq_config = "),
            ("megatron_config", #"{"size": 1}"#, "megatron_config = "),
            ("some_future_number", "0", "some_future_number = 0"),
            ("bias", #""all""#, "bias \"all\" is not supported"),
            ("bias", #""lora_only""#, "bias \"lora_only\" is not supported"),
            ("lora_bias", "false", "lora_B.bias', which doesn't fit"),
            ("lora_bias", #""yes""#, "lora_bias = \"yes\" is neither true nor false"),
            ("lora_alpha", #""many""#, "lora_alpha = \"many\" is no number"),
            ("r", "3", "but the model and r = 3 need [72, 3]"),
            ("r", "0", "r = 0 is no rank"),
            ("rank_pattern", #"{"fc1": 1}"#, "has shape [36, 2], but the model and r = 1 need [36, 1]"),
            ("rank_pattern", #"{"fc1": 1.5}"#, "the rank 1.5"),
            ("alpha_pattern", #"{"(([a-z0-9.]+)+)+!|qkv": 1}"#, "in reasonable time"),
            ("exclude_modules", #""(.*.*.*.*.*.*.*.*.*.*)*x""#, "in reasonable time"),
            ("alpha_pattern", #"{"(": 1}"#, "'(' of alpha_pattern can't be read as a regular expression"),
            ("target_modules", #""(""#, "'(' of target_modules can't be read as a regular expression"),
            ("target_modules", "null", "has no target_modules"),
            (
                "target_modules", #"["fc1"]"#,
                "holds tensors of 'blocks.0.attn.qkv', which adapter_config.json doesn't name"
            ),
            ("target_modules", #"".*qkv""#, "holds tensors of 'blocks.0.mlp.fc1'"),
            ("target_modules", #""qkv|fc1""#, "holds tensors of 'blocks.0.attn.qkv'"),
            ("target_modules", #""blocks.*(qkv|fc)""#, "holds tensors of 'blocks.0.mlp.fc1'"),
            (
                "target_modules", #"["qkv", "fc1", "fc2"]"#,
                "lacks the tensors of 'blocks.0.mlp.fc2', one of its target_modules"
            ),
            ("target_modules", #"["qkv", "fc1", "head"]"#, "LoRA on the head ('head') is not supported"),
            ("target_modules", #"["qkv", "fc1", "norm"]"#, "LoRA on a LayerNorm ('norm') is not supported"),
            (
                "target_modules", #"["qkv", "fc1", "patch_embed.proj"]"#,
                "LoRA on the patch projection ('patch_embed.proj')"
            ),
            ("target_modules", #""all-linear""#, "lacks the tensors of 'blocks.0.attn.proj'"),
            ("exclude_modules", #"["fc1"]"#, "holds tensors of 'blocks.0.mlp.fc1'"),
            ("exclude_modules", #"".*fc1""#, "holds tensors of 'blocks.0.mlp.fc1'"),
            (
                "layers_to_transform", "[0]",
                "layers_to_transform can't be used when target_modules is a pattern"
            ),
            ("layers_pattern", #""blocks""#, "layers_pattern needs layers_to_transform"),
            ("modules_to_save", #"["head"]"#, "lacks the tensors of 'head', one of its modules_to_save"),
            ("modules_to_save", #"["norm"]"#, "modules_to_save names 'norm', a LayerNorm"),
            ("modules_to_save", #"["fc1"]"#, "modules_to_save names 'blocks.0.mlp.fc1', a Linear"),
        ])
    func settingsThatCantBeObeyedAreRefused(_ key: String, _ text: String, _ part: String) throws {
        try expectRefusal(part, settings: [key: JSONValue(parsing: text.utf8)])
    }

    @Test("layers_to_transform is understood as PEFT understands it")
    func layersToTransformAreFoundAsPEFTFindsThem() throws {
        let names: JSONValue = ["qkv", "fc2", "blocks.0.mlp.fc2"]
        // Without a pattern the index must follow two names, as in vit.layers.0.
        try expectRefusal(
            "holds tensors of 'blocks.1.attn.qkv'", of: "lora-layers", settings: ["layers_pattern": nil])
        try expectRefusal(
            "lacks the tensors of 'blocks.0.attn.qkv'", of: "lora-layers",
            settings: ["layers_to_transform": [0, 1], "target_modules": names])
        let one = try edited(
            "lora-layers", settings: ["layers_to_transform": 1, "layers_pattern": ["x", "blocks"]]
        ) {
            try PEFTAdapter.load($0, for: timm).adapter.layers.keys.sorted()
        }
        #expect(one == ["blocks.0.mlp.fc2", "blocks.1.attn.qkv", "blocks.1.mlp.fc2"])
    }

    @Test(
        "Tensors that can't be used are refused by name",
        arguments: [
            ("head.lora_A.weight", [2, 24], "LoRA on the head ('head') is not supported"),
            ("norm.lora_A.weight", [2, 24], "LoRA on a LayerNorm ('norm') is not supported"),
            ("blocks.0.norm1.lora_A.weight", [2, 24], "LoRA on a LayerNorm ('blocks.0.norm1')"),
            ("patch_embed.proj.lora_A.weight", [2, 3, 8, 8], "LoRA on the patch projection"),
            ("norm.weight", [24], "a LayerNorm that was trained whole"),
            ("blocks.0.mlp.fc2.weight", [24, 36], "a Linear that was trained whole"),
            ("pos_embed", [1, 5, 24], "only LoRA's matrices and the head can be loaded"),
            ("blocks.0.ls1.gamma", [24], "only LoRA's matrices and the head can be loaded"),
            ("blocks.7.attn.qkv.lora_A.weight", [2, 24], "adapts 'blocks.7.attn.qkv', which is no Linear"),
            (
                "vit.layers.0.mlp.fc1.lora_A.weight", [2, 24],
                "adapts 'vit.layers.0.mlp.fc1', which is no Linear"
            ),
            ("blocks.0.attn.qkv.lora_magnitude_vector", [72], "which doesn't fit adapter_config.json"),
            ("blocks.0.attn.qkv.lora_A.a.b.weight", [2, 24], "no tensor of PEFT's LoRA"),
            ("head.weight", [5, 24], "only half of the head"),
        ])
    func tensorsThatCantBeUsedAreRefused(_ name: String, _ shape: [Int], _ part: String) throws {
        try expectRefusal(part) { $0["base_model.model." + name] = numbers(shape) }
    }

    @Test("A classifier must be saved whole and can't be adapted")
    func theClassifierAndItsAdapterAreTheHeads() throws {
        let key = "base_model.model.classifier."
        try expectRefusal("one of its modules_to_save", of: "hf-lora") {
            ($0[key + "weight"], $0[key + "bias"]) = (nil, nil)
        }
        try expectRefusal("LoRA on the head ('classifier')", of: "hf-all-linear") {
            $0[key + "lora_A.weight"] = numbers([1, 24])
        }
        // all-linear spares a classifier of sequences, and no other.
        try expectRefusal(
            "LoRA on the head ('classifier')", of: "hf-all-linear", settings: ["modules_to_save": nil])
        let spared = try edited(
            "hf-all-linear", settings: ["modules_to_save": nil, "task_type": "SEQ_CLS"]
        ) { try PEFTAdapter.load($0, for: huggingFace).adapter.layers.count }
        #expect(spared == 8)
    }

    @Test("NaN and infinity in an adapter are named by their tensor", arguments: [Float.nan, .infinity])
    func numbersThatAreNoneAreNamed(_ value: Float) throws {
        for (name, tensor) in [
            ("lora-bias", "blocks.1.mlp.fc1.lora_B.bias"), ("hf-lora", "classifier.weight"),
            ("hf-glora-lora", "vit.layers.0.mlp.fc1.glora_C.Xd"),
        ] {
            let key = "base_model.model." + tensor
            try expectRefusal(
                "adapter_model.safetensors: tensor '\(key)' holds \(value) at element 1", of: name
            ) {
                $0[key]!.values[1] = value
            }
        }
    }

    @Test("GLoRA's adapters are checked as LoRA's are")
    func gloraIsCheckedAsLoRAIs() throws {
        let key = "base_model.model.vit.layers.0.attention.k_proj.glora_C.zeros"
        try expectRefusal("holds other numbers than zero", of: "hf-glora-constant") { $0[key]!.values[3] = 1 }
        try expectRefusal("exclude_modules = ", of: "peft-lora", settings: ["exclude_modules": ["fc1"]])
        try expectRefusal("GLoRA on the head ('head')", of: "peft-lora") {
            $0["base_model.model.head.glora_D.X"] = numbers([5])
        }
        try expectRefusal(
            "lacks the tensors of 'vit.layers.0.attention.k_proj'", of: "hf-glora-constant"
        ) { tensors in tensors = tensors.filter { !$0.key.contains("layers.0.attention.k_proj") } }
        // A model with biases has C, D and E wherever the settings say so.
        try expectRefusal("lacks the tensor 'glora_D.X'", of: "hf-glora-lora") {
            let layer = "base_model.model.vit.layers.0.mlp.fc1.glora_D."
            ($0[layer + "X"], $0[layer + "zeros"]) = (nil, HostTensor(shape: [36], repeating: 0))
        }
    }

    @Test("A pickled adapter is refused")
    func picklesAreNotRead() throws {
        try withTemporaryFolder { folder in
            try FileManager.default.copyItem(
                at: fixture("peft/hf-lora/adapter_config.json"),
                to: folder.appendingPathComponent("adapter_config.json"))
            try AtomicFile.write("", to: folder.appendingPathComponent("adapter_model.bin"))
            expectError("adapter_model.bin is a pickle") {
                _ = try PEFTAdapter.load(folder, for: huggingFace)
            }
        }
    }
}
