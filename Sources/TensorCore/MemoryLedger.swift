import Synchronization

/// How many bytes the buffers of a backend hold together. Drivers and systems promise more than they have and fail in the middle of a
/// step; this count fails where allocation may throw.
public final class MemoryLedger: Sendable {
    /// The most that may be held, in bytes.
    public let capacity: Int
    private let held = Mutex(0)

    /// A ledger of which nothing is taken.
    public init(capacity: Int) { self.capacity = capacity }

    /// Bytes that are held.
    public var taken: Int { held.withLock { $0 } }
    /// Bytes that may still be taken.
    public var available: Int { capacity - taken }

    /// Books the bytes, or returns false when they don't fit.
    public func take(_ byteCount: Int) -> Bool {
        held.withLock {
            guard byteCount <= capacity - $0 else { return false }
            $0 += byteCount
            return true
        }
    }

    /// Gives booked bytes back.
    public func give(_ byteCount: Int) { held.withLock { $0 -= byteCount } }
}
