import CPUBackend
import Foundation
import OpenCLBackend
import TensorCore

/// A device that the tests run on, as the argument of a parameterised test:
///
///     @Test(arguments: TestDevice.all) func gelu(device: TestDevice) throws {
///         try device.withBackend { backend in … }
///     }
///
/// `GLORA_TEST_DEVICES` chooses them: a list like `cpu,opencl:0,opencl:Intel`. A device that isn't there
/// fails its tests.
public struct TestDevice: Sendable, CustomStringConvertible {
    /// `cpu`, or `opencl:` with an index or a part of a device's name.
    public let description: String

    /// A device by what `--device` would say.
    public init(description: String) { self.description = description }

    /// `cpu` and the first OpenCL device, unless the environment says otherwise.
    public static let all: [TestDevice] =
        (ProcessInfo.processInfo.environment["GLORA_TEST_DEVICES"] ?? "cpu,opencl:0")
        .split(separator: ",").map { TestDevice(description: $0.trimmingCharacters(in: .whitespaces)) }

    /// Whether `GLORA_TEST_SMALL=1` asks for small sizes only: a simulator like Oclgrind runs a million
    /// times slower.
    public static let onlySmall = ProcessInfo.processInfo.environment["GLORA_TEST_SMALL"] == "1"

    /// Runs `body` with this device's backend, one test at a time in the whole process: Swift Testing runs
    /// suites in parallel, and a backend belongs to one thread. Nothing of the backend may leave `body`.
    public func withBackend<Result>(_ body: (any Backend) throws -> Result) throws -> Result {
        TestDevice.lock.lock()
        defer { TestDevice.lock.unlock() }
        return try body(makeBackend())
    }

    /// The device's backend. All calls in a process return the same one (an OpenCL context takes seconds to
    /// make), so a caller outside `withBackend` has to be alone with it.
    public func makeBackend() throws -> any Backend {
        TestDevice.lock.lock()
        defer { TestDevice.lock.unlock() }
        if let backend = TestDevice.backends[description] { return backend }
        let backend: any Backend
        if description == "cpu" {
            backend = try CPUBackend()
        } else if description.hasPrefix("opencl:") {
            backend = try OpenCLBackend(
                device: OpenCLDevice.select(String(description.dropFirst("opencl:".count))))
        } else {
            throw BackendError.noSuchDevice(
                "GLORA_TEST_DEVICES names '\(description)'; use cpu, opencl:INDEX or opencl:NAME-PART")
        }
        TestDevice.backends[description] = backend
        return backend
    }

    /// Runs `body` with a backend of its own in a precision, on the first OpenCL device that the tests run on, alone as in
    /// `withBackend`.
    public static func withOpenCL<Result>(
        _ precision: Precision, _ body: (OpenCLBackend) throws -> Result
    ) throws -> Result {
        lock.lock()
        defer { lock.unlock() }
        let device = all.first { $0.description.hasPrefix("opencl:") }?.description.dropFirst(7) ?? "0"
        return try body(
            OpenCLBackend(device: OpenCLDevice.select(String(device)), precision: precision))
    }

    private static let lock = NSRecursiveLock()
    nonisolated(unsafe) private static var backends: [String: any Backend] = [:]  // guarded by the lock
}

/// `small` under `GLORA_TEST_SMALL=1`, else all of `sizes`.
public func testSizes<Size>(_ sizes: [Size], small: [Size]) -> [Size] {
    TestDevice.onlySmall ? small : sizes
}
