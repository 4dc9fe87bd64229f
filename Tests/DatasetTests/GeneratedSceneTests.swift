import TensorCore
import Testing

@testable import GeneratedTasks

@Suite("Generated scenes show what their labels say")
struct GeneratedSceneTests {
    /// Each object alone is one connected patch of paint, and no two touch.
    @Test("A scene has as many objects as the label says", arguments: 1...GeneratedTask.largestCount)
    func asManyObjectsAsTheLabelSays(count: Int) {
        for index in 0..<40 {
            var scene = Scene(Random(7, "components", index))
            var canvas = Canvas(size: Scene.size, filledWith: Colour())
            for object in scene.smallObjects(count: count) {
                canvas.paint(around: object.centre, radius: object.radius, distance: object.distance) { _ in
                    Colour(repeating: 1)
                }
            }
            #expect(componentCount(canvas.pixels.map { $0.x > 0.1 }) == count)
        }
    }

    /// The number of 8-connected groups among [size, size] flags.
    private func componentCount(_ painted: [Bool]) -> Int {
        let size = Scene.size
        var open = painted
        var components = 0
        for start in open.indices where open[start] {
            components += 1
            var stack = [start]
            open[start] = false
            while let index = stack.popLast() {
                for y in max(0, index / size - 1)...min(size - 1, index / size + 1) {
                    let columns = max(0, index % size - 1)...min(size - 1, index % size + 1)
                    for x in columns where open[y * size + x] {
                        open[y * size + x] = false
                        stack.append(y * size + x)
                    }
                }
            }
        }
        return components
    }

    /// Near the tip, and on both sides of the head but not of the shaft, there is paint: in the label's
    /// direction and in no other.
    @Test("The arrow points where the label says", arguments: 0..<GeneratedTask.directionCount)
    func theArrowPointsWhereTheLabelSays(label: Int) {
        let directions: [Point] = [
            Point(1, 0), Point(0.7071, -0.7071), Point(0, -1), Point(-0.7071, -0.7071),
            Point(-1, 0), Point(-0.7071, 0.7071), Point(0, 1), Point(0.7071, 0.7071),
        ]
        for index in 0..<40 {
            var scene = Scene(Random(7, "arrow", index))
            let arrow = scene.arrow(label: label)
            let fitting = directions.indices.filter { candidate in
                let along = directions[candidate]
                let across = Point(-along.y, along.x)
                func isPainted(_ x: Float, _ y: Float) -> Bool {
                    arrow.distance(arrow.centre + arrow.radius * (x * along + y * across)) < 0
                }
                return isPainted(0.75, 0) && isPainted(0.2, 0.35) && isPainted(0.2, -0.35)
                    && !isPainted(-0.5, 0.5) && !isPainted(-0.5, -0.5)
            }
            #expect(fitting == [label])
        }
    }

    /// Labels run through all pairs of outline and fill, in the order of the names.
    @Test("The source task's classes are all pairs of outline and fill")
    func sourceClassesCoverOutlinesTimesFills() {
        let classes = (0..<32).map { Scene.sourceClass($0) }
        #expect(Set(classes.map { "\($0.shape)-\($0.fill)" }).count == 32)
        for (label, kind) in classes.enumerated() {
            #expect(GeneratedTask.source.classNames[label] == "\(kind.shape)-\(kind.fill)")
            #expect(GeneratedTask.shiftedStyle.classNames[label] == "\(kind.shape)-\(kind.fill)")
        }
    }

    /// The distance is negative inside and grows by at most 1 per unit: area from a grid against the formula.
    @Test(
        "Outlines have the areas of their formulas",
        arguments: [
            (Shape.disc, 2.545), (.square, 2.074), (.triangle, 1.299), (.star, 1.3225), (.cross, 1.92),
            (.ring, 2.199), (.corner, 1.25), (.arrow, 1.225),
        ])
    func areasOfTheOutlines(shape: Shape, area: Double) {
        let n = 400
        var inside = 0
        var previous: Float = 0
        var steepest: Float = 0
        for y in 0..<n {
            for x in 0..<n {
                let p = Point(Float(2 * x + 1), Float(2 * y + 1)) * (1.1 / Float(n)) - 1.1
                let distance = shape.distance(p)
                if distance < 0 { inside += 1 }
                if x > 0 { steepest = max(steepest, abs(distance - previous)) }
                previous = distance
            }
        }
        #expect(steepest > 0 && steepest <= 2.2 / Float(n) * 1.01)
        #expect(abs(Double(inside) * 2.2 * 2.2 / Double(n * n) - area) < 0.02)
    }

    @Test("Directions are unit vectors")
    func directionsAreUnitVectors() {
        for (turns, x, y) in [
            (0, 1, 0), (0.25, 0, 1), (0.5, -1, 0), (-0.25, 0, -1), (1.125, 0.707_106_8, 0.707_106_8),
            (1.0 / 12, 0.866_025_4, 0.5), (0.999_999_9, 1, 0),
        ] as [(Double, Float, Float)] {
            let d = direction(turns: turns)
            #expect(abs(d.x - x) < 1e-6 && abs(d.y - y) < 1e-6)
        }
        var random = Random(1, "turns")
        for _ in 0..<1000 {
            let d = direction(turns: random.uniform(in: -2...2))
            #expect(abs(length(d) - 1) < 1e-6)
        }
    }

    @Test("A pattern uses both inks, a plain fill one", arguments: Fill.allCases)
    func patternsUseBothInks(fill: Fill) {
        var sum: Float = 0
        var lowest: Float = 1
        var highest: Float = 0
        for y in 0..<80 {
            for x in 0..<80 {
                let share = fill.pattern(Point(Float(x), Float(y)) * 0.25 - 10, period: 4)
                sum += share
                lowest = min(lowest, share)
                highest = max(highest, share)
            }
        }
        let mean = sum / 6400
        #expect(lowest == 0 && highest == (fill == .plain ? 0 : 1))
        switch fill {
        case .plain: #expect(mean == 0)
        case .stripes, .checks: #expect(abs(mean - 0.5) < 0.02)
        case .spots: #expect(abs(mean - 0.3) < 0.02)  // a disc of radius 0.3, softened, in each cell
        }
    }
}
