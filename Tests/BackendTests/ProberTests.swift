import Foundation
import TensorCore
import TestSupport
import Testing

@testable import OpenCLBackend

/// Starts a program for a trial, with a layout's width and work-items where it is of one.
private struct Script: TrialRunner {
    let program: URL

    func run(_ trial: Prober.Trial, on device: OpenCLDevice, onLong: () -> Void) -> Prober.Ending {
        var arguments: [String] = []
        if case .kernels(let layout, _) = trial { arguments = ["\(layout.width)", "\(layout.local)"] }
        return Prober.run(program, arguments, within: trial.limit, onLong: onLong)
    }
}

/// What is tried in a process of its own, and which verdicts are kept.
@Suite("What is tried in a process of its own") struct ProberTests {
    /// A prober that starts a script of the shell, and a cache in the same folder.
    private func withProber(_ body: (_ script: (String) throws -> Prober, ProgramCache, URL) throws -> Void)
        throws
    {
        let folder = FileManager.default.temporaryDirectory
            .appendingPathComponent("swift-glora-\(UInt64.random(in: 0 ... .max))")
        try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
        defer { try? FileManager.default.removeItem(at: folder) }
        let program = folder.appendingPathComponent("program")
        try body(
            { script in
                try "#!/bin/sh\n\(script)\n".write(to: program, atomically: true, encoding: .utf8)
                try FileManager.default.setAttributes([.posixPermissions: 0o755], ofItemAtPath: program.path)
                return Prober(Script(program: program)) { _ in }
            }, ProgramCache(directory: folder.appendingPathComponent("cache")), program)
    }

    private func verdicts(_ cache: ProgramCache) -> Int {
        ((try? FileManager.default.contentsOfDirectory(atPath: cache.folder.url.path)) ?? []).count
    }

    @Test("A process that was ended from outside, or never began, says nothing of what it tried")
    func endings() {
        func ending(_ script: String, within seconds: Double = 20) -> Prober.Ending {
            Prober.run(URL(fileURLWithPath: "/bin/sh"), ["-c", script], within: seconds)
        }
        #expect(ending("exit 0") == .exit(0) && ending("exit 3") == .exit(3))
        #expect(ending("kill -ILL $$") == .crash(SIGILL) && ending("kill -SEGV $$") == .crash(SIGSEGV))
        #expect(ending("kill -KILL $$") == .cutShort)
        #expect(ending("exec sleep 30", within: 0.2) == .cutShort)
        #expect(Prober.run(URL(fileURLWithPath: "/nowhere/glora"), [], within: 20) == .cutShort)
    }

    @Test("Only a process that tried leaves a verdict, and one is enough")
    func verdictsThatAreKept() throws {
        try OpenCLTests.withDevice { device in
            let trials: [(String, Prober.Verdict)] = [
                ("exit 0", .right), ("exit 3", .wrong), ("exit 4", .refused), ("kill -SEGV $$", .wrong),
            ]
            for (script, verdict) in trials {
                try withProber { prober, cache, program in
                    let trial = Prober.Trial.engine(.amx, .bfloat16)
                    for unsure in ["exit 1", "exit 64", "kill -KILL $$"] {
                        let none = try prober(unsure).verdict(on: trial, device, "source", cache)
                        #expect(none == nil)
                        #expect(
                            Prober.verdict(on: trial, device, "source", cache) == nil && verdicts(cache) == 0)
                    }
                    let last = try prober(script)
                    #expect(last.verdict(on: trial, device, "source", cache) == verdict)
                    try FileManager.default.removeItem(at: program)
                    #expect(last.verdict(on: trial, device, "source", cache) == verdict)
                    // Other kernels, another precision and another engine are other trials.
                    #expect(last.verdict(on: trial, device, "source ", cache) == nil)
                    #expect(last.verdict(on: .engine(.amx, .float16), device, "source", cache) == nil)
                    #expect(last.verdict(on: .engine(.avx512, .bfloat16), device, "source", cache) == nil)
                    #expect(verdicts(cache) == 1)
                }
            }
        }
    }

    @Test(
        "Kernels are tried at the width that the driver states, then narrower, and the widest that is right is taken"
    )
    func widths() throws {
        #expect(KernelLayout(width: 16, local: 1).andNarrower.map(\.width) == [16, 8, 4])
        #expect(KernelLayout(width: 4, local: 64).andNarrower == [KernelLayout(width: 4, local: 64)])
        try OpenCLTests.withDevice { device in
            let stated = KernelLayout(for: device)
            let (all, last) = (stated.andNarrower.count, stated.andNarrower.last!)
            let isLast = "[ \"$1 $2\" = \"\(last.width) \(last.local)\" ]"
            func layout(_ prober: Prober, _ cache: ProgramCache) throws -> KernelLayout {
                try prober.layout(for: device, "source", cache)
            }
            // A crash and a wrong result cost a width each, for good.
            for failure in ["kill -SEGV $$", "exit 3"] {
                try withProber { prober, cache, program in
                    let picky = try prober("\(isLast) && exit 0; \(failure)")
                    let first = try layout(picky, cache)
                    try FileManager.default.removeItem(at: program)
                    let second = try layout(picky, cache)
                    #expect(first == last && second == last && verdicts(cache) == all)
                }
                try withProber { prober, cache, _ in
                    let never = try prober(failure)
                    let error = try #require(throws: BackendError.self) { try layout(never, cache) }
                    #expect(
                        "\(error)".contains(cache.folder.url.path) && "\(error)".contains("\(last.width)"))
                }
            }
            try withProber { prober, cache, _ in
                // A driver that refuses them all says why where they are built.
                let refused = try layout(prober("exit 4"), cache)
                #expect(refused == last)
            }
            try withProber { prober, cache, _ in
                // Nobody could try: as without a prober, and again at the next start.
                let untried = try layout(prober("kill -KILL $$"), cache)
                #expect(untried == stated && verdicts(cache) == 0)
                let narrow = try layout(prober("\(isLast) && exit 0; exit 1"), cache)
                #expect(narrow == last && verdicts(cache) == 1)
                let tried = try layout(prober("exit 0"), cache)
                #expect(tried == stated)
            }
        }
    }

    @Test("The program that a trial has compiled is the one that is loaded; wrong kernels fail it")
    func trialOfKernels() throws {
        let last = try #require(KernelSource.files.firstIndex { $0.name == "Panels.cl" })
        let source = KernelSource.files[...last].map(\.text).joined(separator: "\n")
        let start = try #require(source.range(of: "__kernel GROUP void multiply_panels("))
        let body = try #require(source.range(of: "{", range: start.upperBound..<source.endIndex))
        let wrong = source[..<body.lowerBound] + "{ rows--;" + source[body.upperBound...]
        try withProber { _, cache, _ in
            try OpenCLTests.withDevice { device in
                let layout = KernelLayout(width: 8, local: 1)
                func isRight(_ source: String) throws -> Bool {
                    try OpenCLBackend.isRight(device, layout, .float32, source: source, cache: cache)
                }
                let whole = try isRight(source)
                #expect(whole)
                let key = ProgramCache.key(
                    source: source, options: layout.options(stored: .float32), device: device)
                #expect(cache.load(key) != nil)
                let broken = try isRight(String(wrong))
                #expect(!broken)
                #expect(throws: BackendError.self) { try isRight("no kernel") }
            }
        }
    }

    @Test(
        "A device's engines are those that haven't failed, and untried until one of their precisions was right"
    )
    func knownEngines() throws {
        try OpenCLTests.withDevice { device in
            let wide = KernelLayout(for: device)
            let possible = MatrixEngine.of(device).filter { engine in
                Precision.allCases.contains { engine.takes($0, wide) }
            }
            let source = KernelSource.whole
            try withProber { prober, cache, _ in
                func known() -> [String] {
                    MatrixEngine.known(device, cache).map { "\($0.engine) \($0.isProven)" }
                }
                #expect(known() == possible.map { "\($0) false" })
                for engine in possible {
                    _ = try prober("exit 0").verdict(on: .engine(engine, .bfloat16), device, source, cache)
                }
                #expect(known() == possible.map { "\($0) true" })
                // An engine's kernels need the layout.
                _ = try prober("kill -SEGV $$").verdict(on: .kernels(wide, .float32), device, source, cache)
                #expect(known().isEmpty || wide.local > 1)
            }
            try withProber { prober, cache, _ in
                for engine in possible {
                    for precision in Precision.allCases {
                        _ = try prober("kill -ILL $$").verdict(
                            on:
                                .engine(engine, precision), device, source, cache)
                    }
                }
                #expect(MatrixEngine.known(device, cache).isEmpty)
            }
        }
    }
}
