import Adapters
import Checkpoints
import Foundation
import TensorCore

// Which path each layer takes, as the command line, files and run folders say it.
extension PathChoice {
    /// Reads what `path` says for a model: `supernet`, `full` (the richest path of the space), `none`, or a file: one path
    /// as JSON, which every layer takes, an object of a path for each layer's name, or the `architecture.json` of a search. Throws `TrainingError.settings`.
    public init(
        _ text: String, space: SearchSpace, recipe: Recipe = .original, for shape: TransformerShape
    ) throws {
        switch text {
        case "supernet": self = .supernet(space, recipe)
        case "full": self = .fixed(shape.uniformPath(space.fullPath, at: shape.roles(meant: space.sites)))
        case "none": self = .fixed([])
        default: self = .fixed(try PathChoice.read(text, space, shape))
        }
    }

    /// A run's choice: the paths that its configuration holds, or what its `path` says. Throws `TrainingError.settings`.
    init(_ run: RunDirectory.Configuration, space: SearchSpace, for shape: TransformerShape) throws {
        guard let paths = run.paths else {
            self = try PathChoice(
                run.options.path, space: space, recipe: run.options.recipe.draws, for: shape)
            return
        }
        guard paths.count == shape.linears.count else {
            throw TrainingError.settings(
                "the run's config.yaml has \(paths.count) paths for \(shape.linears.count) layers; "
                    + "put the original back")
        }
        try PathChoice.check(paths, space, shape, source: "the run's config.yaml")
        self = .fixed(paths)
    }

    /// Whether `path` names a file rather than a kind of path.
    package static func isFile(_ text: String) -> Bool { !["supernet", "full", "none"].contains(text) }

    /// What is read of an architecture that a search has found.
    private struct Found: Decodable { let layers: [String: GLoRAPath] }

    private static func read(
        _ file: String, _ space: SearchSpace, _ shape: TransformerShape
    ) throws -> [GLoRAPath] {
        guard let data = (try? fileContents(of: URL(fileURLWithPath: file))).map({ Data($0) }) else {
            throw TrainingError.settings(
                "`path` \(file) can't be read; use supernet, full, none, or a JSON file of paths")
        }
        let names = shape.linears.map(\.name)
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
                paths = shape.uniformPath(
                    try JSONDecoder().decode(GLoRAPath.self, from: data),
                    at: shape.roles(meant: space.sites))
            }
        } catch let error as DecodingError {
            throw TrainingError.settings(
                "\(file) is no path file (\(PathChoice.reason(error))); write {\"A\": \"LoRA_4\", …} or one such object for each layer's name"
            )
        } catch let error as FormError {
            throw TrainingError.settings("\(file): \(error)")
        }
        try check(paths, space, shape, source: file)
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
        _ paths: [GLoRAPath], _ space: SearchSpace, _ shape: TransformerShape, source: String
    ) throws {
        let roles = shape.roles(meant: space.sites)
        for (linear, path) in zip(shape.linears, paths) {
            if path.rank > space.largestRank {
                throw TrainingError.settings(
                    "\(source) asks for rank \(path.rank) in \(linear.name); the largest of `ranks` is \(space.largestRank)"
                )
            }
            if path != .none, !roles.contains(linear.site.role) {
                throw TrainingError.settings(
                    "\(source) gives \(linear.name) a path, but `linears` leaves it out")
            }
            if path.changesBias, !linear.site.hasBias {
                throw TrainingError.settings(
                    "\(source) gives \(linear.name) C, D or E, but the layer has no bias")
            }
        }
    }
}
