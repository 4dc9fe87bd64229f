import TensorCore

// y = f(a) ⊙ b and its backward (Activations.cl).

extension OpenCLBackend {
    /// y [n, d] from the blocks a and b.
    public func gate(
        _ y: Tensor, _ a: MatrixBlock, _ b: MatrixBlock, _ activation: Activation, rows: Int, columns: Int
    ) {
        launch(
            "gate_forward", stored: y.elementType, (rowGroups(rows), 1, 1), to: y, from: a.tensor, b.tensor,
            with: a.places, b.places, activation.code, rows, columns)
    }

    /// The blocks dA and dB from dy [n, d], a and b. dA may be a, dB may be b.
    public func gateBackward(
        _ dA: MatrixBlock, _ dB: MatrixBlock, _ dy: Tensor, _ a: MatrixBlock, _ b: MatrixBlock,
        _ activation: Activation, rows: Int, columns: Int
    ) {
        launch(
            "gate_backward", stored: dy.elementType, (rowGroups(rows), 1, 1), to: dA.tensor, dB.tensor,
            from: dy, a.tensor, b.tensor,
            with: dA.places, dB.places, a.places, b.places, activation.code, rows, columns)
    }
}

extension MatrixBlock {
    /// As kernels take it.
    fileprivate var places: Arguments<Int, Int> { Arguments(offset, stride) }
}
