/// The weight W [out, in] of a Linear as a product reads it: W₀ itself, or W₀ ⊙ (1 + A) + B, which a backend may build
/// straight into the layout that its product wants.
public struct LinearWeight {
    /// W₀ [out, in].
    public let frozen: Tensor
    /// A and B where W differs from W₀.
    public let terms: (a: MatrixTerm, b: MatrixTerm)?
    /// [out, in], where W may be built. Goes with `terms`.
    public let scratch: Tensor?
    /// W in a layout of the backend's own, from `Backend.prepared`.
    public let ready: Tensor?

    /// W₀ as it is.
    public init(_ frozen: Tensor) {
        (self.frozen, terms, scratch, ready) = (frozen, nil, nil, nil)
    }

    /// W₀ ⊙ (1 + A) + B, built at each use, in `scratch` if need be.
    public init(_ frozen: Tensor, a: MatrixTerm, b: MatrixTerm, scratch: Tensor) {
        (self.frozen, terms, self.scratch, ready) = (frozen, (a, b), scratch, nil)
    }

    /// What a backend has built once.
    public init(_ frozen: Tensor, ready: Tensor) {
        (self.frozen, terms, scratch, self.ready) = (frozen, nil, nil, ready)
    }
}

/// What becomes of the product z [n, out] of a Linear, before it leaves the registers where a backend can do that:
///
///     y = (1 + a) ⊙ z + t · Bd[:, :r]ᵀ + bias,   activated = GELU(y)
///
/// With a constant or a vector for a this is GLoRA in activation space: it needs no W.
public struct Epilogue {
    /// [out].
    public var bias: Tensor?
    /// A constant or a vector, Ad[0, 0] or Ad[:, 0].
    public var a: MatrixTerm?
    /// Any form but none; goes with `t`. Constant: t · Bd[0, 0]; vector: t · Bd[:, 0].
    public var b: MatrixTerm?
    /// t [n, r] from `Backend.gloraProject`.
    public var t: Tensor?
    /// [n, out], receives z.
    public var preActivation: Tensor?
    /// [n, out], receives GELU(y).
    public var activated: Tensor?

    /// Nothing but a bias, or the term b whose t comes later, or not even that.
    public init(bias: Tensor? = nil, b: MatrixTerm? = nil) { (self.bias, self.b) = (bias, b) }
}
