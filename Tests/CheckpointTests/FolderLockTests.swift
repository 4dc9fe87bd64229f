import Foundation
import Testing

@testable import Checkpoints

@Suite("A folder belongs to one process at a time")
struct FolderLockTests {
    private func contents(_ folder: URL) throws -> [String] {
        try FileManager.default.contentsOfDirectory(atPath: folder.path).sorted()
    }

    private func lock(_ folder: URL, parts: [String] = []) throws -> FolderLock {
        try FolderLock(folder, parts: parts, holder: "glora test", orGive: "run")
    }

    @Test("A second process is told who holds the folder")
    func aSecondOneSaysWhoHoldsIt() throws {
        try withTemporaryFolder { folder in
            let held = try lock(folder)
            let text = try #require(message { _ = try lock(folder) })
            #expect(
                text.wholeMatch(
                    of:
                        /.+ is in use by process (\d+) \(glora test\) on \S+ since \d{4}-\d\d-\d\d \d\d:\d\d; wait for it or stop it, or give another `run`/
                )?.1 == "\(getpid())", "\(text)")
            held.release()
            #expect(try contents(folder) == [])
            try lock(folder).release()
        }
    }

    @Test("The lock of a killed process is no obstacle")
    func whatAKilledProcessLeftIsNoObstacle() throws {
        try withTemporaryFolder { folder in
            let file = folder.appendingPathComponent(FolderLock.fileName)
            let old =
                "process 1 (glora train) on another since 1999-12-31 23:59, a longer line than the next one's\n"
            try AtomicFile.write(old, to: file)
            let held = try lock(folder)
            let text = try String(contentsOf: file, encoding: .utf8)
            #expect(text.hasPrefix("process \(getpid()) (glora test) on ") && text.count { $0 == "\n" } == 1)
            held.release()
        }
    }

    @Test("A folder made for the lock goes with it unless something is in it")
    func aFolderThatWasMadeForItGoesUnlessSomethingIsInIt() throws {
        try withTemporaryFolder { folder in
            let run = folder.appendingPathComponent("runs/b")
            try lock(run).release()
            #expect(try contents(folder) == [])
            let held = try lock(run)
            try AtomicFile.write("x", to: run.appendingPathComponent("config.yaml"))
            held.release()
            #expect(try contents(folder.appendingPathComponent("runs/b")) == ["config.yaml"])
            let empty = folder.appendingPathComponent("empty")
            try AtomicFile.createFolder(empty)
            try lock(empty).release()
            #expect(try contents(folder) == ["empty", "runs"])
        }
    }

    /// A holder removes the file, and the folder, at its end: one that opened the file before must not think that it holds it.
    @Test("Of many that want it, one at a time holds the folder")
    func ofManyOneAtATimeHoldsIt() throws {
        try withTemporaryFolder { folder in
            let run = folder.appendingPathComponent("run")
            let claim = folder.appendingPathComponent("claim").path
            nonisolated(unsafe) var (tries, wins, doubles) = (0, 0, 0)
            let count = NSLock()
            DispatchQueue.concurrentPerform(iterations: 8) { _ in
                for _ in 0..<300 {
                    let held = try? lock(run)
                    // Of two holders the second finds the first one's claim.
                    let isDouble = held != nil && mkdir(claim, 0o700) != 0
                    let before = count.withLock {
                        (wins, doubles) = (wins + (held == nil ? 0 : 1), doubles + (isDouble ? 1 : 0))
                        tries += 1
                        return tries
                    }
                    guard let held else { continue }
                    // Others try meanwhile, unless they have done all that they do.
                    for _ in 0..<200 where count.withLock({ tries < before + 4 }) { sched_yield() }
                    rmdir(claim)
                    held.release()
                }
            }
            #expect(wins > 8 && doubles == 0, "\(doubles) of \(wins)")
        }
    }

    /// The folder was removed during the lock, and made again by another process, which holds it now.
    @Test("A lock removes its own file and no other's")
    func onesOwnFileAloneIsRemoved() throws {
        try withTemporaryFolder { folder in
            let first = try lock(folder)
            try FileManager.default.removeItem(at: folder.appendingPathComponent(FolderLock.fileName))
            let second = try lock(folder)
            first.release()
            expectError("is in use") { _ = try lock(folder) }
            second.release()
        }
    }

    @Test("Symbolic links that came with a folder are not followed")
    func linksThatCameWithTheFolderAreNotFollowed() throws {
        try withTemporaryFolder { folder in
            let (run, other) = (folder.appendingPathComponent("run"), folder.appendingPathComponent("other"))
            try AtomicFile.createFolder(run)
            try AtomicFile.createFolder(other)
            let part = run.appendingPathComponent("adapter")
            try FileManager.default.createSymbolicLink(at: part, withDestinationURL: other)
            expectError("adapter is a symbolic link") { _ = try lock(run, parts: ["adapter"]) }
            #expect(try contents(run) == ["adapter"])
            let file = run.appendingPathComponent(FolderLock.fileName)
            let target = other.appendingPathComponent("file")
            try FileManager.default.createSymbolicLink(at: file, withDestinationURL: target)
            expectError("it is a symbolic link, remove it") { _ = try lock(run) }
            #expect(try contents(other) == [])
            // The folder itself is what the user says.
            try lock(part).release()
        }
    }

    @Test("What killed processes left is swept, but not what is being written")
    func whatKilledProcessesLeftIsSweptButNotWhatIsBeingWritten() throws {
        try withTemporaryFolder { folder in
            let part = folder.appendingPathComponent("adapter")
            try AtomicFile.createFolder(part)
            let left = ".last.safetensors.123.1f.tmp"
            for url in [folder, part] {
                for name in [left, ".last.tmp", "a.1.1f.tmp"] {
                    #expect(
                        FileManager.default.createFile(
                            atPath: url.appendingPathComponent(name).path, contents: nil))
                }
            }
            try AtomicFile.write(to: folder.appendingPathComponent("report.html")) { _ in
                try lock(folder, parts: ["adapter"]).release()
            }
            #expect(try contents(folder) == [".last.tmp", "a.1.1f.tmp", "adapter", "report.html"])
            #expect(try contents(part) == [".last.tmp", "a.1.1f.tmp"])
        }
    }

    @Test("Threads that write one file never sweep each other's temporaries")
    func whatIsBeingWrittenIsNeverSwept() throws {
        try withTemporaryFolder { folder in
            let url = folder.appendingPathComponent("a.txt")
            nonisolated(unsafe) var failures: [any Error] = []
            DispatchQueue.concurrentPerform(iterations: 4) { index in
                for number in 0..<200 {
                    guard index == 0 else {
                        AtomicFile.sweep(folder)
                        continue
                    }
                    do { try AtomicFile.write("\(number)", to: url) } catch { failures.append(error) }
                }
            }
            #expect(failures.isEmpty, "\(failures)")
            let left = try contents(folder)
            #expect(left == ["a.txt"])
        }
    }

    @Test("Writing a file sweeps that file's temporaries and no other's")
    func writingAFileSweepsItsOwnTemporaries() throws {
        try withTemporaryFolder { folder in
            for name in [".m.safetensors.123.1f.tmp", ".n.safetensors.123.1f.tmp"] {
                #expect(
                    FileManager.default.createFile(
                        atPath: folder.appendingPathComponent(name).path, contents: nil))
            }
            try AtomicFile.write("x", to: folder.appendingPathComponent("m.safetensors"))
            #expect(try contents(folder) == [".n.safetensors.123.1f.tmp", "m.safetensors"])
        }
    }
}
