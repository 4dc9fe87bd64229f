import Adapters
import TensorCore
import TestSupport
import Testing
import VisionModels

/// Gradients accumulate until they are cleared, whatever is trained: what a step over several batches relies on.
@Suite("Gradients accumulate until they are cleared")
struct AccumulationTests {
    /// What is trained, and on which paths.
    enum Case: CustomStringConvertible, Sendable {
        case method(MethodTests.Variant)
        /// At a width of 6 in weight space, at 64 in activation space where a path allows it.
        case glora(String, [GLoRAPath], width: Int)
        case everything

        var description: String {
            switch self {
            case .method(let variant): variant.description
            case .glora(let name, _, let width): "\(name), width \(width)"
            case .everything: "everything"
            }
        }

        static let all: [Case] =
            MethodTests.Variant.all.map { .method($0) }
            + [6, 64].flatMap { width -> [Case] in
                [
                    .glora("mixed paths", TinyModel.mixedPaths, width: width),
                    .glora("paths that keep z", PlanTests.keepingPaths, width: width),
                    .glora("full paths", Array(repeating: .full(rank: 2), count: 8), width: width),
                ]
            } + [.everything]

        func model(on backend: any Backend) throws -> VisionTransformer {
            switch self {
            case .method(let variant): return try variant.model(variant.tiny(), on: backend)
            case .glora(_, let paths, let width):
                let model = try TinyModel(width: width, hiddenWidth: 2 * width).adapted(on: backend)
                model.layers.take(paths)
                return model
            case .everything: return try TinyModel().model(Backbone.everything, on: backend)
            }
        }
    }

    @Test("Two backwards add up, of one batch and of two", arguments: Case.all)
    func twoBackwards(_ trained: Case) throws {
        let batch = 4
        let labels = TinyModel.labels(batch)
        let batches = [900, 901].map { TinyModel.images(batch, seed: $0) }
        var scales: [[Float]]?
        if case .method(let variant) = trained, variant.dropsBranches {
            scales = (0..<4).map { branch in (0..<batch).map { $0 == branch ? 0 : 4 / 3 } }
        }
        for device in TestDevice.all {
            try device.withBackend { backend in
                let model = try trained.model(on: backend)
                let plan = try model.plan(batch: batch, isForTraining: true)
                /// The gradients after a backward of each of these batches.
                func gradients(_ indices: Int...) -> [String: [Double]] {
                    backend.fill(model.store.gradients, .nan)
                    model.store.clearGradients()
                    for index in indices {
                        model.step(plan, batches[index], labels, scales: scales, noise: 77)
                    }
                    return model.store.unpack(model.store.gradients).mapValues { doubles($0.values) }
                }
                func length(_ values: [Double]) -> Double {
                    values.reduce(0) { $0 + $1 * $1 }.squareRoot()
                }
                let each = [gradients(0), gradients(1)]
                for (first, second, both) in [(0, 0, gradients(0, 0)), (0, 1, gradients(0, 1))] {
                    let whole = length(both.values.flatMap { $0 })
                    #expect(whole > 0 && whole.isFinite)
                    for name in model.trainedNames.sorted() {
                        let sum = zip(each[first][name]!, each[second][name]!).map { $0 + $1 }
                        let error = length(zip(both[name]!, sum).map { $0 - $1 })
                        // To float32's rounding, also where a gradient is nothing but that.
                        #expect(
                            error <= 1e-6 * length(sum) + 1e-7 * whole,
                            "\(name) after batches \(first) and \(second) on \(device)")
                    }
                }
            }
        }
    }

    @Test("Every method is among them")
    func coversAllMethods() {
        let methods = Case.all.map { trained -> MethodName in
            if case .method(let variant) = trained { variant.method } else { .glora }
        }
        #expect(Set(methods) == Set(MethodName.allCases))
    }
}
