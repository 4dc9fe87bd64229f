import Foundation
import SwiftGLoRA

/// An operation that the library doesn't have, on both backends: the activation of most language models (arXiv 1702.03118).
///
///     y = x · σ(x),   dx = dy · σ(x) · (1 + x · (1 − σ(x))),   σ(x) = 1 / (1 + e⁻ˣ)        float32, all of one count
public struct SiLU {
    private let backend: any Backend
    private let forwardKernel, backwardKernel: OpenCLKernel?

    /// The operation on a device. Throws `BackendError.build` where the kernels don't compile, `.noSuchDevice` on a third backend.
    public init(on backend: any Backend) throws {
        self.backend = backend
        let device = backend as? OpenCLBackend
        forwardKernel = try device.map { try OpenCLKernel("silu", source: SiLU.source, on: $0) }
        backwardKernel = try device.map { try OpenCLKernel("silu_backward", source: SiLU.source, on: $0) }
        if device == nil, !(backend is CPUBackend) {
            throw BackendError.noSuchDevice(
                "SiLU has no code for \(backend.name); use the CPU or an OpenCL device")
        }
    }

    /// y ← x · σ(x). y may be x.
    public func forward(_ y: Tensor, _ x: Tensor) {
        check(y, x)
        forwardKernel?.run(x.count, y, x, x.count)
        guard let cpu = backend as? CPUBackend else { return }
        let (y, count, x) = (cpu.floats(y), x.count, cpu.floats(x))
        // 16,384 elements in a block: there waking a thread is cheap beside the work.
        cpu.parallel(count, grain: 16_384) { for i in $0 { y[i] = x[i] * sigmoid(x[i]) } }
    }

    /// dx ← dy · σ(x) · (1 + x · (1 − σ(x))). dx may be dy.
    public func backward(_ dx: Tensor, _ dy: Tensor, _ x: Tensor) {
        check(dx, dy, x)
        backwardKernel?.run(x.count, dx, dy, x, x.count)
        guard let cpu = backend as? CPUBackend else { return }
        let (dx, dy, count, x) = (cpu.floats(dx), cpu.floats(dy), x.count, cpu.floats(x))
        cpu.parallel(count, grain: 16_384) {
            for i in $0 {
                let s = sigmoid(x[i])
                dx[i] = dy[i] * s * (1 + x[i] * (1 - s))
            }
        }
    }

    private func check(_ tensors: Tensor...) {
        precondition(
            tensors.allSatisfy { $0.count == tensors[0].count && $0.elementType == .float32 },
            "silu: \(tensors.map(\.shape)) are not of one count, or not float32")
    }

    static let source = """
        float sigmoid(float x) { return 1.0f / (1.0f + exp(-x)); }

        kernel void silu(global float *y, global const float *x, int n) {
            int i = get_global_id(0);
            if (i < n) y[i] = x[i] * sigmoid(x[i]);
        }

        kernel void silu_backward(global float *dx, global const float *dy, global const float *x, int n) {
            int i = get_global_id(0);
            if (i >= n) return;
            float s = sigmoid(x[i]);
            dx[i] = dy[i] * s * (1.0f + x[i] * (1.0f - s));
        }
        """
}

private func sigmoid(_ x: Float) -> Float { 1 / (1 + exp(-x)) }
