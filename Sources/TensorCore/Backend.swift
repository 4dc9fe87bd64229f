/// What a device can do for a vision transformer with adapters: a closed set of operations, each with its backward.
///
/// Destination-passing: arguments come in the order outputs, inputs, constants. Every tensor is dense and row-major;
/// a tensor of more than two dimensions is read as the matrix [rows, columns] where a matrix is asked for.
/// Activation gradients are overwritten, parameter gradients accumulate; an operation that does otherwise says so.
/// An output may be the same tensor as an input only where the operation says so.
///
/// A backend states its own part of each operation here, with the sizes last. Who uses it calls the operation without them, in
/// `Backend+Contract.swift`, which checks the shapes and types for every backend alike.
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
    /// `Precision`. These are W₀ and W; x, z, y, GELU(y), dy and dx of Linears and of `gelu`; the operands of `matmul`;
    /// qkv and out of attention; y of `layerNorm`, branch of `residualAdd`, out of `scaleSamples`, the tokens of
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
    /// out ← value, float32.
    func fill(_ out: Tensor, _ value: Float, count: Int)
    /// out ← x, of the same count. Each may be stored in the precision: then x is widened, or rounded to the nearest.
    func copy(_ out: Tensor, _ x: Tensor, count: Int)

    // MARK: Matrices

    /// c [m, n] ← op(a) · op(b), or c + op(a) · op(b) when `accumulate`. op(a) is [m, k], op(b) [k, n];
    /// `transposeA` means that a is stored [k, m], `transposeB` that b is stored [n, k].
    func matmul(
        _ c: Tensor, _ a: Tensor, _ b: Tensor, transposeA: Bool, transposeB: Bool, accumulate: Bool,
        m: Int, n: Int, k: Int)
    /// z [n, out] = x [n, in] · Wᵀ, and what `epilogue` makes of it: y [n, out], z itself and GELU(y), each where it is
    /// wanted: the three are different tensors, and there is at least one. Otherwise a product and `finish`.
    func linear(
        _ y: Tensor?, _ x: Tensor, _ weight: LinearWeight, _ epilogue: Epilogue, rows: Int, outputs: Int,
        inputs: Int)
    /// The epilogue alone, of a z [n, out] that is in memory. y may be z.
    func finish(_ y: Tensor?, _ z: Tensor, _ epilogue: Epilogue, rows: Int, outputs: Int)
    /// dx [n, in] ← dy [n, out] · W. Otherwise a product.
    func linearBackward(
        _ dx: Tensor, _ dy: Tensor, _ weight: LinearWeight, rows: Int, outputs: Int, inputs: Int)
    /// W, built once in the layout that `linear` reads fastest, for paths that stay: takes memory of its own. Otherwise in rows.
    /// Throws `BackendError.outOfMemory`.
    func prepared(_ weight: LinearWeight) throws -> LinearWeight
    /// out [d] ← Σₙ x [n, d], or out + Σₙ x when `accumulate`.
    func sumRows(_ out: Tensor, _ x: Tensor, accumulate: Bool, rows: Int, columns: Int)

    // MARK: GLoRA

    /// W = W₀ ⊙ (1 + A) + B, all [out, in]. `weight` is not `frozen`, which is never written.
    func gloraWeight(
        _ weight: Tensor, _ frozen: Tensor, _ a: MatrixTerm, _ b: MatrixTerm, outputs: Int, inputs: Int)
    /// Given dW = dyᵀ · x, with dy [n, out] and x [n, in], accumulates into the gradients of a and b:
    ///
    ///     ∂A = dW ⊙ W₀, ∂B = dW;  lowRank: ∂Xd[:, :r] += ∂X · Xu[:r]ᵀ, ∂Xu[:r] += Xd[:, :r]ᵀ · ∂X;
    ///     vector: ∂Xd[:, 0] += Σᵢ ∂X[:, i];  constant: ∂Xd[0, 0] += Σ ∂X.
    ///
    /// Elements that the form doesn't read are left as they are. `scratch` [out, in] may be written: a backend that
    /// contracts dW as it is computed leaves it alone.
    func gloraWeightBackward(
        _ a: MatrixTerm, _ b: MatrixTerm, _ scratch: Tensor, _ dy: Tensor, _ x: Tensor, _ frozen: Tensor,
        rows: Int, outputs: Int, inputs: Int)
    /// t [n, r] ← x [n, in] · Bu[:r]ᵀ for a lowRank b; for vector and constant r = 1 and t = Σᵢ x.
    func gloraProject(_ t: Tensor, _ x: Tensor, _ b: MatrixTerm, rows: Int, inputs: Int)
    /// The sums over the rows of dy [n, out] that activation space needs:
    ///
    ///     dBias = Σₙ dy;   vector a: ∂Ad[:, 0] += Σₙ dy ⊙ z, constant: the sum of that into [0, 0];
    ///     lowRank b: ∂Bd[:, :r] += dyᵀ · t, vector: ∂Bd[:, 0] += dyᵀ · t, constant: the sum of that into [0, 0].
    ///
    /// dBias [out] is overwritten. z [n, out] belongs to a, t [n, r] to b; nil where the form is none.
    func gloraOutputBackward(
        _ dBias: Tensor, _ a: MatrixTerm?, _ b: MatrixTerm?, _ dy: Tensor, _ z: Tensor?, _ t: Tensor?,
        rows: Int, outputs: Int)
    /// u [n, r] ← dy · Bd[:, :r] (lowRank), dy · Bd[:, 0] (vector), Bd[0, 0] · Σₒ dy (constant); and for lowRank
    /// ∂Bu[:r] += uᵀ · x.
    func gloraProjectBackward(
        _ u: Tensor, _ b: MatrixTerm, _ dy: Tensor, _ x: Tensor, rows: Int, outputs: Int, inputs: Int)
    /// b = b₀ ⊙ (1 + D) + E + W₀ · C with b [out], and `prompt` [in] receives the column C (it is scratch; zeros when
    /// C is none). Without b₀: b = E + W₀ · C, and D is not used. C goes through the frozen W₀, never through W.
    func gloraBias(
        _ bias: Tensor, _ prompt: Tensor, _ frozen: Tensor, _ frozenBias: Tensor?,
        _ c: PromptTerm, _ d: ScaleTerm, _ e: ScaleTerm, outputs: Int, inputs: Int)
    /// Given dBias [out] = Σ dy, accumulates into the gradients of c, d and e, using `dPrompt` [in] as scratch:
    ///
    ///     ∂C = W₀ᵀ · db;  lowRank: ∂Cd[:, :r] += ∂C · Cu[:r]ᵀ, ∂Cu[:r] += Cd[:, :r]ᵀ · ∂C;  vector: ∂Cd[:, 0] += ∂C;
    ///     ∂D = db ⊙ b₀, ∂E = db;  constant: the sum goes into element 0.
    func gloraBiasBackward(
        _ c: PromptTerm, _ d: ScaleTerm, _ e: ScaleTerm,
        _ dPrompt: Tensor, _ dBias: Tensor, _ frozen: Tensor, _ frozenBias: Tensor?, outputs: Int, inputs: Int
    )

    // MARK: Transformer

    /// patches [B, (H/p)·(W/p), C·p·p] ← images [B, C, H, W], each patch flattened channel, row, column (the order of a
    /// convolution's weight [D, C, p, p]); patches in raster order.
    func extractPatches(
        _ patches: Tensor, _ images: Tensor, patchSize: Int, batch: Int, channels: Int, height: Int,
        width: Int
    )
    /// tokens [B, T, D] ← positions [T, D] + [class token; projected patches [B, N, D]], with T = N + 1, or T = N
    /// without a class token.
    func embedTokens(
        _ tokens: Tensor, _ projected: Tensor, _ classToken: Tensor?, _ positions: Tensor, _ sizes: TokenSizes
    )
    /// dProjected [B, N, D] is overwritten; dClassToken [D] and dPositions [T, D] accumulate the sums over the batch.
    func embedTokensBackward(
        _ dProjected: Tensor, _ dClassToken: Tensor?, _ dPositions: Tensor, _ dTokens: Tensor,
        _ sizes: TokenSizes)
    /// y = (x − mean) · rstd ⊙ weight + bias over the last dimension, rstd = 1 / √(var + ε) with the biased variance.
    /// x, y [n, d]; mean, rstd [n] are kept for the backward.
    func layerNorm(
        _ y: Tensor, _ mean: Tensor, _ rstd: Tensor,
        _ x: Tensor, _ weight: Tensor, _ bias: Tensor, epsilon: Float, rows: Int, columns: Int)
    /// dx [n, d], and with `accumulate` dx + …: the residual stream's gradient is added to in place.
    /// dWeight and dBias [d] accumulate; nil when frozen.
    func layerNormBackward(
        _ dx: Tensor, _ dWeight: Tensor?, _ dBias: Tensor?,
        _ dy: Tensor, _ x: Tensor, _ mean: Tensor, _ rstd: Tensor, _ weight: Tensor, accumulate: Bool,
        rows: Int, columns: Int)
    /// Multi-head self-attention. qkv [B, T, 3·D] holds q, k, v in thirds, heads first inside each third; per head of
    /// width h = D/heads: S = q kᵀ / √h, P = softmax(S), out = P v. Only the first Q ≤ T tokens are queries: out is [B, Q, D],
    /// and `logSumExp` [B, heads, Q] = ln Σⱼ exp(Sⱼ) is what the backward rebuilds P from. No [T, T] matrix is kept.
    func attention(_ out: Tensor, _ logSumExp: Tensor, _ qkv: Tensor, _ sizes: AttentionSizes)
    /// dqkv [B, T, 3·D] is overwritten (dq of the tokens that are no queries is zero), given what `attention` made: out and dOut
    /// [B, Q, D], logSumExp [B, heads, Q].
    func attentionBackward(
        _ dqkv: Tensor, _ dOut: Tensor, _ out: Tensor, _ logSumExp: Tensor, _ qkv: Tensor,
        _ sizes: AttentionSizes)
    /// out = x + scale[b] · branch, all [B, …]; without `sampleScale` [B], x + branch. out may be x.
    func residualAdd(_ out: Tensor, _ x: Tensor, _ branch: Tensor, sampleScale: Tensor?, count: Int)
    /// out = scale[b] · x, both [B, …], sampleScale [B]. out may be x.
    func scaleSamples(_ out: Tensor, _ x: Tensor, sampleScale: Tensor, count: Int)
    /// out [B, D] ← the mean of tokens [B, T, D] over T in `range`; the class token is 0..<1.
    func poolTokens(
        _ out: Tensor, _ tokens: Tensor, range: Range<Int>, batch: Int, tokenCount: Int, width: Int)
    /// dTokens [B, T, D] ← dOut / range.count inside `range`, zero outside.
    func poolTokensBackward(
        _ dTokens: Tensor, _ dOut: Tensor, range: Range<Int>, batch: Int, tokenCount: Int, width: Int)

    // MARK: Other methods' adapters

    /// out ← x, or out + x when `accumulate`, rows × columns of each, float32; the other elements of out's tensor stay as they
    /// are. The two blocks don't overlap, though they may lie in one tensor; rows of out don't either.
    func copyBlock(_ out: MatrixBlock, _ x: MatrixBlock, _ size: (rows: Int, columns: Int), accumulate: Bool)
    /// y ← f(x), of the same count; never of the identity. y may be x.
    func activate(_ y: Tensor, _ x: Tensor, _ activation: Activation, count: Int)
    /// dx ← dy ⊙ f′(x), with relu′(0) = 0; never of the identity. dx may be dy.
    func activateBackward(_ dx: Tensor, _ dy: Tensor, _ x: Tensor, _ activation: Activation, count: Int)
    /// y [n, d] ← x [n, d] ⊙ scale [d] + shift [d] in every row. y may be x.
    func scaleShift(_ y: Tensor, _ x: Tensor, _ scale: Tensor, _ shift: Tensor, rows: Int, columns: Int)
    /// The gradients of `scaleShift`, each where it is wanted:
    ///
    ///     dScale += Σₙ dy ⊙ x;  dShift += Σₙ dy;  dx ← dy ⊙ scale
    ///
    /// dx, dy, x [n, d]; dScale, dShift, scale [d]. dx may be dy.
    func scaleShiftBackward(
        _ dx: Tensor?, _ dScale: Tensor?, _ dShift: Tensor?, _ dy: Tensor, _ x: Tensor, _ scale: Tensor,
        rows: Int, columns: Int)
    /// y ← y + factor · x, of the same count.
    func addScaled(_ y: Tensor, _ x: Tensor, _ factor: Float, count: Int)
    /// yᵢ ← xᵢ · mask.factor where the mask keeps i, else 0. y may be x.
    ///
    /// The mask is a function of the seed and i alone, the same on every backend, so that the backward is the same call
    /// on dy, and no mask is kept in between.
    func dropout(_ y: Tensor, _ x: Tensor, _ mask: DropoutMask, count: Int)

    // MARK: Loss and optimizer

    /// losses [B] ← −log softmax(logits [B, K])[label], with labels [B] int32 in 0..<K.
    /// dLogits [B, K] ← (softmax − onehot) / B unless it is nil.
    func softmaxCrossEntropy(
        _ losses: Tensor, _ dLogits: Tensor?, _ logits: Tensor, _ labels: Tensor, batch: Int, classes: Int)
    /// One AdamW step over flat tensors [n] that hold many parameters, each a segment of whole blocks of
    /// `viewAlignment` elements:
    ///
    ///     θ ← θ (1 − λη);  m ← β₁m + (1−β₁)g;  v ← β₂v + (1−β₂)g²;  θ ← θ − η · c₁ · m / (√v · c₂ + ε)
    ///
    /// `segmentOfBlock` [n / viewAlignment] int32 says which segment a block belongs to; `segments` [count, 3] holds for
    /// each: 1 to update it or 0 to leave it and its moments alone, c₁ = 1/(1−β₁ᵗ), c₂ = 1/√(1−β₂ᵗ).
    /// Each segment has a step count t of its own.
    func adamW(
        _ values: Tensor, _ firstMoments: Tensor, _ secondMoments: Tensor,
        _ gradients: Tensor, _ segmentOfBlock: Tensor, _ segments: Tensor, _ settings: AdamWSettings,
        blocks: Int)
    /// One step of SGD with momentum over flat tensors [n], in segments as `adamW` has them:
    ///
    ///     v ← μv + (g + λθ);  θ ← θ − ηv
    ///
    /// Of `segments` [count, 3] only the first column counts: 1 to update a segment, 0 to leave it and its velocity alone.
    /// A velocity of zeros is what PyTorch starts from: its first v is g + λθ.
    func sgd(
        _ values: Tensor, _ velocity: Tensor, _ gradients: Tensor, _ segmentOfBlock: Tensor,
        _ segments: Tensor, _ settings: SGDSettings, blocks: Int)
}

/// What a view's offset must be a multiple of, in elements of 4 bytes: 512 bytes, the largest sub-buffer alignment that a
/// driver asks for (NVIDIA's 4,096 bits; PoCL and Intel ask for 1,024).
public let viewAlignment = 128

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
        self.learningRate = learningRate
        self.weightDecay = weightDecay
    }
}

/// The constants of an SGD step, PyTorch's without dampening and Nesterov's look ahead.
public struct SGDSettings: Sendable, Equatable {
    /// η.
    public var learningRate: Double
    /// λ, added to the gradient as λθ.
    public var weightDecay: Double
    /// μ.
    public var momentum = 0.9

    /// The usual momentum of 0.9.
    public init(learningRate: Double, weightDecay: Double) {
        self.learningRate = learningRate
        self.weightDecay = weightDecay
    }
}

/// What goes wrong with a device at the edges of a run. Each message says what, where, and what to do.
public enum BackendError: Error, CustomStringConvertible, Equatable {
    /// The device can't give that much memory.
    case outOfMemory(device: String, requested: Int, available: Int)
    /// No device answers to the name; lists those that exist.
    case noSuchDevice(String)
    /// A driver refused something: the operation, the status, and advice.
    case driver(String)
    /// A kernel didn't compile: the driver's log, which names file and line.
    case build(String)
    /// The device failed in the middle of the work: the operation, the status, and advice.
    case failed(String)

    /// One sentence: what, where, what to do.
    public var description: String {
        switch self {
        case .outOfMemory(let device, let requested, let available) where requested <= available:
            "\(device) refuses \((requested + (1 << 20) - 1) >> 20) MiB, though \(available >> 20) MiB should be free: another program, or "
                + "this process's threads under a limit (ulimit -v), hold its memory. Stop that, raise the limit, or use a smaller --batch-size or another --device."
        case .outOfMemory(let device, let requested, let available):
            "\(device) has not enough memory: \(requested >> 20) MiB asked for, "
                + "\(available >> 20) MiB there. Use a smaller --batch-size or another --device."
        case .noSuchDevice(let message), .driver(let message), .build(let message), .failed(let message):
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
