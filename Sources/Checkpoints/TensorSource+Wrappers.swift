import TensorCore

/// The tensors of a source under shorter names.
private struct RenamedTensors: TensorSource {
    let source: any TensorSource
    /// The source's names by the shorter ones.
    let originals: [String: String]

    var path: String { source.path }
    var names: [String] { originals.keys.sorted() }
    func shape(of name: String) -> [Int]? { originals[name].flatMap { source.shape(of: $0) } }
    func tensor(_ name: String) throws -> HostTensor { try source.tensor(originals[name]!) }
}

extension TensorSource {
    /// The same tensors without the prefixes that wrappers of a model leave before its names.
    ///
    /// Those of parallel training (`module.`), torch.compile (`_orig_mod.`), sharding and recomputing are taken from
    /// every name, wherever a single block was wrapped too; torch's `AveragedModel` adds its count. Another prefix
    /// (`model.`, `backbone.`) is taken off when all names have it; when some lie beside it, what they compute isn't
    /// known, and a `CheckpointError` names it.
    func withoutWrappers(notes: inout [String]) throws -> any TensorSource {
        var originals: [String: String] = [:]
        var removed: Set<String> = []
        for name in names where name != "n_averaged" {
            let words = name.split(separator: ".", omittingEmptySubsequences: false).map(String.init)
            removed.formUnion(words.filter(wrappers.contains).map { $0 + "." })
            let short = words.filter { !wrappers.contains($0) }.joined(separator: ".")
            guard originals.updateValue(name, forKey: short) == nil else {
                throw CheckpointError(
                    "\(path) holds '\(short)' twice, once as '\(name)'; save the model alone")
            }
        }
        let prefixes = Set(originals.keys.compactMap(modelPrefix)).sorted()
        if let prefix = prefixes.first, !prefixes.contains("") {
            let beside = originals.keys.filter { !$0.hasPrefix(prefix) }.sorted()
            guard beside.isEmpty else {
                let others = beside.count > 1 ? " and \(beside.count - 1) more" : ""
                throw CheckpointError(
                    "\(path) holds a vision transformer under '\(prefix)' and, beside it, '\(beside[0])'\(others), "
                        + "of which this program knows nothing; save the vision transformer alone")
            }
            originals = Dictionary(
                uniqueKeysWithValues: originals.map { (String($0.dropFirst(prefix.count)), $1) })
            removed.insert(prefix)
        }
        guard !removed.isEmpty else { return self }
        let list = removed.sorted().map { "'\($0)'" }.joined(separator: " and ")
        notes.append("the prefix \(list) is left out of the tensors' names")
        return RenamedTensors(source: self, originals: originals)
    }
}

/// The names under which torch's wrappers keep the module that they wrap.
private let wrappers: Set = ["module", "_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"]

/// What precedes the names of a whole model: of timm's `patch_embed.proj.weight`, of Hugging Face's
/// `embeddings.cls_token` or `embeddings.patch_embedding.weight` and its own `vit.`, `dinov2.`, … Nil for the name of another
/// tensor.
private func modelPrefix(_ name: String) -> String? {
    for anchor in anchors where name == anchor || name.hasSuffix("." + anchor) {
        return String(name.dropLast(anchor.count))
    }
    return nil
}

private let anchors: [String] = {
    let own = HuggingFaceNames.Family.allCases.flatMap(\.prefixes) + [""]
    return ["patch_embed.proj.weight"]
        + own.flatMap { [$0 + "embeddings.cls_token", $0 + "embeddings.patch_embedding.weight"] }
}()
