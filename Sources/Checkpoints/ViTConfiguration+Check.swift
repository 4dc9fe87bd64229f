import ModelConfiguration

extension ViTConfiguration {
    /// Throws `CheckpointError` beginning with `source` where `check()` throws.
    public func check(source: String) throws {
        do { try check() } catch { throw CheckpointError("\(source): \(error)") }
    }
}
