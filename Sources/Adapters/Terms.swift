import TensorCore

// What methods add to a transformer: terms f(x), scales and shifts, and both at a Linear.

/// A term f(x) that is added somewhere, with parameters of its own.
///
/// `kept` is memory for one place of a plan, of `keptShapes`: what a forward leaves there its backward reads. `dropoutSeed` seeds the
/// dropout; nil in evaluation. Every tensor is float32, also in a model whose activations aren't.
public protocol Update: AnyObject {
    /// The shapes of what a forward over `rows` rows keeps.
    func keptShapes(rows: Int) -> [[Int]]
    /// y ← y + f(x). y may be x only if no backward follows.
    func add(to y: Tensor, _ x: Tensor, _ kept: [Tensor], dropoutSeed: UInt64?)
    /// dx ← dx + f'(x)ᵀ · dy, and the parameters' gradients accumulate. dx may be dy.
    func backward(_ dx: Tensor?, _ dy: Tensor, _ x: Tensor, _ kept: [Tensor], dropoutSeed: UInt64?)
    /// The numbers that are trained here alone and reach f.
    var parameterCount: Int { get }
    /// f(x) = x · (down [h, in])ᵀ · (up [out, h])ᵀ + bias [out], or nil where f isn't linear. Without dropout.
    func factors() -> LinearFactors?
}

/// An update that is linear, on the host.
public struct LinearFactors: Sendable {
    /// [h, in].
    public var down: HostTensor
    /// [out, h], with the scale in it.
    public var up: HostTensor
    /// [out].
    public var bias: HostTensor?

    /// f of these matrices.
    public init(down: HostTensor, up: HostTensor, bias: HostTensor? = nil) {
        (self.down, self.up, self.bias) = (down, up, bias)
    }

    /// f(x) = bias [out], whatever x [n, in] is.
    public init(bias: HostTensor, inputs: Int) {
        self.init(
            down: HostTensor(shape: [0, inputs], values: []),
            up: HostTensor(shape: [bias.values.count, 0], values: []), bias: bias)
    }

    /// up · down, [out, in], summed in double.
    public var product: HostTensor { up.product(down) }
}

/// A term at its place, with memory for n rows.
///
/// It is computed in float32 whatever the model is stored in: its tensors are trained, and small beside those that it reads and
/// adds to. Those are widened for it where they are stored in 16 bits, and what it adds to is rounded once more.
public struct PlacedTerm {
    private let term: any Update
    private let kept: [Tensor]
    /// What the term adds to, reads, and gives the gradient of, as float32; one term at a time.
    private let wide: (y: Tensor, x: Tensor, dx: Tensor)?
    private let backend: any Backend

    /// Memory for a term of x [n, in] and y [n, out], which are stored as `type`; `name` is another at each place of a block. Throws
    /// what the workspace throws.
    public init(
        _ term: any Update, rows: Int, inputs: Int, outputs: Int, _ type: ElementType, name: String,
        _ workspace: Workspace, _ backend: any Backend
    ) throws {
        (self.term, self.backend) = (term, backend)
        kept = try term.keptShapes(rows: rows).enumerated().map { try workspace.kept("\(name).\($0)", $1) }
        guard type != .float32 else {
            wide = nil
            return
        }
        let x = try workspace.shared("wide x", [rows, inputs])
        wide = (
            try workspace.shared("wide y", [rows, outputs]), x,
            workspace.isForTraining ? try workspace.shared("wide dx", [rows, inputs]) : x
        )
    }

    /// y ← y + f(x).
    public func add(to y: Tensor, _ x: Tensor, dropoutSeed: UInt64?) {
        let sum = widened(y, wide?.y)
        term.add(to: sum, widened(x, wide?.x), kept, dropoutSeed: dropoutSeed)
        if sum.elementType != y.elementType { backend.copy(y, sum) }
    }

    /// dx ← dx + f'(x)ᵀ · dy. dx may be dy.
    public func backward(_ dx: Tensor?, _ dy: Tensor, _ x: Tensor, dropoutSeed: UInt64?) {
        let gradient = widened(dy, wide?.y)
        let sum = dx.map { $0.buffer === dy.buffer ? gradient : widened($0, wide?.dx) }
        term.backward(sum, gradient, widened(x, wide?.x), kept, dropoutSeed: dropoutSeed)
        if let sum, let dx, sum.elementType != dx.elementType { backend.copy(dx, sum) }
    }

    /// x, or where it is stored in 16 bits a copy in `memory` as float32.
    private func widened(_ x: Tensor, _ memory: Tensor?) -> Tensor {
        guard x.elementType != .float32, let memory else { return x }
        let copy = memory.leading(x.shape)
        backend.copy(copy, x)
        return copy
    }
}

/// y = x ⊙ γ + β.
public struct ScaleShift {
    /// γ [d].
    public let scale: Parameter
    /// β [d].
    public let shift: Parameter
    private let backend: any Backend

    /// γ and β out of a store; traps when they aren't there.
    public init(_ store: ParameterStore, scale: String, shift: String, on backend: any Backend) {
        self.scale = store[scale]!
        self.shift = store[shift]!
        self.backend = backend
    }

    /// y ← x ⊙ γ + β; `keeping` receives x where a backward follows. y may be x.
    public func forward(_ y: Tensor, _ x: Tensor, keeping: Tensor?) {
        if let keeping { backend.copy(keeping, x) }
        backend.scaleShift(y, x, scale.value, shift.value)
    }

    /// dy ← dy ⊙ γ in place; γ and β get their gradients, given the x that the forward kept.
    public func backward(_ dy: Tensor, _ kept: Tensor) {
        backend.scaleShiftBackward(dy, scale.gradient, shift.gradient, dy, kept, scale.value)
    }

    /// γ ⊙ W by rows and γ ⊙ b + β: the scale and shift folded into what they stand behind.
    public func folded(_ weight: HostTensor, _ bias: HostTensor?) -> (weight: HostTensor, bias: HostTensor) {
        let (gamma, beta) = (backend.values(scale.value), backend.values(shift.value))
        let row = weight.values.count / gamma.count
        let old = bias?.values ?? Array(repeating: 0, count: gamma.count)
        return (
            HostTensor(
                shape: weight.shape, values: weight.values.enumerated().map { $1 * gamma[$0 / row] }),
            HostTensor(shape: [gamma.count], values: old.enumerated().map { $1 * gamma[$0] + beta[$0] })
        )
    }
}

/// A frozen Linear with terms around it:
///
///     z = x + g(x),   y = (z W₀ᵀ + b₀ + f(z)) ⊙ γ + β        g before, f beside, γ and β behind
public final class AdaptedLinear: LinearLayer {
    public let base: BaseLinear
    /// g and f; not both.
    public let before, beside: (any Update)?
    /// γ and β.
    public let behind: ScaleShift?

    /// The layer of W₀ and b₀ with these terms.
    public init(
        _ base: BaseLinear, before: (any Update)? = nil, beside: (any Update)? = nil,
        behind: ScaleShift? = nil
    ) {
        precondition(before == nil || beside == nil, "a term beside reads what the term before gives")
        (self.base, self.before, self.beside, self.behind) = (base, before, beside, behind)
    }

    public var isTrained: Bool { true }
    public var needsInputGradient: Bool { before != nil }
    public var overwritesGradient: Bool { behind != nil }
    public var parameterCount: Int {
        [before, beside].reduce(2 * (behind?.scale.value.count ?? 0)) { $0 + ($1?.parameterCount ?? 0) }
    }
    public func pass(rows: Int, product: Tensor?, in workspace: Workspace) throws -> any LinearPass {
        try Pass(self, rows, workspace)
    }
    /// What stands around W₀ is made anew in every forward.
    public func prepare() {}
    public func unprepare() {}

    /// Terms and scales folded into the weight and bias that they stand at; throws `MethodError` for a term that isn't linear, and for
    /// factors that don't fit:
    ///
    ///     before: W (I + Up · Down), b + W · bias;  beside: W + Up · Down, b + bias;  behind: γ ⊙ W by rows, γ ⊙ b + β
    public func folded() throws -> (weight: HostTensor, bias: HostTensor?)? {
        var weight = base.backend.host(base.weight.value)
        var bias = base.bias.map { base.backend.host($0.value) }
        func sum(_ old: HostTensor?, _ terms: HostTensor) -> HostTensor {
            guard let old else { return terms }
            return HostTensor(shape: old.shape, values: zip(old.values, terms.values).map { $0 + $1 })
        }
        if let factors = try factors(of: before, outputs: base.inputs) {
            let shift = factors.bias.map { weight.product($0.column).values }
            weight = sum(weight, weight.product(factors.up).product(factors.down))
            if let shift { bias = sum(bias, HostTensor(shape: [base.outputs], values: shift)) }
        }
        if let factors = try factors(of: beside, outputs: base.outputs) {
            weight = sum(weight, factors.product)
            if let shift = factors.bias { bias = sum(bias, shift) }
        }
        return behind.map { $0.folded(weight, bias) } ?? (weight, bias)
    }

    private func factors(of term: (any Update)?, outputs: Int) throws -> LinearFactors? {
        guard let term else { return nil }
        guard let factors = term.factors() else {
            throw MethodError("the term at \(base.name) isn't linear, so it can't be folded into the weight")
        }
        let hidden = factors.down.shape.first ?? 0
        guard factors.down.shape == [hidden, base.inputs], factors.up.shape == [outputs, hidden],
            (factors.bias?.shape ?? [outputs]) == [outputs]
        else {
            throw MethodError(
                "the factors of the term at \(base.name), down \(factors.down.shape), up \(factors.up.shape), bias "
                    + "\(factors.bias?.shape ?? []), don't fit [\(outputs), \(base.inputs)]")
        }
        return factors
    }

    private final class Pass: LinearPass {
        private let layer: AdaptedLinear
        private let before, beside: PlacedTerm?
        private let input: Tensor?  // [n, in] z
        private let unscaled: Tensor?  // [n, out] what γ scales; nil where no backward follows
        private var base: BaseLinear { layer.base }

        init(_ layer: AdaptedLinear, _ rows: Int, _ workspace: Workspace) throws {
            self.layer = layer
            let (base, stored) = (layer.base, workspace.stored)
            let name = base.name.split(separator: ".").last ?? ""
            before = try layer.before.map {
                try PlacedTerm(
                    $0, rows: rows, inputs: base.inputs, outputs: base.inputs, stored, name: "before \(name)",
                    workspace, base.backend)
            }
            beside = try layer.beside.map {
                try PlacedTerm(
                    $0, rows: rows, inputs: base.inputs, outputs: base.outputs, stored,
                    name: "beside \(name)",
                    workspace, base.backend)
            }
            input =
                layer.before == nil
                ? nil : try workspace.kept("input of \(name)", [rows, base.inputs], stored)
            unscaled =
                layer.behind == nil || !workspace.isForTraining
                ? nil : try workspace.own([rows, base.outputs], stored)
        }

        var needsOutput: Bool { true }

        func forward(_ y: Tensor?, _ x: Tensor, activated: Tensor?, dropoutSeed: UInt64?) {
            guard let y else { preconditionFailure("\(base.name): terms need an output to add to") }
            var z = x
            if let before, let input {
                z = input.reshaped(x.shape)
                base.backend.copy(z, x)
                before.add(to: z, x, dropoutSeed: dropoutSeed)
            }
            base.backend.linear(y, z, base.weight.value, base.bias?.value)
            beside?.add(to: y, z, dropoutSeed: dropoutSeed)
            layer.behind?.forward(y, y, keeping: unscaled)
            if let activated { base.backend.gelu(activated, y) }
        }

        func backward(_ dx: Tensor?, _ dy: Tensor, _ x: Tensor, dropoutSeed: UInt64?) {
            if let behind = layer.behind, let unscaled { behind.backward(dy, unscaled) }
            base.accumulateGradients(dy, x)
            if let dx { base.backend.linearBackward(dx, dy, LinearWeight(base.weight.value)) }
            beside?.backward(dx, dy, x, dropoutSeed: dropoutSeed)
            if let before, let dx { before.backward(dx, dx, x, dropoutSeed: dropoutSeed) }
        }
    }
}
