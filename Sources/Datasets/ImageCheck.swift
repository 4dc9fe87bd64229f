/// Every image looked at once; guarded by the queue's condition.
final class ImageCheck {
    let count: Int
    var started = 0
    private(set) var finished = 0
    private var failureCount = 0
    /// The first in order, by index.
    private var failures: [(index: Int, error: any Error)] = []

    /// How many failures are told.
    private static let told = 5

    init(count: Int) { self.count = count }

    func finish(_ index: Int, _ result: Result<Void, any Error>) {
        finished += 1
        if case .failure(let error) = result {
            failureCount += 1
            failures.append((index, error))
            failures.sort { $0.index < $1.index }
            failures = Array(failures.prefix(ImageCheck.told))
        }
    }

    func throwFailures() throws {
        if failureCount == 1 { throw failures[0].error }
        if failureCount > 1 {
            let more = failureCount - failures.count
            throw DatasetError(
                "\(failureCount) of \(count) images can't be used: "
                    + failures.map { "\($0.error)" }.joined(separator: " ")
                    + (more > 0 ? " And \(more) more." : ""))
        }
    }
}
