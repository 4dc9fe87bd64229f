import Adapters
import Checkpoints
import Foundation
import TensorCore
import Testing
@testable import Training

/// Files of the build before settings were written in one place, letter by letter.
@Suite struct EarlierRunTests {
    @Test(
        "A run of an earlier build is read, and written again it has the same bytes",
        arguments: [glora, adaptFormer])
    func configuration(_ text: String) throws {
        try TinyTask.withFolder { folder in
            let (old, new) = (folder.appendingPathComponent("old"), folder.appendingPathComponent("new"))
            try FileManager.default.createDirectory(at: old, withIntermediateDirectories: true)
            try Data(text.utf8).write(to: old.appendingPathComponent("config.yaml"))
            let configuration = try RunDirectory(old).configuration()
            let start = TrainingSnapshot(
                state: TrainingState(), values: [:], firstMoments: [:], secondMoments: [:])
            try RunDirectory(new).create(configuration, start)
            #expect(
                try String(contentsOf: new.appendingPathComponent("config.yaml"), encoding: .utf8) == text)
        }
    }

    @Test("Their settings are what the command lines said")
    func settings() throws {
        try TinyTask.withFolder { folder in
            func options(_ text: String) throws -> TrainingOptions {
                try Data(text.utf8).write(to: folder.appendingPathComponent("config.yaml"))
                return try RunDirectory(folder).configuration().options
            }
            var expected = TrainingOptions(method: .adaptformer, batchSize: 8)
            (expected.model, expected.data, expected.heads, expected.epochs) = (
                "m.safetensors", "folders", 2, 2
            )
            expected.methodSettings.width = 4
            expected.methodSettings.placement = "sequential"
            expected.methodSettings.adapterNorm = "in"
            expected.methodSettings.learnableScale = true
            expected.methodSettings.dropout = 0.25
            let (read, other) = (try options(adaptFormer), try options(glora))
            #expect(read == expected && read != other)
            #expect(throws: TrainingError.self) { _ = try options(glora.replacing("  lr: 1e-2\n", with: "")) }
        }
    }

    @Test("An adapter of an earlier build is read with its settings")
    func adapter() throws {
        try TinyTask.withFolder { folder in
            try Data(adapterConfig.utf8).write(to: folder.appendingPathComponent("adapter_config.json"))
            try writeSafetensors(
                ["head.bias": HostTensor(shape: [3], values: [1, 2, 3])],
                to: folder.appendingPathComponent("adapter_model.safetensors"), metadata: [:])
            let read = try #require(try MethodAdapter.load(folder))
            var expected = MethodSettings()
            (expected.width, expected.dropout, expected.placement) = (4, 0.25, "sequential")
            (expected.adapterNorm, expected.learnableScale) = ("in", true)
            #expect(read.settings == expected && read.head == .batchNorm && read.method == .adaptformer)
        }
    }

    @Test("A setting is known by one name, and says in a sentence what it may be")
    func names() {
        let names = TrainingOptions().settings.map(\.name)
        #expect(Set(names).count == names.count && names.count == 70)
        var options = TrainingOptions()
        let copy = options
        options.methodSettings.rank = 5000
        #expect(copy.fault == nil && copy.methodSettings.rank == nil)
        #expect(options.fault == "`rank` must be from 1 to 4096, not 5000")
        #expect(options.differences(from: copy) == ["`rank` 5000, not unset"])
    }
}

// glora train --model m.safetensors --data task --heads 2 --run glora --device cpu --batch-size 8 --epochs 2 --warmup-epochs 1
// --lr 1e-2 --validate-every 1 --ranks 4,2 --forms-c none --no-drop-last --linears qkv,fc2 --crop center --resize-to 40
// --interpolation bilinear --recipe sandwich --image-size 32 --normalize imagenet --adamw sparse --memory low
private let glora = """
    architecture:
      channels: 3
      classCount: 32
      depth: 2
      hasClassToken: true
      heads: 2
      hiddenWidth: 32
      imageSize: 32
      layerNormEpsilon: 9.9999999747524271e-07
      patchSize: 16
      pooling: token
      preprocessing:
        crop: rounded
        filter: bilinear
        mean:
        - 4.85000014305115e-1
        - 4.56000000238419e-1
        - 4.0599998831749e-1
        rescale: '0.00392156862745098'
        resize: shorterSide
        side: '40.0'
        std:
        - 2.29000002145767e-1
        - 2.24000006914139e-1
        - 2.24999994039536e-1
      qkvBias: true
      width: 16
    baseHash: 8b4cb6f382805ea7
    classCount: 3
    dataHash: 6768db9737a6c39e-55fdaf64e53f3196
    options:
      adamw: sparse
      batch-size: 8
      crop: center
      data: task
      drop-last: false
      drop-path: 1e-1
      epochs: 2
      forms-a:
      - lowRank
      - vector
      - constant
      - none
      forms-b:
      - lowRank
      - vector
      - constant
      - none
      forms-c:
      - none
      forms-d:
      - constant
      - none
      - vector
      forms-e:
      - constant
      - none
      - vector
      head: linear
      heads: 2
      image-size: 32
      interpolation: bilinear
      linears:
      - qkv
      - fc2
      lr: 1e-2
      memory: low
      method: glora
      min-lr: 1.0000000000000001e-05
      model: m.safetensors
      normalize: imagenet
      optimizer: adamw
      path: supernet
      precision: float32
      ranks:
      - 4
      - 2
      recipe: sandwich
      resize-to: 40
      seed: 42
      train-split: train800
      validate-every: 1
      warmup-epochs: 1
      warmup-lr: 9.9999999999999995e-07
      weight-decay: 1e-4
    productParts: 2

    """

// glora train --model m.safetensors --data folders --heads 2 --run adapt --device cpu --batch-size 8 --epochs 2
// --method adaptformer --width 4 --placement sequential --adapter-norm in --learnable-scale --dropout 0.25
private let adaptFormer = """
    architecture:
      channels: 3
      classCount: 32
      depth: 2
      hasClassToken: true
      heads: 2
      hiddenWidth: 32
      imageSize: 32
      layerNormEpsilon: 9.9999999747524271e-07
      patchSize: 16
      pooling: token
      preprocessing:
        crop: rounded
        filter: bicubic
        mean:
        - 5e-1
        - 5e-1
        - 5e-1
        rescale: '0.00392156862745098'
        resize: squash
        std:
        - 5e-1
        - 5e-1
        - 5e-1
      qkvBias: true
      width: 16
    baseHash: 8b4cb6f382805ea7
    classCount: 3
    classNames:
    - c0
    - c1
    - c2
    dataHash: d0c127f7e9c932a9-3e38b299a16533f8
    options:
      adamw: dense
      adapter-norm: in
      batch-size: 8
      data: folders
      drop-last: true
      drop-path: 0e+0
      dropout: 2.5e-1
      epochs: 2
      forms-a:
      - lowRank
      - vector
      - constant
      - none
      forms-b:
      - lowRank
      - vector
      - constant
      - none
      forms-c:
      - lowRank
      - vector
      - none
      forms-d:
      - constant
      - none
      - vector
      forms-e:
      - constant
      - none
      - vector
      head: batchnorm
      heads: 2
      learnable-scale: true
      linears:
      - qkv
      - proj
      - fc1
      - fc2
      lr: 3.125e-3
      memory: balanced
      method: adaptformer
      min-lr: 0e+0
      model: m.safetensors
      normalize: model
      optimizer: sgd
      path: supernet
      placement: sequential
      precision: float32
      ranks:
      - 4
      recipe: original
      seed: 42
      train-split: train800
      validate-every: 10
      warmup-epochs: 20
      warmup-lr: 9.9999999999999995e-07
      weight-decay: 0e+0
      width: 4
    productParts: 2

    """

// adapt/adapter/adapter_config.json
private let adapterConfig = """
    {
      "adapterNorm": "in",
      "dropout": 0.25,
      "glora_architecture": {
        "channels": 3,
        "classCount": 3,
        "depth": 2,
        "hasClassToken": true,
        "heads": 2,
        "hiddenWidth": 32,
        "imageSize": 32,
        "layerNormEpsilon": 1e-06,
        "patchSize": 16,
        "pooling": "token",
        "preprocessing": {
          "crop": "rounded",
          "filter": "bicubic",
          "mean": [0.5, 0.5, 0.5],
          "rescale": "0.00392156862745098",
          "resize": "squash",
          "std": [0.5, 0.5, 0.5]
        },
        "qkvBias": true,
        "width": 16
      },
      "glora_base_hash": "8b4cb6f382805ea7",
      "glora_base_model": "m.safetensors",
      "glora_class_names": [
        "c0",
        "c1",
        "c2"
      ],
      "glora_image_size": 32,
      "glora_method": "adaptformer",
      "glora_method_version": 1,
      "head_kind": "batchnorm",
      "learnableScale": true,
      "placement": "sequential",
      "width": 4
    }

    """
