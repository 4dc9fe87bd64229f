/// A confusion matrix N [C, C] as a picture: row i is of the images of class i, column j of those taken for class j.
///
///     p_ij = N_ij / Σ_j N_ij          white at 0, dark blue at 1; a row without images is grey
///
/// A cell has 400 / C pixels, at least 1; of more than 1,000 classes a pixel stands for several cells and shows the largest p, so
/// that no mistake is lost. (To draw all of ImageNet-21k's would take 1.4 GB.)
public struct ConfusionPicture: Equatable, Sendable {
    /// Pixels of each side, at most 1,000.
    public let side: Int
    /// [side, side, 3] red, green and blue.
    public let pixels: [UInt8]

    private static let full: [Double] = [8, 48, 107]

    /// Of the counts [C][C], a row for each class of images. Traps unless they are square and at least one.
    public init(_ counts: [[Int]]) {
        let classes = counts.count
        precondition(
            classes > 0 && counts.allSatisfy { $0.count == classes }, "a confusion matrix is square")
        let side = min(classes * max(1, 400 / classes), 1000)
        func range(_ pixel: Int) -> Range<Int> {
            let first = pixel * classes / side
            return first..<max(first + 1, (pixel + 1) * classes / side)
        }
        let sums = counts.map { Double($0.reduce(0, +)) }
        var pixels = [UInt8](repeating: 225, count: side * side * 3)
        for y in 0..<side {
            let rows = range(y).filter { sums[$0] > 0 }
            guard !rows.isEmpty else { continue }
            for x in 0..<side {
                let share = rows.reduce(0) { most, row in
                    range(x).reduce(most) { max($0, Double(counts[row][$1]) / sums[row]) }
                }
                for (channel, value) in ConfusionPicture.full.enumerated() {
                    pixels[(y * side + x) * 3 + channel] = UInt8((255 + share * (value - 255)).rounded())
                }
            }
        }
        (self.side, self.pixels) = (side, pixels)
    }
}
