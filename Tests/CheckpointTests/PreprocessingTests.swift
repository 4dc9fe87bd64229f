import Datasets
import Foundation
import Testing

@testable import Checkpoints

@Suite("What a model's files say of its images is obeyed or refused")
struct PreprocessingTests {
    func huggingFace(_ json: String, imageSize: Int = 224) throws -> Preprocessing {
        try Preprocessing(huggingFace: JSONValue(parsing: json.utf8), imageSize: imageSize, path: "p.json")
    }

    func timm(_ json: String, imageSize: Int = 224) throws -> Preprocessing {
        try Preprocessing(timm: JSONValue(parsing: json.utf8), imageSize: imageSize, path: "p.json")
    }

    // MARK: Hugging Face

    static let clip: (mean: [Float], std: [Float]) = (
        [0.48145466, 0.4578275, 0.40821073], [0.26862954, 0.26130258, 0.27577711]
    )

    /// What transformers 5.24's AutoImageProcessor says of these files.
    @Test(
        "Hugging Face's image processors are obeyed",
        arguments: [
            ("{}", Preprocessing(filter: .bilinear, mean: [0.5, 0.5, 0.5], std: [0.5, 0.5, 0.5])),
            (
                #"{"image_processor_type": "ViTImageProcessorFast", "size": [224, 224], "image_mean": null}"#,
                Preprocessing(filter: .bilinear, mean: [0.5, 0.5, 0.5], std: [0.5, 0.5, 0.5])
            ),
            (
                #"{"feature_extractor_type": "DeiTFeatureExtractor", "size": 256, "crop_size": 224}"#,
                Preprocessing(side: 256, crop: .truncated, mean: [0.5, 0.5, 0.5], std: [0.5, 0.5, 0.5])
            ),
            (
                #"{"image_processor_type": "DeiTImageProcessor"}"#,
                Preprocessing(side: 256, crop: .truncated, mean: [0.5, 0.5, 0.5], std: [0.5, 0.5, 0.5])
            ),
            (
                #"{"image_processor_type": "BeitImageProcessor"}"#,
                Preprocessing(mean: [0.5, 0.5, 0.5], std: [0.5, 0.5, 0.5])
            ),
            (
                #"{"image_processor_type": "BitImageProcessor"}"#,
                Preprocessing(resize: .shorterSide, crop: .truncated, mean: clip.mean, std: clip.std)
            ),
            (
                #"{"image_processor_type": "CLIPImageProcessor", "size": 256, "crop_size": 224}"#,
                Preprocessing(
                    resize: .shorterSide, side: 256, crop: .truncated, mean: clip.mean, std: clip.std)
            ),
            (
                #"{"image_processor_type": "SiglipImageProcessor", "size": 224}"#,
                Preprocessing(
                    resize: .shorterSide, crop: .none, mean: [0.5, 0.5, 0.5], std: [0.5, 0.5, 0.5])
            ),
            (
                #"{"image_processor_type": "PvtImageProcessor"}"#,
                Preprocessing()
            ),
            (
                #"{"resample": 1, "image_mean": 0.5, "image_std": 0.25, "rescale_factor": 0.0078125}"#,
                Preprocessing(
                    filter: .lanczos, rescale: 0.0078125, mean: [0.5, 0.5, 0.5],
                    std: [0.25, 0.25, 0.25])
            ),
            (
                #"{"do_rescale": false, "do_resize": false, "do_normalize": false, "do_pad": false, "clusters": null}"#,
                Preprocessing(
                    resize: .none, crop: .none, filter: .bilinear, rescale: 1, mean: [0, 0, 0],
                    std: [1, 1, 1])
            ),
        ])
    func processorsAreObeyed(_ json: String, _ expected: Preprocessing) throws {
        #expect(try huggingFace(json) == expected)
    }

    @Test("Filters have Pillow's numbers")
    func filtersHavePillowsNumbers() throws {
        let filters = try (0..<6).map { try huggingFace("{\"resample\": \($0)}").filter }
        #expect(filters == [.nearest, .lanczos, .bilinear, .bicubic, .box, .hamming])
    }

    @Test(
        "Processors that can't be obeyed are refused",
        arguments: [
            (#"{"image_processor_type": "ConvNextImageProcessor"}"#, "ConvNextImageProcessor"),
            (#"{"size": {"height": 224, "width": 448}}"#, "neither a square"),
            (#"{"size": {"longest_edge": 224}}"#, "neither a square"),
            (#"{"size": {"shortest_edge": 224, "longest_edge": 300}}"#, "neither a square"),
            (#"{"size": 256}"#, "size makes images of 256 × 256 pixels, but the model takes 224"),
            (#"{"do_center_crop": true, "crop_size": 192}"#, "crop_size makes images of 192 × 192"),
            (#"{"do_center_crop": true}"#, "crop_size isn't given"),
            (#"{"size": 192, "do_center_crop": true, "crop_size": 224}"#, "would be padded"),
            (#"{"resample": 6}"#, "no filter of Pillow"),
            (#"{"resample": "bicubic"}"#, "no filter of Pillow"),
            (#"{"do_pad": true}"#, "do_pad = true"), (#"{"do_color_quantize": true}"#, "do_color_quantize"),
            (#"{"do_reduce_labels": true}"#, "do_reduce_labels"), (#"{"crop_pct": 0.9}"#, "crop_pct = 0.9"),
            (#"{"do_normalize": "no"}"#, "neither true nor false"),
            (#"{"rescale_factor": 0}"#, "no factor"), (#"{"image_mean": [0.5, 0.5]}"#, "not three numbers"),
        ])
    func processorsThatCantBeObeyedAreRefused(_ json: String, _ part: String) {
        expectError(part) { _ = try huggingFace(json) }
    }

    /// The order in which transformers looks for the file.
    @Test("processor_config.json wins over preprocessor_config.json")
    func theProcessorsOwnSettingsWinOverTheOldFile() throws {
        try withTemporaryFolder { folder in
            let hf = folder.appendingPathComponent("hf")
            try FileManager.default.copyItem(at: fixture("huggingface"), to: hf)
            var checkpoint = try ViTCheckpoint.load(hf)
            #expect(checkpoint.preprocessingOrigin == .file("preprocessor_config.json"))
            #expect(checkpoint.configuration.preprocessing.filter == .bilinear)
            let processor = hf.appendingPathComponent("processor_config.json")
            try AtomicFile.write(#"{"processor_class": "P"}"#, to: processor)
            #expect(try ViTCheckpoint.load(hf) == checkpoint)
            let nested =
                #"{"image_processor": {"size": {"shortest_edge": 20}, "do_center_crop": true, "crop_size": 16}}"#
            try AtomicFile.write(nested, to: processor)
            checkpoint = try ViTCheckpoint.load(hf)
            #expect(checkpoint.preprocessingOrigin == .file("processor_config.json"))
            #expect(
                checkpoint.configuration.preprocessing
                    == Preprocessing(
                        resize: .shorterSide, side: 20, crop: .truncated, filter: .bilinear,
                        mean: [0.5, 0.5, 0.5], std: [0.5, 0.5, 0.5]))
            try FileManager.default.removeItem(at: processor)
            try FileManager.default.removeItem(at: hf.appendingPathComponent("preprocessor_config.json"))
            checkpoint = try ViTCheckpoint.load(hf)
            #expect(checkpoint.preprocessingOrigin == .assumed)
            #expect(checkpoint.configuration.preprocessing == .transformersDefault)
            #expect(checkpoint.notes.first?.contains("bilinear, mean and std 0.5") == true)
        }
    }

    // MARK: timm

    /// timm 1.0.31's resolve_data_config and transforms_imagenet_eval: 7/8, bicubic, ImageNet's where nothing is said.
    @Test("timm's configuration is obeyed")
    func timmsConfigurationIsObeyed() throws {
        #expect(try timm("{}") == Preprocessing(resize: .shorterSide, side: 256))
        #expect(
            try timm(
                #"{"crop_pct": 0.9, "interpolation": "bilinear", "crop_mode": "squash", "mean": [0.5, 0.5, 0.5]}"#
            )
                == Preprocessing(
                    resize: .squash, side: 224 / 0.9, filter: .bilinear, mean: [0.5, 0.5, 0.5]))
        #expect(try timm(#"{"crop_pct": 1, "crop_mode": ""}"#) == Preprocessing(resize: .shorterSide))
        // timm reads test_crop_pct for --use-test-size alone.
        #expect(try timm(#"{"test_crop_pct": 1.0, "crop_pct": 0.95}"#).side == 224 / 0.95)
    }

    @Test(
        "Settings of timm's that can't be obeyed are refused",
        arguments: [
            (#"{"crop_mode": "border"}"#, "crop_mode = \"border\""),
            (#"{"interpolation": "random"}"#, "interpolation = \"random\""),
            (#"{"crop_pct": 1.2}"#, "crop_pct = 1.2"), (#"{"std": [1, 2]}"#, "std = [1, 2]"),
        ])
    func timmsSettingsThatCantBeObeyedAreRefused(_ json: String, _ part: String) {
        expectError(part) { _ = try timm(json) }
    }

    @Test(
        "Settings anywhere in timm's file are checked",
        arguments: [
            (#""mean""#, #""label_offset": 1, "mean""#, "label_offset = 1"),
            (#""mean""#, #""crop_border_pixels": 4, "mean""#, "crop_border_pixels"),
            ("      16\n    ],", "      32\n    ],", "input_size = [3, 16, 32]"),
        ])
    func timmsFilesAreCheckedWhole(_ old: String, _ new: String, _ part: String) throws {
        try withTemporaryFolder { folder in
            let url = folder.appendingPathComponent("timm")
            try FileManager.default.copyItem(at: fixture("timm"), to: url)
            let config = url.appendingPathComponent("config.json")
            let text = try String(contentsOf: config, encoding: .utf8)
            let range = try #require(text.range(of: old))
            try AtomicFile.write(text.replacingCharacters(in: range, with: new), to: config)
            expectError(part) { _ = try ViTCheckpoint.load(url) }
        }
    }

    @Test("A configuration that says nothing of images is noted")
    func aConfigurationThatSaysNothingIsNoted() throws {
        try withTemporaryFolder { folder in
            let url = folder.appendingPathComponent("timm")
            try FileManager.default.copyItem(at: fixture("timm"), to: url)
            let config = url.appendingPathComponent("config.json")
            let text = try String(contentsOf: config, encoding: .utf8)
            let start = try #require(text.range(of: ",\n  \"pretrained_cfg\"")).lowerBound
            try AtomicFile.write(String(text[..<start]) + "}", to: config)
            let checkpoint = try ViTCheckpoint.load(url)
            #expect(checkpoint.preprocessingOrigin == .assumed)
            #expect(checkpoint.configuration.preprocessing == .timmDefault(imageSize: 16))
            #expect(checkpoint.notes.contains { $0.contains("timm's defaults are assumed (the centre 7/8") })
        }
    }

    // MARK: Written and read

    /// timm floors S / crop_pct, so that a crop_pct that is off in its last bit loses a pixel: of 224 / (224 / side)
    /// as doubles, 1 in 17 does.
    @Test("timm reads back the very side that was written")
    func timmReadsTheSideThatWasWritten() throws {
        for size in [16, 224, 336, 384, 518] {
            for side in size...2 * size {
                let written = Preprocessing(
                    resize: .shorterSide, side: side == size ? nil : Double(side), filter: .hamming)
                let text = try JSONValue.object(written.timm(imageSize: size)).text()
                let read = try timm(text, imageSize: size)
                #expect(Int(read.side ?? Double(size)) == side)
                var rounded = read
                rounded.side = written.side
                #expect(rounded == written)
            }
        }
        for part in [0.875, 0.9, 0.95, 0.96, 1] {
            let read = try timm("{\"crop_pct\": \(part)}", imageSize: 384)
            #expect(try read.timm(imageSize: 384)["crop_pct"]?.numberValue == part)
        }
    }

    /// timm multiplies by 1/255 and no other number.
    @Test("Other scales than 1/255 are folded into timm's mean and deviation")
    func otherScalesAreFoldedIntoTimmsMean() throws {
        let scaled = Preprocessing(rescale: 1 / 127.5, mean: [1, 1, 1], std: [1, 0.5, 2])
        let read = try timm(JSONValue.object(scaled.timm(imageSize: 224)).text())
        #expect(read == Preprocessing(mean: [0.5, 0.5, 0.5], std: [0.5, 0.25, 1]))
        expectError("aren't resized") { _ = try Preprocessing(resize: .none).timm(imageSize: 8) }
        for rescale in [1e-300, 1e300] {
            expectError("are multiplied by \(rescale)") {
                _ = try Preprocessing(rescale: rescale).timm(imageSize: 8)
            }
        }
    }

    @Test("transformers' form reads back what was written")
    func transformersReadsWhatWasWritten() throws {
        for resize in Preprocessing.Resize.allCases {
            for filter in Preprocessing.Filter.allCases {
                for crop in [Preprocessing.Crop.none, .truncated] {
                    let written = Preprocessing(
                        resize: resize, side: resize == .none || crop == .none ? nil : 256, crop: crop,
                        filter: filter, rescale: 1 / 127.5, mean: [0.1, 0.2, 0.3], std: [1, 2, 3])
                    var expected = written
                    if resize == .squash, crop == .none { expected.crop = .rounded }
                    #expect(try huggingFace(written.huggingFace(imageSize: 224).text()) == expected)
                }
            }
        }
    }

    /// Half of an odd cut goes to the even side in timm and is truncated in transformers.
    @Test(
        "A cut that moves by a pixel in the other library is noted",
        arguments: [
            (Preprocessing.Resize.shorterSide, 256.0, true), (.squash, 17, false), (.squash, 19, true),
            (.squash, 20, false),
        ])
    func aCutThatMovesByAPixelIsSaid(_ resize: Preprocessing.Resize, _ side: Double, _ isSaid: Bool) throws {
        try withTemporaryFolder { folder in
            var checkpoint = try ViTCheckpoint.load(fixture("timm"))
            checkpoint.configuration.layerNormEpsilon = 1e-6
            let timm = folder.appendingPathComponent("timm")
            let hf = folder.appendingPathComponent("hf")
            checkpoint.configuration.preprocessing = Preprocessing(resize: resize, side: side, crop: .rounded)
            #expect(try checkpoint.saveTimm(to: timm) == [])
            #expect(try checkpoint.saveHuggingFace(to: hf).isEmpty != isSaid)
            checkpoint.configuration.preprocessing.crop = .truncated
            #expect(try checkpoint.saveTimm(to: timm).isEmpty != isSaid)
            #expect(try checkpoint.saveHuggingFace(to: hf) == [])
        }
    }
}
