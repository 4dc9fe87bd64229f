import Foundation
import TensorCore

/// A product as far as the choice of its kernel goes: what its matrices are stored in, which operands are stored transposed, and
/// each size rounded to a power of two.
package struct ProductClass: Hashable, Codable, Sendable, CustomStringConvertible {
    package let transposeA, transposeB: Bool
    package let m, n, k: Int
    package let precision: Precision

    /// The class of op(a) [m, k] · op(b) [k, n].
    package init(
        m: Int, n: Int, k: Int, transposeA: Bool, transposeB: Bool, precision: Precision = .float32
    ) {
        func rounded(_ size: Int) -> Int {
            1 << max(0, Int((log2(Double(max(1, size)))).rounded()))
        }
        (self.transposeA, self.transposeB) = (transposeA, transposeB)
        (self.m, self.n, self.k) = (rounded(m), rounded(n), rounded(k))
        self.precision = precision
    }

    package var description: String {
        "\(transposeA ? "T" : "N")\(transposeB ? "T" : "N") \(m) x \(n) x \(k)"
    }
}

/// What `glora tune` found on a device: the kernel for each class of products, and CLBlast's parameters. Kept in a file for
/// each device and driver.
package struct ProductTuning: Codable, Equatable, Sendable {
    /// Raised when kernels or candidates change, so that older files are tuned again.
    static let formatVersion = 2

    /// One class and its winner.
    package struct Choice: Codable, Equatable, Sendable {
        package let product: ProductClass
        package let kernel: ProductKernel
        /// What the winner reached when it was tuned.
        package let gflops: Double
    }

    package let version: Int
    package let device, driver, platform: String
    package var choices: [Choice]
    /// What CLBlast's Xgemm is given in place of its own; nil where its own won.
    package var clblast: [String: Int]?

    /// An empty one for the device.
    package init(_ device: OpenCLDevice) {
        version = ProductTuning.formatVersion
        self.device = device.name
        driver = device.driverVersion
        platform = "\(device.platformName) \(device.platformVersion)"
        choices = []
    }

    /// The winner of a class; nil for one that wasn't tuned.
    package func kernel(_ product: ProductClass) -> ProductKernel? {
        choices.first { $0.product == product }?.kernel
    }

    /// Takes a class's winner in, in place of an older one.
    package mutating func set(_ choice: Choice) {
        choices.removeAll { $0.product == choice.product }
        choices.append(choice)
    }

    // MARK: The file

    /// The file of the device's tuning.
    package static func name(_ device: OpenCLDevice) -> String {
        let key = "\(device.name) \(device.driverVersion) \(device.platformName) \(device.platformVersion)"
        return "tuning-\(Digest.of(Data(key.utf8))).json"
    }

    /// Where that lies.
    package static func path(_ device: OpenCLDevice, in cache: ProgramCache) -> String {
        cache.folder.url.appendingPathComponent(name(device)).path
    }

    /// The device's tuning. Nil when there is none, or one of another version or device, or one that can't be read.
    package static func load(_ device: OpenCLDevice, in cache: ProgramCache) -> ProductTuning? {
        guard let data = cache.folder.read(name(device)),
            let found = try? JSONDecoder().decode(ProductTuning.self, from: data)
        else { return nil }
        let empty = ProductTuning(device)
        guard found.version == empty.version, found.device == empty.device, found.driver == empty.driver,
            found.platform == empty.platform
        else { return nil }
        return found
    }

    /// Writes the file, whole or not at all. Returns whether it could.
    @discardableResult
    package func store(for device: OpenCLDevice, in cache: ProgramCache) -> Bool {
        let encoder = JSONEncoder()
        encoder.outputFormatting = [.prettyPrinted, .sortedKeys, .withoutEscapingSlashes]
        guard let data = try? encoder.encode(self) else { return false }
        return cache.folder.write(ProductTuning.name(device), data)
    }
}
