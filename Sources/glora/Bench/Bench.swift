import ArgumentParser
import Checkpoints
import Foundation
import ModelConfiguration
import TensorCore

struct Bench: ParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Measure a device: its products, its fused operations, a training step, inference.",
        discussion: """
            Times are medians; shares are of two roofs that are measured in the same run: a copy for bandwidth, the best
            product for arithmetic.

            Example:
              glora bench step --device opencl:0
              glora bench gemm --device cpu --batch 8
            """,
        subcommands: [
            BenchGEMM.self, BenchGLoRA.self, BenchAttention.self, BenchLayerNorm.self, BenchRMSNorm.self,
            BenchRotate.self, BenchGate.self, BenchStep.self, BenchInference.self,
        ])
}

/// What every benchmark takes.
struct BenchFlags: ParsableArguments {
    @OptionGroup var device: DeviceFlags
    @Option(
        help: """
            A plain ViT by timm's name (vit_base_patch16_224), whose weights are made up, or a model's file or folder.
            """)
    var model = "vit_base_patch16_224"
    @Option(help: "Input size in pixels (default: the model's).")
    var imageSize: Int?
    @Option(help: "Images in a batch.")
    var batch = 8
    @OptionGroup var common: CommonFlags

    func validate() throws {
        try checkBatchSize(batch, flag: "--batch")
    }

    /// The device's backend.
    func backend() throws -> any Backend {
        let backend = try device.backend(common.console)
        if backend.precision != .float32 {
            common.console.note("bytes are counted as if all were float32's, 4 for each number")
        }
        return backend
    }

    /// The classes of a benchmark's head.
    static let classCount = 10

    /// The architecture, with ten classes.
    func configuration() throws -> ViTConfiguration {
        var configuration = try named() ?? checkpoint().configuration
        configuration.classCount = Self.classCount
        return configuration
    }

    /// The architecture that `--model` names; nil where it is a file's or a folder's.
    private func named() throws -> ViTConfiguration? {
        guard !FileManager.default.fileExists(atPath: model) else { return nil }
        guard var configuration = ViTConfiguration(named: model, classCount: 0) else {
            throw ValidationError(
                "--model \(model) is no file or folder and not known; give a model's, or vit_tiny, small, base or large as in "
                    + "vit_base_patch16_224")
        }
        configuration.imageSize = imageSize ?? configuration.imageSize
        try configuration.check(source: "--model \(model)")
        return configuration
    }

    /// The model without a head: the file's, or made-up weights of the size that trained ones have, one table of them over and over,
    /// since drawing 86 million would take longer than the benchmark.
    func checkpoint() throws -> ViTCheckpoint {
        guard let configuration = try named() else {
            let checkpoint = try ViTCheckpoint.load(URL(fileURLWithPath: model)).withoutHead()
            return try imageSize.map(checkpoint.interpolated) ?? checkpoint
        }
        var random = Random(1, "bench")
        let table = (0..<65_537).map { _ in Float(0.02 * random.normal()) }
        var tensors: [String: HostTensor] = [:]
        for (name, shape) in configuration.tensorShapes {
            let count = shape.reduce(1, *)
            tensors[name] =
                name.contains("norm")
                ? HostTensor(shape: shape, repeating: name.hasSuffix("weight") ? 1 : 0)
                : HostTensor(
                    shape: shape,
                    values: [Float](unsafeUninitializedCapacity: count) { values, filled in
                        table.withUnsafeBufferPointer { table in
                            for start in stride(from: 0, to: count, by: table.count) {
                                (values.baseAddress! + start).initialize(
                                    from: table.baseAddress!, count: min(table.count, count - start))
                            }
                        }
                        filled = count
                    })
        }
        return try ViTCheckpoint(configuration: configuration, tensors: tensors)
    }
}

/// What a benchmark's last line holds with `--json`; what doesn't apply is left out.
struct BenchResult: Codable {
    var roofs: Roofs
    var seconds: Double
    var imagesPerSecond: Double?
    var gflops: Double?
    var gbps: Double?
    /// Of the roof that the operation is under, 0…1.
    var shareOfRoof: Double?
    var peakBytes: Int?
    /// One entry a line of the table.
    var rows: [Row]?

    struct Row: Codable {
        let name: String
        let seconds: Double
        var gflops: Double?
        var gbps: Double?
        var shareOfRoof: Double?
        /// Of OpenBLAS's speed in the same run.
        var ratio: Double?
    }
}

/// What a device does at best, as far as it was measured beside a benchmark.
struct Roofs: Codable {
    /// Of the fastest product.
    let gflops: Double
    /// Of a copy, read and write counted.
    let gbps: Double

    init(flopsPerSecond: Double, bytesPerSecond: Double) {
        (gflops, gbps) = (flopsPerSecond * 1e-9, bytesPerSecond * 1e-9)
    }
}

/// Medians of times, and the roofs of a device.
struct Stopwatch {
    let backend: any Backend

    /// The median seconds of each body, which take turns: at least `least` rounds, more until they have taken `budget`
    /// seconds. One round before warms up. Throws `BackendError.failed`: a device that does nothing any more is fast.
    func medians(
        budget: Double = 0.6, least: Int = 3, most: Int = 50, _ bodies: [() -> Void]
    ) throws -> [Double] {
        var times = bodies.map { _ in [Double]() }
        for body in bodies { body() }
        backend.synchronize()
        var total = 0.0
        while times[0].count < least || (total < budget && times[0].count < most) {
            for (index, body) in bodies.enumerated() {
                let seconds = time(body)
                times[index].append(seconds)
                total += seconds
            }
        }
        try backend.checkForFailure()
        return times.map { $0.sorted()[$0.count / 2] }
    }

    func median(_ body: () -> Void) throws -> Double {
        try withoutActuallyEscaping(body) { try medians([$0])[0] }
    }

    func time(_ body: () -> Void) -> Double {
        let start = ContinuousClock.now
        body()
        backend.synchronize()
        return start.secondsPassed
    }

    /// Bytes a second of a copy of 64 MiB, read and write counted.
    func copyBandwidth() throws -> Double {
        let count = 16 << 20
        let (from, to) = (try tensor([count]), try backend.allocate([count], .float32))
        backend.fill(to, 0)
        return OperationCost.copy(count).bytes / (try median { backend.copy(to, from) })
    }

    /// FLOPs a second of the best of the model's products, dW's shapes left out.
    func productRate(_ configuration: ViTConfiguration, rows: Int) throws -> Double {
        try BenchGEMM.shapes(configuration, rows: rows).filter { $0.kind == .forward }.map { shape in
            let (a, b) = (try stored([shape.m, shape.k]), try stored([shape.n, shape.k]))
            let c = try backend.allocate([shape.m, shape.n], backend.precision.stored)
            return shape.cost.flops
                / (try median {
                    backend.matmul(c, a, b, transposeA: false, transposeB: true, accumulate: false)
                })
        }.max()!
    }

    /// A tensor of numbers around 0, in the backend's precision.
    func stored(_ shape: [Int]) throws -> Tensor { try tensor(shape, backend.precision.stored) }

    /// A tensor of numbers around 0.
    func tensor(_ shape: [Int], _ type: ElementType = .float32) throws -> Tensor {
        let count = shape.reduce(1, *)
        let tensor = try backend.allocate(shape, type)
        backend.upload(tensor, (0..<count).map { Float(($0 &* 7919) % 2003) / 1001 - 1 })
        return tensor
    }
}

extension OperationCost {
    /// The share of the roof that a time reaches: the time that the slower of arithmetic and memory needs at the device's best.
    func share(_ seconds: Double, flopsPerSecond: Double, bytesPerSecond: Double) -> Double {
        max(flops / flopsPerSecond, bytes / bytesPerSecond) / seconds
    }

    func row(_ name: String, _ seconds: Double, flopsPerSecond: Double, bytesPerSecond: Double)
        -> BenchResult.Row
    {
        BenchResult.Row(
            name: name, seconds: seconds, gflops: flops / seconds * 1e-9, gbps: bytes / seconds * 1e-9,
            shareOfRoof: share(seconds, flopsPerSecond: flopsPerSecond, bytesPerSecond: bytesPerSecond))
    }
}

extension Console {
    /// A line of a benchmark's table.
    func say(_ row: BenchResult.Row) {
        func number(_ value: Double?, _ decimals: Int) -> String { value.map { $0.fixed(decimals) } ?? "" }
        say(
            row.name,
            [
                (row.seconds * 1e3).fixed(2), number(row.gflops, 1), number(row.gbps, 1),
                number(row.shareOfRoof.map { 100 * $0 }, 0), number(row.ratio, 2),
            ])
    }

    func sayHeader(ratio: String = "") { say("", ["ms", "GFLOP/s", "GB/s", "% of roof", ratio]) }

    private func say(_ name: String, _ cells: [String]) {
        say(name.padded(to: 34) + cells.map { $0.padded(to: 10, right: true) }.joined())
    }
}
