import Checkpoints
import Experiments
import Foundation
import Training

/// Who holds a lock that this command takes: `glora train`.
private var holder: String { "glora " + (Glora.arguments.first ?? "") }

extension RunDirectory {
    /// Keeps the run for this command, before anything of it is read; see `FolderLock`.
    func lock(orGive setting: String? = nil, _ console: Console) throws -> FolderLock {
        try lock(holder: holder, orGive: setting).noted(console)
    }
}

extension Cell {
    /// Keeps the cell for this process, which belongs to the comparison `command`; see `FolderLock`.
    func lock(as command: String, _ console: Console) throws -> [FolderLock] {
        try lock(holder: "glora " + command).map { $0.noted(console) }
    }
}

extension FolderLock {
    /// Keeps the folder that a command writes, `--output` or what `setting` says.
    static func output(
        _ folder: URL, orGive setting: String = "output", _ console: Console
    ) throws -> FolderLock {
        try FolderLock(folder, holder: holder, orGive: setting).noted(console)
    }

    fileprivate func noted(_ console: Console) -> FolderLock {
        if let note { console.note(note) }
        return self
    }
}
