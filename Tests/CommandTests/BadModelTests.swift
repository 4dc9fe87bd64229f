import Checkpoints
import Foundation
import TensorCore
import Testing

/// Checkpoints and adapters that can't be used: each is refused in a sentence, before a run's folder is made.
@Suite("Checkpoints and adapters that can't be used")
struct BadModelTests {
    private func refuse(_ model: String, in folder: URL, saying words: [String]) throws {
        try Glora.refuse(Fixture.train("new", "--model", model), in: folder, saying: [model] + words)
        #expect(!folder.exists("new"))
        try Glora.refuse(
            ["merge", "--model", model, "--data", "task", "--output", "out.safetensors", "--device", "cpu"],
            in: folder, saying: [model] + words)
        #expect(!folder.exists("out.safetensors"))
    }

    private static func safetensors(_ header: String, data: Int, length: UInt64? = nil) -> Data {
        var file = withUnsafeBytes(of: (length ?? UInt64(header.utf8.count)).littleEndian) { Data($0) }
        file.append(contentsOf: header.utf8)
        return file + Data(count: data)
    }

    private static let headers: [(String, Data, [String])] = [
        ("past the end", safetensors(entry("a", 4, 0, 16), data: 8), ["truncated"]),
        ("offsets that lie", safetensors(entry("a", 4, 0, 1600), data: 1600), ["'a'", "16 bytes"]),
        (
            "overlap", safetensors(entry("a", 4, 0, 16, then: entry("b", 4, 8, 24)), data: 24),
            ["'b'", "overlaps"]
        ),
        (
            "twice", safetensors(entry("a", 1, 0, 4, then: entry("a", 1, 0, 4)), data: 4),
            ["'a'", "twice"]
        ),
        (
            "dtype", safetensors(#"{"a":{"dtype":"Q9","shape":[1],"data_offsets":[0,4]}}"#, data: 4),
            ["'a'", "dtype Q9"]
        ),
        ("huge header", safetensors("{}", data: 0, length: 1 << 60), ["header length"]),
        ("half a header", safetensors("{", data: 0, length: 1000), ["truncated"]),
        ("deep", safetensors(String(repeating: "[", count: 100_000), data: 0), ["no JSON object"]),
        ("endless shape", safetensors(entry("a", Int.max, 0, 16), data: 16), ["'a'", "larger than memory"]),
        ("nothing", Data(), ["no safetensors file"]),
        ("text", Data("This is a letter, not a model.".utf8), ["no safetensors file"]),
    ]

    private static func entry(_ name: String, _ count: Int, _ start: Int, _ end: Int, then: String = "{}")
        -> String
    {
        let one = "{\"\(name)\":{\"dtype\":\"F32\",\"shape\":[\(count)],\"data_offsets\":[\(start),\(end)]}"
        return one + (then == "{}" ? "}" : "," + then.dropFirst())
    }

    @Test("A safetensors file that lies or is cut off")
    func headers() throws {
        try Fixture.withFolder { folder in
            for (name, bytes, words) in Self.headers {
                try folder.write("\(name).safetensors", bytes)
                try refuse("\(name).safetensors", in: folder, saying: words)
            }
            let whole = try folder.bytes("model/model.safetensors")
            try folder.write("cut.safetensors", whole.prefix(whole.count - 100))
            try refuse(
                "cut.safetensors", in: folder, saying: ["truncated", "download or write the file again"])
            try refuse("missing.safetensors", in: folder, saying: ["No such file", "check the path"])
        }
    }

    @Test("A checkpoint whose tensors don't fit: the tensor and both shapes are named")
    func shapes() throws {
        try Fixture.withFolder { folder in
            let base = try Fixture.checkpoint(seed: 1)
            let (fc2, extra) = ("blocks.1.mlp.fc2.weight", "blocks.1.attn.gate")
            func write(_ name: String, _ change: (inout [String: HostTensor]) -> Void) throws {
                var tensors = base.tensors
                change(&tensors)
                try FileManager.default.createDirectory(
                    at: folder.appendingPathComponent(name), withIntermediateDirectories: true)
                try writeSafetensors(tensors, to: folder.appendingPathComponent("\(name)/model.safetensors"))
                try folder.write("\(name)/config.json", try folder.bytes("model/config.json"))
            }
            try write("turned") { $0[fc2] = HostTensor(shape: [32, 16], repeating: 0) }
            try refuse("turned", in: folder, saying: [fc2, "[32, 16]", "[16, 32]"])
            try write("incomplete") { $0[fc2] = nil }
            try refuse("incomplete", in: folder, saying: [fc2, "[16, 32]", "lacks"])
            try write("unknown") { $0[extra] = HostTensor(shape: [1], repeating: 0) }
            try refuse("unknown", in: folder, saying: [extra])
            try write("oblong") { $0["pos_embed"] = HostTensor(shape: [1, 7, 16], repeating: 0) }
            try refuse("oblong", in: folder, saying: ["7 positions", "square"])
            try write("config") { _ in }
            for (text, words) in [
                ("{\"model_args\":", ["invalid JSON"]),
                ("{\"model_args\": {\"num_heads\": 3}}", ["3 heads", "16"]),
                ("{\"model_args\": {\"num_heads\": 0}}", ["heads 0"]),
            ] {
                try folder.write("config/config.json", text)
                try refuse("config", in: folder, saying: words)
            }
            try FileManager.default.removeItem(at: folder.appendingPathComponent("config/config.json"))
            try refuse("config", in: folder, saying: ["width of 16", "number of heads"])
        }
    }

    @Test("A model without a head can be trained, but not scored")
    func noHead() throws {
        try Fixture.withFolder { folder in
            try Glora.refuse(
                ["eval", "--model", "model", "--data", "task", "--device", "cpu"], in: folder,
                saying: ["model has no head", "--adapter"])
        }
    }

    @Test("An npz archive that holds a pickled object, claims more than it holds, or isn't a ViT")
    func archives() throws {
        try Fixture.withFolder { folder in
            let object = array("|O", "(1, 1, 16)", Data("\u{80}\u{4}]q.".utf8))
            try folder.write("pickle.npz", zip("cls.npy", object))
            try refuse("pickle.npz", in: folder, saying: ["pickled Python object", "run code"])
            let small = array("<f4", "(1, 1, 16)", Data(count: 64))
            try folder.write("bomb.npz", zip("cls.npy", small, claiming: 0xF000_0000))
            try refuse("bomb.npz", in: folder, saying: ["'cls.npy'", "lies"])
            let large = array("<f4", "(1099511627776,)", Data(count: 64))
            try folder.write("large.npz", zip("cls.npy", large))
            try refuse("large.npz", in: folder, saying: ["'cls'", "lies"])
            let whole = zip("cls.npy", small)
            try folder.write("cut.npz", whole.prefix(whole.count / 2))
            try refuse("cut.npz", in: folder, saying: ["no complete zip file"])
            try folder.write("other.npz", whole)
            try refuse("other.npz", in: folder, saying: ["embedding/kernel", "no vision transformer"])
        }
    }

    @Test("An adapter for another model, a damaged one, or none")
    func adapters() throws {
        try Fixture.withFolder { folder in
            func eval(_ model: String, _ adapter: String, saying words: [String]) throws {
                try Glora.refuse(
                    ["eval", "--model", model, "--adapter", adapter, "--data", "task", "--device", "cpu"],
                    in: folder, saying: words)
            }
            try Fixture.checkpoint(seed: 1, width: 32).saveTimm(to: folder.appendingPathComponent("wide"))
            try eval("wide", "run/adapter", saying: ["run/adapter", "[3, 16]", "32", "use the model"])
            try eval("model", "nowhere", saying: ["nowhere", "adapter_config.json"])
            try eval("model", "task", saying: ["task", "adapter_config.json"])
            let whole = try folder.bytes("run/adapter/adapter_model.safetensors")
            try folder.write("run/adapter/adapter_model.safetensors", whole.prefix(whole.count / 2))
            try eval("model", "run/adapter", saying: ["adapter_model.safetensors", "truncated"])
            try folder.write("run/adapter/adapter_config.json", "{\"peft_type\": \"IA3\"}")
            try folder.write("run/adapter/adapter_model.safetensors", whole)
            try eval("model", "run/adapter", saying: ["adapter_config.json", "IA3"])
            try folder.write("run/adapter/adapter_config.json", "{\"peft_type\": \"LORA\"}")
            try eval("model", "run/adapter", saying: ["glora_A", "only LoRA's matrices"])
        }
    }

    @Test("A run whose files are damaged")
    func damagedRun() throws {
        try Fixture.withFolder { folder in
            let eval = ["eval", "--run", "run", "--device", "cpu"]
            let best = try folder.bytes("run/best.safetensors")
            try folder.write("run/best.safetensors", best.prefix(best.count / 2))
            try Glora.refuse(eval, in: folder, saying: ["best.safetensors", "truncated"])
            try folder.write("run/best.safetensors", try folder.bytes("model/model.safetensors"))
            try Glora.refuse(eval, in: folder, saying: ["best.safetensors", "no training state"])
            try FileManager.default.removeItem(at: folder.appendingPathComponent("run/best.safetensors"))
            try Glora.refuse(eval, in: folder, saying: ["best.safetensors", "--checkpoint last"])
            try folder.write("run/config.yaml", "options: {model: model}\n")
            try Glora.refuse(eval, in: folder, saying: ["config.yaml", "not a run's configuration"])
        }
    }
}

// MARK: - Archives

/// An array in numpy's format 1.0.
private func array(_ type: String, _ shape: String, _ values: Data) -> Data {
    var header = "{'descr': '\(type)', 'fortran_order': False, 'shape': \(shape), }"
    header += String(repeating: " ", count: 127 - 10 - header.utf8.count) + "\n"
    return Data([0x93]) + Data("NUMPY\u{1}\u{0}".utf8) + Data([UInt8(header.utf8.count), 0])
        + Data(header.utf8)
        + values
}

/// A zip archive of one stored file; `claiming` another uncompressed size, of a deflated one.
private func zip(_ name: String, _ bytes: Data, claiming size: UInt32? = nil) -> Data {
    func little(_ values: (UInt32, Int)...) -> Data {
        Data(
            values.flatMap { value, count in (0..<count).map { UInt8(truncatingIfNeeded: value >> (8 * $0)) }
            })
    }
    let count = UInt32(bytes.count)
    var crc = ~UInt32(0)
    for byte in bytes {
        crc ^= UInt32(byte)
        for _ in 0..<8 { crc = crc & 1 == 1 ? crc >> 1 ^ 0xEDB8_8320 : crc >> 1 }
    }
    // Version, flags, method, time, date, CRC, sizes, length of the name, of further fields.
    let common = little(
        (20, 2), (0, 2), (size == nil ? 0 : 8, 2), (0, 4), (~crc, 4), (count, 4), (size ?? count, 4),
        (UInt32(name.utf8.count), 2), (0, 2))
    let local = little((0x0403_4b50, 4)) + common + Data(name.utf8) + bytes
    let central =
        little((0x0201_4b50, 4), (20, 2)) + common + little((0, 2), (0, 2), (0, 2), (0, 4), (0, 4))
        + Data(name.utf8)
    return local + central
        + little(
            (0x0605_4b50, 4), (0, 4), (1, 2), (1, 2), (UInt32(central.count), 4), (UInt32(local.count), 4),
            (0, 2))
}
