import Datasets
import Foundation
import ModelConfiguration
import Testing

@testable import Checkpoints

@Suite("Numbers in a file are bounded before anything is made of them")
struct HostileSizesTests {
    /// A timm folder whose tensors have these shapes and no data, which only works while all have a zero or the reader
    /// stops at the header.
    private func load(_ shapes: [String: [Int]], config: String? = nil) throws {
        try withTemporaryFolder { folder in
            var offset = 0
            let entries = shapes.sorted { $0.key < $1.key }.map { name, shape in
                let size = shape.contains(0) ? 0 : 4 * shape.reduce(1, *)
                defer { offset += size }
                return
                    "\"\(name)\":{\"dtype\":\"F32\",\"shape\":\(shape),\"data_offsets\":[\(offset),\(offset + size)]}"
            }
            let header = "{" + entries.joined(separator: ",") + "}"
            let length = withUnsafeBytes(of: UInt64(header.utf8.count)) { Array($0) }
            try AtomicFile.write(
                length + Array(header.utf8) + [UInt8](repeating: 0, count: offset),
                to: folder.appendingPathComponent("model.safetensors"))
            if let config { try AtomicFile.write(config, to: folder.appendingPathComponent("config.json")) }
            _ = try ViTCheckpoint.load(folder)
        }
    }

    /// The tensors that sizes are read from, and what is said of them.
    @Test(
        "Sizes read from tensors that hold nothing are refused",
        arguments: [
            ([1, Int.max, 0], [4, 3, 2, 2], [8, 4], "of"),
            ([1, 3_037_000_499 * 3_037_000_499, 0], [4, 3, 2, 2], [8, 4], "image size"),
            ([1, 4, 4], [4, 3, 1 << 62, 0], [8, 4], "larger than memory"),
            ([1, 4, 4], [1 << 62, 0, 2, 2], [8, 4], "width"),
            ([1, 4, 4], [4, 3, 2, 2], [1 << 62, 0], "hidden width"),
            ([1, 1 << 40, 0], [0, 3, 1 << 12, 1 << 12], [8, 4], "not positive"),
        ])
    func sizesOfTensorsThatHoldNothing(_ positions: [Int], _ kernel: [Int], _ hidden: [Int], _ part: String) {
        expectError(part) {
            try load([
                "pos_embed": positions, "patch_embed.proj.weight": kernel, "blocks.0.mlp.fc1.weight": hidden,
                "blocks.0.mlp.fc2.weight": hidden.reversed(),
            ])
        }
    }

    @Test("More registers than any model has are refused")
    func registers() {
        expectError("more than any model") {
            try load([
                "pos_embed": [1, 4, 4], "patch_embed.proj.weight": [4, 3, 2, 2],
                "blocks.0.mlp.fc1.weight": [8, 4], "blocks.0.mlp.fc2.weight": [4, 8],
                "cls_token": [1, 1, 4], "reg_token": [1, Int.max, 0],
            ])
        }
    }

    @Test("Sizes beyond every model's are refused")
    func sizesBeyondEveryModel() throws {
        var plain = ViTConfiguration(
            imageSize: 224, patchSize: 16, width: 768, depth: 12, heads: 12, hiddenWidth: 3072,
            classCount: 1000)
        try plain.check(source: "x")
        for (size, most) in [
            (\ViTConfiguration.imageSize, 16384), (\.width, 65536), (\.depth, 4096), (\.hiddenWidth, 262144),
            (\.classCount, 100_000),
        ] {
            for value in [most + 1, 1 << 31, 1 << 62, .max] {
                var large = plain
                large[keyPath: size] = value
                expectError("more than the \(most) that any model has") { try large.check(source: "x") }
            }
            for value in [-1, .min] {
                var negative = plain
                negative[keyPath: size] = value
                expectError("not positive") { try negative.check(source: "x") }
            }
        }
        plain.imageSize = 16384
        expectError("number of patches 1048576") { try plain.check(source: "x") }
        plain.imageSize = 224
        for side in [0, -1, 1e300, .infinity, .nan] {
            plain.preprocessing.side = side
            expectError("can't be meant") { try plain.check(source: "x") }
        }
    }

    @Test(
        "An image processor's sides are bounded",
        arguments: [
            #"{"size": 9223372036854775807}"#, #"{"size": {"shortest_edge": 4611686018427387904}}"#,
            #"{"size": {"height": 65537, "width": 65537}}"#,
            #"{"do_center_crop": true, "crop_size": 9223372036854775807}"#,
        ])
    func sidesOfProcessorsAreBounded(_ json: String) throws {
        let settings = try JSONValue(parsing: json.utf8)
        expectError("1 to 65536 pixels") {
            _ = try Preprocessing(huggingFace: settings, imageSize: 224, path: "p.json")
        }
    }

    @Test("Settings that are too long or no file are refused")
    func settingsAreShortAndFiles() throws {
        try withTemporaryFolder { folder in
            let url = folder.appendingPathComponent("config.json")
            try AtomicFile.write([UInt8](repeating: 0x20, count: JSONValue.largestText + 1), to: url)
            expectError("more than the") { _ = try JSONValue(contentsOf: url) }
            let pipe = folder.appendingPathComponent("pipe")
            #expect(mkfifo(pipe.path, 0o600) == 0)
            expectError("is not a file") { _ = try fileContents(of: pipe) }
        }
        expectError("more than the") {
            _ = try JSONValue(parsing: repeatElement(0x20, count: JSONValue.largestText + 1))
        }
    }

    @Test("A rank that no tensor has costs nothing, and one beyond all is refused")
    func ranksOfAdapters() throws {
        let base = try ViTCheckpoint.load(fixture("timm"))
        func load(_ rank: Int) throws -> GLoRAAdapter {
            try withTemporaryFolder { folder in
                try FileManager.default.copyItem(
                    at: fixture("peft-none").appendingPathComponent("adapter_model.safetensors"),
                    to: folder.appendingPathComponent("adapter_model.safetensors"))
                let config = fixture("peft-none").appendingPathComponent("adapter_config.json")
                var settings = try #require(JSONValue(contentsOf: config).objectValue)
                settings["r"] = .integer(rank)
                try AtomicFile.write(
                    JSONValue.object(settings).text(),
                    to: folder.appendingPathComponent("adapter_config.json"))
                return try PEFTAdapter.load(folder, for: base).adapter
            }
        }
        #expect(try load(16384) == load(2))
        for rank in [0, -1, 16385, 1 << 62] { expectError("is no rank") { _ = try load(rank) } }
    }
}
