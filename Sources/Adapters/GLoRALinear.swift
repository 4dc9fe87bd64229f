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
/// W₀ is never written, so there is nothing to undo and nothing divides by 1 + A. Where W is needed it is rebuilt in the
/// backward rather than kept: one elementwise pass is cheaper than the memory of four effective weights in every block
/// (340 MB for ViT-B). Often it isn't needed: see `Formulation`.
///
/// Source: ViT-Slim/GLoRA/layer.py, `SuperScalableLinear`.
public struct GLoRALinear {
    /// The layer's name in the model: `blocks.0.attn.qkv`.
    public let name: String
    /// W₀ [out, in]; has a gradient, which is float32, only where the backbone itself is trained.
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
        /// [out · in]: W, or dW, where a backend writes them.
        let weight: Tensor
        /// [out]: db in the backward.
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

    /// What a layer's forward leaves for its backward besides x, for n rows.
    public struct Kept {
        /// [out] b on the path.
        public let bias: Tensor
        /// [n · R] t = x · Buᵀ in activation space.
        public let t: Tensor
        /// [n, out] z = x · W₀ᵀ, which `keepsProduct` asks for. Nil where no backward follows.
        public let product: Tensor?

        /// Memory from a plan.
        public init(bias: Tensor, t: Tensor, product: Tensor?) {
            self.bias = bias
            self.t = t
            self.product = product
        }
    }

    /// W and b of one path, built once for many batches.
    public struct Prepared {
        let weight: LinearWeight
        let bias: Tensor?
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
        var values = Initialization(random)
        defer { random = values.random }
        func xavier(_ letter: String, _ columns: Int) -> ParameterStore.Declaration {
            values.xavier("\(name).\(letter)", [rank, columns], inputs: columns, outputs: rank)
        }
        func zeros(_ letter: String, _ shape: [Int]) -> ParameterStore.Declaration {
            Adapters.zeros("\(name).\(letter)", shape)
        }
        return [
            zeros("Ad", [outputs, rank]), xavier("Au", inputs), zeros("Bd", [outputs, rank]),
            xavier("Bu", inputs), zeros("Cd", [inputs, rank]), xavier("Cu", 1), zeros("D", [outputs]),
            zeros("E", [outputs]),
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

    /// Whether the backward on `path` for n rows reads z, so that the caller keeps that rather than y.
    public func keepsProduct(_ path: GLoRAPath, rows: Int) -> Bool {
        path.a != .none && support != nil && formulation(path, rows: rows) == .activation
    }

    /// How the layer is computed on `path` for n rows.
    public func formulation(_ path: GLoRAPath, rows: Int) -> Formulation {
        Formulation.cheaper(path, rows: rows, inputs: inputs, outputs: outputs)
    }

    /// y [n, out] = x [n, in] · Wᵀ + b on `path`, and `activated` = GELU(y), each where it is wanted. Without a
    /// `formulation`, the cheaper one.
    public func forward(
        _ y: Tensor?, _ x: Tensor, activated: Tensor? = nil, path: GLoRAPath, formulation: Formulation? = nil,
        _ kept: Kept, _ backend: any Backend, _ scratch: Scratch
    ) {
        let bias = effectiveBias(path, kept.bias, backend, scratch)
        if changesWeight(path), (formulation ?? self.formulation(path, rows: x.rows)) == .activation {
            if path.b != .none { backend.gloraProject(projection(path, kept, x.rows), x, support!.b(path)) }
            var epilogue = epilogue(path, bias, kept, rows: x.rows)
            epilogue.activated = activated
            if path.a != .none { epilogue.preActivation = kept.product }
            backend.linear(y, x, LinearWeight(weight.value), epilogue)
        } else {
            var epilogue = Epilogue(bias: bias)
            epilogue.activated = activated
            backend.linear(y, x, linearWeight(path, scratch), epilogue)
        }
    }

    /// `forward` on a path that is prepared.
    public func forward(
        _ y: Tensor?, _ x: Tensor, activated: Tensor? = nil, _ prepared: Prepared, _ backend: any Backend
    ) {
        var epilogue = Epilogue(bias: prepared.bias)
        epilogue.activated = activated
        backend.linear(y, x, prepared.weight, epilogue)
    }

    /// y and GELU(y) [n, out] once more, from the z that the forward on `path` kept.
    public func rebuild(
        _ y: Tensor?, activated: Tensor?, path: GLoRAPath, _ kept: Kept, _ backend: any Backend
    ) {
        guard let z = kept.product else { preconditionFailure("\(name): no product was kept") }
        let bias = path.changesBias && support != nil ? kept.bias : bias?.value
        var epilogue = epilogue(path, bias, kept, rows: z.rows)
        epilogue.activated = activated
        backend.finish(y, z, epilogue)
    }

    /// dx [n, in] is overwritten, or left out where nothing below is trained; the gradients of the tensors on the path, and of
    /// W₀ and b₀ where they have one, accumulate.
    public func backward(
        _ dx: Tensor?, _ dy: Tensor, _ x: Tensor, path: GLoRAPath, formulation: Formulation? = nil,
        _ kept: Kept,
        _ backend: any Backend, _ scratch: Scratch
    ) {
        if let gradient = weight.gradient {
            if dy.elementType == .float32 {
                backend.matmul(gradient, dy, x, transposeA: true, transposeB: false, accumulate: true)
            } else {
                // A product of 16 bits is rounded to them before it is added to what float32 holds.
                let dw = Tensor(
                    buffer: scratch.weight.buffer, shape: gradient.shape, elementType: dy.elementType)
                backend.matmul(dw, dy, x, transposeA: true, transposeB: false, accumulate: false)
                backend.residualAdd(gradient, gradient, dw, sampleScale: nil)
            }
        }
        if let gradient = bias?.gradient { backend.sumRows(gradient, dy, accumulate: true) }
        let db = Tensor(buffer: scratch.bias.buffer, shape: [outputs])
        if let support, path.changesWeight || path.changesBias {
            let (a, b) = (support.a(path), support.b(path))
            if path.changesWeight, (formulation ?? self.formulation(path, rows: x.rows)) == .activation {
                let t = path.b == .none ? nil : projection(path, kept, x.rows)
                backend.gloraOutputBackward(
                    db, path.a == .none ? nil : a, t == nil ? nil : b, dy,
                    path.a == .none ? nil : kept.product, t)
                // t is done with: u = dy · Bd takes its place.
                if case .lowRank = path.b { backend.gloraProjectBackward(t!, b, dy, x) }
            } else {
                if path.changesBias { backend.sumRows(db, dy, accumulate: false) }
                if path.changesWeight {
                    let dw = Tensor(buffer: scratch.weight.buffer, shape: [outputs, inputs])
                    backend.gloraWeightBackward(a, b, dw, dy, x, weight.value)
                }
            }
            if path.changesBias {
                let prompt = Tensor(buffer: scratch.prompt.buffer, shape: [inputs])
                backend.gloraBiasBackward(
                    support.c(path), support.d(path), support.e(path), prompt, db, weight.value, bias?.value)
            }
        }
        if let dx { backend.linearBackward(dx, dy, linearWeight(path, scratch)) }
    }

    /// W and b of `path`, built once. Throws `BackendError.outOfMemory`.
    public func prepared(
        path: GLoRAPath, _ backend: any Backend, _ scratch: Scratch
    ) throws -> Prepared {
        let kept =
            path.changesBias && support != nil ? try backend.allocate([outputs], .float32) : scratch.bias
        return Prepared(
            weight: try backend.prepared(linearWeight(path, scratch)),
            bias: effectiveBias(path, kept, backend, scratch))
    }

    /// W [out, in] and b [out] of the path as host tensors: a plain Linear that computes the same. Without b₀ and without a
    /// bias term on the path, b stays nil. Where W₀ is stored in 16 bits, W is rounded to those.
    public func merged(
        path: GLoRAPath, _ backend: any Backend, _ scratch: Scratch
    ) -> (weight: HostTensor, bias: HostTensor?) {
        var w = weight.value
        if changesWeight(path), let support {
            w = Tensor(
                buffer: scratch.weight.buffer, shape: [outputs, inputs],
                elementType: weight.value.elementType)
            backend.gloraWeight(w, weight.value, support.a(path), support.b(path))
        }
        let b = Tensor(buffer: scratch.bias.buffer, shape: [outputs])
        return (backend.host(w), effectiveBias(path, b, backend, scratch).map(backend.host))
    }

    /// A and B in the path's forms; nil without support tensors.
    public func matrixTerms(_ path: GLoRAPath) -> (a: MatrixTerm, b: MatrixTerm)? {
        support.map { ($0.a(path), $0.b(path)) }
    }

    private func changesWeight(_ path: GLoRAPath) -> Bool { support != nil && path.changesWeight }

    /// W as a product reads it: W₀, or built from it in the scratch memory.
    private func linearWeight(_ path: GLoRAPath, _ scratch: Scratch) -> LinearWeight {
        guard changesWeight(path), let support else { return LinearWeight(weight.value) }
        let w = Tensor(buffer: scratch.weight.buffer, shape: [outputs, inputs])
        return LinearWeight(weight.value, a: support.a(path), b: support.b(path), scratch: w)
    }

    /// b₀, or b in `b`.
    private func effectiveBias(
        _ path: GLoRAPath, _ b: Tensor, _ backend: any Backend, _ scratch: Scratch
    ) -> Tensor? {
        guard path.changesBias, let support else { return bias?.value }
        let b = Tensor(buffer: b.buffer, shape: [outputs])
        let prompt = Tensor(buffer: scratch.prompt.buffer, shape: [inputs])
        backend.gloraBias(
            b, prompt, weight.value, bias?.value, support.c(path), support.d(path), support.e(path))
        return b
    }

    /// t [n, r] of the path's form of B.
    private func projection(_ path: GLoRAPath, _ kept: Kept, _ rows: Int) -> Tensor {
        Tensor(buffer: kept.t.buffer, shape: [rows, path.b.columnCount])
    }

    /// (1 + a) ⊙ z + t · Bdᵀ + b of a path in activation space.
    private func epilogue(_ path: GLoRAPath, _ bias: Tensor?, _ kept: Kept, rows: Int) -> Epilogue {
        var epilogue = Epilogue(bias: bias)
        if path.a != .none { epilogue.a = support!.a(path) }
        if path.b != .none {
            epilogue.b = support!.b(path)
            epilogue.t = projection(path, kept, rows)
        }
        return epilogue
    }
}

extension GLoRALinear.Support {
    func a(_ path: GLoRAPath) -> MatrixTerm { MatrixTerm(form: path.a, down: ad, up: au) }
    func b(_ path: GLoRAPath) -> MatrixTerm { MatrixTerm(form: path.b, down: bd, up: bu) }
    func c(_ path: GLoRAPath) -> PromptTerm { PromptTerm(form: path.c, down: cd, up: cu) }
    func d(_ path: GLoRAPath) -> ScaleTerm { ScaleTerm(form: path.d, values: d) }
    func e(_ path: GLoRAPath) -> ScaleTerm { ScaleTerm(form: path.e, values: e) }
}
