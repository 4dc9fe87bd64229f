import Foundation
import OpenCLBackend
import TensorCore

/// What `glora doctor` found: the JSON, and what its Markdown is made of.
struct DoctorReport: Encodable {
    let program = Version()
    let system = HostSystem()
    /// `2026-11-29`.
    let date: String
    var seconds = 0.0
    var isFinished = false
    var devices: [Examined] = []
    var leftOut: [LeftOut] = []

    /// A device, as far as it was examined.
    struct Examined: Encodable {
        var device: Devices.Row
        var verdict = ""
        /// What the benchmarks ran with; nil where none ran.
        var model: String?
        var batch: Int?
        /// The winners of the products that were tuned.
        var tuning: [ProductTuning.Choice] = []
        var precisions: [Measured] = []
    }

    /// What a device does in a precision.
    struct Measured: Encodable {
        let precision: Precision
        let selftest: Selftest.Result
        var step, inference, gemm, attention, glora: BenchResult?
    }

    /// What was not to be had, and why.
    struct LeftOut: Encodable, Equatable {
        /// As `--device` has it; nil for what is no device's.
        let device: String?
        var part: String
        let reason: String

        var sentence: String { "\(device.map { "\($0): " } ?? "")\(part): \(reason)" }
    }
}

// MARK: In words

extension DoctorReport.Examined {
    /// The precision in which it is right and trains fastest.
    var best: DoctorReport.Measured? {
        let right = precisions.filter { $0.selftest.failed == 0 }
        return right.max { ($0.step?.imagesPerSecond ?? 0) < ($1.step?.imagesPerSecond ?? 0) }
    }

    /// What to make of it, in sentences; `other` is the CPU backend, where that was measured too; `hasFailed` says that
    /// its selftest in float32 was tried and ended without a result.
    func verdict(beside other: DoctorReport.Examined?, hasFailed: Bool) -> String {
        let right = precisions.filter { $0.selftest.failed == 0 }
        let wrong = precisions.filter { $0.selftest.failed > 0 }
        var sentences: [String] = []
        if precisions.isEmpty { sentences.append("It could not be tried; what is missing says why.") }
        if !right.isEmpty {
            let names = right.map { measured in
                measured.precision.rawValue + (measured.selftest.engine.map { " (by \($0))" } ?? "")
            }
            sentences.append("Its results are right in \(names.joined(separator: ", ")).")
        }
        for measured in wrong {
            let count = measured.selftest.passed + measured.selftest.failed
            sentences.append(
                "In \(measured.precision.rawValue) \(measured.selftest.failed) of \(count) built-in cases are wrong: "
                    + "don't train in it.")
        }
        if precisions.isEmpty, !hasFailed { return sentences.joined() }
        guard let best else {  // nothing is right
            return (sentences + ["Don't train on it, and please send this report."]).joined(separator: " ")
        }
        let steps = right.compactMap { measured in
            measured.step?.imagesPerSecond.map { speed in
                "\(speed.fixed(1)) images/s in \(measured.precision.rawValue) "
                    + "(\((100 * (measured.step?.shareOfRoof ?? 0)).fixed(0)) %)"
            }
        }
        if let model, let batch, !steps.isEmpty {
            sentences.append(
                "A training step of \(model) with \(batch) images does \(steps.joined(separator: ", ")): in brackets "
                    + "the share of what its fastest product and its copies allow.")
        }
        if let other, other.device.device != device.device, other.model == model,
            let mine = best.step?.imagesPerSecond, let its = other.best?.step?.imagesPerSecond
        {
            sentences.append(
                mine > its
                    ? "The best is \((mine / its).fixed(1)) times as fast as the CPU backend."
                    : "The CPU backend is \((its / mine).fixed(1)) times as fast as its best.")
        }
        guard best.step != nil else {
            return (sentences + ["No training step was measured; what is missing says why."])
                .joined(separator: " ")
        }
        let flag = best.precision == .float32 ? "" : " --precision \(best.precision.rawValue)"
        sentences.append("To train on it: `--device \(device.device)\(flag)`.")
        return sentences.joined(separator: " ")
    }
}

// MARK: Markdown

extension DoctorReport {
    /// The extensions that this program asks for.
    private static let askedFor = [
        "cl_khr_fp16", "cl_khr_subgroups", "cl_intel_subgroups", "cl_intel_required_subgroup_size",
        "cl_intel_subgroup_matrix_multiply_accumulate", "cl_nv_device_attribute_query",
    ]

    /// The block to paste.
    var markdown: String {
        var lines = ["### glora doctor: \(devices.first?.device.name ?? "no device")", ""]
        lines += [
            "glora \(program.sentence). \(system.system), Linux \(system.kernel), \(system.architecture); "
                + "\(system.processor), \(system.threads) threads, \(system.memoryBytes >> 20) MiB. \(date), "
                + "\(seconds.duration)\(isFinished ? "" : ", not finished").",
            "",
        ]
        for examined in devices { lines += paragraphs(examined) }
        if !leftOut.isEmpty {
            lines += ["**What is missing, and why**", ""] + leftOut.map { "- \($0.sentence)" } + [""]
        }
        // A driver's text is a stranger's.
        return lines.map(\.printable).joined(separator: "\n")
    }

    private func paragraphs(_ examined: Examined) -> [String] {
        let device = examined.device
        var lines = ["**\(device.device)**: \(examined.verdict)", ""]
        var facts = [
            "\(device.name), \(device.kind)",
            device.platform + (device.driver.isEmpty ? "" : " \(device.driver)"),
            "\(device.computeUnits) compute units", "\(device.memoryBytes >> 20) MiB",
        ]
        if let details = device.details {
            let offered = DoctorReport.askedFor.filter(details.extensions.contains)
            facts += [
                details.version, details.language, "buffers up to \(details.largestBufferBytes >> 20) MiB",
                "work-groups up to \(details.largestWorkGroup) with \(details.localMemoryBytes >> 10) KiB",
                offered.isEmpty ? "none of the extensions asked for" : offered.joined(separator: " "),
            ]
        }
        for (engines, what) in [
            (device.matrixEngines, "right"), (device.untriedEngines, "not tried"),
            (device.failedEngines, "not right, or not run by this driver"),
        ] where !engines.isEmpty {
            facts.append("\(engines.joined(separator: ", ")): \(what)")
        }
        lines += [facts.joined(separator: "; ") + ".", ""]
        guard !examined.precisions.isEmpty else { return lines }
        lines += summary(examined).markdown + [""]
        let tuned = examined.tuning.reduce(into: [String: Int]()) { counts, choice in
            counts["\(choice.kernel.rawValue) in \(choice.product.precision.rawValue)", default: 0] += 1
        }
        if !tuned.isEmpty {
            let winners = tuned.sorted { $0.key < $1.key }.map { "\($0.key) \($0.value) times" }
            lines += ["Fastest for the tuned products: \(winners.joined(separator: ", ")).", ""]
        }
        let wrong = examined.precisions.flatMap { measured in
            measured.selftest.failures.map { "- wrong in \(measured.precision.rawValue): \($0)" }
        }
        if !wrong.isEmpty { lines += wrong + [""] }
        for measured in examined.precisions { lines += operations(measured) }
        return lines
    }

    /// A row for each precision.
    private func summary(_ examined: Examined) -> Table {
        func percent(_ share: Double?) -> String { share.map { (100 * $0).fixed(0) } ?? "" }
        var table = Table(head: [
            examined.model.map { "\($0), batch \(examined.batch ?? 0)" } ?? "", "built-in cases right",
            "step, images/s", "% of roof", "MiB", "inference, images/s", "% of roof", "products, GFLOP/s",
        ])
        for measured in examined.precisions {
            let test = measured.selftest
            table.rows.append([
                measured.precision.rawValue + (test.engine.map { ", \($0)" } ?? ""),
                "\(test.passed) of \(test.passed + test.failed)",
                measured.step?.imagesPerSecond?.fixed(1) ?? "", percent(measured.step?.shareOfRoof),
                measured.step?.peakBytes.map { "\($0 >> 20)" } ?? "",
                measured.inference?.imagesPerSecond?.fixed(1) ?? "", percent(measured.inference?.shareOfRoof),
                measured.gemm?.gflops?.fixed(1) ?? "",
            ])
        }
        return table
    }

    /// A row for each operation that was measured alone. Of a GLoRA layer's forms, which the JSON has, only the richest.
    private func operations(_ measured: Measured) -> [String] {
        let glora = measured.glora?.rows ?? []
        let rows =
            (measured.gemm?.rows ?? []).map { ($0.name, $0) }
            + (measured.attention?.rows ?? []).map { ("attention \($0.name)", $0) }
            + glora.filter { $0.shareOfRoof != nil }.map { ($0.name, $0) }
            + glora.filter { $0.shareOfRoof == nil }.suffix(2).map { ("fc1 with \($0.name)", $0) }
        guard let roofs = (measured.gemm ?? measured.attention ?? measured.glora)?.roofs else { return [] }
        var table = Table(head: [measured.precision.rawValue, "ms", "GFLOP/s", "GB/s", "% of roof"])
        for (name, row) in rows {
            table.rows.append([
                name, (row.seconds * 1e3).fixed(2), row.gflops?.fixed(1) ?? "", row.gbps?.fixed(1) ?? "",
                row.shareOfRoof.map { (100 * $0).fixed(0) } ?? "",
            ])
        }
        table.rows.append(["roof", "", roofs.gflops.fixed(1), roofs.gbps.fixed(1), ""])
        return table.markdown + [""]
    }
}
