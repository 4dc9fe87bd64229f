/// A file that can't be read, written or used as a model.
public struct CheckpointError: Error, CustomStringConvertible, Equatable {
    /// One sentence: which file and tensor, what is wrong, what to do.
    public let description: String

    /// An error that says `description`.
    public init(_ description: String) { self.description = description }
}
