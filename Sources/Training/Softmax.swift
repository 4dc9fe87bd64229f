import Foundation

/// The probabilities of the classes, in double precision, whatever the logits' size:
///
///     p = exp(z − max z) / Σ exp(z − max z)
///
/// Of logits [K] that are finite.
public func softmax(_ logits: ArraySlice<Float>) -> [Double] {  // [K]
    let largest = Double(logits.max() ?? 0)
    let exponentials = logits.map { exp(Double($0) - largest) }
    let sum = exponentials.reduce(0, +)
    return exponentials.map { $0 / sum }
}

extension ArraySlice<Float> {
    /// Where the `count` largest are, counted from the slice's start, the largest first and of equals the first; all where there are
    /// fewer.
    package func largest(_ count: Int) -> [Int] {
        var places: [Int] = []
        for (place, value) in enumerated() {
            func isLess(_ other: Int) -> Bool { self[startIndex + other] < value }
            if places.count == count {
                guard let last = places.last, isLess(last) else { continue }
                places.removeLast()
            }
            places.insert(place, at: places.firstIndex(where: isLess) ?? places.endIndex)
        }
        return places
    }
}
