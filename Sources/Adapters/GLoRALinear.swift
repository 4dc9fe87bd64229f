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
/// A step reads one path of it, `path`; `Formulation` says how.
///
/// Source: ViT-Slim/GLoRA/layer.py, `SuperScalableLinear`.
public final class GLoRALinear: LinearLayer {
    public let base: BaseLinear
    /// The support tensors.
    public let support: Support
    /// What the layer computes from now on.
    public var path = GLoRAPath.none

    /// How tests and benchmarks have it computed; nil for the cheaper way.
    package var forced: Formulation?

    private var prepared: (path: GLoRAPath, weight: LinearWeight, bias: Tensor?)?

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

    /// The layer of W₀ and b₀ with these support tensors, on no path.
    public init(_ base: BaseLinear, _ support: Support) { (self.base, self.support) = (base, support) }

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

    public var isTrained: Bool { base.isTrained || path != .none }
    public var mayKeepProduct: Bool { true }
    public var parameterCount: Int { path.parameterCount(inputs: base.inputs, outputs: base.outputs) }

    /// The tensors that the path reads, as their names end: those that get a gradient in a step on it.
    /// Xu is on a path only in lowRank form; D only where there is a b₀ to scale.
    public var tensorsOnPath: [String] {
        var names: [String] = []
        if path.a != .none { names.append("Ad") }
        if case .lowRank = path.a { names.append("Au") }
        if path.b != .none { names.append("Bd") }
        if case .lowRank = path.b { names.append("Bu") }
        if path.c != .none { names.append("Cd") }
        if case .lowRank = path.c { names.append("Cu") }
        if path.d != .none, base.bias != nil { names.append("D") }
        if path.e != .none { names.append("E") }
        return names
    }

    public func pass(rows: Int, product: Tensor?, in workspace: Workspace) throws -> any LinearPass {
        try Pass(self, rows: rows, product: product, workspace)
    }

    public func prepare() throws {
        guard prepared?.path != path else { return }
        prepared = nil
        let bias = path.changesBias ? try base.backend.allocate([base.outputs], .float32) : nil
        prepared = (path, try base.backend.prepared(weight), bias.map(effectiveBias) ?? base.bias?.value)
    }

    public func unprepare() { prepared = nil }

    /// W and b of the path. Without b₀ and without a bias term on it, b stays nil. Where W₀ is stored in 16 bits, W is rounded to
    /// those.
    public func folded() -> (weight: HostTensor, bias: HostTensor?)? {
        guard path != .none else { return nil }
        let frozen = base.weight.value
        var w = frozen
        if path.changesWeight {
            w = base.scratch.weight(frozen.shape, frozen.elementType)
            base.backend.gloraWeight(w, frozen, support.a(path), support.b(path))
        }
        let b = path.changesBias ? effectiveBias(base.scratch.bias(base.outputs)) : base.bias?.value
        return (base.backend.host(w), b.map(base.backend.host))
    }

    /// W as a product reads it: W₀, or built from it in the scratch memory.
    private var weight: LinearWeight {
        let frozen = base.weight.value
        guard path.changesWeight else { return LinearWeight(frozen) }
        return LinearWeight(
            frozen, a: support.a(path), b: support.b(path), scratch: base.scratch.weight(frozen.shape))
    }

    /// b [out] of a path that changes it.
    private func effectiveBias(_ b: Tensor) -> Tensor {
        base.backend.gloraBias(
            b, base.scratch.prompt(base.inputs), base.weight.value, base.bias?.value, support.c(path),
            support.d(path), support.e(path))
        return b
    }

    /// What the forward over n rows leaves for the backward besides x, and how the step is computed.
    private final class Pass: LinearPass {
        private let layer: GLoRALinear
        private let rows: Int
        private let bias: Tensor  // [out] b on the path
        private let projections: Tensor  // [n · R] t = x · Buᵀ in activation space
        private let product: Tensor?  // [n, out] z; nil where no backward follows
        private let isForTraining: Bool
        /// Chosen once a step.
        private var formulation = Formulation.weight

        init(_ layer: GLoRALinear, rows: Int, product: Tensor?, _ workspace: Workspace) throws {
            (self.layer, self.rows, self.product) = (layer, rows, product)
            isForTraining = workspace.isForTraining
            let name = layer.base.name.split(separator: ".").last ?? ""
            bias = try workspace.kept("b of \(name)", [layer.base.outputs])
            projections = try workspace.kept("t of \(name)", [rows * layer.support.bd.value.columns])
        }

        private var path: GLoRAPath { layer.path }
        private var base: BaseLinear { layer.base }
        private var support: Support { layer.support }
        private var backend: any Backend { layer.base.backend }
        private var isInActivationSpace: Bool { path.changesWeight && formulation == .activation }

        func begin() {
            formulation =
                layer.forced
                ?? .cheaper(path, rows: rows, inputs: base.inputs, outputs: base.outputs)
        }

        var keepsProduct: Bool { product != nil && path.a != .none && formulation == .activation }

        func forward(_ y: Tensor?, _ x: Tensor, activated: Tensor?, dropoutSeed: UInt64?) {
            if !isForTraining, let prepared = layer.prepared, prepared.path == path {
                var epilogue = Epilogue(bias: prepared.bias)
                epilogue.activated = activated
                return backend.linear(y, x, prepared.weight, epilogue)
            }
            let b = path.changesBias ? layer.effectiveBias(bias) : base.bias?.value
            guard isInActivationSpace else {
                var epilogue = Epilogue(bias: b)
                epilogue.activated = activated
                return backend.linear(y, x, layer.weight, epilogue)
            }
            if path.b != .none { backend.gloraProject(t, x, support.b(path)) }
            var epilogue = epilogue(b)
            epilogue.activated = activated
            if path.a != .none { epilogue.preActivation = product }
            backend.linear(y, x, LinearWeight(base.weight.value), epilogue)
        }

        func rebuild(_ y: Tensor?, activated: Tensor?) {
            guard let product else { preconditionFailure("\(base.name): no product was kept") }
            var epilogue = epilogue(path.changesBias ? bias : base.bias?.value)
            epilogue.activated = activated
            backend.finish(y, product, epilogue)
        }

        func backward(_ dx: Tensor?, _ dy: Tensor, _ x: Tensor, dropoutSeed: UInt64?) {
            base.accumulateGradients(dy, x)
            let db = base.scratch.bias(base.outputs)
            let (a, b) = (support.a(path), support.b(path))
            if isInActivationSpace {
                let t = path.b == .none ? nil : t
                backend.gloraOutputBackward(
                    db, path.a == .none ? nil : a, t == nil ? nil : b, dy, path.a == .none ? nil : product, t)
                // t is done with: u = dy · Bd takes its place.
                if case .lowRank = path.b { backend.gloraProjectBackward(t!, b, dy, x) }
            } else {
                if path.changesBias { backend.sumRows(db, dy, accumulate: false) }
                if path.changesWeight {
                    let dw = base.scratch.weight(base.weight.value.shape)
                    backend.gloraWeightBackward(a, b, dw, dy, x, base.weight.value)
                }
            }
            if path.changesBias {
                backend.gloraBiasBackward(
                    support.c(path), support.d(path), support.e(path), base.scratch.prompt(base.inputs), db,
                    base.weight.value, base.bias?.value)
            }
            if let dx { backend.linearBackward(dx, dy, layer.weight) }
        }

        /// t [n, r] of the path's form of B.
        private var t: Tensor { projections.leading([rows, path.b.columnCount]) }

        /// (1 + a) ⊙ z + t · Bdᵀ + b of a path in activation space.
        private func epilogue(_ bias: Tensor?) -> Epilogue {
            var epilogue = Epilogue(bias: bias)
            if path.a != .none { epilogue.a = support.a(path) }
            if path.b != .none { (epilogue.b, epilogue.t) = (support.b(path), t) }
            return epilogue
        }
    }
}

extension GLoRALinear.Support {
    package func a(_ path: GLoRAPath) -> MatrixTerm { MatrixTerm(form: path.a, down: ad, up: au) }
    package func b(_ path: GLoRAPath) -> MatrixTerm { MatrixTerm(form: path.b, down: bd, up: bu) }
    func c(_ path: GLoRAPath) -> PromptTerm { PromptTerm(form: path.c, down: cd, up: cu) }
    func d(_ path: GLoRAPath) -> ScaleTerm { ScaleTerm(form: path.d, values: d) }
    func e(_ path: GLoRAPath) -> ScaleTerm { ScaleTerm(form: path.e, values: e) }
}
