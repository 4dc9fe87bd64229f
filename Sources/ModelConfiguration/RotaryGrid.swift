import Foundation
import TensorCore

/// The angles by which queries and keys of a grid of patches are rotated. With h the width of a head, pair j < h/4 of the first half of
/// the pairs turns by the first coordinate c, pair h/4 + j by the second:
///
///     angle = c · θ^(−4j/h)
///
/// Source: timm 1.0.31, `pos_embed_sincos.py` (`RotaryEmbeddingCat`, `RotaryEmbeddingDinoV3`).
public struct RotaryGrid: Codable, Hashable, Sendable {
    /// θ.
    public var temperature: Double
    /// Which numbers of a head are a pair.
    public var layout: RotaryLayout
    /// What c is.
    public var coordinates: Coordinates
    /// Whether the column comes first, and not the row.
    public var startsWithColumn: Bool

    /// The coordinate of the patch in row or column i of g.
    public enum Coordinates: Codable, Hashable, Sendable {
        /// 2π ((2i + 1) / g − 1): DINOv3.
        case centered
        /// i + offset, and where the grid of the pretraining is known, times reference / g: EVA-02.
        case index(offset: Double, reference: Int?)
    }

    /// Rotations by these.
    public init(
        temperature: Double, layout: RotaryLayout, coordinates: Coordinates, startsWithColumn: Bool = false
    ) {
        (self.temperature, self.layout) = (temperature, layout)
        (self.coordinates, self.startsWithColumn) = (coordinates, startsWithColumn)
    }

    /// [rows · columns, h/2] the angles of a grid of patches, row by row.
    public func angles(rows: Int, columns: Int, headWidth h: Int) -> [Double] {
        func coordinate(_ i: Int, of g: Int) -> Double {
            switch coordinates {
            case .centered: 2 * .pi * (Double(2 * i + 1) / Double(g) - 1)
            case .index(let offset, let reference):
                (Double(i) + offset) * (reference.map { Double($0) / Double(g) } ?? 1)
            }
        }
        let bands = (0..<h / 4).map { pow(temperature, -4 * Double($0) / Double(h)) }
        return (0..<rows * columns).flatMap { patch -> [Double] in
            let row = coordinate(patch / columns, of: rows)
            let column = coordinate(patch % columns, of: columns)
            let (first, second) = startsWithColumn ? (column, row) : (row, column)
            return bands.map { first * $0 } + bands.map { second * $0 }
        }
    }
}
