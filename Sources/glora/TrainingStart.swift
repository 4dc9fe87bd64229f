import ArgumentParser
import Checkpoints
import Datasets
import Foundation
import TensorCore
import Training

/// The base that a training command starts from, on its device.
struct TrainingBase {
    let checkpoint: ViTCheckpoint
    let backend: any Backend

    init(_ options: TrainingOptions, _ device: DeviceFlags, _ console: Console) throws {
        checkpoint = try options.loadCheckpoint()
        for note in checkpoint.notes { console.note(note) }
        backend = try device.backend(console, options.precision)
        try device.tuneIfNew(backend, checkpoint.configuration, batch: options.batchSize, console)
    }
}

/// What `train` and `finetune` start from: settings that can be meant, the data's splits, and the base.
struct TrainingStart {
    let training: ImageList
    let validation: ImageList?
    let base: TrainingBase

    init(_ options: TrainingOptions, _ device: DeviceFlags, _ console: Console) throws {
        do { try options.validate() } catch { throw ValidationError("\(error)") }
        let task = try TaskFolder.open(URL(fileURLWithPath: options.data))
        training = try task.split(options.trainSplit)
        validation = try task.validationSplit()
        base = try TrainingBase(options, device, console)
    }

    /// The run of these parts in `directory`.
    func fineTuning(
        _ options: TrainingOptions, in directory: RunDirectory, resumes: Bool = false,
        inheriting inherited: [String: HostTensor]? = nil
    ) throws -> FineTuning {
        try FineTuning(
            options, checkpoint: base.checkpoint, training: training, validation: validation, in: directory,
            resumes: resumes, inheriting: inherited, on: base.backend)
    }
}
