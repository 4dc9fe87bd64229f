import Foundation
import ModelConfiguration

@testable import Checkpoints
@testable import Datasets

private let scratch = Scratch("model")
private let fixtures = "CheckpointTests/Fixtures"

/// What `--model` names.
let modelTargets = [
    Target(
        name: "safetensors", seeds: { [try fixture("\(fixtures)/peft/hf-lora/adapter_model.safetensors")] }
    ) { input in
        let file = try SafetensorsFile(scratch.write(input.bytes, "file.safetensors"))
        for name in file.names {
            _ = try? file.tensor(name)
            _ = try? file.doubles(name)
            _ = try? file.integers(name)
        }
    },
    Target(
        name: "headers",
        seeds: {
            try ["timm", "timm-mean", "huggingface"].flatMap { folder in
                let url = URL(fileURLWithPath: "Tests/\(fixtures)/\(folder)")
                let file = try SafetensorsFile(url.appendingPathComponent("model.safetensors"))
                let shapes = Array(Shapes.text(file.names, file.shape).utf8)
                let config = try fixture("\(fixtures)/\(folder)/config.json")
                let others = try? fixture("\(fixtures)/\(folder)/preprocessor_config.json")
                let configured = Input.joined([shapes, config, others ?? Array("{}".utf8)])
                return folder == "huggingface" ? [configured] : [shapes, configured]
            }
        }
    ) { input in
        let parts = input.parts
        guard let shapes = Shapes(parts[0], limit: 4 << 20) else { return }
        scratch.write(shapes.safetensors(), "model.safetensors", zeros: 4 * shapes.count)
        Input(bytes: Array(parts.dropFirst().joined(separator: [0]))).write(
            parts.count > 1 ? ["config.json", "preprocessor_config.json"] : [], to: scratch)
        if parts.count < 2 { scratch.remove("config.json") }
        if parts.count < 3 { scratch.remove("preprocessor_config.json") }
        let checkpoint = try ViTCheckpoint.load(scratch.url, heads: parts.count < 2 ? 2 : nil)
        _ = try Preprocessor(
            checkpoint.configuration.preprocessing, imageSize: checkpoint.configuration.imageSize)
    },
    Target(
        name: "google",
        seeds: {
            let archive = try NPZArchive(URL(fileURLWithPath: "Tests/\(fixtures)/google.npz"))
            return [Array(Shapes.text(archive.names, archive.shape).utf8)]
        }
    ) { input in
        guard let shapes = Shapes(input.bytes, limit: 1 << 18) else { return }
        _ = try ViTCheckpoint.load(scratch.write(shapes.npz(), "model.npz"), heads: 2)
    },
    Target(
        name: "npz",
        seeds: { [Shapes("{\"a\": [2, 3], \"b/c\": []}".utf8, limit: 100)!.npz()] }
    ) { input in
        let archive = try NPZArchive(scratch.write(input.bytes, "file.npz"))
        for name in archive.names { _ = try? archive.tensor(name) }
    },
    // An array in an archive whose checksum is right.
    Target(
        name: "npy",
        seeds: {
            [("(2, 3), }", 6), ("(), }", 1), ("(3,), }", 3)].map { shape, count in
                let header = "{'descr': '<f4', 'fortran_order': True, 'shape': \(shape)\n"
                return [0x93] + Array("NUMPY".utf8) + [1, 0, UInt8(header.utf8.count), 0] + Array(header.utf8)
                    + [UInt8](repeating: 60, count: 4 * count)
            }
        }
    ) { input in
        _ = try NPZArchive(scratch.write(storedZip([("a.npy", input.bytes)]), "file.npz")).tensor("a")
    },
    // What a model's files say of its images.
    Target(
        name: "preprocessing",
        seeds: {
            let processor = try fixture("\(fixtures)/huggingface/preprocessor_config.json")
            let config = try fixture("\(fixtures)/timm/config.json")
            return [
                Input.joined([processor]), Input.joined([[], config]), Input.joined([processor, config]),
            ]
        }
    ) { input in
        let parts = input.parts
        func apply(_ preprocessing: Preprocessing) throws {
            // As a model is read, before its form is written.
            var configuration = ViTConfiguration(
                imageSize: 16, patchSize: 8, width: 16, depth: 2, heads: 2, hiddenWidth: 32, classCount: 2)
            configuration.preprocessing = preprocessing
            try configuration.check(source: "")
            _ = preprocessing.huggingFace(imageSize: 16).text()
            _ = try? JSONValue.object(preprocessing.timm(imageSize: 16)).text()
            let image = RGBImage(width: 7, height: 5, pixels: Array(0..<7 * 5 * 3))
            _ = try Preprocessor(preprocessing, imageSize: 16)(image)
        }
        if let settings = try? JSONValue(parsing: parts[0]) {
            if let read = try? Preprocessing(huggingFace: settings, imageSize: 16, path: "") {
                try? apply(read)
            }
        }
        if parts.count > 1, let settings = try? JSONValue(parsing: parts[1]) {
            if let read = try? Preprocessing(
                timm: settings["pretrained_cfg"] ?? settings, imageSize: 16, path: "")
            {
                try? apply(read)
            }
            if let name = settings["architecture"]?.stringValue { _ = TimmArchitectures.difference(name) }
            var notes: [String] = []
            _ = try? ClassNames.timm(settings, count: 3, path: "")
            _ = try? ClassNames.huggingFace(settings, count: 3, path: "", notes: &notes)
        }
    },
]
