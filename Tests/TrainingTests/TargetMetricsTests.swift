import Testing
import Training

/// The numbers are scikit-learn 1.9.1's of the same arrays in float64.
@Suite("How good labels and values are")
struct TargetMetricsTests {
    private let outputs: [Float] = [
        0.5, 0.1, 0.9, 0.3, 0.5, 0.2, 0.8, 0.3, 0.25, 0.3, 0.7, 0.3, 0.75, 0.4, 0.6, 0.3,
        0.5, 0.5, 0.5, 0.3, 0.25, 0.6, 0.4, 0.3, 0, 0.7, 0.3, 0.3, 0.75, -1, 0.2, 0.3,
    ]
    private let marks: [Float] = [
        1, 0, 1, 1, 0, 1, 0, 0, 1, 0, 0, 0, 0, 0, 1, 1, 1, 0, 1, 0, 0, 0, 0, 0, 0, 1, 0, 0, 1, 0, 0, 1,
    ]

    private func isClose(_ a: Double?, _ b: Double) -> Bool { a.map { abs($0 - b) < 1e-12 } ?? false }

    @Test("Average precision, with equal outputs at one threshold: average_precision_score")
    func averagePrecision() {
        let scores = LabelMetrics(outputs: outputs, targets: marks, count: 4)
        let expected = [0.5678571428571428, 0.6666666666666666, 0.7, 0.375]
        #expect(zip(scores.averagePrecision, expected).allSatisfy(isClose))
        #expect(isClose(scores.meanAveragePrecision, 0.5773809523809523) && scores.absentCount == 0)
    }

    @Test("Average precision of 200 images and some hundred outputs")
    func manyImages() {
        let outputs = (0..<600).map { Float(($0 * 37 + 11) % 101) / 8 }
        let marks = (0..<600).map { ($0 * 53 + $0 / 7) % 5 == 0 ? 1 : 0 as Float }
        let scores = LabelMetrics(outputs: outputs, targets: marks, count: 3)
        let expected = [0.19541595205961376, 0.21552794200927863, 0.22847738657784886]
        #expect(zip(scores.averagePrecision, expected).allSatisfy(isClose))
        #expect(isClose(scores.meanAveragePrecision, 0.2131404268822471))
    }

    @Test("A label that no image has is left out and counted; outputs that are no numbers are not ranked")
    func absent() throws {
        let scores = LabelMetrics(outputs: [1, 5, 2, 6], targets: [0, 0, 1, 0], count: 2)
        #expect(scores.averagePrecision == [1, nil] && scores.meanAveragePrecision == 1)
        #expect(scores.absentCount == 1)
        #expect(LabelMetrics(outputs: [], targets: [], count: 2).meanAveragePrecision == nil)
        let broken = LabelMetrics(outputs: [1, .nan], targets: [1, 1], count: 1)
        #expect(try #require(broken.averagePrecision[0]).isNaN)
    }

    @Test("R² and the mean absolute error: r2_score and mean_absolute_error")
    func values() {
        let targets: [Float] = [3, 1, 2, -0.5, 1, 2, 2, -6, 2, 7, 2, 2]
        let outputs: [Float] = [2.5, 2, 2, 0, 2, 2, 2, -5, 2.5, 8, -3.25, 2]
        let scores = ValueMetrics(outputs: outputs, targets: targets, count: 3)
        // The last value is the same everywhere, and one output is wrong.
        let expected = [0.9486081370449679, 0.25457317073170727, 0]
        #expect(zip(scores.r2, expected).allSatisfy(isClose))
        #expect(isClose(scores.meanR2, 0.40106043592555835))
        #expect(scores.absoluteError == [0.5, 2.0625, 0.125])
        #expect(isClose(scores.meanAbsoluteError, 0.8958333333333334))

        let many = (0..<600).map { Float(($0 * 29 + 3) % 97) / 4 }
        let near = many.enumerated().map { $1 + Float(($0 * 17) % 13) / 2 - 3 }
        let others = ValueMetrics(outputs: near, targets: many, count: 3)
        #expect(
            zip(others.r2, [0.9275773930115168, 0.9290871453602876, 0.9291459082279185]).allSatisfy(isClose))
        #expect(isClose(others.meanR2, 0.9286034821999077))
        #expect(zip(others.absoluteError, [1.635, 1.625, 1.59]).allSatisfy(isClose))
    }

    @Test("R² where nothing varies, of one image, of none and of no numbers")
    func edges() throws {
        #expect(ValueMetrics(outputs: [0.1, 0.1, 0.1], targets: [0.1, 0.1, 0.1], count: 1).r2 == [1])
        #expect(ValueMetrics(outputs: [0.1, 0.1, 0.2], targets: [0.1, 0.1, 0.1], count: 1).r2 == [0])
        let one = ValueMetrics(outputs: [1], targets: [3], count: 1)
        #expect(one.r2 == [nil] && one.meanR2 == nil && one.meanAbsoluteError == 2)
        #expect(ValueMetrics(outputs: [], targets: [], count: 1).meanAbsoluteError == nil)
        let broken = ValueMetrics(outputs: [1, .nan], targets: [1, 2], count: 1)
        #expect(try #require(broken.r2[0]).isNaN)
    }
}
