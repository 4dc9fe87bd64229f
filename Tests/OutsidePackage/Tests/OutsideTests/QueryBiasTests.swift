import Foundation
import QueryBias
import SwiftGLoRA
import Testing

@Suite("A method of somebody else's")
struct QueryBiasTests {
    static let devices = ["cpu", "opencl:0"]

    /// Bright and dark images of 16 × 16 pixels, a class each.
    static func images(_ count: Int) -> InMemoryImages {
        let labels = (0..<count).map { $0 % 2 }
        let images = labels.enumerated().map { index, label in
            RGBImage(
                width: 16, height: 16,
                pixels: (0..<768).map { UInt8(($0 * 7 + index * 13) % 100 + 120 * label) })
        }
        return InMemoryImages(name: "brightness", images: images, labels: labels, classCount: 2)
    }

    /// The images as the model reads them.
    static func images(_ count: Int, for model: VisionTransformer) throws -> PreparedImages {
        PreparedImages(images(count), try model.configuration.preprocessor)
    }

    static func model(_ backend: any Backend, _ method: any TuningMethod) throws -> VisionTransformer {
        let configuration = ViTConfiguration(
            imageSize: 16, patchSize: 8, width: 32, depth: 2, heads: 2, hiddenWidth: 64, classCount: 0)
        return try VisionTransformer(
            try .random(configuration, seed: 1), classCount: 2, method: method, seed: 2, on: backend)
    }

    @Test("has the gradients that central differences give", arguments: devices)
    func gradients(_ device: String) throws {
        let model = try QueryBiasTests.model(try Device(device)!.open(), QueryBias())
        try QueryBiasTests.expectSlopes(
            of: model, on: QueryBiasTests.images(4, for: model),
            ["blocks.0.attn.qkv.shift", "blocks.1.mlp.fc2.shift"], at: [0, 13, 31])
    }

    /// Compares some numbers of trained tensors' gradients with central differences of the mean loss over the examples.
    static func expectSlopes<Model: TrainableModel>(
        of model: Model, on examples: Model.Examples, _ names: [String], at indices: [Int]
    ) throws {
        let backend = model.backend
        let plan = try model.plan(batch: examples.count, isForTraining: true)
        examples.start([Array(0..<examples.count)])
        model.load(try #require(try examples.next()), into: plan)
        /// The batch's mean loss with one number of a tensor moved.
        func loss(_ name: String, _ index: Int, moved step: Float) -> Double {
            let parameter = model.store[name]!
            let values = backend.values(parameter.value)
            var moved = values
            moved[index] += step
            backend.upload(parameter.value, moved)
            defer { backend.upload(parameter.value, values) }
            model.forward(plan)
            model.loss(plan)
            return backend.values(plan.losses).reduce(0) { $0 + Double($1) } / Double(plan.batch)
        }
        model.store.clearGradients()
        model.forward(plan)
        model.loss(plan)
        model.backward(plan, .evaluation, lossScale: 1)
        for name in names {
            let gradient = backend.values(try #require(model.store[name]?.gradient))
            for index in indices {
                let slope = (loss(name, index, moved: 2e-3) - loss(name, index, moved: -2e-3)) / 4e-3
                #expect(
                    gradient[index] != 0 && abs(Double(gradient[index]) - slope) <= 2e-4 + 0.02 * abs(slope),
                    "\(name)[\(index)]: \(gradient[index]), not \(slope)")
            }
        }
    }

    @Test("trains, and merges into a model that computes the same", arguments: devices)
    func training(_ device: String) throws {
        let backend = try Device(device)!.open()
        let model = try QueryBiasTests.model(backend, QueryBias())
        #expect(model.parameterCount == 2 * 2 * 32)
        var options = TrainingOptions()
        (options.epochs, options.warmupEpochs, options.batchSize, options.learningRate) = (8, 1, 8, 2e-3)
        let images = try QueryBiasTests.images(32, for: model)
        var losses: [Double] = []
        try Trainer(model, options, training: images, validation: nil).run(onEvent: {
            if case .epoch(_, let loss, _) = $0 { losses.append(loss) }
        })
        #expect(losses.count == 8 && losses.last! < 0.9 * losses[0], "\(losses)")

        let merged = try model.merged()
        let plain = try VisionTransformer(
            merged, classCount: 2, method: Backbone.frozen, seed: 3, head: merged.head, forInference: true,
            on: backend)
        let difference = try logitDifference(model, plain, "merged", on: images)
        #expect(difference.largest <= 1e-5 && difference.imageCount == 32)
        // Without the shifts it computes something else.
        #expect(backend.values(model.store["blocks.0.attn.qkv.shift"]!.value).contains { abs($0) > 1e-3 })
    }
}

/// y ← W₀x + b₀ at a block's output, with factors that are given, or a tensor of a name that is given.
private struct Odd: TuningMethod {
    var name = "blocks.0.odd"
    var factors: LinearFactors?

    func declarations(_ shape: TransformerShape, seed: Int) -> [ParameterStore.Declaration] {
        [.init(name, [1], repeating: 0)]
    }
    func attach(
        to model: inout Attachments, _ store: ParameterStore, _ arena: Arena, _ backend: any Backend
    ) throws {
        model.blocks[0][.output] = AdaptedLinear(
            model.blocks[0][.output].base, beside: Term(given: factors))
    }

    private final class Term: Update {
        let given: LinearFactors?
        init(given: LinearFactors?) { self.given = given }
        var parameterCount: Int { 1 }
        func keptShapes(rows: Int) -> [[Int]] { [] }
        func add(to y: Tensor, _ x: Tensor, _ kept: [Tensor], dropoutSeed: UInt64?) {}
        func backward(
            _ dx: Tensor?, _ dy: Tensor, _ x: Tensor, _ kept: [Tensor], dropoutSeed: UInt64?
        ) {}
        func factors() -> LinearFactors? { given }
    }
}

@Suite("What would be wrong in silence is refused")
struct RefusalTests {
    @Test("A term that has no factors, or factors of another size, isn't merged")
    func factors() throws {
        let backend = try Device.cpu.open()
        for (factors, sentence) in [
            (nil, "isn't linear"),
            (LinearFactors(bias: HostTensor(shape: [33], repeating: 1), inputs: 32), "bias [33], don't fit"),
        ] {
            let model = try QueryBiasTests.model(backend, Odd(factors: factors))
            #expect { try model.merged() } throws: { error in
                "\(error)".contains(sentence) && "\(error)".contains("blocks.0.attn.proj")
            }
        }
        let right = LinearFactors(bias: HostTensor(shape: [32], repeating: 1), inputs: 32)
        let merged = try QueryBiasTests.model(backend, Odd(factors: right)).merged()
        #expect(merged.tensors["blocks.0.attn.proj.bias"]?.values == Array(repeating: 1, count: 32))
    }

    @Test("A tensor of the method's can't have the name of one of the model's")
    func names() throws {
        let backend = try Device.cpu.open()
        for name in ["blocks.0.norm1.bias", "head.weight"] {
            #expect { try QueryBiasTests.model(backend, Odd(name: name)) } throws: { error in
                "\(error)".contains(name)
            }
        }
    }

    @Test("A model that stores 16 bits isn't merged unless that is asked for")
    func rounding() throws {
        let backend = try Device.openCL("0").open(precision: .bfloat16)
        let model = try QueryBiasTests.model(backend, QueryBias())
        #expect { try model.merged() } throws: { "\($0)".contains("rounded to bfloat16") }
        #expect(try model.merged(allowsRounding: true).tensors["blocks.0.attn.proj.bias"] != nil)
    }
}

@Test("The documentation shows the twenty lines as they are")
func shownLines() throws {
    let package = URL(filePath: #filePath).deletingLastPathComponent().appending(path: "../..")
    let lines = try String(
        contentsOf: package.appending(path: "Sources/TwentyLines/main.swift"), encoding: .utf8)
    let page = try String(
        contentsOf: package.appending(path: "../../Sources/SwiftGLoRA/SwiftGLoRA.docc/UsingTheLibrary.md"),
        encoding: .utf8)
    #expect(page.contains("```swift\n\(lines)```\n"))
}
