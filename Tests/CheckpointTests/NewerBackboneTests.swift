import Foundation
import ModelConfiguration
import TensorCore
import Testing

@testable import Checkpoints

@Suite("Newer backbones in the files of timm and Hugging Face")
struct NewerBackboneTests {
    /// A model with numbers everywhere, of 16 patches and 4 heads of 8.
    private func checkpoint(_ name: String? = nil, change: (inout ViTConfiguration) -> Void) throws
        -> ViTCheckpoint
    {
        var configuration = ViTConfiguration(
            imageSize: 16, patchSize: 4, width: 32, depth: 2, heads: 4, hiddenWidth: 64, classCount: 3)
        change(&configuration)
        if configuration.pooling == .attention { configuration.poolingHeads = configuration.heads }
        var tensors: [String: HostTensor] = [:]
        for (seed, (name, shape)) in configuration.tensorShapes.sorted(by: { $0.key < $1.key }).enumerated() {
            tensors[name] = numbers(shape, seed: seed + 1)
        }
        if configuration.queries == .fused, configuration.queryBias == .withoutKeys {
            for block in 0..<2 {
                tensors["blocks.\(block).attn.qkv.bias"]!.values
                    .replaceSubrange(32..<64, with: [Float](repeating: 0, count: 32))
            }
        }
        var checkpoint = try ViTCheckpoint(configuration: configuration, tensors: tensors)
        checkpoint.timmName = name
        return checkpoint
    }

    @Test(
        "Norms of queries and keys that config.json doesn't ask for are refused; a class of Hugging Face's hasn't them"
    )
    func queryKeyNorm() throws {
        let model = try checkpoint("vit_base_patch16_224") { $0.queryKeyNorm = true }
        try withTemporaryFolder { folder in
            let url = folder.appendingPathComponent("model")
            try model.saveTimm(to: url)
            let config = url.appendingPathComponent("config.json")
            let text = try String(contentsOf: config, encoding: .utf8)
            let mark = try #require(text.range(of: "\"qk_norm\": true"))
            try AtomicFile.write(
                text.replacingCharacters(in: mark, with: "\"qk_norm\": false"), to: config)
            expectError("model_args don't say qk_norm = true") { _ = try ViTCheckpoint.load(url) }
            expectError("norms of its queries and keys") {
                try model.saveHuggingFace(to: folder.appendingPathComponent("other"))
            }
        }
    }

    /// timm's names, each with what it means and no tensor shows.
    @Test(
        "timm's are read as they were written",
        arguments: [
            "vit_small_patch14_reg4_dinov2", "vit_base_patch16_clip_quickgelu_224",
            "vit_base_patch16_siglip_224",
            "deit3_small_patch16_224", "deit_tiny_distilled_patch16_224", "eva02_base_patch14_448",
            "eva02_small_patch14_224", "vit_small_patch16_dinov3", "vit_giant_patch14_dinov2",
            "vit_base_patch16_radio_v3", "vit_base_patch16_224",
        ])
    func timm(name: String) throws {
        let settings = try #require(TimmArchitectures.known[name])
        let written = try checkpoint(name) {
            $0.layerNormEpsilon = settings.epsilon
            ($0.rotary, $0.positions) = (settings.rotary, settings.positions)
            $0.feedForward = .plain(settings.activation)
            switch name {
            case "vit_small_patch14_reg4_dinov2": ($0.layerScale, $0.registers) = (true, 4)
            case "vit_base_patch16_clip_quickgelu_224": ($0.normBeforeBlocks, $0.patchBias) = (true, false)
            case "vit_base_patch16_siglip_224": ($0.hasClassToken, $0.pooling) = (false, .attention)
            case "deit3_small_patch16_224": $0.layerScale = true
            case "deit_tiny_distilled_patch16_224":
                ($0.registers, $0.pooling) = (1, .classTokenAndSecond)
            case "eva02_base_patch14_448":
                ($0.queries, $0.queryBias, $0.pooling) = (.separate, .withoutKeys, .meanBeforeNorm)
                $0.feedForward = .gated(.silu, isPacked: false, hasNorm: true)
            case "eva02_small_patch14_224":
                ($0.queryBias, $0.pooling) = (.withoutKeys, .meanBeforeNorm)
                $0.feedForward = .gated(.silu, isPacked: true, hasNorm: false)
            case "vit_small_patch16_dinov3":
                ($0.layerScale, $0.registers, $0.queryBias) = (true, 4, .none)
                $0.pooling = .meanAfterNorm
            case "vit_giant_patch14_dinov2":
                $0.layerScale = true
                $0.feedForward = .gated(.silu, isPacked: true, hasNorm: false)
            // Norms of queries and keys by the argument: no name means them that is read here.
            case "vit_base_patch16_224": $0.queryKeyNorm = true
            default: ($0.registers, $0.pooling) = (7, .classTokenBeforeNorm)
            }
        }
        try withTemporaryFolder { folder in
            let url = folder.appendingPathComponent("model")
            try written.saveTimm(to: url)
            let read = try ViTCheckpoint.load(url)
            #expect(read.configuration == written.configuration)
            #expect(read.tensors == written.tensors)
            #expect(read.timmName == name && read.notes == [])
        }
    }

    @Test("A bias of the keys that timm has no place for is refused where it counts")
    func keyBias() throws {
        var rotated = try checkpoint("vit_small_patch16_dinov3_qkvb") {
            ($0.layerScale, $0.registers, $0.queryBias, $0.pooling) = (true, 4, .withoutKeys, .meanAfterNorm)
            ($0.rotary, $0.positions) = (TimmArchitectures.known["vit_small_patch16_dinov3"]!.rotary, .none)
        }
        try withTemporaryFolder { folder in
            try rotated.saveTimm(to: folder.appendingPathComponent("a"))
            rotated.tensors["blocks.1.attn.qkv.bias"]!.values[40] = 1
            expectError("the keys of 'blocks.1.attn.qkv.bias' have a bias") {
                try rotated.saveTimm(to: folder.appendingPathComponent("b"))
            }
        }
    }

    @Test(
        "Hugging Face's are read as they were written",
        arguments: [
            "deit", "deit with teacher", "dinov2", "dinov2_with_registers", "clip", "siglip", "dinov2 gated",
        ])
    func huggingFace(type: String) throws {
        let written = try checkpoint {
            switch type {
            case "deit": $0.registers = 1
            case "deit with teacher": ($0.registers, $0.pooling) = (1, .classTokenAndSecond)
            case "dinov2": ($0.layerScale, $0.pooling) = (true, .classTokenAndMean)
            case "dinov2 gated":
                ($0.layerScale, $0.pooling) = (true, .classTokenAndMean)
                ($0.hiddenWidth, $0.feedForward) = (88, .gated(.silu, isPacked: true, hasNorm: false))
            case "dinov2_with_registers":
                ($0.layerScale, $0.pooling) = (true, .classTokenAndMean)
                ($0.registers, $0.positions) = (4, .patches)
            case "clip":
                ($0.normBeforeBlocks, $0.patchBias, $0.pooling) = (true, false, .mean)
                ($0.feedForward, $0.layerNormEpsilon) = (.plain(.quickGELU), 1e-5)
            default:
                ($0.hasClassToken, $0.pooling) = (false, .meanAfterNorm)
                $0.feedForward = .plain(.geluTanh)
            }
        }
        try withTemporaryFolder { folder in
            let url = folder.appendingPathComponent("model")
            try written.saveHuggingFace(to: url)
            let config = try JSONValue(contentsOf: url.appendingPathComponent("config.json"))
            #expect(config["model_type"]?.stringValue == type.split(separator: " ").first.map(String.init))
            let read = try ViTCheckpoint.load(url)
            #expect(read.configuration == written.configuration)
            #expect(read.tensors == written.tensors)
            #expect(
                read.resizing == (type.hasPrefix("dinov2_with") ? .antialiased : .sampled))
            // timm's form can't say what these heads read.
            if ["dinov2", "clip"].contains(type) {
                expectError("timm's head can't read") {
                    try read.saveTimm(to: folder.appendingPathComponent("timm"))
                }
            }
        }
    }

    /// torch 2.15's F.interpolate(size=(3, 3), mode="bicubic", align_corners=False, antialias=False) of the grid i² + 3j + ij mod 3.
    @Test("DINOv2's positions are resized without antialias, as transformers does")
    func sampledPositions() throws {
        var checkpoint = try checkpoint { $0.layerScale = true }
        let grid = (0..<16).map { place -> Float in
            let (i, j) = (place / 4, place % 4)
            return Float(i * i + 3 * j + i * j % 3)
        }
        let token = [Float](repeating: 9, count: 32)
        var positions = token
        for value in grid { positions += (0..<32).map { value * Float($0) } }
        checkpoint.tensors["pos_embed"]!.values = positions
        let truth: [Double] = [
            0.48491859436035156, 4.847078323364258, 8.759746551513672, 2.7591147422790527, 8.740234375,
            11.00217342376709, 8.759745597839355, 13.09013557434082, 16.971036911010742,
        ]
        for resizing in [PositionResizing.sampled, .antialiased] {
            checkpoint.resizing = resizing
            let resized = try checkpoint.interpolated(toImageSize: 12).tensors["pos_embed"]!.values
            #expect(Array(resized[..<32]) == token)
            for (place, truth) in truth.enumerated() {
                let error = abs(Double(resized[32 * (place + 1) + 2]) - 2 * truth)
                #expect((error < 5e-5) == (resizing == .sampled), "\(resizing) at \(place): \(error)")
            }
        }
    }

    /// transformers adds it to the class token alone; timm's file has it in the class token.
    @Test("The class token's position of a DINOv2 with registers is a part of the token")
    func positionOfTheClassToken() throws {
        let written = try checkpoint {
            ($0.layerScale, $0.pooling, $0.classCount) = (true, .classTokenAndMean, 0)
            ($0.registers, $0.positions) = (4, .patches)
        }
        try withTemporaryFolder { folder in
            try written.saveHuggingFace(to: folder)
            let url = folder.appendingPathComponent("model.safetensors")
            let file = try SafetensorsFile(url)
            var tensors: [String: HostTensor] = [:]
            for name in file.names { tensors[name] = try file.tensor(name) }
            for index in 0..<32 { tensors["embeddings.position_embeddings"]!.values[index] = Float(index) }
            try writeSafetensors(tensors, to: url, metadata: ["format": "pt"])
            let read = try ViTCheckpoint.load(folder)
            let expected = written.tensors["cls_token"]!.values.enumerated().map { $1 + Float($0) }
            #expect(read.tensors["cls_token"]?.values == expected)
            #expect(read.tensors["pos_embed"] == written.tensors["pos_embed"])
        }
    }

    /// As in facebook/dinov2-base: positions for 518 pixels, and a processor that makes 224. Another size begins from the 518.
    @Test("DINOv2's processor says for which images it is")
    func preparedSize() throws {
        let written = try checkpoint { ($0.layerScale, $0.pooling) = (true, .classTokenAndMean) }
        try withTemporaryFolder { folder in
            try written.saveHuggingFace(to: folder)
            try AtomicFile.write(
                """
                {"image_processor_type": "BitImageProcessor", "size": {"shortest_edge": 10}, "do_center_crop": true,
                 "crop_size": {"height": 8, "width": 8}, "resample": 3}
                """, to: folder.appendingPathComponent("preprocessor_config.json"))
            let read = try ViTCheckpoint.load(folder)
            #expect(read.configuration.imageSize == 16 && read.preparedSize == 8)
            let small = try read.interpolated(toImageSize: 8)
            #expect(small.configuration.preprocessing.side == 10 && small.preparedSize == nil)
            #expect(small.tensors["pos_embed"]?.shape == [1, 5, 32])
        }
        // A model that takes its own size alone can't be told another.
        let clip = try checkpoint {
            ($0.normBeforeBlocks, $0.patchBias, $0.pooling) = (true, false, .mean)
            ($0.feedForward, $0.layerNormEpsilon) = (.plain(.quickGELU), 1e-5)
        }
        try withTemporaryFolder { folder in
            try clip.saveHuggingFace(to: folder)
            try AtomicFile.write(
                """
                {"image_processor_type": "CLIPImageProcessor", "size": {"shortest_edge": 8}, "do_center_crop": true,
                 "crop_size": {"height": 8, "width": 8}}
                """, to: folder.appendingPathComponent("preprocessor_config.json"))
            expectError("makes images of 8 × 8 pixels, but the model takes 16 × 16") {
                _ = try ViTCheckpoint.load(folder)
            }
        }
    }

    /// Hugging Face has no head for it: a model that got one here is written in timm's form.
    @Test("DINOv3 is read from Hugging Face and written to both", arguments: [false, true])
    func dinov3(isGated: Bool) throws {
        let written = try checkpoint {
            ($0.layerScale, $0.registers, $0.queryBias, $0.classCount) = (true, 4, .withoutKeys, 0)
            ($0.positions, $0.layerNormEpsilon) = (.none, 1e-5)
            $0.rotary = RotaryGrid(temperature: 100, layout: .halves, coordinates: .centered)
            if isGated { $0.feedForward = .gated(.silu, isPacked: false, hasNorm: false) }
        }
        try withTemporaryFolder { folder in
            let url = folder.appendingPathComponent("hf")
            try written.saveHuggingFace(to: url)
            let read = try ViTCheckpoint.load(url)
            #expect(read.configuration == written.configuration && read.tensors == written.tensors)
            let scored = read.withHead(weight: numbers([3, 32]), bias: numbers([3]))
            expectError("no class with a head on DINOv3") { try scored.saveHuggingFace(to: url) }
            let timm = folder.appendingPathComponent("timm")
            try scored.saveTimm(to: timm)
            let again = try ViTCheckpoint.load(timm)
            #expect(again.configuration == scored.configuration && again.tensors == scored.tensors)
        }
    }

    /// In transformers 5 the blocks are `model.layer.0`; and no registers, the configuration's default, are a tensor [1, 0, D].
    @Test("DINOv3 is read in the names that transformers has in memory, and without registers")
    func dinov3InMemory() throws {
        let written = try checkpoint {
            ($0.layerScale, $0.queryBias, $0.classCount) = (true, .withoutKeys, 0)
            ($0.positions, $0.layerNormEpsilon) = (.none, 1e-5)
            $0.rotary = RotaryGrid(temperature: 100, layout: .halves, coordinates: .centered)
        }
        try withTemporaryFolder { folder in
            try written.saveHuggingFace(to: folder)
            let url = folder.appendingPathComponent("model.safetensors")
            let file = try SafetensorsFile(url)
            var tensors: [String: HostTensor] = [:]
            for name in file.names {
                tensors[(name.hasPrefix("layer.") ? "model." : "") + name] = try file.tensor(name)
            }
            tensors["embeddings.register_tokens"] = HostTensor(shape: [1, 0, 32], values: [])
            try writeSafetensors(tensors, to: url, metadata: ["format": "pt"])
            let read = try ViTCheckpoint.load(folder)
            #expect(read.configuration == written.configuration && read.tensors == written.tensors)
        }
    }

    /// `interpolate_pos_encoding` of transformers 5.24: an antialias in Dinov2WithRegisters alone.
    @Test("Positions are resized as the class in transformers does")
    func resizingOfClasses() throws {
        let changes: [(PositionResizing, (inout ViTConfiguration) -> Void)] = [
            (.sampled, { $0.pooling = .classToken }),
            (.sampled, { ($0.layerScale, $0.pooling) = (true, .classTokenAndMean) }),
            (.sampled, { ($0.hasClassToken, $0.pooling) = (false, .meanAfterNorm) }),
            (.sampled, { ($0.normBeforeBlocks, $0.patchBias, $0.pooling) = (true, false, .mean) }),
            (
                .antialiased,
                {
                    ($0.layerScale, $0.pooling, $0.registers) = (true, .classTokenAndMean, 4)
                    $0.positions = .patches
                }
            ),
        ]
        for (resizing, change) in changes {
            let model = try checkpoint(change: change)
            try withTemporaryFolder { folder in
                try model.saveHuggingFace(to: folder)
                #expect(try ViTCheckpoint.load(folder).resizing == resizing)
            }
        }
    }

    /// What a class of transformers declares, whether it reads it or not: without it transformers says that weights are missing.
    @Test("Hugging Face's folders hold what the class declares")
    func declared() throws {
        let clip = try checkpoint { ($0.normBeforeBlocks, $0.patchBias, $0.pooling) = (true, false, .mean) }
        let dinov2 = try checkpoint { ($0.layerScale, $0.pooling) = (true, .classTokenAndMean) }
        let registers = try checkpoint {
            ($0.layerScale, $0.pooling, $0.registers) = (true, .classTokenAndMean, 4)
            $0.positions = .patches
        }
        try withTemporaryFolder { folder in
            func file() throws -> SafetensorsFile {
                try SafetensorsFile(folder.appendingPathComponent("model.safetensors"))
            }
            try clip.saveHuggingFace(to: folder)
            #expect(try file().shape(of: "vision_model.post_layernorm.weight") == [32])
            #expect(try file().shape(of: "vision_model.post_layernorm.bias") == [32])
            try registers.saveHuggingFace(to: folder)
            #expect(try file().shape(of: "dinov2_with_registers.embeddings.mask_token") == [1, 32])
            try dinov2.saveHuggingFace(to: folder)
            let config = try JSONValue(contentsOf: folder.appendingPathComponent("config.json"))
            #expect(config["use_mask_token"] == false)
            #expect(try file().shape(of: "dinov2.embeddings.mask_token") == nil)
        }
    }

    /// Of these tensors alone nobody knows whether queries are rotated, or which GELU it is.
    @Test("Parts that only a name explains are refused without one")
    func namelessParts() throws {
        let eva = try checkpoint("eva02_base_patch14_448") {
            ($0.queries, $0.queryBias, $0.pooling) = (.separate, .withoutKeys, .meanBeforeNorm)
            $0.feedForward = .gated(.silu, isPacked: false, hasNorm: true)
            $0.rotary = TimmArchitectures.known["eva02_base_patch14_448"]!.rotary
        }
        let clip = try checkpoint("vit_base_patch16_clip_224") {
            ($0.normBeforeBlocks, $0.patchBias, $0.layerNormEpsilon) = (true, false, 1e-5)
        }
        for (model, part) in [(eva, "q_proj"), (clip, "norm_pre")] {
            try withTemporaryFolder { folder in
                try model.saveTimm(to: folder)
                let url = folder.appendingPathComponent("config.json")
                let text = try String(contentsOf: url, encoding: .utf8)
                try AtomicFile.write(
                    text.replacingOccurrences(of: model.timmName!, with: "vision_transformer"), to: url)
                expectError(
                    "\(part).weight', and config.json's architecture 'vision_transformer' isn't known"
                ) {
                    _ = try ViTCheckpoint.load(folder)
                }
                try FileManager.default.removeItem(at: url)
                expectError("\(part).weight', and there is no config.json") {
                    _ = try ViTCheckpoint.load(folder, heads: 4)
                }
            }
        }
    }

    /// Arguments that take away what a name means, though they are off or a plain ViT's.
    @Test(
        "Arguments that change what a name means are obeyed or refused",
        arguments: [
            ("vit_small_patch16_dinov3", "\"use_rot_pos_emb\": false", "use_rot_pos_emb = false"),
            ("vit_small_patch16_dinov3", "\"act_layer\": \"relu\"", "which timm's EVA doesn't obey"),
            ("vit_base_patch16_clip_224", "\"final_norm\": false", "final_norm = false"),
            ("vit_base_patch16_clip_224", "\"norm_layer\": \"rmsnorm\"", "norm_layer = \"rmsnorm\""),
            ("vit_base_patch16_clip_224", "\"norm_layer\": \"layernorm\"", ""),
        ])
    func arguments(name: String, argument: String, part: String) throws {
        let model = try checkpoint(name) {
            if name.contains("clip") {
                ($0.normBeforeBlocks, $0.patchBias) = (true, false)
            } else {
                ($0.layerScale, $0.registers, $0.queryBias) = (true, 4, .none)
                ($0.pooling, $0.positions) = (.meanAfterNorm, .none)
                $0.rotary = TimmArchitectures.known[name]!.rotary
            }
            $0.layerNormEpsilon = 1e-5
        }
        try withTemporaryFolder { folder in
            try model.saveTimm(to: folder)
            let url = folder.appendingPathComponent("config.json")
            let text = try String(contentsOf: url, encoding: .utf8)
            let changed = text.replacingOccurrences(of: "\"num_heads\"", with: "\(argument), \"num_heads\"")
            try #require(changed != text)
            try AtomicFile.write(changed, to: url)
            guard part.isEmpty else { return expectError(part) { _ = try ViTCheckpoint.load(folder) } }
            // timm's own LayerNorm in the place of the name's.
            #expect(try ViTCheckpoint.load(folder).configuration.layerNormEpsilon == 1e-6)
        }
    }

    @Test("What is written are names of activations that the other library knows")
    func activationNames() throws {
        let model = try checkpoint { ($0.pooling, $0.feedForward) = (.classToken, .plain(.geluTanh)) }
        try withTemporaryFolder { folder in
            try model.saveTimm(to: folder)
            let url = folder.appendingPathComponent("config.json")
            #expect(try JSONValue(contentsOf: url)["model_args"]?["act_layer"]?.stringValue == "gelu_tanh")
            try model.saveHuggingFace(to: folder)
            #expect(try JSONValue(contentsOf: url)["hidden_act"]?.stringValue == "gelu_pytorch_tanh")
        }
    }

    @Test("A key beside the halves of a CLIP that nobody knows is refused")
    func keysBesideTheHalves() throws {
        let clip = try checkpoint {
            ($0.normBeforeBlocks, $0.patchBias, $0.pooling) = (true, false, .mean)
            ($0.feedForward, $0.layerNormEpsilon) = (.plain(.quickGELU), 1e-5)
        }
        try withTemporaryFolder { folder in
            try clip.saveHuggingFace(to: folder)
            let url = folder.appendingPathComponent("config.json")
            let text = try String(contentsOf: url, encoding: .utf8)
            try AtomicFile.write(
                text.replacingOccurrences(
                    of: "\"vision_config\"", with: "\"vision_feature_layer\": -2, \"vision_config\""), to: url
            )
            expectError("vision_feature_layer = -2 is not known") { _ = try ViTCheckpoint.load(folder) }
        }
    }

    @Test("Architectures that nobody knows are refused unless model_args say everything")
    func unknownNames() throws {
        let plain = try checkpoint { _ in }
        try withTemporaryFolder { folder in
            try plain.saveTimm(to: folder)
            let url = folder.appendingPathComponent("config.json")
            let text = try String(contentsOf: url, encoding: .utf8)
                .replacingOccurrences(of: "vit_base_patch16_224", with: "vit_unheard_of")
            try AtomicFile.write(text, to: url)
            expectError("'vit_unheard_of' isn't known, and its model_args don't say act_layer, norm_layer") {
                _ = try ViTCheckpoint.load(folder)
            }
            try AtomicFile.write(
                text.replacingOccurrences(
                    of: "\"num_heads\"",
                    with: "\"act_layer\": \"gelu_tanh\", \"norm_layer\": \"layernorm\", \"num_heads\""),
                to: url)
            #expect(try ViTCheckpoint.load(folder).configuration.feedForward == .plain(.geluTanh))
        }
    }
}
