import Foundation
import ModelConfiguration

extension ViTConfiguration {
    /// What differs from `other`, as `heads 8, not 4`.
    package func differences(from other: ViTConfiguration) -> [String] {
        let (mine, theirs) = (leaves, other.leaves)
        return Set(mine.keys).union(theirs.keys).sorted().filter { mine[$0] != theirs[$0] }
            .map { "\($0) \(mine[$0] ?? "unset"), not \(theirs[$0] ?? "unset")" }
    }

    /// Every value by its name; those of `preprocessing` as `preprocessing.mean`.
    private var leaves: [String: String] {
        func leaves(_ value: JSONValue, _ name: String) -> [(String, String)] {
            guard let members = value.objectValue else { return [(name, value.text())] }
            return members.flatMap { leaves($1, name.isEmpty ? $0 : "\(name).\($0)") }
        }
        guard let data = try? JSONEncoder().encode(self), let value = try? JSONValue(parsing: data) else {
            preconditionFailure("a configuration can't be encoded")
        }
        return Dictionary(uniqueKeysWithValues: leaves(value, ""))
    }
}
