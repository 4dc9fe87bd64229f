import CPUBackend
import Foundation
import TensorCore
import TestSupport
import Testing

@testable import OpenCLBackend

/// What only the OpenCL backend has: devices, programs and their cache, and CLBlast.
@Suite("What only the OpenCL backend has") struct OpenCLTests {
    private static let device = TestDevice.all.first { $0.description.hasPrefix("opencl:") }

    /// The OpenCL device under test, alone: the body runs while no other test uses a backend.
    static func withDevice<Result>(_ body: (OpenCLDevice) throws -> Result) throws -> Result {
        let device = self.device ?? TestDevice(description: "opencl:0")
        return try device.withBackend { try body(#require($0 as? OpenCLBackend).device) }
    }

    /// A folder that is gone after the body.
    private func withFolder(_ body: (URL) throws -> Void) throws {
        let folder = FileManager.default.temporaryDirectory.appendingPathComponent(
            "swift-glora-\(UInt64.random(in: 0 ... .max))")
        defer { try? FileManager.default.removeItem(at: folder) }
        try body(folder)
    }

    @Test("Every file of the folder Kernels is embedded, as it is") func embeddedKernels() throws {
        let folder = URL(fileURLWithPath: #filePath).deletingLastPathComponent()
            .appendingPathComponent("../../Kernels").standardizedFileURL
        let names = try FileManager.default.contentsOfDirectory(atPath: folder.path)
            .filter { $0.hasSuffix(".cl") }.sorted()
        #expect(KernelSource.files.map(\.name).sorted() == names)
        #expect(KernelSource.files.first?.name == "Prelude.cl")
        for file in KernelSource.files {
            let bytes = try Data(contentsOf: folder.appendingPathComponent(file.name))
            #expect(Data(file.text.utf8) == bytes, "\(file.name) is not as embedded: build again")
        }
    }

    @Test(
        "A device is found by its index or a part of its name, and a selector that finds none or several lists all"
    ) func select() throws {
        let devices = try OpenCLDevice.all()
        let first = try #require(devices.first)
        #expect(devices.map(\.index) == Array(0..<devices.count))
        #expect(try OpenCLDevice.select("0").name == first.name)
        let only = [first]
        #expect(try OpenCLDevice.select(first.name.uppercased(), from: only).index == 0)
        #expect(try OpenCLDevice.select(String(first.name.dropFirst()), from: only).index == 0)
        #expect(try OpenCLDevice.select(first.platformName.lowercased(), from: only).index == 0)
        for (selector, list) in [
            ("7", only), ("-1", only), ("no such thing", only), ("", only), (first.name, [first, first]),
        ] {
            do {
                _ = try OpenCLDevice.select(selector, from: list)
                Issue.record("'\(selector)' found a device")
            } catch BackendError.noSuchDevice(let message) {
                #expect(message.contains(first.name) && message.contains(first.platformName), "\(message)")
                #expect(selector.isEmpty || message.contains(selector), "\(message)")
            }
        }
    }

    @Test("A device tells its memory, its compute units and its versions") func properties() throws {
        try OpenCLTests.withDevice { device in
            #expect(device.globalMemoryByteCount >= device.maxAllocationByteCount)
            #expect(device.maxAllocationByteCount >= 1 << 20 && device.computeUnits > 0)
            #expect(device.platformVersion.hasPrefix("OpenCL "), "\(device.platformVersion)")
            #expect(device.languageVersion.hasPrefix("OpenCL C "), "\(device.languageVersion)")
            #expect(!device.driverVersion.isEmpty && "\(device)".contains(device.name))
        }
    }

    /// The driver's log comes through, with the file and line that `#line` gave it.
    @Test("The driver's log of a broken kernel comes through, with its file and line") func buildFailure()
        throws
    {
        try OpenCLTests.withDevice { device in
            let broken = """
                #line 1 "First.cl"
                __kernel void first(__global float *x) { x[0] = 1.0f; }
                #line 1 "Second.cl"
                __kernel void second(__global float *x) {
                    x[0] = undeclared_name;
                }

                """
            do {
                _ = try OpenCLBackend(device: device, layout: KernelLayout(for: device), source: broken)
                Issue.record("a broken kernel compiled")
            } catch BackendError.build(let message) {
                // Oclgrind doesn't heed #line's file.
                let place = device.platformName == "Oclgrind" ? "input.cl:5" : "Second.cl:2"
                #expect(message.contains("undeclared_name") && message.contains(place), "\(message)")
                #expect(message.contains(device.name) && message.contains("update the driver"), "\(message)")
            }
        }
    }

    /// A program is read from the disk, and compiled again when the file is truncated, damaged, of another
    /// program, or a folder, or when the driver makes other kernels of it than it was stored with.
    @Test(
        "A program is read from the disk, and compiled again when its file is damaged or makes other kernels")
    func programCache() throws {
        try withFolder { folder in
            try OpenCLTests.withDevice { device in
                let layout = KernelLayout(for: device)
                let source = """
                    __kernel void fill(__global float *out, float value, int n) {
                        if (get_global_id(0) == 0)
                            for (int i = 0; i < n; i++) out[i] = value;
                    }

                    """
                let key = ProgramCache.key(
                    source: source, options: layout.options(stored: .float32), device: device)
                func run(_ name: String) throws -> Data {
                    let cache = ProgramCache(directory: folder.appendingPathComponent(name))
                    let backend = try OpenCLBackend(
                        device: device, layout: layout, source: source, cache: cache)
                    let x = try backend.allocate([3], .float32)
                    backend.fill(x, 7)
                    #expect(backend.values(x) == [7, 7, 7], "\(name)")
                    return try Data(
                        contentsOf: cache.folder.url.appendingPathComponent(ProgramCache.name(key)))
                }
                let good = try run("new")
                #expect(ProgramCache(directory: folder.appendingPathComponent("new")).load(key) != nil)
                var flipped = good
                flipped[good.count - 1] ^= 1
                // As a driver's compiler leaves it that dies on the way.
                let other = ProgramCache(directory: folder.appendingPathComponent("of another"))
                let otherSource = source.replacingOccurrences(of: "fill", with: "another")
                _ = try OpenCLBackend(device: device, layout: layout, source: otherSource, cache: other)
                let stranger = try #require(
                    other.load(
                        ProgramCache.key(
                            source: otherSource, options: layout.options(stored: .float32), device: device)))
                #expect(stranger.kernels == ["another"])
                let poisoned = ProgramCache(directory: folder.appendingPathComponent("poisoned"))
                poisoned.store(key, ProgramCache.Stored(kernels: ["fill"], binary: stranger.binary))
                _ = try run("poisoned")
                #expect(
                    poisoned.load(key)?.binary != stranger.binary && poisoned.load(key)?.kernels == ["fill"])
                for (name, bytes) in [
                    ("same", good), ("truncated", good.prefix(good.count / 2)), ("damaged", flipped),
                    ("empty", Data()), ("other", Data("something else\n".utf8) + [0] + good),
                ] {
                    let cache = ProgramCache(directory: folder.appendingPathComponent(name))
                    try FileManager.default.createDirectory(
                        at: cache.folder.url, withIntermediateDirectories: true)
                    try bytes.write(to: cache.folder.url.appendingPathComponent(ProgramCache.name(key)))
                    #expect((cache.load(key) == nil) == (name != "same"), "\(name)")
                    _ = try run(name)
                    #expect(cache.load(key) != nil, "\(name) was not replaced")
                    #expect(
                        try FileManager.default.contentsOfDirectory(atPath: cache.folder.url.path).count == 1)
                }
                // A folder that can't be written to is no error.
                let file = folder.appendingPathComponent("file")
                try Data().write(to: file)
                _ = try OpenCLBackend(
                    device: device, layout: layout, source: source, cache: ProgramCache(directory: file))
            }
        }
    }

    /// What a driver says of the groups that its kernels can run in, what `fill` can in truth, and the groups that follow.
    struct GroupCase: Sendable, CustomStringConvertible {
        var fill = 256, other = 256, truth = 256
        let local: Int?
        var description: String { "fill \(fill), another \(other), in truth \(truth)" }
    }

    /// Groups of 64 where the driver can run them, else smaller ones; it isn't believed where it is wrong about `fill`, as
    /// Mesa 22.3's rusticl is.
    @Test(
        "Groups have 64 work-items where the driver can run them, else fewer, and a driver that is wrong about `fill` isn't believed",
        arguments: [
            GroupCase(local: 64), GroupCase(other: 48, local: 32), GroupCase(fill: 64, other: 16, local: 16),
            GroupCase(other: 15, local: 8), GroupCase(other: 7, local: nil),
            GroupCase(fill: 32, other: 32, local: 64),
            GroupCase(fill: 32, other: 32, truth: 32, local: 32),
            GroupCase(fill: 0, other: 0, truth: 32, local: nil),
        ])
    func groups(choice: GroupCase) throws {
        try OpenCLTests.withDevice { device in
            func open() throws -> OpenCLBackend {
                try OpenCLBackend(
                    device: device, layout: KernelLayout(width: 4, local: 64),
                    source: "#define TRUTH \(choice.truth)\n" + OpenCLTests.groupSource
                ) { $0 == "fill" ? choice.fill : choice.other }
            }
            guard let local = choice.local else {
                do {
                    _ = try open()
                    Issue.record("a driver without groups of 8 was taken")
                } catch BackendError.driver(let message) {
                    #expect(message.contains("at most \(choice.other) work-items"), "\(message)")
                }
                return
            }
            let backend = try open()
            #expect(backend.layout == KernelLayout(width: 4, local: local))
            // CLBlast's groups are of 64 work-items and more.
            #expect(backend.choice.usual(.float32) == (local == 64 ? .clblast : .tiled))
            try expectGroups(of: local, backend)
        }
    }

    @Test("Smaller groups for the kernels of 16 bits are smaller ones for all") func groupsOfAllPrograms()
        throws
    {
        try OpenCLTests.withDevice { device in
            var asked = 0
            let backend = try OpenCLBackend(
                device: device, layout: KernelLayout(width: 4, local: 64), precision: .bfloat16, engines: [],
                source: "#define TRUTH 256\n" + OpenCLTests.groupSource
            ) { name in
                asked += 1
                return asked > 2 && name != "fill" ? 20 : 256  // the first two are those of float32
            }
            #expect(backend.layout.local == 16)
            try expectGroups(of: 16, backend)
        }
    }

    /// `fill` as the driver runs it in truth, and a kernel that writes the size of its group.
    private static let groupSource = """
        #define GROUP __attribute__((reqd_work_group_size(LOCAL, 1, 1)))
        __kernel GROUP void fill(__global float *out, float value, int n) {
            if (get_local_id(0) < TRUTH)
                for (int i = get_global_id(0); i < n; i += get_global_size(0)) out[i] = value;
        }
        __kernel GROUP void gelu_forward(__global float *y, __global const float *x, int n) {
            for (int i = get_global_id(0); i < n; i += get_global_size(0)) y[i] = get_local_size(0);
        }

        """

    private func expectGroups(of local: Int, _ backend: OpenCLBackend) throws {
        let x = try backend.allocate([1500], .float32)
        backend.upload(x, [Float](repeating: .nan, count: 1500))
        backend.fill(x, 7)
        #expect(backend.values(x).allSatisfy { $0 == 7 })
        backend.gelu(x, x)
        #expect(backend.values(x).allSatisfy { $0 == Float(local) })
    }

    @Test("A program's key names all that decides about it, and the environment says where the cache lies")
    func programCacheKey() throws {
        try OpenCLTests.withDevice { device in
            let key = ProgramCache.key(source: "a", options: "b", device: device)
            #expect(key != ProgramCache.key(source: "b", options: "b", device: device))
            #expect(key != ProgramCache.key(source: "a", options: "c", device: device))
            for part in [device.name, "driver \(device.driverVersion)", device.platformVersion] {
                #expect(key.contains(part))
            }
            func folder(_ environment: [String: String]) -> String {
                CacheFolder(environment: environment).url.path
            }
            #expect(folder(["GLORA_CACHE": "/a", "XDG_CACHE_HOME": "/b"]) == "/a")
            #expect(folder(["GLORA_CACHE": "", "XDG_CACHE_HOME": "/b"]) == "/b/swift-glora")
            #expect(folder([:]).hasSuffix("/.cache/swift-glora"))
            #expect(folder(["XDG_CACHE_HOME": "b"]).hasSuffix("/.cache/swift-glora"))
        }
    }

    @Test("A part of a part starts where both say, and memory that is let go is given back") func viewOfView()
        throws
    {
        try OpenCLTests.withDevice { device in
            let backend = try OpenCLBackend(device: device)
            let before = backend.allocatedByteCount
            do {
                let values = randomValues(4 * viewAlignment, seed: 1)
                let whole = try backend.allocate([values.count], .float32)
                backend.upload(whole, values)
                let part = try backend.view(whole, at: viewAlignment, [3 * viewAlignment])
                let inner = try backend.view(part, at: viewAlignment, [2, 7])
                #expect(backend.values(inner) == Array(values[2 * viewAlignment..<2 * viewAlignment + 14]))
                #expect(backend.allocatedByteCount == before + whole.byteCount)
            }
            #expect(backend.allocatedByteCount == before)
            // Not more than the device has, even in pieces.
            var held: [Tensor] = []
            #expect(throws: BackendError.self) {
                while true {
                    held.append(try backend.allocate([device.maxAllocationByteCount / 4], .float32))
                }
            }
            #expect(backend.allocatedByteCount <= device.globalMemoryByteCount)
        }
    }

    /// A product kernel in a layout that has it.
    struct ProductCase: Sendable, CustomStringConvertible {
        let kernel: ProductKernel
        let layout: KernelLayout
        var description: String { "\(kernel) at \(layout.width) x \(layout.local)" }

        init(_ kernel: ProductKernel, _ width: Int, _ local: Int) {
            (self.kernel, layout) = (kernel, KernelLayout(width: width, local: local))
        }

        static let all = [
            ProductCase(.tiled, 4, 64), ProductCase(.panels, 4, 1), ProductCase(.panels, 8, 1),
            ProductCase(.panels, 16, 1), ProductCase(.clblast, 16, 1),
        ]
    }

    @Test(
        "Every product kernel multiplies right, with views that don't start at 0",
        arguments: TestDevice.onlySmall ? Array(ProductCase.all[..<3]) : ProductCase.all,
        testSizes(
            [
                ProductSize(1, 1, 1), ProductSize(1, 65, 129), ProductSize(33, 1, 64),
                ProductSize(65, 33, 130), ProductSize(257, 192, 64), ProductSize(17, 17, 300),
            ], small: [ProductSize(1, 5, 3), ProductSize(9, 2, 17)]))
    func product(choice: ProductCase, size: ProductSize) throws {
        let (m, n, k) = (size.m, size.n, size.k)
        let (a, b) = (randomValues(m * k, seed: 1), randomValues(k * n, seed: 2))
        let initial = randomValues(m * n, seed: 3)
        try OpenCLTests.withDevice { device in
            let backend = try OpenCLBackend(device: device, layout: choice.layout)
            backend.choice.forced = choice.kernel
            for (transposeA, transposeB) in [(false, false), (false, true), (true, false), (true, true)] {
                let left = transposeA ? Matrix(k, m, a).transposed : Matrix(m, k, a)
                let right = transposeB ? Matrix(n, k, b).transposed : Matrix(k, n, b)
                let accumulate = transposeA == transposeB
                let guarded = GuardedTensors(backend)
                let c = try accumulate ? guarded.inOut(initial, [m, n], "c") : guarded.output([m, n], "c")
                backend.matmul(
                    c, try guarded.input(a, transposeA ? [k, m] : [m, k]),
                    try guarded.input(b, transposeB ? [n, k] : [k, n]), transposeA: transposeA,
                    transposeB: transposeB, accumulate: accumulate)
                let what = "\(choice) \(size) \(transposeA) \(transposeB)"
                let product = left * right
                let expected = accumulate ? product.combined(Matrix(m, n, initial), +) : product
                expectClose(backend.values(c), expected.values, what)
                guarded.expectIntact(what)
            }
        }
    }

    /// A label outside the classes can't stop a kernel; it has to show in the loss.
    @Test("A label outside the classes makes its loss a NaN") func wrongLabel() throws {
        try OpenCLTests.withDevice { device in
            let backend = try OpenCLBackend(device: device)
            let guarded = GuardedTensors(backend)
            let losses = try guarded.output([3], "losses")
            backend.softmaxCrossEntropy(
                losses, nil, try guarded.input([0, 0, 0, 0, 0, 0], [3, 2]),
                try guarded.integers([1, 2, -1], [3]))
            let values = backend.values(losses)
            #expect(abs(values[0] - Float(log(2.0))) < 1e-6 && values[1].isNaN && values[2].isNaN)
            guarded.expectIntact("softmaxCrossEntropy")
        }
    }
}
