import TensorCore
import TestSupport

/// Entangled storage of A or B with the gradients that an operation adds to, on the host.
struct MatrixStorage {
    let size: LayerSize
    let down: [Float]  // Xd [out, R]
    let up: [Float]  // Xu [R, in]
    let dDown: [Float]
    let dUp: [Float]

    init(_ size: LayerSize, seed: Int) {
        self.size = size
        let (downCount, upCount) = (size.outputs * size.rank, size.rank * size.inputs)
        (down, up) = (randomValues(downCount, seed: seed), randomValues(upCount, seed: seed + 1))
        (dDown, dUp) = (randomValues(downCount, seed: seed + 2), randomValues(upCount, seed: seed + 3))
    }

    private var downMatrix: Matrix { Matrix(size.outputs, size.rank, down) }
    private var upMatrix: Matrix { Matrix(size.rank, size.inputs, up) }

    func matrix(_ form: MatrixForm) -> Matrix { Reference.matrixTerm(form, down: downMatrix, up: upMatrix) }

    func term(_ form: MatrixForm, _ guarded: GuardedTensors, trained: Bool = true) throws -> MatrixTerm {
        let (downShape, upShape) = ([size.outputs, size.rank], [size.rank, size.inputs])
        return MatrixTerm(
            form: form,
            down: Parameter(
                name: "Xd", value: try guarded.input(down, downShape, "Xd"),
                gradient: trained ? try guarded.inOut(dDown, downShape, "∂Xd") : nil),
            up: Parameter(
                name: "Xu", value: try guarded.input(up, upShape, "Xu"),
                gradient: trained ? try guarded.inOut(dUp, upShape, "∂Xu") : nil))
    }

    /// Checks the term's gradients after an operation that was given ∂X.
    func expectGradients(of term: MatrixTerm, _ dX: Matrix, _ backend: any Backend, _ what: String) {
        let expected = Reference.matrixTermBackward(term.form, dX, down: downMatrix, up: upMatrix)
        let (rank, inputs, form) = (size.rank, size.inputs, term.form)
        expectAccumulated(backend.values(term.down.gradient!), dDown, expected.dDown.values, "\(what) down") {
            switch form {
            case .none: false
            case .constant: $0 == 0
            case .vector: $0 % rank == 0
            case .lowRank(let r): $0 % rank < r
            }
        }
        expectAccumulated(backend.values(term.up.gradient!), dUp, expected.dUp.values, "\(what) up") {
            if case .lowRank(let r) = form { $0 < r * inputs } else { false }
        }
    }
}

/// Entangled storage of C with the gradients that an operation adds to, on the host.
struct PromptStorage {
    let inputs: Int
    let rank: Int
    let down: [Float]  // Cd [in, R]
    let up: [Float]  // Cu [R, 1]
    let dDown: [Float]
    let dUp: [Float]

    init(inputs: Int, rank: Int) {
        (self.inputs, self.rank) = (inputs, rank)
        (down, up) = (randomValues(inputs * rank, seed: 30), randomValues(rank, seed: 31))
        (dDown, dUp) = (randomValues(inputs * rank, seed: 32), randomValues(rank, seed: 33))
    }

    private var downMatrix: Matrix { Matrix(inputs, rank, down) }
    private var upMatrix: Matrix { Matrix(rank, 1, up) }

    func values(_ form: PromptForm) -> [Double] { Reference.promptTerm(form, down: downMatrix, up: upMatrix) }

    func term(_ form: PromptForm, _ guarded: GuardedTensors, trained: Bool = true) throws -> PromptTerm {
        PromptTerm(
            form: form,
            down: Parameter(
                name: "Cd", value: try guarded.input(down, [inputs, rank], "Cd"),
                gradient: trained ? try guarded.inOut(dDown, [inputs, rank], "∂Cd") : nil),
            up: Parameter(
                name: "Cu", value: try guarded.input(up, [rank, 1], "Cu"),
                gradient: trained ? try guarded.inOut(dUp, [rank, 1], "∂Cu") : nil))
    }

    /// Checks the term's gradients after an operation that was given db through W₀.
    func expectGradients(
        of term: PromptTerm, _ w0: Matrix, _ dBias: [Double], _ backend: any Backend, _ what: String
    ) {
        let expected = Reference.promptTermBackward(term.form, w0, dBias, down: downMatrix, up: upMatrix)
        let (rank, form) = (rank, term.form)
        expectAccumulated(backend.values(term.down.gradient!), dDown, expected.dDown.values, "\(what) ∂Cd") {
            switch form {
            case .none: false
            case .vector: $0 % rank == 0
            case .lowRank(let r): $0 % rank < r
            }
        }
        expectAccumulated(backend.values(term.up.gradient!), dUp, expected.dUp.values, "\(what) ∂Cu") {
            if case .lowRank(let r) = form { $0 < r } else { false }
        }
    }
}
