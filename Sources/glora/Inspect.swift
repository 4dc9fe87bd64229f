import Adapters
import ArgumentParser
import Foundation
import Training
import VisionModels

struct Inspect: ParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Print a run's or an architecture's trainable parameters, per tensor and per layer.",
        discussion: """
            Example:
              glora inspect --run runs/a
              glora inspect --run runs/a --architecture runs/a/search/architecture.json
            """)

    @OptionGroup var source: ModelFlags
    @OptionGroup var common: CommonFlags

    struct Result: Encodable {
        let method: String
        let parameters: Int
        let headParameters: Int
        let tensors: [String: Int]
        let layers: [String: Int]
        let forms: [String: [String: String]]?
        let contains: [String]
    }

    func run() throws {
        let console = common.console
        let ready = try source.open(DeviceFlags.cpu, console)
        let model = ready.model
        let entries = model.method is GLoRA ? gloraEntries(model) : methodEntries(model)
        let layers = sums(entries) { $0.layer }
        let tensors = sums(entries) { $0.tensor }
        let order = layers.keys.sorted { $0.compare($1, options: .numeric) == .orderedAscending }
        let forms =
            model.method is GLoRA
            ? Dictionary(
                uniqueKeysWithValues: zip(model.layers, model.paths).map { layer, path in
                    (layer.base.name, path.words)
                }) : nil
        for layer in order {
            let words = forms?[layer].map { form in
                "ABCDE".map { "\($0) \(form[String($0)] ?? "")" }.joined(separator: "  ")
            }
            console.say(
                "\(layer.padded(to: 28)) \(layers[layer]!.grouped.padded(to: 12, right: true))  \(words ?? "")"
            )
        }
        console.say("by tensor:")
        for (name, count) in tensors.sorted(by: { $0.key < $1.key }) {
            console.say("\(name.padded(to: 28)) \(count.grouped.padded(to: 12, right: true))")
        }
        let total = model.parameterCount
        console.say(
            "\(ready.options.method.rawValue): \(total.grouped) parameters, and \(model.headParameterCount.grouped) in the head"
        )
        let (sentence, contained) = capacity(ready)
        console.say(sentence)
        try console.result(
            Result(
                method: ready.options.method.rawValue, parameters: total,
                headParameters: model.headParameterCount, tensors: tensors, layers: layers, forms: forms,
                contains: contained),
            schema: "glora.inspect/1")
    }

    private typealias Entry = (layer: String, tensor: String, count: Int)

    private func gloraEntries(_ model: VisionTransformer) -> [Entry] {
        zip(model.layers.map(\.base), model.paths).flatMap { linear, path in
            "ABCDE".map { letter in
                (
                    linear.name, String(letter),
                    path.only(letter).parameterCount(inputs: linear.inputs, outputs: linear.outputs)
                )
            }
        }
    }

    /// A tensor's layer is its place in the model; the rest of its name is the tensor's.
    private func methodEntries(_ model: VisionTransformer) -> [Entry] {
        let trained = model.trainedNames
        return model.store.segments.filter { trained.contains($0.name) && !$0.name.hasPrefix("head.") }.map {
            let parts = $0.name.split(separator: ".").map(String.init)
            let isBlock = parts.first == "blocks" && parts.count > 3
            let split = isBlock ? 3 : min(1, parts.count - 1)
            let layer = parts[..<split].joined(separator: ".")
            return (layer.isEmpty ? "whole model" : layer, parts[split...].joined(separator: "."), $0.count)
        }
    }

    private func sums(_ entries: [Entry], by key: (Entry) -> String) -> [String: Int] {
        entries.reduce(into: [:]) { $0[key($1), default: 0] += $1.count }
    }

    /// Which methods' functions the space contains: see `gloraAdapter(on:)` for the paths.
    private func capacity(_ ready: ReadyModel<VisionTransformer>) -> (sentence: String, methods: [String]) {
        guard ready.options.method == .glora else {
            let contained = [.lora, .factTT, .factTK, .repadapter, .bitfit].contains(ready.options.method)
            return (
                contained
                    ? "what it computes is a GLoRA path: glora convert writes it"
                    : "no GLoRA path computes the same in general; a GLoRA path and this method each have functions the other lacks",
                []
            )
        }
        guard let space = try? ready.options.searchSpace() else { return ("", []) }
        let rank = space.largestRank
        let everywhere = space.sites.count == SearchSpace.vitRoles.count
        var contained: [String] = []
        let hasLowRank = space.b.contains(.lowRank)
        let where_ = everywhere ? "" : " on " + space.sites.map(\.rawValue).joined(separator: ", ")
        if hasLowRank {
            contained.append("LoRA of rank up to \(rank)\(where_)")
            contained.append("FacT of rank up to \(rank)\(where_)")
        }
        if hasLowRank, space.e.contains(.vector) {
            contained.append("RepAdapter of width up to \(rank)\(where_)")
        }
        if space.a.contains(.vector), space.d.contains(.vector), space.e.contains(.vector) {
            contained.append("SSF on Linears\(where_)")
        }
        if space.e.contains(.vector) {
            contained.append(
                space.c.contains(.vector)
                    ? "BitFit of Linears and LayerNorms\(where_)" : "BitFit of Linears\(where_)")
        }
        return (
            contained.isEmpty
                ? "the search space contains none of the other methods whole"
                : "the search space contains every function of " + contained.joined(separator: "; "),
            contained
        )
    }
}

extension GLoRAPath {
    /// The form of each tensor, as architecture files write it.
    fileprivate var words: [String: String] {
        ["A": a.text, "B": b.text, "C": c.text, "D": d.text, "E": e.text]
    }

    /// This path with one tensor alone.
    fileprivate func only(_ letter: Character) -> GLoRAPath {
        switch letter {
        case "A": GLoRAPath(a: a)
        case "B": GLoRAPath(b: b)
        case "C": GLoRAPath(c: c)
        case "D": GLoRAPath(d: d)
        default: GLoRAPath(e: e)
        }
    }
}
