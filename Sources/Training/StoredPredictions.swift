import Checkpoints
import Datasets
import Foundation
import VisionModels

/// What a run's state says of the images of a split: `predictions-SPLIT.jsonl` in the run's folder, a header and a line for each
/// image.
public struct StoredPredictions: Equatable, Sendable {
    /// What the images are, and which state it was.
    public struct Header: Codable, Equatable, Sendable {
        /// The file format; a reader refuses another.
        public var formatVersion = 1
        /// The split: `test`, `val`, or a list's name.
        public var split: String
        /// The state.
        public var checkpoint: RunState
        /// The run's step that it is of.
        public var step: Int
        /// K.
        public var classCount: Int

        /// A header of these.
        public init(split: String, checkpoint: RunState, step: Int, classCount: Int) {
            (self.split, self.checkpoint, self.step, self.classCount) = (split, checkpoint, step, classCount)
        }
    }

    /// The first line.
    public let header: Header
    /// The images, in the split's order.
    public let images: [ScoredImage]

    /// Predictions under a header. Traps on a class outside 0..<K.
    public init(_ header: Header, _ images: [ScoredImage]) {
        precondition(
            images.allSatisfy { $0.isOf(header.classCount) }, "images of \(header.classCount) classes")
        (self.header, self.images) = (header, images)
    }
}

extension ScoredImage {
    fileprivate func isOf(_ classCount: Int) -> Bool {
        (0..<classCount).contains(label) && (0..<classCount).contains(predicted)
            && (0..<classCount).contains(rank)
            && (0...1).contains(probability) && loss.isFinite
    }
}

extension RunDirectory {
    private func predictions(of split: String) -> URL {
        url.appendingPathComponent("predictions-\(split).jsonl")
    }

    /// Keeps what a state says of a split, in place of what an earlier one said. Throws `CheckpointError`.
    public func write(_ predictions: StoredPredictions) throws {
        var text = try AtomicFile.json(predictions.header)
        for image in predictions.images { text += try AtomicFile.json(image) }
        try AtomicFile.write(text, to: self.predictions(of: predictions.header.split))
    }

    /// What a state said of a split, if that is kept. Throws `TrainingError.run` for a file that `write` didn't make, and
    /// `CheckpointError`.
    public func predictions(on split: String) throws -> StoredPredictions? {
        let file = predictions(of: split)
        guard FileManager.default.fileExists(atPath: file.path) else { return nil }
        let decoder = JSONDecoder()
        var header: StoredPredictions.Header?
        var images: [ScoredImage] = []
        func failure(_ what: String) -> TrainingError {
            .run("\(file.path) \(what); remove it, and score the split again")
        }
        try forEachLine(of: file) { line in
            guard let known = header else {
                header = try? decoder.decode(StoredPredictions.Header.self, from: Data(line))
                guard let header, header.formatVersion == 1,
                    (1...ImageList.largestClassCount).contains(header.classCount)
                else { throw failure("has no header of predictions, or one of another format version") }
                return
            }
            guard let image = try? decoder.decode(ScoredImage.self, from: Data(line)),
                image.isOf(known.classCount)
            else { throw failure("has a line \(images.count + 2) that is none of predictions") }
            images.append(image)
        }
        guard let header, !images.isEmpty else { throw failure("has no predictions") }
        return StoredPredictions(header, images)
    }

    /// Removes what states that are there no more have said.
    func removePredictions() {
        let names = (try? FileManager.default.contentsOfDirectory(atPath: url.path)) ?? []
        for name in names where name.hasPrefix("predictions-") && name.hasSuffix(".jsonl") {
            try? FileManager.default.removeItem(at: url.appendingPathComponent(name))
        }
    }
}

/// Scores `model` on every image of a split, as `evaluate`, and says what it makes of each.
public func score(
    _ model: VisionTransformer, on images: PreparedImages, batchSize: Int
) throws -> (result: EvaluationResult, images: [ScoredImage]) {
    var scored: [ScoredImage] = []
    scored.reserveCapacity(images.count)
    let result = try evaluate(model, on: images, batchSize: batchSize) { outputs, batch in
        let classes = outputs.count / batch.count
        for (row, index) in batch.indices.enumerated() {
            scored.append(
                ScoredImage(
                    path: images.exampleName(at: index), label: Int(batch.labels[row]),
                    logits: outputs[row * classes..<(row + 1) * classes]))
        }
    }
    return (result, scored)
}
