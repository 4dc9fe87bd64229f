import Foundation

/// What a classifier says of an image whose class is known.
public struct ScoredImage: Codable, Equatable, Sendable {
    /// What the image is called: its path, where it has one.
    public var path: String
    /// Its class, in 0..<K.
    public var label: Int
    /// The class with the largest logit, the first of equals.
    public var predicted: Int
    /// That class's, by softmax in double precision.
    public var probability: Double
    /// −ln of its own class's.
    public var loss: Double
    /// How many classes come before its own: 0 where it is right.
    public var rank: Int

    /// Of an image with these logits [K].
    public init(path: String, label: Int, logits: ArraySlice<Float>) {
        (self.path, self.label) = (path, label)
        let own = logits[logits.startIndex + label]
        predicted = logits.largest(1)[0]
        probability = softmax(logits)[predicted]
        // As a difference of logarithms: the probability itself may be too small for a number.
        let largest = Double(logits[logits.startIndex + predicted])
        loss = log(logits.reduce(0) { $0 + exp(Double($1) - largest) }) - (Double(own) - largest)
        rank = logits.enumerated().count { $1 > own || $1 == own && $0 < label }
    }
}

/// What a classifier makes of each class, from what it says of images. C is the confusion matrix, C_ij the images of class i that are
/// taken for class j:
///
///     accuracy_k = C_kk / Σ_j C_kj        precision_k = C_kk / Σ_i C_ik
///     F1_k = 2 C_kk / (Σ_j C_kj + Σ_i C_ik)
///     macro F1 = the mean of F1_k over the classes that occur, as labels or as predictions
///
/// Source of the last: scikit-learn, `f1_score(average="macro", zero_division=0)`.
public struct ClassScores: Sendable {
    /// One class's.
    public struct Class: Encodable, Sendable {
        /// Its number.
        public let index: Int
        /// Its name, where it has one.
        public let name: String?
        /// Images of it: Σ_j C_kj.
        public let count: Int
        /// Images taken for it: Σ_i C_ik.
        public let predicted: Int
        /// Images of it that are taken for it: C_kk.
        public let correct: Int
        /// nil without images of it.
        public let accuracy: Double?
        /// nil where nothing is taken for it.
        public let precision: Double?
        /// nil for a class that doesn't occur.
        public let f1: Double?
    }

    /// Images of one class that are taken for another.
    public struct Confusion: Hashable, Sendable {
        /// The images' class.
        public let label: Int
        /// What they are taken for.
        public let predicted: Int
    }

    /// [K]
    public let classes: [Class]
    /// C's elements that aren't 0.
    public let counts: [Confusion: Int]
    /// Images.
    public let count: Int
    private let ranks: [Int]

    /// Of these images; `names` are the classes' [K]. Traps on a class outside 0..<K.
    public init(_ images: [ScoredImage], classCount: Int, names: [String]?) {
        precondition(names.map { $0.count == classCount } ?? true, "a name for each class")
        var (labels, predictions) = (
            [Int](repeating: 0, count: classCount), [Int](repeating: 0, count: classCount)
        )
        var counts: [Confusion: Int] = [:]
        for image in images {
            labels[image.label] += 1
            predictions[image.predicted] += 1
            counts[Confusion(label: image.label, predicted: image.predicted), default: 0] += 1
        }
        classes = (0..<classCount).map { k in
            let correct = counts[Confusion(label: k, predicted: k)] ?? 0
            func share(_ part: Int, of whole: Int) -> Double? {
                whole == 0 ? nil : Double(part) / Double(whole)
            }
            return Class(
                index: k, name: names?[k], count: labels[k], predicted: predictions[k], correct: correct,
                accuracy: share(correct, of: labels[k]), precision: share(correct, of: predictions[k]),
                f1: share(2 * correct, of: labels[k] + predictions[k]))
        }
        (self.counts, count, ranks) = (counts, images.count, images.map(\.rank))
    }

    /// The share of the images whose class is among the `k` largest logits, 0 to 1.
    public func accuracy(top k: Int) -> Double {
        count == 0 ? 0 : Double(ranks.count { $0 < k }) / Double(count)
    }

    /// The mean F1 of the classes that occur, 0 to 1.
    public var macroF1: Double {
        let all = classes.compactMap(\.f1)
        return all.isEmpty ? 0 : all.reduce(0, +) / Double(all.count)
    }

    /// [K][K] the confusion matrix, a row for each class of images.
    public var matrix: [[Int]] {
        var rows = [[Int]](repeating: [Int](repeating: 0, count: classes.count), count: classes.count)
        for (place, count) in counts { rows[place.label][place.predicted] = count }
        return rows
    }

    /// The mistakes that are made most often, the commonest first and of equals in the order of the classes.
    public func mostConfused(_ most: Int) -> [(label: Int, predicted: Int, count: Int)] {
        let mistakes = counts.filter { $0.key.label != $0.key.predicted }.sorted {
            ($1.value, $0.key.label, $0.key.predicted) < ($0.value, $1.key.label, $1.key.predicted)
        }
        return mistakes.prefix(most).map { ($0.key.label, $0.key.predicted, $0.value) }
    }
}
