import ArgumentParser
import Foundation
import ModelConfiguration
import TensorCore
import Training

struct Doctor: ParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Examine this machine's devices, and make a report to send.",
        discussion: """
            Says what each device is, in which precisions its results are right, and how fast it is: products, a GLoRA layer,
            attention, a training step and inference, at a size that suits it. Each part runs in a process of its own, so that a
            driver that dies or hangs is a line of the report. What is compiled and tuned is kept for later commands, as always.

            --output reports/arc writes reports/arc.md, a block of Markdown to paste into an issue, and reports/arc.json, the
            same and more for programs (Scripts/compare-pytorch --ours). Neither names a person, a host or a folder. They are
            written anew after each part: should the machine go down, they say how far it came. Without --output the Markdown is
            printed.

            Examples:
              glora doctor --output report
              glora doctor --device opencl:1 --minutes 20
              glora doctor --quick
            """)

    @Option(
        help: ArgumentHelp("Writes FILE.md and FILE.json, which must not be there yet.", valueName: "FILE"))
    var output: String?
    @Option(
        help: ArgumentHelp(
            "cpu or opencl:INDEX, and again for more. Without it the GPUs, or all OpenCL devices of a machine without one; "
                + "and the CPU backend.",
            valueName: "device"))
    var device: [String] = []
    @Option(help: "How long it may take. What there is no time for is left out, and listed.")
    var minutes = 10.0
    @Flag(
        help: "Less than a minute: float32, and the smallest model's step, inference and attention alone.")
    var quick = false
    @OptionGroup var common: CommonFlags

    func validate() throws {
        guard minutes > 0, minutes <= 24 * 60 else {
            throw ValidationError("--minutes must be more than 0 and at most 1440, not \(minutes)")
        }
        if let word = device.first(where: { $0 != "cpu" && $0.wholeMatch(of: /opencl:[0-9]+/) == nil }) {
            throw ValidationError("--device \(word): use cpu or opencl:INDEX (see glora devices)")
        }
    }

    func run() throws {
        let base = output.map { file in
            ["md", "json"].contains((file as NSString).pathExtension)
                ? (file as NSString).deletingPathExtension : file
        }
        if base?.isEmpty == true { throw ValidationError("--output is empty; give a file's name") }
        for file in base.map({ ["\($0).md", "\($0).json"] }) ?? []
        where FileManager.default.fileExists(atPath: file) {
            throw ValidationError("\(file) is there already; give another --output")
        }
        Interrupt.install()
        let examination = Examination(seconds: 60 * minutes, isQuick: quick, base, common.console)
        try examination.save()
        try examination.run(device)
        if base == nil {
            for line in examination.report.markdown.split(separator: "\n", omittingEmptySubsequences: false) {
                common.console.say(String(line))
            }
        }
        try common.console.result(examination.report, schema: Examination.schema)
        if Interrupt.wasRequested { throw ExitCode.stopped }
        if examination.report.devices.isEmpty { throw ExitCode.failure }
    }
}

/// The parts of `glora doctor`, one after the other, and its report as it grows.
final class Examination {
    static let schema = "glora.doctor/1"

    /// What the benchmarks run with.
    private struct Size: Equatable {
        let model: String
        let batch: Int

        /// Proportional to the operations of a step's products.
        var work: Double {
            let model = ViTConfiguration(named: model, classCount: 10)!
            return Double(batch * model.depth * model.tokenCount * model.width)
                * Double(4 * model.width + 2 * model.hiddenWidth)
        }
    }

    /// The smallest first.
    private static let sizes = [
        Size(model: "vit_tiny_patch16_224", batch: 2), Size(model: "vit_tiny_patch16_224", batch: 8),
        Size(model: "vit_small_patch16_224", batch: 8), Size(model: "vit_base_patch16_224", batch: 8),
        Size(model: "vit_base_patch16_224", batch: 64),
    ]

    /// The longest step in seconds. Its benchmark takes six, and all of them in three precisions take half of the ten minutes.
    private static let longestStep = 4.0

    private(set) var report: DoctorReport
    private let began = ContinuousClock.now
    private let seconds: Double
    private let isQuick: Bool
    private let base: String?
    private let console: Console
    /// When the device's part of the time is up.
    private var end: ContinuousClock.Instant

    init(seconds: Double, isQuick: Bool, _ base: String?, _ console: Console) {
        (self.seconds, self.isQuick, self.base, self.console) = (seconds, isQuick, base, console)
        end = began + .seconds(seconds)
        let formatter = ISO8601DateFormatter()
        formatter.formatOptions = .withFullDate
        report = DoctorReport(date: formatter.string(from: Date()))
    }

    /// Writes the report as it is.
    func save() throws {
        report.seconds = began.secondsPassed
        let host = report.devices.first { $0.device.device == "cpu" }
        for index in report.devices.indices {
            let examined = report.devices[index]
            let hasFailed = report.leftOut.contains {
                $0.device == examined.device.device && $0.part.hasPrefix("selftest in float32")
                    && !$0.reason.hasPrefix("left out") && !$0.reason.hasPrefix("stopped")
            }
            report.devices[index].verdict = examined.verdict(beside: host, hasFailed: hasFailed)
        }
        guard let base else { return }
        for (file, text) in [
            ("\(base).md", report.markdown),
            ("\(base).json", try Console.json(report, schema: Examination.schema) + "\n"),
        ] {
            do { try Data(text.utf8).write(to: URL(fileURLWithPath: file), options: .atomic) } catch {
                throw TrainingError.run(
                    "\(file) can't be written; give an --output in a folder that may be written to")
            }
        }
    }

    /// Examines the devices with these names, or those that are worth it.
    func run(_ names: [String]) throws {
        let listed = listing()
        var rows = listed ?? listingWithoutDrivers()
        let openCL = rows.filter { $0.device != "cpu" }
        let gpus = openCL.filter { $0.kind != "cpu" }
        let chosen = (gpus.isEmpty ? openCL : gpus).map(\.device) + ["cpu"]
        for name in names where !rows.contains(where: { $0.device == name }) {
            leaveOut(
                name, "everything",
                listed == nil ? "left out: no list" : "left out: glora devices doesn't list it")
        }
        rows = rows.filter { (names.isEmpty ? chosen : names).contains($0.device) }
        // The CPU backend, whose only precision takes a fifth of what a device's take, comes last: it is there to compare with.
        rows = rows.filter { $0.device != "cpu" } + rows.filter { $0.device == "cpu" }
        func share(_ row: Devices.Row) -> Double { row.device == "cpu" ? 0.25 : 1 }
        for (index, row) in rows.enumerated() {
            let left = seconds - began.secondsPassed
            end = .now + .seconds(left * share(row) / rows[index...].reduce(0) { $0 + share($1) })
            report.devices.append(DoctorReport.Examined(device: row))
            try examine(row, index)
        }
        end = began + .seconds(seconds + 10)
        // Engines were tried meanwhile.
        let after = listed == nil || Interrupt.wasRequested ? nil : listing()
        for index in report.devices.indices {
            let row = after?.first { $0.device == report.devices[index].device.device }
            if let row { report.devices[index].device = row }
        }
        report.isFinished = !Interrupt.wasRequested
        try save()
        for examined in report.devices { console.say("\(examined.device.device): \(examined.verdict)") }
    }

    // MARK: Parts

    /// Runs a command for a part of the report; nil when it came to nothing, which the report then says.
    private func part<Result: Decodable>(
        _ name: String, _ arguments: [String], on device: String?, as type: Result.Type, within limit: Double
    ) -> Result? {
        console.progress("\(device.map { "\($0): " } ?? "")\(name) …")
        defer { console.endProgress() }
        do {
            let (result, notes) = try PartRunner(end: end).run(arguments, as: type, within: limit)
            for note in notes where device == nil { leaveOut(nil, name, note) }
            return result
        } catch {
            leaveOut(device, name, "\(error)")
            return nil
        }
    }

    private func leaveOut(_ device: String?, _ part: String, _ reason: String) {
        let entry = DoctorReport.LeftOut(device: device, part: part, reason: reason)
        console.endProgress()
        // What is listed twice notes the same twice.
        guard !report.leftOut.contains(entry) else { return }
        console.say(entry.sentence)
        // Once the time is up, all that is left is left out.
        if let last = report.leftOut.last, last.device == device, last.reason == reason,
            reason.hasPrefix("left out")
        {
            report.leftOut[report.leftOut.count - 1].part += ", \(part)"
        } else {
            report.leftOut.append(entry)
        }
    }

    /// What `glora devices` lists; nil when it dies.
    private func listing() -> [Devices.Row]? {
        part("devices", ["devices"], on: nil, as: Devices.Result.self, within: 60)?.devices
    }

    /// When listing all dies: tries the drivers one by one, to say which of them it is. The CPU backend is what there is to examine.
    private func listingWithoutDrivers() -> [Devices.Row] {
        let folder = ProcessInfo.processInfo.environment["OCL_ICD_VENDORS"] ?? "/etc/OpenCL/vendors"
        func devices(of driver: String) throws -> [Devices.Row] {
            try PartRunner(end: end).run(
                ["devices"], as: Devices.Result.self, within: 60, variables: ["OCL_ICD_VENDORS": driver]
            ).result.devices
        }
        let files = (try? FileManager.default.contentsOfDirectory(atPath: folder)) ?? []
        for file in files.sorted() where file.hasSuffix(".icd") {
            let count = Result { try devices(of: "\(folder)/\(file)").filter { $0.device != "cpu" }.count }
            let outcome =
                switch count {
                case .success(let count): "\(count) devices; OCL_ICD_VENDORS with this file alone lists them"
                case .failure(let error): "\(error)"
                }
            leaveOut(nil, "the driver in \(file)", outcome)
        }
        return (try? devices(of: "/dev/null/none")) ?? []
    }

    /// Runs every part on a device: first all in float32, then in each other precision.
    private func examine(_ row: Devices.Row, _ index: Int) throws {
        let name = row.device
        console.say("\(name): \(row.name)")
        let hasTensorCores = (row.matrixEngines + row.untriedEngines).contains("tensor cores")
        let others = [Precision.bfloat16, .float16] + (hasTensorCores ? [.tf32] : [])
        var size: Size?
        for precision in [.float32] + (isQuick || name == "cpu" ? [] : others) {
            // It compiles the kernels, which takes some drivers minutes.
            let result = part(
                "selftest in \(precision)",
                ["selftest", "--device", name, "--precision", precision.rawValue], on: name,
                as: Selftest.Result.self, within: precision == .float32 ? 600 : 300)
            if let result {
                report.devices[index].precisions.append(
                    DoctorReport.Measured(precision: precision, selftest: result))
                console.say(
                    "\(name): selftest in \(precision): \(result.passed) passed, \(result.failed) failed")
                try save()
            }
            if precision == .float32 {
                if result?.failed == 0 { size = try suitableSize(name) }
                (report.devices[index].model, report.devices[index].batch) = (size?.model, size?.batch)
            }
            if let size, result?.failed == 0 { try measure(precision, size, index) }
        }
        if size == nil {
            leaveOut(name, "benchmarks", "left out: they need a training step in float32 first")
        }
        if isQuick { leaveOut(name, "other precisions, tuning, gemm, glora", "left out: --quick") }
    }

    /// The largest size whose step isn't too long, by the speed of the sizes before it; nil when not even the smallest runs.
    private func suitableSize(_ device: String) throws -> Size? {
        func step(_ size: Size, within limit: Double = 60) -> Double? {
            part(
                "step of \(size.model) with \(size.batch) images",
                ["bench", "step", "--device", device, "--model", size.model, "--batch", "\(size.batch)"]
                    + ["--steps", "1", "--no-tune"],
                on: device, as: BenchResult.self, within: limit)?.seconds
        }
        var size = Examination.sizes[0]
        // All else depends on it, and a driver that runs on one core of a busy machine takes a minute.
        guard var seconds = step(size, within: 240) else { return nil }
        var larger = isQuick ? [] : Examination.sizes.dropFirst()
        while let next = larger.last(where: {
            seconds * $0.work / size.work <= Examination.longestStep
        }) {
            if let found = step(next) {
                (size, seconds) = (next, found)
                larger.removeAll { $0.work <= next.work }
            } else {
                larger.removeAll { $0.work >= next.work }
            }
        }
        return size
    }

    /// Tunes the products in the precision that was tested last and runs the benchmarks, the telling ones first.
    private func measure(_ precision: Precision, _ size: Size, _ index: Int) throws {
        let name = report.devices[index].device.device
        let flags =
            ["--device", name, "--precision", precision.rawValue]
            + ["--model", size.model, "--batch", "\(size.batch)"]
        if name != "cpu", !isQuick {
            let tuned = part(
                "tune in \(precision)", ["tune", "--budget", "20"] + flags, on: name, as: Tune.Result.self,
                within: 90)
            if let tuned { report.devices[index].tuning = tuned.tuning.choices }
        }
        let place = report.devices[index].precisions.count - 1
        func bench(_ word: String, _ key: WritableKeyPath<DoctorReport.Measured, BenchResult?>) throws {
            let result = part(
                "bench \(word) in \(precision)", ["bench", word, "--no-tune"] + flags, on: name,
                as: BenchResult.self,
                within: 120)
            guard let result else { return }
            report.devices[index].precisions[place][keyPath: key] = result
            let figure =
                result.imagesPerSecond.map { "\($0.fixed(1)) images/s" }
                ?? result.gflops.map { "\($0.fixed(1)) GFLOP/s" } ?? "\((result.gbps ?? 0).fixed(1)) GB/s"
            console.say("\(name): \(word) in \(precision): \(figure)")
            try save()
        }
        try bench("step", \.step)
        try bench("inference", \.inference)
        if !isQuick { try bench("gemm", \.gemm) }
        try bench("attention", \.attention)
        if !isQuick, precision == .float32 { try bench("glora", \.glora) }
    }
}
