// Measures the operation beside a copy, which reads and writes as much: swift run -c release BenchSiLU [DEVICE]
import SiLU
import SwiftGLoRA

let backend = try Device(CommandLine.arguments.dropFirst().first ?? "auto")!.open()
let silu = try SiLU(on: backend)
let count = 1 << 24
let (x, y) = (try backend.allocate([count], .float32), try backend.allocate([count], .float32))
backend.fill(x, 0.5)

/// The median of nine runs, in seconds; the first two don't count.
@MainActor func seconds(_ body: () -> Void) -> Double {
    let all = (0..<11).map { _ in
        let start = ContinuousClock.now
        body()
        backend.synchronize()
        return (ContinuousClock.now - start) / .seconds(1)
    }
    return all.dropFirst(2).sorted()[4]
}

let (copied, computed) = (seconds { backend.copy(y, x) }, seconds { silu.forward(y, x) })
try backend.checkForFailure()
let bytes = 8 * Double(count)
print("\(backend.name): silu \(bytes / computed / 1e9) GB/s, a copy \(bytes / copied / 1e9) GB/s")
