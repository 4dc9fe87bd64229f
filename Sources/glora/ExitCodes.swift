import ArgumentParser

/// What the program ends with beside `success` (0), `failure` (1: every error) and `validationFailure` (64: a command line that
/// can't be meant). ExitCodes.md is the table for those who run it.
extension ExitCode {
    /// Ctrl-C or SIGTERM stopped it where it can go on; shells say the same of a program that Ctrl-C ended.
    static let stopped = ExitCode(130)
}
