import COpenCL
import TensorCore

/// One device of one OpenCL platform, as its driver describes it.
public struct OpenCLDevice: @unchecked Sendable, CustomStringConvertible {
    /// What a device is.
    public enum Kind: String, Sendable {
        case gpu, cpu, accelerator
    }

    /// The position among all devices of all platforms: `opencl:INDEX`.
    public let index: Int
    /// The driver's name of the device.
    public let name: String
    /// The driver's name of the platform.
    public let platformName: String
    /// `OpenCL 3.0 …`, with the driver's own remarks.
    public let platformVersion: String
    /// The driver's version.
    public let driverVersion: String
    /// What the device is. One that says it is several things at once (a simulator) counts as a GPU.
    public let kind: Kind
    /// Memory in bytes.
    public let globalMemoryByteCount: Int
    /// The largest single buffer in bytes.
    public let maxAllocationByteCount: Int
    /// Compute units: cores of a CPU, multiprocessors of a GPU.
    public let computeUnits: Int
    /// `OpenCL C 1.2 …`.
    public let languageVersion: String
    /// The memory that a work-group shares, in bytes.
    public let localMemoryByteCount: Int
    /// Whether kernels may compute in float16 (`cl_khr_fp16`).
    public let hasHalfPrecision: Bool
    /// Whether the driver has sub-groups (`cl_khr_subgroups` or Intel's).
    public let hasSubgroups: Bool
    /// What a sub-buffer's origin must be a multiple of, in bits.
    let baseAddressAlignmentBits: Int
    /// Float lanes of the device's registers, as the driver says: 16 for AVX-512; 1 on GPUs.
    let nativeVectorWidth: Int
    /// The largest work-group.
    public let maxWorkGroupSize: Int
    /// By which a GPU's matrix engine is known.
    let features: Features
    // An opaque handle of the driver, which lives as long as the process and which any thread may use.
    let id: cl_device_id

    /// What drivers say of a GPU, besides what all of them are asked.
    struct Features {
        var name = ""
        var extensions: [String] = []
        /// NVIDIA's: 9 for a Hopper; 0 for others.
        var computeCapability = 0
        /// Intel's: the fewest work-items of a sub-group; 0 for others.
        var smallestSubgroup = 0
    }

    /// What the driver offers beyond its version of OpenCL.
    public var extensions: [String] { features.extensions }

    /// `opencl:0 (name)`.
    public var description: String { "opencl:\(index) (\(name))" }

    /// Every device of every platform, in the platforms' order.
    ///
    /// Throws `BackendError.noSuchDevice` when there is no platform, with what to install, or when those that there are have no
    /// device, with why that may be.
    public static func all() throws -> [OpenCLDevice] {
        var count: cl_uint = 0
        let status = clGetPlatformIDs(0, nil, &count)
        guard status == CL_SUCCESS || status == -1001 else {  // -1001: the loader found no .icd file
            throw BackendError.driver(
                "listing the OpenCL platforms failed with \(describe(status: status)): "
                    + "check the drivers in /etc/OpenCL/vendors with clinfo.")
        }
        var platforms = [cl_platform_id?](repeating: nil, count: Int(count))
        if count > 0 { clGetPlatformIDs(count, &platforms, nil) }
        var devices: [OpenCLDevice] = []
        var empty: [String] = []  // platforms, with what they answer
        for case let platform? in platforms {
            var count: cl_uint = 0
            let status = clGetDeviceIDs(platform, cl_device_type(0xffff_ffff), 0, nil, &count)
            guard status == CL_SUCCESS, count > 0 else {
                // Mostly a driver for hardware that isn't here.
                let name = text {
                    clGetPlatformInfo(platform, cl_platform_info(CL_PLATFORM_NAME), $0, $1, $2)
                }
                empty.append(status == CL_SUCCESS ? name : "\(name): \(describe(status: status))")
                continue
            }
            var ids = [cl_device_id?](repeating: nil, count: Int(count))
            clGetDeviceIDs(platform, cl_device_type(0xffff_ffff), count, &ids, nil)
            for case let id? in ids { devices.append(OpenCLDevice(devices.count, id, platform)) }
        }
        guard !devices.isEmpty || empty.isEmpty else {
            throw BackendError.noSuchDevice(
                "OpenCL is installed (\(empty.joined(separator: "; "))), but its driver offers no device: the hardware isn't "
                    + "there, may not be opened by this user (groups render and video), or the driver's cache folder can't be "
                    + "written to (PoCL's: $POCL_CACHE_DIR, else ~/.cache/pocl).")
        }
        guard !devices.isEmpty else {
            throw BackendError.noSuchDevice(
                "no OpenCL device was found: install your GPU's driver, or the package pocl-opencl-icd "
                    + "to run OpenCL on the CPU.")
        }
        return devices
    }

    /// The device with this index, or the one whose name (or whose platform's name) contains `selector`,
    /// regardless of case.
    ///
    /// Throws `BackendError.noSuchDevice` with the list of devices when none or several answer.
    public static func select(_ selector: String) throws -> OpenCLDevice {
        try select(selector, from: all())
    }

    /// `select` on a list.
    package static func select(_ selector: String, from devices: [OpenCLDevice]) throws -> OpenCLDevice {
        let list = devices.map { "opencl:\($0.index) (\($0.name), \($0.platformName))" }
            .joined(separator: ", ")
        if let index = Int(selector) {
            guard devices.indices.contains(index) else {
                throw BackendError.noSuchDevice("there is no device opencl:\(index); there are: \(list).")
            }
            return devices[index]
        }
        let part = selector.lowercased()
        func having(_ text: (OpenCLDevice) -> String) -> [OpenCLDevice] {
            devices.filter { !part.isEmpty && text($0).lowercased().contains(part) }
        }
        // A device's own name goes first: PoCL's CPU device has the processor's maker in it, and so has
        // the platform of that maker.
        let byName = having(\.name)
        let byPlatform = having(\.platformName)
        for found in [byName.filter { byPlatform.map(\.index).contains($0.index) }, byPlatform, byName]
        where found.count == 1 {
            return found[0]
        }
        guard byName.isEmpty && byPlatform.isEmpty else {
            throw BackendError.noSuchDevice(
                "'\(selector)' names several devices; give an index or more of a name: \(list).")
        }
        throw BackendError.noSuchDevice("no device's name contains '\(selector)'; there are: \(list).")
    }

    private init(_ index: Int, _ id: cl_device_id, _ platform: cl_platform_id) {
        (self.index, self.id) = (index, id)
        name = text { clGetDeviceInfo(id, cl_device_info(CL_DEVICE_NAME), $0, $1, $2) }
        platformName = text { clGetPlatformInfo(platform, cl_platform_info(CL_PLATFORM_NAME), $0, $1, $2) }
        platformVersion = text {
            clGetPlatformInfo(platform, cl_platform_info(CL_PLATFORM_VERSION), $0, $1, $2)
        }
        driverVersion = text { clGetDeviceInfo(id, cl_device_info(CL_DRIVER_VERSION), $0, $1, $2) }
        languageVersion = text {
            clGetDeviceInfo(id, cl_device_info(CL_DEVICE_OPENCL_C_VERSION), $0, $1, $2)
        }
        let extensions = text { clGetDeviceInfo(id, cl_device_info(CL_DEVICE_EXTENSIONS), $0, $1, $2) }
            .split(separator: " ").map(String.init)
        hasHalfPrecision = extensions.contains("cl_khr_fp16")
        hasSubgroups = extensions.contains { $0 == "cl_khr_subgroups" || $0 == "cl_intel_subgroups" }
        features = Features(
            name: name, extensions: extensions,
            computeCapability: extensions.contains("cl_nv_device_attribute_query")
                ? Int(number(id, CL_DEVICE_COMPUTE_CAPABILITY_MAJOR_NV, cl_uint.self)) : 0,
            smallestSubgroup: extensions.contains("cl_intel_required_subgroup_size")
                ? numbers(id, CL_DEVICE_SUB_GROUP_SIZES_INTEL).min() ?? 0 : 0)
        let type = number(id, CL_DEVICE_TYPE, cl_ulong.self)
        kind =
            type & cl_ulong(CL_DEVICE_TYPE_GPU) != 0
            ? .gpu : type & cl_ulong(CL_DEVICE_TYPE_CPU) != 0 ? .cpu : .accelerator
        globalMemoryByteCount = min(
            Int(clamping: number(id, CL_DEVICE_GLOBAL_MEM_SIZE, cl_ulong.self)),
            kind == .cpu ? ProcessLimits.memoryByteCount : .max)
        maxAllocationByteCount = Int(clamping: number(id, CL_DEVICE_MAX_MEM_ALLOC_SIZE, cl_ulong.self))
        computeUnits = Int(number(id, CL_DEVICE_MAX_COMPUTE_UNITS, cl_uint.self))
        baseAddressAlignmentBits = Int(number(id, CL_DEVICE_MEM_BASE_ADDR_ALIGN, cl_uint.self))
        nativeVectorWidth = Int(number(id, CL_DEVICE_NATIVE_VECTOR_WIDTH_FLOAT, cl_uint.self))
        maxWorkGroupSize = number(id, CL_DEVICE_MAX_WORK_GROUP_SIZE, Int.self)
        localMemoryByteCount = Int(clamping: number(id, CL_DEVICE_LOCAL_MEM_SIZE, cl_ulong.self))
    }
}

/// A number that the driver gives; 0 when it doesn't know.
private func number<Value: FixedWidthInteger>(_ id: cl_device_id, _ key: Int32, _: Value.Type) -> Value {
    var value: Value = 0
    clGetDeviceInfo(id, cl_device_info(key), MemoryLayout<Value>.size, &value, nil)
    return value
}

/// The sizes that the driver gives; none when it doesn't know.
private func numbers(_ id: cl_device_id, _ key: Int32) -> [Int] {
    var byteCount = 0
    guard clGetDeviceInfo(id, cl_device_info(key), 0, nil, &byteCount) == CL_SUCCESS else { return [] }
    var values = [Int](repeating: 0, count: byteCount / MemoryLayout<Int>.size)
    guard clGetDeviceInfo(id, cl_device_info(key), byteCount, &values, nil) == CL_SUCCESS else { return [] }
    return values
}

/// A text that the driver gives: asked twice, for its size and for itself.
private func text(
    _ get: (Int, UnsafeMutableRawPointer?, UnsafeMutablePointer<Int>?) -> cl_int
) -> String {
    var size = 0
    guard get(0, nil, &size) == CL_SUCCESS, size > 0 else { return "" }
    var bytes = [UInt8](repeating: 0, count: size)
    guard bytes.withUnsafeMutableBytes({ get(size, $0.baseAddress, nil) }) == CL_SUCCESS else { return "" }
    let characters = String(decoding: bytes.prefix { $0 != 0 }, as: UTF8.self)
    return characters.split(separator: " ", omittingEmptySubsequences: true).joined(separator: " ")
}
