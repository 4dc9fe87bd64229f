import Checkpoints
import Datasets
import Foundation
import ModelConfiguration

/// What our adapters say beside PEFT's keys: what they belong to, how images are prepared, and what the classes are called.
func adapterNotes(
    _ options: TrainingOptions, _ configuration: ViTConfiguration, baseHash: String, classNames: [String]?
) -> [String: JSONValue] {
    var notes: [String: JSONValue] = [
        "glora_base_model": .string(options.model), "glora_base_hash": .string(baseHash),
        "glora_image_size": .integer(configuration.imageSize),
    ]
    notes["glora_architecture"] = try? JSONValue(parsing: JSONEncoder().encode(configuration))
    if let task = options.additions.task, task != .classes { notes["glora_task"] = .string(task.rawValue) }
    notes["glora_class_names"] = classNames.map { .array($0.map { .string($0) }) }
    return notes
}

extension TrainingOptions {
    /// Prepares images as an adapter of ours notes, where these options don't say otherwise; returns the noted class names. Other
    /// tensors than those that it was trained on are a note of the checkpoint's.
    ///
    /// Throws `CheckpointError`, also when the model computes something else than the one that the adapter was trained on.
    mutating func apply(_ notes: [String: JSONValue], to checkpoint: inout ViTCheckpoint) throws -> [String]?
    {
        func refuse(_ key: String) throws -> Never {
            throw CheckpointError("adapter_config.json: \(key) can't be read; save the adapter again")
        }
        if let noted = notes["glora_image_size"], noted.integerValue == nil { try refuse("glora_image_size") }
        if let names = notes["glora_class_names"],
            names.arrayValue?.allSatisfy({ $0.stringValue != nil }) != true
        {
            try refuse("glora_class_names")
        }
        // Another task than that of the model's own head.
        if notes["glora_base_model"] != nil { additions.task = nil }
        if let noted = notes["glora_task"] {
            guard let task = noted.stringValue.flatMap(LearningTask.init(rawValue:)) else {
                try refuse("glora_task")
            }
            additions.task = task
        }
        for key in ["glora_mean", "glora_std"] {
            if let noted = notes[key], noted.numbers?.count != 3 { try refuse(key) }
        }
        if imageSize == nil, let noted = notes["glora_image_size"]?.integerValue {
            imageSize = noted
            checkpoint = try loadCheckpoint()
        }
        if let noted = notes["glora_architecture"] {
            guard let own = try? JSONDecoder().decode(ViTConfiguration.self, from: Data(noted.text().utf8))
            else { try refuse("glora_architecture") }
            // The rest is the adapter's own, or may be asked for.
            var same = checkpoint.configuration
            (same.imageSize, same.classCount, same.preprocessing) =
                (own.imageSize, own.classCount, own.preprocessing)
            let changes = same.differences(from: own)
            guard changes.isEmpty else {
                throw CheckpointError(
                    "the adapter was not trained on \(model) as it is now: \(changes.joined(separator: "; ")); give the "
                        + "model that it was trained on, or mend that one's configuration")
            }
            if checkpoint.configuration.imageSize == own.imageSize,
                let hash = notes["glora_base_hash"]?.stringValue,
                hash != contentHash(checkpoint.tensors)
            {
                checkpoint.notes.append(
                    "the adapter was trained on other tensors than those of \(model); scores may be worse than its run's"
                )
            }
            checkpoint.configuration.preprocessing = own.preprocessing
            checkpoint.preprocessingOrigin = .file("the adapter")
        } else if let mean = notes["glora_mean"]?.numbers, let std = notes["glora_std"]?.numbers {
            // Adapters of early builds: squashed by the bicubic filter.
            checkpoint.configuration.preprocessing = Preprocessing(mean: mean, std: std)
            checkpoint.preprocessingOrigin = .file("the adapter")
        }
        checkpoint.configuration.preprocessing = preprocessing(of: checkpoint.configuration)
        return notes["glora_class_names"]?.arrayValue?.compactMap(\.stringValue)
    }
}

extension JSONValue {
    /// The numbers of an array.
    fileprivate var numbers: [Float]? { arrayValue?.compactMap { $0.numberValue.map { Float($0) } } }
}
