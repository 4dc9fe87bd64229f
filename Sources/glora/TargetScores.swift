import Datasets
import Training
import VisionModels

/// What `eval` says of a model of labels or values.
struct TargetScores {
    struct Result: Encodable {
        let task: String
        // Of labels.
        var meanAveragePrecision: Double?
        var labels: [Label]?
        // Of values.
        var r2: Double?
        var meanAbsoluteError: Double?
        var values: [Value]?
        let loss: Double
        let count: Int
        let split: String
    }

    struct Label: Encodable {
        let index: Int
        let name: String?
        /// Images that have it.
        let count: Int
        let averagePrecision: Double?
    }

    struct Value: Encodable {
        let index: Int
        let name: String?
        let r2: Double?
        let meanAbsoluteError: Double?
    }

    private let ready: ReadyModel<VisionTransformer>
    private let score: EvaluationResult
    private let outputs, targets: [Float]  // [N · K]
    private var count: Int { ready.model.configuration.classCount }

    /// Throws what `evaluate` throws.
    init(_ ready: ReadyModel<VisionTransformer>, on images: PreparedImages, batchSize: Int) throws {
        self.ready = ready
        var (outputs, targets): ([Float], [Float]) = ([], [])
        score = try evaluate(ready.model, on: images, batchSize: batchSize) { some, batch in
            outputs += some
            targets += batch.indices.flatMap { images.targets(at: $0) }
        }
        (self.outputs, self.targets) = (outputs, targets)
    }

    private var labels: [Label] {
        let metrics = LabelMetrics(outputs: outputs, targets: targets, count: count)
        return metrics.averagePrecision.enumerated().map { k, precision in
            Label(
                index: k, name: ready.classNames?[k],
                count: stride(from: k, to: targets.count, by: count).count { targets[$0] > 0 },
                averagePrecision: precision)
        }
    }

    private var values: [Value] {
        let metrics = ValueMetrics(outputs: outputs, targets: targets, count: count)
        return metrics.r2.indices.map { k in
            Value(
                index: k, name: ready.classNames?[k], r2: metrics.r2[k],
                meanAbsoluteError: metrics.absoluteError[k])
        }
    }

    private var meanAbsoluteError: Double? {
        ValueMetrics(outputs: outputs, targets: targets, count: count).meanAbsoluteError
    }

    /// `mean average precision 71.20 %, loss 0.4213`.
    var line: String {
        let metric = ready.options.metric
        let error = ready.task == .values ? ", mean absolute error \((meanAbsoluteError ?? 0).short(4))" : ""
        return
            "\(metric.name) \(metric.text(score.score))\(error), loss \(score.loss.short(4)) (\(score.count) images)"
    }

    /// A row for each label or value.
    var table: Table {
        func title(_ index: Int, _ name: String?) -> String {
            name.map { String($0.prefix(24)) } ?? "\(index)"
        }
        if ready.task == .labels {
            return Table(
                head: ["label", "images", "average precision"],
                rows: labels.map { label in
                    let precision = label.averagePrecision.map {
                        Metric.meanAveragePrecision.text($0, decimals: 1)
                    }
                    return [title(label.index, label.name), "\(label.count)", precision ?? "no image has it"]
                })
        }
        return Table(
            head: ["value", "R²", "mean absolute error"],
            rows: values.map { value in
                [
                    title(value.index, value.name), value.r2.map { Metric.r2.text($0) } ?? "",
                    value.meanAbsoluteError.map { $0.short(4) } ?? "",
                ]
            })
    }

    func result(split: String) -> Result {
        var result = Result(task: ready.task.rawValue, loss: score.loss, count: score.count, split: split)
        if ready.task == .labels {
            (result.meanAveragePrecision, result.labels) = (score.score, labels)
        } else {
            (result.r2, result.meanAbsoluteError, result.values) = (score.score, meanAbsoluteError, values)
        }
        return result
    }
}

extension Double {
    /// With so many digits that count: 0.0123, 1234.
    fileprivate func short(_ digits: Int) -> String { String(format: "%.\(digits)g", self) }
}
