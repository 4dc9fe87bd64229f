/// What a head learns to say of an image.
public enum LearningTask: String, CaseIterable, Codable, Sendable {
    /// One of K classes.
    case classes
    /// For each of K labels whether it holds: none, one or several do.
    case labels
    /// K numbers: regression.
    case values

    /// `class`.
    var singular: String {
        switch self {
        case .classes: "class"
        case .labels: "label"
        case .values: "value"
        }
    }

    /// `1 class`, `7 labels`.
    func counted(_ count: Int) -> String { "\(count) \(count == 1 ? singular : rawValue)" }
}
