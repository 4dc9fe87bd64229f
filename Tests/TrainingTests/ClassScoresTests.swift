import Foundation
import Testing
import Training

@Suite("What a classifier makes of each class")
struct ClassScoresTests {
    private func image(_ label: Int, _ predicted: Int, rank: Int? = nil) -> ScoredImage {
        var image = ScoredImage(path: "", label: label, logits: [0, 0, 0, 0, 0])
        (image.predicted, image.rank) = (predicted, rank ?? (label == predicted ? 0 : 1))
        return image
    }

    /// By hand, and by scikit-learn's f1_score(average="macro", zero_division=0).
    @Test("Macro F1 is the mean over the classes that occur as labels or as predictions")
    func macroF1() throws {
        let pairs = [(0, 0), (0, 0), (0, 1), (1, 1), (1, 3), (2, 0), (2, 0)]
        let scores = ClassScores(
            pairs.map { image($0, $1) }, classCount: 5, names: ["a", "b", "c", "d", "e"])
        // Class 0: 2 of 3 and 2 of 4, F1 4/7. Class 1: 1 of 2 and 1 of 2, 1/2. Class 2: 0. Class 3: predicted alone, 0. Class 4: absent.
        #expect(scores.classes.map(\.f1) == [4.0 / 7, 0.5, 0, 0, nil])
        #expect(scores.classes.map(\.accuracy) == [2.0 / 3, 0.5, 0, nil, nil])
        #expect(scores.classes.map(\.precision) == [0.5, 0.5, nil, 0, nil])
        #expect(scores.classes.map(\.count) == [3, 2, 2, 0, 0])
        #expect(scores.classes.map(\.predicted) == [4, 2, 0, 1, 0])
        #expect(abs(scores.macroF1 - (4.0 / 7 + 0.5) / 4) < 1e-15)
        #expect(
            scores.matrix == [
                [2, 1, 0, 0, 0], [0, 1, 0, 1, 0], [2, 0, 0, 0, 0], [0, 0, 0, 0, 0], [0, 0, 0, 0, 0],
            ])
        let confused = scores.mostConfused(2)
        #expect(
            confused.map(\.label) == [2, 0] && confused.map(\.predicted) == [0, 1]
                && confused.map(\.count) == [2, 1])
        #expect(scores.classes[4].name == "e" && scores.count == 7)
    }

    @Test("Top k counts the images whose class is among the k largest logits, the first of equals first")
    func top() {
        let logits: [ArraySlice<Float>] = [[3, 1, 2, 2], [0, 5, 5, -1], [1, 1, 1, 1]]
        let images = zip(logits, [3, 2, 3]).map { ScoredImage(path: "p", label: $1, logits: $0) }
        #expect(images.map(\.rank) == [2, 1, 3] && images.map(\.predicted) == [0, 1, 0])
        let scores = ClassScores(images, classCount: 4, names: nil)
        #expect((1...4).map { scores.accuracy(top: $0) } == [0, 1.0 / 3, 2.0 / 3, 1])
        #expect(logits[0].largest(3) == [0, 2, 3] && logits[1].largest(9) == [1, 2, 0, 3])
        // A slice counts from its own start.
        #expect(([9, 9, 1, 3, 2] as [Float])[2...].largest(2) == [1, 2])
    }

    @Test("Probabilities and losses are those of double precision, however large the logits are")
    func softmaxes() {
        let probabilities = softmax([1000, 999, -1000])
        #expect(abs(probabilities[0] - 1 / (1 + exp(-1))) < 1e-15 && probabilities[2] == 0)
        #expect(abs(softmax([0.25, -3, 17.5, 2]).reduce(0, +) - 1) < 1e-15)
        let image = ScoredImage(path: "p", label: 2, logits: [1000, 999, -1000])
        #expect(abs(image.loss - (2000 + log(1 + exp(-1)))) < 1e-9)
        #expect(image.probability == probabilities[0] && image.rank == 2)
    }
}
