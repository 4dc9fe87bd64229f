import Foundation

/// Pieces of a page that needs nothing else: no script, no network, light and dark by the reader's setting.
enum Page {
    /// Text as HTML.
    static func escape(_ text: String) -> String {
        text.replacingOccurrences(of: "&", with: "&amp;").replacingOccurrences(of: "<", with: "&lt;")
            .replacingOccurrences(of: ">", with: "&gt;").replacingOccurrences(of: "\"", with: "&quot;")
    }

    /// A whole page.
    static func html(title: String, _ sections: [String]) -> String {
        """
        <!DOCTYPE html>
        <html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
        <title>\(escape(title))</title><style>\(style)</style></head>
        <body><h1>\(escape(title))</h1>
        \(sections.joined(separator: "\n"))
        </body></html>

        """
    }

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

    /// A chart of series over two labelled axes, drawn as SVG.
    static func chart(_ series: [Series], x xLabel: String, y yLabel: String) -> String {
        let points = series.flatMap(\.points).filter { $0.x.isFinite && $0.y.isFinite }
        guard let x = range(points.map(\.x)), let y = range(points.map(\.y)) else {
            return "<p>nothing yet</p>"
        }
        let (left, top, width, height) = (64.0, 12.0, 520.0, 240.0)
        func place(_ point: (x: Double, y: Double)) -> String {
            let (px, py) = (
                left + (point.x - x.0) / (x.1 - x.0) * width, top + (y.1 - point.y) / (y.1 - y.0) * height
            )
            return "\(px.fixed(1)),\(py.fixed(1))"
        }
        var svg =
            "<svg viewBox=\"0 0 620 310\" role=\"img\" aria-label=\"\(escape(yLabel)) over \(escape(xLabel))\">"
        for step in 0...4 {
            let (vx, vy) = (x.0 + (x.1 - x.0) * Double(step) / 4, y.0 + (y.1 - y.0) * Double(step) / 4)
            let (px, py) = (left + width * Double(step) / 4, top + height * (1 - Double(step) / 4))
            svg += "<line class=\"grid\" x1=\"\(left)\" x2=\"\(left + width)\" y1=\"\(py)\" y2=\"\(py)\"/>"
            svg +=
                "<text x=\"\(left - 6)\" y=\"\(py + 4)\" text-anchor=\"end\">\(label(vy, y.1 - y.0))</text>"
            svg +=
                "<text x=\"\(px)\" y=\"\(top + height + 18)\" text-anchor=\"middle\">\(label(vx, x.1 - x.0))</text>"
        }
        svg +=
            "<text x=\"\(left + width / 2)\" y=\"\(top + height + 38)\" text-anchor=\"middle\">\(escape(xLabel))</text>"
        for (index, one) in series.enumerated() {
            let colour = colour(index)
            let placed = one.points.filter { $0.x.isFinite && $0.y.isFinite }.map(place)
            if one.isDots {
                svg += placed.map {
                    let parts = $0.split(separator: ",")
                    return "<circle class=\"\(colour)\" r=\"2.2\" cx=\"\(parts[0])\" cy=\"\(parts[1])\"/>"
                }.joined()
            } else {
                svg += "<polyline class=\"\(colour)\" points=\"\(placed.joined(separator: " "))\"/>"
            }
        }
        let names = series.enumerated().map {
            "<span class=\"key \(colour($0.offset))\"></span>\(escape($0.element.name))"
        }
        return
            "<figure>\(svg)</svg><figcaption>\(escape(yLabel)): \(names.joined(separator: " &ensp; "))</figcaption></figure>"
    }

    /// Six colours, drawn through, dashed, and dotted.
    private static func colour(_ index: Int) -> String {
        "c\(index % 6)" + (index < 6 ? "" : index < 12 ? " dashed" : " dotted")
    }

    private static func range(_ values: [Double]) -> (Double, Double)? {
        guard let least = values.min(), let most = values.max() else { return nil }
        return least < most ? (least, most) : (least - 0.5, most + 0.5)
    }

    private static func label(_ value: Double, _ range: Double) -> String {
        range >= 20 ? Int(value.rounded()).grouped : value.fixed(range >= 2 ? 1 : 2)
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
        circle.c0{fill:var(--c0);fill-opacity:.35}circle.c1{fill:var(--c1)}
        .key{display:inline-block;width:.8em;height:.8em;margin-right:.3em}.key.c0{background:var(--c0)}.key.c1{background:var(--c1)}.key.c2{background:var(--c2)}.key.c3{background:var(--c3)}.key.c4{background:var(--c4)}.key.c5{background:var(--c5)}
        .map td{white-space:normal;border:1px solid var(--paper);text-align:center;min-width:5.5em}.map td:first-child{text-align:left;font-family:ui-monospace,monospace;font-size:.85em}
        .none{background:var(--none);color:var(--soft)}.constant{background:var(--constant)}.vector{background:var(--vector)}.lowRank{background:var(--lowRank);color:var(--onLowRank)}
        """
}
