import CPUBackend
import OpenCLBackend
import TensorCore

/// What a computation runs on.
public enum Device: LosslessStringConvertible, Hashable, Sendable {
    /// The CPU backend: `cpu`.
    case cpu
    /// A GPU if there is one, else the CPU backend: `auto`.
    case automatic
    /// An OpenCL device by its number or a part of its name: `opencl:0`, `opencl:NVIDIA`.
    case openCL(String)

    /// From a word as above; nil for another.
    public init?(_ description: String) {
        switch description {
        case "cpu": self = .cpu
        case "auto": self = .automatic
        default:
            guard description.hasPrefix("opencl:"), description.count > 7 else { return nil }
            self = .openCL(String(description.dropFirst(7)))
        }
    }

    /// The word.
    public var description: String {
        switch self {
        case .cpu: "cpu"
        case .automatic: "auto"
        case .openCL(let name): "opencl:\(name)"
        }
    }

    /// Opens the device. With the `productParts` of an earlier run on the CPU backend its bits come again. `prober` tries in processes
    /// of its own what an OpenCL driver may abort, hang or be wrong at; without one a driver is trusted to survive its trial.
    ///
    /// Throws `BackendError`: `.noSuchDevice`, `.unsupported` for another precision than float32 on the CPU backend, and what the
    /// backends throw.
    public func open(
        precision: Precision = .float32, productParts: Int? = nil, prober: Prober? = nil
    ) throws -> any Backend {
        let device: OpenCLDevice?
        switch self {
        case .cpu: device = nil
        // A machine without any OpenCL platform has no GPU for us; that is no error here.
        case .automatic: device = (try? OpenCLDevice.all())?.first { $0.kind == .gpu }
        case .openCL(let name): device = try OpenCLDevice.select(name)
        }
        guard let device else {
            let backend = try CPUBackend(parts: productParts)
            guard precision == .float32 else {
                throw BackendError.unsupported(precision, device: backend.name)
            }
            return backend
        }
        return try OpenCLBackend(device: device, precision: precision, prober: prober)
    }
}
