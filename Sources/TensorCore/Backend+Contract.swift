// Every operation as it is called: its shapes and types are checked here, once for all backends, which get the sizes with their part
// of it. A tensor that doesn't fit is a mistake in this program and stops it, with the names and shapes of all that the operation has.

/// Stops the program unless the condition holds, with the operation's name; `precondition` is mute in a release build.
@inline(__always)
package func require(_ condition: Bool, _ operation: String, _ message: @autoclosure () -> String) {
    if !condition { fatalError("\(operation): \(message())") }
}

/// An operation's tensors, those that it has, with their names and the count of elements that each must have.
typealias Operands = KeyValuePairs<String, (Tensor?, count: Int)>

extension Backend {
    /// Stops the program, which names all tensors and shapes, unless the counts are right and `fits`; and unless `stored` are of one
    /// type, which is float32 or the precision's, `floats` float32 and `integers` int32.
    func require(
        _ operation: String, _ fits: Bool = true, stored: Operands = [:], floats: Operands = [:],
        integers: Operands = [:], _ constants: @autoclosure () -> String = ""
    ) {
        var fits = fits
        func check(_ operands: Operands, _ type: ElementType) {
            for case let (name, (tensor?, count)) in operands {
                fits = fits && tensor.count == count
                TensorCore.require(
                    tensor.elementType == type, operation,
                    "\(name) \(tensor.shape) is \(tensor.elementType), not \(type)")
            }
        }
        let first = stored.first { $0.value.0 != nil }?.value.0!.elementType
        check(stored, first == .float32 ? .float32 : precision.stored)
        check(floats, .float32)
        check(integers, .int32)
        if !fits {
            let tensors = [stored, floats, integers].joined().compactMap { name, operand in
                operand.0.map { "\(name) \($0.shape)" }
            }
            fatalError("\(operation): \(tensors.joined(separator: ", "))\(constants()) don't fit")
        }
    }

    /// Stops the program unless the terms' factors are float32, of a matrix [outputs, inputs], and hold their forms' ranks.
    private func requireFit(
        _ terms: MatrixTerm?..., outputs: Int, inputs: Int? = nil, _ operation: String
    ) {
        for case let term? in terms {
            let (down, up) = (term.down.value, term.up.value)
            require(
                operation, up.columns == inputs ?? up.columns && term.form.columnCount <= down.columns,
                floats: ["Xd": (down, outputs * down.columns), "Xu": (up, down.columns * up.columns)],
                " in the form \(term.form) of [\(outputs), \(inputs ?? up.columns)]")
        }
    }

    // MARK: Memory

    /// A tensor, uninitialised. Throws `BackendError.outOfMemory` with the size when the device has not enough.
    public func allocate(_ shape: [Int], _ elementType: ElementType) throws -> Tensor {
        TensorCore.require(shape.allSatisfy { $0 >= 0 }, "allocate", "shape \(shape) has a negative size")
        let byteCount = product([elementType.byteCount] + shape) ?? .max
        return Tensor(buffer: try makeBuffer(byteCount: byteCount), shape: shape, elementType: elementType)
    }

    /// A part of `tensor` from element `offset` on, without a copy. `offset` is a multiple of `viewAlignment`, or of twice that
    /// where elements have 16 bits: 512 bytes. Views are made when a plan is built, not in a step.
    public func view(_ tensor: Tensor, at offset: Int, _ shape: [Int]) throws -> Tensor {
        let size = tensor.elementType.byteCount
        TensorCore.require(
            offset * size % (4 * viewAlignment) == 0, "view",
            "offset \(offset) of \(tensor.elementType) is not a multiple of \(4 * viewAlignment) bytes")
        let count = shape.reduce(1, *)
        TensorCore.require(
            offset >= 0 && offset + count <= tensor.count, "view",
            "\(shape) at \(offset) is not inside a tensor of shape \(tensor.shape)")
        let part = try makeBuffer(partOf: tensor, byteOffset: offset * size, byteCount: count * size)
        return Tensor(buffer: part, shape: shape, elementType: tensor.elementType)
    }

    /// Copies exactly `tensor.byteCount` bytes from the host; the source may be reused on return.
    public func upload(_ tensor: Tensor, _ source: UnsafeRawBufferPointer) {
        TensorCore.require(
            source.count == tensor.byteCount, "upload", "\(source.count) bytes for shape \(tensor.shape)")
        if tensor.byteCount > 0 { upload(tensor, from: source.baseAddress!) }
    }

    /// Waits for the operations before it, then copies `tensor.byteCount` bytes to the host.
    public func download(_ destination: UnsafeMutableRawBufferPointer, _ tensor: Tensor) {
        TensorCore.require(
            destination.count >= tensor.byteCount, "download",
            "\(destination.count) bytes for shape \(tensor.shape)")
        if tensor.byteCount > 0 { download(destination.baseAddress!, from: tensor) }
    }

    /// out ← value, float32.
    public func fill(_ out: Tensor, _ value: Float) {
        require("fill", floats: ["out": (out, out.count)])
        fill(out, value, count: out.count)
    }

    /// out ← x, of the same count. Each may be stored in the precision: then x is widened, or rounded to the nearest.
    public func copy(_ out: Tensor, _ x: Tensor) {
        require("copy", stored: ["out": (out, x.count)], " from \(x.shape)")
        require("copy", stored: ["x": (x, x.count)])
        copy(out, x, count: x.count)
    }

    // MARK: Matrices

    /// c [m, n] ← op(a) · op(b), or c + op(a) · op(b) when `accumulate`. op(a) is [m, k], op(b) [k, n];
    /// `transposeA` means that a is stored [k, m], `transposeB` that b is stored [n, k].
    public func matmul(
        _ c: Tensor, _ a: Tensor, _ b: Tensor, transposeA: Bool, transposeB: Bool, accumulate: Bool
    ) {
        let (m, n, k) = (c.rows, c.columns, transposeA ? a.rows : a.columns)
        require(
            "matmul", (transposeA ? a.columns : a.rows) == m && (transposeB ? b.rows : b.columns) == n,
            stored: ["c": (c, m * n), "a": (a, m * k), "b": (b, k * n)],
            "\(transposeA ? ", a transposed" : "")\(transposeB ? ", b transposed" : "")")
        matmul(
            c, a, b, transposeA: transposeA, transposeB: transposeB, accumulate: accumulate, m: m, n: n, k: k)
    }

    /// z [n, out] = x [n, in] · Wᵀ, and what `epilogue` makes of it: y [n, out], z itself and GELU(y), each where it is
    /// wanted: the three are different tensors, and there is at least one.
    public func linear(_ y: Tensor?, _ x: Tensor, _ weight: LinearWeight, _ epilogue: Epilogue) {
        let (rows, outputs, inputs) = (x.rows, weight.frozen.rows, weight.frozen.columns)
        let output = y ?? epilogue.preActivation ?? epilogue.activated
        require(
            "linear", output != nil && x.columns == inputs,
            stored: [
                "y": (output, rows * outputs), "x": (x, x.count), "W": (weight.frozen, outputs * inputs),
            ])
        requireFit(weight.terms?.a, weight.terms?.b, outputs: outputs, inputs: inputs, "linear")
        requireFit(y, epilogue, rows: rows, outputs: outputs, "linear")
        linear(y, x, weight, epilogue, rows: rows, outputs: outputs, inputs: inputs)
    }

    /// The epilogue alone, of a z [n, out] that is in memory. y may be z, and so may GELU(y) where there is no y.
    public func finish(_ y: Tensor?, _ z: Tensor, _ epilogue: Epilogue) {
        require("finish", stored: ["y": (y, z.count), "z": (z, z.count)])
        requireFit(y, epilogue, rows: z.rows, outputs: z.columns, "finish")
        finish(y, z, epilogue, rows: z.rows, outputs: z.columns)
    }

    private func requireFit(
        _ y: Tensor?, _ epilogue: Epilogue, rows: Int, outputs: Int, _ operation: String
    ) {
        let outs = [y, epilogue.preActivation, epilogue.activated]
        let (a, b, t, count) = (epilogue.a, epilogue.b, epilogue.t, rows * outputs)
        require(
            operation,
            outs.allSatisfy { $0?.columns ?? outputs == outputs } && a?.form.isLowRank != true
                && t?.columns ?? 0 == b?.form.columnCount ?? 0,
            stored: ["y": (outs[0], count), "z": (outs[1], count), "GELU(y)": (outs[2], count)],
            floats: ["bias": (epilogue.bias, outputs), "t": (t, rows * (t?.columns ?? 0))],
            ", a \(a?.form ?? .none) and b \(b?.form ?? .none) for a product of [\(rows), \(outputs)]")
        requireFit(a, b, outputs: outputs, operation)
    }

    /// dx [n, in] ← dy [n, out] · W, which isn't a prepared one.
    public func linearBackward(_ dx: Tensor, _ dy: Tensor, _ weight: LinearWeight) {
        let (rows, outputs, inputs) = (dy.rows, weight.frozen.rows, weight.frozen.columns)
        require(
            "linearBackward", dx.columns == inputs && dy.columns == outputs,
            stored: ["dx": (dx, rows * inputs), "dy": (dy, dy.count), "W": (weight.frozen, outputs * inputs)])
        TensorCore.require(
            weight.ready == nil, "linearBackward", "a prepared weight is for the forward alone")
        requireFit(weight.terms?.a, weight.terms?.b, outputs: outputs, inputs: inputs, "linearBackward")
        linearBackward(dx, dy, weight, rows: rows, outputs: outputs, inputs: inputs)
    }

    /// x [n, d] ← x + row [d] in every row.
    public func addRow(_ x: Tensor, _ row: Tensor) {
        let d = x.columns
        require("addRow", floats: ["x": (x, x.count), "row": (row, d)])
        copyBlock(
            MatrixBlock(x, stride: d), MatrixBlock(row, stride: 0), rows: x.rows, columns: d, accumulate: true
        )
    }

    /// out [d] ← Σₙ x [n, d], or out + Σₙ x when `accumulate`.
    public func sumRows(_ out: Tensor, _ x: Tensor, accumulate: Bool) {
        require("sumRows", stored: ["x": (x, x.count)], floats: ["out": (out, x.columns)])
        sumRows(out, x, accumulate: accumulate, rows: x.rows, columns: x.columns)
    }

    // MARK: GLoRA

    /// W = W₀ ⊙ (1 + A) + B, all [out, in]. `weight` is not `frozen`, which is never written.
    public func gloraWeight(_ weight: Tensor, _ frozen: Tensor, _ a: MatrixTerm, _ b: MatrixTerm) {
        let (outputs, inputs) = (frozen.rows, frozen.columns)
        let count = frozen.count
        require("gloraWeight", stored: ["W": (weight, count), "W₀": (frozen, count)])
        requireFit(a, b, outputs: outputs, inputs: inputs, "gloraWeight")
        gloraWeight(weight, frozen, a, b, outputs: outputs, inputs: inputs)
    }

    /// Given dW = dyᵀ · x, with dy [n, out] and x [n, in], accumulates into the gradients of a and b:
    ///
    ///     ∂A = dW ⊙ W₀, ∂B = dW;  lowRank: ∂Xd[:, :r] += ∂X · Xu[:r]ᵀ, ∂Xu[:r] += Xd[:, :r]ᵀ · ∂X;
    ///     vector: ∂Xd[:, 0] += Σᵢ ∂X[:, i];  constant: ∂Xd[0, 0] += Σ ∂X.
    ///
    /// Elements that the form doesn't read are left as they are. `scratch` [out, in] may be written: a backend that
    /// contracts dW as it is computed leaves it alone.
    public func gloraWeightBackward(
        _ a: MatrixTerm, _ b: MatrixTerm, _ scratch: Tensor, _ dy: Tensor, _ x: Tensor, _ frozen: Tensor
    ) {
        let (rows, outputs, inputs) = (dy.rows, frozen.rows, frozen.columns)
        require(
            "gloraWeightBackward",
            scratch.count == frozen.count && dy.columns == outputs && x.columns == inputs,
            stored: ["dy": (dy, dy.count), "x": (x, rows * inputs), "W₀": (frozen, outputs * inputs)],
            " and scratch \(scratch.shape)")
        requireFit(a, b, outputs: outputs, inputs: inputs, "gloraWeightBackward")
        gloraWeightBackward(a, b, scratch, dy, x, frozen, rows: rows, outputs: outputs, inputs: inputs)
    }

    /// t [n, r] ← x [n, in] · Bu[:r]ᵀ for a lowRank b; for vector and constant r = 1 and t = Σᵢ x.
    public func gloraProject(_ t: Tensor, _ x: Tensor, _ b: MatrixTerm) {
        let rank = b.form.columnCount
        require(
            "gloraProject", t.columns == rank, stored: ["x": (x, x.count)], floats: ["t": (t, x.rows * rank)],
            " in the form \(b.form)")
        requireFit(b, outputs: b.down.value.rows, inputs: x.columns, "gloraProject")
        gloraProject(t, x, b, rows: x.rows, inputs: x.columns)
    }

    /// The sums over the rows of dy [n, out] that activation space needs:
    ///
    ///     dBias = Σₙ dy;   vector a: ∂Ad[:, 0] += Σₙ dy ⊙ z, constant: the sum of that into [0, 0];
    ///     lowRank b: ∂Bd[:, :r] += dyᵀ · t, vector: ∂Bd[:, 0] += dyᵀ · t, constant: the sum of that into [0, 0].
    ///
    /// dBias [out] is overwritten. z [n, out] belongs to a, t [n, r] to b; nil where the form is none.
    public func gloraOutputBackward(
        _ dBias: Tensor, _ a: MatrixTerm?, _ b: MatrixTerm?, _ dy: Tensor, _ z: Tensor?, _ t: Tensor?
    ) {
        let (rows, outputs) = (dy.rows, dy.columns)
        let needsZ = a.map { $0.form != .none && $0.down.gradient != nil } ?? false
        let rank = b?.form.columnCount ?? 0
        require(
            "gloraOutputBackward",
            (z != nil || !needsZ) && t?.columns ?? 0 == rank && a?.form.isLowRank != true,
            stored: ["dy": (dy, dy.count), "z": (z, dy.count)],
            floats: ["dBias": (dBias, outputs), "t": (t, rows * rank)],
            ", a \(a?.form ?? .none) and b \(b?.form ?? .none)")
        requireFit(a, b, outputs: outputs, "gloraOutputBackward")
        gloraOutputBackward(dBias, a, b, dy, z, t, rows: rows, outputs: outputs)
    }

    /// u [n, r] ← dy · Bd[:, :r] (lowRank), dy · Bd[:, 0] (vector), Bd[0, 0] · Σₒ dy (constant); and for lowRank
    /// ∂Bu[:r] += uᵀ · x.
    public func gloraProjectBackward(_ u: Tensor, _ b: MatrixTerm, _ dy: Tensor, _ x: Tensor) {
        let (rows, outputs, inputs) = (dy.rows, dy.columns, x.columns)
        let rank = b.form.columnCount
        require(
            "gloraProjectBackward", u.columns == rank,
            stored: ["dy": (dy, dy.count), "x": (x, rows * inputs)], floats: ["u": (u, rows * rank)],
            " in the form \(b.form)")
        requireFit(b, outputs: outputs, inputs: inputs, "gloraProjectBackward")
        gloraProjectBackward(u, b, dy, x, rows: rows, outputs: outputs, inputs: inputs)
    }

    /// b = b₀ ⊙ (1 + D) + E + W₀ · C with b [out], and `prompt` [in] receives the column C (it is scratch; zeros when
    /// C is none). Without b₀: b = E + W₀ · C, and D is not used. C goes through the frozen W₀, never through W.
    public func gloraBias(
        _ bias: Tensor, _ prompt: Tensor, _ frozen: Tensor, _ frozenBias: Tensor?,
        _ c: PromptTerm, _ d: ScaleTerm, _ e: ScaleTerm
    ) {
        requireFit(bias, prompt, frozen, frozenBias, c, d, e, "gloraBias")
        gloraBias(bias, prompt, frozen, frozenBias, c, d, e, outputs: frozen.rows, inputs: frozen.columns)
    }

    /// Given dBias [out] = Σ dy, accumulates into the gradients of c, d and e, using `dPrompt` [in] as scratch:
    ///
    ///     ∂C = W₀ᵀ · db;  lowRank: ∂Cd[:, :r] += ∂C · Cu[:r]ᵀ, ∂Cu[:r] += Cd[:, :r]ᵀ · ∂C;  vector: ∂Cd[:, 0] += ∂C;
    ///     ∂D = db ⊙ b₀, ∂E = db;  constant: the sum goes into element 0.
    public func gloraBiasBackward(
        _ c: PromptTerm, _ d: ScaleTerm, _ e: ScaleTerm,
        _ dPrompt: Tensor, _ dBias: Tensor, _ frozen: Tensor, _ frozenBias: Tensor?
    ) {
        requireFit(dBias, dPrompt, frozen, frozenBias, c, d, e, "gloraBiasBackward")
        gloraBiasBackward(
            c, d, e, dPrompt, dBias, frozen, frozenBias, outputs: frozen.rows, inputs: frozen.columns)
    }

    private func requireFit(
        _ bias: Tensor, _ prompt: Tensor, _ frozen: Tensor, _ frozenBias: Tensor?,
        _ c: PromptTerm, _ d: ScaleTerm, _ e: ScaleTerm, _ operation: String
    ) {
        let (outputs, inputs, storageRank) = (frozen.rows, frozen.columns, c.down.value.columns)
        require(
            operation, c.form.columnCount <= storageRank, stored: ["W₀": (frozen, outputs * inputs)],
            floats: [
                "b": (bias, outputs), "C": (prompt, inputs), "b₀": (frozenBias, outputs),
                "Cd": (c.down.value, inputs * storageRank), "Cu": (c.up.value, storageRank),
                "D": (d.values.value, outputs), "E": (e.values.value, outputs),
            ], " in the form \(c.form)")
    }

    // MARK: Other methods' adapters

    /// out ← x, or out + x when `accumulate`, rows × columns of each, stored; the other elements of out's tensor stay as they
    /// are. The two blocks don't overlap, though they may lie in one tensor; rows of out don't either.
    public func copyBlock(
        _ out: MatrixBlock, _ x: MatrixBlock, rows: Int, columns: Int, accumulate: Bool
    ) {
        require(
            "copyBlock",
            out.holds(rows: rows, columns: columns) && x.holds(rows: rows, columns: columns)
                && (rows <= 1 || out.stride >= columns),
            stored: ["out": (out.tensor, out.tensor.count), "x": (x.tensor, x.tensor.count)],
            ": \(rows) × \(columns) from \(x.offset) on every \(x.stride) to \(out.offset) on every \(out.stride)"
        )
        if rows > 0, columns > 0 { copyBlock(out, x, (rows, columns), accumulate: accumulate) }
    }

    /// y ← f(x), of the same count, both stored. y may be x.
    public func activate(_ y: Tensor, _ x: Tensor, _ activation: Activation) {
        require("activate", stored: ["y": (y, x.count), "x": (x, x.count)])
        if activation != .identity {
            activate(y, x, activation, count: x.count)
        } else if y.buffer !== x.buffer {
            copy(y, x, count: x.count)
        }
    }

    /// dx ← dy ⊙ f′(x), with relu′(0) = 0, of one count, all stored. dx may be dy.
    public func activateBackward(_ dx: Tensor, _ dy: Tensor, _ x: Tensor, _ activation: Activation) {
        require(
            "activateBackward", stored: ["dx": (dx, x.count), "dy": (dy, x.count), "x": (x, x.count)])
        if activation != .identity {
            activateBackward(dx, dy, x, activation, count: x.count)
        } else if dx.buffer !== dy.buffer {
            copy(dx, dy, count: x.count)
        }
    }

    /// y [n, d] ← x [n, d] ⊙ scale [d] + shift [d] in every row; without a shift x ⊙ scale. y may be x.
    public func scaleShift(_ y: Tensor, _ x: Tensor, _ scale: Tensor, _ shift: Tensor?) {
        let d = x.columns
        require(
            "scaleShift", stored: ["y": (y, x.count), "x": (x, x.count)],
            floats: ["scale": (scale, d), "shift": (shift, d)])
        scaleShift(y, x, scale, shift, rows: x.rows, columns: d)
    }

    /// The gradients of `scaleShift`, each where it is wanted:
    ///
    ///     dScale += Σₙ dy ⊙ x;  dShift += Σₙ dy;  dx ← dy ⊙ scale
    ///
    /// dx, dy, x [n, d]; dScale, dShift, scale [d]. dx may be dy.
    public func scaleShiftBackward(
        _ dx: Tensor?, _ dScale: Tensor?, _ dShift: Tensor?, _ dy: Tensor, _ x: Tensor, _ scale: Tensor
    ) {
        let d = x.columns
        require(
            "scaleShiftBackward", stored: ["dx": (dx, x.count), "dy": (dy, x.count), "x": (x, x.count)],
            floats: ["dScale": (dScale, d), "dShift": (dShift, d), "scale": (scale, d)])
        scaleShiftBackward(dx, dScale, dShift, dy, x, scale, rows: x.rows, columns: d)
    }

    /// y ← y + factor · x, of the same count.
    public func addScaled(_ y: Tensor, _ x: Tensor, _ factor: Float) {
        require("addScaled", floats: ["y": (y, x.count), "x": (x, x.count)])
        addScaled(y, x, factor, count: x.count)
    }

    /// yᵢ ← xᵢ / (1 − rate) where `DropoutMask` keeps i, else 0; rate is in 0..<1. y may be x.
    ///
    /// The mask is a function of the seed and i alone, the same on every backend, so that the backward is the same call
    /// on dy, and no mask is kept in between.
    public func dropout(_ y: Tensor, _ x: Tensor, rate: Double, seed: UInt64) {
        require(
            "dropout", (0..<1).contains(rate), floats: ["y": (y, x.count), "x": (x, x.count)],
            " at a rate of \(rate)")
        dropout(y, x, DropoutMask(rate: rate, seed: seed), count: x.count)
    }
}
