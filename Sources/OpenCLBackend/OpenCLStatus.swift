import COpenCL
import TensorCore

// What drivers answer, in words: the number alone sends the reader to a header file.

/// `CL_OUT_OF_RESOURCES (-5)`: a status of OpenCL or CLBlast with its symbolic name.
func describe(status: cl_int) -> String {
    statusNames[status].map { "\($0) (\(status))" } ?? "status \(status)"
}

/// Throws `BackendError.driver` with the operation, the status and what to do, unless the status is success.
func check(_ status: cl_int, _ operation: String, on device: String, advice: String) throws {
    guard status != CL_SUCCESS else { return }
    throw BackendError.driver("\(operation) on \(device) failed with \(describe(status: status)): \(advice)")
}

/// What a status in the middle of the work means, and what to do.
func deviceFailure(_ status: cl_int, _ operation: String, on device: String) -> BackendError {
    let what = "(\(operation) failed with \(describe(status: status)))"
    return switch status {
    // Lazy drivers take memory at the first launch that needs it; NVIDIA's says -5 then.
    case -4, -5, -6:
        .failed(
            "\(device) ran out of memory\(status == -5 ? " or other resources" : "") \(what): use a smaller `batch-size` or "
                + "another `device`", lacksMemory: true)
    // The last is NVIDIA's, of a queue whose device has faulted.
    case -2, -33, -34, -36, -9999:
        .failed(
            "\(device) was lost \(what): its driver was reset, or it was taken away; see the system's log (dmesg), and go on "
                + "when clinfo lists it again")
    default: .failed("\(device) failed \(what): update the driver, or use another `device`")
    }
}

private let statusNames: [cl_int: String] = [
    -1: "CL_DEVICE_NOT_FOUND", -2: "CL_DEVICE_NOT_AVAILABLE", -3: "CL_COMPILER_NOT_AVAILABLE",
    -4: "CL_MEM_OBJECT_ALLOCATION_FAILURE", -5: "CL_OUT_OF_RESOURCES", -6: "CL_OUT_OF_HOST_MEMORY",
    -8: "CL_MEM_COPY_OVERLAP", -11: "CL_BUILD_PROGRAM_FAILURE", -12: "CL_MAP_FAILURE",
    -13: "CL_MISALIGNED_SUB_BUFFER_OFFSET", -14: "CL_EXEC_STATUS_ERROR_FOR_EVENTS_IN_WAIT_LIST",
    -15: "CL_COMPILE_PROGRAM_FAILURE", -30: "CL_INVALID_VALUE", -32: "CL_INVALID_PLATFORM",
    -33: "CL_INVALID_DEVICE", -34: "CL_INVALID_CONTEXT", -36: "CL_INVALID_COMMAND_QUEUE",
    -38: "CL_INVALID_MEM_OBJECT", -42: "CL_INVALID_BINARY", -43: "CL_INVALID_BUILD_OPTIONS",
    -44: "CL_INVALID_PROGRAM", -45: "CL_INVALID_PROGRAM_EXECUTABLE", -46: "CL_INVALID_KERNEL_NAME",
    -48: "CL_INVALID_KERNEL", -49: "CL_INVALID_ARG_INDEX", -50: "CL_INVALID_ARG_VALUE",
    -51: "CL_INVALID_ARG_SIZE", -52: "CL_INVALID_KERNEL_ARGS", -53: "CL_INVALID_WORK_DIMENSION",
    -54: "CL_INVALID_WORK_GROUP_SIZE", -55: "CL_INVALID_WORK_ITEM_SIZE", -56: "CL_INVALID_GLOBAL_OFFSET",
    -57: "CL_INVALID_EVENT_WAIT_LIST", -58: "CL_INVALID_EVENT", -59: "CL_INVALID_OPERATION",
    -61: "CL_INVALID_BUFFER_SIZE", -63: "CL_INVALID_GLOBAL_WORK_SIZE", -1001: "CL_PLATFORM_NOT_FOUND_KHR",
    -9999: "a fault of the device",
    // CLBlast's own.
    -1024: "CLBlastNotImplemented", -1022: "CLBlastInvalidMatrixA", -1021: "CLBlastInvalidMatrixB",
    -1020: "CLBlastInvalidMatrixC", -1017: "CLBlastInvalidDimension", -1016: "CLBlastInvalidLeadDimA",
    -1015: "CLBlastInvalidLeadDimB", -1014: "CLBlastInvalidLeadDimC", -1011: "CLBlastInsufficientMemoryA",
    -1010: "CLBlastInsufficientMemoryB", -1009: "CLBlastInsufficientMemoryC",
    -2046: "CLBlastInvalidLocalMemUsage", -2041: "CLBlastDatabaseError", -2040: "CLBlastUnknownError",
    -2039: "CLBlastUnexpectedError",
]
