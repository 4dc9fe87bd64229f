extension ContinuousClock.Instant {
    /// Seconds from then to now, whatever becomes of the wall clock meanwhile.
    package var secondsPassed: Double {
        let elapsed = duration(to: .now).components
        return Double(elapsed.seconds) + Double(elapsed.attoseconds) * 1e-18
    }
}
