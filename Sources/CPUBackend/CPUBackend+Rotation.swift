import CLoops
import TensorCore

// Rotary position embedding: pairs (a, b) of a head ← (a c − b s, b c + a s).

extension CPUBackend {
    /// The rows of x in place.
    public func rotate(
        _ x: MatrixBlock, positions: Tensor, cosines: Tensor, sines: Tensor, layout: RotaryLayout,
        inverse: Bool, _ s: RotarySizes
    ) {
        let first = floats(x.tensor) + x.offset
        let positions = integers(positions)  // [n]
        let (cosines, sines) = (floats(cosines), floats(sines))  // [P, d/2]
        parallel(s.rows, grain: rowGrain(s.heads * s.head)) { range in
            let row = range.lowerBound
            rotate_rows(
                first + row * x.stride, positions + row, cosines, sines, inverse ? -1 : 1,
                layout == .interleaved ? 1 : 0, range.count, x.stride, s.heads, s.head, s.pairs)
        }
    }
}
