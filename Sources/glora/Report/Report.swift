import ArchitectureSearch
import ArgumentParser
import Checkpoints
import Foundation
import SupernetSearch
import Training

struct Report: ParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Make one HTML page of a run: curves, what the search found, mistakes, time and memory.",
        discussion: """
            The page stands alone: no script, no network. --with sets other runs on the
            same data beside it, such as the found subnet trained on, or LoRA. The
            confusion matrix and the worst mistakes are of what glora eval last said of
            the run's test split, or else of its validation split. --follow writes the
            page again and again for as long as a command works on the run; a browser
            that shows it loads it anew by itself.

            Example:
              glora report --run runs/a --with runs/lora --output a.html
              glora report --run runs/a --follow
            """)

    @Option(name: .customLong("run"), help: "The run.")
    var runFolder: String
    @Option(name: .customLong("with"), help: "Another run to set beside it; may be given again.")
    var others: [String] = []
    @Option(help: "The page (default: report.html in the run's folder).")
    var output: String?
    @Flag(help: "Write the page anew every few seconds for as long as a command works on the run.")
    var follow = false
    @OptionGroup var common: CommonFlags

    struct Result: Encodable {
        let output: String
        let bytes: Int
    }

    func run() throws {
        let console = common.console
        let directory = RunDirectory(URL(fileURLWithPath: runFolder))
        if !directory.holdsRun,
            FileManager.default.fileExists(
                atPath: directory.url.appendingPathComponent(RunDirectory.sweepFile).path)
        {
            throw TrainingError.run(
                "\(directory.url.path) is the folder of a sweep, whose page is its report.html, written after every trial; "
                    + "give `run` one of the runs below it")
        }
        let file =
            output.map { URL(fileURLWithPath: $0).resolvingSymlinksInPath() }
            ?? directory.url.appendingPathComponent("report.html")
        if follow { Interrupt.install() }
        var (byteCount, last) = (0, "")
        while true {
            // Asked before the run is read: what its holder writes last is read once more.
            let holder = follow ? FolderLock.currentHolder(of: directory.url) : nil
            let page = try page(writtenBy: holder)
            // The browser keeps its place where nothing is new.
            if page != last { try AtomicFile.write(page, to: file) }
            if last.isEmpty { console.say("wrote \(file.path)") }
            (byteCount, last) = (page.utf8.count, page)
            guard holder != nil else { break }
            for _ in 0..<Page.secondsBetweenLoads * 10 where !Interrupt.wasRequested { usleep(100_000) }
            if Interrupt.wasRequested {
                try AtomicFile.write(try self.page(writtenBy: nil), to: file)
                throw ExitCode.stopped
            }
        }
        try console.result(Result(output: file.path, bytes: byteCount), schema: "glora.report/1")
    }

    /// The whole page; `holder` is who works on the run while the page is followed.
    private func page(writtenBy holder: String?) throws -> String {
        let runs = try ([runFolder] + others).map { try ReportedRun($0) }
        var sections: [String] = []
        if let holder {
            let done = runs[0].metrics.count { $0.trainLoss != nil }
            sections.append(
                Page.section(
                    "Under way",
                    "<p>\(Page.escape("\(done) of \(runs[0].epochs) epochs are done; \(holder)"))</p>"))
        }
        sections += [
            Page.section("What it took", comparison(runs)),
            Page.section("Learning curves", curves(runs)),
        ]
        if let search = try runs[0].search() { sections += search }
        let mistakes = try runs.compactMap { run in try Mistakes(run.directory).map { (run.name, $0) } }
        for (name, mistakes) in mistakes {
            sections.append(Page.section("\(name) on \(mistakes.split)", mistakes.html))
        }
        if mistakes.isEmpty, runs[0].metric == .accuracy {
            sections.append(
                Page.section(
                    "Mistakes",
                    "<p>None of these runs keeps what it says of each image; so that this page shows what is taken for what:</p>"
                        + "<pre>\(Page.escape("glora eval --run \(runs[0].directory.url.path.shellQuoted)"))</pre>"
                ))
        }
        sections.append(Page.section("To make it again", "<pre>\(Page.escape(try runs[0].commands()))</pre>"))
        return Page.html(
            title: "\(runs[0].name): \(runs[0].method) on \(runs[0].data)", isFollowed: holder != nil,
            sections)
    }

    private func comparison(_ runs: [ReportedRun]) -> String {
        var rows: [[String]] = []
        func memory(_ bytes: Int?) -> String { bytes.map { "\($0 >> 20) MiB" } ?? "" }
        func percent(_ value: Double?) -> String { value.map { (100 * $0).fixed(2) + " %" } ?? "" }
        for run in runs {
            let summary = run.directory.readSummary()
            rows.append([
                run.name, run.path, summary?.seconds.duration ?? "", memory(summary?.peakBytes),
                run.metrics.compactMap(\.valScore).last.map { run.metric.text($0) } ?? "", "",
            ])
            if let found = try? run.folder.found(), let search = try? run.folder.readSummary() {
                rows.append([
                    "search of \(run.name)",
                    "\(found.algorithm), \(found.parameters.grouped) parameters"
                        + (found.fitnessSplit == "test" ? ", chosen on the test split" : ""),
                    search.seconds.duration, memory(search.peakBytes),
                    found.fitnessSplit == "test" ? "" : percent(found.accuracy),
                    percent(search.test?.accuracy),
                ])
            }
        }
        return Page.table(
            ["run", "path or method", "time", "peak memory", "validation, last", "test, scored once"], rows)
    }

    private func curves(_ runs: [ReportedRun]) -> String {
        func series(_ value: (RunDirectory.EpochMetric) -> Double?) -> [Page.Series] {
            runs.map { Page.Series(name: $0.name, metrics: $0.metrics, value) }
        }
        return Page.chart(series(\.trainLoss), x: "epoch", y: "training loss")
            + validations(runs)
    }

    /// A chart for each metric that the runs are judged by.
    private func validations(_ runs: [ReportedRun]) -> String {
        [Metric.accuracy, .meanAveragePrecision, .r2].compactMap { metric in
            let runs = runs.filter { $0.metric == metric }
            guard !runs.isEmpty else { return nil }
            let isShare = metric != .r2
            return Page.chart(
                runs.map { run in
                    Page.Series(name: run.name, metrics: run.metrics) {
                        $0.valScore.map { isShare ? 100 * $0 : $0 }
                    }
                }, x: "epoch", y: "validation \(metric.name)" + (isShare ? ", %" : ""))
        }.joined()
    }
}

extension Page.Series {
    /// A curve over the epochs of a run, of those that have the value.
    init(
        name: String, metrics: [RunDirectory.EpochMetric], _ value: (RunDirectory.EpochMetric) -> Double?
    ) {
        self.init(
            name: name,
            points: metrics.compactMap { line in value(line).map { (Double(line.epoch + 1), $0) } })
    }
}

/// A run as the report reads it.
private struct ReportedRun {
    let directory: RunDirectory
    let name: String
    let data: String
    let method: String
    let path: String
    let epochs: Int
    let metric: Metric
    let metrics: [RunDirectory.EpochMetric]
    var folder: SearchDirectory { SearchDirectory(directory) }

    init(_ folder: String) throws {
        directory = RunDirectory(URL(fileURLWithPath: folder))
        let options = try directory.configuration().options
        name = directory.url.lastPathComponent
        data = URL(fileURLWithPath: options.data).lastPathComponent
        method = options.method == .glora ? "GLoRA" : options.method.rawValue
        path =
            options.method != .glora
            ? options.method.rawValue
            : options.path == "supernet"
                ? "supernet, \(options.recipe.draws.rawValue)"
                : URL(fileURLWithPath: options.path).lastPathComponent
        (epochs, metric) = (options.epochs, options.metric)
        metrics = try directory.epochMetrics()
    }

    /// What a search found; nil without one.
    func search() throws -> [String]? {
        guard let found = try? folder.found() else { return nil }
        var sections: [String] = []
        let marked = found.fitnessSplit == "test" ? " (chosen on the test split: no result)" : ""
        let candidates = try folder.judged().compactMap { judged in
            judged.score.map { (x: Double(judged.parameters), y: 100 * $0.accuracy) }
        }
        let front = try folder.readFront().map { (x: Double($0.parameters), y: 100 * $0.accuracy) }
        sections.append(
            Page.section(
                "Accuracy against parameters" + marked,
                Page.chart(
                    [
                        Page.Series(name: "candidates", points: candidates, isDots: true),
                        Page.Series(name: "front", points: front),
                    ], x: "parameters", y: "accuracy on \(found.fitnessSplit), %")))
        let layers = found.layers.sorted { ReportedRun.place($0.key) < ReportedRun.place($1.key) }
        let forms = layers.map { name, path in
            (name, [path.a.text, path.b.text, path.c.text, path.d.text, path.e.text])
        }
        func kind(_ form: String) -> String { form.hasPrefix("LoRA") ? "lowRank" : form }
        let tensors = ["A", "B", "C", "D", "E"]
        let rows = forms.map { name, forms in
            "<tr><td>\(Page.escape(name))</td>"
                + forms.map { "<td class=\"\(kind($0))\">\(Page.escape($0))</td>" }.joined() + "</tr>"
        }
        sections.append(
            Page.section(
                "What was found: \(found.parameters.grouped) parameters" + marked,
                "<table class=\"map\"><thead><tr><th>layer</th>"
                    + tensors.map { "<th>\($0)</th>" }.joined()
                    + "</tr></thead><tbody>\(rows.joined())</tbody></table>"))
        let kinds = ["lowRank", "vector", "constant", "none"]
        sections.append(
            Page.section(
                "How often",
                Page.table(
                    ["tensor"] + kinds,
                    tensors.enumerated().map { index, tensor in
                        [tensor] + kinds.map { name in "\(forms.count { kind($0.1[index]) == name })" }
                    })))
        if let ablation = folder.readAblation() {
            func row(_ entry: Ablation.Entry, _ searched: Bool) -> [String] {
                [
                    entry.without.isEmpty
                        ? "as found" : (searched ? "searched without " : "without ") + entry.without,
                    (100 * entry.accuracy).fixed(2) + " %", entry.loss.fixed(4), entry.parameters.grouped,
                ]
            }
            sections.append(
                Page.section(
                    "What A to E are worth" + marked,
                    Page.table(
                        ["", "accuracy on \(found.fitnessSplit)", "loss", "parameters"],
                        ablation.found.map { row($0, false) } + ablation.searched.map { row($0, true) })))
        }
        return sections
    }

    /// Where a layer is in the model: its block, then its place there.
    private static func place(_ layer: String) -> (Int, Int) {
        let parts = layer.split(separator: ".")
        let site = ["qkv", "proj", "fc1", "fc2"].firstIndex(of: String(parts.last ?? "")) ?? 4
        return (parts.count > 1 ? Int(parts[1]) ?? 0 : 0, site)
    }

    /// The commands that made the run and its search.
    func commands() throws -> String {
        var lines = ["glora train --config \((directory.url.path + "/config.yaml").shellQuoted) --run again"]
        if let search = try? folder.configuration() {
            let settings = search.settings
            var line =
                "glora search --run again --min-params \(search.minParameters) --max-params \(search.maxParameters)"
                + " --algorithm \(settings.algorithm.rawValue) --fitness \(settings.fitness.rawValue) --population \(settings.population)"
                + " --generations \(settings.generations) --top \(settings.top) --mutations \(settings.mutations)"
                + " --crossovers \(settings.crossovers) --seed \(settings.seed)"
                + " --checkpoint \(search.checkpoint.rawValue) --fitness-split \(search.fitnessSplit.shellQuoted)"
                + (search.refinement.map {
                    " --refine \($0.count) --refine-epochs \($0.epochs) --refine-lr \($0.learningRate)"
                } ?? "")
            if let probability = settings.mutationProbability {
                line += " --mutation-probability \(probability)"
            }
            if search.exhaustive { line += " --exhaustive" }
            lines.append(line)
        }
        return lines.joined(separator: "\n")
    }
}
