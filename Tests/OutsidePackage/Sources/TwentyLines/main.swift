// Loads a pretrained ViT, attaches GLoRA, trains, tests and merges, on any device:
//
//     swift run TwentyLines MODEL TASK merged.safetensors [cpu | auto | opencl:INDEX]
import Foundation
import SwiftGLoRA

let words = CommandLine.arguments
let backend = try Device(words.count > 4 ? words[4] : "auto")!.open()
let checkpoint = try ViTCheckpoint.load(URL(filePath: words[1]))
let task = try TaskFolder.open(URL(filePath: words[2]))

var options = TrainingOptions()  // the authors' settings, but for these
(options.path, options.epochs, options.warmupEpochs, options.learningRate) = ("full", 10, 0, 1e-3)

let model = try VisionTransformer(
    checkpoint, classCount: task.classCount,
    method: options.tuningMethod(checkpoint.configuration.shape), seed: options.seed, on: backend)
let preprocessor = try model.configuration.preprocessor
func images(_ split: Split) throws -> PreparedImages { PreparedImages(try task.split(split), preprocessor) }

try Trainer(model, options, training: images(.train), validation: images(.validation)).run()
print("test accuracy:", try evaluate(model, on: images(.test), batchSize: 32).accuracy)
_ = try model.merged().saveTimm(to: URL(filePath: words[3]))
