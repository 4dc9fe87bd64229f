import COpenCL
import TensorCore

/// A kernel's arguments on their way to the driver, in the kernel's order.
public struct KernelCall {
    let kernel: cl_kernel
    let name: String
    /// The first answer that isn't success; nothing is set behind it.
    private(set) var status = CL_SUCCESS
    private var index: cl_uint = 0

    init(_ kernel: cl_kernel, _ name: String) { (self.kernel, self.name) = (kernel, name) }

    /// Sets the next argument from so many bytes; from no pointer, a null pointer in the kernel.
    mutating func add(_ value: UnsafeRawPointer?, byteCount: Int) {
        if status == CL_SUCCESS { status = clSetKernelArg(kernel, index, byteCount, value) }
        index += 1
    }

    /// Sets the next argument to a value as it lies in memory.
    mutating func add(bytesOf value: some BitwiseCopyable) {
        withUnsafeBytes(of: value) { add($0.baseAddress, byteCount: $0.count) }
    }
}

/// What a kernel takes: a tensor's memory, a constant, or some of those in a row.
public protocol KernelArgument {
    /// Sets it as the call's next argument, or its parts as the next ones.
    func add(to call: inout KernelCall)
}

/// Arguments that belong together.
struct Arguments<each Part: KernelArgument>: KernelArgument {
    private let parts: (repeat each Part)

    init(_ parts: repeat each Part) { self.parts = (repeat each parts) }

    func add(to call: inout KernelCall) { for part in repeat each parts { part.add(to: &call) } }
}

extension Tensor: KernelArgument {
    /// The tensor's memory; stops the program when it isn't a device's.
    var onDevice: OpenCLBuffer {
        guard let buffer = buffer as? OpenCLBuffer else {
            fatalError("a tensor of shape \(shape) belongs to \(type(of: buffer)), not to an OpenCL device")
        }
        return buffer
    }

    public func add(to call: inout KernelCall) { call.add(bytesOf: onDevice.memory) }
}

/// A null pointer when there is none.
extension Optional: KernelArgument where Wrapped == Tensor {
    public func add(to call: inout KernelCall) {
        if let self { self.add(to: &call) } else { call.add(nil, byteCount: MemoryLayout<cl_mem?>.size) }
    }
}

/// `int` in a kernel; stops the program when it doesn't fit.
extension Int: KernelArgument {
    public func add(to call: inout KernelCall) {
        guard let value = cl_int(exactly: self) else {
            fatalError("\(call.name): a size of \(self) is more than a kernel's int holds")
        }
        call.add(bytesOf: value)
    }
}

/// `int` in a kernel: 0 or 1.
extension Bool: KernelArgument {
    public func add(to call: inout KernelCall) { (self ? 1 : 0).add(to: &call) }
}

/// `uint` in a kernel.
extension UInt32: KernelArgument {
    public func add(to call: inout KernelCall) { call.add(bytesOf: self) }
}

/// `float` in a kernel.
extension Float: KernelArgument {
    public func add(to call: inout KernelCall) { call.add(bytesOf: self) }
}
