import Datasets
import Foundation
import TensorBoard

/// A training for TensorBoard: its events in a folder of the run's name inside the log directory, so that runs stand side by side.
///
/// | tag | when |
/// | --- | --- |
/// | `train/loss`, `train/lr`, `train/gradient_norm`, `train/images_per_second` | after a step |
/// | `train/epoch_loss` | after an epoch |
/// | `validation/accuracy` (of labels `validation/mean_average_precision`, of values `validation/r2`), `validation/loss`, and `validation/unaveraged_…` beside a moving average | after a validation |
/// | `train/samples`, a few images, each as it is scored and as four epochs train on it | at the beginning |
/// | `validation/confusion`, a picture of the confusion matrix | after the best validation so far |
struct EventLog {
    private let writer: EventWriter
    private let classNames: [String]?
    private let metric: Metric
    private let step: Step

    private final class Step { var value = 0 }

    /// Of the run in `run`, a new one or one that goes on from `state`: what TensorBoard has of later steps is dropped then. Throws
    /// `EventError`.
    init(
        _ path: String, run: URL, isNew: Bool, from state: TrainingState, classNames: [String]?,
        _ metric: Metric
    ) throws {
        (self.classNames, self.metric) = (classNames, metric)
        step = Step()
        step.value = state.step
        writer = try EventWriter(
            folder: EventLog.folder(path, run), purgeStep: isNew ? nil : state.step + 1)
    }

    private static func folder(_ path: String, _ run: URL) -> URL {
        URL(fileURLWithPath: path).appendingPathComponent(run.lastPathComponent)
    }

    /// Makes the folder of a new run. Throws `TrainingError.settings` where it can't be, and where another run of that name has written
    /// its events: both would be one zigzag.
    static func makeFolder(_ path: String, run: URL) throws {
        let folder = folder(path, run)
        do {
            try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
        } catch {
            throw TrainingError.settings(
                "cannot make the folder \(folder.path) for `log-dir`; check its parent's permissions and that no file has its "
                    + "name")
        }
        let names = (try? FileManager.default.contentsOfDirectory(atPath: folder.path)) ?? []
        guard names.contains(where: { $0.contains("tfevents") }) else { return }
        throw TrainingError.settings(
            "\(folder.path) holds the events of another run of that name; give another `log-dir` or `run`, or remove it"
        )
    }

    /// Throws `EventError`.
    func add(_ event: TrainingEvent) throws {
        func scalar(_ tag: String, _ value: Double?) throws {
            if let value { try writer.scalar(tag, value, step: step.value) }
        }
        switch event {
        case .step(let progress):
            step.value = progress.step
            try scalar("train/loss", progress.loss)
            try scalar("train/lr", progress.learningRate)
            try scalar("train/gradient_norm", progress.gradientNorm)
            try scalar("train/images_per_second", progress.imagesPerSecond)
        case .epoch(_, let loss, _): try scalar("train/epoch_loss", loss)
        case .validation(_, let validation):
            let metric = metric.name.lowercased().replacing(" ", with: "_").replacing("²", with: "2")
            try scalar("validation/\(metric)", validation.result.score)
            try scalar("validation/loss", validation.result.loss)
            try scalar("validation/unaveraged_\(metric)", validation.unaveraged?.score)
            try scalar("validation/unaveraged_loss", validation.unaveraged?.loss)
            if validation.isBest, !validation.confusions.isEmpty { try confusion(validation.confusions) }
        }
    }

    /// More classes than a picture of a screen's width shows are left out.
    private static let mostClasses = 2000

    private func confusion(_ confusions: [ClassScores.Confusion: Int]) throws {
        let count = classNames?.count ?? 1 + (confusions.keys.map { max($0.label, $0.predicted) }.max() ?? -1)
        guard (1...Self.mostClasses).contains(count) else { return }
        var matrix = Array(repeating: Array(repeating: 0, count: count), count: count)
        for (place, number) in confusions { matrix[place.label][place.predicted] = number }
        let picture = ConfusionPicture(matrix)
        try add(
            "validation/confusion",
            RGBImage(width: picture.side, height: picture.side, pixels: picture.pixels))
    }

    /// Throws `EventError`.
    func add(samples: RGBImage) throws { try add("train/samples", samples) }

    private func add(_ tag: String, _ image: RGBImage) throws {
        try writer.image(
            tag, png: Data(try image.png()), width: image.width, height: image.height, step: step.value)
    }

    func close() throws { try writer.close() }
}
