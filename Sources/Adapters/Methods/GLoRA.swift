import TensorCore

/// GLoRA itself: support tensors at the Linears of some roles, of which each step reads one path a layer.
public struct GLoRA: TuningMethod, Sendable {
    /// R, the rank of the storage.
    public let rank: Int
    /// Where there are support tensors.
    public let roles: [LinearRole]
    /// Which path each layer takes.
    public var choice: PathChoice

    /// GLoRA at the Linears of `roles`, which the model must have; on no path until a choice is given.
    public init(rank: Int, roles: [LinearRole] = SearchSpace.vitRoles, _ choice: PathChoice = .fixed([])) {
        (self.rank, self.roles, self.choice) = (rank, roles, choice)
    }

    public func declarations(_ shape: TransformerShape, seed: Int) -> [ParameterStore.Declaration] {
        shape.linears.enumerated().filter { roles.contains($1.site.role) }.flatMap { index, linear in
            var random = Random(seed, "init", index)
            return GLoRALinear.declarations(
                linear.name, inputs: linear.site.inputs, outputs: linear.site.outputs, rank: rank,
                random: &random)
        }
    }

    public func attach(
        to model: inout Attachments, _ store: ParameterStore, _ arena: Arena, _ backend: any Backend
    ) throws {
        for block in model.blocks.indices {
            for role in roles {
                let base = model.blocks[block][role].base
                guard let support = GLoRALinear.Support(base.name, in: store) else { continue }
                model.blocks[block][role] = GLoRALinear(base, support)
            }
        }
    }

    public func beginStep(_ step: Int, seed: Int, _ layers: [any LinearLayer]) {
        layers.take(choice.paths(atStep: step, seed: seed, layers))
    }

    public func beginReading(_ layers: [any LinearLayer]) { layers.take(choice.readingPaths(layers)) }

    public func trainedNames(_ names: [String], _ layers: [any LinearLayer]) -> Set<String> {
        var trained = Set(names.filter { $0.hasPrefix("head.") })
        for case let layer as GLoRALinear in layers {
            for name in layer.tensorsOnPath { trained.insert("\(layer.base.name).\(name)") }
        }
        return trained
    }

    public func parameterCount(_ shape: TransformerShape, _ layers: [any LinearLayer]) -> Int {
        layers.reduce(0) { $0 + $1.parameterCount }
    }
}

/// Which path each layer takes in a step: drawn anew at every step, or fixed.
public enum PathChoice: Sendable {
    /// A supernet: every layer draws from the space at every step, or where the recipe says so takes its richest path.
    case supernet(SearchSpace, Recipe)
    /// One path for each Linear; none where the list is empty.
    case fixed([GLoRAPath])

    /// How a supernet's steps choose their paths.
    public enum Recipe: String, Codable, CaseIterable, Sendable {
        /// Every path alike, as the original draws them.
        case original
        /// Every other step takes the richest path in every layer: most other forms are parts of it, and under the original's
        /// recipe a layer takes it once in 432 steps.
        case sandwich
    }

    /// The paths of step `step`, a function of the run's seed and the step alone.
    public func paths(atStep step: Int, seed: Int, _ layers: [any LinearLayer]) -> [GLoRAPath] {
        switch self {
        case .supernet(let space, let recipe) where recipe == .original || step % 2 == 0:
            var random = Random(seed, "path", step)
            return layers.drawPaths(from: space, using: &random)
        case .supernet, .fixed: return readingPaths(layers)
        }
    }

    /// The paths that a run is validated, saved and merged at: the fixed ones, or a supernet's richest.
    public func readingPaths(_ layers: [any LinearLayer]) -> [GLoRAPath] {
        switch self {
        case .fixed(let paths): paths.isEmpty ? layers.uniformPath(.none) : paths
        case .supernet(let space, _): layers.uniformPath(space.fullPath)
        }
    }
}

extension [any LinearLayer] {
    /// The path that each layer is on.
    public var paths: [GLoRAPath] { map { ($0 as? GLoRALinear)?.path ?? .none } }

    /// Puts each layer on a path. Traps for another number of paths, and for a path where there are no support tensors.
    public func take(_ paths: [GLoRAPath]) {
        precondition(paths.count == count, "\(paths.count) paths for \(count) layers")
        for (layer, path) in zip(self, paths) {
            guard let layer = layer as? GLoRALinear else {
                precondition(path == .none, "\(layer.base.name) has no support tensors for a path")
                continue
            }
            layer.path = path
        }
    }

    /// `path` in every layer, as far as the layer allows: none without support tensors, C = D = E = none without a bias, so
    /// that a merged checkpoint keeps its shape.
    public func uniformPath(_ path: GLoRAPath) -> [GLoRAPath] { map { path.admissible(for: $0) } }

    /// A path for each layer, drawn independently from `space`, as far as the layers allow.
    public func drawPaths(from space: SearchSpace, using random: inout Random) -> [GLoRAPath] {
        map { space.draw(using: &random).admissible(for: $0) }
    }
}

extension TransformerShape {
    /// `path` in every layer, as far as it allows that: none but at the Linears of `roles`, C = D = E = none without a bias.
    public func uniformPath(_ path: GLoRAPath, at roles: [LinearRole]) -> [GLoRAPath] {
        linears.map { path.admissible(hasSupport: roles.contains($0.site.role), hasBias: $0.site.hasBias) }
    }
}

extension GLoRAPath {
    fileprivate func admissible(for layer: any LinearLayer) -> GLoRAPath {
        admissible(hasSupport: layer is GLoRALinear, hasBias: layer.base.bias != nil)
    }

    fileprivate func admissible(hasSupport: Bool, hasBias: Bool) -> GLoRAPath {
        hasSupport ? hasBias ? self : GLoRAPath(a: a, b: b) : .none
    }
}
