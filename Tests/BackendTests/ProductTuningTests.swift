import Foundation
import TensorCore
import TestSupport
import Testing

@testable import OpenCLBackend

/// The choice of a product's kernel: its classes, its file, and who may win.
@Suite("The choice of a product's kernel") struct ProductTuningTests {
    @Test("Products of one class have sizes that round to the same powers of two")
    func classesRoundToPowersOfTwo() {
        func sizes(_ m: Int, _ n: Int, _ k: Int) -> [Int] {
            let product = ProductClass(m: m, n: n, k: k, transposeA: false, transposeB: true)
            return [product.m, product.n, product.k]
        }
        #expect(sizes(1, 2, 3) == [1, 2, 4])
        #expect(sizes(5, 6, 0) == [4, 8, 1])
        // Up from √2 · 1,024 = 1,448.2 on.
        #expect(sizes(1448, 1449, 1576) == [1024, 2048, 2048])
        #expect(sizes(768, 2304, 3072) == [1024, 2048, 4096])
        let all = [false, true].flatMap { a in
            [false, true].map { ProductClass(m: 8, n: 8, k: 8, transposeA: a, transposeB: $0) }
        }
        #expect(Set(all).count == 4)
        let stored = ProductClass(
            m: 8, n: 8, k: 8, transposeA: false, transposeB: false, precision: .bfloat16)
        #expect(!all.contains(stored))
        #expect(all.map(\.description) == ["NN", "NT", "TN", "TT"].map { "\($0) 8 x 8 x 8" })
    }

    /// A tuning with two choices and CLBlast's parameters.
    private func example(_ device: OpenCLDevice) -> ProductTuning {
        var tuning = ProductTuning(device)
        for (m, kernel, gflops) in [(8, ProductKernel.clblast, 3.5), (64, .panels, 7), (8, .tiled, 4)] {
            tuning.set(
                ProductTuning.Choice(
                    product: ProductClass(m: m, n: 8, k: 8, transposeA: false, transposeB: true),
                    kernel: kernel, gflops: gflops))
        }
        tuning.clblast = ["MWG": 64, "NWG": 32]
        return tuning
    }

    private func withCache(_ body: (OpenCLDevice, ProgramCache) throws -> Void) throws {
        let folder = FileManager.default.temporaryDirectory
            .appendingPathComponent("swift-glora-\(UUID().uuidString)")
        defer { try? FileManager.default.removeItem(at: folder) }
        try OpenCLTests.withDevice { try body($0, ProgramCache(directory: folder)) }
    }

    @Test("A later choice for a class takes the earlier one's place, and a class that nobody tuned has none")
    func choices() throws {
        try withCache { device, _ in
            let tuning = example(device)
            #expect(tuning.choices.map(\.kernel) == [.panels, .tiled])
            func kernel(_ m: Int, transposeA: Bool = false) -> ProductKernel? {
                tuning.kernel(ProductClass(m: m, n: 8, k: 8, transposeA: transposeA, transposeB: true))
            }
            #expect(kernel(8) == .tiled && kernel(60) == .panels && kernel(16) == nil)
            #expect(kernel(8, transposeA: true) == nil)
        }
    }

    @Test("A tuning's file gives back what was stored, and a second one replaces it")
    func theFileGivesBackWhatWasStored() throws {
        try withCache { device, cache in
            #expect(ProductTuning.load(device, in: cache) == nil)
            let tuning = example(device)
            #expect(tuning.store(for: device, in: cache))
            #expect(ProductTuning.load(device, in: cache) == tuning)
            // A second one replaces it, and leaves nothing beside it.
            let empty = ProductTuning(device)
            #expect(empty.store(for: device, in: cache))
            #expect(ProductTuning.load(device, in: cache) == empty)
            let names = try FileManager.default.contentsOfDirectory(atPath: cache.folder.url.path)
            #expect(names.count == 1)
        }
    }

    @Test(
        "A file of another version, device, driver or platform, and one that is broken, are as good as none")
    func otherFilesAreNone() throws {
        try withCache { device, cache in
            #expect(example(device).store(for: device, in: cache))
            let file = cache.folder.url.appendingPathComponent(ProductTuning.name(device))
            let good = try Data(contentsOf: file)
            let text = String(decoding: good, as: UTF8.self)
            var bad = [Data(), good.prefix(good.count / 2), Data("[]".utf8), Data("\u{0}".utf8)]
            let version = "\"version\" : \(ProductTuning.formatVersion)"
            for (old, new) in [
                (version, "\"version\" : \(ProductTuning.formatVersion + 1)"),
                ("\"device\" : \"", "\"device\" : \"Another "), ("\"driver\" : \"", "\"driver\" : \"9"),
                ("\"platform\" : \"", "\"platform\" : \"Another "), ("\"panels\"", "\"cuda\""),
            ] {
                #expect(text.contains(old), "\(old) is not in \(text)")
                bad.append(Data(text.replacingOccurrences(of: old, with: new).utf8))
            }
            for bytes in bad {
                try bytes.write(to: file)
                #expect(
                    ProductTuning.load(device, in: cache) == nil, "\(String(decoding: bytes, as: UTF8.self))")
            }
            try good.write(to: file)
            #expect(ProductTuning.load(device, in: cache) == example(device))
        }
    }

    @Test("A folder that can't be written to is no error") func aFolderThatCannotBeWrittenToIsNoError() throws
    {
        try withCache { device, cache in
            try FileManager.default.createDirectory(at: cache.folder.url, withIntermediateDirectories: true)
            let file = cache.folder.url.appendingPathComponent("file")
            try Data().write(to: file)
            #expect(!example(device).store(for: device, in: ProgramCache(directory: file)))
        }
    }

    @Test("A backend follows the device's file, and takes the device's own kernel where that says nothing")
    func aBackendFollowsItsTuning() throws {
        try withCache { device, cache in
            let layout = KernelLayout(width: 16, local: 1)
            let program = ProgramCache()
            func kernels(_ backend: OpenCLBackend) -> [ProductKernel] {
                [8, 64, 256].map {
                    backend.choice.kernel(
                        m: $0, n: 8, k: 8, transposeA: false, transposeB: true, stored: .float32)
                }
            }
            // The compiled program is already in the usual cache; a second folder would compile it once more.
            try FileManager.default.createDirectory(at: cache.folder.url, withIntermediateDirectories: true)
            for name in (try? FileManager.default.contentsOfDirectory(atPath: program.folder.url.path)) ?? []
            where !name.hasPrefix("tuning-") {
                try FileManager.default.copyItem(
                    at: program.folder.url.appendingPathComponent(name),
                    to: cache.folder.url.appendingPathComponent(name))
            }
            let plain = try OpenCLBackend(device: device, layout: layout, cache: cache)
            #expect(plain.tuning == nil && kernels(plain) == [.panels, .panels, .panels])
            var tuning = example(device)
            tuning.clblast = nil
            tuning.choices[1] = ProductTuning.Choice(
                product: tuning.choices[1].product, kernel: .clblast, gflops: 1)
            #expect(tuning.store(for: device, in: cache))
            let tuned = try OpenCLBackend(device: device, layout: layout, cache: cache)
            #expect(tuned.tuning == tuning && kernels(tuned) == [.clblast, .panels, .panels])
            let (a, b) = (randomValues(7 * 9, seed: 1), randomValues(8 * 9, seed: 2))
            let c = try tuned.allocate([7, 8], .float32)
            tuned.matmul(
                c, try tuned.tensor(HostTensor(shape: [7, 9], values: a)),
                try tuned.tensor(HostTensor(shape: [8, 9], values: b)), transposeA: false, transposeB: true,
                accumulate: false)
            expectClose(
                tuned.values(c), (Matrix(7, 9, a) * Matrix(8, 9, b).transposed).values, "a tuned product")
            tuned.choice.forced = .panels
            #expect(kernels(tuned) == [.panels, .panels, .panels])
        }
    }

    private static let shapes = [
        ProductTuner.Shape(m: 70, n: 65, k: 33, transposeA: false, transposeB: true),
        // Of the same class as the first: tuned once.
        ProductTuner.Shape(m: 66, n: 64, k: 32, transposeA: false, transposeB: true),
        ProductTuner.Shape(m: 33, n: 31, k: 257, transposeA: true, transposeB: false),
    ]

    /// Seconds. A driver whose compiler takes seconds for a kernel, on a busy machine, has used up a minute with one class.
    private static let unlimited = 86_400.0

    private func tune(
        _ backend: OpenCLBackend, budget: Double = ProductTuningTests.unlimited
    ) throws -> (tuning: ProductTuning, trials: [ProductTuner.Trial]) {
        var tuning = ProductTuning(backend.device)
        var trials: [ProductTuner.Trial] = []
        backend.choice.forced = .panels
        try ProductTuner(backend, budget: budget).tune(ProductTuningTests.shapes, into: &tuning) {
            trials.append($0)
        }
        #expect(backend.choice.forced == .panels, "tuning left another kernel in force")
        return (tuning, trials)
    }

    @Test("Every class gets a winner, the fastest of the candidates") func tuningChoosesTheFastest() throws {
        try OpenCLTests.withDevice { device in
            let backend = try OpenCLBackend(device: device, layout: KernelLayout(width: 16, local: 1))
            let (tuning, trials) = try tune(backend)
            #expect(
                tuning.choices.map(\.product).map(\.description) == ["TN 32 x 32 x 256", "NT 64 x 64 x 32"])
            #expect(tuning.clblast == nil)
            for choice in tuning.choices {
                let tried = trials.filter { $0.product == choice.product }
                // CLBlast may be given up as hopeless, as it is on a CPU.
                #expect(tried.first?.kernel == .panels && tried.allSatisfy { $0.note != "wrong" })
                let best = try #require(tried.compactMap(\.gflops).max())
                #expect(choice.gflops == best && best > 0)
                #expect(tried.first { $0.gflops == best }?.kernel == choice.kernel)
            }
            #expect(try tune(backend, budget: 0).tuning.choices.isEmpty)
        }
    }

    @Test("In bfloat16 engines are candidates like any other, and a class's winner computes its products")
    func enginesAreTuned() throws {
        try OpenCLTests.withDevice { device in
            let layout = KernelLayout(width: 16, local: 1)
            let backend = try OpenCLBackend(device: device, layout: layout, precision: .bfloat16)
            let engines = MatrixEngine.of(device).filter { $0.takes(.bfloat16, layout) }
                .map { ProductKernel.engine($0) }
            #expect(backend.choice.candidates == engines + [.panels])
            var tuning = ProductTuning(device)
            var trials: [ProductTuner.Trial] = []
            try ProductTuner(backend, budget: ProductTuningTests.unlimited).tune(
                ProductTuningTests.shapes, into: &tuning
            ) {
                trials.append($0)
            }
            #expect(
                tuning.choices.count == 2 && tuning.choices.allSatisfy { $0.product.precision == .bfloat16 })
            #expect(Set(trials.map(\.kernel)) == Set(engines + [.panels]))
            #expect(trials.allSatisfy { $0.note == nil })
            // Whatever won, the other is taken where a tuning says so, for its class alone.
            tuning.choices = [
                ProductTuning.Choice(
                    product: ProductTuningTests.shapes[0].product(.bfloat16), kernel: .panels, gflops: 1)
            ]
            backend.use(tuning)
            func kernel(_ shape: ProductTuner.Shape) -> ProductKernel {
                backend.choice.kernel(
                    m: shape.m, n: shape.n, k: shape.k, transposeA: shape.transposeA,
                    transposeB: shape.transposeB, stored: .bfloat16)
            }
            #expect(kernel(ProductTuningTests.shapes[0]) == .panels)
            #expect(kernel(ProductTuningTests.shapes[2]) == engines.first ?? .panels)
            #expect(try backend.productsAreRight(.panels))
        }
    }

    @Test(
        "An engine that the processor doesn't have, or whose products are wrong, is neither tried nor taken from a file"
    ) func enginesThatFailAreNoCandidates() throws {
        let layout = KernelLayout(width: 16, local: 1)
        try OpenCLTests.withDevice { device in
            let shape = ProductTuningTests.shapes[0]
            for engines in [[], [MatrixEngine.avx512]]
            where engines.isEmpty || MatrixEngine.of(device).contains(.avx512) {
                let backend = try OpenCLBackend(
                    device: device, layout: layout, precision: .bfloat16, engines: engines,
                    source: engines.isEmpty ? KernelSource.whole : PrecisionTests.withBrokenEngines)
                #expect(backend.engine == nil)
                var tuning = ProductTuning(device)
                var trials: [ProductTuner.Trial] = []
                try ProductTuner(backend, budget: ProductTuningTests.unlimited).tune([shape], into: &tuning) {
                    trials.append($0)
                }
                #expect(tuning.choices.map(\.kernel) == [.panels])
                #expect(trials.dropLast().map(\.note) == engines.map { _ in "not on this device" })
                tuning.set(
                    ProductTuning.Choice(
                        product: shape.product(.bfloat16), kernel: .engine(.avx512), gflops: 1e6))
                backend.use(tuning)
                #expect(backend.tuning?.choices.isEmpty == true)
            }
        }
    }

    @Test("A kernel that leaves a product's last row out can't win, however fast it is")
    func aWrongKernelCannotWin() throws {
        // Up to Panels.cl, to compile no more than what tuning needs.
        let last = try #require(KernelSource.files.firstIndex { $0.name == "Panels.cl" })
        let source = KernelSource.files[...last].map(\.text).joined(separator: "\n")
        let start = try #require(source.range(of: "__kernel GROUP void multiply_panels("))
        let body = try #require(source.range(of: "{", range: start.upperBound..<source.endIndex))
        let wrong = source.replacingCharacters(in: body, with: "{ rows--;")
        try OpenCLTests.withDevice { device in
            let backend = try OpenCLBackend(
                device: device, layout: KernelLayout(width: 16, local: 1), source: wrong)
            let (tuning, trials) = try tune(backend)
            #expect(tuning.choices.map(\.kernel) == [.clblast, .clblast])
            for trial in trials where trial.kernel == .panels {
                #expect(trial.gflops == nil && trial.note == "wrong")
            }
        }
    }
}

extension StringProtocol {
    fileprivate func replacingCharacters(in range: Range<String.Index>, with text: String) -> String {
        self[..<range.lowerBound] + text + self[range.upperBound...]
    }
}
