import TensorCore

// What distinguishes the tasks: each paints the picture of a label, everything else being chance.

extension Scene {
    /// Outline and fill of a source class: label = outline · 4 + fill.
    static func sourceClass(_ label: Int) -> (shape: Shape, fill: Fill) {
        let fills = Fill.allCases.count
        return (Shape.ofSource[label / fills], Fill.allCases[label % fills])
    }

    /// Source: one large object of the class.
    mutating func paintSource(label: Int) {
        paintBackground()
        paintClutter(lines: draw(below: 4), dots: draw(below: 5))
        let (shape, fill) = Scene.sourceClass(label)
        canvas.paint(object(shape, fill, radius: 9...14))
        canvas.addNoise(amplitude: random.float(in: 0.01...0.06), &random)
    }

    /// Counting: label + 1 small objects of one outline, without clutter that could be counted with them.
    mutating func paintCounting(label: Int) {
        paintBackground()
        for object in smallObjects(count: label + 1) { canvas.paint(object) }
        canvas.addNoise(amplitude: random.float(in: 0.01...0.04), &random)
    }

    /// Objects of one outline that keep apart by at least two pixels.
    mutating func smallObjects(count: Int) -> [Object] {
        let shape = Shape.ofSource[draw(below: Shape.ofSource.count)]
        // One object may have the area of eight, so that the paint doesn't tell the number. Within one image
        // sizes vary little.
        let radius = random.float(in: 2.8...min(6.5, 10.5 / Float(count).squareRoot()))
        var objects: [Object] = []
        while objects.count < count {
            var next = object(shape, .plain, radius: radius * 0.9...radius * 1.1)
            for _ in 0..<32 where objects.contains(where: { Scene.overlap($0, next) }) {
                next.centre = random.point(in: next.radius...Float(Scene.size) - next.radius)
            }
            if objects.contains(where: { Scene.overlap($0, next) }) {
                objects = []  // A dead end: start over.
            } else {
                objects.append(next)
            }
        }
        return objects
    }

    private static func overlap(_ a: Object, _ b: Object) -> Bool {
        length(a.centre - b.centre) < a.radius + b.radius + 2
    }

    /// Orientation: a large arrow among little clutter.
    mutating func paintOrientation(label: Int) {
        paintBackground()
        paintClutter(lines: draw(below: 2), dots: draw(below: 3))
        canvas.paint(arrow(label: label))
        canvas.addNoise(amplitude: random.float(in: 0.01...0.04), &random)
    }

    /// An arrow within a third of a bin around label · 45°, counter-clockwise from the right.
    mutating func arrow(label: Int) -> Object {
        var arrow = object(.arrow, .plain, radius: 10...14)
        let turns = (Double(label) + random.uniform(in: -0.33...0.33)) / Double(GeneratedTask.directionCount)
        arrow.axis = direction(turns: -turns)  // y points downwards
        return arrow
    }

    /// Shifted style: the source's classes in outlined dark ink on speckled paper.
    mutating func paintShiftedStyle(label: Int) {
        let paper = Colour(0.93, 0.88, 0.76) - random.float(in: 0...0.2)
        canvas = Canvas(size: Scene.size, filledWith: paper)
        paintClutter(lines: draw(below: 3), dots: draw(below: 3))
        let (shape, fill) = Scene.sourceClass(label)
        var drawn = object(shape, fill, radius: 9...14)
        let ink = Colour(0.1, 0.12, 0.25) + random.float(in: 0...0.15)
        drawn.inks = [paper - 0.1, ink]
        canvas.paint(drawn)
        let inside = drawn
        canvas.paint(
            around: drawn.centre, radius: drawn.radius + 1,
            distance: { abs(inside.distance($0)) - 0.6 }, ink: { _ in ink })
        canvas.addNoise(amplitude: 0.1, speckles: 0.04, &random)
    }
}
