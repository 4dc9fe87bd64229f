import TensorCore

/// Declarations with first values named as PyTorch's, of one stream of numbers: each has those behind the one before it.
public struct Initialization: Sendable {
    public private(set) var random: Random

    /// The stream of a method.
    public init(_ seed: Int, _ name: String) { random = Random(seed, "init-\(name)") }

    /// A stream from where it is.
    public init(_ random: Random) { self.random = random }

    /// U(±bound).
    public mutating func uniform(_ name: String, _ shape: [Int], _ bound: Double)
        -> ParameterStore.Declaration
    {
        declaration(name, shape, numbersEach: 1) { $0.uniform(in: -bound...bound) }
    }

    /// N(mean, deviation²).
    public mutating func normal(
        _ name: String, _ shape: [Int], mean: Double = 0, _ deviation: Double
    ) -> ParameterStore.Declaration {
        declaration(name, shape, numbersEach: 2) { mean + deviation * $0.normal() }
    }

    /// U(±√(6 / (in + out))).
    public mutating func xavier(
        _ name: String, _ shape: [Int], inputs: Int, outputs: Int
    ) -> ParameterStore.Declaration {
        uniform(name, shape, (6 / (Double(inputs) + Double(outputs))).squareRoot())
    }

    /// `kaiming_uniform_(a=√5)`, a Linear's own: U(±1/√in).
    public mutating func linear(_ name: String, _ shape: [Int], inputs: Int) -> ParameterStore.Declaration {
        uniform(name, shape, 1 / Double(inputs).squareRoot())
    }

    /// `draw` takes `numbersEach` numbers of the stream for a value.
    private mutating func declaration(
        _ name: String, _ shape: [Int], numbersEach: Int, _ draw: @escaping (inout Random) -> Double
    ) -> ParameterStore.Declaration {
        let start = random
        // Of a tensor that no memory can hold nothing is drawn, nor of what comes behind it.
        random.skip(product(shape + [numbersEach]) ?? 0)
        return ParameterStore.Declaration(name, shape) { count in
            var random = start
            return (0..<count).map { _ in Float(draw(&random)) }
        }
    }
}

package func zeros(_ name: String, _ shape: [Int]) -> ParameterStore.Declaration {
    .init(name, shape, repeating: 0)
}
