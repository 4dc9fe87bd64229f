import Adapters
import Checkpoints
import TensorCore
import Transformers

extension VisionTransformer {
    /// The checkpoint of the same shape that computes what this model computes as its layers are set, in timm's names: W and b
    /// folded, the head the task's. Throws `CheckpointError` when the tensors don't make a checkpoint, or would be rounded to the 16 bits
    /// that this model stores (not with `allowsRounding`), `MethodError` for what can't be folded, and `BackendError.failed`.
    public func merged(allowsRounding: Bool = false) throws -> ViTCheckpoint {
        if isForInference { throw CheckpointError("a model that only infers keeps no weights to merge") }
        if backend.precision.stored != .float32, !allowsRounding {
            throw CheckpointError(
                "a merged checkpoint of this model would be rounded to \(backend.precision.rawValue); build it in float32 and give it "
                    + "the trained values: other.store.pack(other.store.values, store.unpack(store.values))")
        }
        if let reason = method.unmergeable { throw CheckpointError("this run can't be merged: \(reason)") }
        var tensors = unused
        for (name, stored) in onDevice where !name.hasPrefix("head.") {
            tensors[name] = HostTensor(shape: stored.shape, values: backend.values(stored.tensor))
        }
        for parameter in [head.head.base.weight, head.head.base.bias].compactMap(\.self) {
            tensors[parameter.name] = backend.host(parameter.value)
        }
        attachments.begin?()
        func fold(_ place: ScaleShift?, _ name: String) {
            guard let place, let weight = tensors["\(name).weight"] else { return }
            (tensors["\(name).weight"], tensors["\(name).bias"]) = place.folded(
                weight, tensors["\(name).bias"])
        }
        fold(attachments.patches, "patch_embed.proj")
        for layer in layers {
            guard let (weight, bias) = try layer.folded() else { continue }
            tensors["\(layer.base.name).weight"] = weight
            tensors["\(layer.base.name).bias"] = bias
        }
        for (index, block) in attachments.blocks.enumerated() {
            guard block.tokens == nil, block.besideMLP == nil, block.behindMLP == nil else {
                throw MethodError(
                    "what stands in block \(index) beside its Linears can't be folded into them")
            }
            fold(block.norms[0], "blocks.\(index).norm1")
            fold(block.norms[1], "blocks.\(index).norm2")
        }
        if head.norm != nil { fold(attachments.norm, configuration.finalNorm) }
        head.featureNorm?.fold(into: &tensors)
        try backend.checkForFailure()
        var merged = try ViTCheckpoint(configuration: configuration, tensors: tensors)
        (merged.timmName, merged.resizing, merged.isHuggingFace) = (timmName, resizing, isHuggingFace)
        return merged
    }
}
