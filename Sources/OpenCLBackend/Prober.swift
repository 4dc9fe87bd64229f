import Foundation
import TensorCore

/// Tries in a process of its own what a driver may abort, hang or compute nonsense at, so that it costs an engine or a width,
/// never a training run, and keeps the verdicts for the device, its driver and these kernels.
public struct Prober: Sendable {
    /// The process's prober. Without one nothing is tried beforehand, and everything taken for proven; a backend checks its
    /// engines' products in any case.
    nonisolated(unsafe) public static var shared: Prober?

    /// The program whose command `probe` tries: `glora` names itself.
    let executable: URL
    /// Hears what takes long.
    let say: @Sendable (String) -> Void

    /// A prober that starts `executable probe …`, and tells `say` when a trial takes long or a width fails.
    public init(_ executable: URL, say: @escaping @Sendable (String) -> Void) {
        (self.executable, self.say) = (executable, say)
    }

    /// What is tried.
    enum Trial {
        /// An engine's products in a precision.
        case engine(MatrixEngine, Precision)
        /// The kernels of a precision in a layout, without any engine.
        case kernels(KernelLayout, Precision)

        /// The command's options.
        fileprivate var options: [String] {
            switch self {
            case .engine(let engine, let precision):
                ["--engine", "\(engine.rawValue)", "--precision", precision.rawValue]
            case .kernels(let layout, let precision):
                [
                    "--width", "\(layout.width)", "--local", "\(layout.local)", "--precision",
                    precision.rawValue,
                ]
            }
        }

        /// Seconds. PoCL 3.0 compiles the kernels at width 16 for 280 s on a Zen 5 before it aborts, rusticl for 160 s; an
        /// engine's are few.
        fileprivate var limit: Double { if case .kernels = self { 600 } else { 300 } }
    }

    /// How a process ended.
    enum Ending: Equatable {
        /// With this status.
        case exit(Int32)
        /// By a signal that it raised itself.
        case crash(Int32)
        /// Ended from outside, by us when its time was up, or never started: that says nothing about what it tried.
        case cutShort
    }

    /// What came of a trial.
    package enum Verdict: String {
        /// The device's results are right.
        case right
        /// They are wrong, or the driver crashed.
        case wrong
        /// The driver says that it can't compile the kernels.
        case refused

        /// The status that a command `probe` ends with. Another means that it couldn't try.
        package var status: Int32 {
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
        let key = ProgramCache.key(
            source: source, options: trial.options.joined(separator: " "), device: device)
        return "probe-\(Digest.of(Data(key.utf8))).txt"
    }

    /// The verdict that is kept, or that of a process which tries it now; nil when that was cut short or couldn't try.
    func verdict(
        on trial: Trial, _ device: OpenCLDevice, _ source: String, _ cache: ProgramCache
    ) -> Verdict? {
        if let verdict = Prober.verdict(on: trial, device, source, cache) { return verdict }
        let ending = Prober.run(
            executable, ["probe", "--device", "opencl:\(device.index)"] + trial.options, within: trial.limit
        ) {
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
                + "update the driver, or use another --device.")
    }

    /// Runs a process for so many seconds at most; `onLong` is called when it takes longer than three.
    static func run(
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

extension KernelLayout {
    /// This layout, then those of narrower registers, of CPU devices.
    var andNarrower: [KernelLayout] {
        guard local == 1 else { return [self] }
        return [16, 8, 4].filter { $0 <= width }.map { KernelLayout(width: $0, local: 1) }
    }
}

extension OpenCLBackend {
    /// Whether a device computes products right with the kernels of a precision in a layout, without any engine: what a probe
    /// asks. Leaves the program in the cache. Throws `BackendError`.
    package static func isRight(
        _ device: OpenCLDevice, _ layout: KernelLayout, _ precision: Precision,
        source: String = KernelSource.whole, cache: ProgramCache = ProgramCache()
    ) throws -> Bool {
        let backend = try OpenCLBackend(
            device: device, layout: layout, precision: precision, engines: [], source: source, cache: cache)
        let isRight = try backend.productsAreRight(backend.ownKernel)
        try backend.checkForFailure()  // a device without memory, say, is no verdict
        return isRight
    }
}
