import CProcessor
import Foundation

/// What this process may use of the machine. Batch systems and containers often give it less than there is, and a process that
/// takes more is ended, or slowed down.
package enum ProcessLimits {
    /// The processors of its affinity mask, or fewer where a control group's quota is less; at least 1.
    package static var processorCount: Int {
        max(1, min(Int(processor_count_allowed()), ControlGroups().processorCount ?? .max))
    }

    /// Bytes: the least of physical memory, what the control groups' limits leave beside what this process holds already, and what
    /// the address space (`ulimit -v`) has left.
    package static var memoryByteCount: Int {
        let physical = sysconf(Int32(_SC_PHYS_PAGES)) * sysconf(Int32(_SC_PAGESIZE))
        let group = ControlGroups().memoryByteCount.map { max(0, $0 - ResidentMemory.current) }
        // What no plan counts: images on their way, threads' stacks, weights while they are read and written.
        let space = addressSpaceLeft.map { max(0, $0 - 96 << 20) }
        return [physical, group, space].compactMap(\.self).min()!
    }

    /// Bytes that may still be mapped under the limits of the address space (`ulimit -v`) and of data (`ulimit -d`); nil without one.
    package static var addressSpaceLeft: Int? {
        // In pages: everything that is mapped first, data and stack sixth.
        let text = (try? String(contentsOfFile: "/proc/self/statm", encoding: .utf8)) ?? ""
        let pages = text.split(separator: " ").map { Int($0) ?? 0 }
        func left(_ resource: __rlimit_resource, _ field: Int) -> Int? {
            var limit = rlimit()
            guard getrlimit(__rlimit_resource_t(resource.rawValue), &limit) == 0, limit.rlim_cur != .max,
                field < pages.count
            else { return nil }
            return max(0, Int(clamping: limit.rlim_cur) - pages[field] * sysconf(Int32(_SC_PAGESIZE)))
        }
        return [left(RLIMIT_AS, 0), left(RLIMIT_DATA, 5)].compactMap(\.self).min()
    }
}

/// The limits of the control groups that this process is in, of version 1 and 2 of Linux's interface. A group's own limit may be more
/// than that of a group around it, so all are asked up to the root.
///
/// In a container, `/proc/self/cgroup` may name a path of the machine outside, of which only the root is there to be asked.
package struct ControlGroups {
    /// Where the groups' file systems are mounted.
    private let mount: String
    /// Lines such as `4:memory:/jobs/7`, or `0::/jobs/7` for version 2.
    private let groups: String

    package init(
        mount: String = "/sys/fs/cgroup",
        groups: String? = try? String(contentsOfFile: "/proc/self/cgroup", encoding: .utf8)
    ) {
        self.mount = mount
        self.groups = groups ?? ""
    }

    /// Bytes; nil without a limit.
    package var memoryByteCount: Int? {
        let limits =
            values("memory", "memory.limit_in_bytes", unified: "memory.max").compactMap { Int($0) }
        return limits.filter { $0 > 0 }.min()
    }

    /// Processors, rounded up: half of one is one thread; nil without a limit.
    package var processorCount: Int? {
        let unified = values(nil, nil, unified: "cpu.max").map { text -> (Int?, Int?) in
            let words = text.split(separator: " ").map { Int($0) }
            return words.count == 2 ? (words[0], words[1]) : (nil, nil)
        }
        let quotas = values("cpu", "cpu.cfs_quota_us").map { Int($0) }
        let periods = values("cpu", "cpu.cfs_period_us").map { Int($0) }
        return (unified + zip(quotas, periods)).compactMap { quota, period in
            guard let quota, let period, quota > 0, period > 0 else { return nil }
            return (quota - 1) / period + 1
        }.min()
    }

    /// What the files of the groups say, from the innermost to the root.
    private func values(_ controller: String?, _ file: String?, unified: String? = nil) -> [String] {
        groups.split(separator: "\n").flatMap { line -> [String] in
            let parts = line.split(separator: ":", maxSplits: 2, omittingEmptySubsequences: false)
            guard parts.count == 3 else { return [] }
            let folders: [String]
            let name: String
            if parts[1].isEmpty {
                guard let unified else { return [] }
                (folders, name) = ([mount, mount + "/unified"], unified)
            } else {
                guard let controller, let file, parts[1].split(separator: ",").contains(Substring(controller))
                else { return [] }
                (folders, name) = (["\(mount)/\(parts[1])", "\(mount)/\(controller)"], file)
            }
            var path = parts[2].split(separator: "/")
            var found: [String] = []
            while true {
                let place = path.map { "/" + $0 }.joined() + "/" + name
                let text = folders.lazy.compactMap {
                    try? String(contentsOfFile: $0 + place, encoding: .utf8)
                }
                if let text = text.first {
                    found.append(text.trimmingCharacters(in: .whitespacesAndNewlines))
                }
                if path.popLast() == nil { return found }
            }
        }
    }
}
