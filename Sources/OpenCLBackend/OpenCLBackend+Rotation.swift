import TensorCore

// Rotary position embedding (Rotation.cl).

extension OpenCLBackend {
    /// The rows of x in place.
    public func rotate(
        _ x: MatrixBlock, positions: Tensor, cosines: Tensor, sines: Tensor, layout: RotaryLayout,
        inverse: Bool, _ s: RotarySizes
    ) {
        launch(
            "rotate_pairs", stored: x.tensor.elementType, (rowGroups(s.rows), 1, 1), to: x.tensor,
            from: positions, cosines, sines,
            with: x.offset, x.stride, s.rows, s.heads, s.head, s.pairs, layout == .interleaved,
            Float(inverse ? -1 : 1))
    }
}
