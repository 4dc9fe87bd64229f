import Foundation
import Yams

extension TrainingOptions {
    /// Every setting that says something by its flag's name, without the dashes, as the command line takes it.
    public func flags() throws -> [String: String] {
        let node = try Yams.compose(yaml: try YAMLEncoder().encode(self))
        let pairs = (node?.mapping ?? [:]).map { key, value in
            (
                key.string ?? "",
                value.string ?? value.sequence?.compactMap(\.string).joined(separator: ",") ?? ""
            )
        }
        return Dictionary(uniqueKeysWithValues: pairs)
    }

    /// In which flags these settings differ from `others`, as `--epochs 3, not 2`. Where the model and the data lie is left
    /// out: their hashes decide.
    public func differences(from others: TrainingOptions) throws -> [String] {
        let (mine, theirs) = (try flags(), try others.flags())
        return Set(mine.keys).union(theirs.keys).subtracting(["model", "data"]).sorted()
            .filter { mine[$0] != theirs[$0] }
            .map { "--\($0) \(mine[$0] ?? "unset"), not \(theirs[$0] ?? "unset")" }
    }
}
