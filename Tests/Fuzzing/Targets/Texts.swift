@testable import Checkpoints
import Foundation
@testable import OpenCLBackend

private let scratch = Scratch("cache")

/// JSON: what was read and written is read as the same.
let json = Target(
    name: "json",
    seeds: {
        [Array("{\"a\": [1, -2.5e3, true, null, \"\\u00e9\\ud83d\\ude00\\n\"], \"b\": {}}".utf8)]
    }
) { input in
    let value = try JSONValue(parsing: input.bytes)
    for isIndented in [false, true] {
        let again = try? JSONValue(parsing: value.text(indented: isIndented).utf8)
        precondition(again == value, "JSON changes when it is written and read")
    }
}

/// The tuning of products in the cache.
let tuning = Target(
    name: "tuning",
    seeds: {
        [
            Array(
                """
                {"version":2,"device":"d","driver":"1","platform":"p","clblast":{"MWG":64},
                "choices":[{"gflops":1.5,"kernel":"panels","product":{"m":64,"n":64,"k":64,"transposeA":false,"transposeB":true,"precision":"float32"}}]}
                """.utf8)
        ]
    }
) { input in
    var tuning = try JSONDecoder().decode(ProductTuning.self, from: Data(input.bytes))
    let product = ProductClass(m: 64, n: 64, k: 64, transposeA: false, transposeB: true)
    _ = tuning.kernel(product)
    for choice in tuning.choices { tuning.set(choice) }
    _ = tuning.choices.map(\.product.description)
}

/// A compiled program in the cache.
let program = Target(
    name: "program",
    seeds: {
        let cache = ProgramCache(directory: scratch.url)
        cache.store("key", ProgramCache.Stored(kernels: ["a", "b"], binary: Data([1, 2, 3])))
        return [Array(try Data(contentsOf: scratch.url.appendingPathComponent(ProgramCache.name("key"))))]
    }
) { input in
    scratch.write(input.bytes, ProgramCache.name("key"))
    guard let stored = ProgramCache(directory: scratch.url).load("key") else {
        throw CocoaError(.fileReadCorruptFile)
    }
    precondition(stored.binary.count <= input.bytes.count)
}
