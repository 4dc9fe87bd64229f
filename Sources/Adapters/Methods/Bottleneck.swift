import TensorCore

/// A term through a narrow space, what LoRA, RepAdapter, AdaptFormer, Adapter and NOAH have in common:
///
///     f(x) = s · (drop(φ(x · Downᵀ + a)) · Upᵀ + b)        x [n, in], Down [h, in], Up [out, h]
///
/// with a LayerNorm (eps 1e-5) before it or behind it where AdaptFormer is told so. Backward, with H = drop(φ(…)):
///
///     dUp = s · dyᵀ H,  db = s · Σ dy,  ds = ⟨Up, dyᵀ H⟩ + ⟨b, Σ dy⟩,  dH = s · dy · Up,  dDown = dPreᵀ x,  dx += dPre · Down
final class Bottleneck: Update {
    /// s.
    enum Scale {
        case constant(Double)
        /// [1]; read back at every use.
        case learned(Parameter)
    }

    /// Up [out, h], or blocks of it in a stored tensor; elsewhere it is zero.
    struct Up {
        /// The stored tensor.
        let parameter: Parameter
        /// Empty when the stored tensor is Up.
        let blocks: [Block]

        /// rows × columns at an offset and a stride in the stored tensor, and in Up at a row and a column.
        struct Block {
            let offset, stride, row, column, rows, columns: Int
        }
    }

    /// AdaptFormer's LayerNorm.
    struct Norm {
        let weight, bias: Parameter
        let isBefore: Bool
    }

    private let inputs, outputs, hidden: Int
    private let down: Tensor  // [h, in]
    private let downGradient: Tensor
    private let downBias: Parameter?  // its first h elements
    private let up: Up
    private let upBias: Parameter?
    private let activation: Activation
    private let scale: Scale
    private let dropout: Double
    private let norm: Norm?
    private let seed: UInt64
    private let backend: any Backend
    // Up, s · Up, dyᵀ H and s · dyᵀ H: [out, h]; s · b and Σ dy: [out].
    private let dense, scaled, gradient, scaledGradient: Tensor
    private let scaledBias, biasGradient: Tensor
    private var factor: Float = 1

    /// `down` is [≥ h, in], of which the first h rows count, in any shape that holds them. `place` is another number for each
    /// term, so that their dropouts differ. Throws `BackendError.outOfMemory`.
    init(
        inputs: Int, outputs: Int, hidden: Int, down: Parameter, downBias: Parameter? = nil, up: Parameter,
        upBlocks: [Up.Block] = [], upBias: Parameter? = nil, activation: Activation = .identity,
        scale: Scale = .constant(1), dropout: Double = 0, norm: Norm? = nil, place: Int, _ arena: Arena,
        _ backend: any Backend
    ) throws {
        (self.inputs, self.outputs, self.hidden) = (inputs, outputs, hidden)
        self.down = down.value.leading([hidden, inputs])
        downGradient = down.gradient!.leading([hidden, inputs])
        self.downBias = downBias
        self.up = Up(parameter: up, blocks: upBlocks)
        (self.upBias, self.activation, self.scale, self.dropout) = (upBias, activation, scale, dropout)
        self.norm = norm
        self.seed = UInt64(place + 1) &* 0x9e37_79b9_7f4a_7c15
        self.backend = backend
        dense = upBlocks.isEmpty ? up.value.reshaped([outputs, hidden]) : try arena.take([outputs, hidden])
        scaled = try arena.take([outputs, hidden])
        gradient = try arena.take([outputs, hidden])
        scaledGradient = try arena.take([outputs, hidden])
        scaledBias = try arena.take([outputs])
        biasGradient = try arena.take([outputs])
        if !upBlocks.isEmpty { backend.fill(dense, 0) }
    }

    // Before φ, behind it and the dropout, the gradient of either [n, h]; with a norm its output or input and its gradient
    // [n, d], mean and rstd [n].
    func keptShapes(rows: Int) -> [[Int]] {
        let narrow = Array(repeating: [rows, hidden], count: 3)
        guard let norm else { return narrow }
        let width = norm.isBefore ? inputs : outputs
        return narrow + [[rows, width], [rows, width], [rows], [rows]]
    }

    func add(to y: Tensor, _ x: Tensor, _ kept: [Tensor], dropoutSeed: UInt64?) {
        loadUp()
        var x = x
        if let norm, norm.isBefore {
            backend.layerNorm(
                kept[3], kept[5], kept[6], x, norm.weight.value, norm.bias.value, epsilon: 1e-5)
            x = kept[3]
        }
        let (pre, hidden) = (kept[0], kept[1])
        backend.linear(pre, x, down, downBias.map { $0.value.leading([self.hidden]) })
        backend.activate(hidden, pre, activation)
        if let dropoutSeed, dropout > 0 {
            backend.dropout(hidden, hidden, rate: dropout, seed: dropoutSeed ^ seed)
        }
        if let norm, !norm.isBefore {
            let (out, normed) = (kept[3], kept[4])
            backend.matmul(out, hidden, scaled, transposeA: false, transposeB: true, accumulate: false)
            if upBias != nil { backend.addRow(out, scaledBias) }
            backend.layerNorm(
                normed, kept[5], kept[6], out, norm.weight.value, norm.bias.value, epsilon: 1e-5)
            backend.addScaled(y, normed, 1)
        } else {
            backend.matmul(y, hidden, scaled, transposeA: false, transposeB: true, accumulate: true)
            if upBias != nil { backend.addRow(y, scaledBias) }
        }
    }

    func backward(_ dx: Tensor?, _ dy: Tensor, _ x: Tensor, _ kept: [Tensor], dropoutSeed: UInt64?) {
        var (dy, read) = (dy, x)
        let narrow = kept[2]
        if let norm, !norm.isBefore {
            backend.layerNormBackward(
                kept[4], norm.weight.gradient, norm.bias.gradient, dy, kept[3], kept[5], kept[6],
                norm.weight.value, accumulate: false)
            dy = kept[4]
        }
        backend.matmul(gradient, dy, kept[1], transposeA: true, transposeB: false, accumulate: false)
        if upBias != nil || learned != nil { backend.sumRows(biasGradient, dy, accumulate: false) }
        storeUpGradient()
        backend.matmul(narrow, dy, scaled, transposeA: false, transposeB: false, accumulate: false)
        if let dropoutSeed, dropout > 0 {
            backend.dropout(narrow, narrow, rate: dropout, seed: dropoutSeed ^ seed)
        }
        backend.activateBackward(narrow, narrow, kept[0], activation)
        if let norm, norm.isBefore { read = kept[3] }
        backend.matmul(downGradient, narrow, read, transposeA: true, transposeB: false, accumulate: true)
        if let bias = downBias?.gradient {
            backend.sumRows(bias.leading([hidden]), narrow, accumulate: true)
        }
        if let norm, norm.isBefore {
            backend.matmul(kept[4], narrow, down, transposeA: false, transposeB: false, accumulate: false)
            guard let dx else { preconditionFailure("a norm needs its input's gradient") }
            backend.layerNormBackward(
                dx, norm.weight.gradient, norm.bias.gradient, kept[4], x, kept[5], kept[6],
                norm.weight.value, accumulate: true)
        } else if let dx {
            backend.matmul(dx, narrow, down, transposeA: false, transposeB: false, accumulate: true)
        }
    }

    var parameterCount: Int {
        let biases = (downBias == nil ? 0 : hidden) + (upBias == nil ? 0 : outputs)
        let blocks = up.blocks.isEmpty ? outputs * hidden : up.blocks.reduce(0) { $0 + $1.rows * $1.columns }
        let norms = norm.map { $0.weight.value.count + $0.bias.value.count } ?? 0
        return hidden * inputs + blocks + biases + norms + (learned == nil ? 0 : 1)
    }

    func factors() -> LinearFactors? {
        guard activation == .identity, norm == nil else { return nil }
        loadUp()
        var bias: HostTensor?
        // s · (Up a + b): what the biases come to at the output.
        if upBias != nil || downBias != nil {
            let host = backend.host(scaled)
            var sum = [Double](repeating: 0, count: outputs)
            if let downBias {
                let a = backend.values(downBias.value)
                for row in 0..<outputs {
                    for column in 0..<hidden {
                        sum[row] += Double(host.values[row * hidden + column]) * Double(a[column])
                    }
                }
            }
            if upBias != nil {
                for (row, value) in backend.values(scaledBias).enumerated() { sum[row] += Double(value) }
            }
            bias = HostTensor(shape: [outputs], values: sum.map { Float($0) })
        }
        return LinearFactors(down: backend.host(down), up: backend.host(scaled), bias: bias)
    }

    private var learned: Parameter? {
        if case .learned(let parameter) = scale { parameter } else { nil }
    }

    /// Up and b, times s.
    private func loadUp() {
        for block in up.blocks {
            backend.copyBlock(
                MatrixBlock(dense, offset: block.row * hidden + block.column, stride: hidden),
                MatrixBlock(up.parameter.value, offset: block.offset, stride: block.stride),
                rows: block.rows, columns: block.columns, accumulate: false)
        }
        switch scale {
        case .constant(let value): factor = Float(value)
        case .learned(let parameter): factor = backend.values(parameter.value)[0]
        }
        backend.fill(scaled, 0)
        backend.addScaled(scaled, dense, factor)
        if let upBias {
            backend.fill(scaledBias, 0)
            backend.addScaled(scaledBias, upBias.value, factor)
        }
    }

    private func storeUpGradient() {
        if up.blocks.isEmpty {
            backend.addScaled(up.parameter.gradient!.reshaped([outputs, hidden]), gradient, factor)
        } else {
            backend.fill(scaledGradient, 0)
            backend.addScaled(scaledGradient, gradient, factor)
            for block in up.blocks {
                backend.copyBlock(
                    MatrixBlock(up.parameter.gradient!, offset: block.offset, stride: block.stride),
                    MatrixBlock(
                        scaledGradient, offset: block.row * hidden + block.column, stride: hidden),
                    rows: block.rows, columns: block.columns, accumulate: true)
            }
        }
        if let bias = upBias?.gradient { backend.addScaled(bias, biasGradient, factor) }
        guard let ds = learned?.gradient?.reshaped([1, 1]) else { return }
        func addProduct(_ a: Tensor, _ b: Tensor) {
            backend.matmul(
                ds, a.reshaped([1, a.count]), b.reshaped([1, b.count]), transposeA: false, transposeB: true,
                accumulate: true)
        }
        addProduct(dense, gradient)
        if let upBias { addProduct(upBias.value, biasGradient) }
    }
}
