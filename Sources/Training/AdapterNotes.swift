import Checkpoints
import Datasets
import Foundation
import TensorCore

/// What our adapters say beside PEFT's keys: what they belong to, how images are prepared, and what the classes are called.
func adapterNotes(
    _ options: TrainingOptions, _ configuration: ViTConfiguration, baseHash: String, classNames: [String]?
) -> [String: JSONValue] {
    var notes: [String: JSONValue] = [
        "glora_base_model": .string(options.model), "glora_base_hash": .string(baseHash),
        "glora_image_size": .integer(configuration.imageSize),
    ]
    notes["glora_preprocessing"] = try? JSONValue(parsing: JSONEncoder().encode(configuration.preprocessing))
    notes["glora_class_names"] = classNames.map { .array($0.map { .string($0) }) }
    return notes
}

extension TrainingOptions {
    /// Prepares images as an adapter of ours notes, where these options don't say otherwise; returns the noted class names.
    /// Throws `CheckpointError`.
    mutating func apply(_ notes: [String: JSONValue], to checkpoint: inout ViTCheckpoint) throws -> [String]?
    {
        if imageSize == nil, let noted = notes["glora_image_size"]?.integerValue {
            imageSize = noted
            checkpoint = try loadCheckpoint()
        }
        if let noted = notes["glora_preprocessing"] {
            guard let found = try? JSONDecoder().decode(Preprocessing.self, from: Data(noted.text().utf8))
            else {
                throw CheckpointError(
                    "adapter_config.json: glora_preprocessing can't be read; save the adapter again")
            }
            checkpoint.configuration.preprocessing = found
            checkpoint.preprocessingOrigin = .file("the adapter")
        } else if let mean = notes["glora_mean"]?.numbers, let std = notes["glora_std"]?.numbers {
            // Adapters of early builds: squashed by the bicubic filter.
            checkpoint.configuration.preprocessing = Preprocessing(mean: mean, std: std)
            checkpoint.preprocessingOrigin = .file("the adapter")
        }
        checkpoint.configuration.preprocessing = preprocessing(of: checkpoint.configuration)
        return notes["glora_class_names"]?.arrayValue?.map { $0.stringValue ?? $0.text() }
    }
}

extension JSONValue {
    /// The numbers of an array.
    fileprivate var numbers: [Float]? { arrayValue?.compactMap { $0.numberValue.map { Float($0) } } }
}
