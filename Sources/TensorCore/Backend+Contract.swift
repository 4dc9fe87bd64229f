// Every operation as it is called: its shapes and types are checked here, once for all backends, which get the sizes with their part
// of it. A tensor that doesn't fit is a mistake in this program and stops it, with the names and shapes of all that the operation has.

/// Stops the program unless the condition holds, with the operation's name; `precondition` is mute in a release build.
@inline(__always)
package func require(_ condition: Bool, _ operation: String, _ message: @autoclosure () -> String) {
    if !condition { fatalError("\(operation): \(message())") }
}

/// The sizes of attention: qkv [B, T, 3·D], of whose T tokens the first Q are queries, out [B, Q, D], D = heads · head.
public struct AttentionSizes {
    /// B, T, Q, the heads and the width of each.
    public let batch, tokens, queries, heads, head: Int
    /// D.
    public var width: Int { heads * head }
    /// 1/√head.
    public var scale: Float { 1 / Float(head).squareRoot() }
}

/// The sizes of tokens [B, T, D] over projected patches [B, N, D].
public struct TokenSizes {
    /// B, T, N and D.
    public let batch, tokens, patches, width: Int
    /// T − N, the first patch's token: 1 after a class token, else 0.
    public var first: Int { tokens - patches }
}

/// An operation's tensors with their names, for the sentence that says what doesn't fit.
private typealias Operands = KeyValuePairs<String, Tensor?>

extension Backend {
    /// Stops the program unless the shapes fit, `stored` are of one type, which is float32 or the precision's, `floats` float32 and
    /// `integers` int32.
    private func require(
        _ fits: Bool, _ operation: String, stored: Operands = [:], floats: Operands = [:],
        integers: Operands = [:], _ constants: @autoclosure () -> String = ""
    ) {
        if !fits {
            let tensors = [stored, floats, integers].joined()
                .compactMap { name, tensor in tensor.map { "\(name) \($0.shape)" } }.joined(separator: ", ")
            fatalError("\(operation): \(tensors)\(constants()) don't fit")
        }
        func check(_ operands: Operands, _ type: ElementType) {
            for case let (name, tensor?) in operands where tensor.elementType != type {
                fatalError("\(operation): \(name) \(tensor.shape) is \(tensor.elementType), not \(type)")
            }
        }
        if let first = stored.first(where: { $0.value != nil })?.value!.elementType {
            check(stored, first == .float32 ? first : precision.stored)
        }
        check(floats, .float32)
        check(integers, .int32)
    }

    /// Stops the program unless a term's factors are float32, of a matrix [outputs, inputs], and hold the form's rank.
    private func requireFit(_ term: MatrixTerm?, outputs: Int, inputs: Int? = nil, _ operation: String) {
        guard let term else { return }
        let (down, up) = (term.down.value, term.up.value)
        require(
            down.rows == outputs && up.columns == inputs ?? up.columns && up.rows == down.columns
                && term.form.columnCount <= down.columns, operation, floats: ["Xd": down, "Xu": up],
            " in the form \(term.form) of [\(outputs), \(inputs ?? up.columns)]")
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
        require(true, "fill", floats: ["out": out])
        fill(out, value, count: out.count)
    }

    /// out ← x, of the same count; each float32 or stored in the precision.
    public func copy(_ out: Tensor, _ x: Tensor) {
        require(out.count == x.count, "copy", stored: ["out": out], " from \(x.shape)")
        require(true, "copy", stored: ["x": x])
        copy(out, x, count: x.count)
    }

    // MARK: Matrices

    /// c [m, n], and a [m, k], b [k, n] or their transposes.
    public func matmul(
        _ c: Tensor, _ a: Tensor, _ b: Tensor, transposeA: Bool, transposeB: Bool, accumulate: Bool
    ) {
        let (m, n, k) = (c.rows, c.columns, transposeA ? a.rows : a.columns)
        require(
            (transposeA ? a.columns : a.rows) == m && (transposeB ? b.rows : b.columns) == n
                && (transposeB ? b.columns : b.rows) == k, "matmul",
            stored: ["c": c, "a": a, "b": b],
            "\(transposeA ? ", a transposed" : "")\(transposeB ? ", b transposed" : "")")
        matmul(
            c, a, b, transposeA: transposeA, transposeB: transposeB, accumulate: accumulate, m: m, n: n, k: k)
    }

    /// x [n, in], W [out, in]; y and the epilogue's outputs [n, out], of which there is one at least.
    public func linear(_ y: Tensor?, _ x: Tensor, _ weight: LinearWeight, _ epilogue: Epilogue) {
        let (rows, outputs, inputs) = (x.rows, weight.frozen.rows, weight.frozen.columns)
        let output = y ?? epilogue.preActivation ?? epilogue.activated
        require(
            output != nil && x.columns == inputs, "linear", stored: ["y": output, "x": x, "W": weight.frozen])
        requireFit(weight.terms?.a, outputs: outputs, inputs: inputs, "linear")
        requireFit(weight.terms?.b, outputs: outputs, inputs: inputs, "linear")
        requireFit(y, epilogue, rows: rows, outputs: outputs, "linear")
        linear(y, x, weight, epilogue, rows: rows, outputs: outputs, inputs: inputs)
    }

    /// z [n, out], as are y and the epilogue's outputs.
    public func finish(_ y: Tensor?, _ z: Tensor, _ epilogue: Epilogue) {
        require(true, "finish", stored: ["y": y ?? z, "z": z])
        requireFit(y, epilogue, rows: z.rows, outputs: z.columns, "finish")
        finish(y, z, epilogue, rows: z.rows, outputs: z.columns)
    }

    private func requireFit(
        _ y: Tensor?, _ epilogue: Epilogue, rows: Int, outputs: Int, _ operation: String
    ) {
        func fits(_ output: Tensor?) -> Bool {
            output == nil || output!.rows == rows && output!.columns == outputs
        }
        let t = epilogue.t
        require(
            fits(y) && fits(epilogue.preActivation) && fits(epilogue.activated)
                && epilogue.bias?.count ?? outputs == outputs && t?.rows ?? rows == rows
                && t?.columns ?? 0 == epilogue.b?.form.columnCount ?? 0 && epilogue.a?.form.isLowRank != true,
            operation,
            stored: ["y": y, "z": epilogue.preActivation, "GELU(y)": epilogue.activated],
            floats: ["bias": epilogue.bias, "t": t],
            ", a \(epilogue.a?.form ?? .none) and b \(epilogue.b?.form ?? .none) for a product of [\(rows), \(outputs)]"
        )
        requireFit(epilogue.a, outputs: outputs, operation)
        requireFit(epilogue.b, outputs: outputs, operation)
    }

    /// dx [n, in], dy [n, out], W [out, in], which isn't a prepared one.
    public func linearBackward(_ dx: Tensor, _ dy: Tensor, _ weight: LinearWeight) {
        let (rows, outputs, inputs) = (dy.rows, weight.frozen.rows, weight.frozen.columns)
        require(
            dx.rows == rows && dx.columns == inputs && dy.columns == outputs, "linearBackward",
            stored: ["dx": dx, "dy": dy, "W": weight.frozen])
        TensorCore.require(
            weight.ready == nil, "linearBackward", "a prepared weight is for the forward alone")
        requireFit(weight.terms?.a, outputs: outputs, inputs: inputs, "linearBackward")
        requireFit(weight.terms?.b, outputs: outputs, inputs: inputs, "linearBackward")
        linearBackward(dx, dy, weight, rows: rows, outputs: outputs, inputs: inputs)
    }

    /// x [n, d] ← x + row [d] in every row.
    public func addRow(_ x: Tensor, _ row: Tensor) {
        let d = x.columns
        require(row.count == d, "addRow", floats: ["x": x, "row": row])
        copyBlock(
            MatrixBlock(x, stride: d), MatrixBlock(row, stride: 0), rows: x.rows, columns: d, accumulate: true
        )
    }

    /// out [d], x [n, d].
    public func sumRows(_ out: Tensor, _ x: Tensor, accumulate: Bool) {
        require(out.count == x.columns, "sumRows", stored: ["x": x], floats: ["out": out])
        sumRows(out, x, accumulate: accumulate, rows: x.rows, columns: x.columns)
    }

    // MARK: GLoRA

    /// W and W₀ [out, in], as are A and B.
    public func gloraWeight(_ weight: Tensor, _ frozen: Tensor, _ a: MatrixTerm, _ b: MatrixTerm) {
        let (outputs, inputs) = (frozen.rows, frozen.columns)
        require(weight.count == frozen.count, "gloraWeight", stored: ["W": weight, "W₀": frozen])
        requireFit(a, outputs: outputs, inputs: inputs, "gloraWeight")
        requireFit(b, outputs: outputs, inputs: inputs, "gloraWeight")
        gloraWeight(weight, frozen, a, b, outputs: outputs, inputs: inputs)
    }

    /// dy [n, out], x [n, in]; W₀ [out, in], as are A, B and `scratch`, of which only the memory counts.
    public func gloraWeightBackward(
        _ a: MatrixTerm, _ b: MatrixTerm, _ scratch: Tensor, _ dy: Tensor, _ x: Tensor, _ frozen: Tensor
    ) {
        let (rows, outputs, inputs) = (dy.rows, frozen.rows, frozen.columns)
        require(
            scratch.count == frozen.count && dy.columns == outputs && x.columns == inputs && x.rows == rows,
            "gloraWeightBackward", stored: ["dy": dy, "x": x, "W₀": frozen], " and scratch \(scratch.shape)")
        requireFit(a, outputs: outputs, inputs: inputs, "gloraWeightBackward")
        requireFit(b, outputs: outputs, inputs: inputs, "gloraWeightBackward")
        gloraWeightBackward(a, b, scratch, dy, x, frozen, rows: rows, outputs: outputs, inputs: inputs)
    }

    /// t [n, r], x [n, in], and b of so many inputs.
    public func gloraProject(_ t: Tensor, _ x: Tensor, _ b: MatrixTerm) {
        require(
            t.rows == x.rows && t.columns == b.form.columnCount, "gloraProject", stored: ["x": x],
            floats: ["t": t], " in the form \(b.form)")
        requireFit(b, outputs: b.down.value.rows, inputs: x.columns, "gloraProject")
        gloraProject(t, x, b, rows: x.rows, inputs: x.columns)
    }

    /// dBias [out], dy [n, out]; z [n, out] where a has a gradient, t [n, r] with b.
    public func gloraOutputBackward(
        _ dBias: Tensor, _ a: MatrixTerm?, _ b: MatrixTerm?, _ dy: Tensor, _ z: Tensor?, _ t: Tensor?
    ) {
        let (rows, outputs) = (dy.rows, dy.columns)
        let needsZ = a.map { $0.form != .none && $0.down.gradient != nil } ?? false
        require(
            dBias.count == outputs && z?.count ?? (needsZ ? -1 : dy.count) == dy.count
                && t?.rows ?? rows == rows && t?.columns ?? 0 == b?.form.columnCount ?? 0
                && a?.form.isLowRank != true, "gloraOutputBackward", stored: ["dy": dy, "z": z],
            floats: ["dBias": dBias, "t": t], ", a \(a?.form ?? .none) and b \(b?.form ?? .none)")
        requireFit(a, outputs: outputs, "gloraOutputBackward")
        requireFit(b, outputs: outputs, "gloraOutputBackward")
        gloraOutputBackward(dBias, a, b, dy, z, t, rows: rows, outputs: outputs)
    }

    /// u [n, r], dy [n, out], x [n, in].
    public func gloraProjectBackward(_ u: Tensor, _ b: MatrixTerm, _ dy: Tensor, _ x: Tensor) {
        let (rows, outputs, inputs) = (dy.rows, dy.columns, x.columns)
        require(
            u.rows == rows && u.columns == b.form.columnCount && x.rows == rows, "gloraProjectBackward",
            stored: ["dy": dy, "x": x], floats: ["u": u], " in the form \(b.form)")
        requireFit(b, outputs: outputs, inputs: inputs, "gloraProjectBackward")
        gloraProjectBackward(u, b, dy, x, rows: rows, outputs: outputs, inputs: inputs)
    }

    /// b, b₀, D and E [out], C [in], W₀ [out, in].
    public func gloraBias(
        _ bias: Tensor, _ prompt: Tensor, _ frozen: Tensor, _ frozenBias: Tensor?,
        _ c: PromptTerm, _ d: ScaleTerm, _ e: ScaleTerm
    ) {
        requireFit(
            ["b": bias, "C": prompt, "b₀": frozenBias], bias, prompt, frozen, frozenBias, c, d, e, "gloraBias"
        )
        gloraBias(bias, prompt, frozen, frozenBias, c, d, e, outputs: frozen.rows, inputs: frozen.columns)
    }

    /// dBias, b₀, D and E [out], dPrompt [in], W₀ [out, in].
    public func gloraBiasBackward(
        _ c: PromptTerm, _ d: ScaleTerm, _ e: ScaleTerm,
        _ dPrompt: Tensor, _ dBias: Tensor, _ frozen: Tensor, _ frozenBias: Tensor?
    ) {
        requireFit(
            ["db": dBias, "dC": dPrompt, "b₀": frozenBias], dBias, dPrompt, frozen, frozenBias, c, d, e,
            "gloraBiasBackward")
        gloraBiasBackward(
            c, d, e, dPrompt, dBias, frozen, frozenBias, outputs: frozen.rows, inputs: frozen.columns)
    }

    private func requireFit(
        _ floats: Operands, _ bias: Tensor, _ prompt: Tensor, _ frozen: Tensor, _ frozenBias: Tensor?,
        _ c: PromptTerm, _ d: ScaleTerm, _ e: ScaleTerm, _ operation: String
    ) {
        let (outputs, inputs, down) = (frozen.rows, frozen.columns, c.down.value)
        require(
            bias.count == outputs && prompt.count == inputs && frozenBias?.count ?? outputs == outputs
                && d.values.value.count == outputs && e.values.value.count == outputs && down.rows == inputs
                && c.up.value.count == down.columns && c.form.columnCount <= down.columns, operation,
            stored: ["W₀": frozen], floats: floats, " and Cd \(down.shape) in the form \(c.form)")
    }

    // MARK: Transformer

    /// patches [B, (H/p)·(W/p), C·p·p], images [B, C, H, W], where p divides H and W.
    public func extractPatches(_ patches: Tensor, _ images: Tensor, patchSize: Int) {
        let shape = images.shape
        require(
            shape.count == 4 && patchSize > 0 && shape[2] % patchSize == 0 && shape[3] % patchSize == 0
                && patches.count == images.count, "extractPatches", stored: ["patches": patches],
            floats: ["images": images], " in patches of \(patchSize) pixels")
        extractPatches(
            patches, images, patchSize: patchSize, batch: shape[0], channels: shape[1], height: shape[2],
            width: shape[3])
    }

    /// tokens [B, T, D], projected [B, N, D], class token [D] where T = N + 1, positions [T, D].
    public func embedTokens(
        _ tokens: Tensor, _ projected: Tensor, _ classToken: Tensor?, _ positions: Tensor
    ) {
        require(
            tokens.fit(projected, classToken, positions)
                && (classToken != nil) == (tokens.shape[1] > projected.shape[1]),
            "embedTokens", stored: ["projected": projected],
            floats: ["tokens": tokens, "class token": classToken, "positions": positions])
        embedTokens(tokens, projected, classToken, positions, TokenSizes(tokens, projected))
    }

    /// dTokens [B, T, D], dProjected [B, N, D], dClassToken [D] unless it is frozen or there is none, dPositions [T, D].
    public func embedTokensBackward(
        _ dProjected: Tensor, _ dClassToken: Tensor?, _ dPositions: Tensor, _ dTokens: Tensor
    ) {
        require(
            dTokens.fit(dProjected, dClassToken, dPositions), "embedTokensBackward",
            stored: ["dProjected": dProjected],
            floats: ["dClassToken": dClassToken, "dPositions": dPositions, "dTokens": dTokens])
        embedTokensBackward(dProjected, dClassToken, dPositions, dTokens, TokenSizes(dTokens, dProjected))
    }

    /// x, y [n, d]; mean, rstd [n]; weight, bias [d].
    public func layerNorm(
        _ y: Tensor, _ mean: Tensor, _ rstd: Tensor,
        _ x: Tensor, _ weight: Tensor, _ bias: Tensor, epsilon: Float
    ) {
        let (n, d) = (x.rows, x.columns)
        require(
            y.count == x.count && mean.count == n && rstd.count == n && weight.count == d && bias.count == d,
            "layerNorm", stored: ["y": y],
            floats: ["mean": mean, "rstd": rstd, "x": x, "weight": weight, "bias": bias])
        layerNorm(y, mean, rstd, x, weight, bias, epsilon: epsilon, rows: n, columns: d)
    }

    /// dx, dy, x [n, d]; mean, rstd [n]; weight, dWeight, dBias [d].
    public func layerNormBackward(
        _ dx: Tensor, _ dWeight: Tensor?, _ dBias: Tensor?,
        _ dy: Tensor, _ x: Tensor, _ mean: Tensor, _ rstd: Tensor, _ weight: Tensor, accumulate: Bool
    ) {
        let (n, d) = (x.rows, x.columns)
        require(
            dx.count == x.count && dy.count == x.count && mean.count == n && rstd.count == n
                && weight.count == d && dWeight?.count ?? d == d && dBias?.count ?? d == d,
            "layerNormBackward", stored: ["dy": dy],
            floats: [
                "dx": dx, "dWeight": dWeight, "dBias": dBias, "x": x, "mean": mean, "rstd": rstd,
                "weight": weight,
            ])
        layerNormBackward(
            dx, dWeight, dBias, dy, x, mean, rstd, weight, accumulate: accumulate, rows: n, columns: d)
    }

    /// y = x/2 · (1 + erf(x/√2)), the exact GELU; both of one count, each stored. y may be x.
    public func gelu(_ y: Tensor, _ x: Tensor) { activate(y, x, .gelu) }

    /// dx = dy ⊙ (Φ(x) + x φ(x)); all of one count, each stored. dx may be dy.
    public func geluBackward(_ dx: Tensor, _ dy: Tensor, _ x: Tensor) { activateBackward(dx, dy, x, .gelu) }

    /// qkv [B, T, 3·D] with a D that `heads` divides, out [B, Q, D] with Q in 1...T, logSumExp [B, heads, Q].
    public func attention(_ out: Tensor, _ logSumExp: Tensor, _ qkv: Tensor, heads: Int) {
        let sizes = AttentionSizes(out, logSumExp, qkv, heads)
        require(
            sizes != nil, "attention", stored: ["out": out, "qkv": qkv], floats: ["logSumExp": logSumExp],
            " and \(heads) heads")
        attention(out, logSumExp, qkv, sizes!)
    }

    /// As in `attention`, with dqkv as qkv and dOut as out.
    public func attentionBackward(
        _ dqkv: Tensor, _ dOut: Tensor, _ out: Tensor, _ logSumExp: Tensor, _ qkv: Tensor, heads: Int
    ) {
        let sizes = AttentionSizes(out, logSumExp, qkv, heads)
        require(
            sizes != nil && dqkv.count == qkv.count && dOut.count == out.count, "attentionBackward",
            stored: ["dqkv": dqkv, "dOut": dOut, "out": out, "qkv": qkv], floats: ["logSumExp": logSumExp],
            " and \(heads) heads")
        attentionBackward(dqkv, dOut, out, logSumExp, qkv, sizes!)
    }

    /// out, x and branch of one count, sampleScale [B] of x [B, …].
    public func residualAdd(_ out: Tensor, _ x: Tensor, _ branch: Tensor, sampleScale: Tensor?) {
        require(
            out.count == x.count && branch.count == x.count && x.hasSamples(of: sampleScale), "residualAdd",
            stored: ["branch": branch], floats: ["out": out, "x": x, "scale": sampleScale])
        residualAdd(out, x, branch, sampleScale: sampleScale, count: x.count)
    }

    /// out and x of one count, sampleScale [B] of x [B, …]; without it a copy, which may be stored in the precision.
    public func scaleSamples(_ out: Tensor, _ x: Tensor, sampleScale: Tensor?) {
        require(
            out.count == x.count && x.hasSamples(of: sampleScale), "scaleSamples", stored: ["out": out],
            floats: ["x": x, "scale": sampleScale])
        if let sampleScale {
            scaleSamples(out, x, sampleScale: sampleScale, count: x.count)
        } else if out.buffer !== x.buffer {
            copy(out, x, count: x.count)
        }
    }

    /// out [B, D], tokens [B, T, D], a range of 0..<T that isn't empty.
    public func poolTokens(_ out: Tensor, _ tokens: Tensor, range: Range<Int>) {
        require(
            tokens.pools(to: out, range), "poolTokens", stored: ["tokens": tokens], floats: ["out": out],
            " with \(range)")
        poolTokens(
            out, tokens, range: range, batch: tokens.shape[0], tokenCount: tokens.shape[1],
            width: tokens.columns)
    }

    /// dTokens [B, T, D], dOut [B, D], a range of 0..<T that isn't empty.
    public func poolTokensBackward(_ dTokens: Tensor, _ dOut: Tensor, range: Range<Int>) {
        require(
            dTokens.pools(to: dOut, range), "poolTokensBackward", stored: ["dTokens": dTokens],
            floats: ["dOut": dOut], " with \(range)")
        poolTokensBackward(
            dTokens, dOut, range: range, batch: dTokens.shape[0], tokenCount: dTokens.shape[1],
            width: dTokens.columns)
    }

    // MARK: Other methods' adapters

    /// Blocks that lie inside their tensors; rows of out that don't overlap.
    public func copyBlock(
        _ out: MatrixBlock, _ x: MatrixBlock, rows: Int, columns: Int, accumulate: Bool
    ) {
        require(
            out.holds(rows: rows, columns: columns) && x.holds(rows: rows, columns: columns)
                && (rows <= 1 || out.stride >= columns), "copyBlock",
            floats: ["out": out.tensor, "x": x.tensor],
            ": \(rows) × \(columns) from \(x.offset) on every \(x.stride) to \(out.offset) on every \(out.stride)"
        )
        if rows > 0, columns > 0 { copyBlock(out, x, (rows, columns), accumulate: accumulate) }
    }

    /// y and x of one count, float32 but for GELU, where they may be stored. y may be x.
    public func activate(_ y: Tensor, _ x: Tensor, _ activation: Activation) {
        let tensors: Operands = ["y": y, "x": x]
        let isGELU = activation == .gelu
        require(
            y.count == x.count, "activate", stored: isGELU ? tensors : [:], floats: isGELU ? [:] : tensors)
        if activation != .identity {
            activate(y, x, activation, count: x.count)
        } else if y.buffer !== x.buffer {
            copy(y, x, count: x.count)
        }
    }

    /// dx, dy and x of one count, float32 but for GELU, where they may be stored. dx may be dy.
    public func activateBackward(_ dx: Tensor, _ dy: Tensor, _ x: Tensor, _ activation: Activation) {
        let tensors: Operands = ["dx": dx, "dy": dy, "x": x]
        let isGELU = activation == .gelu
        require(
            dx.count == x.count && dy.count == x.count, "activateBackward", stored: isGELU ? tensors : [:],
            floats: isGELU ? [:] : tensors)
        if activation != .identity {
            activateBackward(dx, dy, x, activation, count: x.count)
        } else if dx.buffer !== dy.buffer {
            copy(dx, dy, count: x.count)
        }
    }

    /// y, x [n, d]; scale, shift [d].
    public func scaleShift(_ y: Tensor, _ x: Tensor, _ scale: Tensor, _ shift: Tensor) {
        let d = x.columns
        require(
            y.count == x.count && scale.count == d && shift.count == d, "scaleShift",
            stored: ["y": y, "x": x], floats: ["scale": scale, "shift": shift])
        scaleShift(y, x, scale, shift, rows: x.rows, columns: d)
    }

    /// dx, dy, x [n, d]; dScale, dShift, scale [d].
    public func scaleShiftBackward(
        _ dx: Tensor?, _ dScale: Tensor?, _ dShift: Tensor?, _ dy: Tensor, _ x: Tensor, _ scale: Tensor
    ) {
        let d = x.columns
        require(
            dx?.count ?? x.count == x.count && dy.count == x.count && scale.count == d
                && dScale?.count ?? d == d && dShift?.count ?? d == d, "scaleShiftBackward",
            stored: ["dx": dx, "dy": dy, "x": x],
            floats: ["dScale": dScale, "dShift": dShift, "scale": scale])
        scaleShiftBackward(dx, dScale, dShift, dy, x, scale, rows: x.rows, columns: d)
    }

    /// y and x of one count.
    public func addScaled(_ y: Tensor, _ x: Tensor, _ factor: Float) {
        require(y.count == x.count, "addScaled", floats: ["y": y, "x": x])
        addScaled(y, x, factor, count: x.count)
    }

    /// y and x of one count: yᵢ ← xᵢ / (1 − rate) where `DropoutMask` keeps i, else 0; rate is in 0..<1. y may be x.
    public func dropout(_ y: Tensor, _ x: Tensor, rate: Double, seed: UInt64) {
        require(
            y.count == x.count && (0..<1).contains(rate), "dropout", floats: ["y": y, "x": x],
            " at a rate of \(rate)")
        dropout(y, x, DropoutMask(rate: rate, seed: seed), count: x.count)
    }

    // MARK: Loss and optimizer

    /// losses, labels [B]; logits, dLogits [B, K].
    public func softmaxCrossEntropy(_ losses: Tensor, _ dLogits: Tensor?, _ logits: Tensor, _ labels: Tensor)
    {
        let batch = logits.rows
        require(
            losses.count == batch && labels.count == batch && dLogits?.count ?? logits.count == logits.count,
            "softmaxCrossEntropy", floats: ["losses": losses, "dLogits": dLogits, "logits": logits],
            integers: ["labels": labels])
        softmaxCrossEntropy(losses, dLogits, logits, labels, batch: batch, classes: logits.columns)
    }

    /// Values, moments and gradients [n], blocks [n / viewAlignment], segments [count, 3].
    public func adamW(
        _ values: Tensor, _ firstMoments: Tensor, _ secondMoments: Tensor,
        _ gradients: Tensor, _ segmentOfBlock: Tensor, _ segments: Tensor, _ settings: AdamWSettings
    ) {
        let n = values.count
        require(
            n % viewAlignment == 0 && firstMoments.count == n && secondMoments.count == n
                && gradients.count == n && segmentOfBlock.count == n / viewAlignment && segments.columns == 3,
            "adamW",
            floats: [
                "θ": values, "m": firstMoments, "v": secondMoments, "g": gradients, "segments": segments,
            ],
            integers: ["blocks": segmentOfBlock])
        adamW(
            values, firstMoments, secondMoments, gradients, segmentOfBlock, segments, settings,
            blocks: n / viewAlignment)
    }

    /// Values, velocity and gradients [n], blocks [n / viewAlignment], segments [count, 3].
    public func sgd(
        _ values: Tensor, _ velocity: Tensor, _ gradients: Tensor, _ segmentOfBlock: Tensor,
        _ segments: Tensor, _ settings: SGDSettings
    ) {
        let n = values.count
        require(
            n % viewAlignment == 0 && velocity.count == n && gradients.count == n
                && segmentOfBlock.count == n / viewAlignment && segments.columns == 3, "sgd",
            floats: ["θ": values, "v": velocity, "g": gradients, "segments": segments],
            integers: ["blocks": segmentOfBlock])
        sgd(values, velocity, gradients, segmentOfBlock, segments, settings, blocks: n / viewAlignment)
    }
}

// MARK: What a backend needn't have

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
    package func matrix(_ weight: LinearWeight) -> Tensor {
        guard let terms = weight.terms, let scratch = weight.scratch else {
            return weight.ready ?? weight.frozen
        }
        let w = scratch.leading(weight.frozen.shape, weight.frozen.elementType)
        gloraWeight(w, weight.frozen, terms.a, terms.b)
        return w
    }
}

// MARK: Sizes

extension AttentionSizes {
    /// Nil where they don't fit.
    fileprivate init?(_ out: Tensor, _ logSumExp: Tensor, _ qkv: Tensor, _ heads: Int) {
        guard out.shape.count == 3, qkv.shape.count == 3, qkv.shape[0] == out.shape[0], heads > 0,
            qkv.columns == 3 * out.columns, out.columns % heads == 0,
            (1...max(1, qkv.shape[1])).contains(out.shape[1]),
            logSumExp.count == out.shape[0] * heads * out.shape[1]
        else { return nil }
        (batch, tokens, queries) = (out.shape[0], qkv.shape[1], out.shape[1])
        (self.heads, head) = (heads, out.columns / heads)
    }
}

extension TokenSizes {
    fileprivate init(_ tokens: Tensor, _ projected: Tensor) {
        (batch, self.tokens, patches) = (tokens.shape[0], tokens.shape[1], projected.shape[1])
        width = tokens.columns
    }
}

extension Tensor {
    /// Whether patches, a class token where it is given, and positions are those of these tokens [B, T, D].
    fileprivate func fit(_ projected: Tensor, _ classToken: Tensor?, _ positions: Tensor) -> Bool {
        guard shape.count == 3, projected.shape.count == 3, projected.shape[0] == shape[0],
            projected.columns == columns, positions.count == shape[1] * columns
        else { return false }
        let first = shape[1] - projected.shape[1]
        return first == 0 && classToken == nil || first == 1 && classToken?.count ?? columns == columns
    }

    /// Whether out [B, D] is of these tokens [B, T, D], and the range lies in them.
    fileprivate func pools(to out: Tensor, _ range: Range<Int>) -> Bool {
        shape.count == 3 && out.count == shape[0] * columns && !range.isEmpty && range.lowerBound >= 0
            && range.upperBound <= shape[1]
    }

    /// Whether there is a factor for each sample of this [B, …], where there are any.
    fileprivate func hasSamples(of scale: Tensor?) -> Bool {
        scale == nil || scale!.count == shape.first ?? 1
    }
}
