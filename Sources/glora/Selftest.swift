import ArgumentParser
import Foundation
import GoldenVectors

struct Selftest: ParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Prove a device: replay what the original authors' code computed.",
        discussion: """
            A small set of vectors is built in. --vectors reads a folder of them
            instead. One line per case; the exit code is 1 when any fails.

            Example:
              glora selftest --device opencl:0
            """)

    @Option(help: "A folder of golden vectors instead of the built-in set.")
    var vectors: String?
    @OptionGroup var device: DeviceFlags
    @OptionGroup var common: CommonFlags

    struct Result: Encodable {
        var passed = 0
        var failed = 0
        var failures: [String] = []
    }

    func run() throws {
        let console = common.console
        let suite = try vectors.map { try GoldenSuite(directory: URL(fileURLWithPath: $0)) } ?? .builtIn()
        let backend = try device.backend(console)
        var counts = Result()
        try suite.run(on: backend) { result in
            switch result.status {
            case .passed:
                counts.passed += 1
                console.say("pass     \(result.name)  \(result.detail)")
            case .failed(let reason):
                counts.failed += 1
                counts.failures.append("\(result.name): \(reason)")
                console.say("FAIL     \(result.name)  \(reason)")
            }
        }
        console.say("\(counts.passed) passed, \(counts.failed) failed")
        try console.result(counts, schema: "glora.selftest/1")
        if counts.failed > 0 { throw ExitCode.failure }
    }
}
