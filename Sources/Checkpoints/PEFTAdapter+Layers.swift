import Adapters
import TensorCore

extension GLoRAAdapter.Layer {
    /// A layer on the path B = lowRank with Bd = scale · down [out, r] and Bu = up [r, in], in storage of rank `storage`.
    public static func lowRankB(
        down: HostTensor, up: HostTensor, scale: Float, storage: Int, outputs: Int, inputs: Int
    ) -> GLoRAAdapter.Layer {
        let rank = up.shape[0]
        var layer = GLoRAAdapter.Layer.empty(outputs: outputs, inputs: inputs, rank: storage)
        layer.path = GLoRAPath(b: .lowRank(rank))
        for row in 0..<outputs {
            for column in 0..<rank {
                layer.tensors["Bd"]!.values[row * storage + column] =
                    scale * down.values[row * rank + column]
            }
        }
        layer.tensors["Bu"]!.values.replaceSubrange(0..<rank * inputs, with: up.values)
        return layer
    }

    /// A layer on the path none, its storage zero.
    public static func empty(outputs: Int, inputs: Int, rank: Int) -> GLoRAAdapter.Layer {
        func zeros(_ shape: Int...) -> HostTensor { HostTensor(shape: shape, repeating: 0) }
        return GLoRAAdapter.Layer(
            path: .none,
            tensors: [
                "Ad": zeros(outputs, rank), "Au": zeros(rank, inputs), "Bd": zeros(outputs, rank),
                "Bu": zeros(rank, inputs), "Cd": zeros(inputs, rank), "Cu": zeros(rank, 1),
                "D": zeros(outputs), "E": zeros(outputs),
            ])
    }

    /// The same layer in storage of a larger or equal rank, the new columns zero.
    func stored(rank: Int) -> GLoRAAdapter.Layer {
        let old = tensors["Au"]!.shape[0]
        guard old != rank else { return self }
        var layer = self
        for letter in ["A", "B", "C"] {
            let (down, up) = (tensors[letter + "d"]!, tensors[letter + "u"]!)
            let rows = down.shape[0]
            var wide = HostTensor(shape: [rows, rank], repeating: 0)
            for row in 0..<rows {
                wide.values.replaceSubrange(
                    row * rank..<row * rank + old, with: down.values[row * old..<(row + 1) * old])
            }
            let padding = repeatElement(Float(0), count: (rank - old) * up.shape[1])
            layer.tensors[letter + "d"] = wide
            layer.tensors[letter + "u"] = HostTensor(shape: [rank, up.shape[1]], values: up.values + padding)
        }
        return layer
    }

    /// One layer of those of some of its rows, all of the same forms, as query, key and value are rows of qkv.
    ///
    /// Factors of rank r, of k parts, are one of rank k · r: Xd has a block for each part's rows and columns, Xu the parts' below
    /// each other. Vectors lie below each other; constants become vectors. A part's C can't be the fused layer's, which would
    /// reach all rows, but the frozen weight [outputs, inputs] is known: E holds W₀ · C. Without a bias there is no C, D and E. Parts that
    /// differ in nothing but their rows are one layer again, as it was before it was written in parts.
    static func fused(
        _ parts: [(rows: Range<Int>, layer: GLoRAAdapter.Layer)], weight: HostTensor, hasBias: Bool
    ) -> GLoRAAdapter.Layer {
        let (outputs, inputs) = (weight.shape[0], weight.shape[1])
        if let whole = stacked(parts, outputs: outputs) { return whole }
        let rank = parts.map { max($0.layer.path.a.columnCount, $0.layer.path.b.columnCount) }.reduce(0, +)
        var fused = GLoRAAdapter.Layer.empty(outputs: outputs, inputs: inputs, rank: max(rank, 1))
        let R = max(rank, 1)
        func form(_ letter: String, _ form: KeyPath<GLoRAPath, MatrixForm>) -> MatrixForm {
            guard parts.contains(where: { $0.layer.path[keyPath: form] != .none }) else { return .none }
            var start = 0
            var isLowRank = false
            for (rows, layer) in parts {
                let (down, up) = (layer.tensors[letter + "d"]!.values, layer.tensors[letter + "u"]!.values)
                let own = layer.tensors[letter + "u"]!.shape[0]
                let part = layer.path[keyPath: form]
                for (index, row) in rows.enumerated() {
                    switch part {
                    case .none: break
                    case .constant: fused.tensors[letter + "d"]!.values[row * R] = down[0]
                    case .vector: fused.tensors[letter + "d"]!.values[row * R] = down[index * own]
                    case .lowRank(let columns):
                        for column in 0..<columns {
                            fused.tensors[letter + "d"]!.values[row * R + start + column] =
                                down[index * own + column]
                        }
                    }
                }
                if case .lowRank(let columns) = part {
                    isLowRank = true
                    fused.tensors[letter + "u"]!.values.replaceSubrange(
                        start * inputs..<(start + columns) * inputs, with: up[..<(columns * inputs)])
                    start += columns
                }
            }
            return isLowRank ? .lowRank(start) : .vector
        }
        fused.path = GLoRAPath(a: form("A", \.a), b: form("B", \.b))
        guard hasBias else { return fused }
        for (rows, layer) in parts {
            let prompt = layer.prompt
            for (index, row) in rows.enumerated() {
                switch layer.path.d {
                case .none: break
                case .constant: fused.tensors["D"]!.values[row] = layer.tensors["D"]!.values[0]
                case .vector: fused.tensors["D"]!.values[row] = layer.tensors["D"]!.values[index]
                }
                var shift =
                    switch layer.path.e {
                    case .none: 0.0
                    case .constant: Double(layer.tensors["E"]!.values[0])
                    case .vector: Double(layer.tensors["E"]!.values[index])
                    }
                for (column, value) in prompt.enumerated() {
                    shift += Double(weight.values[row * inputs + column]) * value
                }
                fused.tensors["E"]!.values[row] = Float(shift)
            }
            if layer.path.d != .none { fused.path.d = .vector }
            if layer.path.e != .none || layer.path.c != .none { fused.path.e = .vector }
        }
        return fused
    }

    /// The layer whose rows the parts are; nil where they don't fit together.
    private static func stacked(
        _ parts: [(rows: Range<Int>, layer: GLoRAAdapter.Layer)], outputs: Int
    ) -> GLoRAAdapter.Layer? {
        let parts = parts.sorted { $0.rows.lowerBound < $1.rows.lowerBound }
        var whole = parts[0].layer
        let path = whole.path
        // A constant is the first number of its tensor.
        let constants = [
            path.a == .constant ? "Ad" : nil, path.b == .constant ? "Bd" : nil,
            path.d == .constant ? "D" : nil, path.e == .constant ? "E" : nil,
        ].compactMap(\.self)
        let fits = parts.allSatisfy { part in
            part.layer.path == path
                && ["Au", "Bu", "Cd", "Cu"].allSatisfy { part.layer.tensors[$0] == whole.tensors[$0] }
                && constants.allSatisfy { part.layer.tensors[$0]!.values[0] == whole.tensors[$0]!.values[0] }
        }
        guard fits, parts.reduce(0, { $0 + $1.rows.count }) == outputs else { return nil }
        for name in ["Ad", "Bd", "D", "E"] {
            whole.tensors[name] = HostTensor(
                shape: [outputs] + whole.tensors[name]!.shape.dropFirst(),
                values: parts.flatMap { $0.layer.tensors[name]!.values })
        }
        return whole
    }

    /// C [in] itself; empty when its form is none.
    private var prompt: [Double] {
        let (down, up) = (tensors["Cd"]!, tensors["Cu"]!)
        let (inputs, rank) = (down.shape[0], down.shape[1])
        func factor(_ row: Int, _ column: Int) -> Double { Double(down.values[row * rank + column]) }
        switch path.c {
        case .none: return []
        case .vector: return (0..<inputs).map { factor($0, 0) }
        case .lowRank(let columns):
            return (0..<inputs).map { row in
                (0..<columns).reduce(0) { $0 + factor(row, $1) * Double(up.values[$1]) }
            }
        }
    }
}
