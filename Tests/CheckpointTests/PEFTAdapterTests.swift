import Adapters
import Foundation
import TensorCore
import TestSupport
import Testing

@testable import Checkpoints

/// What PEFT trained has PEFT's effective weights here, and what we write says every path without loss.
@Suite("Adapters in PEFT's format, read and written")
struct PEFTAdapterTests {
    let base = try! ViTCheckpoint.load(fixture("timm"))

    @Test(
        "What PEFT trained gives PEFT's logits",
        arguments: [
            ("peft-lora", GLoRAPath.full(rank: 2)),
            ("peft-vector", GLoRAPath(a: .vector, b: .vector, c: .vector, d: .constant, e: .constant)),
            ("peft-constant", GLoRAPath(a: .constant, b: .constant)),
            ("peft-none", GLoRAPath(c: .vector, d: .vector, e: .vector)),
        ])
    func whatPEFTTrainedIsRead(_ name: String, _ path: GLoRAPath) throws {
        let (adapter, extra, notes) = try PEFTAdapter.load(fixture(name), for: base)
        #expect(extra.isEmpty && notes.isEmpty)
        #expect(adapter.rank == (name == "peft-lora" ? 2 : 1))
        #expect(adapter.layers.count == (name == "peft-none" ? 4 : 8))
        #expect(adapter.layers.values.allSatisfy { $0.path == path })
        let model = merged(base, adapter)
        for key in [
            "blocks.0.attn.qkv.weight", "blocks.0.attn.qkv.bias", "blocks.1.mlp.fc1.weight",
            "blocks.1.mlp.fc1.bias",
        ] {
            let truth = try expected("\(name).\(key)").values.map { Double($0) }
            expectClose(model.tensors[key]!.values, truth, key, limit: 1e-12)
        }
        let x = try SafetensorsFile(fixture("inputs.safetensors")).tensor("x")
        expectClose(try expected(name).values, referenceLogits(model, x), name)
    }

    /// An adapter with a different path in each layer, every tensor full of numbers.
    func mixed(rank: Int = 3) -> GLoRAAdapter {
        let paths: [GLoRAPath] = [
            .full(rank: 3), .full(rank: 2),
            GLoRAPath(a: .vector, b: .constant, c: .vector, d: .constant, e: .vector),
            .none, GLoRAPath(a: .constant, b: .vector, c: .lowRank(1), d: .vector, e: .constant),
            .lora(rank: 1),
            GLoRAPath(c: .vector), GLoRAPath(a: .lowRank(1), e: .constant),
        ]
        var layers: [String: GLoRAAdapter.Layer] = [:]
        for (index, (name, path)) in zip(base.configuration.shape.linears.map(\.name), paths).enumerated() {
            let shape = base.tensors[name + ".weight"]!.shape
            var tensors: [String: HostTensor] = [:]
            for (letter, rows, columns) in [
                ("A", shape[0], shape[1]), ("B", shape[0], shape[1]), ("C", shape[1], 1),
            ] {
                tensors[letter + "d"] = numbers([rows, rank], seed: index * 10 + 1)
                tensors[letter + "u"] = numbers([rank, columns], seed: index * 10 + 2)
            }
            for letter in ["D", "E"] { tensors[letter] = numbers([shape[0]], seed: index * 10 + 3) }
            layers[name] = GLoRAAdapter.Layer(path: path, tensors: tensors)
        }
        let head = ["head.weight": numbers([7, 24]), "head.bias": numbers([7])]
        return GLoRAAdapter(rank: rank, layers: layers, head: head)
    }

    @Test("Paths that differ by layer come back as they were written")
    func mixedPathsComeBack() throws {
        try withTemporaryFolder { folder in
            let adapter = mixed()
            let extra: [String: JSONValue] = [
                "glora_base": ["sha256": "00ff"], "glora_normalize": "imagenet",
            ]
            try PEFTAdapter.save(adapter, to: folder, extra: extra)
            let loaded = try PEFTAdapter.load(folder, for: base)
            #expect(loaded.extra == extra)
            #expect(loaded.adapter.head == adapter.head)
            #expect(loaded.adapter.layers.mapValues(\.path) == adapter.layers.mapValues(\.path))
            let (truth, result) = (merged(base, adapter), merged(base, loaded.adapter))
            #expect(truth == result)
            // What PEFT sees: the same weights on the promoted paths.
            var promoted = adapter
            promoted.layers = adapter.layers.mapValues { PEFTAdapter.promoted($0) }
            #expect(promoted.layers.values.allSatisfy { $0.path == .full(rank: 3) })
            for (name, tensor) in merged(base, promoted).tensors {
                expectClose(tensor.values, truth.tensors[name]!.values.map { Double($0) }, name, limit: 1e-12)
            }
        }
    }

    @Test("A table of paths that contradicts the tensors isn't believed")
    func aTableThatTheTensorsLeftIsNotBelieved() throws {
        try withTemporaryFolder { folder in
            let adapter = mixed()
            try PEFTAdapter.save(adapter, to: folder)
            let url = folder.appendingPathComponent("adapter_model.safetensors")
            let file = try SafetensorsFile(url)
            var tensors: [String: HostTensor] = [:]
            for name in file.names { tensors[name] = try file.tensor(name) }
            // Trained on in PEFT: a vector's Xu no longer holds ones.
            let layer = "blocks.0.mlp.fc1"
            tensors["base_model.model.\(layer).glora_A.Xu"]!.values[5] = 2
            try writeSafetensors(tensors, to: url)
            let loaded = try PEFTAdapter.load(folder, for: base).adapter
            #expect(loaded.layers[layer]!.path == .full(rank: 3))
            #expect(loaded.layers[layer]!.tensors["Au"]!.values[5] == 2)
            #expect(loaded.layers["blocks.0.attn.proj"]!.path == .full(rank: 2))
        }
    }

    @Test("Keys may hold the adapter's name")
    func adapterNamesInKeysAreAccepted() throws {
        try withTemporaryFolder { folder in
            try FileManager.default.removeItem(at: folder)
            try FileManager.default.copyItem(at: fixture("peft-vector"), to: folder)
            let file = try SafetensorsFile(fixture("peft-vector/adapter_model.safetensors"))
            var tensors: [String: HostTensor] = [:]
            for name in file.names {
                var parts = name.split(separator: ".").map(String.init)
                if parts[2] == "head" {
                    parts.insert(contentsOf: ["modules_to_save", "default"], at: 3)
                } else {
                    parts.insert("default", at: parts.count - 1)
                }
                tensors[parts.joined(separator: ".")] = try file.tensor(name)
            }
            try writeSafetensors(tensors, to: folder.appendingPathComponent("adapter_model.safetensors"))
            let plain = try PEFTAdapter.load(fixture("peft-vector"), for: base)
            #expect(try PEFTAdapter.load(folder, for: base).adapter == plain.adapter)
        }
    }

    @Test(
        "Settings that don't fit the tensors are refused",
        arguments: [
            ("\"GLORA\"", "\"IA3\"", "type 'IA3' can't be loaded"),
            ("\"r\": 2", "\"r\": 4", "has shape [24, 2], but the model and r = 4 need [24, 4]"),
            ("\"r\": 2", "\"r\": -1", "r = -1"), ("\"none\"", "\"all\"", "bias"),
            ("\"config_A_B\": \"lora\"", "\"config_A_B\": \"vector\"", "lacks the tensor 'glora_A.X'"),
            ("\"config_C\": \"lora\"", "\"config_C\": \"none\"", "which doesn't fit adapter_config.json"),
            ("\"config_C\": \"lora\"", "\"config_C\": \"constant\"", "'constant' is unknown"),
            ("\"r\": 2", "\"glora_format_version\": 2, \"r\": 2", "format version 2"),
            (
                "\"revision\": null", "\"glora_layer_configs\": {\"blocks.0.attn.qkv\": {\"A\": \"lora4\"}}",
                "'lora4'"
            ),
        ])
    func settingsThatDontFitAreRefused(_ old: String, _ new: String, _ part: String) throws {
        try withTemporaryFolder { folder in
            try FileManager.default.removeItem(at: folder)
            try FileManager.default.copyItem(at: fixture("peft-lora"), to: folder)
            let url = folder.appendingPathComponent("adapter_config.json")
            let text = try String(contentsOf: url, encoding: .utf8)
            let range = try #require(text.range(of: old))
            try AtomicFile.write(text.replacingCharacters(in: range, with: new), to: url)
            expectError(part) { _ = try PEFTAdapter.load(folder, for: base) }
        }
    }

    @Test(
        "Tensors that don't fit the model are refused",
        arguments: [
            ("base_model.model.blocks.0.attn.qkv.glora_A.Xd", [71, 2], "has shape [71, 2]"),
            (
                "base_model.model.blocks.0.attn.qkv.glora_A.Xd", [],
                "lacks the tensor 'glora_A.Xd' of 'blocks.0.attn.qkv'"
            ),
            ("base_model.model.blocks.9.attn.qkv.glora_A.Xd", [72, 2], "adapts 'blocks.9.attn.qkv'"),
            ("base_model.model.norm.weight", [24], "a LayerNorm that was trained whole"),
            ("base_model.model.head.bias", [], "half of the head"),
            ("base_model.model.head.weight", [5, 23], "[5, 23]"),
            ("lora_A.weight", [3], "no tensor of PEFT's"),
        ])
    func tensorsThatDontFitAreRefused(_ name: String, _ shape: [Int], _ part: String) throws {
        try withTemporaryFolder { folder in
            try FileManager.default.removeItem(at: folder)
            try FileManager.default.copyItem(at: fixture("peft-lora"), to: folder)
            let url = folder.appendingPathComponent("adapter_model.safetensors")
            let file = try SafetensorsFile(url)
            var tensors: [String: HostTensor] = [:]
            for name in file.names { tensors[name] = try file.tensor(name) }
            tensors[name] = shape.isEmpty ? nil : numbers(shape)
            try writeSafetensors(tensors, to: url)
            expectError(part) { _ = try PEFTAdapter.load(folder, for: base) }
        }
    }

    @Test("Missing layers are named")
    func missingLayersAreNamed() throws {
        try withTemporaryFolder { folder in
            let adapter = mixed()
            try PEFTAdapter.save(adapter, to: folder)
            let url = folder.appendingPathComponent("adapter_model.safetensors")
            let file = try SafetensorsFile(url)
            var tensors: [String: HostTensor] = [:]
            for name in file.names where !name.contains("blocks.1.mlp.fc2.") {
                tensors[name] = try file.tensor(name)
            }
            try writeSafetensors(tensors, to: url)
            expectError("lacks the tensors of 'blocks.1.mlp.fc2'") {
                _ = try PEFTAdapter.load(folder, for: base)
            }
        }
    }
}
