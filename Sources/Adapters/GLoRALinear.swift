import TensorCore

/// A frozen Linear W₀ [out, in], b₀ [out] with GLoRA's support tensors, which all paths share:
///
///     W = W₀ ⊙ (1 + A) + B,   b = b₀ ⊙ (1 + D) + E + W₀ · C,   y = x Wᵀ + b
///
/// | tensor | shape | first value |
/// | --- | --- | --- |
/// | Ad, Bd | [out, R] | 0 |
/// | Au, Bu | [R, in] | U(±√(6 / (in + R))), Xavier |
/// | Cd | [in, R] | 0 |
/// | Cu | [R, 1] | U(±√(6 / (1 + R))) |
/// | D, E | [out] | 0 |
///
/// W₀ is never written, so there is nothing to undo and nothing divides by 1 + A. W is rebuilt in the backward rather than
/// kept: one elementwise pass is cheaper than the memory of four effective weights in every block (340 MB for ViT-B).
///
/// Source: ViT-Slim/GLoRA/layer.py, `SuperScalableLinear`.
public struct GLoRALinear {
    /// The layer's name in the model: `blocks.0.attn.qkv`.
    public let name: String
    /// W₀ [out, in]; has a gradient only in pretraining.
    public let weight: Parameter
    /// b₀ [out], or nil.
    public let bias: Parameter?
    /// The support tensors, or nil where the search space leaves the layer alone.
    public let support: Support?

    /// The entangled storage of one layer.
    public struct Support {
        /// Ad [out, R] and Au [R, in].
        public let ad, au: Parameter
        /// Bd [out, R] and Bu [R, in].
        public let bd, bu: Parameter
        /// Cd [in, R] and Cu [R, 1].
        public let cd, cu: Parameter
        /// D and E, [out].
        public let d, e: Parameter

        /// Finds the eight tensors of layer `name`. Nil when the store has none of that name.
        public init?(_ name: String, in store: ParameterStore) {
            guard let ad = store["\(name).Ad"], let au = store["\(name).Au"],
                let bd = store["\(name).Bd"], let bu = store["\(name).Bu"],
                let cd = store["\(name).Cd"], let cu = store["\(name).Cu"],
                let d = store["\(name).D"], let e = store["\(name).E"]
            else { return nil }
            (self.ad, self.au, self.bd, self.bu) = (ad, au, bd, bu)
            (self.cd, self.cu, self.d, self.e) = (cd, cu, d, e)
        }
    }

    /// Memory that one layer at a time works in; large enough for the largest.
    public struct Scratch {
        /// [out · in]: W in the forward; dW, then W again, in the backward.
        let weight: Tensor
        /// [out]: b in the forward, db in the backward.
        let bias: Tensor
        /// [in]: the column C in the forward, its gradient in the backward.
        let prompt: Tensor

        /// Memory for layers of at most these sizes, from an arena. Throws `BackendError.outOfMemory`.
        public init(_ arena: Arena, weightCount: Int, outputs: Int, inputs: Int) throws {
            weight = try arena.take([weightCount])
            bias = try arena.take([outputs])
            prompt = try arena.take([inputs])
        }
    }

    /// A layer over parameters that exist.
    public init(name: String, weight: Parameter, bias: Parameter?, support: Support?) {
        self.name = name
        self.weight = weight
        self.bias = bias
        self.support = support
    }

    /// The width of the output.
    public var outputs: Int { weight.value.shape[0] }
    /// The width of the input.
    public var inputs: Int { weight.value.shape[1] }

    /// What a store must hold for a layer of this name and these widths at the largest rank `rank`, with first values drawn
    /// from `random`.
    public static func declarations(
        _ name: String, inputs: Int, outputs: Int, rank: Int, random: inout Random
    ) -> [ParameterStore.Declaration] {
        func xavier(_ rows: Int, _ columns: Int) -> HostTensor {
            let bound = (6 / Double(rows + columns)).squareRoot()
            let values = (0..<rows * columns).map { _ in Float(random.uniform(in: -bound...bound)) }
            return HostTensor(shape: [rows, columns], values: values)
        }
        func zeros(_ shape: [Int]) -> HostTensor { HostTensor(shape: shape, repeating: 0) }
        return [
            .init("\(name).Ad", zeros([outputs, rank])), .init("\(name).Au", xavier(rank, inputs)),
            .init("\(name).Bd", zeros([outputs, rank])), .init("\(name).Bu", xavier(rank, inputs)),
            .init("\(name).Cd", zeros([inputs, rank])), .init("\(name).Cu", xavier(rank, 1)),
            .init("\(name).D", zeros([outputs])), .init("\(name).E", zeros([outputs])),
        ]
    }

    /// The tensors that a path reads, as their names end: those that get a gradient in a step on this path.
    /// Xu is on the path only in lowRank form; D only where there is a b₀ to scale.
    public func tensorsOnPath(_ path: GLoRAPath) -> [String] {
        var names: [String] = []
        if path.a != .none { names.append("Ad") }
        if case .lowRank = path.a { names.append("Au") }
        if path.b != .none { names.append("Bd") }
        if case .lowRank = path.b { names.append("Bu") }
        if path.c != .none { names.append("Cd") }
        if case .lowRank = path.c { names.append("Cu") }
        if path.d != .none, bias != nil { names.append("D") }
        if path.e != .none { names.append("E") }
        return names
    }

    /// y [n, out] from x [n, in] on `path`.
    public func forward(
        _ y: Tensor, _ x: Tensor, path: GLoRAPath, _ backend: any Backend, _ scratch: Scratch
    ) {
        backend.linear(
            y, x, effectiveWeight(path, backend, scratch), effectiveBias(path, backend, scratch))
    }

    /// dx [n, in] is overwritten, or left out where nothing below is trained; the gradients of the tensors on the path, and of
    /// W₀ and b₀ where they have one, accumulate.
    public func backward(
        _ dx: Tensor?, _ dy: Tensor, _ x: Tensor, path: GLoRAPath, _ backend: any Backend,
        _ scratch: Scratch
    ) {
        if let gradient = weight.gradient {
            backend.matmul(gradient, dy, x, transposeA: true, transposeB: false, accumulate: true)
        }
        if let gradient = bias?.gradient { backend.sumRows(gradient, dy, accumulate: true) }
        if path.changesBias, let support {
            let db = Tensor(buffer: scratch.bias.buffer, shape: [outputs])
            let prompt = Tensor(buffer: scratch.prompt.buffer, shape: [inputs])
            backend.sumRows(db, dy, accumulate: false)
            backend.gloraBiasBackward(
                support.c(path), support.d(path), support.e(path), prompt, db, weight.value, bias?.value)
        }
        if path.changesWeight, let support {
            let dw = Tensor(buffer: scratch.weight.buffer, shape: [outputs, inputs])
            backend.matmul(dw, dy, x, transposeA: true, transposeB: false, accumulate: false)
            backend.gloraWeightBackward(support.a(path), support.b(path), dw, weight.value)
        }
        if let dx {
            let w = effectiveWeight(path, backend, scratch)
            backend.matmul(dx, dy, w, transposeA: false, transposeB: false, accumulate: false)
        }
    }

    /// W [out, in] and b [out] of the path as host tensors: a plain Linear that computes the same. Without b₀ and without a
    /// bias term on the path, b stays nil.
    public func merged(
        path: GLoRAPath, _ backend: any Backend, _ scratch: Scratch
    ) -> (weight: HostTensor, bias: HostTensor?) {
        (
            backend.host(effectiveWeight(path, backend, scratch)),
            effectiveBias(path, backend, scratch).map(backend.host)
        )
    }

    /// W in the scratch memory, or W₀ itself where the path doesn't change it.
    private func effectiveWeight(
        _ path: GLoRAPath, _ backend: any Backend, _ scratch: Scratch
    ) -> Tensor {
        guard path.changesWeight, let support else { return weight.value }
        let w = Tensor(buffer: scratch.weight.buffer, shape: [outputs, inputs])
        backend.gloraWeight(w, weight.value, support.a(path), support.b(path))
        return w
    }

    private func effectiveBias(
        _ path: GLoRAPath, _ backend: any Backend, _ scratch: Scratch
    ) -> Tensor? {
        guard path.changesBias, let support else { return bias?.value }
        let b = Tensor(buffer: scratch.bias.buffer, shape: [outputs])
        let prompt = Tensor(buffer: scratch.prompt.buffer, shape: [inputs])
        backend.gloraBias(
            b, prompt, weight.value, bias?.value, support.c(path), support.d(path), support.e(path))
        return b
    }
}

extension GLoRALinear.Support {
    func a(_ path: GLoRAPath) -> MatrixTerm { MatrixTerm(form: path.a, down: ad, up: au) }
    func b(_ path: GLoRAPath) -> MatrixTerm { MatrixTerm(form: path.b, down: bd, up: bu) }
    func c(_ path: GLoRAPath) -> PromptTerm { PromptTerm(form: path.c, down: cd, up: cu) }
    func d(_ path: GLoRAPath) -> ScaleTerm { ScaleTerm(form: path.d, values: d) }
    func e(_ path: GLoRAPath) -> ScaleTerm { ScaleTerm(form: path.e, values: e) }
}
