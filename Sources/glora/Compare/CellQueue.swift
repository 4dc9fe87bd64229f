import ArgumentParser
import Checkpoints
import Experiments
import Foundation
import TensorCore
import Training

/// A base that cells train, without its tensors.
struct KnownBase {
    let checkpoint: ViTCheckpoint
    let hash: String

    init(_ checkpoint: ViTCheckpoint) {
        hash = contentHash(checkpoint.tensors)
        var known = checkpoint
        known.tensors = [:]
        self.checkpoint = known
    }
}

/// Has cells trained and tested one after the other, each by a process of its own (see `CellProcess`). What was done before is
/// read, what was begun goes on.
final class CellQueue {
    /// How many trainings there are in all, and how many are done.
    var count = 0
    private(set) var done = 0
    private let state: RunState
    private let continuation: String
    private let base: (Cell) throws -> KnownBase
    private let console: Console

    /// The cells of a command; `base` says what a cell trains.
    init(_ command: some CellsCommand, _ console: Console, base: @escaping (Cell) throws -> KnownBase) {
        (state, continuation) = (command.scoredState, command.continuation)
        (self.console, self.base) = (console, base)
    }

    /// What is there of a cell; see `Cell.result`.
    func result(of cell: Cell) throws -> CellResult? {
        let base = try base(cell)
        return try cell.result(
            checkpoint: state, baseHash: base.hash, configuration: base.checkpoint.configuration)
    }

    /// Counts trainings that are not needed.
    func skip(_ count: Int) { done += count }

    /// A cell's result, at least as far as `stage`. Throws `ExitCode.stopped` when the user stopped it.
    func take(_ cell: Cell, to stage: CellStage, counts: Bool = true) throws -> CellResult {
        let title = "[\(done + (counts ? 1 : 0))/\(count)] \(cell.label)"
        let before = try result(of: cell)
        if let before {
            if counts { console.say("\(title): done before") }
            let isThere =
                (stage == .trained || cell.isTested(before))
                && (stage != .measured || before.inference != nil)
            if isThere {
                if counts { done += 1 }
                return before
            }
        }
        if Interrupt.wasRequested { throw ExitCode.stopped }
        if before == nil, cell.directory.holdsRun { console.say("\(title): going on") }
        try start(cell, until: stage, title)
        guard let result = try result(of: cell) else {
            throw TrainingError.run(
                "\(cell.folder.path) holds no result.json any more; give the same command again")
        }
        if counts { done += 1 }
        return result
    }

    /// Runs a cell's process to its end. Throws its exit code when that isn't 0.
    private func start(_ cell: Cell, until stage: CellStage, _ title: String) throws {
        let ending: ChildProcess.Ending
        do {
            ending = try Interrupt.run {
                // The link leads to this very program even when its file has been replaced meanwhile. A cell ends when its
                // standard input does; see `CellProcess`.
                try ChildProcess(
                    "/proc/self/exe",
                    ["cell", "--task", cell.task, "--folder", cell.folder.path, "--until", stage.rawValue]
                        + ["--title", title, "--"] + Glora.arguments, holdsInput: true)
            }
        } catch let failure as ChildProcess.StartFailure {
            throw TrainingError.run(
                "\(cell.label): its process can't be started: \(failure); raise the limit on processes (ulimit -u), or free "
                    + "memory, and give the same command again")
        }
        switch ending {
        case .exit(0): break
        case _ where Interrupt.wasRequested: throw ExitCode.stopped
        case .exit(let code): throw ExitCode(code)
        case .signal(let signal):
            console.endProgress()
            throw TrainingError.run(
                "\(cell.label): its process was ended by signal \(signal)"
                    + (signal == SIGKILL ? ", as Linux does when memory runs out" : "")
                    + "; \(continuation) goes on from the last epoch, and with a smaller --batch-size and "
                    + "another --\(cell.folderSetting) takes less memory")
        }
    }
}
