import CPUBackend
import Foundation
import Testing

@testable import Training

@Suite("The learning-rate range test") struct RangeTestTests {
    @Test("Rates grow by one factor from the first to the last")
    func rates() {
        let rates = RangeTest.rates(from: 1e-6, to: 1, steps: 7)
        #expect(zip(rates, [1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1]).allSatisfy { abs($0 / $1 - 1) < 1e-12 })
        #expect(RangeTest.rates(from: 1e-3, to: 1, steps: 1) == [1e-3])
    }

    @Test("Losses are smoothed without the bias of the beginning, and four times the least ends it")
    func smoothing() {
        var test = RangeTest()
        #expect(test.add(rate: 1, loss: 2) && test.add(rate: 2, loss: 4))
        #expect(abs(test.points[0].smoothed - 2) < 1e-12)
        // (0.98 · 2 + 4) / 1.98
        #expect(abs(test.points[1].smoothed - 5.96 / 1.98) < 1e-12)
        #expect(!test.add(rate: 3, loss: 1000) && test.diverged && test.points.count == 3)
        var other = RangeTest()
        #expect(other.add(rate: 1, loss: 2) && !other.add(rate: 2, loss: .nan))
        #expect(other.diverged && other.points.count == 1)
    }

    /// What fastai's `valley` makes of the same smoothed losses: of 100 steps those from 10 to 94 are used, of which the longest falling
    /// sequence has 42 and ends at index 50; from its beginning, 8, a third and a sixth of it lead to 29, the step 39.
    @Test("The suggestion lies in the first half of the longest stretch of falling losses")
    func suggestion() throws {
        let rates = RangeTest.rates(from: 1e-6, to: 1, steps: 100)
        // Losses whose smoothed values are: flat, falling from step 20 to 60, rising.
        var (test, mean) = (RangeTest(), 0.0)
        for step in 0..<100 {
            let smoothed =
                step < 20
                ? 2.0 + 0.001 * Double(step)
                : step <= 60 ? 2 - 0.02 * Double(step - 20) : 1.3 + 0.01 * Double(step - 60)
            let next = smoothed * (1 - pow(0.98, Double(step + 1)))
            _ = test.add(rate: rates[step], loss: (next - 0.98 * mean) / 0.02)
            mean = next
        }
        #expect(test.points.count == 100)
        #expect(try #require(test.suggestion) == rates[39])
        #expect(RangeTest().suggestion == nil)
        var rising = RangeTest()
        for step in 0..<40 { _ = rising.add(rate: rates[step], loss: 1 + 0.01 * Double(step)) }
        #expect(rising.suggestion == nil)
    }

    @Test("A trainer's test has the losses of a training with those rates, and ends when it diverges")
    func trainer() throws {
        let options = TrainingAdditionTests.options { $0.batchSize = 6 }
        func trainer() throws -> Trainer<SoftmaxRegression> {
            try Trainer(
                try SoftmaxRegression(on: try CPUBackend()), options, training: Vectors(), validation: nil)
        }
        let test = try trainer().rangeTest(from: 1e-4, to: 0.05, steps: 30)
        #expect(test.points.count == 30 && !test.diverged)
        #expect(test.points.map(\.rate) == RangeTest.rates(from: 1e-4, to: 0.05, steps: 30))
        // Of the first step no rate has changed anything yet.
        var first: Double?
        try trainer().run(onEvent: { if case .step(let progress) = $0 { first = first ?? progress.loss } })
        #expect(test.points[0].loss == first)
        let far = try trainer().rangeTest(from: 1, to: 1e30, steps: 200)
        #expect(far.diverged && far.points.count < 200)
        var calls = 0
        let stopped = try trainer().rangeTest(
            from: 1e-4, to: 1, steps: 30, onStep: { _ in calls += 1 }, shouldStop: { calls == 3 })
        #expect(stopped.points.count == 3)
    }
}
