import COpenCL
import Foundation
import Synchronization
import TensorCore

/// The name of a kernel's function.
func kernelName(_ kernel: cl_kernel) -> String {
    var size = 0
    clGetKernelInfo(kernel, cl_kernel_info(CL_KERNEL_FUNCTION_NAME), 0, nil, &size)
    var bytes = [UInt8](repeating: 0, count: size)
    clGetKernelInfo(kernel, cl_kernel_info(CL_KERNEL_FUNCTION_NAME), size, &bytes, nil)
    return String(decoding: bytes.prefix { $0 != 0 }, as: UTF8.self)
}

/// One context per device and process, with the programs that were built in it.
///
/// CLBlast keeps its compiled kernels by context: a second one would compile them again (6.5 s rather than
/// 0.2 s).
final class OpenCLContext {
    let device: OpenCLDevice
    let context: cl_context
    private var programs: [String: cl_program] = [:]

    // OpenCL's objects may be used by any thread; the dictionaries are guarded by the lock.
    private static let lock = NSLock()
    nonisolated(unsafe) private static var contexts: [Int: OpenCLContext] = [:]  // by device index

    /// The process's context for the device. Throws `BackendError.driver`.
    static func shared(_ device: OpenCLDevice) throws -> OpenCLContext {
        try lock.withLock {
            if let context = contexts[device.index] { return context }
            let context = try OpenCLContext(device)
            contexts[device.index] = context
            return context
        }
    }

    private init(_ device: OpenCLDevice) throws {
        // Views start at multiples of `viewAlignment` floats, which has to be enough for the driver.
        guard device.baseAddressAlignmentBits <= viewAlignment * 32 else {
            throw BackendError.driver(
                "\(device) wants sub-buffers aligned to \(device.baseAddressAlignmentBits) bits, more than the "
                    + "\(viewAlignment * 32) that this program gives: use another `device`.")
        }
        self.device = device
        var status: cl_int = 0
        var id: cl_device_id? = device.id
        let context = clCreateContext(nil, 1, &id, nil, nil, &status)
        try check(
            status, "clCreateContext", on: "\(device)",
            advice: "check the driver with clinfo, or use another `device`.")
        self.context = context!
    }

    /// The program of this source, built once per process and, if the cache folder can be written to, once
    /// per machine. Throws `BackendError.build` with the driver's log.
    func program(source: String, options: String, cache: ProgramCache) throws -> cl_program {
        try OpenCLContext.lock.withLock {
            let key = ProgramCache.key(source: source, options: options, device: device)
            // By folder too: a test that opens a second cache reads that one.
            let name = cache.folder.url.path + key
            if let program = programs[name] { return program }
            let program: cl_program
            if let stored = cache.load(key), let loaded = load(stored, options) {
                program = loaded
            } else {
                program = try build(source, options)
                if let binary = binary(of: program), let kernels = kernels(of: program) {
                    cache.store(key, ProgramCache.Stored(kernels: kernels, binary: binary))
                }
            }
            programs[name] = program
            return program
        }
    }

    private func build(_ source: String, _ options: String) throws -> cl_program {
        var status: cl_int = 0
        let program = source.withCString { text in
            var text: UnsafePointer<CChar>? = text
            return clCreateProgramWithSource(context, 1, &text, nil, &status)
        }
        try check(
            status, "clCreateProgramWithSource", on: "\(device)",
            advice: "check the driver with clinfo, or use another `device`.")
        var id: cl_device_id? = device.id
        status = clBuildProgram(program, 1, &id, options, nil, nil)
        guard status != CL_SUCCESS else { return program! }
        defer { clReleaseProgram(program) }
        throw BackendError.build(
            "the kernels don't compile on \(device), driver \(device.driverVersion) "
                + "(\(describe(status: status)), options \(options)): update the driver or use another "
                + "`device`, and report this log:\n\(buildLog(program!))")
    }

    private func buildLog(_ program: cl_program) -> String {
        var size = 0
        clGetProgramBuildInfo(program, device.id, cl_program_build_info(CL_PROGRAM_BUILD_LOG), 0, nil, &size)
        guard size > 0 else { return "(the driver gave no log)" }
        var bytes = [UInt8](repeating: 0, count: size)
        clGetProgramBuildInfo(
            program, device.id, cl_program_build_info(CL_PROGRAM_BUILD_LOG), size, &bytes, nil)
        return String(decoding: bytes.prefix { $0 != 0 }, as: UTF8.self)
    }

    /// A program from a stored binary; nil when the driver won't have it, or makes another program of it: some take a binary
    /// without a word and have no kernels then.
    private func load(_ stored: ProgramCache.Stored, _ options: String) -> cl_program? {
        var status: cl_int = 0
        var id: cl_device_id? = device.id
        var size = stored.binary.count
        let program = stored.binary.withUnsafeBytes { bytes in
            var pointer: UnsafePointer<UInt8>? = bytes.bindMemory(to: UInt8.self).baseAddress
            return clCreateProgramWithBinary(context, 1, &id, &size, &pointer, nil, &status)
        }
        guard status == CL_SUCCESS, let program else { return nil }
        guard clBuildProgram(program, 1, &id, options, nil, nil) == CL_SUCCESS,
            kernels(of: program) == stored.kernels
        else {
            clReleaseProgram(program)
            return nil
        }
        return program
    }

    /// The names of a built program's kernels, in the alphabet's order; nil when the driver can't make them.
    private func kernels(of program: cl_program) -> [String]? {
        var count: cl_uint = 0
        guard clCreateKernelsInProgram(program, 0, nil, &count) == CL_SUCCESS else { return nil }
        var found = [cl_kernel?](repeating: nil, count: Int(count))
        guard clCreateKernelsInProgram(program, count, &found, nil) == CL_SUCCESS else { return nil }
        return found.compactMap { $0 }.map { kernel in
            defer { clReleaseKernel(kernel) }
            return kernelName(kernel)
        }.sorted()
    }

    /// The binary of a built program; nil when the driver has none to give.
    private func binary(of program: cl_program) -> Data? {
        var size = 0
        let sizeStatus = clGetProgramInfo(
            program, cl_program_info(CL_PROGRAM_BINARY_SIZES), MemoryLayout<Int>.size, &size, nil)
        guard sizeStatus == CL_SUCCESS, size > 0 else { return nil }
        var binary = Data(count: size)
        let status = binary.withUnsafeMutableBytes { bytes in
            var pointer: UnsafeMutablePointer<UInt8>? = bytes.bindMemory(to: UInt8.self).baseAddress
            return clGetProgramInfo(
                program, cl_program_info(CL_PROGRAM_BINARIES), MemoryLayout.size(ofValue: pointer), &pointer,
                nil)
        }
        return status == CL_SUCCESS ? binary : nil
    }
}
