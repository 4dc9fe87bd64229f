import SwiftGLoRA
import Testing

@Suite("Places that a method of somebody else's may fill")
struct PlacesTests {
    /// Three prompts behind the class token in the first block; a fourth takes the place of two of them in the second.
    struct Prompts: TuningMethod {
        func declarations(_ shape: TransformerShape, seed: Int) -> [ParameterStore.Declaration] {
            var random = Initialization(seed, "prompts")
            return [random.normal("prompts", [4, shape.width], 0.5)]
        }

        func attach(
            to model: inout Attachments, _ store: ParameterStore, _ arena: Arena, _ backend: any Backend
        ) throws {
            let prompts = store["prompts"]!
            model.blocks[0].tokens = TokenEdit(prompts: prompts, count: 3, front: 1)
            model.blocks[1].tokens = TokenEdit(
                prompts: prompts, offset: 3 * model.shape.width, count: 1, removed: 2, front: 1)
        }
    }

    /// Trains the MLPs' first Linears themselves, by a layer of its own.
    struct Whole: TuningMethod {
        func trains(_ name: String) -> Bool { name.contains(".fc1.") }

        func attach(
            to model: inout Attachments, _ store: ParameterStore, _ arena: Arena, _ backend: any Backend
        ) throws {
            for block in model.blocks.indices {
                model.blocks[block][.up] = WholeLinear(model.blocks[block][.up].base)
            }
        }
    }

    /// y = x Wᵀ + b, all of it trained.
    final class WholeLinear: LinearLayer {
        let base: BaseLinear
        init(_ base: BaseLinear) { self.base = base }

        var isTrained: Bool { base.isTrained }
        var parameterCount: Int { 0 }
        func pass(rows: Int, product: Tensor?, in workspace: Workspace) -> any LinearPass { Pass(base) }
        func prepare() {}
        func unprepare() {}
        func folded() -> (weight: HostTensor, bias: HostTensor?)? { nil }

        final class Pass: LinearPass {
            private let base: BaseLinear
            private var weight: LinearWeight { LinearWeight(base.weight.value) }
            init(_ base: BaseLinear) { self.base = base }

            func forward(_ y: Tensor?, _ x: Tensor, activated: Tensor?, dropoutSeed: UInt64?) {
                var epilogue = Epilogue(bias: base.bias?.value)
                epilogue.activated = activated
                base.backend.linear(y, x, weight, epilogue)
            }

            func backward(_ dx: Tensor?, _ dy: Tensor, _ x: Tensor, dropoutSeed: UInt64?) {
                base.accumulateGradients(dy, x)
                if let dx { base.backend.linearBackward(dx, dy, weight) }
            }
        }
    }

    @Test("take prompts in front of the patches", arguments: QueryBiasTests.devices)
    func prompts(_ device: String) throws {
        let model = try QueryBiasTests.model(try Device(device)!.open(), Prompts())
        #expect(model.parameterCount == 4 * 32)
        // A number of each prompt.
        try QueryBiasTests.expectSlopes(
            of: model, on: QueryBiasTests.images(4, for: model), ["prompts"], at: [5, 37, 90, 100])
    }

    @Test("take a layer that trains the pretrained weight", arguments: QueryBiasTests.devices)
    func layers(_ device: String) throws {
        let model = try QueryBiasTests.model(try Device(device)!.open(), Whole())
        #expect(model.layers.count { $0 is WholeLinear } == 2)
        try QueryBiasTests.expectSlopes(
            of: model, on: QueryBiasTests.images(4, for: model),
            ["blocks.0.mlp.fc1.weight", "blocks.1.mlp.fc1.bias"], at: [0, 31, 63])
    }
}
