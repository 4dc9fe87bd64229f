import CPUBackend
import Foundation
import TensorCore
import TestSupport
import Testing

@testable import OpenCLBackend

/// What operations write on one backend, from inputs that are the same on each.
final class Recording {
    let backend: any Backend
    /// What stored tensors are rounded to; the backend holds them in it, or in float32.
    let precision: Precision
    private(set) var results: [(name: String, values: [Float], limit: Double)] = []
    private var seed = 0
    /// Oclgrind 21.10 takes some values in memory that was freed and taken again for uninitialised.
    private var kept: [Tensor] = []

    init(_ backend: any Backend, _ precision: Precision = .float32) {
        self.backend = backend
        self.precision = precision
    }

    /// Normally distributed values, others at each call: from one table, since drawing millions takes longer than the
    /// operations do. Its length is a prime, so no two rows of a matrix are the same part of it.
    func random(_ shape: [Int], mean: Float = 0) throws -> Tensor {
        try keep(backend.tensor(HostTensor(shape: shape, values: values(shape, mean))))
    }

    /// Such values, rounded to the precision and stored in it.
    func stored(_ shape: [Int], mean: Float = 0) throws -> Tensor {
        let tensor = try backend.allocate(shape, backend.precision.stored)
        backend.upload(tensor, values(shape, mean).map(precision.rounded))
        return keep(tensor)
    }

    private func values(_ shape: [Int], _ mean: Float) -> [Float] {
        seed += 7919
        let table = Recording.table
        var index = seed % table.count
        return (0..<shape.reduce(1, *)).map { _ -> Float in
            index = index + 1 == table.count ? 0 : index + 1
            return table[index] + mean
        }
    }

    private static let table = randomValues(65_537, seed: 1)

    /// A parameter whose gradient has something in it.
    func parameter(_ shape: [Int]) throws -> Parameter {
        Parameter(name: "", value: try random(shape), gradient: try random(shape))
    }

    /// A or B of a layer, with room for the form's rank and one more.
    func term(_ form: MatrixForm, _ outputs: Int, _ inputs: Int) throws -> MatrixTerm {
        let rank = form.columnCount + 1
        return MatrixTerm(
            form: form, down: try parameter([outputs, rank]), up: try parameter([rank, inputs]))
    }

    /// A tensor full of NaNs.
    func empty(_ shape: [Int]) throws -> Tensor {
        let tensor = try backend.allocate(shape, .float32)
        backend.fill(tensor, .nan)
        return keep(tensor)
    }

    /// A stored tensor full of NaNs.
    func emptyStored(_ shape: [Int]) throws -> Tensor {
        let tensor = try backend.allocate(shape, backend.precision.stored)
        backend.upload(tensor, Array(repeating: .nan, count: tensor.count))
        return keep(tensor)
    }

    private func keep(_ tensor: Tensor) -> Tensor {
        kept.append(tensor)
        return tensor
    }

    func take(_ name: String, _ tensors: Tensor...) {
        take(name, roundings: 0, tensors)
    }

    /// Stored tensors, whose values were rounded so many times on the way, counting the operands that the operation rounds
    /// itself. A rounding adds u² to the squared error at most, u being half of the spacing of numbers just above 1, and u²/3
    /// when there are many values.
    func takeStored(_ name: String, roundings: Int = 1, _ tensors: Tensor...) {
        take(name, roundings: roundings, tensors)
    }

    func take(_ name: String, roundings: Int, _ tensors: [Tensor]) {
        for (i, tensor) in tensors.enumerated() {
            let share = tensor.count < 1000 ? 1.0 : 1.0 / 3
            let limit = 1e-10 + share * Double(roundings) * precision.roundoff * precision.roundoff
            results.append(("\(name) \(i)", backend.values(tensor), limit))
        }
    }

    /// The gradients of a term.
    func take(_ name: String, _ term: MatrixTerm) {
        take("\(name) gradients", term.down.gradient!, term.up.gradient!)
    }

    /// Expects from an OpenCL device in a layout what the CPU backend gives. `body` must not record issues: it runs on
    /// another thread than the test.
    static func expectSame(
        _ layout: KernelLayout, _ precision: Precision = .float32,
        engines: [MatrixEngine]? = nil,
        sourceLocation: SourceLocation = #_sourceLocation,
        _ body: @escaping (Recording) throws -> Void
    ) throws {
        let expected = Recording(try CPUBackend(), precision)
        try body(expected)
        let found = try OneThread.run {
            try OpenCLTests.withDevice { device in
                let backend = try OpenCLBackend(
                    device: device, layout: layout, precision: precision, engines: engines)
                let own: ProductKernel = layout.local == 1 ? .panels : .tiled
                backend.choice.forced = backend.engine.map { .engine($0) } ?? own
                let recording = Recording(backend, precision)
                try body(recording)
                return recording.results
            }
        }
        #expect(found.map(\.name) == expected.results.map(\.name), sourceLocation: sourceLocation)
        #expect(!found.isEmpty, sourceLocation: sourceLocation)
        for (a, b) in zip(found, expected.results) {
            expectClose(
                a.values, doubles(b.values), "\(a.name), \(layout), \(precision)", limit: a.limit,
                sourceLocation: sourceLocation)
        }
    }
}

/// Runs pieces of work on one thread, the same for the whole process. Swift Testing changes threads from test
/// to test, and Oclgrind's `--uninitialized` crashes when another thread than the one that made the context
/// copies memory.
enum OneThread {
    private static let condition = NSCondition()
    nonisolated(unsafe) private static var work: (() -> Void)?  // guarded by the condition
    private static let start: Void = Thread {
        condition.lock()
        while true {
            while work == nil { condition.wait() }
            work?()
            work = nil
            condition.broadcast()
        }
    }.start()

    /// Waits for the result of `body`, which must not record issues: they belong to the test's own thread.
    static func run<Result>(_ body: @escaping () throws -> Result) throws -> Result {
        start
        condition.lock()
        defer { condition.unlock() }
        nonisolated(unsafe) var result: Swift.Result<Result, any Error>?
        while work != nil { condition.wait() }
        work = { result = Swift.Result { try body() } }
        condition.broadcast()
        while result == nil { condition.wait() }
        return try result!.get()
    }
}
