import Foundation
import TensorCore

/// Rotary position embedding of queries and keys: each pair of a head's numbers is turned by an angle that its token's place gives.
/// Source: arXiv 2104.09864; in two dimensions timm 1.0.31, `pos_embed_sincos.py`.
public struct Rotation {
    private let cosines, sines: Tensor  // [P, h/2]
    private let heads, headWidth: Int
    private let layout: RotaryLayout
    private let backend: any Backend

    /// The angles [P, h/2] of P places; a token says which is its own. Throws `BackendError.outOfMemory`.
    public init(
        angles: [Double], heads: Int, headWidth: Int, layout: RotaryLayout, _ arena: Arena,
        _ backend: any Backend
    ) throws {
        let shape = [angles.count / (headWidth / 2), headWidth / 2]
        (cosines, sines) = (try arena.take(shape, .float32), try arena.take(shape, .float32))
        (self.heads, self.headWidth, self.layout, self.backend) = (heads, headWidth, layout, backend)
        backend.upload(cosines, angles.map { Float(cos($0)) })
        backend.upload(sines, angles.map { Float(sin($0)) })
    }

    /// x [n, heads · h] in place, of tokens at `places` [n] int32.
    func apply(_ x: MatrixBlock, places: Tensor, inverse: Bool) {
        backend.rotate(
            x, positions: places, cosines: cosines, sines: sines, heads: heads, headWidth: headWidth,
            layout: layout, inverse: inverse)
    }
}
