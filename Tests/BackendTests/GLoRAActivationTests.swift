import TensorCore
import TestSupport
import Testing

/// A GLoRA layer in activation space: its operations one by one, and its output and gradients against weight space.
@Suite("A GLoRA layer in activation space") struct GLoRAActivationTests {
    @Test(
        "Every pair of forms of A and B gives the output and the gradients of weight space",
        arguments: TestDevice.all, LinearSize.all)
    func everyPair(device: TestDevice, size: LinearSize) throws {
        for a in [MatrixForm.none, .constant, .vector] {
            for b in size.layer.matrixForms { try check(device, size, a, b) }
        }
    }

    @Test(
        "Ranks inside and between the loops' groups of four, in storage of a larger rank, give weight space's output and gradients",
        arguments: TestDevice.all, [1, 3, 4, 8])
    func everyRank(device: TestDevice, rank: Int) throws {
        let size = TestDevice.onlySmall ? LinearSize(5, 17, 9, 10) : LinearSize(197, 33, 77, 10)
        for a in [MatrixForm.none, .vector] { try check(device, size, a, .lowRank(rank)) }
    }

    @Test(
        "Rows and columns that end inside the blocks and strips of the sums give the same",
        arguments: TestDevice.all, testSizes([LinearSize(130, 770, 515, 4)], small: []))
    func wide(device: TestDevice, size: LinearSize) throws {
        try check(device, size, .vector, .lowRank(4))
        try check(device, size, .constant, .constant)
    }

    private func check(
        _ device: TestDevice, _ size: LinearSize, _ formA: MatrixForm, _ formB: MatrixForm
    ) throws {
        let layer = size.layer
        let (n, o, i) = (size.rows, layer.outputs, layer.inputs)
        let (x, dy) = (randomValues(n * i, seed: 1), randomValues(n * o, seed: 2))
        // A wide bias: some outputs lie outside GELU's tail, where a relative error says little.
        let (frozen, bias) = (randomValues(o * i, seed: 3), randomValues(o, seed: 4, scale: 10))
        let (a, b) = (MatrixStorage(layer, seed: 10), MatrixStorage(layer, seed: 20))
        let (w0, dyMatrix, xMatrix) = (Matrix(o, i, frozen), Matrix(n, o, dy), Matrix(n, i, x))
        let expected = ActivationReference(
            x: xMatrix, w0: w0, formA, formB, aDown: Matrix(o, layer.rank, a.down),
            bDown: Matrix(o, layer.rank, b.down), bUp: Matrix(layer.rank, i, b.up), bias: doubles(bias))
        let w = Reference.gloraWeight(w0, a.matrix(formA), b.matrix(formB))
        let y = Reference.adding(doubles(bias), to: xMatrix * w.transposed)
        let dW = dyMatrix.transposed * xMatrix
        let rank = formB.columnCount
        let what = "\(size), A \(formA), B \(formB)"
        try device.withBackend { backend in
            let guarded = GuardedTensors(backend)
            let (termA, termB) = (try a.term(formA, guarded), try b.term(formB, guarded))
            let xTensor = try guarded.input(x, [1, n, i], "x")
            let dyTensor = try guarded.input(dy, [1, n, o], "dy")
            let weight = LinearWeight(try guarded.input(frozen, [o, i], "W₀"))

            var epilogue = Epilogue(bias: try guarded.input(bias, [o], "bias"))
            epilogue.a = formA == .none ? nil : termA
            if rank > 0 {
                let t = try guarded.output([n, rank], "t")
                backend.gloraProject(t, xTensor, termB)
                expectClose(backend.values(t), expected.t.values, "gloraProject \(what)")
                (epilogue.b, epilogue.t) = (termB, t)
            }
            // Without z, then with all three, then from z in memory.
            let fused = try guarded.output([n, o], "y")
            backend.linear(fused, xTensor, weight, epilogue)
            expectClose(backend.values(fused), y.values, "linear \(what) without z")
            let (z, activated) = (try guarded.output([n, o], "z"), try guarded.output([n, o], "activated"))
            (epilogue.preActivation, epilogue.activated) = (z, activated)
            let separate = try guarded.output([n, o], "y beside z")
            backend.linear(separate, xTensor, weight, epilogue)
            let gelus = y.values.map(Reference.gelu)
            expectClose(backend.values(z), expected.z.values, "linear \(what) z")
            expectClose(backend.values(separate), y.values, "linear \(what) y")
            expectClose(backend.values(activated), gelus, "linear \(what) activated")
            try checkFinish(epilogue, expected.z, y, gelus, guarded, backend, what)

            let dBias = try guarded.output([o], "dBias")
            backend.gloraOutputBackward(
                dBias, epilogue.a, epilogue.b, dyTensor, formA == .none ? nil : z, epilogue.t)
            expectClose(backend.values(dBias), Reference.sumRows(dyMatrix), "gloraOutputBackward \(what)")
            if rank > 0 {
                let u = try guarded.output([n, rank], "u")
                backend.gloraProjectBackward(u, termB, dyTensor, xTensor)
                expectClose(
                    backend.values(u), expected.projection(dyMatrix).values, "gloraProjectBackward \(what)")
            }
            a.expectGradients(of: termA, dW.combined(w0, *), backend, "activation space ∂A \(what)")
            b.expectGradients(of: termB, dW, backend, "activation space ∂B \(what)")
            try checkFrozen(epilogue, dyMatrix, dyTensor, xTensor, a, b, guarded, backend, what)
            guarded.expectIntact("activation space \(what)")
        }
    }

    /// The epilogue of a z in memory, each output wanted or not, and y in its place.
    private func checkFinish(
        _ epilogue: Epilogue, _ z: Matrix, _ y: Matrix, _ gelus: [Double], _ guarded: GuardedTensors,
        _ backend: any Backend, _ what: String
    ) throws {
        let shape = [z.rows, z.columns]
        let values = z.values.map { Float($0) }
        // Every choice of outputs once per size, none and all of them for the other forms.
        let all = epilogue.a?.form == .vector && epilogue.b?.form == .vector
        for outputs in all ? Array(0..<8) : [0, 7] {
            var epilogue = epilogue
            let inPlace = try guarded.inOut(values, shape, "z in memory")
            let result = outputs & 1 != 0 ? try guarded.output(shape, "finished y") : nil
            epilogue.preActivation = outputs & 2 != 0 ? try guarded.output(shape, "finished z") : nil
            epilogue.activated = outputs & 4 != 0 ? try guarded.output(shape, "finished GELU") : nil
            backend.finish(result ?? inPlace, inPlace, epilogue)
            let name = "finish \(what), outputs \(outputs)"
            expectClose(backend.values(result ?? inPlace), y.values, "\(name) y")
            if result != nil { expectIdentical(backend.values(inPlace), values, "\(name), the z it reads") }
            if let product = epilogue.preActivation {
                expectIdentical(backend.values(product), values, "\(name) z")
            }
            if let activated = epilogue.activated {
                expectClose(backend.values(activated), gelus, "\(name) activated")
            }
        }
    }

    /// Terms without gradients are left alone; dBias and u come all the same.
    private func checkFrozen(
        _ epilogue: Epilogue, _ dyMatrix: Matrix, _ dy: Tensor, _ x: Tensor, _ a: MatrixStorage,
        _ b: MatrixStorage, _ guarded: GuardedTensors, _ backend: any Backend, _ what: String
    ) throws {
        let termA = try epilogue.a.map { try a.term($0.form, guarded, trained: false) }
        let termB = try epilogue.b.map { try b.term($0.form, guarded, trained: false) }
        let dBias = try guarded.output([dyMatrix.columns], "dBias of frozen terms")
        backend.gloraOutputBackward(
            dBias, termA, termB, dy, termA == nil ? nil : epilogue.preActivation, epilogue.t)
        expectClose(backend.values(dBias), Reference.sumRows(dyMatrix), "gloraOutputBackward, frozen \(what)")
        guard let termB else { return }
        let u = try guarded.output([dyMatrix.rows, termB.form.columnCount], "u of frozen terms")
        backend.gloraProjectBackward(u, termB, dy, x)
        #expect(backend.values(u).allSatisfy { !$0.isNaN }, "gloraProjectBackward, frozen \(what)")
    }
}
