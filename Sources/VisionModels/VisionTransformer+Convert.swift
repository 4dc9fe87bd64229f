import Adapters
import Checkpoints
import TensorCore
import Transformers

/// Other methods as GLoRA paths that compute the same function: the claim that GLoRA contains them, made constructive.
///
/// | method | A | B | C | D | E |
/// | --- | --- | --- | --- | --- | --- |
/// | LoRA, FacT | | Up · Down | | | |
/// | RepAdapter, on the Linear behind it | | s · W₀ Up · Down | | | s · W₀ (Up a + b) |
/// | SSF on Linears | γ − 1, vector | | | γ − 1 | β |
/// | BitFit | | | the LayerNorm's δ before it | | its own δ |
/// | a linear probe | | | | | |
///
/// Not: SSF behind LayerNorms and the patch embedding (a scale of what a Linear reads has no form in the space for every
/// rank), VPT and NOAH (tokens), AdaptFormer and Adapter (an activation between their matrices), full fine-tuning.
/// Source: arXiv 2306.07967, §3.
extension VisionTransformer {
    /// The updates up · down of the Linears that have one beside them, by name; nil where something isn't linear.
    public func lowRankFactors() -> [String: LinearFactors]? {
        attachments.begin?()
        var result: [String: LinearFactors] = [:]
        for case let layer as AdaptedLinear in layers {
            guard let beside = layer.beside else { continue }
            guard let factors = beside.factors() else { return nil }
            result[layer.base.name] = factors
        }
        return result
    }

    /// This model, which another method has trained, as a GLoRA adapter on `checkpoint`, the pretrained model that it was trained
    /// from. Throws `CheckpointError` with the reason where no path computes the same.
    public func gloraAdapter(on checkpoint: ViTCheckpoint) throws -> GLoRAAdapter {
        func failure(_ reason: String) -> CheckpointError {
            CheckpointError("no GLoRA path computes the same: \(reason)")
        }
        guard !(method is GLoRA) else {
            throw failure("the run is GLoRA's already; its adapter folder is what you want")
        }
        if let reason = method.unmergeable { throw failure(reason) }
        var head = [
            "head.weight": backend.host(self.head.head.base.weight.value),
            "head.bias": backend.host(self.head.head.base.bias!.value),
        ]
        self.head.featureNorm?.fold(into: &head)
        guard attachments.patches == nil, attachments.norm == nil,
            attachments.blocks.allSatisfy({ $0.norms.allSatisfy { $0 == nil } })
        else {
            throw failure(
                "SSF also scales behind LayerNorms and the patch embedding; train it with `targets linears`")
        }
        let strangers = store.segments.map(\.name).filter {
            checkpoint.tensors[$0] != nil && !$0.hasPrefix("head.") && !$0.hasSuffix(".bias")
        }
        if let stranger = strangers.first {
            throw failure("full fine-tuning changes every tensor, \(stranger) among them")
        }
        func shift(_ name: String) -> [Float]? {
            guard let trained = store[name], let original = checkpoint.tensors[name] else { return nil }
            return zip(backend.values(trained.value), original.values).map { $0 - $1 }
        }
        attachments.begin?()
        let trainsBiases =
            strangers.isEmpty
            && store.segments.contains {
                checkpoint.tensors[$0.name] != nil && !$0.name.hasPrefix("head.")
            }
        let isPlain =
            configuration.queries == .fused && configuration.feedForward.isGated == false
            && !configuration.normBeforeBlocks && !configuration.attentionNorm
            && !configuration.queryKeyNorm && configuration.norm == .layer
            && configuration.featureWidth == configuration.width && configuration.pooling != .attention
        guard isPlain || !trainsBiases else {
            throw failure("this model has biases that no Linear of a plain block comes behind")
        }
        var changes: [(linear: BaseLinear, change: LayerChange)] = []
        for block in blocks {
            for (site, layer) in zip(shape.sites, block.layers) {
                let linear = layer.base
                if let layer = layer as? AdaptedLinear {
                    let change = try change(of: layer)
                    guard linear.bias != nil || !change.path.changesBias else {
                        throw failure("\(linear.name) has no bias for E to change")
                    }
                    changes.append((linear, change))
                } else if trainsBiases {
                    let norm = [LinearRole.fusedQKV: "norm1", .up: "norm2"][site.role]
                    guard let own = shift("\(linear.name).bias") else {
                        if norm == nil { continue }
                        throw failure("\(linear.name) has no bias for C and E to change")
                    }
                    let column = norm.flatMap { shift("blocks.\(block.index).\($0).bias") }
                    changes.append((linear, LayerChange(column: column, shift: own)))
                }
            }
        }
        // The final LayerNorm's shift reaches the head's bias through the head's weight.
        if let change = shift("\(configuration.finalNorm).bias"), let weight = head["head.weight"] {
            let column = weight.product(HostTensor(shape: [configuration.width, 1], values: change))
            head["head.bias"]!.values = zip(head["head.bias"]!.values, column.values).map { $0 + $1 }
        }
        try backend.checkForFailure()
        let rank = changes.map(\.change.rank).max() ?? 1
        var layers: [String: GLoRAAdapter.Layer] = [:]
        for (linear, change) in changes { layers[linear.name] = change.layer(linear, rank: rank) }
        return GLoRAAdapter(rank: rank, layers: layers, head: head)
    }

    private func change(of layer: AdaptedLinear) throws -> LayerChange {
        let linear = layer.base
        var change = LayerChange()
        if let behind = layer.behind {
            change.scale = backend.values(behind.scale.value).map { $0 - 1 }
            change.shift = backend.values(behind.shift.value)
        }
        guard let update = layer.before ?? layer.beside else { return change }
        guard layer.behind == nil, let factors = update.factors() else {
            throw CheckpointError(
                "no GLoRA path computes the same: \(linear.name) has an update that isn't linear")
        }
        change.factors = factors
        guard layer.before != nil else { return change }
        let weight = backend.host(linear.weight.value)
        change.factors?.up = weight.product(factors.up)
        change.shift = factors.bias.map {
            weight.product($0.column).values
        }
        return change
    }
}

/// What a layer's path is to hold.
private struct LayerChange {
    var scale: [Float]?  // A and D
    var factors: LinearFactors?  // B
    var column: [Float]?  // C
    var shift: [Float]?  // E

    var rank: Int { factors?.down.shape[0] ?? 1 }

    var path: GLoRAPath {
        GLoRAPath(
            a: scale == nil ? .none : .vector, b: factors == nil ? .none : .lowRank(rank),
            c: column == nil ? .none : .vector, d: scale == nil ? .none : .vector,
            e: shift == nil ? .none : .vector)
    }

    func layer(_ linear: BaseLinear, rank storage: Int) -> GLoRAAdapter.Layer {
        var layer =
            factors.map {
                GLoRAAdapter.Layer.lowRankB(
                    down: $0.up, up: $0.down, scale: 1, storage: storage, outputs: linear.outputs,
                    inputs: linear.inputs)
            } ?? .empty(outputs: linear.outputs, inputs: linear.inputs, rank: storage)
        layer.path = path
        func fill(_ name: String, _ values: [Float]?, stride: Int) {
            for (index, value) in (values ?? []).enumerated() {
                layer.tensors[name]!.values[index * stride] = value
            }
        }
        fill("Ad", scale, stride: storage)
        fill("D", scale, stride: 1)
        fill("Cd", column, stride: storage)
        fill("E", shift, stride: 1)
        return layer
    }
}
