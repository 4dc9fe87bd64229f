import Foundation
import Testing

@Suite("What a file or a flag claims ends in a sentence, within 500 MB")
struct HostileSizesTests {
    private static let memory = "ulimit -d \(500 << 10);"

    @Test(
        "A training's flags that claim too much are refused",
        arguments: [
            (["--method", "fact-tk", "--rank", "4096"], "--rank 4096 is more than the model's width"),
            (["--method", "noah", "--dims", "9223372036854775807:1:1"], "--dims"),
            (["--image-size", "16384"], "number of patches"),
            (["--ranks", "4096"], "--ranks 4096 is more than"),
        ])
    func flagsOfTrainings(_ flags: [String], _ part: String) throws {
        try Fixture.withFolder { folder in
            try Glora.refuse(
                ["train", "--model", "model", "--data", "task", "--run", "r", "--device", "cpu"] + flags,
                in: folder, saying: [part], setup: HostileSizesTests.memory)
        }
    }

    @Test(
        "Adapters whose settings claim more than their tensors hold are refused",
        arguments: [
            (#""glora_method": "fact-tk", "rank": 64"#, "FacTu.weight of shape [64, 16]"),
            (#""glora_method": "vpt-deep", "prompts": 4096"#, "prompt_embeddings of shape [1, 4096, 16]"),
            (
                #""glora_method": "adaptformer", "width": 4611686018427387904"#,
                "--width must be from 1 to 4096"
            ),
        ])
    func claimsOfAdapters(_ settings: String, _ part: String) throws {
        try Fixture.withFolder { folder in
            try folder.write(
                "a/adapter_config.json", #"{\#(settings), "glora_method_version": 1, "head_kind": "linear"}"#)
            let header =
                #"{"head.weight":{"dtype":"F32","shape":[3,16],"data_offsets":[0,192]},"#
                + #""head.bias":{"dtype":"F32","shape":[3],"data_offsets":[192,204]}}"#
            let length = withUnsafeBytes(of: UInt64(header.utf8.count)) { Data($0) }
            try folder.write("a/adapter_model.safetensors", length + Data(header.utf8) + Data(count: 204))
            try Glora.refuse(
                ["eval", "--model", "model", "--data", "task", "--device", "cpu", "--adapter", "a"],
                in: folder,
                saying: [part], setup: HostileSizesTests.memory)
        }
    }

    @Test("A model too large to be pretrained is refused")
    func modelsToBePretrained() throws {
        try Fixture.withFolder { folder in
            try Glora.refuse(
                [
                    "pretrain", "--width", "65536", "--heads", "2", "--output", "p.safetensors", "--device",
                    "cpu",
                ],
                in: folder, saying: ["MiB", "--hidden-width"], setup: HostileSizesTests.memory)
        }
    }

    /// 26 MB of header, of half a million tensors.
    @Test("A header of half a million tensors is refused")
    func headersOfManyTensors() throws {
        try Fixture.withFolder { folder in
            var header = "{"
            for index in 0..<500_000 {
                header +=
                    "\"\(index)\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[\(index),\(index + 1)]}"
                    + (index < 499_999 ? "," : "}")
            }
            let length = withUnsafeBytes(of: UInt64(header.utf8.count)) { Data($0) }
            try folder.write("m/model.safetensors", length + Data(header.utf8) + Data(count: 500_000))
            try Glora.refuse(
                ["eval", "--model", "m", "--data", "task", "--device", "cpu"], in: folder,
                saying: ["names more than 65536 tensors"], setup: HostileSizesTests.memory)
        }
    }
}
