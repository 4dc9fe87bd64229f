import Adapters
import TensorCore

extension HeadKind {
    /// A head of `classes` over `width` features, with its first values.
    public func declarations(_ classes: Int, _ width: Int, seed: Int) -> [ParameterStore.Declaration] {
        var values = Initialization(Random(seed, "head"))
        let (weight, bias) = ("head.weight", "head.bias")
        let bound = 1 / Double(width).squareRoot()
        switch self {
        case .linear:
            return [
                values.uniform(weight, [classes, width], bound), values.uniform(bias, [classes], bound),
            ]
        case .batchNorm:
            return [
                values.normal(weight, [classes, width], 0.01), values.uniform(bias, [classes], bound),
                .init("head.running_mean", [width], repeating: 0),
                .init("head.running_var", [width], repeating: 1),
            ]
        case .vpt:
            let deviation = (2 / Double(classes)).squareRoot()
            return [
                values.normal(weight, [classes, width], deviation),
                .init(bias, [classes], repeating: -4.59511985013459),  // −log 99
            ]
        }
    }
}
