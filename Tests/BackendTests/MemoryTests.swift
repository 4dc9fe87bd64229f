import CPUBackend
import TensorCore
import TestSupport
import Testing

@Suite("Tensors' memory") struct MemoryTests {
    @Test(
        "A copy has the same bits, and a fill one value everywhere", arguments: TestDevice.all, elementCounts)
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

    @Test(
        "A view shows its part of the buffer in both directions, and keeps the buffer alive",
        arguments: TestDevice.all)
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

    @Test(
        "An element's size decides where a view begins and ends; a view of a view counts from the first one's start",
        arguments: TestDevice.all, [ElementType.bfloat16, .float16, .int32])
    func viewOfOtherTypes(device: TestDevice, type: ElementType) throws {
        let (block, size) = (2 * viewAlignment, type.byteCount)
        /// Bytes of a tensor, as they lie in memory.
        func bytes(_ tensor: Tensor, _ backend: any Backend) -> [UInt8] {
            var content = [UInt8](repeating: 0, count: tensor.byteCount)
            content.withUnsafeMutableBytes { backend.download($0, tensor) }
            return content
        }
        var values = (0..<4 * block * size).map { UInt8(truncatingIfNeeded: $0 &* 167 &+ $0 >> 8) }
        try device.withBackend { backend in
            let whole = try backend.allocate([4, block], type)
            values.withUnsafeBytes { backend.upload(whole, $0) }
            // To the very end of the buffer.
            let part = try backend.view(whole, at: block, [3, block])
            #expect(part.elementType == type && part.buffer.byteCount == 3 * block * size)
            #expect(bytes(part, backend) == Array(values[(block * size)...]))
            let inner = try backend.view(part, at: 2 * block, [3, 7])
            let first = 3 * block * size
            #expect(bytes(inner, backend) == Array(values[first..<first + 21 * size]))
            let replacement = [UInt8](repeating: 0xa5, count: 21 * size)
            replacement.withUnsafeBytes { backend.upload(inner, $0) }
            values.replaceSubrange(first..<first + 21 * size, with: replacement)
            #expect(bytes(whole, backend) == values)
        }
    }

    @Test("More memory than there is is refused with both numbers", arguments: TestDevice.all)
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

    @Test("What is freed can be taken again, and many small requests can't pass where one large one doesn't")
    func ledger() throws {
        let backend = try CPUBackend()
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
    @Test(
        "A product has the same values however many threads cut it into tiles",
        arguments: [1, 2, 3, 5, 7, 8, 12])
    func threads(count: Int) throws {
        let (m, n, k) = (131, 257, 160)
        let (a, b) = (randomValues(m * k, seed: 1), randomValues(k * n, seed: 2))
        let backend = try CPUBackend(threads: count)
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
