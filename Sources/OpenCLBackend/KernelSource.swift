import CKernels
import TensorCore

/// The OpenCL program's text: every embedded file of the folder Kernels, one after the other.
package enum KernelSource {
    /// The embedded files in the order of compilation.
    package static let files: [(name: String, text: String)] = (0..<ckernels_file_count()).map {
        let file = ckernels_files()[$0]
        return (
            String(cString: file.name),
            String(decoding: UnsafeBufferPointer(start: file.bytes, count: file.count), as: UTF8.self)
        )
    }

    /// `#line` before each file makes the driver's log name it.
    package static let whole = files.map { "#line 1 \"\($0.name)\"\n\($0.text)\n" }.joined()
}

/// How the kernels' work is laid out on a device: the two macros of Prelude.cl.
///
/// A CPU device runs a work-group as a loop on one core, so it gets one work-item that computes with the
/// whole registers; a GPU gets 64 of them with float4, or as many as it can run.
public struct KernelLayout: Equatable, Sendable {
    /// WIDTH, the floats that a work-item handles at once: 4, 8 or 16.
    public var width: Int
    /// LOCAL, the work-items of a group: a power of two.
    public var local: Int

    /// Any layout, which any device runs.
    public init(width: Int, local: Int) {
        (self.width, self.local) = (width, local)
    }

    /// What suits the device.
    public init(for device: OpenCLDevice) {
        self =
            device.kind == .cpu
            ? KernelLayout(width: device.nativeVectorWidth >= 16 ? 16 : 8, local: 1)
            : KernelLayout(
                width: 4, local: KernelLayout.groupSizes.first { $0 <= device.maxWorkGroupSize } ?? 1)
    }

    /// LOCAL on GPUs, the best first. Matrices.cl takes no fewer than 8.
    private static let groupSizes = [64, 32, 16, 8]

    /// The same in smaller groups, of so many work-items at most; nil where there are none.
    func smaller(atMost largest: Int) -> KernelLayout? {
        KernelLayout.groupSizes.first { $0 <= largest && $0 < local }
            .map { KernelLayout(width: width, local: $0) }
    }

    /// The compiler's options. No fast-math: the goldens ask for errors of 1e-5, and NaNs have to stay NaNs.
    package func options(stored: ElementType, engine: MatrixEngine? = nil) -> String {
        let type =
            switch stored {
            case .bfloat16: " -D BFLOAT16"
            case .float16: " -D FLOAT16"
            default: ""
            }
        return "-cl-std=CL1.2 -D WIDTH=\(width) -D LOCAL=\(local)" + type
            + (engine.map { " -D ENGINE=\($0.rawValue)" } ?? "")
    }
}
