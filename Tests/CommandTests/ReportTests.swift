import Foundation
import Testing

/// The charts of `report`, made of runs whose `metrics.jsonl` a test writes.
@Suite("The charts of a report")
struct ReportTests {
    /// What a page draws: its charts in order.
    private struct Chart {
        /// The points of each line.
        let lines: [[[Double]]]
        /// Class, x, y of each mark.
        let marks: [(kind: String, place: [Double])]
        /// What the axes and the legend say.
        let labels: [String]
        let names: [String]

        init(_ figure: Substring) throws {
            func numbers(_ words: String...) throws -> [Double] { try words.map { try #require(Double($0)) } }
            lines = try figure.matches(of: /<polyline class="[^"]*" points="([^"]*)"/).map { line in
                try line.output.1.split(separator: " ").map { point in
                    try point.split(separator: ",").map { try #require(Double($0)) }
                }
            }
            marks = try figure.matches(of: /<circle class="([^"]*)" r="[0-9.]+" cx="([^"]*)" cy="([^"]*)"/)
                .map {
                    (String($0.output.1), try numbers(String($0.output.2), String($0.output.3)))
                }
            labels = figure.matches(of: /<text [^>]*>([^<]*)</).map { String($0.output.1) }
            names = figure.matches(of: /class="key [^"]*"><\/span>([^&<]*)/).map {
                $0.output.1.trimmingCharacters(in: .whitespaces)
            }
            for place in lines.flatMap(\.self) + marks.map(\.place) {
                #expect(place.count == 2 && (64...584).contains(place[0]) && (12...252).contains(place[1]))
            }
        }
    }

    /// The charts, two unless said otherwise, of a report on runs with these lines of metrics; the first run is the one reported.
    private func charts(_ runs: [(name: String, lines: [String])], count: Int = 2) throws -> [Chart] {
        try Fixture.withFolder { folder in
            for (name, lines) in runs {
                let run = folder.appendingPathComponent(name)
                try FileManager.default.copyItem(
                    at: try Fixture.shared.get().appendingPathComponent("run"), to: run)
                try folder.write("\(name)/metrics.jsonl", lines.map { $0 + "\n" }.joined())
            }
            let others = runs.dropFirst().flatMap { ["--with", $0.name] }
            try Glora.succeed(
                ["report", "--run", runs[0].name, "--output", "page.html"] + others, in: folder)
            let page = String(decoding: try folder.bytes("page.html"), as: UTF8.self)
            #expect(!page.lowercased().contains(/"[^"]*\b(nan|inf)\b[^"]*"/))
            let figures = page.components(separatedBy: "<figure>").dropFirst()
            try #require(figures.count == count)
            return try figures.map { try Chart($0[...]) }
        }
    }

    private func epoch(_ index: Int, loss: Double, accuracy: Double? = nil) -> [String] {
        [#"{"epoch":\#(index),"lr":0.1,"trainLoss":\#(loss)}"#]
            + (accuracy.map { [#"{"epoch":\#(index),"valAccuracy":\#($0),"valLoss":1}"#] } ?? [])
    }

    @Test("A run of one epoch has a mark in each chart, on axes that begin at nought")
    func onePoint() throws {
        let charts = try charts([("one", epoch(0, loss: 0.8, accuracy: 0.4))])
        for (chart, most) in zip(charts, ["0.8", "40"]) {
            #expect(chart.lines.isEmpty && chart.marks.count == 1 && chart.names == ["one"])
            #expect(chart.marks[0].kind == "point c0" && chart.marks[0].place == [584, 12])
            #expect(chart.labels.contains("1") && chart.labels.contains(most), "\(chart.labels)")
        }
    }

    @Test("A run of one epoch is a mark beside another's line; one without validations isn't named there")
    func pointBesideLine() throws {
        let longer = (0..<5).flatMap { epoch($0, loss: 2 - 0.25 * Double($0)) }
        let charts = try charts([("one", epoch(0, loss: 1.5, accuracy: 0.5)), ("five", longer)])
        #expect(charts[0].names == ["one", "five"] && charts[1].names == ["one"])
        #expect(charts[0].lines == [[[64, 12], [194, 72], [324, 132], [454, 192], [584, 252]]])
        #expect(charts[0].marks.map(\.place) == [[64, 132]] && charts[1].marks.count == 1)
        // Epochs are whole numbers.
        for label in ["1", "2", "3", "4", "5", "1.00", "1.25", "2.00"] {
            #expect(charts[0].labels.contains(label), "\(charts[0].labels)")
        }
    }

    @Test("Values that are all equal, or all nought, are a level line")
    func equalValues() throws {
        let level = (0..<3).flatMap { epoch($0, loss: 0, accuracy: 1) }
        let charts = try charts([("level", level)])
        #expect(charts[0].lines == [[[64, 252], [324, 252], [584, 252]]])
        #expect(charts[1].lines == [[[64, 12], [324, 12], [584, 12]]])
        // No accuracy is above 100 %, no loss below nought.
        #expect(charts[1].labels.contains("100"))
        #expect(!charts.flatMap(\.labels).contains { $0.hasPrefix("-") || (Double($0) ?? 0) > 100 })
    }

    @Test("A loss beyond all bounds is drawn; small ones are told apart by their labels")
    func sizes() throws {
        let charts = try charts([("large", epoch(0, loss: 1) + epoch(1, loss: 1e30))], count: 1)
        #expect(charts[0].lines == [[[64, 252], [584, 12]]])
        #expect(charts[0].labels.contains("1e+30"))
        let near = try self.charts([("near", epoch(0, loss: 0.7002) + epoch(1, loss: 0.7001))], count: 1)
        let labels = near[0].labels.filter { $0.hasPrefix("0.") }
        #expect(labels.count >= 2 && Set(labels).count == labels.count, "\(labels)")
    }

    private func page(_ file: String, in folder: URL) -> String {
        (try? folder.bytes(file)).map { String(decoding: $0, as: UTF8.self) } ?? ""
    }

    /// How many epochs a page says to be done.
    private func epochs(_ page: String) -> Int? {
        page.firstMatch(of: /<p>([0-9]+) of 100000 epochs are done; process [0-9]+ \(glora train\)/)
            .flatMap { Int($0.output.1) }
    }

    @Test("A page that is followed grows with the run, is loaded anew by the browser, and ends with the run")
    func followed() throws {
        try Fixture.withFolder { folder in
            let training = try Glora.start(Fixture.train("long", "--epochs", "100000"), in: folder)
            training.wait { folder.exists("long/config.yaml") }
            let follow = ["report", "--run", "long", "--follow"]
            let report = try Glora.start(follow + ["--json"], in: folder)
            report.wait { epochs(page("long/report.html", in: folder)) != nil }
            let first = try #require(epochs(page("long/report.html", in: folder)))
            report.wait { epochs(page("long/report.html", in: folder)) ?? 0 > first }
            let later = page("long/report.html", in: folder)
            #expect(try #require(epochs(later)) > first && later.contains(#"http-equiv="refresh""#))
            // Another follower is stopped, and the run goes on.
            let other = try Glora.start(follow + ["--output", "other.html"], in: folder)
            other.wait { epochs(page("other.html", in: folder)) != nil }
            other.send(SIGINT)
            #expect(try other.outcome().exitCode == 130)
            #expect(!page("other.html", in: folder).contains(#"http-equiv="refresh""#))
            #expect(training.process.isRunning && report.process.isRunning)
            training.send(SIGINT)
            #expect(try training.outcome().exitCode == 130)
            let outcome = try report.outcome()
            #expect(outcome.exitCode == 0, "\(outcome.errors)")
            let last = page("long/report.html", in: folder)
            #expect(!last.contains("epochs are done") && !last.contains(#"http-equiv="refresh""#))
            #expect(try outcome.json()["bytes"]?.integerValue == last.utf8.count)
            // Nobody is there any more: the page is written once.
            try Glora.succeed(follow, in: folder)
            #expect(page("long/report.html", in: folder) == last)
        }
    }
}
