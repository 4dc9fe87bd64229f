import Foundation
import TensorCore
import Testing

@testable import Checkpoints

@Suite("What names of architectures, tensors and files mean")
struct NamesOfModelsTests {
    /// The timm fixture with other tensors and a changed config.json, read.
    func load(
        _ tensors: (inout [String: HostTensor]) -> Void = { _ in }, replacing old: String = "",
        by new: String = ""
    ) throws -> ViTCheckpoint {
        try withTemporaryFolder { folder in
            var changed = try ViTCheckpoint.load(fixture("timm")).tensors
            tensors(&changed)
            try writeSafetensors(changed, to: folder.appendingPathComponent("model.safetensors"))
            var text = try String(contentsOf: fixture("timm/config.json"), encoding: .utf8)
            if !old.isEmpty {
                try #require(text.contains(old))
                text = text.replacingOccurrences(of: old, with: new)
            }
            try AtomicFile.write(text, to: folder.appendingPathComponent("config.json"))
            return try ViTCheckpoint.load(folder)
        }
    }

    // MARK: Architectures

    /// What timm 1.0.31 builds under these names computes something else from the same tensors.
    @Test(
        "Architectures that compute something else are refused",
        arguments: [
            ("vit_base_patch16_rpn_224.sw_in1k", "puts each LayerNorm behind"),
            ("vit_base_patch16_xp_224", "runs attention and MLP in parallel"),
            ("beit_base_patch16_224", "relative positions"),
            ("vit_base_patch16_sapiens2", "keys and values among heads"),
            ("vit_small_patch16_rope_mixed_224", "rotary positions that are learned"),
        ])
    func architecturesOfOtherFunctionsAreRefused(_ name: String, _ part: String) {
        expectError(part) { _ = try load(replacing: "vision_transformer", by: name) }
    }

    @Test("Known architectures need no note")
    func knownArchitecturesNeedNoNote() throws {
        for name in [
            "vit_tiny_patch16_224.augreg_in21k", "vit_base_patch16_224_miil", "deit_small_patch16_224",
        ] {
            #expect(try load(replacing: "vision_transformer", by: name).notes == [])
        }
        let unknown = try load()
        #expect(unknown.notes.count == 1)
        #expect(unknown.notes[0].contains("'vision_transformer' isn't known"))
    }

    /// timm's own heads: of 64 columns each, but for the largest models and vit_base_patch16_gap_224.
    @Test("The table has timm's heads and pooling")
    func theTableHasTimmsHeadsAndPooling() throws {
        let table = TimmArchitectures.known
        #expect(table["vit_base_patch16_224"]?.heads == 12)
        #expect(table["vit_base_patch16_gap_224"]?.heads == 16)
        #expect(table["vit_base_patch16_gap_224"]?.pooling == "avg")
        #expect(table["vit_giant_patch14_224"]?.heads == 16)
        #expect(table["vit_so400m_patch14_siglip_gap_384"]?.heads == 16)
        #expect(table["eva_large_patch14_196"]?.pooling == "avg")
        #expect(table["vit_so400m_patch16_siglip_gap_256"]?.activation == .geluTanh)
        #expect(table["vit_base_patch32_clip_quickgelu_224"]?.activation == .quickGELU)
        #expect(table["vit_base_patch16_clip_224"]?.epsilon == 1e-5)
        #expect(table["flexivit_base"]?.positions == .patches)
        #expect(table["vit_base_patch16_rpn_224"] == nil)
    }

    @Test("A number of heads that no file tells is asked for")
    func headsThatNothingTellsAreAskedFor() throws {
        expectError("doesn't tell the number of heads of 'vision_transformer'") {
            _ = try load(replacing: "\"num_heads\": 2,", by: "")
        }
    }

    // MARK: Pooling

    @Test("An empty pooling leaves the head out")
    func anEmptyPoolingLeavesTheHeadOut() throws {
        let whole = try load()
        let text = "\"global_pool\": \"token\""
        let headless = try load(replacing: text, by: "\"global_pool\": \"\"")
        #expect(headless.tensors == whole.withoutHead().tensors)
        #expect(headless.configuration.pooling == .classToken)
        #expect(
            headless.notes.contains { $0.contains("the head, which would classify every token, is left out") }
        )
        let backbone = try load(
            {
                $0["head.weight"] = nil
                $0["head.bias"] = nil
            }, replacing: text, by: "\"global_pool\": \"\"")
        #expect(backbone.tensors == headless.tensors)
        #expect(backbone.notes.contains("global_pool is empty: 'token' is read"))
    }

    /// timm takes the word at the top for information: what the name means is what it builds.
    @Test("A pooling that the architecture's name contradicts is refused")
    func aPoolingThatTheNameContradictsIsRefused() throws {
        func stated(_ pooling: String) throws -> ViTCheckpoint {
            try load(
                replacing:
                    "\"architecture\": \"vision_transformer\",\n  \"num_classes\": 5,\n  \"num_features\": 24,\n"
                    + "  \"global_pool\": \"token\",",
                by: "\"architecture\": \"vit_base_patch16_224\", \"global_pool\": \"\(pooling)\",")
        }
        #expect(try stated("token").configuration.pooling == .classToken)
        expectError("reads 'token' unless model_args say otherwise") { _ = try stated("avg") }
    }

    // MARK: Prefixes

    @Test(
        "Wrappers' prefixes are taken off",
        arguments: ["module.", "_orig_mod.", "_orig_mod.module.", "module._orig_mod.", "model.", "a.b."])
    func prefixesOfWrappersAreTakenOff(_ prefix: String) throws {
        let plain = try load()
        let wrapped = try load { tensors in
            tensors = Dictionary(uniqueKeysWithValues: tensors.map { (prefix + $0, $1) })
        }
        #expect(wrapped.tensors == plain.tensors)
        #expect(wrapped.configuration == plain.configuration)
        #expect(wrapped.notes.count == plain.notes.count + 1)
        #expect(
            wrapped.notes[0].contains(
                prefix.hasPrefix("a") ? "'a.b.'" : "'\(prefix.split(separator: ".")[0]).'"))
    }

    /// Single blocks are compiled or wrapped too; torch's AveragedModel counts beside the model.
    @Test(
        "Wrappers' words within names are taken off",
        arguments: ["_orig_mod", "_checkpoint_wrapped_module", "_fsdp_wrapped_module", "module"])
    func wrappersWithinNamesAreTakenOff(_ wrapper: String) throws {
        let wrapped = try load { tensors in
            tensors = Dictionary(
                uniqueKeysWithValues: tensors.map { name, tensor in
                    let name = name.replacingOccurrences(of: "blocks.1.", with: "blocks.1.\(wrapper).")
                    return ("module." + name, tensor)
                })
            tensors["n_averaged"] = HostTensor(shape: [], values: [3])
        }
        #expect(wrapped.tensors == (try load().tensors))
        #expect(wrapped.notes[0].contains("'\(wrapper).'"), "\(wrapped.notes)")
    }

    @Test("Hugging Face's own prefix stays where a wrapper's is taken off")
    func huggingFacesOwnPrefixStays() throws {
        try withTemporaryFolder { folder in
            for name in ["config.json", "preprocessor_config.json"] {
                try FileManager.default.copyItem(
                    at: fixture("huggingface/" + name), to: folder.appendingPathComponent(name))
            }
            let file = try SafetensorsFile(fixture("huggingface/model.safetensors"))
            let tensors = try file.names.map { ("model." + $0, try file.tensor($0)) }
            try writeSafetensors(
                Dictionary(uniqueKeysWithValues: tensors),
                to: folder.appendingPathComponent("model.safetensors"))
            let (read, plain) = (
                try ViTCheckpoint.load(folder), try ViTCheckpoint.load(fixture("huggingface"))
            )
            #expect(read.tensors == plain.tensors)
            #expect(read.notes == ["the prefix 'model.' is left out of the tensors' names"])
        }
    }

    @Test("A model beside other tensors is refused by its prefix")
    func aModelBesideOthersIsRefusedByItsPrefix() {
        expectError("a vision transformer under 'encoder.' and, beside it, 'head.bias' and 1 more") {
            _ = try load { tensors in
                tensors = Dictionary(
                    uniqueKeysWithValues: tensors.map { ($0.hasPrefix("head") ? $0 : "encoder." + $0, $1) })
            }
        }
        expectError("twice") { _ = try load { $0["module.norm.bias"] = numbers([24]) } }
    }

    // MARK: Leaves

    @Test("What only pretraining uses is left out")
    func whatOnlyPretrainingUsesIsLeftOut() throws {
        let plain = try load()
        let autoencoder = try load {
            $0["mask_token"] = numbers([1, 1, 12])
            $0["decoder_pos_embed"] = numbers([1, 5, 12])
            $0["decoder_blocks.0.attn.qkv.weight"] = numbers([36, 12])
        }
        #expect(autoencoder.tensors == plain.tensors)
        #expect(
            autoencoder.notes.contains(
                "left out, as only pretraining uses them: 'decoder_blocks.0.attn.qkv.weight' and 2 more"))
    }

    @Test("NaN and infinity are refused by their tensor", arguments: [Float.nan, .infinity, -.infinity])
    func numbersThatArentAreRefusedByTheirTensor(_ value: Float) {
        expectError("'blocks.1.mlp.fc1.weight' holds \(value) at element 7 and 1 more such values") {
            _ = try load {
                var values = $0["blocks.1.mlp.fc1.weight"]!.values
                (values[7], values[800]) = (value, value)
                $0["blocks.1.mlp.fc1.weight"] = HostTensor(shape: [36, 24], values: values)
            }
        }
    }

    @Test("Rectangular patches and images are refused")
    func rectanglesAreRefused() {
        expectError("patches of 8 × 4 pixels") {
            _ = try load { $0["patch_embed.proj.weight"] = numbers([24, 3, 8, 4]) }
        }
        // 1 × 4 patches of 8 × 8 are as many as 2 × 2.
        expectError("img_size = [8, 32], but the tensors say 16") {
            _ = try load(replacing: "\"img_size\": 16", by: "\"img_size\": [8, 32]")
        }
    }

    // MARK: Pickles

    @Test("Pickles are refused with a way out")
    func picklesAreRefusedWithAWayOut() throws {
        try withTemporaryFolder { folder in
            let archive = NPZTests.zip([NPZTests.Member(name: "archive/data.pkl", data: [0x80, 2])])
            for (name, bytes) in [
                ("model.pth", archive), ("weights", archive), ("old", [0x80, 2, 0x8A]), ("x.bin", [UInt8(1)]),
            ] {
                let url = folder.appendingPathComponent(name)
                try AtomicFile.write(bytes, to: url)
                expectError("torch.load('\(name)'") { _ = try ViTCheckpoint.load(url) }
            }
            expectError("model.pth is a pickle") { _ = try ViTCheckpoint.load(folder) }
        }
    }

    // MARK: Hugging Face's configuration

    @Test(
        "Unknown keys that may change the function are refused",
        arguments: [
            ("\"pooler_act\": \"tanh\"", "\"pruned_heads\": {\"0\": [1]}", "pruned_heads"),
            ("\"pooler_act\": \"tanh\"", "\"use_rotary\": true", "use_rotary = true is not known"),
            ("\"qkv_bias\": true", "\"qkv_bias\": false", "qkv_bias = false, but the tensors say true"),
            ("ViTForImageClassification", "ViTHybridModel", "architecture ViTHybridModel"),
            ("\"image_size\": 16", "\"image_size\": [8, 32]", "image_size = [8, 32], but the tensors say 16"),
            ("\"pooler_act\": \"tanh\"", "\"top_k\": 50, \"is_decoder\": false", nil),
        ])
    func keysThatMayChangeTheFunctionAreRefused(_ old: String, _ new: String, _ part: String?) throws {
        try withTemporaryFolder { folder in
            let hf = folder.appendingPathComponent("hf")
            try FileManager.default.copyItem(at: fixture("huggingface"), to: hf)
            let config = hf.appendingPathComponent("config.json")
            let text = try String(contentsOf: config, encoding: .utf8)
            try #require(text.contains(old))
            try AtomicFile.write(text.replacingOccurrences(of: old, with: new), to: config)
            guard let part else { return #expect(try ViTCheckpoint.load(hf).notes == []) }
            expectError(part) { _ = try ViTCheckpoint.load(hf) }
        }
    }

    @Test("A head for several labels or for values is known; one for what transformers doesn't know is noted")
    func problemTypes() throws {
        try withTemporaryFolder { folder in
            let hf = folder.appendingPathComponent("hf")
            try FileManager.default.copyItem(at: fixture("huggingface"), to: hf)
            let config = hf.appendingPathComponent("config.json")
            let text = try String(contentsOf: config, encoding: .utf8)
            func load(_ problem: String) throws -> ViTCheckpoint {
                let new = text.replacing(
                    "\"pooler_act\"", with: "\"problem_type\": \"\(problem)\", \"pooler_act\"")
                try AtomicFile.write(new, to: config)
                return try ViTCheckpoint.load(hf)
            }
            for problem in ["multi_label_classification", "regression"] {
                let checkpoint = try load(problem)
                #expect(checkpoint.problemType == problem && checkpoint.notes.isEmpty)
            }
            #expect(try load("single_label_classification").problemType == nil)
            #expect(try load("ranking").notes.first?.contains("problem_type is ranking") == true)
        }
    }
}
