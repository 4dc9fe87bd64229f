import TensorCore
import TestSupport
import Testing

/// A layer [out, in] with storage of rank R.
struct LayerSize: Sendable, CustomStringConvertible {
    let outputs: Int
    let inputs: Int
    let rank: Int
    var description: String { "\(outputs)×\(inputs), rank \(rank)" }

    init(_ outputs: Int, _ inputs: Int, _ rank: Int) {
        (self.outputs, self.inputs, self.rank) = (outputs, inputs, rank)
    }

    static let all = testSizes(
        [
            LayerSize(1, 1, 1), LayerSize(1, 65, 4), LayerSize(63, 1, 2), LayerSize(31, 64, 8),
            LayerSize(65, 257, 4),
            LayerSize(257, 63, 3),
        ], small: [LayerSize(1, 1, 1), LayerSize(5, 17, 4), LayerSize(9, 3, 2)])

    static let wide = testSizes([LayerSize(768, 257, 4), LayerSize(300, 768, 8)], small: [])

    /// Every form, with the whole rank and, where there is one, a part of it.
    var matrixForms: [MatrixForm] { [.none, .constant, .vector] + ranks.map(MatrixForm.lowRank) }
    var promptForms: [PromptForm] { [.none, .vector] + ranks.map(PromptForm.lowRank) }
    private var ranks: [Int] { rank > 1 ? [rank, rank / 2] : [1] }
}

@Suite("The weight of a GLoRA layer") struct GLoRAWeightTests {
    @Test(
        "W and its gradients in every pair of forms of A and B are those in double",
        arguments: TestDevice.all, LayerSize.all)
    func everyPair(device: TestDevice, size: LayerSize) throws {
        for a in size.matrixForms { for b in size.matrixForms { try check(device, size, a, b) } }
    }

    @Test(
        "W and its gradients in a layer wider than a block are those in double", arguments: TestDevice.all,
        LayerSize.wide)
    func wide(device: TestDevice, size: LayerSize) throws {
        try check(device, size, .lowRank(size.rank), .lowRank(size.rank))
        try check(device, size, .constant, .vector)
        try check(device, size, .vector, .constant)
    }

    @Test(
        "Ranks inside and between the loops' groups of four, in storage of a larger rank, give W and its gradients",
        arguments: TestDevice.all, [1, 3, 4, 8])
    func everyRank(device: TestDevice, rank: Int) throws {
        let size = TestDevice.onlySmall ? LayerSize(5, 17, 10) : LayerSize(17, 197, 10)
        try check(device, size, .lowRank(rank), .lowRank(rank))
        try check(device, size, .lowRank(rank), .vector)
        try check(device, size, .none, .lowRank(rank))
    }

    /// Forward, backward, and the backward of frozen terms, for one pair of forms.
    private func check(_ device: TestDevice, _ size: LayerSize, _ formA: MatrixForm, _ formB: MatrixForm)
        throws
    {
        let (o, i) = (size.outputs, size.inputs)
        let what = "\(size), A \(formA), B \(formB)"
        let n = 13
        let frozen = randomValues(o * i, seed: 1)
        let (dy, x) = (randomValues(n * o, seed: 2), randomValues(n * i, seed: 3))
        let (a, b) = (MatrixStorage(size, seed: 10), MatrixStorage(size, seed: 20))
        let w0 = Matrix(o, i, frozen)
        let dWeight = Matrix(n, o, dy).transposed * Matrix(n, i, x)
        let expected = Reference.gloraWeight(w0, a.matrix(formA), b.matrix(formB))
        try device.withBackend { backend in
            let guarded = GuardedTensors(backend)
            let frozenTensor = try guarded.input(frozen, [o, i], "W₀")
            let weight = try guarded.output([o, i], "W")
            let (termA, termB) = (try a.term(formA, guarded), try b.term(formB, guarded))
            backend.gloraWeight(weight, frozenTensor, termA, termB)
            expectClose(backend.values(weight), expected.values, "gloraWeight \(what)")

            let scratch = try guarded.output([o, i], "scratch")
            let (dyTensor, xTensor) = (
                try guarded.input(dy, [1, n, o], "dy"), try guarded.input(x, [1, n, i], "x")
            )
            backend.gloraWeightBackward(termA, termB, scratch, dyTensor, xTensor, frozenTensor)
            a.expectGradients(of: termA, dWeight.combined(w0, *), backend, "gloraWeightBackward ∂A \(what)")
            b.expectGradients(of: termB, dWeight, backend, "gloraWeightBackward ∂B \(what)")

            let frozenTerms = (
                try a.term(formA, guarded, trained: false), try b.term(formB, guarded, trained: false)
            )
            backend.gloraWeightBackward(
                frozenTerms.0, frozenTerms.1, scratch, dyTensor, xTensor, frozenTensor)
            guarded.expectIntact("gloraWeight \(what)")
        }
    }
}

@Suite("The bias of a GLoRA layer") struct GLoRABiasTests {
    @Test(
        "The bias and its gradients in a layer wider than a block are those in double",
        arguments: TestDevice.all, LayerSize.wide)
    func wide(device: TestDevice, size: LayerSize) throws {
        try check(device, size, .lowRank(size.rank), .vector, .vector)
        try check(device, size, .vector, .constant, .constant)
    }

    @Test(
        "The bias and its gradients in every form of C, D and E are those in double",
        arguments: TestDevice.all, LayerSize.all)
    func everyForm(device: TestDevice, size: LayerSize) throws {
        let scaleForms = [ScaleForm.none, .constant, .vector]
        for c in size.promptForms {
            for d in scaleForms { for e in scaleForms { try check(device, size, c, d, e) } }
        }
    }

    private func check(
        _ device: TestDevice, _ size: LayerSize, _ formC: PromptForm, _ formD: ScaleForm, _ formE: ScaleForm
    ) throws {
        let (o, i, rank) = (size.outputs, size.inputs, size.rank)
        let frozen = randomValues(o * i, seed: 7)
        let (b0, db) = (randomValues(o, seed: 2), randomValues(o, seed: 3))
        let (d, e) = (randomValues(o, seed: 4), randomValues(o, seed: 5))
        let initial = randomValues(o, seed: 6)
        let c = PromptStorage(inputs: i, rank: rank)
        let w0 = Matrix(o, i, frozen)
        let prompt = c.values(formC)
        for hasBias in [true, false] {
            let what = "\(size), C \(formC), D \(formD), E \(formE), b₀ \(hasBias)"
            let expected = Reference.gloraBias(
                w0, hasBias ? doubles(b0) : nil, c: prompt, d: Reference.scaleTerm(formD, doubles(d)),
                e: Reference.scaleTerm(formE, doubles(e)))
            try device.withBackend { backend in
                let guarded = GuardedTensors(backend)
                func term(_ form: ScaleForm, _ values: [Float]) throws -> ScaleTerm {
                    ScaleTerm(
                        form: form,
                        values: Parameter(
                            name: "scale", value: try guarded.input(values, [o]),
                            gradient: try guarded.inOut(initial, [o])))
                }
                let frozenTensor = try guarded.input(frozen, [o, i], "W₀")
                let frozenBias = hasBias ? try guarded.input(b0, [o], "b₀") : nil
                let (bias, promptTensor) = (try guarded.output([o], "b"), try guarded.output([i], "C"))
                let (termC, termD, termE) = (
                    try c.term(formC, guarded), try term(formD, d), try term(formE, e)
                )
                backend.gloraBias(bias, promptTensor, frozenTensor, frozenBias, termC, termD, termE)
                expectClose(backend.values(promptTensor), prompt, "gloraBias C, \(what)")
                expectClose(backend.values(bias), expected, "gloraBias \(what)")

                backend.gloraBiasBackward(
                    termC, termD, termE, try guarded.output([i], "dC"), try guarded.input(db, [o], "db"),
                    frozenTensor, frozenBias)
                c.expectGradients(of: termC, w0, doubles(db), backend, "gloraBiasBackward \(what)")
                let dScale = zip(db, b0).map { hasBias ? Double($0) * Double($1) : 0 }
                for (term, gradient, name) in [(termD, dScale, "∂D"), (termE, doubles(db), "∂E")] {
                    let sums = Reference.scaleTermBackward(term.form, gradient)
                    expectAccumulated(
                        backend.values(term.values.gradient!), initial, sums,
                        "gloraBiasBackward \(name) \(what)"
                    ) { term.form == .vector || term.form == .constant && $0 == 0 }
                }
                guarded.expectIntact("gloraBias \(what)")
            }
        }
    }

    @Test("Terms without gradients are left alone, and nothing else happens", arguments: TestDevice.all)
    func frozenTerms(device: TestDevice) throws {
        let size = LayerSize(5, 3, 2)
        let c = PromptStorage(inputs: 3, rank: 2)
        try device.withBackend { backend in
            let guarded = GuardedTensors(backend)
            let values = Parameter(name: "scale", value: try guarded.input(randomValues(5, seed: 1), [5]))
            let scale = ScaleTerm(form: .vector, values: values)
            let term = try c.term(.lowRank(2), guarded, trained: false)
            let b0 = try guarded.input(randomValues(5, seed: 2), [5], "b₀")
            backend.gloraBiasBackward(
                term, scale, scale, try guarded.output([size.inputs]),
                try guarded.input([Float](repeating: 1, count: 5), [5]),
                try guarded.input(randomValues(15, seed: 3), [5, 3], "W₀"), b0)
            backend.synchronize()
            guarded.expectIntact("gloraBiasBackward with frozen terms")
        }
    }
}

/// Checks accumulated = initial + gradient, and that an element that the form doesn't read kept its bits.
func expectAccumulated(
    _ accumulated: [Float], _ initial: [Float], _ gradient: [Double], _ what: String, isRead: (Int) -> Bool
) {
    expectClose(accumulated, zip(initial, gradient).map { Double($0) + $1 }, what)
    let untouched = initial.indices.filter { !isRead($0) }
    expectIdentical(
        untouched.map { accumulated[$0] }, untouched.map { initial[$0] }, "\(what), what isn't read")
}
