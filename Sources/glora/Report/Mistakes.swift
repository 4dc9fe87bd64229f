import Datasets
import Foundation
import Training

/// What a run's predictions of a split look like on a page: how many are right, what is taken for what, and the worst mistakes.
struct Mistakes {
    private let predictions: StoredPredictions
    private let scores: ClassScores

    /// How many of the worst mistakes are shown, and how large, in pixels.
    private static let (shown, side) = (12, 128)
    /// A picture of more classes would have cells of a pixel.
    private static let largestPicture = 400

    /// Of the test split, or else of the validation split; nil where the run keeps neither. Throws as
    /// `RunDirectory.predictions(on:)`.
    init?(_ run: RunDirectory) throws {
        guard let kept = try run.predictions(on: "test") ?? run.predictions(on: "val") else { return nil }
        predictions = kept
        let names = try run.configuration().classNames
        let classCount = kept.header.classCount
        guard names.map({ $0.count == classCount }) ?? true else {
            throw TrainingError.run(
                "\(run.url.path) has predictions of \(classCount) classes and a configuration of "
                    + "\(names?.count ?? 0); its files don't belong together")
        }
        scores = ClassScores(kept.images, classCount: classCount, names: names)
    }

    /// The split that it is of.
    var split: String { predictions.header.split }

    /// All of it.
    var html: String {
        let right = predictions.images.count { $0.rank == 0 }
        let line =
            "\(right) of \(predictions.images.count) images right "
            + "(\((100 * Double(right) / Double(predictions.images.count)).fixed(2)) %), macro F1 "
            + "\((100 * scores.macroF1).fixed(2)) %; the \(predictions.header.checkpoint.rawValue) state, step "
            + "\(predictions.header.step)"
        return "<p>\(Page.escape(line))</p>" + matrix + confusions + gallery
    }

    // MARK: Confusion matrix

    /// The confusion matrix of the classes that occur: a cell's shade is its share of its row.
    private var matrix: String {
        let classes = scores.classes.filter { $0.f1 != nil }
        guard classes.count <= Mistakes.largestPicture else { return "" }
        let places = Dictionary(uniqueKeysWithValues: classes.enumerated().map { ($1.index, $0) })
        // Up to 30 names fit beside their rows, up to 15 numbers into their cells.
        let isNamed = classes.count <= 30
        let (left, top, size) = (isNamed ? 150.0 : 24.0, isNamed ? 110.0 : 24.0, 440.0)
        let cell = size / Double(classes.count)
        func at(_ place: Int, from start: Double) -> String { (start + Double(place) * cell).fixed(2) }
        var svg =
            "<svg viewBox=\"0 0 620 \((top + size + 8).fixed(0))\" role=\"img\" aria-label=\"confusion matrix\">"
            + "<rect class=\"ground\" x=\"\(left)\" y=\"\(top)\" width=\"\(size)\" height=\"\(size)\"/>"
        for (place, count) in scores.counts.sorted(by: {
            ($0.key.label, $0.key.predicted) < ($1.key.label, $1.key.predicted)
        }) {
            guard let row = places[place.label], let column = places[place.predicted] else { continue }
            let share = Double(count) / Double(classes[row].count)
            let title = "\(classes[row].title) as \(classes[column].title): \(count) of \(classes[row].count)"
            svg +=
                "<rect class=\"\(row == column ? "right" : "wrong")\" x=\"\(at(column, from: left))\" "
                + "y=\"\(at(row, from: top))\" width=\"\(cell.fixed(2))\" height=\"\(cell.fixed(2))\" "
                + "fill-opacity=\"\((0.15 + 0.85 * share).fixed(3))\"><title>\(Page.escape(title))</title></rect>"
            if classes.count <= 15 {
                svg +=
                    "<text class=\"\(share > 0.5 ? "on" : "beside")\" x=\"\(at(column, from: left + cell / 2))\" "
                    + "y=\"\(at(row, from: top + cell / 2))\" dy=\"4\" text-anchor=\"middle\">\(count)</text>"
            }
        }
        if isNamed {
            for (place, one) in classes.enumerated() {
                let name = Page.escape(one.title.count > 20 ? one.title.prefix(19) + "…" : one.title)
                svg +=
                    "<text x=\"\(left - 6)\" y=\"\(at(place, from: top + cell / 2))\" dy=\"4\" text-anchor=\"end\">\(name)</text>"
                let (x, y) = (at(place, from: left + cell / 2), (top - 6).fixed(0))
                svg +=
                    "<text x=\"\(x)\" y=\"\(y)\" dx=\"4\" transform=\"rotate(-60 \(x) \(y))\">\(name)</text>"
            }
        }
        return
            "<figure class=\"matrix\">\(svg)</svg><figcaption>rows: the images' classes; columns: what they are taken for; "
            + "the shade is the share of the row</figcaption></figure>"
    }

    private var confusions: String {
        let confused = scores.mostConfused(10)
        guard !confused.isEmpty else { return "" }
        return Page.table(
            ["class", "taken for", "images", "of"],
            confused.map { label, predicted, count in
                [
                    scores.classes[label].title, scores.classes[predicted].title, "\(count)",
                    "\(scores.classes[label].count)",
                ]
            })
    }

    // MARK: Worst mistakes

    /// The mistakes in which the image's own class was thought least likely.
    private var gallery: String {
        let worst = predictions.images.enumerated().filter { $1.rank > 0 }
            .sorted { ($1.element.loss, $0.offset) < ($0.element.loss, $1.offset) }
            .prefix(Mistakes.shown).map(\.element)
        guard !worst.isEmpty else { return "<p>no mistakes</p>" }
        return "<h3>The worst mistakes</h3><div class=\"gallery\">"
            + worst.map { image in
                let (own, other) = (scores.classes[image.label].title, scores.classes[image.predicted].title)
                let name = Page.escape(image.path)
                let picture =
                    thumbnail(image.path).map {
                        "<img src=\"data:image/jpeg;base64,\($0)\" alt=\"\(name)\" title=\"\(name)\">"
                    } ?? "<p title=\"\(name)\">the image can't be read any more</p>"
                return
                    "<figure class=\"mistake\">\(picture)<figcaption><b>\(Page.escape(own))</b><br>taken for "
                    + "<b>\(Page.escape(other))</b> (\((100 * image.probability).fixed(0)) %)</figcaption></figure>"
            }.joined() + "</div>"
    }

    /// A JPEG in base64; nil where the image isn't there any more.
    private func thumbnail(_ path: String) -> String? {
        guard let image = try? RGBImage(contentsOf: path) else { return nil }
        return try? Data(image.fitted(into: Mistakes.side).jpeg()).base64EncodedString()
    }
}

extension ClassScores.Class {
    /// Its name, or its number.
    var title: String { name ?? "\(index)" }
}
