import Datasets
import Foundation
import ModelConfiguration
import TensorCore
import TestSupport
import Testing

@testable import Checkpoints

@Suite("Checkpoints of every format give their own tool's numbers")
struct ViTCheckpointTests {
    /// Inputs [2, 3, 16, 16].
    let x = try! SafetensorsFile(fixture("inputs.safetensors")).tensor("x")

    @Test(
        "Logits are those of the tool that the format belongs to",
        arguments: ["timm", "timm-mean", "huggingface", "google"])
    func logitsAreTheTools(_ name: String) throws {
        let checkpoint = try ViTCheckpoint.load(fixture(name == "google" ? "google.npz" : name))
        expectClose(try expected(name).values, referenceLogits(checkpoint, x), name)
    }

    @Test("The configuration is read, not assumed")
    func configurationIsReadNotAssumed() throws {
        let timm = try ViTCheckpoint.load(fixture("timm")).configuration
        var expected = ViTConfiguration(
            imageSize: 16, patchSize: 8, width: 24, depth: 2, heads: 2, hiddenWidth: 36, classCount: 5)
        expected.layerNormEpsilon = 1e-5
        let (mean, std): ([Float], [Float]) = ([0.4, 0.45, 0.5], [0.2, 0.25, 0.3])
        // The files name no filter and no crop: timm's defaults and transformers'.
        expected.preprocessing = Preprocessing(resize: .shorterSide, side: 16 / 0.875, mean: mean, std: std)
        #expect(timm == expected)
        expected.pooling = .meanBeforeNorm
        #expect(try ViTCheckpoint.load(fixture("timm-mean")).configuration == expected)
        expected.pooling = .classToken
        expected.preprocessing = Preprocessing(filter: .bilinear, mean: mean, std: std)
        #expect(try ViTCheckpoint.load(fixture("huggingface")).configuration == expected)
        let google = try ViTCheckpoint.load(fixture("google.npz"))
        #expect(google.configuration.layerNormEpsilon == 1e-6)
        #expect(google.configuration.heads == 2)
        #expect(
            google.configuration.preprocessing == Preprocessing(mean: [0.5, 0.5, 0.5], std: [0.5, 0.5, 0.5]))
        #expect(google.preprocessingOrigin == .google)
        #expect(google.notes.count == 1)
        #expect(google.notes[0].contains("`normalize imagenet`"))
    }

    /// The arrays of the fixture google.npz under other names, read.
    private func google(_ rename: (inout [String: HostTensor]) -> Void) throws -> ViTCheckpoint {
        let archive = try NPZArchive(fixture("google.npz"))
        var arrays: [String: HostTensor] = [:]
        for name in archive.names { arrays[name] = try archive.tensor(name) }
        rename(&arrays)
        let members = arrays.map { name, tensor in
            let shape = tensor.shape.map { "\($0), " }.joined()
            return NPZTests.Member(
                name: name + ".npy", data: NPZTests.npy("<f4", shape, NPZTests.raw(tensor.values)))
        }
        return try withTemporaryFolder { folder in
            let url = folder.appendingPathComponent("model.npz")
            try AtomicFile.write(NPZTests.zip(members), to: url)
            return try ViTCheckpoint.load(url)
        }
    }

    private func bigVision(_ name: String) -> String {
        name.replacingOccurrences(of: "Attention_1", with: "Attention_0")
            .replacingOccurrences(of: "LayerNorm_2", with: "LayerNorm_1")
            .replacingOccurrences(of: "MlpBlock_3", with: "MlpBlock_0")
    }

    @Test("big_vision's names give the same model")
    func bigVisionsNamesAreTheSameModel() throws {
        let plain = try ViTCheckpoint.load(fixture("google.npz"))
        let renamed = try google { arrays in
            arrays = Dictionary(uniqueKeysWithValues: arrays.map { (bigVision($0), $1) })
        }
        #expect(renamed == plain)
        expectError("image and a text model") {
            _ = try google { $0["params/img/embedding/kernel"] = numbers([1]) }
        }
    }

    /// Stacked blocks and a class token without a position, against timm 1.0.31 (Fixtures/make_big_vision.py).
    @Test("big_vision's stacked blocks are read")
    func bigVisionsStackedBlocksAreRead() throws {
        let checkpoint = try google { arrays in
            var stacked: [String: HostTensor] = [:]
            for (name, tensor) in arrays {
                let new = "params/" + bigVision(name)
                if name.contains("encoderblock_0") {
                    let other = arrays[name.replacingOccurrences(of: "block_0", with: "block_1")]!
                    stacked[new.replacingOccurrences(of: "block_0", with: "block")] = HostTensor(
                        shape: [2] + tensor.shape, values: tensor.values + other.values)
                } else if name.hasSuffix("pos_embedding") {
                    stacked["params/pos_embedding"] = HostTensor(
                        shape: [1, 4, 24], values: Array(tensor.values[24...]))
                } else if !name.contains("encoderblock") {
                    stacked[new] = tensor
                }
            }
            arrays = stacked
        }
        let timm = [
            -0.5531642436981201, -0.6391007304191589, -0.8001691102981567, -0.2475658357143402,
            -0.47971534729003906, -0.46189165115356445, -0.5539746284484863, -1.016450047492981,
            -0.3075679540634155, -0.3926081657409668,
        ]
        expectClose(referenceLogits(checkpoint, x).map { Float($0) }, timm, "logits")
    }

    @Test("Positions are interpolated as timm does it")
    func positionsAreInterpolatedAsTimmDoes() throws {
        let checkpoint = try ViTCheckpoint.load(fixture("timm")).interpolated(toImageSize: 24)
        let positions = checkpoint.tensors["pos_embed"]!
        #expect(positions.shape == [1, 10, 24])
        let truth = try expected("timm-24.pos_embed").values.map { Double($0) }
        expectClose(positions.values, truth, "positions", limit: 1e-12)
        let images = try SafetensorsFile(fixture("inputs.safetensors")).tensor("x24")
        expectClose(try expected("timm-24").values, referenceLogits(checkpoint, images), "logits")
        expectError("multiple of 8") { _ = try checkpoint.interpolated(toImageSize: 20) }
    }

    /// Far up and down: the support of the kernel grows only downwards.
    @Test("Grids of any size are interpolated", arguments: [5, 16])
    func gridsOfAnySizeAreInterpolated(_ size: Int) throws {
        var configuration = ViTConfiguration(
            imageSize: 7, patchSize: 1, width: 4, depth: 1, heads: 1, hiddenWidth: 4, classCount: 0)
        var tensors = configuration.tensorShapes.mapValues { HostTensor(shape: $0, repeating: 0) }
        tensors["pos_embed"] = try expected("grid-7")
        let checkpoint = try ViTCheckpoint(configuration: configuration, tensors: tensors)
        let result = try checkpoint.interpolated(toImageSize: size)
        configuration.imageSize = size
        #expect(result.configuration == configuration)
        let truth = try expected("grid-7.to-\(size)").values.map { Double($0) }
        expectClose(result.tensors["pos_embed"]!.values, truth, "to \(size)", limit: 1e-12)
    }

    @Test("Written checkpoints are read back the same in both formats")
    func filesWrittenAreReadBack() throws {
        try withTemporaryFolder { folder in
            for name in ["timm", "timm-mean"] {
                var checkpoint = try ViTCheckpoint.load(fixture(name))
                checkpoint.configuration.heads = 3
                checkpoint.notes = []
                // What is written is one of timm's own architectures.
                checkpoint.timmName = name == "timm" ? "vit_base_patch16_clip_224" : "vit_base_patch16_224"
                for place in [name, name + ".safetensors"] {
                    let url = folder.appendingPathComponent(place)
                    try checkpoint.saveTimm(to: url)
                    checkpoint.preprocessingOrigin = .file(place == name ? "config.json" : place)
                    #expect(try ViTCheckpoint.load(url) == checkpoint)
                }
            }
            let checkpoint = try ViTCheckpoint.load(fixture("huggingface"))
            let url = folder.appendingPathComponent("hf")
            try checkpoint.saveHuggingFace(to: url)
            #expect(try ViTCheckpoint.load(url) == checkpoint)
            try checkpoint.withoutHead().saveHuggingFace(to: url)
            #expect(try ViTCheckpoint.load(url) == checkpoint.withoutHead())
            let mean = try ViTCheckpoint.load(fixture("timm-mean"))
            expectError("class token") { try mean.saveHuggingFace(to: url) }
        }
    }

    /// timm's ViT has no argument for ε: only an architecture's name says another one than 1e-6. At the word it stops; our own reader obeys it.
    @Test("An epsilon that timm can't be told is noted")
    func anEpsilonThatTimmCantBeToldIsSaid() throws {
        try withTemporaryFolder { folder in
            var checkpoint = try ViTCheckpoint.load(fixture("timm"))
            let url = folder.appendingPathComponent("merged")
            checkpoint.configuration.layerNormEpsilon = 3e-5
            let notes = try checkpoint.saveTimm(to: url)
            try #require(notes.count == 1)
            #expect(notes[0].contains("norm_eps, 3e-05"), "\(notes)")
            #expect(try ViTCheckpoint.load(url).configuration.layerNormEpsilon == 3e-5)
            // Two names say theirs: a plain ViT's, and CLIP's.
            for epsilon: Float in [1e-6, 1e-5] {
                checkpoint.configuration.layerNormEpsilon = epsilon
                #expect(try checkpoint.saveTimm(to: url) == [])
                #expect(try ViTCheckpoint.load(url).configuration == checkpoint.configuration)
            }
        }
    }

    @Test("A float16 file is close to the original and half as large")
    func float16FilesAreCloseAndHalfAsLarge() throws {
        try withTemporaryFolder { folder in
            let checkpoint = try ViTCheckpoint.load(fixture("timm"))
            let url = folder.appendingPathComponent("model.safetensors")
            try checkpoint.saveTimm(to: url, float16: true)
            let size = try url.resourceValues(forKeys: [.fileSizeKey]).fileSize!
            #expect(size < 31_000)
            let halves = try ViTCheckpoint.load(url).tensors
            for (name, tensor) in checkpoint.tensors {
                #expect(halves[name]!.values == tensor.values.map { Float(Float16($0)) }, "\(name)")
            }
        }
    }

    @Test("The head can be replaced and left out")
    func theHeadIsReplaced() throws {
        let checkpoint = try ViTCheckpoint.load(fixture("timm"))
        let weight = numbers([3, 24])
        let replaced = checkpoint.withHead(weight: weight, bias: numbers([3]))
        #expect(replaced.configuration.classCount == 3)
        #expect(replaced.tensors["head.weight"] == weight)
        #expect(throws: Never.self) {
            try ViTCheckpoint(configuration: replaced.configuration, tensors: replaced.tensors)
        }
    }

    // MARK: Without a config.json, and with other kinds

    @Test("A file without a configuration says what is assumed")
    func aLoneFileSaysWhatIsAssumed() throws {
        try withTemporaryFolder { folder in
            let url = folder.appendingPathComponent("model.safetensors")
            try FileManager.default.copyItem(at: fixture("timm/model.safetensors"), to: url)
            let checkpoint = try ViTCheckpoint.load(url, heads: 2)
            #expect(checkpoint.configuration.heads == 2)
            #expect(checkpoint.configuration.layerNormEpsilon == 1e-6)
            #expect(
                checkpoint.notes == [
                    "no config.json: 2 heads, eps 1e-6, exact GELU, images squashed to the input size (bicubic) and "
                        + "ImageNet's mean and std are assumed"
                ])
            expectError("give the number of heads") { _ = try ViTCheckpoint.load(url) }
            expectError("can't be divided among 7 heads") { _ = try ViTCheckpoint.load(url, heads: 7) }
        }
    }

    @Test("The architecture's name tells the number of heads")
    func anArchitectureNameTellsTheHeads() throws {
        for (name, width, heads) in [
            ("vit_base_patch16_224", 192, 12), ("vit_huge_patch14_224", 160, 16),
            ("deit_tiny_patch16_224", 192, 3),
        ] {
            let configuration = ViTConfiguration(
                imageSize: 4, patchSize: 2, width: width, depth: 1, heads: 1, hiddenWidth: 8, classCount: 0)
            let tensors = configuration.tensorShapes.mapValues { HostTensor(shape: $0, repeating: 0) }
            try withTemporaryFolder { folder in
                try writeSafetensors(tensors, to: folder.appendingPathComponent("model.safetensors"))
                let config =
                    "{\"architecture\": \"\(name)\", \"num_classes\": 1000, \"global_pool\": \"token\", "
                    + "\"pretrained_cfg\": {\"mean\": [0.5, 0.5, 0.5], \"std\": [0.5, 0.5, 0.5]}}"
                try AtomicFile.write(config, to: folder.appendingPathComponent("config.json"))
                let loaded = try ViTCheckpoint.load(folder)
                #expect(loaded.configuration.heads == heads)
                #expect(loaded.configuration.preprocessing.mean == [0.5, 0.5, 0.5])
                #expect(loaded.configuration.classCount == 0)
            }
        }
    }

    @Test("Shards and the names of transformers 5 are read")
    func shardsAndTransformers5NamesAreRead() throws {
        let whole = try ViTCheckpoint.load(fixture("huggingface"))
        let file = try SafetensorsFile(fixture("huggingface/model.safetensors"))
        var tensors: [String: HostTensor] = [:]
        for name in file.names {
            var new = name.replacingOccurrences(of: "encoder.layer.", with: "layers.")
            for (old, replacement) in [
                ("attention.attention.query", "attention.q_proj"),
                ("attention.attention.key", "attention.k_proj"),
                ("attention.attention.value", "attention.v_proj"),
                ("attention.output.dense", "attention.o_proj"),
                ("intermediate.dense", "mlp.fc1"), ("output.dense", "mlp.fc2"),
            ] { new = new.replacingOccurrences(of: old, with: replacement) }
            tensors[new] = try file.tensor(name)
        }
        tensors["vit.pooler.dense.weight"] = numbers([24, 24])
        try withTemporaryFolder { folder in
            for name in ["config.json", "preprocessor_config.json"] {
                try FileManager.default.copyItem(
                    at: fixture("huggingface/" + name), to: folder.appendingPathComponent(name))
            }
            let names = tensors.keys.sorted()
            let shards = [names[..<10], names[10...]]
            var map: [String: JSONValue] = [:]
            for (index, shard) in shards.enumerated() {
                let part = tensors.filter { shard.contains($0.key) }
                try writeSafetensors(part, to: folder.appendingPathComponent("model-\(index).safetensors"))
                for name in shard { map[name] = .string("model-\(index).safetensors") }
            }
            let index = folder.appendingPathComponent("model.safetensors.index.json")
            try AtomicFile.write(JSONValue.object(["weight_map": .object(map)]).text(), to: index)
            #expect(try ViTCheckpoint.load(folder) == whole)
            map["vit.layernorm.bias"] = "../model-1.safetensors"
            try AtomicFile.write(JSONValue.object(["weight_map": .object(map)]).text(), to: index)
            expectError("no file beside it") { _ = try ViTCheckpoint.load(folder) }
        }
    }

    // MARK: Refused

    /// Changes to the timm fixture and a part of the sentence that names what is wrong.
    @Test(
        "Models that don't fit are refused by their tensor",
        arguments: [
            (
                "blocks.1.mlp.fc2.weight", [24, 35],
                "'blocks.1.mlp.fc2.weight' has shape [24, 35], but the rest of the model needs [24, 36]"
            ),
            ("blocks.1.norm2.bias", [], "lacks the tensor 'blocks.1.norm2.bias' of shape [24]"),
            ("blocks.0.ls1.gamma", [24], "lacks the tensor 'blocks.0.ls2.gamma'"),
            ("dist_token", [1, 1, 24], "2 tokens in front"), ("blocks.0.gamma_2", [24], "'blocks.0.gamma_2'"),
            ("pre_logits.fc.weight", [24, 24], "layer before the head"),
            ("extra.thing", [3], "'extra.thing'"),
            ("pos_embed", [1, 6, 24], "6 positions, not a square"), ("head.bias", [4], "has shape [4]"),
            ("blocks.7.norm1.bias", [24], "tensors say 3"),
            ("patch_embed.proj.weight", [24, 1, 8, 8], "1 channels"),
        ])
    func modelsThatDontFitAreRefused(_ name: String, _ shape: [Int], _ part: String) throws {
        var tensors = try ViTCheckpoint.load(fixture("timm")).tensors
        tensors[name] = shape.isEmpty ? nil : numbers(shape)
        try withTemporaryFolder { folder in
            try writeSafetensors(tensors, to: folder.appendingPathComponent("model.safetensors"))
            try FileManager.default.copyItem(
                at: fixture("timm/config.json"), to: folder.appendingPathComponent("config.json"))
            expectError(part) { _ = try ViTCheckpoint.load(folder) }
        }
    }

    @Test(
        "Configurations that the tensors contradict are refused",
        arguments: [
            ("\"depth\": 2", "\"depth\": 3", "depth = 3, but the tensors say 2"),
            ("\"num_heads\": 2", "\"num_heads\": 5", "among 5 heads"),
            ("\"num_heads\": 2", "\"num_heads\": 0", "not positive"),
            ("\"qkv_bias\": true", "\"qk_norm\": true", "qk_norm = true, but the tensors say false"),
            ("\"qkv_bias\": true", "\"act_layer\": \"mish\"", "act_layer"),
            ("\"mlp_ratio\": 1.5", "\"mlp_ratio\": 1e300", "mlp_ratio"), ("0.2,", "0,", "positive std"),
            ("\"global_pool\": \"token\"", "\"global_pool\": \"map\"", "pooling 'map'"),
            ("{", "[", "invalid JSON"), ("\"norm_eps\": 1e-05", "\"norm_eps\": 0", "eps 0.0"),
        ])
    func configurationsThatDontFitAreRefused(_ old: String, _ new: String, _ part: String) throws {
        try withTemporaryFolder { folder in
            try FileManager.default.copyItem(
                at: fixture("timm/model.safetensors"), to: folder.appendingPathComponent("model.safetensors"))
            let text = try String(contentsOf: fixture("timm/config.json"), encoding: .utf8)
            let range = try #require(text.range(of: old))
            let url = folder.appendingPathComponent("config.json")
            try AtomicFile.write(text.replacingCharacters(in: range, with: new), to: url)
            expectError(part) { _ = try ViTCheckpoint.load(folder) }
        }
    }

    @Test("Other files are refused")
    func otherFilesAreRefused() throws {
        try withTemporaryFolder { folder in
            expectError("no model.safetensors") { _ = try ViTCheckpoint.load(folder) }
            let missing = folder.appendingPathComponent("absent")
            expectError("No such file") { _ = try ViTCheckpoint.load(missing) }
            try AtomicFile.write("x", to: folder.appendingPathComponent("pytorch_model.bin"))
            expectError("pickle") { _ = try ViTCheckpoint.load(folder) }
            let hf = folder.appendingPathComponent("hf")
            try FileManager.default.copyItem(at: fixture("huggingface"), to: hf)
            let config = hf.appendingPathComponent("config.json")
            try AtomicFile.write("{\"model_type\": \"beit\"}", to: config)
            expectError("'beit'") { _ = try ViTCheckpoint.load(hf) }
            try AtomicFile.write("{\"model_type\": \"vit\", \"hidden_act\": \"mish\"}", to: config)
            expectError("mish") { _ = try ViTCheckpoint.load(hf) }
            try AtomicFile.write("{\"model_type\": \"vit\", \"image_size\": 32}", to: config)
            expectError("image_size = 32, but the tensors say 16") { _ = try ViTCheckpoint.load(hf) }
            try FileManager.default.removeItem(at: config)
            expectError("config.json must lie beside it") { _ = try ViTCheckpoint.load(hf) }
        }
    }
}
