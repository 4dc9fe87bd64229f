import Foundation
import TensorCore

/// Tries something in a process of its own, for `Prober`: which program that is, is not the drivers' business.
public protocol TrialRunner: Sendable {
    /// Runs the trial on the device, for `trial.limit` seconds at most, and calls `onLong` when it takes longer than three. The
    /// process ends with the status of a `Prober.Verdict`, or another when it couldn't try.
    func run(_ trial: Prober.Trial, on device: OpenCLDevice, onLong: () -> Void) -> Prober.Ending
}

/// Tries in a process of its own what a driver may abort, hang or compute nonsense at, so that it costs an engine or a width,
/// never a training run, and keeps the verdicts for the device, its driver and these kernels.
public struct Prober: Sendable {
    private let runner: any TrialRunner
    /// Hears what takes long.
    let say: @Sendable (String) -> Void

    /// A prober that tells `say` when a trial takes long or a width fails.
    public init(_ runner: any TrialRunner, say: @escaping @Sendable (String) -> Void) {
        (self.runner, self.say) = (runner, say)
    }

    /// What is tried.
    public enum Trial: Sendable, CustomStringConvertible {
        /// An engine's products in a precision.
        case engine(MatrixEngine, Precision)
        /// The kernels of a precision in a layout, without any engine.
        case kernels(KernelLayout, Precision)

        /// What names its verdict.
        public var description: String {
            switch self {
            case .engine(let engine, let precision): "engine \(engine.rawValue), \(precision.rawValue)"
            case .kernels(let layout, let precision):
                "width \(layout.width), local \(layout.local), \(precision.rawValue)"
            }
        }

        /// Seconds. PoCL 3.0 compiles the kernels at width 16 for 280 s on a Zen 5 before it aborts, rusticl for 160 s; an
        /// engine's are few.
        public var limit: Double { if case .kernels = self { 600 } else { 300 } }
    }

    /// How a process ended.
    public enum Ending: Equatable, Sendable {
        /// With this status.
        case exit(Int32)
        /// By a signal that it raised itself.
        case crash(Int32)
        /// Ended from outside, by us when its time was up, or never started: that says nothing about what it tried.
        case cutShort
    }

    /// What came of a trial.
    public enum Verdict: String, Sendable {
        /// The device's results are right.
        case right
        /// They are wrong, or the driver crashed.
        case wrong
        /// The driver says that it can't compile the kernels.
        case refused

        /// The status that a trial's process ends with.
        public var status: Int32 {
            switch self {
            case .right: 0
            case .wrong: 3
            case .refused: 4
            }
        }
    }

    /// The verdict that is kept; nil for none.
    static func verdict(
        on trial: Trial, _ device: OpenCLDevice, _ source: String, _ cache: ProgramCache
    ) -> Verdict? {
        cache.folder.read(name(trial, device, source)).flatMap {
            Verdict(rawValue: String(decoding: $0, as: UTF8.self).trimmingCharacters(in: .newlines))
        }
    }

    /// The file that keeps a verdict.
    private static func name(_ trial: Trial, _ device: OpenCLDevice, _ source: String) -> String {
        let key = ProgramCache.key(source: source, options: "\(trial)", device: device)
        return "probe-\(Digest.of(Data(key.utf8))).txt"
    }

    /// The verdict that is kept, or that of a process which tries it now; nil when that was cut short or couldn't try.
    func verdict(
        on trial: Trial, _ device: OpenCLDevice, _ source: String, _ cache: ProgramCache
    ) -> Verdict? {
        if let verdict = Prober.verdict(on: trial, device, source, cache) { return verdict }
        let ending = runner.run(trial, on: device) {
            say(
                "\(device) compiles its kernels for the first time, which can take minutes; what it makes is kept in "
                    + cache.folder.url.path)
        }
        let verdict: Verdict
        switch ending {
        case .exit(Verdict.right.status): verdict = .right
        case .exit(Verdict.refused.status): verdict = .refused
        case .exit(Verdict.wrong.status), .crash: verdict = .wrong
        default: return nil
        }
        // A driver that gets no memory may fail at kernels that it can compile: that is no verdict for ever.
        if verdict == .right || !Prober.isLimited {
            cache.folder.write(Prober.name(trial, device, source), Data("\(verdict)\n".utf8))
        }
        return verdict
    }

    /// Whether the address space is limited.
    private static var isLimited: Bool { ProcessLimits.addressSpaceLeft != nil }

    /// The widest layout that the device's driver can compile the kernels for and is right with: what it states, or narrower.
    /// When nothing could be tried, what it states. Throws `BackendError.driver` when every width was tried and failed. A driver
    /// that refuses even the narrowest is left to say why when that is built.
    func layout(for device: OpenCLDevice, _ source: String, _ cache: ProgramCache) throws -> KernelLayout {
        let stated = KernelLayout(for: device)
        var verdicts: [Verdict?] = []
        for layout in stated.andNarrower {
            let trial = Trial.kernels(layout, .float32)
            let isKnown = Prober.verdict(on: trial, device, source, cache) != nil
            verdicts.append(verdict(on: trial, device, source, cache))
            if verdicts.last == .right { return layout }
            if !isKnown, verdicts.last == .wrong {
                say("the driver of \(device) fails at kernels of width \(layout.width)")
            }
        }
        if verdicts.contains(nil) { return stated }
        if verdicts.last == .refused { return stated.andNarrower.last! }
        throw BackendError.driver(
            "the kernels can't be compiled on \(device), driver \(device.driverVersion), or give wrong results (tried at the "
                + "widths \(stated.andNarrower.map { "\($0.width)" }.joined(separator: ", ")); the verdicts are in "
                + "\(cache.folder.url.path)): "
                + (Prober.isLimited ? "raise the limit of the address space (ulimit -v, -d), " : "")
                + "update the driver, or use another `device`.")
    }

    /// Runs a process for so many seconds at most; `onLong` is called when it takes longer than three.
    public static func run(
        _ executable: URL, _ arguments: [String], within seconds: Double, onLong: () -> Void = {}
    ) -> Ending {
        guard let process = try? ChildProcess(executable.path, arguments, isSilent: true) else {
            return .cutShort
        }
        var ending = process.wait(seconds: min(3, seconds))
        if ending == nil, seconds > 3 {
            onLong()
            ending = process.wait(seconds: seconds - 3)
        }
        switch ending {
        case .exit(let status): return .exit(status)
        case .signal(let signal):
            return [SIGINT, SIGTERM, SIGHUP, SIGKILL].contains(signal) ? .cutShort : .crash(signal)
        case nil:
            kill(process.id, SIGKILL)
            _ = process.wait()
            return .cutShort
        }
    }
}

extension Prober.Trial {
    /// Tries it in this process: what the one that a `TrialRunner` starts does. Throws `BackendError` where it couldn't be tried.
    public func verdict(on device: OpenCLDevice) throws -> Prober.Verdict {
        do {
            let isRight =
                switch self {
                case .engine(let engine, let precision):
                    try OpenCLBackend(device: device, precision: precision, trying: engine).engine == engine
                case .kernels(let layout, let precision):
                    try OpenCLBackend.isRight(device, layout, precision)
                }
            return isRight ? .right : .wrong
        } catch BackendError.build { return .refused }
    }
}

extension KernelLayout {
    /// This layout, then those of narrower registers, of CPU devices.
    var andNarrower: [KernelLayout] {
        guard local == 1 else { return [self] }
        return [16, 8, 4].filter { $0 <= width }.map { KernelLayout(width: $0, local: 1) }
    }
}
