import ArgumentParser
import Checkpoints
import Datasets
import Foundation
import TensorCore
import Training
import VisionModels

/// The base that a training command starts from, on its device.
struct TrainingBase {
    let checkpoint: ViTCheckpoint
    let backend: any Backend

    /// `supernet`: the run whose base this is, as that run keeps it; `productParts`: those of the run that goes on.
    init(
        _ options: TrainingOptions, of supernet: RunDirectory? = nil, productParts: Int? = nil,
        _ device: DeviceFlags, _ console: Console
    ) throws {
        checkpoint =
            try supernet.map { try $0.configuration().loadBase(of: $0.url) } ?? options.loadCheckpoint()
        for note in checkpoint.notes { console.note(note) }
        backend = try device.backend(console, options.precision, productParts: productParts)
        try device.tuneIfNew(backend, checkpoint.configuration, batch: options.batchSize, console)
    }
}

/// `--check-images`, of commands that read images for hours.
struct ImageCheckFlags: ParsableArguments {
    @Flag(
        inversion: .prefixedNo,
        help: "Read every image once before the first step, so that a damaged one is found then.")
    var checkImages = true

    /// Reads every image of these splits, unless `--no-check-images` leaves it out. Throws `DatasetError`, and `ExitCode` at
    /// Ctrl-C.
    func check(_ splits: [PreparedImages], _ console: Console) throws {
        guard checkImages else { return }
        let total = splits.reduce(0) { $0 + $1.source.count }
        var done = 0
        defer { console.endProgress() }
        for split in splits {
            let notes = try split.checkImages(
                onProgress: { console.progress("checking images: \(done + $0)/\(total)") },
                shouldStop: { Interrupt.wasRequested })
            if Interrupt.wasRequested {
                console.say("stopped while the images were being checked; nothing has changed")
                throw ExitCode.stopped
            }
            for note in notes { console.note(note) }
            done += split.source.count
        }
    }
}

/// What `train` and `finetune` start from: settings that can be meant, the data's splits, and the base.
struct TrainingStart {
    /// With what the data ask for where no flag says otherwise.
    let options: TrainingOptions
    let training: ImageList
    let validation: ImageList?
    let base: TrainingBase
    private let keepsBase: Bool
    private let checks: ImageCheckFlags
    private let console: Console

    /// `resuming`: the run whose own settings these are, which the data don't change any more. `supernet`: the run that this one goes
    /// on from, on the same base.
    init(
        _ options: TrainingOptions, resuming: RunDirectory? = nil, of supernet: RunDirectory? = nil,
        _ device: DeviceFlags,
        _ checks: ImageCheckFlags,
        _ console: Console
    ) throws {
        do {
            try options.validate()
            if resuming == nil, supernet == nil { try options.refuseWithoutEffect() }
        } catch { throw ValidationError(error) }
        let task = try TaskFolder.open(
            URL(fileURLWithPath: options.data), for: options.additions.task ?? .classes)
        training = try task.split(options.trainSplit)
        validation = try task.validationSplit()
        var parts = [DataSummary.Part(.training, training)]
        if let validation { parts.append(DataSummary.Part(.validation, validation)) }
        console.say(try task.summary(parts))
        base = try TrainingBase(
            options, of: supernet,
            productParts: try (resuming ?? supernet)?.configuration().productParts, device, console)
        keepsBase = resuming != nil || supernet != nil
        var options = options
        if !keepsBase, task.isVTAB { options.keepVTABProtocol() }
        options.fit(imageCount: training.count)
        (self.options, self.checks, self.console) = (options, checks, console)
    }

    /// The run of these parts in `directory`.
    func fineTuning(
        in directory: RunDirectory, resumes: Bool = false, inheriting inherited: [String: HostTensor]? = nil
    ) throws -> FineTuning<VisionTransformer> {
        Interrupt.install()
        let tuning = try FineTuning(
            options, checkpoint: base.checkpoint, training: training, validation: validation, in: directory,
            resumes: resumes, inheriting: inherited, on: base.backend, continuation: directory.continuation
        ) { trainer in
            let line =
                keepsBase
                ? try trainer.model.configuration.runsPreprocessingLine
                : try options.preprocessingLine(base.checkpoint)
            console.say(line)
            if let augment = options.additions.augment { console.say("augmentation: \(augment)") }
            try checks.check(trainer.splits, console)
        }
        for note in tuning.notes { console.note(note) }
        return tuning
    }
}

extension RunDirectory {
    /// What goes on from its last state.
    var resumeCommand: String { "glora train --run \(url.path.shellQuoted) --resume" }

    /// The same for the errors of a `FineTuning`.
    var continuation: String { "go on from it with `\(resumeCommand)`" }
}

extension Console {
    /// What a command is going to read.
    func say(_ summary: DataSummary) {
        for line in summary.lines { say(line) }
        for note in summary.notes { self.note(note) }
    }
}
