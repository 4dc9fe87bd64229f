import Checkpoints
import Datasets
import Foundation
import Training

/// How predictions are written, by the file's name.
enum PredictionForm: String {
    /// RFC 4180: a line for each image, below a line of names.
    case csv
    /// A JSON object a line.
    case jsonl

    init?(_ file: String) { self.init(rawValue: URL(fileURLWithPath: file).pathExtension) }
}

/// Predictions as the lines of a file.
///
/// Logits are written with as many digits as bring their float32 back, probabilities with those of their double.
struct PredictionTable {
    private let form: PredictionForm
    private let task: LearningTask
    /// [K] the classes' names, or their numbers from 0.
    private let names: [String]
    private let top: Int
    private let logits: Bool

    /// `top` classes of an image, or all where there are fewer; with `logits` all of those.
    init(
        _ form: PredictionForm, _ task: LearningTask, classCount: Int, names: [String]?, top: Int,
        logits: Bool
    ) {
        (self.form, self.task) = (form, task)
        self.names = names ?? (0..<classCount).map(String.init)
        self.top = min(top, classCount)
        self.logits = logits
    }

    /// What is above the first row: the names of CSV's columns.
    var head: String {
        guard form == .csv else { return "" }
        let logits = logits ? names.map { "logit_\($0)" } : []
        guard task == .classes else { return PredictionTable.row(["path"] + names + logits) }
        let further = (1..<top).flatMap { ["class_\($0 + 1)", "probability_\($0 + 1)"] }
        return PredictionTable.row(
            ["path", "class", "probability"] + further + logits)
    }

    /// The rows of images with these outputs [B, K] and paths [B].
    func rows(_ outputs: [Float], _ paths: [String]) -> String {
        var text = ""
        for (index, path) in paths.enumerated() {
            let own = outputs[index * names.count..<(index + 1) * names.count]
            let numbers = logits ? own.map { "\($0)" } : []
            guard task == .classes else {
                text += row(
                    path, task == .labels ? own.map { "\(sigmoid($0))" } : own.map { "\($0)" }, numbers)
                continue
            }
            let probabilities = softmax(own)
            let likeliest = own.largest(top).map { (name: names[$0], probability: "\(probabilities[$0])") }
            switch form {
            case .csv:
                text += PredictionTable.row(
                    [path] + likeliest.flatMap { [$0.name, $0.probability] } + numbers)
            case .jsonl:
                let list = likeliest.map {
                    "{\"class\":\(quoted($0.name)),\"probability\":\($0.probability)}"
                }
                text += "{\"path\":\(quoted(path)),"
                text += "\"class\":\(quoted(likeliest[0].name)),\"probability\":\(likeliest[0].probability),"
                text += "\"top\":[\(list.joined(separator: ","))]"
                text += (logits ? ",\"logits\":[\(numbers.joined(separator: ","))]" : "") + "}\n"
            }
        }
        return text
    }

    /// The row of an image of which each label's probability or each value is said.
    private func row(_ path: String, _ said: [String], _ logits: [String]) -> String {
        guard form == .jsonl else { return PredictionTable.row([path] + said + logits) }
        let all = zip(names, said).map { "\(quoted($0)):\($1)" }.joined(separator: ",")
        return "{\"path\":\(quoted(path)),\"\(task.rawValue)\":{\(all)}"
            + (logits.isEmpty ? "" : ",\"logits\":[\(logits.joined(separator: ","))]") + "}\n"
    }

    private func quoted(_ word: String) -> String { JSONValue.string(word).text() }

    private func sigmoid(_ logit: Float) -> Double { 1 / (1 + exp(-Double(logit))) }

    /// A line of CSV; a cell with a comma, a quotation mark or the end of a line stands between quotation marks.
    private static func row(_ cells: [String]) -> String {
        cells.map { cell in
            guard cell.unicodeScalars.contains(where: { ",\"\r\n".unicodeScalars.contains($0) }) else {
                return cell
            }
            // By scalars: a quotation mark and an accent on it are one character.
            return "\"" + cell.unicodeScalars.map { $0 == "\"" ? "\"\"" : String($0) }.joined() + "\""
        }.joined(separator: ",") + "\n"
    }
}
