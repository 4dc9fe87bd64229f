import Adapters
import Checkpoints
import TensorCore
import Transformers

extension VisionTransformer {
    /// The trained tensors as an adapter that can be saved: each layer that has support tensors, on its path, and the head, with a
    /// batch norm before it folded in. Throws `BackendError.failed`.
    public func adapter() throws -> GLoRAAdapter {
        let values = store.unpack(store.values)
        var layers: [String: GLoRAAdapter.Layer] = [:]
        var rank = 1
        for case let layer as GLoRALinear in self.layers {
            var tensors: [String: HostTensor] = [:]
            for name in ["Ad", "Au", "Bd", "Bu", "Cd", "Cu", "D", "E"] {
                tensors[name] = values["\(layer.base.name).\(name)"]
            }
            rank = tensors["Au"]?.shape[0] ?? rank
            layers[layer.base.name] = GLoRAAdapter.Layer(path: layer.path, tensors: tensors)
        }
        var head = ["head.weight": values["head.weight"]!, "head.bias": values["head.bias"]!]
        self.head.featureNorm?.fold(into: &head)
        try backend.checkForFailure()
        return GLoRAAdapter(rank: rank, layers: layers, head: head)
    }

    /// What an adapter's tensors are called in PEFT's format: as in the model's files.
    public var adapterNames: AdapterNames { AdapterNames(configuration, isHuggingFace: isHuggingFace) }

    /// The model of `checkpoint` with an adapter's tensors, on its paths. Layers that the adapter doesn't
    /// name stay as they are. The adapter was read for this checkpoint (`PEFTAdapter.load`). Without a head where none is needed the
    /// logits, of one class, mean nothing. Throws `CheckpointError` when a head is needed and there is none, and
    /// `BackendError.outOfMemory`.
    public static func applying(
        _ adapter: GLoRAAdapter, to checkpoint: ViTCheckpoint, needsHead: Bool = true,
        on backend: any Backend
    ) throws -> VisionTransformer {
        let classCount =
            adapter.head["head.weight"]?.shape[0] ?? checkpoint.configuration.classCount
        guard classCount > 0 || !needsHead else {
            throw CheckpointError("neither the adapter nor the model has a head; train one first")
        }
        let shape = checkpoint.configuration.shape
        let paths = shape.linears.map { adapter.layers[$0.name]?.path ?? .none }
        let model = try VisionTransformer(
            checkpoint, classCount: max(1, classCount),
            method: GLoRA(rank: adapter.rank, roles: shape.sites.map(\.role), .fixed(paths)), seed: 0,
            head: adapter.head.isEmpty ? checkpoint.head : adapter.head, on: backend)
        var values = model.store.unpack(model.store.values)
        for (layer, content) in adapter.layers {
            for (name, tensor) in content.tensors { values["\(layer).\(name)"] = tensor }
        }
        for (name, tensor) in adapter.head { values[name] = tensor }
        model.store.pack(model.store.values, values)
        return model
    }
}

extension ViTCheckpoint {
    /// The checkpoint's own head, `head.weight` [K, D] and `head.bias` [K]; nil without one.
    public var head: [String: HostTensor]? {
        guard let weight = tensors["head.weight"], let bias = tensors["head.bias"] else { return nil }
        return ["head.weight": weight, "head.bias": bias]
    }
}
