import TensorCore

/// A data set that the program draws itself: where the default backbone is pretrained (`source`), and three target
/// tasks of 32 × 32 images for `glora demo`.
///
/// Image i of (task, split, seed) is a pure function: nothing is stored, and every machine draws the same bytes.
public enum GeneratedTask: String, CaseIterable, Sendable {
    /// One large bright object among clutter, in any position, size, turn and colours: 8 outlines × 4 fills.
    ///
    /// Bright on dark throughout: with either contrast a small backbone learned several times slower.
    case source
    /// How many small objects there are, 1 to 8.
    case counting
    /// Where an arrow points, in 8 directions.
    case orientation
    /// The source's classes as dark ink on noisy paper.
    case shiftedStyle

    /// The word that a command line uses: `source`, `counting`, `orientation`, `shifted-style`.
    public var name: String { self == .shiftedStyle ? "shifted-style" : rawValue }

    /// A name for each label, in the labels' order.
    public var classNames: [String] {
        switch self {
        case .source, .shiftedStyle:
            Shape.ofSource.flatMap { shape in Fill.allCases.map { "\(shape)-\($0)" } }
        case .counting: (1...GeneratedTask.largestCount).map { "\($0)" }
        case .orientation:
            (0..<GeneratedTask.directionCount).map { "\($0 * 360 / GeneratedTask.directionCount)-degrees" }
        }
    }

    static let largestCount = 8
    static let directionCount = 8

    /// [32, 32, 3] bytes of the picture of `label` that `random` yields.
    func render(label: Int, _ random: Random) -> [UInt8] {
        var scene = Scene(random)
        switch self {
        case .source: scene.paintSource(label: label)
        case .counting: scene.paintCounting(label: label)
        case .orientation: scene.paintOrientation(label: label)
        case .shiftedStyle: scene.paintShiftedStyle(label: label)
        }
        return scene.canvas.bytes()
    }
}
