import Adapters
import Checkpoints
import Datasets
import Foundation
import ModelConfiguration

// How a checkpoint is read and its images are prepared: as the model's own files say, where no setting says otherwise.
extension TrainingOptions {
    /// Loads the model's checkpoint as these settings want it: at the run's image size, or that of the images that its files prepare, as
    /// `preprocessing` says. Throws `CheckpointError`.
    public func loadCheckpoint() throws -> ViTCheckpoint {
        var checkpoint = try ViTCheckpoint.load(URL(fileURLWithPath: model), heads: heads)
        if let size = imageSize ?? checkpoint.preparedSize, size != checkpoint.configuration.imageSize {
            checkpoint = try checkpoint.interpolated(toImageSize: size)
        }
        checkpoint.configuration.preprocessing = preprocessing(of: checkpoint.configuration)
        return checkpoint
    }

    /// For a training on a VTAB-1K task (`TaskFolder.isVTAB`): the benchmark's protocol where no setting says otherwise. Images are
    /// squashed by the bicubic filter; ImageNet's mean and deviation normalise for Google's `.npz` files, which say none.
    public mutating func keepVTABProtocol() {
        if crop == nil { (crop, interpolation) = (.squash, interpolation ?? .bicubic) }
        if normalize == .model, ViTCheckpoint.isNPZ(URL(fileURLWithPath: model)) { normalize = .imagenet }
    }

    /// What a checkpoint's files say, but for what these settings say otherwise.
    package func preprocessing(of configuration: ViTConfiguration) -> Preprocessing {
        var preprocessing = configuration.preprocessing
        switch normalize {
        case .model: break
        case .imagenet: (preprocessing.mean, preprocessing.std) = Preprocessing.imagenet
        case .inception: (preprocessing.mean, preprocessing.std) = Preprocessing.inception
        case .none: (preprocessing.mean, preprocessing.std) = ([0, 0, 0], [1, 1, 1])
        }
        if normalize != .model { preprocessing.rescale = 1.0 / 255 }
        switch crop {
        case nil: break
        case .squash:
            (preprocessing.resize, preprocessing.side, preprocessing.crop) = (.squash, nil, .rounded)
        case .center, .squashCenter:
            preprocessing.resize = crop == .center ? .shorterSide : .squash
            preprocessing.side = Double(resizeTo ?? configuration.imageSize * 8 / 7)
            preprocessing.crop = .rounded
        }
        preprocessing.filter = interpolation ?? preprocessing.filter
        return preprocessing
    }

    /// What makes images of any size the input of a model of this configuration. Throws `DatasetError`.
    public func preprocessor(for configuration: ViTConfiguration) throws -> Preprocessor {
        try Preprocessor(preprocessing(of: configuration), imageSize: configuration.imageSize)
    }

    /// A line for the user: how images are prepared, and who says so.
    public func preprocessingLine(_ checkpoint: ViTCheckpoint) throws -> String {
        let images = try preprocessor(for: checkpoint.configuration)
        let origin =
            switch checkpoint.preprocessingOrigin {
            case .file(let name): "as \(name) says"
            case .google:
                "as Google's models take them; no file says so (`normalize imagenet` for ImageNet's)"
            case .assumed: "no file says so"
            }
        let given = ([$normalize, $crop, $resizeTo, $interpolation] as [any AnySetting])
            .filter { $0.text != nil && $0.text != Normalization.model.rawValue }
            .map { "`\($0.name) \($0.text!)`" }
        return "images: \(images); \(origin)"
            + (given.isEmpty ? "" : ", but " + given.joined(separator: " "))
    }
}
