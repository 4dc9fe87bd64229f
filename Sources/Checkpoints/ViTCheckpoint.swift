import Foundation
import TensorCore

/// Who says how a model's images are prepared.
public enum PreprocessingOrigin: Codable, Hashable, Sendable {
    /// A file of the model's own, by its name.
    case file(String)
    /// Nobody: Google's `.npz` files are known to take pixels of −1…1.
    case google
    /// Nobody: timm's or transformers' defaults are assumed.
    case assumed
}

/// A vision transformer as files hold it: the architecture and the weights in timm's names and shapes.
///
/// Read by `load` from timm, Hugging Face or Google files; written by `saveTimm` and `saveHuggingFace`.
public struct ViTCheckpoint: Equatable, Sendable {
    /// The architecture and how images are prepared.
    public var configuration: ViTConfiguration
    /// The weights by timm's names (`blocks.0.attn.qkv.weight`), of exactly the shapes that
    /// `configuration.tensorShapes` says.
    public var tensors: [String: HostTensor]
    /// [classCount] the names of the head's classes, where the file says them. Two classes may have one name.
    public var classNames: [String]?
    /// Who says how images are prepared.
    public var preprocessingOrigin = PreprocessingOrigin.assumed
    /// What was assumed or left out when the file was read, a sentence each, for the user to see.
    public var notes: [String]

    /// A checkpoint of these weights. Throws `CheckpointError` naming the tensor that is missing, unexpected or of
    /// another shape than the configuration says (both are given).
    public init(
        configuration: ViTConfiguration, tensors: [String: HostTensor], notes: [String] = []
    ) throws {
        self.configuration = configuration
        self.tensors = tensors
        self.notes = notes
        try configuration.check(source: "the checkpoint")
        let shapes = configuration.tensorShapes
        for (name, shape) in shapes.sorted(by: { $0.key < $1.key }) {
            guard let tensor = tensors[name] else {
                throw CheckpointError("the checkpoint has no tensor '\(name)'")
            }
            guard tensor.shape == shape else {
                throw CheckpointError("tensor '\(name)' has shape \(tensor.shape); the model needs \(shape)")
            }
        }
        if let name = tensors.keys.filter({ shapes[$0] == nil }).min() {
            throw CheckpointError("the checkpoint has the tensor '\(name)', which the model doesn't")
        }
    }

    /// Reads a vision transformer.
    ///
    /// - timm: a `.safetensors` file or a folder with `model.safetensors`; `config.json` beside it.
    /// - Hugging Face: a folder with `config.json` (`model_type` vit) and `model.safetensors` or its shards.
    /// - Google: an `.npz` file.
    ///
    /// `heads` is needed only for a timm file without `config.json` whose heads aren't 64 wide. Throws
    /// `CheckpointError` naming the file, the tensor and both shapes; a model with parts that this program doesn't
    /// compute is refused.
    public static func load(_ url: URL, heads: Int? = nil) throws -> ViTCheckpoint {
        var status = stat()
        guard stat(url.path, &status) == 0 else {
            throw CheckpointError(
                "cannot open \(url.path): \(String(cString: strerror(errno))); check the path")
        }
        let isFolder = status.st_mode & S_IFMT == S_IFDIR
        if !isFolder, try FileReader(url).isZip { return try GoogleFormat.load(url, heads: heads) }

        let folder = isFolder ? url : url.deletingLastPathComponent()
        let source: any TensorSource = isFolder ? try openFolder(url) : try SafetensorsFile(url)
        // What our own files say of themselves comes before a config.json that may belong to a neighbour.
        let configURL = folder.appendingPathComponent("config.json")
        var config: JSONValue?
        if let text = (source as? SafetensorsFile)?.metadata["config"] {
            config = try? JSONValue(parsing: text.utf8)
        }
        if config == nil, FileManager.default.fileExists(atPath: configURL.path) {
            config = try JSONValue(contentsOf: configURL)
        }
        let names = source.names.filter { $0.hasSuffix("embeddings.cls_token") }
        if !names.isEmpty || config?["model_type"] != nil {
            guard let config, config["model_type"] != nil else {
                throw CheckpointError(
                    "\(source.path) has Hugging Face's names; its config.json must lie beside it")
            }
            return try HuggingFaceFormat.load(source, config: config, folder: folder, heads: heads)
        }
        return try TimmFormat.load(source, config: config, heads: heads)
    }

    /// Whether the file is an archive of arrays, as Google's models are, and not safetensors.
    public static func isNPZ(_ url: URL) -> Bool { (try? FileReader(url).isZip) ?? false }

    private static func openFolder(_ folder: URL) throws -> any TensorSource {
        func exists(_ name: String) -> Bool {
            FileManager.default.fileExists(atPath: folder.appendingPathComponent(name).path)
        }
        if exists("model.safetensors") {
            return try SafetensorsFile(folder.appendingPathComponent("model.safetensors"))
        }
        if exists("model.safetensors.index.json") { return try ShardedSafetensors(folder) }
        if exists("pytorch_model.bin") {
            throw CheckpointError(
                "\(folder.path) has its weights only as pytorch_model.bin, a pickle, which could run code; "
                    + "convert them to model.safetensors")
        }
        throw CheckpointError("\(folder.path) has no model.safetensors; give the model's folder or file")
    }

    // MARK: Heads

    /// The same model with another head: `weight` [classes, width], `bias` [classes]. Traps on other shapes.
    public func withHead(weight: HostTensor, bias: HostTensor) -> ViTCheckpoint {
        precondition(
            weight.shape == [bias.values.count, configuration.width] && bias.shape.count == 1,
            "a head of \(weight.shape) and \(bias.shape) doesn't fit the width \(configuration.width)")
        var checkpoint = withoutHead()
        checkpoint.configuration.classCount = bias.values.count
        checkpoint.tensors["head.weight"] = weight
        checkpoint.tensors["head.bias"] = bias
        return checkpoint
    }

    /// The same model without its head: `classCount` 0.
    public func withoutHead() -> ViTCheckpoint {
        var checkpoint = self
        checkpoint.configuration.classCount = 0
        checkpoint.tensors["head.weight"] = nil
        checkpoint.tensors["head.bias"] = nil
        return checkpoint
    }
}

extension FileReader {
    /// Whether the file begins as a zip archive does.
    var isZip: Bool {
        get throws { try size >= 4 && elements(UInt8.self, count: 4, at: 0) == [0x50, 0x4B, 3, 4] }
    }
}
