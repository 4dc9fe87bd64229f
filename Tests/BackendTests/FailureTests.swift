import CCLBlast
import COpenCL
import Foundation
import TensorCore
import TestSupport
import Testing

@testable import OpenCLBackend

@Suite("A device that fails in the middle of the work") struct FailureTests {
    /// Kernels of one work-item, of which `fill` wants a group of two: the driver refuses every launch of it.
    private static let source = """
        __kernel __attribute__((reqd_work_group_size(2, 1, 1)))
        void fill(__global float *out, float value, int n) { out[0] = value; }
        __kernel void copy(__global float *out, __global const float *x, int n) {
            for (int i = 0; i < n; i++) out[i] = x[i];
        }

        """

    private func withBackend(_ body: (OpenCLBackend) throws -> Void) throws {
        try OpenCLTests.withDevice { device in
            try body(
                OpenCLBackend(
                    device: device, layout: KernelLayout(width: 4, local: 1), source: FailureTests.source))
        }
    }

    @Test(
        "After a launch that the driver refuses nothing is written, every number read is NaN, and the sentence is thrown"
    )
    func aRefusedLaunch() throws {
        try withBackend { backend in
            let (x, y) = (try backend.allocate([2], .float32), try backend.allocate([2], .float32))
            backend.upload(x, [1, 2] as [Float])
            backend.upload(y, [3, 4] as [Float])
            let halves = try [ElementType.bfloat16, .float16].map { try backend.allocate([3], $0) }
            for half in halves { backend.upload(half, [1, 2, 3] as [Float]) }
            try backend.checkForFailure()
            backend.fill(x, 7)
            // What comes after doesn't count.
            backend.copy(y, x)
            backend.upload(y, [5, 6] as [Float])
            backend.synchronize()
            for tensor in [x, y] + halves {
                let areNaN = backend.values(tensor).allSatisfy(\.isNaN)
                #expect(areNaN)
            }
            let error = try #require(throws: BackendError.self) { try backend.checkForFailure() }
            #expect(
                "\(error)"
                    == "\(backend.name) failed (fill failed with CL_INVALID_WORK_GROUP_SIZE (-54)): update the "
                    + "driver, or use another `device`")
            #expect(throws: error) { try backend.allocate([1], .float32) }
            var values: [Float] = [0, 0]
            #expect(
                clEnqueueReadBuffer(
                    backend.queue, y.onDevice.memory, cl_bool(CL_TRUE), 0, 8, &values, 0, nil, nil)
                    == CL_SUCCESS)
            #expect(values == [3, 4])
        }
    }

    @Test("Memory that has run out is told from a device that is gone, and both from the rest")
    func statuses() throws {
        func sentence(_ status: cl_int) -> String {
            "\(deviceFailure(status, "add_product", on: "opencl:0 (X)"))"
        }
        #expect(
            sentence(-4)
                == "opencl:0 (X) ran out of memory (add_product failed with CL_MEM_OBJECT_ALLOCATION_FAILURE "
                + "(-4)): use a smaller `batch-size` or another `device`")
        #expect(
            sentence(-5).contains("ran out of memory or other resources (add_product")
                && sentence(-5).contains("CL_OUT_OF_RESOURCES (-5)"))
        #expect(sentence(-36).contains("was lost (add_product failed with CL_INVALID_COMMAND_QUEUE (-36))"))
        #expect(!sentence(-36).contains("`batch-size`") && !sentence(-54).contains("lost"))
    }

    @Test("What is only tried may fail")
    func attempts() throws {
        try withBackend { backend in
            let x = try backend.allocate([2], .float32)
            backend.upload(x, [1, 2] as [Float])
            #expect(try backend.attempt { backend.values(x) } == [1, 2])
            #expect(try backend.attempt { backend.fill(x, 7) } == nil)
            try backend.checkForFailure()
            #expect(backend.values(x) == [1, 2])
            // It hides nothing that failed before.
            backend.fill(x, 7)
            #expect(throws: BackendError.self) { try backend.attempt {} }
            #expect(throws: BackendError.self) { try backend.checkForFailure() }
        }
    }

    @Test("Products that CLBlast can't start are computed by our own kernel", arguments: [false, true])
    func clblastRefuses(accumulate: Bool) throws {
        let n = 192
        let (a, b, initial) = (
            randomValues(n * n, seed: 1), randomValues(n * n, seed: 2), randomValues(n * n, seed: 3)
        )
        try OpenCLTests.withDevice { device in
            let backend = try OpenCLBackend(device: device, layout: KernelLayout(width: 16, local: 1))
            let (left, right) = (
                try backend.allocate([n, n], .float32), try backend.allocate([n, n], .float32)
            )
            backend.upload(left, a)
            backend.upload(right, b)
            func product(_ kernel: ProductKernel) throws -> [Float] {
                let c = try backend.allocate([n, n], .float32)
                backend.upload(c, accumulate ? initial : Array(repeating: .nan, count: n * n))
                backend.choice.forced = kernel
                backend.matmul(c, left, right, transposeA: false, transposeB: false, accumulate: accumulate)
                return backend.values(c)
            }
            let ours = try product(.panels)
            let small = ProductTuner.clblastCandidates[2]
            // Groups of 64 x 256 work-items, more than drivers run.
            let impossible = small.merging([
                "MWG": 64, "MDIMA": 64, "MDIMC": 64, "VWM": 1, "NWG": 256, "NDIMB": 256, "NDIMC": 256,
                "VWN": 1, "SA": 0, "SB": 0,
            ]) { $1 }
            // From this size on CLBlast takes the kernel of these parameters rather than the one for small products.
            func setSmallest(_ size: Int) {
                let status = "XGEMM_MIN_INDIRECT_SIZE".withCString { name in
                    var (names, sizes) = ([UnsafePointer?(name)], [size])
                    return CLBlastOverrideParameters(
                        device.id, "GemmRoutine", CLBlastPrecisionSingle, 1, &names, &sizes)
                }
                #expect(status == CLBlastSuccess)
            }
            setSmallest(1)
            defer { setSmallest(1024) }
            #expect(backend.overrideCLBlast(impossible))
            let instead = try product(.clblast)
            #expect(instead == ours && backend.choice.clblastFails)
            try backend.checkForFailure()
            #expect(backend.overrideCLBlast(small))
            let theirs = try product(.clblast)
            expectClose(theirs, ours.map(Double.init), "CLBlast's own")
            #expect(!backend.choice.clblastFails)
        }
    }

    @Test("Memory that is there and refused is told from memory that isn't there")
    func refusedMemory() {
        func sentence(_ requested: Int, _ available: Int) -> String {
            "\(BackendError.outOfMemory(device: "opencl:0 (X)", requested: requested, available: available))"
        }
        #expect(
            sentence(5, 300 << 20).hasPrefix(
                "opencl:0 (X) refuses 1 MiB, though 300 MiB should be free: another program"))
        #expect(
            sentence(300 << 20, 200 << 20).hasPrefix(
                "opencl:0 (X) has not enough memory: 300 MiB asked for, 200"))
    }
}
