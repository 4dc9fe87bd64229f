import Foundation

/// What a person is told of the data before they are used: how many images of what, and what is odd about them.
///
/// Nothing is decoded. That images of two parts are the same is seen by the files, whatever they are called; copies are looked
/// for where at most 4,096 files have the size of one in the other part, by size and the 16 KiB in their middle.
public struct DataSummary: Sendable {
    /// What a part is used for.
    public enum Use: Sendable {
        case training, validation, test
    }

    /// Images with a use.
    public struct Part: Sendable {
        /// What they are used for.
        public let use: Use
        /// What they are called: `training`, `validation`, `test`, or `V2` for one of several tests.
        public let name: String
        /// The images.
        public let images: ImageList

        /// Images with a use and its name, or another.
        public init(_ use: Use, _ images: ImageList, name: String? = nil) {
            self.use = use
            self.name = name ?? "\(use)"
            self.images = images
        }
    }

    /// Images of each part; the classes, labels or values; how uneven those of the training images are, from 3 to 1 on.
    public private(set) var lines: [String] = []
    /// A sentence for each oddity.
    public internal(set) var notes: [String] = []

    /// The summary of these parts of what is called `name`.
    ///
    /// `others` are there and not used: they are counted, and compared with those that are. Classes and a missing validation
    /// part are spoken of where `parts` has images to train on.
    public init(of name: String, _ parts: [Part], others: [Part] = []) {
        guard let first = parts.first?.images else { return }
        // Numbers mean the same only where the classes are the same.
        let all = parts + others
        let alike = all.filter {
            $0.images.classNames == first.classNames && $0.images.classCount == first.classCount
        }
        lines = [
            "\(name): " + list(all.map { "\($0.images.count) \($0.name)" }) + " images",
            DataSummary.classes(first, occurring: alike.map { $0.images.classSizes }),
        ]
        let training = parts.filter { $0.use == .training }
        if !training.isEmpty {
            if first.task != .values {
                describeClasses(alike)
                if let line = DataSummary.unevenness(training.map(\.images)) { lines.append(line) }
            }
            if !all.contains(where: { $0.use == .validation }) {
                notes.append("there are no validation images: the best state is the last.")
            }
        }
        if first.matching == .number, let smallest = all.flatMap({ $0.images.samples.map(\.label) }).min(),
            smallest > 0
        {
            notes.append(
                "the smallest label is \(smallest), not 0: if the lists count from 1, each image is taken for one of the "
                    + "class after its own.")
        }
        let numbered = parts.filter { $0.images.matching == .number }.map(\.name)
        if first.matching == nil, first.classNames != nil, !numbered.isEmpty {
            notes.append(
                "\(list(numbered)): no names are given, class k is the training images' class k.")
        }
        for part in all { describeTwoLabels(part) }
        for seen in all where seen.use == .training {
            for held in all where held.use != .training { describeOverlap(held, seen) }
        }
    }

    // MARK: Classes

    private static func classes(_ images: ImageList, occurring sizes: [[Int]]) -> String {
        let count = images.classCount
        let used = (0..<count).filter { label in sizes.contains { $0[label] > 0 } }
        let names = images.classNames
        let words = names.map { names in used.map { names[$0] } }
        let task = images.task
        switch images.matching {
        case .name:
            return
                "\(used.count) of the model's \(count) \(task), matched by name: \(enumeration(words ?? []))"
        case .number: return "\(used.count) of the model's \(count) \(task), matched by number"
        case nil:
            let list =
                names.map { ": \(enumeration($0))" } ?? " by number, 0 to \(count - 1): no names are given"
            return task.counted(count) + list
        }
    }

    /// How many more images the commonest class or label has than the rarest, both of those that have any; nil below 3 times.
    private static func unevenness(_ parts: [ImageList]) -> String? {
        let first = parts[0]
        let sizes = parts.map(\.classSizes).reduce([Int](repeating: 0, count: first.classCount)) {
            zip($0, $1).map(+)
        }
        let occurring = sizes.indices.filter { sizes[$0] > 0 }
        guard let rarest = occurring.min(by: { sizes[$0] < sizes[$1] }),
            // Of equals the first.
            let commonest = occurring.max(by: { sizes[$0] < sizes[$1] || sizes[$0] == sizes[$1] && $0 > $1 }),
            sizes[commonest] >= 3 * sizes[rarest]
        else { return nil }
        func word(_ label: Int) -> String { first.classNames?[label] ?? "class \(label)" }
        let tenths = (10 * sizes[commonest] + sizes[rarest] / 2) / sizes[rarest]
        let ratio = tenths % 10 == 0 || tenths >= 100 ? "\(tenths / 10)" : "\(tenths / 10).\(tenths % 10)"
        return
            "uneven \(first.task): from \(sizes[rarest]) training images of \(word(rarest)) to \(sizes[commonest]) of "
            + "\(word(commonest)), \(ratio) times as many"
    }

    private mutating func describeClasses(_ parts: [Part]) {
        let images = parts[0].images
        func sizes(_ uses: Set<Use>) -> [Int] {
            parts.filter { uses.contains($0.use) }.map(\.images.classSizes)
                .reduce([Int](repeating: 0, count: images.classCount)) { zip($0, $1).map(+) }
        }
        func words(_ labels: [Int]) -> String {
            enumeration(labels.map { label in images.classNames?[label] ?? "\(label)" })
        }
        let all = sizes([.training, .validation, .test])
        let smallest = all.firstIndex { $0 > 0 } ?? 0
        let trained = sizes([.training])
        // That class 0 is missing says the next note.
        let countsFromOne = images.classNames == nil && smallest > 0
        let missing = trained.indices.filter { trained[$0] == 0 && !(countsFromOne && $0 < smallest) }
        if countsFromOne {
            notes.append(
                "the smallest label is \(smallest), not 0: no image is of class \(words(Array(0..<smallest))). "
                    + "If the lists count from 1, the head has a class too many.")
        }
        if !missing.isEmpty {
            notes.append(
                "\(missing.count) of \(images.classCount) \(images.task) \(missing.count == 1 ? "has" : "have") no training "
                    + "images: \(words(missing)).")
        }
        let chosen = sizes([.training, .validation])
        let tested = all.indices.filter { all[$0] > 0 && chosen[$0] == 0 }
        if !tested.isEmpty {
            notes.append(
                "\(images.task.counted(tested.count)) \(tested.count == 1 ? "occurs" : "occur") only in the test images: "
                    + "\(words(tested)).")
        }
    }

    // MARK: Files

    private mutating func describeTwoLabels(_ part: Part) {
        let images = part.images
        var seen: [FileStatus.Identity: Int] = [:]
        seen.reserveCapacity(images.count)
        var count = 0
        for (index, file) in images.files.enumerated() {
            if let other = seen.updateValue(index, forKey: file.identity),
                images.samples[other].label != images.samples[index].label
                    || images.targetRow(other) != images.targetRow(index)
            {
                count += 1
            }
        }
        if count > 0 {
            let other = images.task == .classes ? "another label" : "other \(images.task)"
            notes.append("\(count) of the \(images.count) \(part.name) images are there with \(other) too.")
        }
    }

    private mutating func describeOverlap(_ held: Part, _ seen: Part) {
        let identities = Set(seen.images.files.map(\.identity))
        let rest = held.images.files.indices.filter { !identities.contains(held.images.files[$0].identity) }
        let same = held.images.count - rest.count
        let copies = DataSummary.copies(held.images, rest, seen.images)
        guard same + copies > 0 else { return }
        notes.append(
            "\(same + copies) of the \(held.images.count) \(held.name) images are trained on"
                + (copies == 0
                    ? "" : copies == same + copies ? ", as copies" : ", \(copies) of them as copies")
                + ": how well they are recognised says little.")
    }

    private static let mostCandidates = 4096

    /// How many of `held`'s images at `indices` have the bytes of one of `seen`'s.
    private static func copies(_ held: ImageList, _ indices: [Int], _ seen: ImageList) -> Int {
        let sizes = Set(seen.files.map(\.size))
        let candidates = indices.filter { sizes.contains(held.files[$0].size) }
        if candidates.isEmpty || candidates.count > mostCandidates { return 0 }
        let candidateSizes = Set(candidates.map { held.files[$0].size })
        let originals = seen.files.indices.filter { candidateSizes.contains(seen.files[$0].size) }
        guard candidates.count + originals.count <= mostCandidates else { return 0 }
        /// Unreadable files are spoken of when they are read.
        func middle(_ list: ImageList, _ index: Int) -> [Int]? {
            guard let bytes = try? list.samples[index].path.read(atMost: 1 << 14, fromMiddle: true) else {
                return nil
            }
            var hasher = Hasher()
            bytes.withUnsafeBytes { hasher.combine(bytes: $0) }
            return [list.files[index].size, hasher.finalize()]
        }
        let known = Set(originals.compactMap { middle(seen, $0) })
        return candidates.count { middle(held, $0).map(known.contains) ?? false }
    }
}

/// `a, b and c`.
private func list(_ words: [String]) -> String {
    words.count < 2
        ? words.joined() : words.dropLast().joined(separator: ", ") + " and " + words[words.count - 1]
}

extension ImageList {
    /// [classCount] images of each class, or with each label; all have every value.
    var classSizes: [Int] {
        var sizes = [Int](repeating: 0, count: classCount)
        switch task {
        case .classes: for sample in samples { sizes[sample.label] += 1 }
        case .labels:
            for index in samples.indices {
                for (label, mark) in targetRow(index).enumerated() where mark > 0 { sizes[label] += 1 }
            }
        case .values: sizes = [Int](repeating: count, count: classCount)
        }
        return sizes
    }
}

extension TaskFolder {
    /// The summary of the parts that a command uses; the other splits of this folder are opened, counted and compared. One that
    /// can't be opened is a note, since nothing is lost by it. Throws `DatasetError` when the folder can't be read.
    public func summary(_ parts: [DataSummary.Part]) throws -> DataSummary {
        var others: [DataSummary.Part] = []
        var notes: [String] = []
        let used = Set(parts.map(\.use))
        for (use, split) in [(.training, .train), (.validation, .validation), (.test, .test)]
            as [(DataSummary.Use, Split)]
        where !used.contains(use) && splitNames.contains(where: { Split($0) == split }) {
            do { others.append(DataSummary.Part(use, try self.split(split))) } catch let error as DatasetError
            {
                notes.append("the \(use) images can't be used: \(error)")
            }
        }
        var summary = DataSummary(of: name, parts, others: others)
        summary.notes += try folderNotes() + notes
        return summary
    }
}
