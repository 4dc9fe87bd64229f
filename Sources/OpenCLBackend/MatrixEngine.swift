import CProcessor
import Foundation
import TensorCore

/// What a CPU has for products of bfloat16, besides vectors of float32 (Engines.cl).
public enum MatrixEngine: Int, CaseIterable, CustomStringConvertible, Sendable {
    /// `vdpbf16ps` of AVX512-BF16.
    case avx512 = 1
    /// `tdpbf16ps` of AMX.
    case amx = 2

    /// What users know it by.
    public var description: String { self == .amx ? "AMX" : "AVX512-BF16" }

    /// Those that a device runs, the fastest first: the host's processor's, on a CPU device. A simulator runs no assembly.
    static func of(_ device: OpenCLDevice) -> [MatrixEngine] {
        device.kind == .cpu && !device.platformName.contains("Oclgrind") ? ofHost : []
    }

    /// Those that the host's processor has, the fastest first.
    private static let ofHost: [MatrixEngine] =
        (processor_grants_amx_bf16() ? [.amx] : []) + (processor_has_avx512_bf16() ? [.avx512] : [])

    /// Whether it multiplies what a precision stores, in such kernels.
    func takes(_ precision: Precision, _ layout: KernelLayout) -> Bool {
        precision == .bfloat16 && layout == KernelLayout(width: 16, local: 1)
    }

    /// Whether it has proven itself on a device in a process of its own: a driver that aborts, hangs or computes nonsense costs
    /// an engine, never a training run. The verdict is kept for the device, its driver and these kernels. Without a `prober` it
    /// is taken for proven; a backend checks its products in any case.
    func isProven(_ device: OpenCLDevice, _ source: String, _ cache: ProgramCache) -> Bool {
        guard let prober = MatrixEngine.prober else { return true }
        let key = ProgramCache.key(source: source, options: "engine \(rawValue)", device: device)
        let file = cache.directory.appendingPathComponent("engine-\(ProgramCache.hash(key.utf8)).txt")
        if let verdict = try? String(contentsOf: file, encoding: .utf8) { return verdict == "right\n" }
        let verdict = MatrixEngine.succeeds(
            prober, ["probe", "--device", "opencl:\(device.index)", "--engine", "\(rawValue)"], within: 300)
        guard let isRight = verdict else { return false }
        // A folder that can't be written to costs the next start its time, and nothing else.
        try? FileManager.default.createDirectory(at: cache.directory, withIntermediateDirectories: true)
        try? (isRight ? "right\n" : "wrong\n").write(to: file, atomically: true, encoding: .utf8)
        return isRight
    }

    /// The program whose command `probe` tries an engine: `glora` names itself.
    nonisolated(unsafe) public static var prober: URL?

    /// Whether a process ends with status 0 within so many seconds; nil when somebody else ended it.
    static func succeeds(_ executable: URL, _ arguments: [String], within seconds: Double) -> Bool? {
        let process = Process()
        process.executableURL = executable
        process.arguments = arguments
        process.standardInput = FileHandle.nullDevice
        process.standardOutput = FileHandle.nullDevice
        process.standardError = FileHandle.nullDevice
        let ended = DispatchSemaphore(value: 0)
        process.terminationHandler = { _ in ended.signal() }
        guard (try? process.run()) != nil else { return false }
        if ended.wait(timeout: .now() + seconds) == .timedOut {
            kill(process.processIdentifier, SIGKILL)
            return false
        }
        guard process.terminationReason == .uncaughtSignal else { return process.terminationStatus == 0 }
        return [SIGINT, SIGTERM, SIGHUP, SIGKILL].contains(process.terminationStatus) ? nil : false
    }

    /// ENGINE_ROWS of EnginePanels.cl.
    var rows: Int { self == .amx ? 32 : 12 }

    /// PAIRS of EnginePanels.cl: what a row of so many elements takes in a panel, in words of two.
    func words(_ depth: Int) -> Int {
        let step = self == .amx ? 16 : 1
        return ((depth + 1) / 2 + step - 1) / step * step
    }
}

extension OpenCLBackend {
    /// Whether a kernel's products of bfloat16 are right, in each way that they are packed and off every tile. A driver's
    /// assembler may leave out what it doesn't know without a word.
    func productsAreRight(_ kernel: ProductKernel) throws -> Bool {
        let before = product
        product = kernel
        defer { product = before }
        let (m, n, k) = (45, 71, 83)
        /// Exact in bfloat16, as their products are in float32.
        func values(_ count: Int, _ step: Int) -> [Float] {
            (0..<count).map { Float(($0 &* step) % 61 - 30) / 8 }
        }
        func tensor(_ values: [Float], _ shape: [Int]) throws -> Tensor {
            let tensor = try allocate(shape, .bfloat16)
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
        let c = try allocate([m, n], .bfloat16)
        for (transposeA, transposeB) in [(false, false), (false, true), (true, false), (true, true)] {
            upload(c, Array(repeating: .nan, count: m * n))
            matmul(
                c, try transposeA ? tensor(turned(a, m, k), [k, m]) : tensor(a, [m, k]),
                try transposeB ? tensor(turned(b, k, n), [n, k]) : tensor(b, [k, n]),
                transposeA: transposeA, transposeB: transposeB, accumulate: false)
            guard self.values(c) == expected.map({ float(bfloat16Bits: bfloat16Bits($0)) }) else {
                return false
            }
        }
        return true
    }
}
