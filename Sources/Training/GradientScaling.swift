import TensorCore

/// The gradients of a store as one vector [n]: its norm, and the vector times a number.
struct GradientScaling {
    private let rows: Tensor  // [n / viewAlignment, viewAlignment]: the gradients
    private let ones, sums: Tensor  // [viewAlignment]
    private let factor: Tensor  // [1]
    private let backend: any Backend

    /// Throws `BackendError.outOfMemory`.
    init(_ store: ParameterStore, on backend: any Backend) throws {
        self.backend = backend
        rows = store.gradients.reshaped([store.gradients.count / viewAlignment, viewAlignment])
        ones = try backend.allocate([viewAlignment], .float32)
        sums = try backend.allocate([viewAlignment], .float32)
        factor = try backend.allocate([1], .float32)
        backend.fill(ones, 1)
    }

    /// √Σ g², the columns' sums of squares on the device and what is left in double.
    func norm() -> Double {
        backend.fill(sums, 0)
        backend.scaleShiftBackward(nil, sums, nil, rows, rows, ones)
        return backend.values(sums).reduce(0) { $0 + Double($1) }.squareRoot()
    }

    /// g ← g · by.
    func multiply(by value: Float) {
        backend.upload(factor, [value])
        let whole = rows.reshaped([1, rows.count])
        backend.scaleSamples(whole, whole, sampleScale: factor)
    }
}

/// The exponential moving average ā of a store's tensors: ā ← d ā + (1 − d) θ after each step, from the first values on.
///
/// Source: timm's `ModelEmaV3` without warm-up.
final class MovingAverage {
    /// [n] ā.
    let values: Tensor
    private let spare, factor: Tensor  // [n], [1]
    private let decay: Double
    private let store: ParameterStore
    private let backend: any Backend

    /// An average that begins as the store's values. Throws `BackendError.outOfMemory`.
    init(_ store: ParameterStore, decay: Double, on backend: any Backend) throws {
        (self.store, self.decay, self.backend) = (store, decay, backend)
        values = try backend.allocate([store.values.count], .float32)
        spare = try backend.allocate([store.values.count], .float32)
        factor = try backend.allocate([1], .float32)
        backend.copy(values, store.values)
        backend.upload(factor, [Float(decay)])
    }

    /// Takes the current values in.
    func add() {
        let whole = values.reshaped([1, values.count])
        backend.scaleSamples(whole, whole, sampleScale: factor)
        backend.addScaled(values, store.values, Float(1 - decay))
    }

    /// Runs `body` with the averages in the store.
    func inPlace<Result>(_ body: () throws -> Result) rethrows -> Result {
        backend.copy(spare, store.values)
        backend.copy(store.values, values)
        defer { backend.copy(store.values, spare) }
        return try body()
    }
}
