import Adapters
import Foundation
import ModelConfiguration
import TensorCore

/// The names under which an adapter is written in PEFT's format, those of the model that PEFT is to load it onto: timm's, or, of a model
/// from a folder of Hugging Face's, those of its `ForImageClassification` class in transformers 5, where queries, keys and values are
/// Linears of their own.
public struct AdapterNames: Sendable {
    /// timm's names of a model all of whose Linears have a bias.
    public static let timm = AdapterNames(huggingFace: nil, heads: ["head"], width: 0, withoutBias: [])

    private let huggingFace: HuggingFaceNames?
    /// Linears whose modules have no bias, beside which PEFT has no C, D and E.
    private let withoutBias: Set<String>
    /// The modules of the head: one, or a distilled DeiT's two.
    private let heads: [String]
    /// D.
    private let width: Int

    private init(
        huggingFace: HuggingFaceNames?, heads: [String], width: Int, withoutBias: Set<String>
    ) {
        (self.huggingFace, self.heads) = (huggingFace, heads)
        (self.width, self.withoutBias) = (width, withoutBias)
    }

    /// The names for a model of this configuration. Where no class of transformers' has a head on it they are timm's.
    public init(_ configuration: ViTConfiguration, isHuggingFace: Bool) {
        let form =
            isHuggingFace ? try? HuggingFaceForm(configuration, folder: URL(fileURLWithPath: "/")) : nil
        var names = configuration.classCount > 0 ? form?.names : nil
        names?.isNew = true
        let isApart = names == nil && Self.timmAddsBias(configuration)
        let lacking = configuration.shape.linears.filter {
            !$0.site.hasBias || isApart && $0.site.role == .fusedQKV
        }
        let own = configuration.pooling == .classTokenAndSecond ? ["head", "head_dist"] : ["head"]
        self.init(
            huggingFace: names, heads: names?.heads ?? own, width: configuration.width,
            withoutBias: Set(lacking.map(\.name)))
    }

    /// Whether timm adds the biases of the fused queries and values itself, beside a module without one, past which it goes.
    public static func timmAddsBias(_ configuration: ViTConfiguration) -> Bool {
        configuration.queries == .fused && configuration.queryBias == .withoutKeys
    }

    /// The head's tensors, `head.weight` and `head.bias`, there; and the modules that they are of.
    func head(_ tensors: [String: HostTensor]) -> (tensors: [String: HostTensor], modules: [String]) {
        var result: [String: HostTensor] = [:]
        for (name, tensor) in tensors {
            let parts = heads.count > 1 ? TimmNames.separatedHeads(tensor, width: width) : [tensor]
            for (head, part) in zip(heads, parts) {
                result["base_model.model.\(head)" + name.dropFirst("head".count)] = part
            }
        }
        return (result, result.isEmpty ? [] : heads)
    }

    /// The modules there of a Linear: one, or the query, key and value of the fused one, which have a third of its rows each.
    func modules(_ path: String) -> [String] {
        guard let huggingFace else { return [path] }
        return huggingFace.parts(of: path + ".weight").map { String($0.dropLast(".weight".count)) }
    }

    /// A layer's tensors by PEFT's names, the layer being on the path that `promoted` gives.
    func tensors(_ path: String, _ layer: GLoRAAdapter.Layer, changesBias: Bool) -> [String: HostTensor] {
        let modules = modules(path)
        var result: [String: HostTensor] = [:]
        for (name, tensor) in layer.tensors {
            let isOfRows = ["Ad", "Bd", "D", "E"].contains(name)
            // Nothing reads C, D and E where they are nothing; PEFT has zeros there.
            let isEmpty = !changesBias && withoutBias.contains(path) && "CDE".contains(name.first!)
            for (index, module) in modules.enumerated() where !(isEmpty && name == "Cu") {
                let part = isOfRows ? tensor.rows(index, of: modules.count) : tensor
                let start = "base_model.model.\(module)."
                if isEmpty {
                    result[start + "glora_\(name.first!).zeros"] = HostTensor(
                        shape: name == "Cd" ? [part.shape[0], 1] : part.shape, repeating: 0)
                } else {
                    result[start + PEFTAdapter.key(of: name)] = part
                }
            }
        }
        return result
    }
}

extension HostTensor {
    /// Part `index` of `count` equal ones along the first dimension.
    func rows(_ index: Int, of count: Int) -> HostTensor {
        let length = values.count / count
        return HostTensor(
            shape: [shape[0] / count] + shape.dropFirst(),
            values: Array(values[index * length..<(index + 1) * length]))
    }
}
