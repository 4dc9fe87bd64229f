import Adapters
import Checkpoints
import Foundation
import TensorCore
import VisionModels

/// Which path each layer takes in a step: drawn anew at every step, or fixed.
public enum PathChoice: Sendable {
    /// A supernet: every layer draws from the space at every step, or where the recipe says so takes its richest path.
    case supernet(SearchSpace, Recipe)
    /// One path for each Linear.
    case fixed([GLoRAPath])

    /// How a supernet's steps choose their paths.
    public enum Recipe: String, Codable, CaseIterable, Sendable {
        /// Every path alike, as the original draws them.
        case original
        /// Every other step takes the richest path in every layer: most other forms are parts of it, and under the original's
        /// recipe a layer takes it once in 432 steps.
        case sandwich
    }

    /// Reads what `--path` says for a model: `supernet`, `full` (the richest path of the space), `none`, or a file: one path
    /// as JSON, which every layer takes, an object of a path for each layer's name, or the `architecture.json` of a search. Throws `TrainingError.settings`.
    public init(
        _ text: String, space: SearchSpace, recipe: Recipe = .original, model: VisionTransformer
    ) throws {
        switch text {
        case "supernet": self = .supernet(space, recipe)
        case "full": self = .fixed(model.uniformPath(space.fullPath))
        case "none": self = .fixed(model.uniformPath(.none))
        default: self = .fixed(try PathChoice.read(text, model: model, rank: space.largestRank))
        }
    }

    /// A run's choice: the paths that its configuration holds, or what its `--path` says. Throws `TrainingError.settings`.
    init(_ run: RunDirectory.Configuration, space: SearchSpace, model: VisionTransformer) throws {
        guard let paths = run.paths else {
            self = try PathChoice(
                run.options.pathText, space: space, recipe: run.options.recipe, model: model)
            return
        }
        guard paths.count == model.linears.count else {
            throw TrainingError.settings(
                "the run's config.yaml has \(paths.count) paths for \(model.linears.count) layers; "
                    + "put the original back")
        }
        try PathChoice.check(paths, model: model, rank: space.largestRank, source: "the run's config.yaml")
        self = .fixed(paths)
    }

    /// Whether `--path` names a file rather than a kind of path.
    package static func isFile(_ text: String) -> Bool { !["supernet", "full", "none"].contains(text) }

    /// The paths of step `step`, a function of the run's seed and the step alone.
    public func paths(atStep step: Int, seed: Int, model: VisionTransformer) -> [GLoRAPath] {
        switch self {
        case .fixed(let paths): return paths
        case .supernet(let space, .sandwich) where step % 2 == 1: return model.uniformPath(space.fullPath)
        case .supernet(let space, _):
            var random = Random(seed, "path", step)
            return model.drawPaths(from: space, using: &random)
        }
    }

    /// The paths that a run is validated, saved and merged at: the fixed ones, or a supernet's richest.
    public func readingPaths(model: VisionTransformer) -> [GLoRAPath] {
        switch self {
        case .fixed(let paths): paths
        case .supernet(let space, _): model.uniformPath(space.fullPath)
        }
    }

    /// What is read of an architecture that a search has found.
    private struct Found: Decodable { let layers: [String: GLoRAPath] }

    private static func read(_ file: String, model: VisionTransformer, rank: Int) throws -> [GLoRAPath] {
        guard let data = (try? fileContents(of: URL(fileURLWithPath: file))).map({ Data($0) }) else {
            throw TrainingError.settings(
                "--path \(file) can't be read; use supernet, full, none, or a JSON file of paths")
        }
        let names = model.linears.map(\.name)
        let paths: [GLoRAPath]
        do {
            let object = try? JSONSerialization.jsonObject(with: data) as? [String: Any]
            if object?.values.contains(where: { $0 is [String: Any] }) == true {
                let byName =
                    object?["layers"] != nil
                    ? try JSONDecoder().decode(Found.self, from: data).layers
                    : try JSONDecoder().decode([String: GLoRAPath].self, from: data)
                if let stranger = byName.keys.sorted().first(where: { !names.contains($0) }) {
                    throw TrainingError.settings(
                        "\(file) names a layer '\(stranger)'; this model has \(names[0]) … \(names.last!)")
                }
                paths = names.map { byName[$0] ?? .none }
            } else {
                paths = model.uniformPath(try JSONDecoder().decode(GLoRAPath.self, from: data))
            }
        } catch let error as DecodingError {
            throw TrainingError.settings(
                "\(file) is no path file (\(PathChoice.reason(error))); write {\"A\": \"LoRA_4\", …} or one such object for each layer's name"
            )
        } catch let error as FormError {
            throw TrainingError.settings("\(file): \(error)")
        }
        try check(paths, model: model, rank: rank, source: file)
        return paths
    }

    /// A decoding error's own words.
    private static func reason(_ error: DecodingError) -> String {
        switch error {
        case .dataCorrupted(let context), .keyNotFound(_, let context), .typeMismatch(_, let context),
            .valueNotFound(_, let context):
            context.debugDescription.trimmingCharacters(in: CharacterSet(charactersIn: ". \n"))
        @unknown default: "it can't be decoded"
        }
    }

    /// Throws when a layer can't take the path that `source` gives it.
    package static func check(
        _ paths: [GLoRAPath], model: VisionTransformer, rank: Int, source: String
    ) throws {
        for (linear, path) in zip(model.linears, paths) {
            if path.rank > rank {
                throw TrainingError.settings(
                    "\(source) asks for rank \(path.rank) in \(linear.name); the largest of --ranks is \(rank)"
                )
            }
            if path != .none, linear.support == nil {
                throw TrainingError.settings(
                    "\(source) gives \(linear.name) a path, but --linears leaves it out")
            }
            if path.changesBias, linear.bias == nil {
                throw TrainingError.settings(
                    "\(source) gives \(linear.name) C, D or E, but the layer has no bias")
            }
        }
    }
}
