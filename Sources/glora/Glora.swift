import ArgumentParser
import CProcessor
import Checkpoints
import Foundation
import OpenCLBackend
import Yams

@main
struct Glora: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "glora",
        abstract: "Fine-tunes vision transformers with GLoRA on any OpenCL device or the CPU.",
        discussion: """
            Example:
              glora train --model vit_base --data vtab-1k/cifar --run runs/cifar
              glora eval --run runs/cifar --split test
              glora merge --run runs/cifar --output cifar.safetensors

            glora --version --json says the commit, the build and the precisions, too.
            """,
        version: Version().version,
        subcommands: [
            Train.self, FindRate.self, Search.self, Finetune.self, Convert.self, Inspect.self, Ablate.self,
            Report.self, Evaluate.self, Predict.self, Preview.self, Merge.self,
            Devices.self,
            Selftest.self, Doctor.self,
            Bench.self,
            Tune.self,
            SweepCommand.self, Compare.self, Shift.self, VTAB.self, FewShot.self,
            Pretrain.self, Demo.self, Probe.self, CellProcess.self,
        ])

    /// The command line, with the settings of its `--config` file in that file's place.
    nonisolated(unsafe) private(set) static var arguments: [String] = []

    /// Parses the command line, with the settings of a `--config` file put before its flags so that the flags win.
    static func main() {
        // A reader that left and a limit on file sizes are errors of a write, no reason to die in the middle of a run.
        signal(SIGPIPE, SIG_IGN)
        signal(SIGXFSZ, SIG_IGN)
        // A ViT-S that only infers took 180 MB on PoCL in place of 144 while its checkpoint's tensors stayed in the heap.
        return_freed_memory()
        Console.openClosedStreams()
        CacheFolder.say = { Console(isJSON: true).note($0) }
        do {
            arguments = try expandConfig(Array(CommandLine.arguments.dropFirst()))
            if Set(arguments) == ["--version", "--json"] {
                try Console(isJSON: true).result(Version(), schema: "glora.version/1")
            } else {
                var command = try parseAsRoot(arguments)
                try command.run()
            }
        } catch {
            Console.exit(error)
        }
        Console.exit(nil)
    }

    /// `--config FILE`: the file's `key: value` pairs as `--key value`, right after the subcommand. A sweep's file is more than flags,
    /// and read by that command.
    static func expandConfig(_ arguments: [String]) throws -> [String] {
        // What follows -- is another command line.
        let own = arguments.prefix { $0 != "--" }
        guard own.first != SweepCommand.configuration.commandName,
            let index = own.firstIndex(where: { $0 == "--config" || $0.hasPrefix("--config=") })
        else {
            return arguments
        }
        let isJoined = arguments[index] != "--config"
        guard isJoined || index + 1 < arguments.count else {
            throw ValidationError("--config needs a YAML file")
        }
        let file = isJoined ? String(arguments[index].dropFirst(9)) : arguments[index + 1]
        var rest = arguments
        rest.removeSubrange(index...(isJoined ? index : index + 1))
        let flags = try configFlags(file)
        return Array(rest.prefix(1)) + flags + Array(rest.dropFirst())
    }

    private static func configFlags(_ file: String) throws -> [String] {
        guard let bytes = try? fileContents(of: URL(fileURLWithPath: file), limit: 2 << 20),
            let text = String(validating: bytes, as: UTF8.self)
        else {
            throw ValidationError("--config \(file) can't be read; give a YAML file of flags")
        }
        let node: Node?
        do { node = try Yams.compose(yaml: text) } catch {
            // The parser's message goes on with a picture of the place; its first line says what and where.
            let reason = ("\(error)".split(separator: "\n").first ?? "")
                .trimmingCharacters(in: CharacterSet(charactersIn: ":"))
            throw ValidationError("--config \(file) is not YAML (\(reason)); write lines such as 'lr: 0.001'")
        }
        guard let mapping = node?.mapping else {
            throw ValidationError("--config \(file) must hold lines such as 'lr: 0.001'")
        }
        // A run's config.yaml keeps the settings under `options`, beside its hashes.
        let settings = mapping["options"]?.mapping ?? mapping
        return try settings.flatMap { key, value -> [String] in
            guard let key = key.string else { throw ValidationError("\(file): a key is not a word") }
            if let isOn = value.bool { return [isOn ? "--\(key)" : "--no-\(key)"] }
            if let list = value.sequence {
                return ["--\(key)=" + list.map { $0.string ?? "" }.joined(separator: ",")]
            }
            guard let word = value.string else { throw ValidationError("\(file): '\(key)' is not a value") }
            return ["--\(key)=\(word)"]
        }
    }
}
