import Foundation
import Synchronization
import TensorCore
import Testing

@testable import CPUBackend

@Suite("Threads decide how fast the CPU computes, never what") struct ThreadTests {
    @Test(
        "Products that are cut into as many parts have the same bits, whoever computes them",
        arguments: [1, 2, 3, 8])
    func bitsDoNotDependOnThreads(parts: Int) throws {
        let backends = try [1, 2, 5].map { try CPUBackend(threads: $0, parts: parts) }
        var random = Random(7, "threads")
        for round in 0..<30 {
            let (m, n, k) = (
                1 + random.index(below: 200), 1 + random.index(below: 200), 1 + random.index(below: 300)
            )
            let (transposeA, transposeB) = (round & 1 == 1, round & 2 == 2)
            let a = (0..<m * k).map { _ in Float(random.normal()) }
            let b = (0..<k * n).map { _ in Float(random.normal()) }
            let results = try backends.map { backend in
                let c = try backend.allocate([m, n], .float32)
                backend.fill(c, .nan)
                backend.matmul(
                    c, try backend.tensor(HostTensor(shape: transposeA ? [k, m] : [m, k], values: a)),
                    try backend.tensor(HostTensor(shape: transposeB ? [n, k] : [k, n], values: b)),
                    transposeA: transposeA, transposeB: transposeB, accumulate: false)
                return backend.values(c).map(\.bitPattern)
            }
            for result in results.dropFirst() {
                #expect(result == results[0], "\(m) \(n) \(k) round \(round)")
            }
        }
    }

    @Test("Every index is worked on once, also when two threads use one backend") func everyIndexOnce() throws
    {
        nonisolated(unsafe) let backend = try CPUBackend(threads: 4)
        let counts = (0..<4).map { _ in UnsafeMutablePointer<Int>.allocate(capacity: 1000) }
        defer { for count in counts { count.deallocate() } }
        nonisolated(unsafe) let unsafeCounts = counts
        DispatchQueue.concurrentPerform(iterations: 4) { caller in
            let count = unsafeCounts[caller]
            count.update(repeating: 0, count: 1000)
            for _ in 0..<200 {
                backend.parallel(1000, grain: 7) { range in for index in range { count[index] += 1 } }
            }
        }
        for count in counts { #expect((0..<1000).allSatisfy { count[$0] == 200 }) }
    }

    /// A closure's values are gone when the call returns: nothing of it is held by a thread that wakes late.
    @Test("A closure's values are gone when the call returns") func nothingIsHeld() throws {
        final class Witness: Sendable {}
        let pool = ThreadPool(4)
        weak var seen: Witness?
        for _ in 0..<2000 {
            let witness = Witness()
            seen = witness
            pool.run(on: 4) { _ = ObjectIdentifier(witness) }
        }
        #expect(seen == nil && pool.count == 4)
    }
}

@Suite("The limits of containers and batch systems") struct ProcessLimitsTests {
    private func groups(_ text: String, _ files: [String: String]) throws -> ControlGroups {
        let mount = FileManager.default.temporaryDirectory
            .appendingPathComponent("groups-\(UUID().uuidString)")
        for (name, content) in files {
            let file = mount.appendingPathComponent(name)
            try FileManager.default.createDirectory(
                at: file.deletingLastPathComponent(), withIntermediateDirectories: true)
            try (content + "\n").write(to: file, atomically: true, encoding: .utf8)
        }
        return ControlGroups(mount: mount.path, groups: text)
    }

    @Test("Version 2 of control groups: the least of a group's limits and of those around it counts")
    func version2() throws {
        let groups = try groups(
            "0::/jobs/7\n",
            [
                "jobs/7/memory.max": "max", "jobs/memory.max": "3000000000",
                "jobs/7/cpu.max": "150000 100000",
                "jobs/cpu.max": "max 100000",
            ])
        #expect(groups.memoryByteCount == 3_000_000_000 && groups.processorCount == 2)
    }

    @Test("Version 1 of control groups: the group around may allow less than its member") func version1()
        throws
    {
        let groups = try groups(
            "4:memory:/jobs/7\n3:cpu,cpuacct:/jobs\n0::/\n",
            [
                "memory/jobs/7/memory.limit_in_bytes": "9223372036854771712",
                "memory/jobs/memory.limit_in_bytes": "2000000000",
                "cpu,cpuacct/jobs/cpu.cfs_quota_us": "50000", "cpu,cpuacct/jobs/cpu.cfs_period_us": "100000",
                "cpu,cpuacct/cpu.cfs_quota_us": "-1", "cpu,cpuacct/cpu.cfs_period_us": "100000",
            ])
        #expect(groups.memoryByteCount == 2_000_000_000 && groups.processorCount == 1)
    }

    @Test("In a container its own root counts, while the path is the machine's outside") func container()
        throws
    {
        let groups = try groups(
            "4:memory:/docker/abc\n", ["memory/memory.limit_in_bytes": "1000000000"])
        #expect(groups.memoryByteCount == 1_000_000_000 && groups.processorCount == nil)
        #expect(try self.groups("0::/x\n", ["unified/memory.max": "500"]).memoryByteCount == 500)
    }

    @Test("Where nothing is said of groups there is no limit of theirs") func nothingSaid() throws {
        for text in ["", "nonsense", "0::", ":::\n::", "0::/a/../../../..\n"] {
            let groups = try groups(text, [:])
            #expect(groups.memoryByteCount == nil && groups.processorCount == nil, "\(text)")
        }
        #expect(ProcessLimits.processorCount >= 1 && ProcessLimits.memoryByteCount > 1 << 20)
    }
}
