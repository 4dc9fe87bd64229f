import ArgumentParser
import CPUBackend
import Foundation
import ModelConfiguration
import TensorCore

struct BenchGEMM: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "gemm",
        abstract: "The products of a block's Linears and of their gradients.",
        discussion: """
            Beside OpenBLAS in turn, where the device is a CPU.

            Example:
              glora bench gemm --device opencl:0
            """)

    @OptionGroup var flags: BenchFlags

    /// A product of one Linear [out, in] with `rows` tokens.
    struct Shape {
        enum Kind: String, CaseIterable {
            case forward = "x·Wᵀ"
            case input = "dy·W"
            case weight = "dyᵀ·x"
        }

        let layer: String
        let kind: Kind
        let m, n, k: Int

        var cost: OperationCost { .product(m: m, n: n, k: k) }
        var name: String { "\(layer) \(kind.rawValue) [\(m), \(k)]·[\(k), \(n)]" }
    }

    static func shapes(_ model: ViTConfiguration, rows: Int) -> [Shape] {
        model.shape.sites.flatMap { site in
            let (name, out, input) = (site.role.rawValue, site.outputs, site.inputs)
            return [
                Shape(layer: name, kind: .forward, m: rows, n: out, k: input),
                Shape(layer: name, kind: .input, m: rows, n: input, k: out),
                Shape(layer: name, kind: .weight, m: out, n: input, k: rows),
            ]
        }
    }

    func run() throws {
        let console = flags.common.console
        let configuration = try flags.configuration()
        let backend = try flags.backend()
        let watch = Stopwatch(backend: backend)
        let bandwidth = try watch.copyBandwidth()
        // OpenBLAS works on the same cores, so it is a peer where the device is the host's processor.
        let peer = flags.device.isHostOpenCL(backend) ? try CPUBackend() : nil
        console.sayHeader(ratio: peer == nil ? "" : "/OpenBLAS")
        var measured: [(Shape, ours: Double, peer: Double?)] = []
        for shape in BenchGEMM.shapes(configuration, rows: flags.batch * configuration.tokenCount) {
            let ours = try product(shape, on: backend)
            if let peer {
                let theirs = try product(shape, on: peer)
                let seconds = try watch.medians(budget: 1.5, least: 5, [ours, theirs])
                measured.append((shape, seconds[0], seconds[1]))
            } else {
                measured.append((shape, try watch.medians([ours])[0], nil))
            }
        }
        let best = measured.map { $0.0.cost.flops / $0.ours }.max()!
        var rows: [BenchResult.Row] = []
        for (shape, seconds, peer) in measured {
            var row = shape.cost.row(shape.name, seconds, flopsPerSecond: best, bytesPerSecond: bandwidth)
            row.ratio = peer.map { $0 / seconds }
            console.say(row)
            rows.append(row)
        }
        let total = measured.reduce(OperationCost(flops: 0, bytes: 0)) { $0 + $1.0.cost }
        let seconds = measured.reduce(0) { $0 + $1.ours }
        if peer != nil {
            let logs = rows.compactMap { $0.ratio.map { log($0) } }
            let mean = exp(logs.reduce(0, +) / Double(logs.count))
            console.say(
                "against OpenBLAS: \(mean.fixed(2)) in the geometric mean, at least \(rows.compactMap(\.ratio).min()!.fixed(2))"
            )
        }
        console.say("copy: \((bandwidth * 1e-9).fixed(1)) GB/s")
        try console.result(
            BenchResult(
                roofs: Roofs(flopsPerSecond: best, bytesPerSecond: bandwidth), seconds: seconds,
                gflops: total.flops / seconds * 1e-9, gbps: total.bytes / seconds * 1e-9,
                shareOfRoof: total.share(seconds, flopsPerSecond: best, bytesPerSecond: bandwidth), rows: rows
            ), schema: "glora.bench.gemm/1")
    }

    private func product(_ shape: Shape, on backend: any Backend) throws -> () -> Void {
        let watch = Stopwatch(backend: backend)
        let (turnsA, turnsB) = (shape.kind == .weight, shape.kind == .forward)
        let a = try watch.stored(turnsA ? [shape.k, shape.m] : [shape.m, shape.k])
        let b = try watch.stored(turnsB ? [shape.n, shape.k] : [shape.k, shape.n])
        let c = try backend.allocate([shape.m, shape.n], backend.precision.stored)
        return {
            backend.matmul(c, a, b, transposeA: turnsA, transposeB: turnsB, accumulate: false)
            backend.synchronize()
        }
    }
}
