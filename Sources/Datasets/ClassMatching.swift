/// How the classes of images were matched with those of a model.
public enum ClassMatching: String, CaseIterable, Codable, Sendable {
    /// A class is that of the same name.
    case name
    /// Class k is class k: of a list's labels, or of folders by rank.
    case number
}

extension ImageList {
    /// The same images with the classes numbered as a model numbers them.
    ///
    /// Where both sides have names, a class is that of the same name: the images may lack classes of the model and may have
    /// theirs in another order. Otherwise class k is class k; folders go by rank then, so their number has to be the model's.
    /// Labels and values are matched alike; a label that the images don't speak of doesn't hold for them, but no value may be missing.
    ///
    /// - `names`: [classCount] the model's, if it has any. Traps on another number of them.
    /// - `way`: by number although there are names, or by name and never by number.
    /// - `owner`: what messages call the model.
    ///
    /// Throws `DatasetError`, which lists the classes, when an image's class is unknown, ambiguous or out of range, or when
    /// nothing tells which class is which.
    public func matched(
        to names: [String]?, classCount: Int, by way: ClassMatching? = nil, of owner: String = "the model"
    ) throws -> ImageList {
        precondition(names.map { $0.count == classCount } ?? true, "\(owner) names another number of classes")
        var matched = self
        if way != .number, let own = classNames, let names {
            if own != names { matched = try renumbered(own, names, owner) }
            matched.matching = .name
            return matched
        }
        guard way != .name else {
            throw DatasetError(
                "\(name) can't be matched with \(owner) by name: \(classNames == nil ? name : owner) has no "
                    + "\(task.singular) names; match by number with `match-classes number`.")
        }
        if way == nil, let own = classNames, own.count != classCount {
            throw DatasetError(
                "\(name) has \(own.count) \(task) (\(enumeration(own))), \(owner) \(classCount) without names, and "
                    + "nothing tells which is which; use data of \(classCount) \(task), or match by number with "
                    + "`match-classes number`.")
        }
        // Of classes fewer may occur; targets have a column for each.
        if task != .classes, self.classCount != classCount {
            throw DatasetError(
                "\(name) has \(task.counted(self.classCount)), \(owner) \(classCount), and by number each needs its own; "
                    + "use data of \(classCount) \(task).")
        }
        if let sample = samples.first(where: { $0.label >= classCount }) {
            throw DatasetError(
                "\(name): the label \(sample.label) of \(sample.path) is out of range; \(owner) has \(classCount) "
                    + "classes, 0 to \(classCount - 1).")
        }
        matched.classCount = classCount
        matched.classNames = names
        matched.matching = .number
        return matched
    }

    /// Class k, called `own[k]`, as the class of that name in `names`.
    private func renumbered(_ own: [String], _ names: [String], _ owner: String) throws -> ImageList {
        let places = Dictionary(grouping: names.indices) { names[$0] }
        let counts = Dictionary(own.map { ($0, 1) }, uniquingKeysWith: +)
        let sizes = classSizes
        let used = own.indices.filter { sizes[$0] > 0 }.map { own[$0] }

        let instead = "or match by number with `match-classes number`"
        let unknown = used.filter { places[$0] == nil }
        guard unknown.isEmpty else {
            throw DatasetError(
                "\(name) has \(task) that \(owner) doesn't know: \(enumeration(unknown)); it knows "
                    + "\(enumeration(names)). Rename or remove them, \(instead).")
        }
        let missing = task == .values ? names.filter { !own.contains($0) } : []
        guard missing.isEmpty else {
            throw DatasetError(
                "\(name) lacks values that \(owner) has: \(enumeration(missing)); add columns for them.")
        }
        if let double = used.first(where: { counts[$0]! > 1 || places[$0]!.count > 1 }) {
            throw DatasetError(
                "several \(task) of \(counts[double]! > 1 ? name : owner) are called '\(double)', and nothing tells "
                    + "which is meant; give each its own name, \(instead).")
        }
        // A name that no image has may be unknown.
        return ImageList(self, labels: own.map { places[$0]?[0] ?? -1 }, names: names)
    }
}

/// `a, b, c and 93 more`.
func enumeration(_ words: [String], atMost limit: Int = 10) -> String {
    let more = words.count - limit
    return words.prefix(limit).joined(separator: ", ") + (more > 0 ? " and \(more) more" : "")
}
