/// What a device can do for a vision transformer with adapters: a closed set of operations, each with its backward.
///
/// Destination-passing: arguments come in the order outputs, inputs, constants. Every tensor is dense and row-major;
/// a tensor of more than two dimensions is read as the matrix [rows, columns] where a matrix is asked for.
/// Activation gradients are overwritten, parameter gradients accumulate; an operation that does otherwise says so.
/// An output may be the same tensor as an input only where the operation says so.
///
/// A backend does its part of each operation here, with the sizes last. What the operations compute stands in
/// `Backend+Contract.swift`, where they are called without the sizes and their shapes and types are checked for all backends.
/// `activate` doesn't come here with the identity, and no block to copy, rotate or gate is empty.
///
/// Memory is taken when a model or a plan is built, where allocation throws. The operations themselves neither
/// allocate nor throw. When the device fails at one (no memory left, a device that is gone), the backend has failed for good:
/// operations do nothing any more, what is read is NaN, and `checkForFailure` throws. Whoever reads results calls it
/// before they are used.
///
/// A backend is not `Sendable`: its queue belongs to one training loop.
public protocol Backend: AnyObject {
    /// What the user reads: `cpu (2 threads, OpenBLAS)`, `opencl:0 (NVIDIA H200)`.
    var name: String { get }
    /// The device's memory in bytes, for the plan that is printed before the first step.
    var memoryByteCount: Int { get }
    /// The largest single buffer in bytes; as much as there is memory unless a backend says otherwise.
    var largestBufferByteCount: Int { get }
    /// What frozen weights and the activations between operations may be stored in, those of one operation all alike; see
    /// `Precision`. These are W₀ and W; x, z, y, GELU(y), dy and dx of Linears and of `activate`; the operands of `matmul`;
    /// q, k, v and out of attention; x of `rotate`; a, b and y of `gate`; y of `layerNorm` and `rmsNorm`, and with it, where it is so, x;
    /// branch of `residualAdd`, out of `scaleSamples`, the tokens of
    /// `poolTokens`, patches and projected patches; x and y of `scaleShift`; and the gradients of all of them. `copy` goes
    /// between the types. Every other tensor is float32, and all are where a backend says nothing.
    var precision: Precision { get }
    /// Into how many parts products are cut, where that decides their last bits; a run keeps it, so that it goes on with the same.
    var productParts: Int? { get }

    // MARK: Memory

    /// Takes memory, uninitialised. Throws `BackendError.outOfMemory` with the size when the device has not enough.
    func makeBuffer(byteCount: Int) throws -> any Buffer
    /// A part of a tensor's memory, without a copy; it keeps the whole alive. The offset is a multiple of 512 bytes.
    func makeBuffer(partOf tensor: Tensor, byteOffset: Int, byteCount: Int) throws -> any Buffer
    /// Copies `tensor.byteCount` bytes, at least one, from the host; the source may be reused on return.
    func upload(_ tensor: Tensor, from source: UnsafeRawPointer)
    /// Waits for the operations before it, then copies `tensor.byteCount` bytes, at least one, to the host.
    func download(_ destination: UnsafeMutableRawPointer, from tensor: Tensor)
    /// Waits until every operation so far is done.
    func synchronize()
    /// Throws `BackendError.failed` with the first operation that the device failed at. Asked after results were read, or after
    /// `synchronize`: drivers may say later that an earlier operation failed.
    func checkForFailure() throws
    func fill(_ out: Tensor, _ value: Float, count: Int)
    func copy(_ out: Tensor, _ x: Tensor, count: Int)

    // MARK: Matrices

    func matmul(
        _ c: Tensor, _ a: Tensor, _ b: Tensor, transposeA: Bool, transposeB: Bool, accumulate: Bool,
        m: Int, n: Int, k: Int)
    func linear(
        _ y: Tensor?, _ x: Tensor, _ weight: LinearWeight, _ epilogue: Epilogue, rows: Int, outputs: Int,
        inputs: Int)
    func finish(_ y: Tensor?, _ z: Tensor, _ epilogue: Epilogue, rows: Int, outputs: Int)
    func linearBackward(
        _ dx: Tensor, _ dy: Tensor, _ weight: LinearWeight, rows: Int, outputs: Int, inputs: Int)
    /// W, built once in the layout that `linear` reads fastest, for paths that stay: takes memory of its own, in rows
    /// unless a backend says otherwise. Throws `BackendError.outOfMemory`.
    func prepared(_ weight: LinearWeight) throws -> LinearWeight
    func sumRows(_ out: Tensor, _ x: Tensor, accumulate: Bool, rows: Int, columns: Int)

    // MARK: GLoRA

    func gloraWeight(
        _ weight: Tensor, _ frozen: Tensor, _ a: MatrixTerm, _ b: MatrixTerm, outputs: Int, inputs: Int)
    func gloraWeightBackward(
        _ a: MatrixTerm, _ b: MatrixTerm, _ scratch: Tensor, _ dy: Tensor, _ x: Tensor, _ frozen: Tensor,
        rows: Int, outputs: Int, inputs: Int)
    func gloraProject(_ t: Tensor, _ x: Tensor, _ b: MatrixTerm, rows: Int, inputs: Int)
    func gloraOutputBackward(
        _ dBias: Tensor, _ a: MatrixTerm?, _ b: MatrixTerm?, _ dy: Tensor, _ z: Tensor?, _ t: Tensor?,
        rows: Int, outputs: Int)
    func gloraProjectBackward(
        _ u: Tensor, _ b: MatrixTerm, _ dy: Tensor, _ x: Tensor, rows: Int, outputs: Int, inputs: Int)
    func gloraBias(
        _ bias: Tensor, _ prompt: Tensor, _ frozen: Tensor, _ frozenBias: Tensor?,
        _ c: PromptTerm, _ d: ScaleTerm, _ e: ScaleTerm, outputs: Int, inputs: Int)
    func gloraBiasBackward(
        _ c: PromptTerm, _ d: ScaleTerm, _ e: ScaleTerm,
        _ dPrompt: Tensor, _ dBias: Tensor, _ frozen: Tensor, _ frozenBias: Tensor?, outputs: Int, inputs: Int
    )

    // MARK: Transformer

    func extractPatches(
        _ patches: Tensor, _ images: Tensor, patchSize: Int, batch: Int, channels: Int, height: Int,
        width: Int
    )
    func embedTokens(
        _ tokens: Tensor, _ projected: Tensor, _ prefix: Tensor?, _ positions: Tensor?, _ sizes: TokenSizes)
    func embedTokensBackward(
        _ dProjected: Tensor, _ dPrefix: Tensor?, _ dPositions: Tensor?, _ dTokens: Tensor,
        _ sizes: TokenSizes)
    func layerNorm(
        _ y: Tensor, _ mean: Tensor, _ rstd: Tensor,
        _ x: Tensor, _ weight: Tensor, _ bias: Tensor, epsilon: Float, rows: Int, columns: Int)
    func layerNormBackward(
        _ dx: Tensor, _ dWeight: Tensor?, _ dBias: Tensor?,
        _ dy: Tensor, _ x: Tensor, _ mean: Tensor, _ rstd: Tensor, _ weight: Tensor, accumulate: Bool,
        rows: Int, columns: Int)
    func rmsNorm(
        _ y: Tensor, _ rstd: Tensor, _ x: Tensor, _ weight: Tensor, epsilon: Float, rows: Int, columns: Int)
    func rmsNormBackward(
        _ dx: Tensor, _ dWeight: Tensor?, _ dy: Tensor, _ x: Tensor, _ rstd: Tensor, _ weight: Tensor,
        accumulate: Bool, rows: Int, columns: Int)
    func rotate(
        _ x: MatrixBlock, positions: Tensor, cosines: Tensor, sines: Tensor, layout: RotaryLayout,
        inverse: Bool, _ sizes: RotarySizes)
    func gate(
        _ y: Tensor, _ a: MatrixBlock, _ b: MatrixBlock, _ activation: Activation, rows: Int, columns: Int)
    func gateBackward(
        _ dA: MatrixBlock, _ dB: MatrixBlock, _ dy: Tensor, _ a: MatrixBlock, _ b: MatrixBlock,
        _ activation: Activation, rows: Int, columns: Int)
    func attention(
        _ out: Tensor, _ logSumExp: Tensor, queries: TokenBlock, keys: TokenBlock, values: TokenBlock,
        _ sizes: AttentionSizes)
    func attentionBackward(
        _ dQueries: TokenBlock, _ dKeys: TokenBlock, _ dValues: TokenBlock,
        _ dOut: Tensor, _ out: Tensor, _ logSumExp: Tensor, queries: TokenBlock, keys: TokenBlock,
        values: TokenBlock, _ sizes: AttentionSizes)
    func residualAdd(_ out: Tensor, _ x: Tensor, _ branch: Tensor, sampleScale: Tensor?, count: Int)
    func scaleSamples(_ out: Tensor, _ x: Tensor, sampleScale: Tensor, count: Int)
    func poolTokens(_ out: Tensor, _ tokens: Tensor, range: Range<Int>, _ sizes: TokenSizes)
    func poolTokensBackward(_ dTokens: Tensor, _ dOut: Tensor, range: Range<Int>, _ sizes: TokenSizes)

    // MARK: Other methods' adapters

    func copyBlock(_ out: MatrixBlock, _ x: MatrixBlock, _ size: (rows: Int, columns: Int), accumulate: Bool)
    func activate(_ y: Tensor, _ x: Tensor, _ activation: Activation, count: Int)
    func activateBackward(_ dx: Tensor, _ dy: Tensor, _ x: Tensor, _ activation: Activation, count: Int)
    func scaleShift(_ y: Tensor, _ x: Tensor, _ scale: Tensor, _ shift: Tensor?, rows: Int, columns: Int)
    func scaleShiftBackward(
        _ dx: Tensor?, _ dScale: Tensor?, _ dShift: Tensor?, _ dy: Tensor, _ x: Tensor, _ scale: Tensor,
        rows: Int, columns: Int)
    func addScaled(_ y: Tensor, _ x: Tensor, _ factor: Float, count: Int)
    func dropout(_ y: Tensor, _ x: Tensor, _ mask: DropoutMask, count: Int)

    // MARK: Loss and optimizer

    func softmaxCrossEntropy(
        _ losses: Tensor, _ dLogits: Tensor?, _ logits: Tensor, _ labels: Tensor, batch: Int, classes: Int)
    func targetLoss(
        _ losses: Tensor, _ dLogits: Tensor?, _ logits: Tensor, _ targets: Tensor, _ weights: Tensor?,
        _ kind: TargetLoss, batch: Int, outputs: Int)
    func adamW(
        _ values: Tensor, _ firstMoments: Tensor, _ secondMoments: Tensor,
        _ gradients: Tensor, _ segmentOfBlock: Tensor, _ segments: Tensor, _ settings: AdamWSettings,
        blocks: Int)
    func sgd(
        _ values: Tensor, _ velocity: Tensor, _ gradients: Tensor, _ segmentOfBlock: Tensor,
        _ segments: Tensor, _ settings: SGDSettings, blocks: Int)
    func lion(
        _ values: Tensor, _ moments: Tensor, _ gradients: Tensor, _ segmentOfBlock: Tensor,
        _ segments: Tensor, _ settings: LionSettings, blocks: Int)
}

/// What a view's offset must be a multiple of, in elements of 4 bytes: 512 bytes, the largest sub-buffer alignment that a
/// driver asks for (NVIDIA's 4,096 bits; PoCL and Intel ask for 1,024).
public let viewAlignment = 128

/// A loss of outputs z [B, K] and targets t [B, K]; of an example
///
///     softmax    Σₖ tₖ (log Σⱼ exp zⱼ − zₖ)                          classes: soft labels, smoothed or mixed ones
///     sigmoid    ¹⁄K Σₖ wₖ tₖ log(1 + exp −zₖ) + (1 − tₖ) log(1 + exp zₖ)     labels of which any may hold
///     squared    ¹⁄K Σₖ (zₖ − tₖ)²                                   values
///
/// Sources: timm's `SoftTargetCrossEntropy`; `torch.nn.BCEWithLogitsLoss` with its `pos_weight`; `torch.nn.MSELoss`.
public enum TargetLoss: String, CaseIterable, Sendable {
    case softmax, sigmoid, squared
}

/// The constants of an AdamW step, in double: a backend forms 1 − β in double before it rounds to float32 (1 − 0.999 in
/// float32 is off by 1.3e-5).
public struct AdamWSettings: Sendable, Equatable {
    /// η.
    public var learningRate: Double
    /// λ, decoupled.
    public var weightDecay: Double
    /// β₁.
    public var beta1 = 0.9
    /// β₂.
    public var beta2 = 0.999
    /// ε, added to the root.
    public var epsilon = 1e-8

    /// PyTorch's defaults for what isn't given.
    public init(learningRate: Double, weightDecay: Double) {
        (self.learningRate, self.weightDecay) = (learningRate, weightDecay)
    }
}

/// The constants of an SGD step, PyTorch's without dampening.
public struct SGDSettings: Sendable, Equatable {
    /// η.
    public var learningRate: Double
    /// λ, added to the gradient as λθ.
    public var weightDecay: Double
    /// μ.
    public var momentum = 0.9
    /// Whether the step looks ahead along the velocity.
    public var nesterov = false

    /// The usual momentum of 0.9.
    public init(learningRate: Double, weightDecay: Double) {
        (self.learningRate, self.weightDecay) = (learningRate, weightDecay)
    }
}

/// The constants of a step of Lion (Chen et al., arXiv 2302.06675), in double as AdamW's.
public struct LionSettings: Sendable, Equatable {
    /// η.
    public var learningRate: Double
    /// λ, decoupled.
    public var weightDecay: Double
    /// β₁, of the step's direction.
    public var beta1 = 0.9
    /// β₂, of what is kept.
    public var beta2 = 0.99

    /// The article's defaults for what isn't given.
    public init(learningRate: Double, weightDecay: Double) {
        (self.learningRate, self.weightDecay) = (learningRate, weightDecay)
    }
}

/// What goes wrong with a device at the edges of a run. Each message says what, where, and what to do.
public enum BackendError: Error, CustomStringConvertible, Equatable {
    /// The device can't give that much memory.
    case outOfMemory(device: String, requested: Int, available: Int)
    /// No device answers to the name; lists those that exist.
    case noSuchDevice(String)
    /// The device doesn't compute in that precision.
    case unsupported(Precision, device: String)
    /// A driver refused something: the operation, the status, and advice.
    case driver(String)
    /// A kernel didn't compile: the driver's log, which names file and line.
    case build(String)
    /// The device failed in the middle of the work: the operation, the status, and advice; whether a smaller batch may help.
    case failed(String, lacksMemory: Bool = false)

    /// One sentence: what, where, what to do.
    public var description: String {
        switch self {
        case .outOfMemory(let device, let requested, let available) where requested <= available:
            "\(device) refuses \((requested + (1 << 20) - 1) >> 20) MiB, though \(available >> 20) MiB should be free: another program, or "
                + "this process's threads under a limit (ulimit -v), hold its memory. Stop that, raise the limit, or use a smaller `batch-size` or another `device`."
        case .outOfMemory(let device, let requested, let available):
            "\(device) has not enough memory: \(requested >> 20) MiB asked for, "
                + "\(available >> 20) MiB there. Use a smaller `batch-size` or another `device`."
        case .unsupported(let precision, let device):
            "\(device) computes with float32 alone: for \(precision.rawValue) use an OpenCL device."
        case .noSuchDevice(let message), .driver(let message), .build(let message), .failed(let message, _):
            message
        }
    }
}

extension Backend {
    /// As much as there is memory.
    public var largestBufferByteCount: Int { memoryByteCount }

    /// float32 alone.
    public var precision: Precision { .float32 }

    /// A backend whose products have the same bits however they are cut.
    public var productParts: Int? { nil }

    /// A backend whose operations can't fail.
    public func checkForFailure() throws {}

    /// x · Wᵀ + bias of a plain weight.
    public func linear(_ y: Tensor, _ x: Tensor, _ weight: Tensor, _ bias: Tensor?) {
        linear(y, x, LinearWeight(weight), Epilogue(bias: bias))
    }

    /// A new tensor with the host's values.
    public func tensor(_ host: HostTensor) throws -> Tensor {
        let tensor = try allocate(host.shape, .float32)
        upload(tensor, host.values)
        return tensor
    }

    /// Copies values from the host, rounded to the tensor's type; traps unless the counts agree.
    public func upload(_ tensor: Tensor, _ values: [Float]) {
        precondition(tensor.count == values.count && tensor.elementType != .int32)
        switch tensor.elementType {
        case .bfloat16: values.map(bfloat16Bits).withUnsafeBytes { upload(tensor, $0) }
        case .float16: values.map { Float16($0) }.withUnsafeBytes { upload(tensor, $0) }
        default: values.withUnsafeBytes { upload(tensor, $0) }
        }
    }

    /// Copies int32 values from the host; traps unless the counts agree.
    public func upload(_ tensor: Tensor, _ values: [Int32]) {
        precondition(tensor.count == values.count && tensor.elementType == .int32)
        values.withUnsafeBytes { upload(tensor, $0) }
    }

    /// A tensor's values, read back to the host; traps for int32.
    public func values(_ tensor: Tensor) -> [Float] {
        func elements<Element>(_ type: Element.Type) -> [Element] {
            [Element](unsafeUninitializedCapacity: tensor.count) { buffer, count in
                download(UnsafeMutableRawBufferPointer(buffer), tensor)
                count = tensor.count
            }
        }
        switch tensor.elementType {
        case .float32: return elements(Float.self)
        case .bfloat16: return elements(UInt16.self).map(float(bfloat16Bits:))
        case .float16: return elements(Float16.self).map { Float($0) }
        case .int32: preconditionFailure("int32 has no float values")
        }
    }

    /// A tensor, read back to the host.
    public func host(_ tensor: Tensor) -> HostTensor {
        HostTensor(shape: tensor.shape, values: values(tensor))
    }
}
