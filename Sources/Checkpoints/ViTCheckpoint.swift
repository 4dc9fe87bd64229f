import Foundation
import ModelConfiguration
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

/// How a library brings positions to another image size: bicubic, by `F.interpolate`.
public enum PositionResizing: Codable, Hashable, Sendable {
    /// With antialias, as timm.
    case antialiased
    /// Without, as transformers' classes but one: DINOv2's features at 224 pixels of 518 are 4.7 % of the largest away from the other's.
    case sampled
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
    /// What Hugging Face's config.json calls the head's task, where it isn't to choose one class: multi_label_classification or
    /// regression.
    public var problemType: String?
    /// Who says how images are prepared.
    public var preprocessingOrigin = PreprocessingOrigin.assumed
    /// timm's name of the architecture, where the file said one that is known: what a written one is called.
    public var timmName: String?
    /// Whether the file is Hugging Face's.
    public var isHuggingFace = false
    /// The size of the images that its files prepare, where that isn't the size of its positions: DINOv2 was trained at 518 pixels, and
    /// its processor makes 224. `interpolated(toImageSize:)` makes the model for them.
    public var preparedSize: Int?
    /// How positions are brought to another image size.
    public var resizing = PositionResizing.antialiased
    /// What was assumed or left out when the file was read, a sentence each, for the user to see.
    public var notes: [String]

    /// A checkpoint of these weights. Throws `CheckpointError` naming the tensor that is missing, unexpected or of
    /// another shape than the configuration says (both are given).
    public init(
        configuration: ViTConfiguration, tensors: [String: HostTensor], notes: [String] = []
    ) throws {
        (self.configuration, self.tensors, self.notes) = (configuration, tensors, notes)
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
    /// - Hugging Face: a folder with `config.json` (`model_type` vit, vit_mae, deit, dinov2, dinov3_vit, clip, siglip, …) and
    ///   `model.safetensors` or its shards.
    /// - Google: an `.npz` file of vision_transformer or big_vision.
    ///
    /// Prefixes of wrappers (`module.`) are taken off and what only pretraining uses (`mask_token`) is left out, with
    /// a note each. How images are prepared is what the files say, and refused where this program can't do it.
    ///
    /// `heads` is needed only for a timm file without `config.json` whose heads aren't 64 wide. Throws
    /// `CheckpointError` naming the file, the tensor and both shapes; a model with parts that this program doesn't
    /// compute is refused, and so is a tensor that holds NaN or infinity.
    public static func load(_ url: URL, heads: Int? = nil) throws -> ViTCheckpoint {
        var status = stat()
        guard stat(url.path, &status) == 0 else {
            throw CheckpointError(
                "cannot open \(url.path): \(String(cString: strerror(errno))); check the path")
        }
        let isFolder = status.st_mode & S_IFMT == S_IFDIR
        if !isFolder {
            try refusePickle(url)
            if try FileReader(url).isZip { return try GoogleFormat.load(url, heads: heads) }
        }

        let folder = isFolder ? url : url.deletingLastPathComponent()
        let file: any TensorSource = isFolder ? try openFolder(url) : try SafetensorsFile(url)
        var notes: [String] = []
        let source = try file.withoutWrappers(notes: &notes)
        // What our own files say of themselves comes before a config.json that may belong to a neighbour.
        let configURL = folder.appendingPathComponent("config.json")
        var config: JSONValue?
        var origin = configURL.lastPathComponent
        if let text = (file as? SafetensorsFile)?.metadata["config"] {
            config = try? JSONValue(parsing: text.utf8)
            if config != nil { origin = URL(fileURLWithPath: file.path).lastPathComponent }
        }
        if config == nil, FileManager.default.fileExists(atPath: configURL.path) {
            config = try JSONValue(contentsOf: configURL)
        }
        let names = source.names.filter {
            $0.hasSuffix("embeddings.cls_token") || $0.hasSuffix("embeddings.position_embedding.weight")
        }
        if !names.isEmpty || config?["model_type"] != nil {
            guard let config, config["model_type"] != nil else {
                throw CheckpointError(
                    "\(source.path) has Hugging Face's names; its config.json must lie beside it")
            }
            return try HuggingFaceFormat.load(
                source, config: config, folder: folder, heads: heads, notes: notes)
        }
        return try TimmFormat.load(source, config: config, origin: origin, heads: heads, notes: notes)
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
        let files = (try? FileManager.default.contentsOfDirectory(atPath: folder.path)) ?? []
        if let name = files.filter({ pickleExtensions.contains(($0 as NSString).pathExtension) }).min() {
            throw pickle(folder.appendingPathComponent(name))
        }
        throw CheckpointError("\(folder.path) has no model.safetensors; give the model's folder or file")
    }

    // MARK: Pickles

    /// The names that torch.save's files end in.
    private static let pickleExtensions = ["bin", "pt", "pth", "ckpt", "pkl", "tar"]

    /// Throws for what torch.save writes: a zip whose first member is `…/data.pkl`, or a bare pickle of protocol 2.
    private static func refusePickle(_ url: URL) throws {
        let reader = try FileReader(url)
        let start = try reader.elements(UInt8.self, count: min(reader.size, 160), at: 0)
        let isZip = try reader.isZip && String(decoding: start, as: UTF8.self).contains("data.pkl")
        if isZip || start.starts(with: [0x80, 2]) || pickleExtensions.contains(url.pathExtension) {
            throw pickle(url)
        }
    }

    private static func pickle(_ url: URL) -> CheckpointError {
        CheckpointError(
            "\(url.path) is a pickle, which could run code and is not read; convert it in Python: "
                + "import torch; from safetensors.torch import save_file; "
                + "save_file({k: v.contiguous().clone() for k, v in torch.load('\(url.lastPathComponent)', "
                + "weights_only=True).items()}, 'model.safetensors'), where a training checkpoint needs ['model'] or "
                + "['state_dict'] before .items()")
    }

    // MARK: Heads

    /// The same model with another head: `weight` [classes, features], `bias` [classes]. Its classes have no names until
    /// `classNames` is set. Traps on other shapes.
    public func withHead(weight: HostTensor, bias: HostTensor) -> ViTCheckpoint {
        precondition(
            weight.shape == [bias.values.count, configuration.featureWidth] && bias.shape.count == 1,
            "a head of \(weight.shape) and \(bias.shape) doesn't fit features of \(configuration.featureWidth)"
        )
        var checkpoint = withoutHead()
        checkpoint.configuration.classCount = bias.values.count
        checkpoint.tensors["head.weight"] = weight
        checkpoint.tensors["head.bias"] = bias
        return checkpoint
    }

    /// The same model without its head: `classCount` 0, no class names.
    public func withoutHead() -> ViTCheckpoint {
        var checkpoint = self
        checkpoint.configuration.classCount = 0
        checkpoint.classNames = nil
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
