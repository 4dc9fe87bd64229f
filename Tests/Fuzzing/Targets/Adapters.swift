import Adapters
import CPUBackend
@testable import Checkpoints
import Foundation
@testable import Training
import VisionModels

private let scratch = Scratch("adapter")

/// The model that the fixtures' adapters were trained on.
private let checkpoint = try! ViTCheckpoint.load(
    URL(fileURLWithPath: "Tests/CheckpointTests/Fixtures/timm"), heads: 2)
nonisolated(unsafe) private let model = try! VisionTransformer(
    checkpoint, classCount: 5, method: GLoRA(rank: 4), seed: 1,
    on: CPUBackend(threads: 1))

/// `adapter/`: PEFT's, and other methods'.
let adapterTargets = [
    Target(
        name: "adapter",
        seeds: {
            let fixtures = "CheckpointTests/Fixtures"
            let method = try MethodName.ssf.method(MethodSettings(), for: checkpoint.configuration.shape)
            let segments = try VisionTransformer(
                checkpoint, classCount: 5, method: method, seed: 1, on: model.backend
            ).store.segments
            let shapes = Dictionary(uniqueKeysWithValues: segments.map { ($0.name, $0.shape) })
            let ours = [
                "{\"glora_method\": \"ssf\", \"glora_method_version\": 1, \"head_kind\": \"linear\"}",
                Shapes.text(Array(shapes.keys)) { shapes[$0] },
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

/// What `--path` names.
let path = Target(
    name: "path",
    seeds: {
        [
            "{\"A\": \"LoRA_4\", \"B\": \"vector\", \"C\": \"none\", \"D\": \"constant\", \"E\": \"vector\"}",
            "{\"blocks.0.attn.qkv\": {\"A\": \"lowRank_2\"}, \"blocks.1.mlp.fc2\": {}}",
        ].map { Array($0.utf8) }
    }
) { input in
    let space = try SearchSpace(ranks: [4, 2])
    let file = scratch.write(input.bytes, "path.json").path
    for path in try PathChoice(file, space: space, for: model.shape).readingPaths(model.layers) {
        _ = path.parameterCount(inputs: 16, outputs: 32)
    }
}
