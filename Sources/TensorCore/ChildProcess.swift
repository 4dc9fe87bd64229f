import Foundation

/// A process that this one has started and waits for. (Foundation's `Process` waits for ever for a thread of its own where a limit on
/// processes forbids one.)
package struct ChildProcess {
    /// How it ended.
    package enum Ending: Equatable {
        /// With this status.
        case exit(Int32)
        /// By this signal.
        case signal(Int32)
    }

    /// Why it couldn't be started: the system's code, and its words.
    package struct StartFailure: Error, CustomStringConvertible {
        package let code: Int32
        package var description: String { String(cString: strerror(code)) }
    }

    package let id: pid_t
    /// The other end of its standard input.
    private let input: Int32?

    /// Starts the program at `path`. With `holdsInput` its standard input is open, and empty, until `wait` or until this process ends;
    /// with `isSilent` it reads and writes nothing. With `streams` it reads nothing, writes its standard output and errors to these
    /// files, and leads a group of processes: `kill(-id, …)` reaches those that it has started, too. `variables` are added to its
    /// environment.
    package init(
        _ path: String, _ arguments: [String], holdsInput: Bool = false, isSilent: Bool = false,
        streams: (output: Int32, errors: Int32)? = nil, variables: [String: String] = [:]
    ) throws(StartFailure) {
        var actions = posix_spawn_file_actions_t()
        posix_spawn_file_actions_init(&actions)
        defer { posix_spawn_file_actions_destroy(&actions) }
        var ends: [Int32] = [-1, -1]
        if holdsInput {
            guard pipe(&ends) == 0 else { throw StartFailure(code: errno) }
            for end in ends { _ = fcntl(end, F_SETFD, FD_CLOEXEC) }
            posix_spawn_file_actions_adddup2(&actions, ends[0], 0)
        }
        for stream in isSilent ? 0..<3 : streams == nil ? 0..<0 : 0..<1 as Range<Int32> {
            posix_spawn_file_actions_addopen(
                &actions, stream, "/dev/null", stream == 0 ? O_RDONLY : O_WRONLY, 0)
        }
        var attributes = posix_spawnattr_t()
        posix_spawnattr_init(&attributes)
        defer { posix_spawnattr_destroy(&attributes) }
        if let streams {
            posix_spawn_file_actions_adddup2(&actions, streams.output, 1)
            posix_spawn_file_actions_adddup2(&actions, streams.errors, 2)
            posix_spawnattr_setflags(&attributes, Int16(POSIX_SPAWN_SETPGROUP))
        }
        let environment = ProcessInfo.processInfo.environment.merging(variables) { $1 }
        var words = ([path] + arguments).map { strdup($0) } + [nil]
        var settings = environment.map { strdup("\($0)=\($1)") } + [nil]
        defer { for text in words + settings { free(text) } }
        var id: pid_t = 0
        let code = posix_spawn(&id, path, &actions, &attributes, &words, &settings)
        if holdsInput { close(ends[0]) }
        guard code == 0 else {
            if holdsInput { close(ends[1]) }
            throw StartFailure(code: code)
        }
        self.id = id
        input = holdsInput ? ends[1] : nil
    }

    /// Waits for its end.
    package func wait() -> Ending { ending(options: 0)! }

    /// Waits for its end, for so long at most; nil when it is still running.
    package func wait(seconds: Double) -> Ending? {
        let start = ContinuousClock.now
        while true {
            if let ending = ending(options: WNOHANG) { return ending }
            if start.duration(to: .now) >= .seconds(seconds) { return nil }
            usleep(5000)
        }
    }

    private func ending(options: Int32) -> Ending? {
        var status: Int32 = 0
        var result = waitpid(id, &status, options)
        while result < 0 && errno == EINTR { result = waitpid(id, &status, options) }
        if result == 0 { return nil }
        if let input { close(input) }
        return status & 0x7f == 0 ? .exit(status >> 8 & 0xff) : .signal(status & 0x7f)
    }
}
