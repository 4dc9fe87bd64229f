/// What is wrong with a data set or an image: one sentence that says what, where, and what to do.
public struct DatasetError: Error, CustomStringConvertible, Equatable {
    /// The sentence.
    public let description: String

    /// An error with this sentence.
    public init(_ description: String) { self.description = description }
}
