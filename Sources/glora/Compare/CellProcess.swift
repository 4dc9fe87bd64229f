import ArgumentParser
import Experiments
import Foundation
import TensorCore
import Training

/// A command that trains cells. Its command line decides every one of them, so the process that trains one is given the same.
protocol CellsCommand: ParsableCommand {
    var common: CommonFlags { get }
    /// Which state of a cell is scored.
    var scoredState: RunState { get }
    /// What goes on where it was stopped, as the subject of a sentence.
    var continuation: String { get }

    /// Every cell of a task that it may come to, and the device that they are trained on.
    func cells(of task: String) throws -> (cells: [Cell], device: DeviceFlags)
}

/// A command that compares methods.
protocol GridCommand: CellsCommand {
    var flags: CellFlags { get }
    var output: String { get }
    /// Of its result.
    static var schema: String { get }

    /// What it trains and tests on; with a name only the task of that name, and no other task's lists are read.
    func tasks(named name: String?) throws -> [GridTask]
}

extension GridCommand {
    var common: CommonFlags { flags.common }
    var scoredState: RunState { flags.checkpoint }
    var continuation: String { "the same command" }

    func cells(of task: String) throws -> (cells: [Cell], device: DeviceFlags) {
        let output = URL(fileURLWithPath: output)
        return (try tasks(named: task).flatMap { try $0.cells(flags, in: output) }, flags.device)
    }
}

/// How far a process takes its cell, each with what is before it.
enum CellStage: String, CaseIterable, ExpressibleByArgument {
    case trained, tested, measured
}

/// What a comparison starts for each cell as a process of its own, so that the memory it takes is that cell's. Exit code 0: what
/// was asked for is in the cell's result.json; `notANumber` is this command's own; others: it has said why on standard error.
struct CellProcess: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "cell", abstract: "Train, test and measure one cell of a comparison.",
        shouldDisplay: false)

    /// The exit code of a rate that was tried in vain: the loss stopped being a number.
    static let notANumber: Int32 = 2

    @Option(help: "The task.")
    var task: String
    @Option(help: "The cell's folder.")
    var folder: String
    @Option(help: "\(CellStage.allCases.map(\.rawValue).joined(separator: ", ")).")
    var until: CellStage
    @Option(help: "What lines about it begin with.")
    var title: String
    @Argument(parsing: .postTerminator, help: "The comparison's command line.")
    var command: [String]

    func run() throws {
        Console.outputCounts = false
        joinParent()
        Interrupt.install()
        guard let command = try Glora.parseAsRoot(command) as? any CellsCommand else {
            throw ValidationError("what follows -- is no command line of a comparison")
        }
        let console = command.common.console
        let (cells, device) = try command.cells(of: task)
        guard let cell = cells.first(where: { $0.folder.path == folder }) else {
            throw ValidationError("the comparison has no cell \(folder)")
        }
        let locks = try cell.lock(as: self.command.first ?? "", console)
        defer { locks.forEach { $0.release() } }
        // The comparison has said what there is to say about the model and the device.
        let backend = try device.backend(
            nil, cell.options.precision, productParts: try cell.begun?.configuration().productParts)
        let runner = CellRunner(
            try cell.options.loadCheckpoint(), scoring: command.scoredState, on: backend,
            continuation: "\(command.continuation) goes on from it",
            deviceBytes: device.isOnHost(backend) ? nil : { backend.heldByteCount })
        var result = try runner.result(of: cell) ?? train(cell, runner, console)
        if until != .trained, !cell.isTested(result) {
            try stopIfAsked()
            result = try runner.test(cell, result)
            let scores = cell.images.tests.map {
                "\($0.name) \((100 * (result.accuracy(on: $0.name) ?? 0)).fixed(1)) %"
            }
            console.say("  \(scores.joined(separator: ", "))")
        }
        if until == .measured, result.inference == nil {
            try stopIfAsked()
            _ = try runner.measureInference(cell, result)
        }
    }

    private func train(_ cell: Cell, _ runner: CellRunner, _ console: Console) throws -> CellResult {
        let result: CellResult?
        do {
            result = try runner.train(
                cell,
                onEvent: { options, event in
                    if case .step(let progress) = event {
                        console.progress(
                            "\(title)  epoch \(progress.epoch + 1)/\(options.epochs)  loss "
                                + "\(progress.loss.fixed(4))  \(progress.imagesPerSecond.fixed(1)) img/s  "
                                + "\(progress.secondsLeft.duration) left")
                    }
                }, shouldStop: { Interrupt.wasRequested })
        } catch TrainingError.notANumber(let step, _) {
            console.endProgress()
            let what = "\(cell.label): the loss is not a number at step \(step)"
            // Of several rates one that fails is no choice, and no error.
            guard until != .trained else {
                console.note("\(what); it is left out")
                throw ExitCode(CellProcess.notANumber)
            }
            throw TrainingError.run(
                "\(what); give a lower --lr and another --output, or --lrs to choose from")
        }
        console.endProgress()
        guard let result else { throw ExitCode.stopped }
        let validation = result.valAccuracy.map { "validation \((100 * $0).fixed(1)) %, " } ?? ""
        console.say("\(title): \(validation)trained in \(result.seconds.duration)")
        return result
    }

    private func stopIfAsked() throws { if Interrupt.wasRequested { throw ExitCode.stopped } }

    /// Makes this process a part of the comparison's: in its group, so that a terminal's Ctrl-C and Ctrl-Z mean both; and ended
    /// when the comparison ends, however it does: that alone holds the other end of standard input, and writes nothing to it.
    private func joinParent() {
        setpgid(0, getpgid(getppid()))
        _ = startThread {
            _ = try? FileHandle.standardInput.readToEnd()
            _exit(1)
        }
    }
}
