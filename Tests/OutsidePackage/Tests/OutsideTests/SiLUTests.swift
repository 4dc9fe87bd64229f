import Foundation
import SiLU
import SwiftGLoRA
import Testing

@Suite("An operation of somebody else's")
struct SiLUTests {
    static let devices = ["cpu", "opencl:0"]
    /// Off every block and work-group, with what is large for an exponential.
    static let x = (0..<20_011).map { Float(sin(Double($0))) * 9 } + [-90, 90, 0]

    static func reference(_ x: Float) -> Double { Double(x) / (1 + exp(-Double(x))) }

    @Test("gives what a double-precision reference does", arguments: devices)
    func forward(_ device: String) throws {
        let backend = try Device(device)!.open()
        let x = try backend.tensor(HostTensor(shape: [SiLUTests.x.count], values: SiLUTests.x))
        let y = try backend.tensor(HostTensor(shape: x.shape, repeating: .nan))
        try SiLU(on: backend).forward(y, x)
        let values = backend.values(y)
        try backend.checkForFailure()
        for (value, x) in zip(values, SiLUTests.x) {
            let expected = SiLUTests.reference(x)
            #expect(abs(Double(value) - expected) <= 1e-6 * max(abs(expected), 1e-3), "silu(\(x)) = \(value)")
        }
    }

    @Test("has the gradient that central differences give", arguments: devices)
    func backward(_ device: String) throws {
        let backend = try Device(device)!.open()
        let x = try backend.tensor(HostTensor(shape: [SiLUTests.x.count], values: SiLUTests.x))
        let dy = try backend.tensor(HostTensor(shape: x.shape, repeating: 0.5))
        let dx = try backend.tensor(HostTensor(shape: x.shape, repeating: .nan))
        try SiLU(on: backend).backward(dx, dy, x)
        let values = backend.values(dx)
        try backend.checkForFailure()
        for (value, x) in zip(values, SiLUTests.x) {
            let (above, below) = (x + 1e-2, x - 1e-2)
            let slope =
                (SiLUTests.reference(above) - SiLUTests.reference(below)) / Double(above - below)
            #expect(abs(Double(value) - 0.5 * slope) <= 1e-4, "∂silu(\(x)) = \(value), not \(0.5 * slope)")
        }
    }
}
