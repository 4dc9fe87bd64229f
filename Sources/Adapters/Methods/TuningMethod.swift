import TensorCore

/// A method of fine-tuning: what it trains, what it puts into a transformer, and what it chooses for each step.
public protocol TuningMethod {
    /// The tensors that it adds, with the authors' names, shapes and first values.
    func declarations(_ shape: TransformerShape, seed: Int) -> [ParameterStore.Declaration]
    /// Puts its layers and terms into a transformer, over tensors of a store. `arena` gives memory for what is computed from them.
    /// Throws `BackendError.outOfMemory`.
    func attach(
        to model: inout Attachments, _ store: ParameterStore, _ arena: Arena, _ backend: any Backend) throws
    /// Sets the layers, all in module order, to what step `step` of a run with this seed computes.
    func beginStep(_ step: Int, seed: Int, _ layers: [any LinearLayer])
    /// Sets the layers to what the method is validated, saved and merged as.
    func beginReading(_ layers: [any LinearLayer])
    /// Whether it trains a tensor of the pretrained model.
    func trains(_ name: String) -> Bool
    /// The added tensors that reach the output; those that don't get no gradient.
    func isUsed(_ name: String) -> Bool
    /// Of the trained tensors those that get a gradient as the layers are set now.
    func trainedNames(_ names: [String], _ layers: [any LinearLayer]) -> Set<String>
    /// The added parameters that reach the output as the layers are set now: what a comparison counts.
    func parameterCount(_ shape: TransformerShape, _ layers: [any LinearLayer]) -> Int
    /// Why the result can't be folded into the pretrained weights; nil when it can.
    var unmergeable: String? { get }
}

extension TuningMethod {
    public func declarations(_ shape: TransformerShape, seed: Int) -> [ParameterStore.Declaration] { [] }
    public func attach(
        to model: inout Attachments, _ store: ParameterStore, _ arena: Arena, _ backend: any Backend
    ) throws {}
    /// By default every step computes the same.
    public func beginStep(_ step: Int, seed: Int, _ layers: [any LinearLayer]) {}
    /// By default what the steps compute.
    public func beginReading(_ layers: [any LinearLayer]) {}
    public func trains(_ name: String) -> Bool { false }
    public func isUsed(_ name: String) -> Bool { true }
    /// By default all that are used.
    public func trainedNames(_ names: [String], _ layers: [any LinearLayer]) -> Set<String> {
        Set(names.filter(isUsed))
    }
    /// By default all that are declared and used.
    public func parameterCount(_ shape: TransformerShape, _ layers: [any LinearLayer]) -> Int {
        declarations(shape, seed: 0).filter { isUsed($0.name) }
            .reduce(0) { $0 + $1.shape.reduce(1, *) }
    }
    /// Mergeable by default.
    public var unmergeable: String? { nil }
}
