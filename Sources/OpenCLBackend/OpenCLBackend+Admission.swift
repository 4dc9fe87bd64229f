import TensorCore

// What may compute a backend's products: nothing is used in 16 bits before its products were right.

extension OpenCLBackend {
    /// Builds what a kernel needs for products of the backend's precision, and tries them where it is an engine, in a process of
    /// its own first. Returns whether it may be used.
    func admit(_ kernel: ProductKernel) -> Bool {
        let program = choice.program(precision.stored, kernel)
        guard !programs.has(program) else { return true }
        guard choice.candidates.contains(kernel), !choice.refused.contains(kernel) else { return false }
        choice.refused.insert(kernel)  // until the end
        if let engine = kernel.engine {
            guard verdict(on: .engine(engine, precision)) == .right else { return false }
        }
        guard (try? programs.build(program)) != nil else { return false }
        guard kernel.engine == nil || (try? attempt { try productsAreRight(kernel) }) == true else {
            programs.remove(program)
            return false
        }
        choice.refused.remove(kernel)
        return true
    }

    /// Goes without an engine. Throws `BackendError.driver` where that can't be.
    func useOwnKernels() throws {
        guard precision != .tf32 else {
            if isTrial, !choice.engines.isEmpty { return }  // a trial asks for `engine`
            throw BackendError.driver(
                "`precision tf32` needs an NVIDIA GPU with tensor cores (compute capability 8.0 or above) whose "
                    + "products are right; use float32, bfloat16 or float16 on \(name).")
        }
        guard verdict(on: .kernels(layout, precision)) != .wrong else {
            throw BackendError.driver(
                "the kernels for `precision \(precision.rawValue)` can't be compiled on \(name), driver "
                    + "\(device.driverVersion), or give wrong results (the verdict is in \(programs.cache.folder.url.path)): use "
                    + "float32, or update the driver.")
        }
        try programs.build(Programs.Key(stored: precision.stored))
    }

    /// What has come of something in a process of its own, where it has to be tried in one; nil when it couldn't be.
    private func verdict(on trial: Prober.Trial) -> Prober.Verdict? {
        guard let prober else { return .right }
        return prober.verdict(on: trial, device, programs.source, programs.cache)
    }

    /// Takes the kernels of a tuning, but for those that this backend's precision can't use any more.
    package func use(_ tuning: ProductTuning) {
        var usable = tuning
        if precision != .float32 {
            usable.choices.removeAll { $0.product.precision == precision && !admit($0.kernel) }
        }
        choice.tuning = usable
        if let parameters = tuning.clblast { _ = overrideCLBlast(parameters) }
    }

    /// Whether a kernel's products of the backend's precision are right, with each way to store the operands and off every tile.
    /// A driver's assembler may leave out what it doesn't know without a word.
    func productsAreRight(_ kernel: ProductKernel) throws -> Bool {
        let before = choice.forced
        choice.forced = kernel
        defer { choice.forced = before }
        // Off everything that is whole; and with rows that are aligned, deep enough to go on with sums from memory (DEEPEST of
        // Engines.cl), as a model's products are.
        return try productIsRight(m: 145, n: 71, k: 83) && productIsRight(m: 152, n: 72, k: 552)
    }

    private func productIsRight(m: Int, n: Int, k: Int) throws -> Bool {
        /// Exact in every precision, as their products are in float32.
        func values(_ count: Int, _ step: Int) -> [Float] {
            (0..<count).map { Float(($0 &* step) % 61 - 30) / 8 }
        }
        func tensor(_ values: [Float], _ shape: [Int]) throws -> Tensor {
            let tensor = try allocate(shape, precision.stored)
            upload(tensor, values)
            return tensor
        }
        let (a, b) = (values(m * k, 7), values(k * n, 11))
        var expected = [Float](repeating: 0, count: m * n)
        for i in 0..<m {
            for p in 0..<k { for j in 0..<n { expected[i * n + j] += a[i * k + p] * b[p * n + j] } }
        }
        func turned(_ values: [Float], _ rows: Int, _ columns: Int) -> [Float] {
            (0..<rows * columns).map { values[$0 % rows * columns + $0 / rows] }
        }
        let c = try allocate([m, n], precision.stored)
        for (transposeA, transposeB) in [(false, false), (false, true), (true, false), (true, true)] {
            upload(c, Array(repeating: .nan, count: m * n))
            matmul(
                c, try transposeA ? tensor(turned(a, m, k), [k, m]) : tensor(a, [m, k]),
                try transposeB ? tensor(turned(b, k, n), [n, k]) : tensor(b, [k, n]),
                transposeA: transposeA, transposeB: transposeB, accumulate: false)
            guard self.values(c) == expected.map(precision.rounded) else { return false }
        }
        return true
    }

    /// Whether a device computes products right with the kernels of a precision in a layout, without any engine: what a probe
    /// asks. Leaves the program in the cache. Throws `BackendError`.
    package static func isRight(
        _ device: OpenCLDevice, _ layout: KernelLayout, _ precision: Precision,
        source: String = KernelSource.whole, cache: ProgramCache = ProgramCache()
    ) throws -> Bool {
        let backend = try OpenCLBackend(
            device: device, layout: layout, precision: precision, engines: [], source: source, cache: cache)
        let isRight = try backend.productsAreRight(backend.choice.own)
        try backend.checkForFailure()  // a device without memory, say, is no verdict
        return isRight
    }
}
