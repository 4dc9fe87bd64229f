import TensorCore

/// What a supernet may draw: for each of A–E the forms it can take, which ranks lowRank means, and which Linears take part.
///
/// Every entry is equally likely, and each rank is an entry of its own: with the original's choices and one rank a layer has
/// 4 · 4 · 3 · 3 · 3 = 432 paths (ViT-Slim/GLoRA/utils.py), each drawn with probability 1/432.
public struct SearchSpace: Codable, Hashable, Sendable {
    /// The Linears of a vision transformer's block.
    public static let vitRoles: [LinearRole] = [.fusedQKV, .output, .up, .down]

    /// A form without its rank. C has no constant; D and E have no lowRank.
    public enum FormName: String, Codable, CaseIterable, Hashable, Sendable {
        /// Xd · Xu at each of the space's ranks.
        case lowRank
        /// One value per row.
        case vector
        /// One value.
        case constant
        /// No term.
        case none
    }

    /// The forms of A.
    public var a: [FormName]
    /// The forms of B.
    public var b: [FormName]
    /// The forms of C.
    public var c: [FormName]
    /// The forms of D.
    public var d: [FormName]
    /// The forms of E.
    public var e: [FormName]
    /// What lowRank may mean, each an equally likely choice of its own. The largest is the rank of the storage.
    public var ranks: [Int]
    /// The Linears that have support tensors.
    public var sites: [LinearRole]

    /// The original's space. Throws `FormError` for a form that a tensor doesn't have, an empty choice, or a rank below 1.
    public init(
        a: [FormName] = [.lowRank, .vector, .constant, .none],
        b: [FormName] = [.lowRank, .vector, .constant, .none],
        c: [FormName] = [.lowRank, .vector, .none],
        d: [FormName] = [.constant, .none, .vector],
        e: [FormName] = [.constant, .none, .vector],
        ranks: [Int] = [4], sites: [LinearRole] = vitRoles
    ) throws {
        (self.a, self.b, self.c, self.d, self.e) = (a, b, c, d, e)
        (self.ranks, self.sites) = (ranks, sites)
        try validate()
    }

    /// The rank of the storage.
    public var largestRank: Int { ranks.max() ?? 1 }

    /// The path `full`: each tensor in the richest form that this space has for it, lowRank at the largest rank.
    public var fullPath: GLoRAPath {
        func richest<Form>(_ choices: [Form], _ order: (Form) -> Int) -> Form {
            choices.max { order($0) < order($1) }!
        }
        return GLoRAPath(
            a: richest(formsOfA) { $0.richness }, b: richest(formsOfB) { $0.richness },
            c: richest(formsOfC) { $0 == .vector ? 1 : 2 * $0.columnCount },
            d: richest(formsOfD) { $0.richness }, e: richest(formsOfE) { $0.richness })
    }

    /// One path, every choice of every tensor equally likely.
    public func draw(using random: inout Random) -> GLoRAPath {
        func pick<Form>(_ choices: [Form]) -> Form { choices[random.index(below: choices.count)] }
        return GLoRAPath(
            a: pick(formsOfA), b: pick(formsOfB), c: pick(formsOfC), d: pick(formsOfD), e: pick(formsOfE))
    }

    /// Every path of a layer: 432 in the original's space.
    public var paths: [GLoRAPath] {
        var all: [GLoRAPath] = []
        for a in formsOfA {
            for b in formsOfB {
                for c in formsOfC {
                    for d in formsOfD {
                        for e in formsOfE { all.append(GLoRAPath(a: a, b: b, c: c, d: d, e: e)) }
                    }
                }
            }
        }
        return all
    }

    /// What A may be, in the order of its choices: each rank is one of its own.
    public var formsOfA: [MatrixForm] { matrixForms(a) }
    /// What B may be.
    public var formsOfB: [MatrixForm] { matrixForms(b) }
    /// What D may be.
    public var formsOfD: [ScaleForm] { scaleForms(d) }
    /// What E may be.
    public var formsOfE: [ScaleForm] { scaleForms(e) }

    private func matrixForms(_ names: [FormName]) -> [MatrixForm] {
        names.flatMap { name -> [MatrixForm] in
            switch name {
            case .lowRank: ranks.map { .lowRank($0) }
            case .vector: [.vector]
            case .constant: [.constant]
            case .none: [.none]
            }
        }
    }

    /// What C may be.
    public var formsOfC: [PromptForm] {
        c.flatMap { name -> [PromptForm] in
            switch name {
            case .lowRank: ranks.map { .lowRank($0) }
            case .vector: [.vector]
            case .constant, .none: [.none]
            }
        }
    }

    private func scaleForms(_ names: [FormName]) -> [ScaleForm] {
        names.map { name in
            switch name {
            case .vector: .vector
            case .constant: .constant
            case .lowRank, .none: .none
            }
        }
    }

    private func validate() throws {
        for (name, forms, banned) in [
            ("A", a, nil), ("B", b, nil), ("C", c, FormName.constant), ("D", d, .lowRank), ("E", e, .lowRank),
        ] {
            if forms.isEmpty { throw FormError(description: "\(name) needs at least one form; use none") }
            if Set(forms).count < forms.count {
                throw FormError(description: "\(name) names a form twice, which would draw it twice as often")
            }
            if let banned, forms.contains(banned) {
                throw FormError(description: "\(name) has no form '\(banned.rawValue)'")
            }
        }
        guard !ranks.isEmpty, ranks.allSatisfy({ $0 > 0 }) else {
            throw FormError(description: "ranks must be positive numbers such as 8,4")
        }
        guard Set(ranks).count == ranks.count else {
            throw FormError(description: "ranks names a rank twice, which would draw it twice as often")
        }
    }
}

extension SearchSpace {
    /// The space in which `tensor` (A to E) is always none.
    public func without(_ tensor: String) -> SearchSpace {
        var space = self
        switch tensor {
        case "A": space.a = [.none]
        case "B": space.b = [.none]
        case "C": space.c = [.none]
        case "D": space.d = [.none]
        case "E": space.e = [.none]
        default: preconditionFailure("there is no tensor \(tensor)")
        }
        return space
    }
}

extension MatrixForm {
    fileprivate var richness: Int {
        switch self {
        case .none: 0
        case .constant: 1
        case .vector: 2
        case .lowRank(let rank): 2 + rank
        }
    }
}

extension ScaleForm {
    fileprivate var richness: Int {
        switch self {
        case .none: 0
        case .constant: 1
        case .vector: 2
        }
    }
}
