import Foundation
import TensorCore
import TestSupport
import Testing
import Training

/// AdamW on a store whose tensors come onto the path and leave it, against the formulas in double:
///
///     θ ← θ (1 − λη);  m ← β₁m + (1−β₁)g;  v ← β₂v + (1−β₂)g²;  θ ← θ − η · m/(1−β₁ᵗ) / (√(v/(1−β₂ᵗ)) + ε)
@Suite("AdamW against its formulas in double precision")
struct AdamWTests {
    /// One tensor as PyTorch would hold it.
    struct Reference {
        var value: [Double]
        var m: [Double]
        var v: [Double]
        var t = 0

        init(_ value: [Float]) {
            self.value = doubles(value)
            m = value.map { _ in 0 }
            v = m
        }

        mutating func step(_ g: [Double], _ s: AdamWSettings) {
            t += 1
            let (c1, c2) = (1 - pow(s.beta1, Double(t)), 1 - pow(s.beta2, Double(t)))
            for i in value.indices {
                value[i] *= 1 - s.weightDecay * s.learningRate
                m[i] = s.beta1 * m[i] + (1 - s.beta1) * g[i]
                v[i] = s.beta2 * v[i] + (1 - s.beta2) * g[i] * g[i]
                value[i] -= s.learningRate * (m[i] / c1) / ((v[i] / c2).squareRoot() + s.epsilon)
            }
        }
    }

    /// The steps of 12 in which each tensor is on a path; `big` is more than one block of the store.
    static let onPath: [String: [Int]] = [
        "always": Array(0..<12), "twice": [2, 9], "late": Array(5..<12), "early": [0, 1, 2], "never": [],
        "big": [1, 4, 5, 11],
    ]
    static let shapes: [String: [Int]] = [
        "always": [5], "twice": [3, 4], "late": [128], "early": [1], "never": [7], "big": [13, 20],
    ]

    @Test(
        "Tensors that come onto the path and leave it are updated as the mode says",
        arguments: TestDevice.all, AdamW.Mode.allCases)
    func tensorsComeAndGo(device: TestDevice, mode: AdamW.Mode) throws {
        try device.withBackend { backend in
            let names = AdamWTests.shapes.keys.sorted()
            let initial = Dictionary(
                uniqueKeysWithValues: names.enumerated().map { index, name in
                    let shape = AdamWTests.shapes[name]!
                    return (
                        name, HostTensor(shape: shape, values: randomValues(shape.reduce(1, *), seed: index))
                    )
                })
            let store = try ParameterStore(backend, names.map { .init($0, initial[$0]!) })
            let optimizer = AdamW(store, mode: mode, on: backend)
            var references = initial.mapValues { Reference($0.values) }
            for step in 0..<12 {
                var settings = AdamWSettings(learningRate: 0.02 / Double(step + 1), weightDecay: 0.3)
                settings.beta2 = 0.98
                let active = Set(names.filter { AdamWTests.onPath[$0]!.contains(step) })
                var gradients = initial.mapValues { HostTensor(shape: $0.shape, repeating: 0) }
                for (index, name) in names.enumerated() where active.contains(name) {
                    let count = gradients[name]!.values.count
                    gradients[name]!.values = randomValues(count, seed: 1_000 + 10 * step + index, scale: 0.1)
                }
                store.pack(store.gradients, gradients)
                optimizer.step(settings, onPath: active)
                for name in names {
                    let hasBeenTouched = references[name]!.t > 0
                    if active.contains(name) || (mode == .dense && hasBeenTouched) {
                        references[name]!.step(doubles(gradients[name]!.values), settings)
                    }
                }
            }
            let (values, m, v) = (
                store.unpack(store.values), store.unpack(store.firstMoments),
                store.unpack(store.secondMoments)
            )
            for (index, name) in names.enumerated() {
                let reference = references[name]!
                #expect(optimizer.stepCounts[index] == reference.t, "\(name)")
                expectClose(values[name]!.values, reference.value, name)
                expectClose(m[name]!.values, reference.m, "first moment of \(name)")
                expectClose(v[name]!.values, reference.v, "second moment of \(name)")
            }
            let counts = mode == .dense ? [12, 11, 12, 7, 0, 10] : [12, 4, 3, 7, 0, 2]
            #expect(optimizer.stepCounts == counts)
            expectIdentical(values["never"]!.values, initial["never"]!.values, "never")
        }
    }

    /// An optimizer that takes over another's step counts, over the same moments, goes on as the first would have.
    @Test("An optimizer that takes over step counts goes on as the first would have")
    func stepCountsCarryAnOptimizerOver() throws {
        try TestDevice.all[0].withBackend { backend in
            func run(handsOver: Bool) throws -> [Float] {
                let initial = HostTensor(shape: [4], values: [1, -2, 3, -4])
                let store = try ParameterStore(backend, [.init("p", initial)])
                var optimizer = AdamW(store, mode: .sparse, on: backend)
                for step in 0..<6 {
                    if handsOver && step == 3 {
                        let counts = optimizer.stepCounts
                        optimizer = AdamW(store, mode: .sparse, on: backend)
                        optimizer.stepCounts = counts
                    }
                    let gradient = HostTensor(shape: [4], values: randomValues(4, seed: step))
                    store.pack(store.gradients, ["p": gradient])
                    optimizer.step(AdamWSettings(learningRate: 0.1, weightDecay: 0), onPath: ["p"])
                }
                return store.unpack(store.values)["p"]!.values
            }
            expectIdentical(try run(handsOver: true), try run(handsOver: false), "p")
        }
    }
}

/// The schedule by the numbers that timm gives (goldens/vit/lr_schedule) and at its edges.
@Suite("The cosine schedule")
struct CosineScheduleTests {
    @Test("The learning rates are those that timm gives")
    func theOriginalsRates() {
        let schedule = CosineSchedule(learningRate: 1e-4, epochs: 500, warmupEpochs: 10)
        let rates: [(Int, Double)] = [
            (0, 1e-6), (1, 1e-6), (2, 1.09e-5), (10, 9.01e-5), (11, 9.991120277927223e-05),
            (12, 9.989256278625514e-05), (15, 9.982601241144277e-05),
        ]
        for (epoch, rate) in rates {
            #expect(abs(schedule.learningRate(inEpoch: epoch) - rate) < 1e-12 * rate, "epoch \(epoch)")
        }
        let all = (11..<501).map(schedule.learningRate(inEpoch:))
        #expect(zip(all, all.dropFirst()).allSatisfy { $0 > $1 })
        #expect(schedule.learningRate(inEpoch: 501) == 1e-5)
        #expect(schedule.learningRate(inEpoch: 10_000) == 1e-5)
    }

    @Test("Without warm-up the rate starts at its highest")
    func withoutWarmUpItStartsAtTheTop() {
        let schedule = CosineSchedule(learningRate: 3e-3, epochs: 4, warmupEpochs: 0)
        #expect(schedule.learningRate(inEpoch: 0) == 3e-3)
        #expect(abs(schedule.learningRate(inEpoch: 1) - 3e-3) < 1e-15)
        #expect(abs(schedule.learningRate(inEpoch: 3) - (1e-5 + 0.5 * (3e-3 - 1e-5))) < 1e-15)
        #expect(schedule.learningRate(inEpoch: 5) == 1e-5)
    }
}
