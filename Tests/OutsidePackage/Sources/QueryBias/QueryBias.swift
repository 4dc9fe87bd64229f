import SwiftGLoRA

/// Trains the biases of the queries and of the MLPs' second Linears alone: half of BitFit's parameters are these two, and its authors
/// find them nearly as good (arXiv 2106.10199, section 4).
///
///     attention: q ← W_q x + b_q + s,  s [D];     MLP: y ← W₂ h + b₂ + s,  s [D]
public struct QueryBias: TuningMethod {
    public init() {}

    /// `blocks.0.attn.qkv.shift`, … [D], zero at the beginning.
    public func declarations(_ shape: TransformerShape, seed: Int) -> [ParameterStore.Declaration] {
        shape.linears.filter { [.fusedQKV, .down].contains($0.site.role) }
            .map { .init("\($0.name).shift", [shape.width], repeating: 0) }
    }

    public func attach(
        to model: inout Attachments, _ store: ParameterStore, _ arena: Arena, _ backend: any Backend
    ) throws {
        for block in model.blocks.indices {
            for role in [LinearRole.fusedQKV, .down] {
                let base = model.blocks[block][role].base
                model.blocks[block][role] = AdaptedLinear(
                    base, beside: try Shift(store["\(base.name).shift"]!, base, arena, backend))
            }
        }
    }
}

/// f(x) = [s; 0]: s [d] is added to the first d of the outputs, whatever x is.
final class Shift: Update {
    private let shift: Parameter
    private let base: BaseLinear
    private let sums: Tensor  // [out]: Σₙ dy
    private let backend: any Backend

    init(_ shift: Parameter, _ base: BaseLinear, _ arena: Arena, _ backend: any Backend) throws {
        (self.shift, self.base, self.backend) = (shift, base, backend)
        sums = try arena.take([base.outputs])
    }

    var parameterCount: Int { shift.value.count }
    func keptShapes(rows: Int) -> [[Int]] { [] }

    func add(to y: Tensor, _ x: Tensor, _ kept: [Tensor], dropoutSeed: UInt64?) {
        backend.copyBlock(
            MatrixBlock(y, stride: base.outputs), MatrixBlock(shift.value, stride: 0), rows: y.rows,
            columns: shift.value.count, accumulate: true)
    }

    func backward(_ dx: Tensor?, _ dy: Tensor, _ x: Tensor, _ kept: [Tensor], dropoutSeed: UInt64?) {
        guard let gradient = shift.gradient else { return }
        backend.sumRows(sums, dy, accumulate: false)
        backend.copyBlock(
            MatrixBlock(gradient, stride: 0), MatrixBlock(sums, stride: 0), rows: 1,
            columns: gradient.count, accumulate: true)
    }

    func factors() -> LinearFactors? {
        let values = backend.values(shift.value)
        let zeros = [Float](repeating: 0, count: base.outputs - values.count)
        return LinearFactors(
            down: HostTensor(shape: [1, base.inputs], repeating: 0),
            up: HostTensor(shape: [base.outputs, 1], repeating: 0),
            bias: HostTensor(shape: [base.outputs], values: values + zeros))
    }
}
