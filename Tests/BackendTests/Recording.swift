import CPUBackend
import Foundation
import TensorCore
import TestSupport
import Testing

@testable import OpenCLBackend

/// What operations write on one backend, from inputs that are the same on each.
final class Recording {
    let backend: any Backend
    private(set) var results: [(name: String, values: [Float])] = []
    private var seed = 0
    /// Oclgrind 21.10 takes some values in memory that was freed and taken again for uninitialised.
    private var kept: [Tensor] = []

    init(_ backend: any Backend) { self.backend = backend }

    /// Normally distributed values, others at each call: from one table, since drawing millions takes longer than the
    /// operations do. Its length is a prime, so no two rows of a matrix are the same part of it.
    func random(_ shape: [Int], mean: Float = 0) throws -> Tensor {
        seed += 7919
        let table = Recording.table
        var index = seed % table.count
        let values = (0..<shape.reduce(1, *)).map { _ -> Float in
            index = index + 1 == table.count ? 0 : index + 1
            return table[index] + mean
        }
        return try keep(backend.tensor(HostTensor(shape: shape, values: values)))
    }

    private static let table = randomValues(65_537, seed: 1)

    /// A parameter whose gradient has something in it.
    func parameter(_ shape: [Int]) throws -> Parameter {
        Parameter(name: "", value: try random(shape), gradient: try random(shape))
    }

    /// A or B of a layer, with room for the form's rank and one more.
    func term(_ form: MatrixForm, _ outputs: Int, _ inputs: Int) throws -> MatrixTerm {
        let rank = form.projectionRank + 1
        return MatrixTerm(
            form: form, down: try parameter([outputs, rank]), up: try parameter([rank, inputs]))
    }

    /// A tensor full of NaNs.
    func empty(_ shape: [Int]) throws -> Tensor {
        let tensor = try backend.allocate(shape, .float32)
        backend.fill(tensor, .nan)
        return keep(tensor)
    }

    private func keep(_ tensor: Tensor) -> Tensor {
        kept.append(tensor)
        return tensor
    }

    func take(_ name: String, _ tensors: Tensor...) {
        for (i, tensor) in tensors.enumerated() { results.append(("\(name) \(i)", backend.values(tensor))) }
    }

    /// The gradients of a term.
    func take(_ name: String, _ term: MatrixTerm) {
        take("\(name) gradients", term.down.gradient!, term.up.gradient!)
    }

    /// Expects from an OpenCL device in a layout what the CPU backend gives. `body` must not record issues: it runs on
    /// another thread than the test.
    static func expectSame(
        _ layout: KernelLayout, sourceLocation: SourceLocation = #_sourceLocation,
        _ body: @escaping (Recording) throws -> Void
    ) throws {
        let expected = Recording(CPUBackend())
        try body(expected)
        let found = try OneThread.run {
            try OpenCLTests.withDevice { device in
                let backend = try OpenCLBackend(device: device, layout: layout)
                backend.product = layout.local == 1 ? .panels : .tiled
                let recording = Recording(backend)
                try body(recording)
                return recording.results
            }
        }
        #expect(found.map(\.name) == expected.results.map(\.name), sourceLocation: sourceLocation)
        #expect(!found.isEmpty, sourceLocation: sourceLocation)
        for (a, b) in zip(found, expected.results) {
            expectClose(a.values, doubles(b.values), "\(a.name), \(layout)", sourceLocation: sourceLocation)
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
