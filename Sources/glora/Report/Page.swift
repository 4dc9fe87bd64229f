import Foundation

/// Pieces of a page that needs nothing else: no script, no network, light and dark by the reader's setting.
enum Page {
    /// Text as HTML.
    static func escape(_ text: String) -> String {
        text.printableLines.replacingOccurrences(of: "&", with: "&amp;")
            .replacingOccurrences(of: "<", with: "&lt;").replacingOccurrences(of: ">", with: "&gt;")
            .replacingOccurrences(of: "\"", with: "&quot;")
    }

    /// A whole page. One that `isFollowed` is loaded anew by the browser every few seconds.
    static func html(title: String, isFollowed: Bool = false, _ sections: [String]) -> String {
        let refresh = isFollowed ? "<meta http-equiv=\"refresh\" content=\"\(secondsBetweenLoads)\">" : ""
        return """
            <!DOCTYPE html>
            <html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">\(refresh)
            <title>\(escape(title))</title><style>\(style)</style></head>
            <body><h1>\(escape(title))</h1>
            \(sections.joined(separator: "\n"))
            </body></html>

            """
    }

    /// How often a page that changes is written and loaded.
    static let secondsBetweenLoads = 5

    /// A heading and what is below it.
    static func section(_ title: String, _ body: String) -> String {
        "<section><h2>\(escape(title))</h2>\(body)</section>"
    }

    /// A table; the cells are text.
    static func table(_ head: [String], _ rows: [[String]]) -> String {
        func row(_ cells: [String], _ tag: String) -> String {
            "<tr>" + cells.map { "<\(tag)>\(escape($0))</\(tag)>" }.joined() + "</tr>"
        }
        return "<table><thead>\(row(head, "th"))</thead><tbody>"
            + rows.map { row($0, "td") }.joined() + "</tbody></table>"
    }

    /// A series of points in a chart.
    struct Series {
        let name: String
        let points: [(x: Double, y: Double)]
        /// Dots instead of a line.
        var isDots = false
    }

    /// A chart of series over two labelled axes, drawn as SVG: lines, and a mark where a series is a single point.
    static func chart(_ series: [Series], x xLabel: String, y yLabel: String) -> String {
        let series = series.map { one in
            Series(
                name: one.name, points: one.points.filter { $0.x.isFinite && $0.y.isFinite },
                isDots: one.isDots)
        }
        let points = series.flatMap(\.points)
        guard let x = Axis(points.map(\.x)), let y = Axis(points.map(\.y)) else {
            return "<p>nothing yet</p>"
        }
        let (left, top, width, height) = (64.0, 12.0, 520.0, 240.0)
        func across(_ value: Double) -> String { (left + x.share(value) * width).fixed(1) }
        func down(_ value: Double) -> String { (top + (1 - y.share(value)) * height).fixed(1) }
        var svg =
            "<svg viewBox=\"0 0 620 310\" role=\"img\" aria-label=\"\(escape(yLabel)) over \(escape(xLabel))\">"
        for tick in y.ticks {
            let py = down(tick.value)
            svg += "<line class=\"grid\" x1=\"\(left)\" x2=\"\(left + width)\" y1=\"\(py)\" y2=\"\(py)\"/>"
            svg += "<text x=\"\(left - 6)\" y=\"\(py)\" dy=\"4\" text-anchor=\"end\">\(tick.label)</text>"
        }
        for tick in x.ticks {
            let px = across(tick.value)
            svg +=
                "<text x=\"\(px)\" y=\"\(top + height + 18)\" text-anchor=\"middle\">\(tick.label)</text>"
        }
        svg +=
            "<text x=\"\(left + width / 2)\" y=\"\(top + height + 38)\" text-anchor=\"middle\">\(escape(xLabel))</text>"
        var names: [String] = []
        for (index, one) in series.enumerated() where !one.points.isEmpty {
            let colour = colour(index)
            let places = one.points.map { Place(x: across($0.x), y: down($0.y)) }
            func circle(_ place: Place, _ kind: String, _ radius: Double) -> String {
                "<circle class=\"\(kind) \(colour)\" r=\"\(radius)\" cx=\"\(place.x)\" cy=\"\(place.y)\"/>"
            }
            if one.isDots {
                svg += places.map { circle($0, "dot", 2.2) }.joined()
            } else if Set(places).count == 1 {
                // A line from a point to itself has no length, and is not drawn.
                svg += circle(places[0], "point", 4)
            } else {
                let line = places.map { "\($0.x),\($0.y)" }.joined(separator: " ")
                svg += "<polyline class=\"\(colour)\" points=\"\(line)\"/>"
            }
            names.append("<span class=\"key \(colour)\"></span>\(escape(one.name))")
        }
        return
            "<figure>\(svg)</svg><figcaption>\(escape(yLabel)): \(names.joined(separator: " &ensp; "))</figcaption></figure>"
    }

    /// A point of a drawing, to a tenth of its unit.
    private struct Place: Hashable {
        let x: String
        let y: String
    }

    /// The numbers along one side of a chart, from a round one to a round one.
    private struct Axis {
        let ticks: [(value: Double, label: String)]
        private let least: Double
        private let length: Double

        /// nil without values. Equal values have no range of their own: theirs begins at nought.
        init?(_ values: [Double]) {
            guard var least = values.min(), var most = values.max() else { return nil }
            // Below a millionth of the values, labels would be longer than their place.
            if most - least <= 1e-6 * max(abs(least), abs(most)) {
                (least, most) = least == 0 ? (0, 1) : (min(0, least), max(0, most))
            }
            let step = Axis.step(most - least, isWhole: values.allSatisfy { $0 == $0.rounded() })
            // The tolerance is for ends that are round themselves.
            let first = (least / step + 1e-9).rounded(.down)
            let last = (most / step - 1e-9).rounded(.up)
            (self.least, length) = (first * step, (last - first) * step)
            ticks = stride(from: first, through: last, by: 1).map {
                ($0 * step, Axis.label($0 * step, step: step))
            }
        }

        /// Where a value is: 0 at the least, 1 at the most.
        func share(_ value: Double) -> Double { (value - least) / length }

        /// A round number that is a quarter of the range or somewhat more; whole where the values are, such as epochs.
        private static func step(_ range: Double, isWhole: Bool) -> Double {
            let power = pow(10, log10(range / 4).rounded(.down))
            let steps = [1, 2, 2.5, 5, 10].map { $0 * power }
            return steps.first { $0 >= range / 4 && (!isWhole || $0 == $0.rounded()) } ?? 10 * power
        }

        /// With as many decimals as the step has.
        private static func label(_ value: Double, step: Double) -> String {
            if step >= 1e9 { return String(format: "%.3g", value) }
            let decimals = (0...12).first { abs(remainder(step * pow(10, Double($0)), 1)) < 1e-6 } ?? 12
            return decimals == 0 ? Int(value.rounded()).grouped : value.fixed(decimals)
        }
    }

    /// Six colours, drawn through, dashed, and dotted.
    private static func colour(_ index: Int) -> String {
        "c\(index % 6)" + (index < 6 ? "" : index < 12 ? " dashed" : " dotted")
    }

    private static let style = """
        :root{--ink:#1d2430;--paper:#fff;--soft:#5b6675;--line:#d9dee6;--c0:#1f6fd6;--c1:#d1570b;--c2:#24875a;--c3:#9a3fb5;--c4:#b3261e;--c5:#7a6a00;
        --none:#eef1f5;--constant:#cfe3fb;--vector:#8fc0f7;--lowRank:#2b78dc;--onLowRank:#fff;color-scheme:light dark}
        @media(prefers-color-scheme:dark){:root{--ink:#e6eaf0;--paper:#14181f;--soft:#9aa6b5;--line:#333c48;--c0:#6db0ff;--c1:#ff9d5c;--c2:#62cf9b;--c3:#d491ec;--c4:#ff8a80;--c5:#d8c650;
        --none:#1e252f;--constant:#24405f;--vector:#2f6199;--lowRank:#6db0ff;--onLowRank:#0b1420}}
        body{font:15px/1.5 system-ui,sans-serif;color:var(--ink);background:var(--paper);max-width:1080px;margin:2rem auto;padding:0 1rem}
        h1{font-size:1.5rem}h2{font-size:1.1rem;margin-top:2rem}table{border-collapse:collapse;font-variant-numeric:tabular-nums}
        section{overflow-x:auto}th,td{padding:.25rem .6rem;border-bottom:1px solid var(--line);text-align:right;white-space:nowrap}th:first-child,td:first-child{text-align:left}th{color:var(--soft);font-weight:600}
        pre{background:var(--none);padding:.7rem;overflow-x:auto}figure{margin:1rem 0}figcaption{color:var(--soft)}svg{width:100%;max-width:640px}
        svg text{font-size:11px;fill:var(--soft)}.grid{stroke:var(--line)}polyline{fill:none;stroke-width:2}
        polyline.c0{stroke:var(--c0)}polyline.c1{stroke:var(--c1)}polyline.c2{stroke:var(--c2)}polyline.c3{stroke:var(--c3)}polyline.c4{stroke:var(--c4)}polyline.c5{stroke:var(--c5)}
        polyline.dashed{stroke-dasharray:7 4}polyline.dotted{stroke-dasharray:2 3}
        .key.dashed{clip-path:polygon(0 0,40% 0,40% 100%,60% 100%,60% 0,100% 0,100% 100%,0 100%)}.key.dotted{border-radius:50%}
        circle.c0{color:var(--c0)}circle.c1{color:var(--c1)}circle.c2{color:var(--c2)}circle.c3{color:var(--c3)}circle.c4{color:var(--c4)}circle.c5{color:var(--c5)}
        circle.dot{fill:currentColor;fill-opacity:.35}circle.point{fill:currentColor;stroke:currentColor;stroke-width:2}
        circle.point.dashed{fill:var(--paper)}circle.point.dotted{fill:var(--paper);stroke-dasharray:2 3}
        .key{display:inline-block;width:.8em;height:.8em;margin-right:.3em}.key.c0{background:var(--c0)}.key.c1{background:var(--c1)}.key.c2{background:var(--c2)}.key.c3{background:var(--c3)}.key.c4{background:var(--c4)}.key.c5{background:var(--c5)}
        .matrix .ground{fill:var(--none)}.matrix .right{fill:var(--c0)}.matrix .wrong{fill:var(--c1)}.matrix .on{fill:var(--paper)}.matrix .beside{fill:var(--ink)}
        .gallery{display:flex;flex-wrap:wrap;gap:1rem}.mistake{width:128px;margin:0}.mistake img{max-width:128px;max-height:128px}.mistake figcaption{overflow-wrap:anywhere;line-height:1.25}
        .map td{white-space:normal;border:1px solid var(--paper);text-align:center;min-width:5.5em}.map td:first-child{text-align:left;font-family:ui-monospace,monospace;font-size:.85em}
        .none{background:var(--none);color:var(--soft)}.constant{background:var(--constant)}.vector{background:var(--vector)}.lowRank{background:var(--lowRank);color:var(--onLowRank)}
        """
}
