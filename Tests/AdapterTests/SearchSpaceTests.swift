import Adapters
import Foundation
import TensorCore
import Testing

/// The space of paths: what is in it, how it is drawn from, what it refuses, and how paths are written.
@Suite("The space of paths")
struct SearchSpaceTests {
    @Test("The original's space has 432 paths, each once")
    func theOriginalHas432Paths() throws {
        let paths = try SearchSpace().paths
        #expect(paths.count == 432)
        #expect(Set(paths).count == 432)
        #expect(paths.allSatisfy { $0.rank == 4 || $0.rank <= 1 })
        #expect(try SearchSpace(ranks: [8, 4]).paths.count == 5 * 5 * 4 * 3 * 3)
    }

    /// χ² of 21,600 draws over 432 paths: mean 431, deviation 29 for a uniform draw.
    @Test("Every path is drawn equally often")
    func drawsAreUniform() throws {
        let space = try SearchSpace(ranks: [2])
        var random = Random(1, "test")
        var counts: [GLoRAPath: Int] = [:]
        let draws = 21_600
        for _ in 0..<draws { counts[space.draw(using: &random), default: 0] += 1 }
        let expected = Double(draws) / 432
        let statistic = space.paths.reduce(0.0) {
            let difference = Double(counts[$1] ?? 0) - expected
            return $0 + difference * difference / expected
        }
        #expect(counts.count == 432)
        #expect(statistic > 431 - 5 * 29.4 && statistic < 431 + 5 * 29.4)
    }

    /// Each rank is as likely as `vector` is: with ranks 8, 4 and 2 a lowRank A comes up in half of the draws, not in a quarter.
    @Test("Each rank is as likely as any other form")
    func eachRankIsAChoiceOfItsOwn() throws {
        let space = try SearchSpace(ranks: [8, 4, 2])
        var random = Random(2, "test")
        var (a, c): ([MatrixForm: Int], [PromptForm: Int]) = ([:], [:])
        for _ in 0..<6_000 {
            let path = space.draw(using: &random)
            a[path.a, default: 0] += 1
            c[path.c, default: 0] += 1
        }
        #expect(Set(a.keys) == [.lowRank(8), .lowRank(4), .lowRank(2), .vector, .constant, .none])
        #expect(Set(c.keys) == [.lowRank(8), .lowRank(4), .lowRank(2), .vector, .none])
        // Five deviations of a binomial: √(6000 · 1/6 · 5/6) = 29 and √(6000 · 1/5 · 4/5) = 31.
        #expect(a.values.allSatisfy { abs($0 - 1_000) < 145 })
        #expect(c.values.allSatisfy { abs($0 - 1_200) < 155 })
    }

    @Test("The full path takes the richest form of every tensor")
    func fullPath() throws {
        #expect(try SearchSpace(ranks: [2, 8, 4]).fullPath == .full(rank: 8))
        #expect(try SearchSpace(ranks: [2, 8, 4]).largestRank == 8)
        let narrow = try SearchSpace(
            a: [.none, .constant], b: [.vector, .constant], c: [.none], d: [.constant])
        #expect(narrow.fullPath == GLoRAPath(a: .constant, b: .vector, d: .constant, e: .vector))
        #expect(narrow.paths.count == 2 * 2 * 1 * 1 * 3)
        #expect(narrow.paths.contains(narrow.fullPath))
        // lowRank(1) reads as much of C's storage as vector does, and Cu besides.
        #expect(try SearchSpace(c: [.vector, .lowRank], ranks: [1]).fullPath.c == .lowRank(1))
    }

    @Test("Forms that a tensor can't have are refused by name")
    func impossibleFormsAreRefused() throws {
        func message(_ make: () throws -> SearchSpace) -> String {
            do {
                _ = try make()
                return "no error"
            } catch {
                return "\(error)"
            }
        }
        #expect(message { try SearchSpace(c: [.vector, .constant]) } == "C has no form 'constant'")
        #expect(message { try SearchSpace(d: [.lowRank]) } == "D has no form 'lowRank'")
        #expect(message { try SearchSpace(e: [.none, .lowRank]) } == "E has no form 'lowRank'")
        #expect(message { try SearchSpace(a: []) }.hasPrefix("A needs at least one form"))
        #expect(message { try SearchSpace(ranks: []) }.hasPrefix("ranks must be positive"))
        #expect(message { try SearchSpace(ranks: [4, 0]) }.hasPrefix("ranks must be positive"))
    }

    @Test("A space comes back from JSON as it was")
    func aSpaceSurvivesJSON() throws {
        let space = try SearchSpace(a: [.lowRank, .none], ranks: [8, 4], sites: [.fusedQKV, .down])
        let back = try JSONDecoder().decode(SearchSpace.self, from: JSONEncoder().encode(space))
        #expect(back == space)
    }
}

@Suite("A path's parameters and its text")
struct GLoRAPathTests {
    /// METHODS' counts of ViT-B/16: everything at ranks 2, 4 and 8, and the expectation over uniform draws.
    @Test(
        "A ViT-B/16 has the published numbers of parameters",
        arguments: [(2, 884_832, 308_824), (4, 1_603_776, 499_320), (8, 3_041_664, 880_312)])
    func parameterCountsOfViTB(rank: Int, full: Int, expectation: Int) throws {
        let linears = [(768, 2_304), (768, 768), (768, 3_072), (3_072, 768)]
        func count(_ path: GLoRAPath) -> Int {
            12 * linears.reduce(0) { $0 + path.parameterCount(inputs: $1.0, outputs: $1.1) }
        }
        #expect(count(.full(rank: rank)) == full)
        #expect(count(.none) == 0)
        let paths = try SearchSpace(ranks: [rank]).paths
        #expect((Double(paths.reduce(0) { $0 + count($1) }) / 432).rounded() == Double(expectation))
    }

    /// Each form alone in a layer of 10 inputs and 7 outputs.
    @Test("Each form alone has as many parameters as its tensors hold")
    func parameterCountsOfForms() {
        func count(_ path: GLoRAPath) -> Int { path.parameterCount(inputs: 10, outputs: 7) }
        #expect(count(GLoRAPath(a: .lowRank(3))) == 51)
        #expect(count(GLoRAPath(b: .vector)) == 7)
        #expect(count(GLoRAPath(b: .constant)) == 1)
        #expect(count(GLoRAPath(c: .lowRank(3))) == 33)
        #expect(count(GLoRAPath(c: .vector)) == 10)
        #expect(count(GLoRAPath(d: .vector)) == 7)
        #expect(count(GLoRAPath(e: .constant)) == 1)
        #expect(count(.lora(rank: 2)) == 34)
    }

    @Test("Every path comes back from JSON as it was")
    func everyPathSurvivesJSON() throws {
        let paths = try SearchSpace(ranks: [4, 2]).paths
        let back = try JSONDecoder().decode([GLoRAPath].self, from: JSONEncoder().encode(paths))
        #expect(back == paths)
    }

    @Test("Paths are read and written as the original writes them")
    func pathsAreWrittenAsTheOriginalWritesThem() throws {
        func path(_ json: String) throws -> GLoRAPath {
            try JSONDecoder().decode(GLoRAPath.self, from: Data(json.utf8))
        }
        let text = #"{"A": "LoRA_4", "B": "vector", "C": "none", "D": "constant", "E": "none"}"#
        #expect(try path(text) == GLoRAPath(a: .lowRank(4), b: .vector, d: .constant))
        #expect(try path(#"{"C": "lowRank_2"}"#) == GLoRAPath(c: .lowRank(2)))
        #expect(try path("{}") == .none)
        let encoder = JSONEncoder()
        encoder.outputFormatting = .sortedKeys
        let written = String(
            decoding: try encoder.encode(GLoRAPath(b: .lowRank(8), c: .vector)), as: UTF8.self)
        #expect(written == #"{"A":"none","B":"LoRA_8","C":"vector","D":"none","E":"none"}"#)
    }

    @Test(
        "A form that a tensor doesn't have is refused by name",
        arguments: [
            (#"{"C": "constant"}"#, "'constant' is no form of C"),
            (#"{"D": "LoRA_4"}"#, "'LoRA_4' is no form of D or E"),
            (#"{"A": "LoRA_0"}"#, "'LoRA_0' is no form of A or B"),
            (#"{"B": "LoRA_"}"#, "'LoRA_' is no form of A or B"),
            (#"{"A": "Vector"}"#, "'Vector' is no form of A or B"), (#"{"F": "none"}"#, "a path has no 'F'"),
        ])
    func wrongFormsAreRefused(json: String, message: String) {
        do {
            let path = try JSONDecoder().decode(GLoRAPath.self, from: Data(json.utf8))
            Issue.record("\(json) was read as \(path)")
        } catch {
            #expect("\(error)".contains(message))
        }
    }

    @Test(
        "Without a tensor a space draws it never, and a path keeps all else",
        arguments: ["A", "B", "C", "D", "E"])
    func without(_ tensor: String) throws {
        let space = try SearchSpace(ranks: [4, 2])
        func words(_ path: GLoRAPath) -> [String: String] {
            [
                "A": path.a.text, "B": path.b.text, "C": path.c.text, "D": path.d.text, "E": path.e.text,
            ]
        }
        let left = space.without(tensor).paths
        #expect(left.allSatisfy { words($0)[tensor] == "none" })
        #expect(Set(left) == Set(space.paths.map { $0.without(tensor) }))
        for path in space.paths {
            #expect(words(path.without(tensor)) == words(path).merging([tensor: "none"]) { $1 })
        }
    }
}
