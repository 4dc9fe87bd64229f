import Adapters
import Checkpoints
import TensorCore

extension VisionTransformer {
    /// The checkpoint of the same shape that computes what this model computes on `paths`, in timm's names: W and b folded,
    /// the head the task's. Throws `CheckpointError` when the tensors don't make a checkpoint, and `BackendError.failed`.
    public func merged(paths: [GLoRAPath]) throws -> ViTCheckpoint {
        var tensors = unused
        for (name, stored) in onDevice where !name.hasPrefix("head.") {
            tensors[name] = HostTensor(shape: stored.shape, values: backend.values(stored.tensor))
        }
        for parameter in [head.weight, head.bias].compactMap({ $0 }) {
            tensors[parameter.name] = backend.host(parameter.value)
        }
        if let attachments {
            if let reason = method?.unmergeable {
                throw CheckpointError("this run can't be merged: \(reason)")
            }
            fold(attachments, into: &tensors)
        }
        foldHeadNorm(into: &tensors)
        for (linear, path) in zip(linears, paths) where path != .none {
            let (weight, bias) = linear.merged(path: path, backend, scratch)
            tensors["\(linear.name).weight"] = weight
            tensors["\(linear.name).bias"] = bias
        }
        try backend.checkForFailure()
        return try ViTCheckpoint(configuration: configuration, tensors: tensors)
    }

    /// Linear terms and scales into the weights and biases that they stand at:
    ///
    ///     before: W (I + Up · Down), b + W · bias;  beside: W + Up · Down;  behind: γ ⊙ W by rows, γ ⊙ b + β
    private func fold(_ attachments: Attachments, into tensors: inout [String: HostTensor]) {
        attachments.begin?()
        func scale(_ place: ScaleShift?, _ name: String) {
            guard let place, let weight = tensors["\(name).weight"] else { return }
            let (gamma, beta) = (backend.values(place.scale.value), backend.values(place.shift.value))
            let row = weight.values.count / gamma.count
            tensors["\(name).weight"]!.values = weight.values.enumerated().map { $1 * gamma[$0 / row] }
            let bias = tensors["\(name).bias"]?.values ?? Array(repeating: 0, count: gamma.count)
            tensors["\(name).bias"] = HostTensor(
                shape: [gamma.count], values: bias.enumerated().map { $1 * gamma[$0] + beta[$0] })
        }
        func add(_ terms: HostTensor, to name: String) {
            guard let old = tensors[name] else { return tensors[name] = terms }
            tensors[name]!.values = zip(old.values, terms.values).map { $0 + $1 }
        }
        scale(attachments.patches, "patch_embed.proj")
        for (index, linear) in linears.enumerated() {
            let places = attachments.blocks[index / 4].linears[index % 4]
            if let before = places.before?.factors(), let weight = tensors["\(linear.name).weight"] {
                add(weight.product(before.up).product(before.down), to: "\(linear.name).weight")
                if let bias = before.bias {
                    var column = weight.product(HostTensor(shape: [linear.inputs, 1], values: bias.values))
                    column.shape = [linear.outputs]
                    add(column, to: "\(linear.name).bias")
                }
            }
            if let beside = places.beside?.factors() {
                add(beside.product, to: "\(linear.name).weight")
            }
            scale(places.behind, linear.name)
        }
        for (index, block) in attachments.blocks.enumerated() {
            scale(block.norms[0], "blocks.\(index).norm1")
            scale(block.norms[1], "blocks.\(index).norm2")
        }
        scale(attachments.norm, configuration.pooling == .meanBeforeNorm ? "fc_norm" : "norm")
    }

    /// head((x − μ) · rstd) as one Linear, where a batch norm is before the head.
    func foldHeadNorm(into tensors: inout [String: HostTensor]) {
        guard let runningMean, let runningVariance, let weight = tensors["head.weight"],
            let bias = tensors["head.bias"]
        else { return }
        let (mean, variance) = (backend.values(runningMean.value), backend.values(runningVariance.value))
        let width = mean.count
        let folded = weight.values.enumerated().map { index, value in
            value / (variance[index % width] + 1e-6).squareRoot()
        }
        tensors["head.weight"]!.values = folded
        tensors["head.bias"]!.values = bias.values.enumerated().map { row, value in
            value
                - Float(
                    (0..<width).reduce(0.0) { $0 + Double(folded[row * width + $1]) * Double(mean[$1]) })
        }
    }
}
