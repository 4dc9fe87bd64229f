import Checkpoints
import Training
import Transformers
import VisionModels

extension SearchRun where Model == VisionTransformer {
    /// A search of a vision transformer, whose adapter is written in PEFT's format. Errors as the other.
    public convenience init(
        _ ready: ReadyModel<VisionTransformer>, in directory: SearchDirectory,
        _ configuration: SearchDirectory.Configuration, resumes: Bool
    ) throws {
        try self.init(ready, in: directory, configuration, resumes: resumes) {
            try PEFTAdapter.save(
                try ready.model.adapter(), to: directory.adapter, names: ready.model.adapterNames,
                extra: ready.adapterExtra)
        }
    }
}
