/// What the large tensors of a step are stored in. Whatever it is, arithmetic and the sums of products are float32; a matrix
/// engine's operands are of the type, attention's probabilities and their gradients among them.
///
/// | stored in the precision | always float32 |
/// | --- | --- |
/// | frozen weights of Linears | trained tensors, their gradients and moments |
/// | what goes from one operation to the next inside a block, and its gradient | the residual stream and its gradient |
/// | | biases, LayerNorm's parameters and statistics, attention's logarithms, the head, the loss |
/// | | the terms that other methods than GLoRA add |
///
/// A term of LoRA, an adapter and the like is computed in float32 from what it reads, and what it is added to is rounded once
/// more (`VisionTransformer.add`). The weight of a Linear that is itself trained stays float32 too: products read a copy of
/// it that is rounded before each forward, and its gradient is a product of 16 bits that is added to a float32 sum, all as
/// under PyTorch's autocast.
///
/// The residual stream stays in float32, as under PyTorch's autocast: every block adds to it twice, and each sum would be
/// rounded. That it would do without has not been tried.
public enum Precision: String, CaseIterable, Codable, Hashable, Sendable {
    /// 24 bits of significand.
    case float32
    /// Stored as float32; products round their operands to 11 bits of significand. For NVIDIA's tensor cores alone.
    case tf32
    /// 8 bits of significand, float32's range.
    case bfloat16
    /// 11 bits of significand, from 6e-8 to 65504: gradients need a scaled loss.
    case float16

    /// The largest error of a number rounded for products, as a part of it: 2⁻ᵖ for a significand of p bits.
    public var roundoff: Double {
        switch self {
        case .float32: 0x1p-24
        case .bfloat16: 0x1p-8
        case .tf32, .float16: 0x1p-11
        }
    }

    /// The nearest number that is stored in this precision.
    public func rounded(_ value: Float) -> Float {
        switch self {
        case .float32, .tf32: value
        case .bfloat16: float(bfloat16Bits: bfloat16Bits(value))
        case .float16: Float(Float16(value))
        }
    }

    /// The type of a stored tensor.
    public var stored: ElementType {
        switch self {
        case .float32, .tf32: .float32
        case .bfloat16: .bfloat16
        case .float16: .float16
        }
    }
}

/// A float32 as bfloat16: its upper half, rounded to the nearest, of two the even one; a NaN stays one.
package func bfloat16Bits(_ value: Float) -> UInt16 {
    let bits = value.bitPattern
    return UInt16(value.isNaN ? bits >> 16 | 0x40 : (bits + 0x7fff + (bits >> 16 & 1)) >> 16)
}

/// The float32 that a bfloat16 is.
package func float(bfloat16Bits bits: UInt16) -> Float { Float(bitPattern: UInt32(bits) << 16) }
