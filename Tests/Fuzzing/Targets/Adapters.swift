import Adapters
import CPUBackend
@testable import Checkpoints
import Foundation
import TensorCore
@testable import Training
import VisionModels

private let scratch = Scratch("adapter")

/// Two blocks of width 16, as the fixtures' model.
private let checkpoint = try! ViTCheckpoint.random(
    ViTConfiguration(
        imageSize: 16, patchSize: 8, width: 16, depth: 2, heads: 2, hiddenWidth: 32, classCount: 0),
    seed: 1)
nonisolated(unsafe) private let model = try! VisionTransformer(
    checkpoint, classCount: 3, trained: .adapters(rank: 4, sites: SearchSpace.Site.allCases), seed: 1,
    on: CPUBackend(threads: 1))

/// `adapter/`: PEFT's, and other methods'.
let adapterTargets = [
    Target(
        name: "adapter",
        seeds: {
            let fixtures = "CheckpointTests/Fixtures"
            let ours = [
                "{\"glora_method\": \"fact-tk\", \"glora_method_version\": 1, \"rank\": 4, \"scale\": 1, \"head_kind\": \"linear\"}",
                "{\"head.bias\": [3], \"head.weight\": [3, 16]}",
            ]
            return try [Input.joined(ours)]
                + [
                    "peft-lora", "peft-vector", "peft/hf-lora", "peft/hf-glora-lora", "peft/lora-bias",
                    "peft/lora-patterns",
                ].map {
                    let file = try SafetensorsFile(
                        URL(fileURLWithPath: "Tests/\(fixtures)/\($0)/adapter_model.safetensors"))
                    return Input.joined([
                        try fixture("\(fixtures)/\($0)/adapter_config.json"),
                        Array(Shapes.text(file.names, file.shape).utf8),
                    ])
                }
        }
    ) { input in
        let parts = input.parts
        guard parts.count > 1, let shapes = Shapes(parts[1], limit: 1 << 20) else { return }
        scratch.write(parts[0], "adapter_config.json")
        scratch.write(shapes.safetensors(), "adapter_model.safetensors", zeros: 4 * shapes.count)
        if let other = try MethodAdapter.load(scratch.url) {
            _ = try other.model(checkpoint, on: model.backend)
        } else {
            _ = try PEFTAdapter.load(scratch.url, for: checkpoint)
        }
    }
]

/// A form's word, and what `--path` names.
let path = Target(
    name: "path",
    seeds: {
        [
            "LoRA_4", "constant",
            "{\"A\": \"LoRA_4\", \"B\": \"vector\", \"C\": \"none\", \"D\": \"constant\", \"E\": \"vector\"}",
            "{\"blocks.0.attn.qkv\": {\"A\": \"lowRank_2\"}, \"blocks.1.mlp.fc2\": {}}",
        ].map { Array($0.utf8) }
    }
) { input in
    let text = String(decoding: input.bytes, as: UTF8.self)
    _ = try? MatrixForm(text: text)
    _ = try? PromptForm(text: text)
    _ = try? ScaleForm(text: text)
    let space = try SearchSpace(ranks: [4, 2])
    let file = scratch.write(input.bytes, "path.json").path
    for path in try PathChoice(file, space: space, model: model).readingPaths(model: model) {
        _ = path.parameterCount(inputs: 16, outputs: 32)
    }
}
