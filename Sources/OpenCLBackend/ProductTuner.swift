import CCLBlast
import Foundation
import TensorCore

/// Finds the fastest kernel for a device's products: every candidate is compared with a double-precision product first, and
/// may win only if it is right.
package struct ProductTuner {
    /// What a candidate came to.
    package struct Trial: Sendable {
        package let product: ProductClass
        package let kernel: ProductKernel
        /// Nil for a candidate that is wrong or was given up.
        package let gflops: Double?
        /// Why it has none.
        package let note: String?
    }

    /// A product to be tuned.
    package struct Shape: Hashable, Sendable {
        package let m, n, k: Int
        package let transposeA, transposeB: Bool

        package init(m: Int, n: Int, k: Int, transposeA: Bool, transposeB: Bool) {
            (self.m, self.n, self.k) = (m, n, k)
            (self.transposeA, self.transposeB) = (transposeA, transposeB)
        }

        func product(_ precision: Precision) -> ProductClass {
            ProductClass(
                m: m, n: n, k: k, transposeA: transposeA, transposeB: transposeB, precision: precision)
        }
        var flops: Double { Double(2 * m * n * k) }
    }

    /// What CLBlast's Xgemm may be given on a device that it has no entry for: large tiles with vectors of 4 and 2, as its own
    /// entries for recent NVIDIA, AMD and Intel GPUs have, and small ones. CLBlast refuses what a device can't run.
    static let clblastCandidates: [[String: Int]] = [
        [1, 16, 16, 16, 128, 16, 16, 128, 4, 4], [1, 16, 16, 16, 64, 16, 16, 128, 4, 2],
        [1, 32, 8, 8, 64, 8, 8, 64, 4, 4],
    ].map { values in
        let names = ["KREG", "KWG", "MDIMA", "MDIMC", "MWG", "NDIMB", "NDIMC", "NWG", "VWM", "VWN"]
        let common = ["GEMMK": 0, "KWI": 2, "SA": 1, "SB": 1, "STRM": 0, "STRN": 0]
        return common.merging(zip(names, values)) { $1 }
    }

    private let backend: OpenCLBackend
    private let deadline: ContinuousClock.Instant

    /// Tunes within `budget` seconds.
    package init(_ backend: OpenCLBackend, budget: Double) {
        self.backend = backend
        deadline = .now + .seconds(budget)
    }

    /// Times every candidate on every shape and puts the winners into `tuning`, those of larger products first. Shapes that the
    /// time doesn't suffice for are left out. `onTrial` hears of each.
    package func tune(
        _ shapes: [Shape], into tuning: inout ProductTuning, onTrial: (Trial) -> Void = { _ in }
    ) throws {
        let before = backend.choice.forced
        defer { backend.choice.forced = before }
        try choose(shapes, into: &tuning, onTrial)
        // After the choice with CLBlast's own parameters: they can't be given back to it within a process.
        if backend.layout.local > 1, backend.precision == .float32,
            let largest = shapes.max(by: { $0.flops < $1.flops }),
            let parameters = try betterParameters(largest)
        {
            tuning.clblast = parameters
            try choose(shapes, into: &tuning, onTrial)
        }
    }

    private func choose(
        _ shapes: [Shape], into tuning: inout ProductTuning, _ onTrial: (Trial) -> Void
    ) throws {
        var seen: Set<ProductClass> = []
        var hopeless: Set<ProductKernel> = []
        for shape in shapes.sorted(by: { $0.flops > $1.flops }) {
            let product = shape.product(backend.precision)
            guard seen.insert(product).inserted else { continue }
            var best: ProductTuning.Choice?
            for kernel in backend.choice.candidates where !hopeless.contains(kernel) {
                guard ContinuousClock.now < deadline else { return }
                guard backend.admit(kernel) else {
                    hopeless.insert(kernel)
                    onTrial(Trial(product: product, kernel: kernel, gflops: nil, note: "not on this device"))
                    continue
                }
                // A candidate that is ten times slower on a small product need not be tried on large ones: CLBlast untuned
                // takes seconds for those on a CPU.
                if let best, try rate(kernel, small) * 10 < rate(best.kernel, small) {
                    hopeless.insert(kernel)
                    onTrial(
                        Trial(product: product, kernel: kernel, gflops: nil, note: "ten times slower"))
                    continue
                }
                guard try isRight(kernel, shape) else {
                    onTrial(Trial(product: product, kernel: kernel, gflops: nil, note: "wrong"))
                    continue
                }
                let gflops = try rate(kernel, shape)
                onTrial(Trial(product: product, kernel: kernel, gflops: gflops, note: nil))
                if gflops > best?.gflops ?? 0 {
                    best = ProductTuning.Choice(product: product, kernel: kernel, gflops: gflops)
                }
            }
            if let best { tuning.set(best) }
        }
    }

    private var small: Shape { Shape(m: 128, n: 128, k: 128, transposeA: false, transposeB: true) }

    /// The parameters that make CLBlast fastest on a shape; nil when its own do. In this process CLBlast is left with the best
    /// of `clblastCandidates`.
    private func betterParameters(_ shape: Shape) throws -> [String: Int]? {
        guard ContinuousClock.now < deadline else { return nil }
        let own = try rate(.clblast, shape)
        var best: (rate: Double, parameters: [String: Int])?
        for parameters in ProductTuner.clblastCandidates where ContinuousClock.now < deadline {
            guard backend.overrideCLBlast(parameters), try isRight(.clblast, shape) else { continue }
            let rate = try rate(.clblast, shape)
            if rate > best?.rate ?? 0 { best = (rate, parameters) }
        }
        guard let best else { return nil }
        _ = backend.overrideCLBlast(best.parameters)
        return best.rate > own ? best.parameters : nil
    }

    /// Whether a candidate's product agrees with one in double precision, at 64 elements spread over it, corners included, to
    /// the rounding error of a float32 sum, and of what it is stored in.
    private func isRight(_ kernel: ProductKernel, _ shape: Shape) throws -> Bool {
        let operands = try Operands(shape, on: backend)
        backend.upload(operands.c, Array(repeating: .nan, count: operands.c.count))
        guard try backend.attempt({ run(kernel, shape, operands) }) != nil,
            !(kernel == .clblast && backend.choice.clblastFails)
        else { return false }
        let c = backend.values(operands.c)
        func a(_ i: Int, _ p: Int) -> Double {
            Double(operands.hostA[shape.transposeA ? p * shape.m + i : i * shape.k + p])
        }
        func b(_ p: Int, _ j: Int) -> Double {
            Double(operands.hostB[shape.transposeB ? j * shape.k + p : p * shape.n + j])
        }
        for sample in 0..<64 {
            let i = sample * (shape.m - 1) / 63
            let j = (sample * 37 % 64) * (shape.n - 1) / 63
            let terms = (0..<shape.k).map { a(i, $0) * b($0, j) }
            let size = terms.reduce(0) { $0 + abs($1) }
            let sum = terms.reduce(0, +)
            let error = abs(Double(c[i * shape.n + j]) - sum)
            // A NaN fails too. The operands are exact but in tf32, where products round both.
            let roundoff = backend.precision.roundoff
            let allowed = backend.precision == .tf32 ? 2.01 * roundoff * size : roundoff * abs(sum)
            guard error <= 1e-5 * size + allowed else { return false }
        }
        return true
    }

    /// GFLOP/s: the median of three runs after one.
    private func rate(_ kernel: ProductKernel, _ shape: Shape) throws -> Double {
        let operands = try Operands(shape, on: backend)
        run(kernel, shape, operands)
        backend.synchronize()
        let times = (0..<3).map { _ in
            let start = ContinuousClock.now
            run(kernel, shape, operands)
            backend.synchronize()
            return start.secondsPassed
        }
        try backend.checkForFailure()
        return shape.flops / times.sorted()[1] * 1e-9
    }

    private func run(_ kernel: ProductKernel, _ shape: Shape, _ operands: Operands) {
        backend.choice.forced = kernel
        backend.matmul(
            operands.c, operands.a, operands.b, transposeA: shape.transposeA, transposeB: shape.transposeB,
            accumulate: false)
    }

    private struct Operands {
        let a, b, c: Tensor
        let hostA, hostB: [Float]

        init(_ shape: Shape, on backend: OpenCLBackend) throws {
            func numbers(_ count: Int) -> [Float] {
                (0..<count).map { Float(($0 &* 7919) % 2003) / 1001 - 1 }
            }
            let type = backend.precision.stored
            a = try backend.allocate(shape.transposeA ? [shape.k, shape.m] : [shape.m, shape.k], type)
            b = try backend.allocate(shape.transposeB ? [shape.n, shape.k] : [shape.k, shape.n], type)
            c = try backend.allocate([shape.m, shape.n], type)
            backend.upload(a, numbers(a.count))
            backend.upload(b, numbers(b.count))
            (hostA, hostB) = (backend.values(a), backend.values(b))  // as they were rounded
        }
    }
}

extension OpenCLBackend {
    /// Gives CLBlast's Xgemm parameters for this process and device. Returns whether CLBlast took them.
    func overrideCLBlast(_ parameters: [String: Int]) -> Bool {
        let names = parameters.keys.sorted()
        let values = names.map { parameters[$0]! }
        let copies = names.map { strdup($0) }
        defer { copies.forEach { free($0) } }
        var pointers = copies.map { UnsafePointer<CChar>($0) }
        let status = pointers.withUnsafeMutableBufferPointer { names in
            values.withUnsafeBufferPointer { values in
                CLBlastOverrideParameters(
                    device.id, "Xgemm", CLBlastPrecisionSingle, values.count, names.baseAddress,
                    values.baseAddress)
            }
        }
        guard status == CLBlastSuccess else { return false }
        choice.clblastFails = false  // with these it may start
        return true
    }
}
