import Adapters
import Checkpoints
import Datasets
import TensorCore
import Transformers
import VisionModels

extension FineTuning where Model == VisionTransformer {
    /// Prepares a run on images in `directory`: a new one, or with `resumes` the one that is there, from its last state. A new one
    /// starts from `inherited`, the trained tensors of another run of the same space and classes, or from fresh ones. `check` is
    /// called before anything is written, with a trainer that has its images: what it throws leaves no folder behind.
    /// `continuation` is how to go on from the last state, a part of a sentence (default: by the setting `resume`).
    ///
    /// Throws `TrainingError` for settings that can't be meant, a folder in the way, another frozen base or other data than
    /// the run's, or too little memory (with the batch size that would fit); `CheckpointError`; `BackendError`.
    public convenience init(
        _ options: TrainingOptions, checkpoint: ViTCheckpoint, training: any ImageSource,
        validation: (any ImageSource)?, in directory: RunDirectory, resumes: Bool = false,
        inheriting inherited: [String: HostTensor]? = nil, on backend: any Backend,
        continuation: String? = nil, check: (Trainer<VisionTransformer>) throws -> Void = { _ in }
    ) throws {
        try options.validate()
        guard training.count > 0 else {
            throw TrainingError.settings("\(training.name) has no images to train on")
        }
        var checkpoint = checkpoint
        let saved = resumes ? try directory.configuration() : nil
        var notes: [String] = []
        let hashes = [training.contentHash, validation?.contentHash ?? 0].map { String($0, radix: 16) }
        if let saved {
            let known = checkpoint.notes.count
            try saved.restoreBase(&checkpoint, from: options.model, of: directory.url)
            notes += checkpoint.notes[known...]
            // A damaged validation image may be replaced: it changes which state counts as the best from here on, no step.
            let before = saved.dataHash.split(separator: "-").map(String.init)
            guard before.first == hashes[0] else {
                throw TrainingError.run(
                    "the training images of \(options.data) are not the data that \(directory.url.path) was started with "
                        + "(hash \(hashes[0]), the run has \(before.first ?? "none")); give the same splits")
            }
            if let names = saved.classNames, names != training.classNames {
                notes.append(
                    "the classes' names have changed since \(directory.url.path) was started; the run keeps its own"
                )
            }
            if let parts = saved.productParts, let own = backend.productParts, parts != own {
                notes.append(
                    "\(directory.url.path) was started with products cut into \(parts) parts, here they are cut into \(own): "
                        + "what follows may differ in its last bits")
            }
            if before != hashes {
                notes.append(
                    "the validation images have changed since \(directory.url.path) was started; from here on the best "
                        + "state is chosen on those that are there now")
            }
        } else {
            try directory.refuseExisting()
            checkpoint.configuration.preprocessing = options.preprocessing(of: checkpoint.configuration)
        }
        let baseHash = saved?.baseHash ?? contentHash(checkpoint.tensors)
        let classNames = saved?.classNames ?? training.classNames
        let model = try VisionTransformer(
            checkpoint, classCount: training.classCount,
            method: try options.tuningMethod(checkpoint.configuration.shape, of: saved),
            seed: options.seed, headKind: options.head, memory: options.memory, on: backend)
        if model.method is GLoRA || options.method == .lora,
            AdapterNames.timmAddsBias(model.configuration)
        {
            notes.append(
                "timm adds the biases of this model's queries and values itself and goes past its `attn.qkv`: in PEFT an adapter "
                    + "acts there only once it is merged, and GLoRA's C, D and E never")
            if model.method is GLoRA, model.configuration.rotary != nil {
                notes.append(
                    "what C, D and E of `attn.qkv` give to keys that are rotated has no place in this model's files, so that `merge` "
                        + "will refuse it: where a merged model is wanted, leave out the forms of C, D and E or that Linear"
                )
            }
        }
        try model.checkMemory(batch: min(options.batchSize, training.count))
        let preprocessing = try model.configuration.preprocessor
        let trainer = try Trainer(
            model, options,
            training: PreparedImages(
                training, preprocessing, augmentation: try options.additions.augmentation),
            validation: validation.map { PreparedImages($0, preprocessing) })
        try check(trainer)
        let notesOfAdapter = adapterNotes(
            options, model.configuration, baseHash: baseHash, classNames: classNames)
        try self.init(
            trainer, in: directory,
            new: saved != nil
                ? nil
                : RunDirectory.Configuration(
                    options: options, paths: PathChoice.isFile(options.path) ? model.paths : nil,
                    baseHash: baseHash, dataHash: hashes.joined(separator: "-"),
                    classCount: training.classCount, classNames: classNames,
                    architecture: checkpoint.configuration, productParts: backend.productParts),
            inheriting: inherited, notes: notes, continuation: continuation
        ) {
            if model.method is GLoRA {
                try PEFTAdapter.save(
                    try model.adapter(), to: directory.adapter, names: model.adapterNames,
                    extra: notesOfAdapter)
            } else {
                try MethodAdapter.save(model, options, to: directory.adapter, extra: notesOfAdapter)
            }
        }
        samples = {
            let shown = min(6, training.count)
            return try trainer.splits[0].sheet(
                of: (0..<shown).map { $0 * training.count / shown }, views: 4, seed: options.seed)
        }
    }
}

extension TrainableModel {
    /// Throws before a step's memory is taken when it can't fit, with what is needed and what would fit.
    package func checkMemory(batch: Int) throws {
        let available = backend.memoryByteCount
        guard plannedByteCount(batch: batch) > available else { return }
        /// The largest batch that fits, by bisection; 0 for none.
        func largest(_ policy: MemoryPolicy?) -> Int {
            var (fits, tooLarge) = (0, batch + 1)
            while tooLarge - fits > 1 {
                let middle = (fits + tooLarge) / 2
                if plannedByteCount(batch: middle, memory: policy) <= available {
                    fits = middle
                } else {
                    tooLarge = middle
                }
            }
            return fits
        }
        var remedies: [String] = []
        // The one that computes the least twice.
        if let policy = MemoryPolicy.allCases.reversed().first(where: { largest($0) == batch }) {
            remedies.append("`memory \(policy.rawValue)` would fit")
        }
        let (now, least) = (largest(nil), largest(.lowest))
        func parts(_ size: Int) -> String {
            "`batch-size \(size)` would fit, with `accumulate \((batch + size - 1) / size)` for steps of as many images"
        }
        if now > 0 {
            remedies.append(parts(now))
        } else if remedies.isEmpty, least > 0 {
            remedies.append("with `memory lowest` \(parts(least))")
        }
        throw TrainingError.settings(
            "a step of \(batch) images needs about \(plannedByteCount(batch: batch) >> 20) MiB, \(backend.name) has "
                + "\(available >> 20) MiB; "
                + (remedies.isEmpty
                    ? "not even one image fits, so use a smaller `image-size` or `ranks`, or another `device`"
                    : remedies.joined(separator: ", or ")))
    }
}

extension TrainingOptions {
    /// What these settings train in a model of this shape, on the paths that a run keeps, or else on those that `path` says.
    /// Throws `MethodError`, `FormError` and `TrainingError.settings`.
    public func tuningMethod(
        _ shape: TransformerShape, of run: RunDirectory.Configuration? = nil
    ) throws -> any TuningMethod {
        let space = try searchSpace()
        let method = try method.method(methodSettings, for: shape, space: space)
        guard var glora = method as? GLoRA else { return method }
        glora.choice =
            try run.map { try PathChoice($0, space: space, for: shape) }
            ?? PathChoice(path, space: space, recipe: recipe.draws, for: shape)
        return glora
    }
}
