import Adapters
import Checkpoints
import TensorCore

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
        guard let attachments else { return nil }
        attachments.begin?()
        var result: [String: LinearFactors] = [:]
        for (index, linear) in linears.enumerated() {
            guard let beside = attachments.blocks[index / 4].linears[index % 4].beside else { continue }
            guard let factors = beside.factors() else { return nil }
            result[linear.name] = factors
        }
        return result
    }

    /// This model, which another method has trained, as a GLoRA adapter on `checkpoint`, the pretrained model that it was trained
    /// from. Throws `CheckpointError` with the reason where no path computes the same.
    public func gloraAdapter(on checkpoint: ViTCheckpoint) throws -> GLoRAAdapter {
        func failure(_ reason: String) -> CheckpointError {
            CheckpointError("no GLoRA path computes the same: \(reason)")
        }
        guard let method else {
            throw failure("the run is GLoRA's already; its adapter folder is what you want")
        }
        if let reason = method.unmergeable { throw failure(reason) }
        var head = [
            "head.weight": backend.host(self.head.weight.value),
            "head.bias": backend.host(self.head.bias!.value),
        ]
        var changes: [(linear: GLoRALinear, change: LayerChange)] = []
        foldHeadNorm(into: &head)
        if let attachments {
            guard attachments.patches == nil, attachments.norm == nil,
                attachments.blocks.allSatisfy({ $0.norms.allSatisfy { $0 == nil } })
            else {
                throw failure(
                    "SSF also scales behind LayerNorms and the patch embedding; train it with --targets linears"
                )
            }
            attachments.begin?()
            for (index, linear) in linears.enumerated() {
                let places = attachments.blocks[index / 4].linears[index % 4]
                guard !places.isEmpty else { continue }
                let change = try change(of: linear, places)
                guard linear.bias != nil || !change.path.changesBias else {
                    throw failure("\(linear.name) has no bias for E to change")
                }
                changes.append((linear, change))
            }
        } else if store.segments.contains(where: { !$0.name.hasPrefix("head.") }) {
            let strangers = store.segments.map(\.name).filter {
                !$0.hasPrefix("head.") && !$0.hasSuffix(".bias")
            }
            if let stranger = strangers.first {
                throw failure("full fine-tuning changes every tensor, \(stranger) among them")
            }
            func shift(_ name: String) -> [Float]? {
                guard let trained = store[name], let original = checkpoint.tensors[name] else { return nil }
                return zip(backend.values(trained.value), original.values).map { $0 - $1 }
            }
            for (index, linear) in linears.enumerated() {
                let norm = [0: "norm1", 2: "norm2"][index % 4].map { "blocks.\(index / 4).\($0).bias" }
                guard let own = shift("\(linear.name).bias") else {
                    if norm == nil { continue }
                    throw failure("\(linear.name) has no bias for C and E to change")
                }
                changes.append((linear, LayerChange(column: norm.flatMap(shift), shift: own)))
            }
            // The final LayerNorm's shift reaches the head's bias through the head's weight.
            let name = configuration.pooling == .meanBeforeNorm ? "fc_norm" : "norm"
            if let change = shift("\(name).bias"), let weight = head["head.weight"] {
                let column = weight.product(HostTensor(shape: [configuration.width, 1], values: change))
                head["head.bias"]!.values = zip(head["head.bias"]!.values, column.values).map { $0 + $1 }
            }
        }
        try backend.checkForFailure()
        let rank = changes.map(\.change.rank).max() ?? 1
        var layers: [String: GLoRAAdapter.Layer] = [:]
        for (linear, change) in changes { layers[linear.name] = change.layer(linear, rank: rank) }
        return GLoRAAdapter(rank: rank, layers: layers, head: head)
    }

    private func change(of linear: GLoRALinear, _ places: Attachments.LinearPlaces) throws -> LayerChange {
        var change = LayerChange()
        if let behind = places.behind {
            change.scale = backend.values(behind.scale.value).map { $0 - 1 }
            change.shift = backend.values(behind.shift.value)
        }
        guard let update = places.before ?? places.beside else { return change }
        guard places.behind == nil, let factors = update.factors() else {
            throw CheckpointError(
                "no GLoRA path computes the same: \(linear.name) has an update that isn't linear")
        }
        change.factors = factors
        guard places.before != nil else { return change }
        let weight = backend.host(linear.weight.value)
        change.factors?.up = weight.product(factors.up)
        change.shift = factors.bias.map {
            weight.product(HostTensor(shape: [linear.inputs, 1], values: $0.values)).values
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

    func layer(_ linear: GLoRALinear, rank storage: Int) -> GLoRAAdapter.Layer {
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
