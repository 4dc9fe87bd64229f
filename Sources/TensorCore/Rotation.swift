/// Which numbers of a head `Backend.rotate` takes as a pair (a, b): those of the first d, d/2 pairs.
public enum RotaryLayout: String, Codable, Sendable, CaseIterable {
    /// (i, i + d/2): Hugging Face's models and DINOv3.
    case halves
    /// (2i, 2i + 1): the original Llama's files and EVA-02.
    case interleaved
}

/// The sizes of a rotation: n rows of heads · head numbers, in each head the first 2 · pairs of which are rotated.
public struct RotarySizes: Sendable {
    /// n, the heads, the width of each and d/2.
    public let rows, heads, head, pairs: Int
}
