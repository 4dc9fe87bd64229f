import CPUBackend
import TensorCore
import TestSupport
import Testing

@Suite struct MemoryTests {
    @Test(arguments: TestDevice.all, elementCounts)
    func copyAndFill(device: TestDevice, count: Int) throws {
        let values = randomValues(count, seed: 1)
        try device.withBackend { backend in
            let guarded = GuardedTensors(backend)
            let (x, y) = (try guarded.input(values, [count], "x"), try guarded.output([count], "y"))
            backend.copy(y, x)
            expectIdentical(backend.values(y), values, "copy \(count)")
            backend.fill(y, -2.5)
            #expect(backend.values(y) == [Float](repeating: -2.5, count: count))
            guarded.expectIntact("copy and fill")
        }
    }

    /// A view shows its part of the buffer in both directions, and keeps the buffer alive.
    @Test(arguments: TestDevice.all)
    func view(device: TestDevice) throws {
        try device.withBackend { backend in
            var values = randomValues(3 * viewAlignment, seed: 1)
            var whole: Tensor? = try backend.allocate([3, viewAlignment], .float32)
            backend.upload(whole!, values)
            let part = try backend.view(whole!, at: viewAlignment, [2, 5])
            #expect(backend.values(part) == Array(values[viewAlignment..<viewAlignment + 10]))
            let replacement = randomValues(10, seed: 2)
            backend.upload(part, replacement)
            values.replaceSubrange(viewAlignment..<viewAlignment + 10, with: replacement)
            #expect(backend.values(whole!) == values)
            whole = nil
            #expect(backend.values(part) == replacement)
        }
    }

    @Test(arguments: TestDevice.all)
    func tooMuchMemory(device: TestDevice) throws {
        try device.withBackend { backend in
            let floats = backend.memoryByteCount / 4 + 1024
            do {
                _ = try backend.allocate([floats], .float32)
                Issue.record("\(backend.name) gave more memory than it has")
            } catch let error as BackendError {
                guard case .outOfMemory(_, let requested, let available) = error else {
                    Issue.record("\(error)")
                    return
                }
                #expect(requested == 4 * floats && available < requested)
            }
            #expect(
                backend.memoryByteCount > 0 && backend.largestBufferByteCount > 0 && !backend.name.isEmpty)
        }
    }

    /// What is freed can be taken again, and many small requests can't pass where one large one doesn't.
    @Test func ledger() throws {
        let backend = CPUBackend()
        // Floats in a third of the memory; never touched, so never real.
        let third = backend.memoryByteCount / 12
        var held = [try backend.allocate([third], .float32), try backend.allocate([third], .float32)]
        #expect(throws: BackendError.self) { _ = try backend.allocate([third + 1024], .float32) }
        held.removeLast()
        held.append(try backend.allocate([third], .float32))
        #expect(throws: BackendError.self) { _ = try backend.allocate([.max / 2, 3], .float32) }
        #expect(held.count == 2)
    }

    /// The tiles of a product follow the number of threads; every grid has to cover it once.
    @Test(arguments: [1, 2, 3, 5, 7, 8, 12])
    func threads(count: Int) throws {
        let (m, n, k) = (131, 257, 160)
        let (a, b) = (randomValues(m * k, seed: 1), randomValues(k * n, seed: 2))
        let backend = CPUBackend(threads: count)
        #expect(backend.threadCount == count && backend.name.contains("\(count) thread"))
        let guarded = GuardedTensors(backend)
        let c = try guarded.output([m, n], "c")
        backend.matmul(
            c, try guarded.input(a, [m, k]), try guarded.input(b, [k, n]), transposeA: false,
            transposeB: false,
            accumulate: false)
        expectClose(
            backend.values(c), (Matrix(m, k, a) * Matrix(k, n, b)).values, "matmul on \(count) threads")
        guarded.expectIntact("matmul")
    }
}
