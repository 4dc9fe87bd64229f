import Adapters
import CEmbedded
import Checkpoints
import Foundation
import TensorCore

/// Golden vectors: what the original authors' code computed, to be replayed on a backend.
///
/// A suite is a folder of `.safetensors` files, each with its description as JSON under `__metadata__["golden"]`, and of
/// `.json` files. What a file is about is its `kind`; sizes, ranks and architectures are read from it, so other seeds
/// and shapes replay as well. A `manifest.json` may name the kind of JSON files, which don't carry it themselves.
///
/// | kind | what is replayed |
/// | --- | --- |
/// | `glora_layer` | one Linear: y, dx, every gradient, merged W and b, untouched tensors off the path |
/// | `vit_base` | logits and loss of the frozen model |
/// | `vit_fixed` | logits, loss, every gradient on a fixed path, the merged model |
/// | `vision_base`, `vision_fixed` | the same of a newer model of timm's, element by element, and the streams behind its blocks |
/// | `vit_trajectory` | the losses of AdamW steps, parameters, logits afterwards |
/// | `lr_schedule` | the learning rate of every epoch |
/// | `param_count` | parameters of candidate paths |
/// | `search_trace` | every generation's candidates, the accuracies of the best 50, the final best, and the counts: equal |
/// | `operation` | one operation, by its formula: RMSNorm, gated activations, tanh GELU, with every gradient |
/// | `rope` | a rotation of a grid's patches: the tables, y, dx |
/// | `peft` | another method: logits, loss, every gradient, the merged model, the count |
public final class GoldenSuite {
    private let root: URL
    private let files: [String]  // paths below root, sorted
    private let kinds: [String: String]  // by path, from the manifest
    private let isTemporary: Bool

    /// The suite in a folder and those below it. Throws an error of one sentence when there is no such folder or no vectors.
    public convenience init(directory: URL) throws {
        try self.init(root: directory, isTemporary: false)
    }

    /// The small suite inside the program: about ten layers, a fixed ViT, CLIP, DINOv2, DINOv3, EVA-02 and SigLIP, their
    /// operations and rotations, both AdamW trajectories, schedule and counts.
    /// It is unpacked into a temporary folder, which goes when the suite does. Throws `CheckpointError`.
    public static func builtIn() throws -> GoldenSuite {
        let folder = FileManager.default.temporaryDirectory
            .appendingPathComponent("glora-vectors-\(UUID().uuidString)")
        do {
            for index in 0..<embeddedFileCount() {
                let file = embeddedFile(index)
                let name = String(cString: file.name)
                guard name.hasPrefix("Golden/") else { continue }
                let url = folder.appendingPathComponent(String(name.dropFirst("Golden/".count)))
                try AtomicFile.createFolder(url.deletingLastPathComponent())
                try AtomicFile.write(
                    UnsafeRawBufferPointer(start: file.bytes, count: file.byteCount), to: url)
            }
            return try GoldenSuite(root: folder, isTemporary: true)
        } catch {
            try? FileManager.default.removeItem(at: folder)
            throw error
        }
    }

    private init(root: URL, isTemporary: Bool) throws {
        (self.root, self.isTemporary) = (root, isTemporary)
        var isFolder: ObjCBool = false
        guard FileManager.default.fileExists(atPath: root.path, isDirectory: &isFolder), isFolder.boolValue,
            let paths = FileManager.default.enumerator(atPath: root.path)
        else {
            throw GoldenError("\(root.path) is no folder; give the folder that holds the golden vectors")
        }
        files = paths.compactMap { $0 as? String }.filter { path in
            let name = path.split(separator: "/").last ?? ""
            return !path.split(separator: "/").contains { $0.hasPrefix(".") }
                && (name.hasSuffix(".safetensors") || name.hasSuffix(".json")) && name != "manifest.json"
        }.sorted()
        guard !files.isEmpty else {
            throw GoldenError(
                "\(root.path) holds no golden vectors (.safetensors or .json); give another folder")
        }
        let manifest = root.appendingPathComponent("manifest.json")
        var kinds: [String: String] = [:]
        if FileManager.default.fileExists(atPath: manifest.path) {
            for entry in try JSONValue(contentsOf: manifest)["files"]?.arrayValue ?? [] {
                if let file = entry["file"]?.stringValue { kinds[file] = entry["meta"]?["kind"]?.stringValue }
            }
        }
        self.kinds = kinds
    }

    deinit {
        if isTemporary { try? FileManager.default.removeItem(at: root) }
    }

    /// Replays every file on `backend`, in the order of their paths, and reports each as it ends. Throws `BackendError.failed`.
    public func run(on backend: any Backend, report: (GoldenResult) -> Void) throws {
        for file in files {
            do {
                let result = try replay(file, on: backend)
                try backend.checkForFailure()
                report(result)
            } catch BackendError.failed(let message, let lacksMemory) {
                throw BackendError.failed(message, lacksMemory: lacksMemory)  // the device, not the vectors
            } catch {
                report(GoldenResult(name: file, status: .failed("\(error)"), detail: ""))
            }
        }
    }

    private func replay(_ path: String, on backend: any Backend) throws -> GoldenResult {
        let url = root.appendingPathComponent(path)
        if path.hasSuffix(".json") {
            let content = try JSONValue(contentsOf: url)
            switch content["kind"]?.stringValue ?? kinds[path] ?? kind(ofShape: content) {
            case "param_count": return try replayParameterCounts(content).result(path)
            case "lr_schedule": return try replaySchedules(content).result(path)
            case "search_trace": return try replaySearch(content).result(path)
            case let kind?:
                throw GoldenError("\(path) is of the kind '\(kind)', which this program doesn't know")
            case nil:
                throw GoldenError("\(path) doesn't say of which kind it is, and its members don't show it")
            }
        }
        let file = try SafetensorsFile(url)
        guard let text = file.metadata["golden"] else {
            throw GoldenError(
                "\(path) has no description under __metadata__[\"golden\"]; it is no golden vector")
        }
        let golden = try JSONValue(parsing: text.utf8)
        switch try golden.string("kind") {
        case "glora_layer": return try replayLayer(file, golden, on: backend).result(path)
        case "vit_base": return try replayBase(file, golden, on: backend).result(path)
        case "vision_base": return try replayVision(file, golden, on: backend).result(path)
        case "vit_fixed", "vision_fixed":
            return try replayFixed(file, golden, base: base(of: golden, for: url), on: backend).result(path)
        case "vit_trajectory":
            return try replayTrajectory(file, golden, base: base(of: golden, for: url), on: backend).result(
                path)
        case "operation": return try replayOperation(file, golden, on: backend).result(path)
        case "rope": return try replayRotation(file, golden, on: backend).result(path)
        case "peft":
            return try replayMethod(file, golden, base: base(of: golden, for: url), on: backend).result(path)
        case let kind: throw GoldenError("\(path) is of the kind '\(kind)', which this program doesn't know")
        }
    }

    /// JSON files of the first sets say their kind only in the manifest; without one their members show it.
    private func kind(ofShape content: JSONValue) -> String? {
        if content["candidates"] != nil, content["layers"] != nil { return "param_count" }
        if content["draws"] != nil, content["generations"] != nil { return "search_trace" }
        let members = content.objectValue ?? [:]
        if !members.isEmpty, members.values.allSatisfy({ $0["lr_used_in_epoch"] != nil }) {
            return "lr_schedule"
        }
        return nil
    }

    /// The file of the frozen model: `base` counts from the suite's root; a folder of the suite alone has it beside.
    private func base(of golden: JSONValue, for url: URL) throws -> SafetensorsFile {
        let name = try golden.string("base")
        let candidates = [
            root.appendingPathComponent(name),
            url.deletingLastPathComponent().appendingPathComponent((name as NSString).lastPathComponent),
        ]
        guard let found = candidates.first(where: { FileManager.default.fileExists(atPath: $0.path) }) else {
            throw GoldenError("\(url.path) needs \(name), which isn't in \(root.path); copy it there")
        }
        return try SafetensorsFile(found)
    }
}

extension GLoRAPath {
    /// A path as the goldens write it: `{"A": "LoRA_4", "B": "vector", …}`. Throws `FormError` or `GoldenError`.
    init(golden: JSONValue) throws {
        self.init(
            a: try MatrixForm(text: golden.string("A")), b: try MatrixForm(text: golden.string("B")),
            c: try PromptForm(text: golden.string("C")), d: try ScaleForm(text: golden.string("D")),
            e: try ScaleForm(text: golden.string("E")))
    }
}
