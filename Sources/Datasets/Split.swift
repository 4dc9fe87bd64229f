/// Which images of a task: the four that every task may have, or a list or table by name.
public enum Split: Equatable, Sendable, CustomStringConvertible {
    /// `train800`, an ImageFolder's `train`.
    case train
    /// `val200`, an ImageFolder's `val`, `valid` or `validation`.
    case validation
    /// `train800val200`: both of the above.
    case trainAndValidation
    /// `test`.
    case test
    /// A list file or table of the task's folder, without or with `.txt` or `.csv`.
    case named(String)

    /// From what a user writes: `train`, `train800`, `val`, `valid`, `validation`, `val200`, `trainval`,
    /// `train800val200`, `test`, or the name of a list file or table.
    public init(_ name: String) {
        switch name {
        case "train", "train800": self = .train
        case "val", "valid", "validation", "val200": self = .validation
        case "trainval", "train800val200": self = .trainAndValidation
        case "test": self = .test
        default: self = .named(name)
        }
    }

    /// VTAB-1K's name.
    public var description: String {
        switch self {
        case .train: "train800"
        case .validation: "val200"
        case .trainAndValidation: "train800val200"
        case .test: "test"
        case .named(let name): name
        }
    }
}
