// What a backend needn't have: the same from other operations.

extension Backend {
    /// The product in memory, and `finish`.
    public func linear(
        _ y: Tensor?, _ x: Tensor, _ weight: LinearWeight, _ epilogue: Epilogue, rows: Int, outputs: Int,
        inputs: Int
    ) {
        let z = epilogue.preActivation ?? y ?? epilogue.activated!
        matmul(z, x, matrix(weight), transposeA: false, transposeB: true, accumulate: false)
        var rest = epilogue
        rest.preActivation = nil
        finish(y, z, rest)
    }

    /// The product with W in memory.
    public func linearBackward(
        _ dx: Tensor, _ dy: Tensor, _ weight: LinearWeight, rows: Int, outputs: Int, inputs: Int
    ) {
        matmul(dx, dy, matrix(weight), transposeA: false, transposeB: false, accumulate: false)
    }

    /// W [out, in], built once.
    public func prepared(_ weight: LinearWeight) throws -> LinearWeight {
        guard let terms = weight.terms else { return weight }
        let w = try allocate([weight.frozen.rows, weight.frozen.columns], weight.frozen.elementType)
        gloraWeight(w, weight.frozen, terms.a, terms.b)
        return LinearWeight(weight.frozen, ready: w)
    }

    /// W in memory, row by row: W₀ itself, a prepared one, or built in the scratch that comes with it.
    public func matrix(_ weight: LinearWeight) -> Tensor {
        guard let terms = weight.terms, let scratch = weight.scratch else {
            return weight.ready ?? weight.frozen
        }
        let w = scratch.leading(weight.frozen.shape, weight.frozen.elementType)
        gloraWeight(w, weight.frozen, terms.a, terms.b)
        return w
    }
}
