// What gates, rotations and the operations of other methods than GLoRA take: a part of a tensor, a nonlinearity, a random mask.

/// A matrix inside a tensor: element (i, j) is at offset + i · stride + j. A stride of 0 repeats one row.
public struct MatrixBlock {
    /// Where the elements lie.
    public var tensor: Tensor
    /// The first element's index in the tensor.
    public var offset: Int
    /// The distance between rows, in elements.
    public var stride: Int

    /// A block whose rows and columns the operation says.
    public init(_ tensor: Tensor, offset: Int = 0, stride: Int) {
        (self.tensor, self.offset, self.stride) = (tensor, offset, stride)
    }

    /// Whether rows × columns of it lie inside the tensor.
    func holds(rows: Int, columns: Int) -> Bool {
        guard offset >= 0, stride >= 0, rows >= 0, columns >= 0 else { return false }
        guard rows > 0, columns > 0 else { return true }
        return offset + (rows - 1) * stride + columns <= tensor.count
    }
}

/// Rows of tokens inside a tensor: token t of sample b begins at offset + b · sampleStride + t · stride. A sampleStride of 0 gives
/// every sample the same rows.
public struct TokenBlock {
    /// Where the elements lie.
    public var tensor: Tensor
    /// The first element's index in the tensor.
    public var offset: Int
    /// The distance between a sample's tokens, in elements.
    public var stride: Int
    /// The distance between samples, in elements.
    public var sampleStride: Int

    /// A block whose samples, tokens and columns the operation says.
    public init(_ tensor: Tensor, offset: Int = 0, stride: Int, sampleStride: Int) {
        (self.tensor, self.offset, self.stride, self.sampleStride) = (tensor, offset, stride, sampleStride)
    }

    /// All of a tensor [B, T, D]; traps when it has other dimensions.
    public init(_ tensor: Tensor) {
        precondition(tensor.shape.count == 3, "shape \(tensor.shape) is not one of tokens")
        self.init(
            tensor, stride: tensor.columns, sampleStride: tensor.shape[1] * tensor.columns)
    }

    /// Whether all rows lie inside the tensor.
    func holds(samples: Int, tokens: Int, columns: Int) -> Bool {
        guard offset >= 0, stride >= 0, sampleStride >= 0, samples > 0, tokens > 0 else { return false }
        return offset + (samples - 1) * sampleStride + (tokens - 1) * stride + columns <= tensor.count
    }

    /// Whether no two rows overlap.
    func isApart(samples: Int, tokens: Int, columns: Int) -> Bool {
        (tokens == 1 || stride >= columns)
            && (samples == 1 || sampleStride >= (tokens - 1) * stride + columns)
    }
}

/// The nonlinearity of an MLP, a gate or a bottleneck.
public enum Activation: String, Codable, Hashable, Sendable, CaseIterable {
    /// x.
    case identity
    /// max(0, x).
    case relu
    /// x Φ(x), the exact GELU.
    case gelu
    /// x σ(1.702 x).
    case quickGELU
    /// x/2 · (1 + tanh(√(2/π) (x + 0.044715 x³))), which is x σ(2√(2/π) (x + 0.044715 x³)).
    case geluTanh
    /// x σ(x).
    case silu
}

/// Which elements a dropout keeps, a function of the seed and the element's index i alone:
///
///     kept(i) = mix(mix(i ⊕ low) ⊕ high) ≥ rate · 2³²
///
/// with 32-bit words and lowbias32 for mix (Wellons, 2018: x ⊕= x ≫ 16, x *= 0x7feb352d, x ⊕= x ≫ 15, x *= 0x846ca68b,
/// x ⊕= x ≫ 16), which a backend computes in its loop.
public struct DropoutMask: Sendable {
    /// The lower and the upper half of the mixed seed.
    public let (low, high): (UInt32, UInt32)
    /// rate · 2³²: hashes below it drop.
    public let threshold: UInt32
    /// 1 / (1 − rate).
    public let factor: Float

    /// A mask that drops the share `rate` of the elements, 0 ≤ rate < 1.
    ///
    /// The seed is mixed before it is halved: seeds in a row, whose upper halves are the same, would else give the same mask
    /// in another order.
    package init(rate: Double, seed: UInt64) {
        let mixed = Random.mix(seed)
        low = UInt32(truncatingIfNeeded: mixed)
        high = UInt32(truncatingIfNeeded: mixed >> 32)
        threshold = UInt32(min((rate * 0x1p32).rounded(), 0x1p32 - 1))
        factor = Float(1 / (1 - rate))
    }
}
