import Checkpoints
import ModelConfiguration
import TensorCore

extension ViTCheckpoint {
    /// A model that nobody has trained: weights normal with deviation 0.02 cut at two deviations, biases 0, LayerNorms 1 and 0,
    /// positions and class token like weights; without a head. Source: timm 0.6.5, `init_weights_vit_timm`.
    public static func random(_ configuration: ViTConfiguration, seed: Int) throws -> ViTCheckpoint {
        var headless = configuration
        headless.classCount = 0
        var tensors: [String: HostTensor] = [:]
        for (index, (name, shape)) in headless.tensorShapes.sorted(by: { $0.key < $1.key }).enumerated() {
            let isNorm = name.contains("norm")
            if name.hasSuffix("bias") || isNorm {
                tensors[name] = HostTensor(
                    shape: shape, repeating: isNorm && name.hasSuffix("weight") ? 1 : 0)
                continue
            }
            var random = Random(seed, "weights", index)
            let values = (0..<shape.reduce(1, *)).map { _ -> Float in
                var value = random.normal()
                while abs(value) > 2 { value = random.normal() }
                return Float(0.02 * value)
            }
            tensors[name] = HostTensor(shape: shape, values: values)
        }
        return try ViTCheckpoint(configuration: headless, tensors: tensors)
    }
}
