/// The names of a head's classes in the two formats' configurations.
enum ClassNames {
    /// Hugging Face's `id2label`. Nil when there is none, and for LABEL_0, LABEL_1, …, which are no names.
    ///
    /// `label2id` only serves people: transformers reads the classes' names from `id2label`, and so does this.
    static func huggingFace(_ config: JSONValue, count: Int, path: String, notes: inout [String]) throws
        -> [String]?
    {
        guard let labels = config["id2label"] else { return nil }
        let names = try list(labels, "id2label", count: count, path: path)
        guard names != generic(count) else { return nil }
        let stated = (config["label2id"]?.objectValue ?? [:]).sorted { $0.key < $1.key }
        if stated.contains(where: { !$0.key.hasPrefix("LABEL_") }),
            let (name, id) = stated.first(where: { name, id in
                index(id).map { names.indices.contains($0) && names[$0] == name } != true
            })
        {
            notes.append(
                "config.json's label2id says that '\(name)' is \(id.text()); its id2label says otherwise and is "
                    + "followed, as transformers does")
        }
        return names
    }

    /// What stands for the names of `count` classes that have none.
    static func generic(_ count: Int) -> [String] { (0..<count).map { "LABEL_\($0)" } }

    /// timm's `label_names`: a list, or an object from class to name; at the top, in `pretrained_cfg`, or under
    /// its old name `labels`. Nil where `huggingFace` is.
    static func timm(_ config: JSONValue, count: Int, path: String) throws -> [String]? {
        let pretrained = config["pretrained_cfg"]
        guard
            let labels = config["label_names"] ?? config["labels"] ?? pretrained?["label_names"]
                ?? pretrained?["labels"], !labels.isOff
        else { return nil }
        let names = try list(labels, "label_names", count: count, path: path)
        return names == generic(count) ? nil : names
    }

    /// [count] the names of a list or of an object whose keys are the classes' numbers.
    private static func list(_ labels: JSONValue, _ key: String, count: Int, path: String) throws -> [String]
    {
        func failure(_ what: String) -> CheckpointError {
            CheckpointError("\(path): \(key) \(what); correct it or remove it")
        }
        var names = [String?](repeating: nil, count: count)
        let entries =
            labels.arrayValue.map { $0.enumerated().map { ("\($0)", $1) } }
            ?? labels.objectValue.map { $0.map { ($0, $1) } }
        guard let entries else { throw failure("is neither a list nor an object") }
        guard entries.count == count else {
            throw failure("names \(entries.count) classes, but the head has \(count)")
        }
        for (key, value) in entries.sorted(by: { $0.0 < $1.0 }) {
            guard let class_ = Int(key), names.indices.contains(class_), names[class_] == nil else {
                throw failure("has the key '\(key)', which is no class of 0…\(count - 1)")
            }
            guard let name = value.stringValue ?? value.integerValue.map(String.init) else {
                throw failure("calls class \(key) \(value.text()), which is no name")
            }
            names[class_] = name
        }
        return names.map { $0! }
    }

    private static func index(_ value: JSONValue) -> Int? {
        value.integerValue ?? value.stringValue.flatMap { Int($0) }
    }
}

extension JSONValue {
    /// Whether the value asks for nothing: null, false, zero, or empty.
    var isOff: Bool {
        switch self {
        case .null: true
        case .boolean(let value): !value
        case .integer(let value): value == 0
        case .number(let value): value == 0
        case .string(let value): value.isEmpty
        case .array(let values): values.isEmpty
        case .object(let members): members.isEmpty
        }
    }
}
