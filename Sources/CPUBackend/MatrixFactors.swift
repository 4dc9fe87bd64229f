import CLoops
import TensorCore

// A or B of a GLoRA layer as a product of low rank, X = Xd · Xu, whatever its form:
//
//     lowRank(r): Xd[:, :r] · Xu[:r];  vector: Xd[:, 0] · 1ᵀ;  constant: Xd[0, 0] · 1 · 1ᵀ;  none: r = 0

struct MatrixFactors {
    let form: MatrixForm
    /// r, the columns of Xd in use.
    let rank: Int
    /// R, the storage's: the row length of Xd.
    let storageRank: Int
    let down: Floats  // Xd [out, R]
    let up: Floats  // Xu [R, in]
    let dDown: Floats?  // ∂Xd [out, R]
    let dUp: Floats?  // ∂Xu [R, in], nil too where the form doesn't read Xu
    private let outputs: Int
    private let inputs: Int

    init(_ backend: CPUBackend, _ term: MatrixTerm, outputs: Int, inputs: Int) {
        form = term.form
        rank = term.form.columnCount
        storageRank = term.down.value.columns
        (self.outputs, self.inputs) = (outputs, inputs)
        down = backend.floats(term.down.value)
        up = backend.floats(term.up.value)
        dDown = term.form == .none ? nil : term.down.gradient.map { backend.floats($0) }
        dUp =
            if case .lowRank = term.form {
                term.up.gradient.map { backend.floats($0) }
            } else {
                nil
            }
    }

    /// The distance between rows of `down`: none for a constant, whose first element serves all.
    var rowLength: Int { form == .constant ? 0 : storageRank }

    /// Xu [r, in] with rows of `factor_length`: a copy of the storage's, or a row of ones; then zeros up to `paddedRank`.
    func withUp(_ body: (Floats) -> Void) {
        let length = factor_length(inputs)
        let count = paddedRank(rank)
        withScratch(count * length) { rows in
            for j in 0..<rank {
                if case .lowRank = form {
                    (rows + j * length).update(from: up + j * inputs, count: inputs)
                } else {
                    (rows + j * length).update(repeating: 1, count: inputs)
                }
            }
            (rows + rank * length).update(repeating: 0, count: (count - rank) * length)
            body(rows)
        }
    }

    /// Xdᵀ [r, out] into rows of `factor_length`.
    func copyDown(_ rows: Floats) {
        for j in 0..<rank {
            for o in 0..<outputs { rows[j * factor_length(outputs) + o] = down[o * rowLength + j] }
        }
    }

    /// ∂Xu [r, in] += sums with rows of `factor_length`.
    func addUp(_ sums: Floats) {
        guard let dUp else { return }
        for j in 0..<rank { add_to(dUp + j * inputs, sums + j * factor_length(inputs), inputs) }
    }

    /// ∂Xd += sums, with sums(o, j) for o < out, j < r; a constant takes all of them, in double because they
    /// nearly cancel at times.
    func addDown(_ sums: (Int, Int) -> Float) {
        guard let dDown else { return }
        if form == .constant {
            dDown[0] += Float((0..<outputs).reduce(0.0) { $0 + Double(sums($1, 0)) })
            return
        }
        for o in 0..<outputs {
            for j in 0..<rank { dDown[o * storageRank + j] += sums(o, j) }
        }
    }
}

/// The rows of a factor with the zeros behind it: a multiple of 4, at least 4, which the loops go in.
func paddedRank(_ rank: Int) -> Int { max(4, (rank + 3) / 4 * 4) }
