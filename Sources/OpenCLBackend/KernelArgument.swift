import COpenCL
import TensorCore

/// What a kernel takes: a tensor's memory, or a constant.
protocol KernelArgument {
    func set(_ kernel: cl_kernel, _ index: cl_uint, _ backend: OpenCLBackend, _ name: String) -> cl_int
}

extension Tensor: KernelArgument {
    func set(_ kernel: cl_kernel, _ index: cl_uint, _ backend: OpenCLBackend, _ name: String) -> cl_int {
        var memory: cl_mem? = backend.buffer(self, name).memory
        return clSetKernelArg(kernel, index, MemoryLayout<cl_mem?>.size, &memory)
    }
}

/// A null pointer when there is none.
extension Optional: KernelArgument where Wrapped == Tensor {
    func set(_ kernel: cl_kernel, _ index: cl_uint, _ backend: OpenCLBackend, _ name: String) -> cl_int {
        if let self { return self.set(kernel, index, backend, name) }
        return clSetKernelArg(kernel, index, MemoryLayout<cl_mem?>.size, nil)
    }
}

/// `int` in a kernel; stops the program when it doesn't fit.
extension Int: KernelArgument {
    func set(_ kernel: cl_kernel, _ index: cl_uint, _ backend: OpenCLBackend, _ name: String) -> cl_int {
        guard var value = cl_int(exactly: self) else {
            fatalError("\(name): a size of \(self) is more than a kernel's int holds")
        }
        return clSetKernelArg(kernel, index, MemoryLayout<cl_int>.size, &value)
    }
}

/// `int` in a kernel: 0 or 1.
extension Bool: KernelArgument {
    func set(_ kernel: cl_kernel, _ index: cl_uint, _ backend: OpenCLBackend, _ name: String) -> cl_int {
        (self ? 1 : 0).set(kernel, index, backend, name)
    }
}

/// `uint` in a kernel.
extension UInt32: KernelArgument {
    func set(_ kernel: cl_kernel, _ index: cl_uint, _ backend: OpenCLBackend, _ name: String) -> cl_int {
        var value = self
        return clSetKernelArg(kernel, index, MemoryLayout<UInt32>.size, &value)
    }
}

/// `float` in a kernel.
extension Float: KernelArgument {
    func set(_ kernel: cl_kernel, _ index: cl_uint, _ backend: OpenCLBackend, _ name: String) -> cl_int {
        var value = self
        return clSetKernelArg(kernel, index, MemoryLayout<Float>.size, &value)
    }
}

/// `int8` in a kernel.
extension SIMD8<Int32>: KernelArgument {
    func set(_ kernel: cl_kernel, _ index: cl_uint, _ backend: OpenCLBackend, _ name: String) -> cl_int {
        var value = self
        return clSetKernelArg(kernel, index, MemoryLayout<SIMD8<Int32>>.size, &value)
    }
}
