import Foundation
import Testing

/// Under a batch system's limits a command works or says what it lacks; it never waits for ever. (`Glora` ends what runs for a minute.)
@Suite("Under a batch system's limits")
struct LimitTests {
    /// In KiB, from where the program can't even start to where it is happy.
    @Test(
        "With little address space a training ends well or with a sentence",
        arguments: [180_000, 240_000, 300_000, 360_000, 420_000, 500_000, 700_000])
    func addressSpace(kibibytes: Int) throws {
        try Fixture.withFolder { folder in
            let outcome = try Glora.run(
                Fixture.train("new") + ["--epochs", "1"], in: folder, setup: "ulimit -v \(kibibytes);")
            if outcome.exitCode == 0 { return }
            #expect(outcome.exitCode == 1, "signal \(outcome.signal ?? 0)\n\(outcome.errors)")
            let sentence = try #require(outcome.sentence, "\(outcome.errors)")
            #expect(
                sentence.contains("ulimit -v") || sentence.contains("memory"), "\(sentence)")
        }
    }

    @Test("Half a gigabyte of address space is enough for a small model")
    func enough() throws {
        try Fixture.withFolder { folder in
            let outcome = try Glora.run(
                ["eval", "--run", "run", "--data", "task", "--device", "cpu"], in: folder,
                setup: "ulimit -v 600000;"
            )
            #expect(outcome.exitCode == 0, "\(outcome.errors)")
        }
    }

    /// Threads and processes count together, and root has no such limit: as another user then.
    @Test(
        "Where no thread may be started, training works without; where no process may, a comparison says so")
    func processes() throws {
        try Fixture.withFolder { folder in
            for name in ["model", "task"] { try Fixture.own(name, in: folder) }
            let isRoot = geteuid() == 0
            if isRoot { for path in [folder.path] { chmod(path, 0o777) } }
            let alone =
                isRoot ? "setpriv --reuid=54321 --clear-groups prlimit --nproc=1" : "prlimit --nproc=1"
            let environment = ["HOME": folder.path, "GLORA_CACHE": folder.path + "/cache"]
            let trained = try Glora.run(
                Fixture.train("new"), in: folder, environment: environment, prefix: alone)
            #expect(trained.exitCode == 0, "signal \(trained.signal ?? 0)\n\(trained.errors)")
            #expect(trained.output.contains("cpu (1 thread"))
            let compared = try Glora.run(
                [
                    "compare", "--model", "model", "--data", "task", "--methods", "linear", "--seeds", "1",
                    "--epochs", "1", "--device", "cpu", "--output", "compared",
                ], in: folder, environment: environment, prefix: alone)
            #expect(compared.exitCode == 1, "signal \(compared.signal ?? 0)\n\(compared.errors)")
            #expect(compared.sentence?.contains("ulimit -u") == true, "\(compared.errors)")
        }
    }

    @Test("Threads follow the processors that the process may use")
    func affinity() throws {
        let folder = FileManager.default.temporaryDirectory
        let first = try Glora.run(["devices"], in: folder, prefix: "taskset -c 0")
        #expect(first.output.hasPrefix("cpu        cpu (1 thread,"), "\(first.output)\(first.errors)")
    }

    /// Where this process may make control groups, as root may on most machines; what their files say is tested besides.
    @Test("Memory and threads follow the control group")
    func controlGroup() throws {
        let name = "glora-test-\(getpid())"
        let folders = ["/sys/fs/cgroup/memory", "/sys/fs/cgroup/cpu", "/sys/fs/cgroup"].map {
            $0 + "/" + name
        }
        let settings = [
            ("memory.limit_in_bytes", "1073741824"), ("cpu.cfs_quota_us", "50000"),
            ("memory.max", "1073741824"),
            ("cpu.max", "50000 100000"),
        ]
        var (hasMemory, hasProcessors) = (false, false)
        var made: [String] = []
        defer { for folder in made { rmdir(folder) } }
        for folder in folders where mkdir(folder, 0o755) == 0 {
            // Beside version 1's mounts there is a plain folder.
            guard FileManager.default.fileExists(atPath: folder + "/cgroup.procs") else {
                rmdir(folder)
                continue
            }
            made.append(folder)
            for (file, value) in settings {
                guard let handle = FileHandle(forWritingAtPath: "\(folder)/\(file)"),
                    (try? handle.write(contentsOf: Data(value.utf8))) != nil
                else { continue }
                if file.hasPrefix("memory") { hasMemory = true } else { hasProcessors = true }
            }
        }
        let enter = made.map { "echo $$ > \($0)/cgroup.procs;" }.joined()
        let json = try Glora.run(
            ["devices", "--json"], in: FileManager.default.temporaryDirectory, setup: enter
        ).json()
        let device = try #require(json["devices"]?.arrayValue?.first)
        let (bytes, threads) = (try device.number("memoryBytes"), try device.number("computeUnits"))
        #expect(hasMemory ? (900_000_000..<1_073_741_824).contains(bytes) : bytes > 0)
        #expect(hasProcessors ? threads == 1 : threads >= 1)
    }
}
