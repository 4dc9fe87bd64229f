import CEmbedded
import Checkpoints
import Foundation
import GoldenVectors
import TensorCore
import TestSupport
import Testing

/// The golden vectors inside the program on every device, and what a suite says of files that are wrong.
@Suite("The golden vectors, and what is said of wrong ones")
struct GoldenTests {
    @Test("The built-in vectors pass on every device", arguments: TestDevice.all)
    func builtInVectorsPass(device: TestDevice) throws {
        let suite = try GoldenSuite.builtIn()
        var results: [GoldenResult] = []
        try device.withBackend { backend in try suite.run(on: backend) { results.append($0) } }
        for result in results { #expect(result.status == .passed, "\(result.name): \(result.status)") }
        let names = results.map(\.name)
        #expect(names == names.sorted() && names.count == 40)
        for part in [
            "glora_layer/049", "vit/base", "vit/fixed", "in_place", "to_none", "lr_schedule", "param_count",
            "search/trace", "peft/fact_tk", "peft/noah", "clip/base", "dinov2_reg/fixed", "dinov3/fixed",
            "eva02/fixed", "siglip/fixed", "ops/rmsnorm", "ops/swiglu", "ops/geglu", "ops/gelu_tanh",
            "rope/dinov3", "rope/eva02",
        ] {
            #expect(names.contains { $0.contains(part) }, "\(part) is not among them")
        }
        #expect(results.allSatisfy { !$0.detail.isEmpty })
    }

    /// The same truth within the bounds of what is stored in 16 bits.
    @Test(
        "The built-in vectors pass within the bounds of 16 bits", arguments: [Precision.bfloat16, .float16])
    func builtInVectorsPass(precision: Precision) throws {
        let suite = try GoldenSuite.builtIn()
        var results: [GoldenResult] = []
        try TestDevice.withOpenCL(precision) { backend in try suite.run(on: backend) { results.append($0) } }
        #expect(results.count == 40)
        for result in results { #expect(result.status == .passed, "\(result.name): \(result.status)") }
        // Not by the bounds of float32, nor without having been stored in 16 bits.
        let details = results.map(\.detail).joined(separator: " ")
        #expect(details.contains("error of an element") && details.contains("relative error"))
    }

    @Test("Every number of an operation's and of a rotation's vectors counts")
    func wrongOperationsFail() throws {
        for name in ["geglu_tanh", "gelu_tanh", "rmsnorm", "swiglu"].map({ "ops/\($0)" })
            + ["dinov3", "eva02"].map({ "rope/\($0)_2d" })
        {
            let folder = try TemporaryFolder()
            let file = try folder.unpack("\(name).safetensors")
            let (right, metadata) = try file.contents()
            let truths = right.keys.filter { $0.hasSuffix(".f64") || $0 == "out.cos" || $0 == "out.sin" }
            #expect(truths.count >= 2)
            for truth in truths.sorted() {
                var wrong = right
                wrong[truth]!.values[0] += 0.01
                try writeSafetensors(wrong, to: file.url, metadata: metadata)
                guard case .failed(let sentence)? = try folder.replay().first?.status else {
                    Issue.record("\(name) passes with another \(truth)")
                    continue
                }
                #expect(sentence.contains(truth.replacingOccurrences(of: ".f64", with: "")), "\(sentence)")
            }
        }
    }

    @Test("Formulas, layouts and settings that aren't known are refused")
    func unknownOperations() throws {
        for (file, known, other, message) in [
            ("ops/rmsnorm", "(mean(x", "(median(x", "formula"),
            ("rope/dinov3_2d", "\"half\"", "\"thirds\"", "thirds"),
            ("rope/eva02_2d", "\"reference_grid\"", "\"reference_size\"", "reference_size"),
            ("rope/dinov3_2d", "\"grid\"", "\"line\"", "grid"),
        ] {
            let folder = try TemporaryFolder()
            let unpacked = try folder.unpack("\(file).safetensors")
            let contents = try unpacked.contents()
            var metadata = contents.metadata
            let description = try #require(metadata["golden"])
            #expect(description.contains(known))
            metadata["golden"] = description.replacingOccurrences(of: known, with: other)
            try writeSafetensors(contents.tensors, to: unpacked.url, metadata: metadata)
            guard case .failed(let sentence)? = try folder.replay().first?.status else {
                Issue.record("\(file) passes with \(other)")
                continue
            }
            #expect(sentence.contains(message), "\(sentence)")
        }
    }

    /// Numbers of a layer and of a transformer changed by more than 16 bits explain.
    @Test(
        "Numbers that 16 bits can't explain fail",
        arguments: [
            (Precision.bfloat16, Float(1.1)), (.float16, 1.02), (.bfloat16, .nan),
        ])
    func wrongNumbersFailIn16Bits(precision: Precision, factor: Float) throws {
        for (file, tensor, message) in [
            ("glora_layer/000_pw_i12o20r2_n1_b", "out.y", "out.y: error of an element"),
            ("glora_layer/000_pw_i12o20r2_n1_b", "grad.D", "grad.D: error of an element"),
            ("vit/fixed_mixed", "out.logits", "out.logits: relative error"),
            ("vit/fixed_mixed", "grad.", "gradients: relative error"),
            ("vit/traj_random_wellcond_zerograd_in_place", "out.losses", "losses: relative error"),
        ] {
            let folder = try TemporaryFolder()
            if file.hasPrefix("vit") { try folder.unpack("vit/base.safetensors") }
            let layer = try folder.unpack("\(file).safetensors")
            var (tensors, metadata) = try layer.contents()
            for name in tensors.keys where name.hasPrefix(tensor) {
                for index in tensors[name]!.values.indices { tensors[name]!.values[index] *= factor }
            }
            try writeSafetensors(tensors, to: layer.url, metadata: metadata)
            let results = try folder.replay(precision)
            guard case .failed(let sentence)? = results.first(where: { $0.name.hasPrefix(file) })?.status
            else {
                Issue.record("\(results)")
                continue
            }
            #expect(sentence.contains(message), "\(sentence)")
        }
    }

    /// A layer's numbers, each changed a little both as truth and as the authors' float32, with what the suite has to say.
    @Test(
        "A number that is a little wrong fails by its name",
        arguments: [
            ("out.y", Float(1.00001), "out.y: error of an element"),
            ("out.dx", 1.00001, "out.dx: error of an element"),
            ("out.W_merged", 1.00001, "out.W_merged: error of an element"),
            ("grad.D", 1.00001, "grad.D: error of an element"),
            ("grad.Ad", .nan, "grad.Ad: error of an element nan"),
            ("grad.E", 0, "grad.E: error of an element"),
            ("in.Ad", .nan, "out.y: error of an element nan"),
            ("in.Ad", .infinity, "out.y: error of an element nan"),
        ])
    func wrongNumbersFail(tensor: String, factor: Float, message: String) throws {
        let folder = try TemporaryFolder()
        let layer = try folder.unpack("glora_layer/000_pw_i12o20r2_n1_b.safetensors")
        #expect(try folder.replay().map(\.status) == [.passed])
        var (tensors, metadata) = try layer.contents()
        for name in tensors.keys where name.hasPrefix(tensor) {
            for index in tensors[name]!.values.indices { tensors[name]!.values[index] *= factor }
        }
        try writeSafetensors(tensors, to: layer.url, metadata: metadata)
        try folder.expectFailure(message)
    }

    /// Σ dy of a thousand elements that cancel to a millionth of their magnitudes: float32 can't give that to a part of itself,
    /// and is held to what it can give.
    @Test(
        "A sum that nearly cancels is held to the magnitude of its terms", arguments: TestDevice.all,
        [(0, true), (1e-4, false), (-1e-4, false)])
    func aSumThatNearlyCancelsIsHeldToItsTerms(
        device: TestDevice, moved: (part: Double, passes: Bool)
    ) throws {
        let (rows, inputs, outputs) = (50, 12, 20)
        var dy = randomValues(rows * outputs, seed: 1)
        dy[dy.count - 1] -= Float(doubles(dy).reduce(0, +))
        let sum = doubles(dy).reduce(0, +)
        let magnitude = doubles(dy).reduce(0) { $0 + abs($1) }
        #expect(abs(sum) < 1e-6 * magnitude)
        let (w, x) = (randomValues(outputs * inputs, seed: 2), randomValues(rows * inputs, seed: 3))
        /// a [m, k] times b [k, n], by their elements.
        func product(
            _ m: Int, _ k: Int, _ n: Int, _ a: (Int, Int) -> Float, _ b: (Int, Int) -> Float
        ) -> [Float] {
            (0..<m * n).map { i in
                Float((0..<k).reduce(0) { $0 + Double(a(i / n, $1)) * Double(b($1, i % n)) })
            }
        }
        let y = product(rows, inputs, outputs, { x[$0 * inputs + $1] }, { w[$1 * inputs + $0] })
        let dx = product(rows, outputs, inputs, { dy[$0 * outputs + $1] }, { w[$0 * inputs + $1] })
        var gradient = [Float](repeating: 0, count: outputs)
        gradient[0] = Float(sum + moved.part * magnitude)
        func zeros(_ shape: [Int]) -> HostTensor { HostTensor(shape: shape, repeating: 0) }
        let folder = try TemporaryFolder()
        try writeSafetensors(
            [
                "in.x": HostTensor(shape: [rows, inputs], values: x),
                "in.dy": HostTensor(shape: [rows, outputs], values: dy),
                "in.W": HostTensor(shape: [outputs, inputs], values: w),
                "in.Ad": zeros([outputs, 1]), "in.Au": zeros([1, inputs]), "in.Bd": zeros([outputs, 1]),
                "in.Bu": zeros([1, inputs]), "in.Cd": zeros([inputs, 1]), "in.Cu": zeros([1, 1]),
                "in.D": zeros([outputs]), "in.E": zeros([outputs]),
                "out.y.f64": HostTensor(shape: [rows, outputs], values: y),
                "out.dx.f64": HostTensor(shape: [rows, inputs], values: dx),
                "out.W_merged.f64": HostTensor(shape: [outputs, inputs], values: w),
                "grad.E.f64": HostTensor(shape: [outputs], values: gradient),
            ], to: folder.url.appendingPathComponent("layer.safetensors"),
            metadata: [
                "golden":
                    #"{"kind": "glora_layer", "in": 12, "out": 20, "max_rank": 1, "grad_is_None": ["Ad"], "#
                    + #""config": {"A": "none", "B": "none", "C": "none", "D": "none", "E": "constant"}}"#
            ])
        var results: [GoldenResult] = []
        try device.withBackend { backend in
            try GoldenSuite(directory: folder.url).run(on: backend) { results.append($0) }
        }
        let status = try #require(results.first?.status)
        if case .failed(let sentence) = status {
            #expect(!moved.passes && sentence.contains("grad.E: error of an element"), "\(sentence)")
        } else {
            #expect(moved.passes)
        }
    }

    /// A description that doesn't fit the numbers.
    @Test(
        "A description that doesn't fit the numbers fails",
        arguments: [
            (
                #""kind": "glora_layer""#, #""kind": "glora_tensor""#,
                "is of the kind 'glora_tensor', which this program doesn't know"
            ),
            (
                #""grad_is_None": ["#, #""grad_is_None": ["Ad", "#,
                "Ad is off the path and its gradient was written"
            ),
            (#""A": "vector""#, #""A": "constant""#, "out.y: error of an element"),
            (#""A": "vector""#, #""A": "matrix""#, "'matrix' is no form of A or B"),
            (#""in": 12"#, #""in": 13"#, "has shape"),
            (#""in": 12"#, #""inputs": 12"#, "the description has no number 'in'"),
        ])
    func wrongDescriptionsFail(text: String, replacement: String, message: String) throws {
        let folder = try TemporaryFolder()
        let layer = try folder.unpack("glora_layer/000_pw_i12o20r2_n1_b.safetensors")
        var (tensors, metadata) = try layer.contents()
        // Through the parser, so that the spacing is known.
        let golden = try JSONValue(parsing: metadata["golden"]!.utf8).text()
        #expect(golden.contains(text))
        metadata["golden"] = golden.replacingOccurrences(of: text, with: replacement)
        tensors["unused"] = nil
        try writeSafetensors(tensors, to: layer.url, metadata: metadata)
        try folder.expectFailure(message)
    }

    @Test("Files that are no vectors fail one by one")
    func otherFilesFailOneByOne() throws {
        let folder = try TemporaryFolder()
        try folder.unpack("vit/fixed_mixed.safetensors")
        try folder.expectFailure("needs vit/base.safetensors, which isn't in")
        try folder.write(#"{"some": 1}"#, "a.json")
        try folder.write("not a header", "b.safetensors")
        try folder.write(#"{"kind": "search_trace"}"#, "c.json")
        try folder.write(
            #"{"files": [{"file": "d.json", "meta": {"kind": "lr_schedule"}}]}"#, "manifest.json")
        try folder.write(
            #"{"s": {"lr": 1, "t_initial": 9, "warmup_t": 0, "warmup_lr_init": 0, "lr_min": 0, "lr_used_in_epoch": [1, 2]}}"#,
            "d.json")
        let statuses = try folder.replay().map { "\($0.name): \($0.status)" }
        #expect(statuses.count == 5)
        #expect(statuses[0].contains("say of which kind it is"))
        #expect(statuses[1].contains("is no safetensors file"))
        #expect(statuses[2].contains("a recorded search needs args"))
        #expect(statuses[3].contains("s: relative error 0.5"))
        #expect(statuses[4].contains("vit/fixed_mixed.safetensors: failed"))
    }

    @Test("A wrong number of parameters fails")
    func wrongCountsFail() throws {
        let folder = try TemporaryFolder()
        let url = try folder.unpack("search/param_count_mixed.json").url
        let text = try String(contentsOf: url, encoding: .utf8)
        try folder.write(
            text.replacingOccurrences(of: "\"params\":868791", with: "\"params\":868790"), "c.json")
        try FileManager.default.removeItem(at: url)
        try folder.expectFailure("candidate 1: 868791 parameters, the file 868790")
    }

    @Test(
        "A search that went another way fails",
        arguments: [
            // A candidate, the counts, the final best's parameters, an accuracy.
            ("\"generations\":[[\"231", "\"generations\":[[\"232", "generation 0: other candidates"),
            ("\"n_evaluated\":18", "\"n_evaluated\":12", "18 candidates were judged"),
            ("\"n_seen\":332", "\"n_seen\":331", "332 candidates were drawn"),
            ("145.50545014285714,0.44862", "145.50545014285714,0.44861", "other parameter counts"),
            (
                "\"top_accuracies\":[[144.94779414285713", "\"top_accuracies\":[[144.94779514285713",
                "generation 0: relative error"
            ),
        ])
    func wrongSearchesFail(text: String, replacement: String, message: String) throws {
        let folder = try TemporaryFolder()
        let url = try folder.unpack("search/trace.json").url
        let recorded = try String(contentsOf: url, encoding: .utf8)
        let changed = recorded.replacing(", ", with: ",").replacing(": ", with: ":")
            .replacing(text, with: replacement)
        #expect(changed.contains(replacement))
        try folder.write(changed, "c.json")
        try FileManager.default.removeItem(at: url)
        try folder.expectFailure(message)
    }

    @Test("A folder without vectors is refused")
    func foldersWithoutVectorsAreRefused() throws {
        let folder = try TemporaryFolder()
        #expect(throws: (any Error).self) { try GoldenSuite(directory: folder.url) }
        #expect(throws: (any Error).self) {
            try GoldenSuite(directory: folder.url.appendingPathComponent("none"))
        }
    }
}

/// A folder of vectors that goes with the test.
private final class TemporaryFolder {
    let url = FileManager.default.temporaryDirectory.appendingPathComponent("vectors-\(UUID().uuidString)")

    init() throws { try FileManager.default.createDirectory(at: url, withIntermediateDirectories: true) }

    deinit { try? FileManager.default.removeItem(at: url) }

    struct File {
        let url: URL

        func contents() throws -> (tensors: [String: HostTensor], metadata: [String: String]) {
            let file = try SafetensorsFile(url)
            var tensors: [String: HostTensor] = [:]
            for name in file.names { tensors[name] = try file.tensor(name) }
            return (tensors, file.metadata)
        }
    }

    /// Copies an embedded file.
    @discardableResult func unpack(_ path: String) throws -> File {
        let target = url.appendingPathComponent(path)
        try AtomicFile.createFolder(target.deletingLastPathComponent())
        let all = (0..<embeddedFileCount()).map(embeddedFile)
        let file = try #require(all.first { String(cString: $0.name) == "Golden/\(path)" })
        try AtomicFile.write(UnsafeRawBufferPointer(start: file.bytes, count: file.byteCount), to: target)
        return File(url: target)
    }

    func write(_ text: String, _ name: String) throws {
        try AtomicFile.write(text, to: url.appendingPathComponent(name))
    }

    func replay() throws -> [GoldenResult] {
        var results: [GoldenResult] = []
        let suite = try GoldenSuite(directory: url)
        try TestDevice.all[0].withBackend { backend in try suite.run(on: backend) { results.append($0) } }
        return results
    }

    func replay(_ precision: Precision) throws -> [GoldenResult] {
        var results: [GoldenResult] = []
        let suite = try GoldenSuite(directory: url)
        try TestDevice.withOpenCL(precision) { backend in try suite.run(on: backend) { results.append($0) } }
        return results
    }

    /// Replays the only file, which has to fail with a sentence that contains `message`.
    func expectFailure(_ message: String) throws {
        let results = try replay()
        #expect(results.count == 1)
        guard case .failed(let sentence) = results[0].status else {
            Issue.record("\(results[0].name) is \(results[0].status), not failed")
            return
        }
        #expect(sentence.contains(message))
    }
}
