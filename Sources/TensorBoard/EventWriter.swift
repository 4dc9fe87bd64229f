import Foundation
import Synchronization

/// What is wrong with a folder of event files: one sentence that says what, where, and what to do.
public struct EventError: Error, CustomStringConvertible, Equatable {
    /// The sentence.
    public let description: String
}

/// Writes numbers, pictures and text for TensorBoard (`tensorboard --logdir FOLDER`), as torch's `SummaryWriter` does.
///
///     let events = try EventWriter(folder: run)
///     try events.scalar("loss/train", 0.25, step: 100)
///     try events.close()
///
/// Each writer has a new file in the folder, `events.out.tfevents.<seconds>.<host>.<process>.<number>`, which TensorBoard reads
/// together with those that are there. Every event is written whole by one call of the system, so that who reads while it grows
/// sees complete records and at most one torn at the end, which he waits for; one that can't be written, as on a full disk, is
/// taken back.
///
/// Threads may share a writer. Source of the records: tensorboard/summary/writer/record_writer.py; of the events:
/// torch/utils/tensorboard/{writer,summary}.py.
public final class EventWriter: Sendable {
    /// The file.
    public let url: URL
    private let clock: @Sendable () -> Double
    private let file: Mutex<File>

    private struct File {
        /// nil after `close`.
        var descriptor: Int32?
        /// Bytes of whole records.
        var length = 0
    }

    /// Makes a file in `folder`, which is made if it isn't there.
    ///
    /// `purgeStep`: of a run that goes on, its first step that is written anew: TensorBoard drops what earlier files say of
    /// that step and later ones. Throws `EventError`.
    public convenience init(folder: URL, purgeStep: Int? = nil) throws {
        try self.init(folder: folder, purgeStep: purgeStep) { Date().timeIntervalSince1970 }
    }

    convenience init(folder: URL, purgeStep: Int?, clock: @escaping @Sendable () -> Double) throws {
        do {
            try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
        } catch {
            throw EventError(
                description:
                    "cannot make the folder \(folder.path); check its parent's permissions and that no file "
                    + "has its name")
        }
        let (url, descriptor) = try EventWriter.openNew(in: folder, seconds: Int(clock()))
        do {
            try self.init(url, descriptor, purgeStep: purgeStep, clock: clock)
        } catch {
            unlink(url.path)
            throw error
        }
    }

    /// Writes to the open `descriptor` and closes it. `clock`: seconds since 1970.
    init(
        _ url: URL, _ descriptor: Int32, purgeStep: Int?, clock: @escaping @Sendable () -> Double
    ) throws {
        self.url = url
        self.clock = clock
        file = Mutex(File(descriptor: descriptor))
        try write(.version, step: 0)
        if let purgeStep { try write(.start, step: purgeStep) }
    }

    deinit { try? close() }

    /// A number at a step, kept as Float; NaN and infinities are shown as such. `tag`: its chart's name; tags with the same
    /// part before a slash stand together. Throws `EventError`.
    public func scalar(_ tag: String, _ value: Double, step: Int) throws {
        try write(.scalar(tag: tag, Float(value)), step: step)
    }

    /// A picture at a step: an RGB PNG file's bytes, and its size in pixels. Throws `EventError`.
    public func image(_ tag: String, png: Data, width: Int, height: Int, step: Int) throws {
        try write(.image(tag: tag, png: Array(png), width: width, height: height), step: step)
    }

    /// Markdown at a step. Throws `EventError`.
    public func text(_ tag: String, _ markdown: String, step: Int) throws {
        try write(.text(tag: tag, markdown), step: step)
    }

    /// Waits until what was written is on the disk. Throws `EventError`.
    public func flush() throws {
        try file.withLock { file in
            guard let descriptor = file.descriptor else { return }
            // Pipes and some network file systems have nothing to wait for.
            guard fsync(descriptor) == 0 || errno == EINVAL else { throw failure(errno) }
        }
    }

    /// Ends the file; nothing can be written any more. A second call does nothing. Throws `EventError`.
    public func close() throws {
        try file.withLock { file in
            guard let descriptor = file.descriptor else { return }
            file.descriptor = nil
            // Network file systems report a full disk only here.
            guard Foundation.close(descriptor) == 0 else { throw failure(errno) }
        }
    }

    // MARK: Writing

    private func write(_ event: Event, step: Int) throws {
        let record = event.message(at: clock(), step: step).record
        try file.withLock { file in
            guard let descriptor = file.descriptor else {
                throw EventError(description: "cannot write \(url.path): it is closed; make another writer")
            }
            var count = 0
            repeat {
                count = Foundation.write(descriptor, record, record.count)
            } while count < 0 && errno == EINTR
            guard count == record.count else {
                let code = count < 0 ? errno : ENOSPC
                // Behind half a record a reader would find no other.
                if count > 0 { _ = ftruncate(descriptor, off_t(file.length)) }
                throw failure(code)
            }
            file.length += count
        }
    }

    /// A file whose name nobody has: two writers of one process in one second are told apart by the last number.
    private static func openNew(in folder: URL, seconds: Int) throws -> (URL, Int32) {
        let digits = "\(seconds)"
        let time = String(repeating: "0", count: max(0, 10 - digits.count)) + digits
        var number = 0
        while true {
            let url = folder.appendingPathComponent(
                "events.out.tfevents.\(time).\(host).\(getpid()).\(number)")
            // Appending, so that a record that was taken back leaves no hole.
            let descriptor = open(url.path, O_WRONLY | O_CREAT | O_EXCL | O_APPEND | O_CLOEXEC, 0o666)
            if descriptor >= 0 { return (url, descriptor) }
            guard errno == EEXIST else { throw failure(url, errno) }
            number += 1
        }
    }

    /// The machine's name, not looked up in a network.
    private static var host: String {
        var name = [UInt8](repeating: 0, count: 256)
        let isKnown = name.withUnsafeMutableBytes {
            gethostname($0.bindMemory(to: CChar.self).baseAddress!, $0.count - 1) == 0
        }
        let text = String(decoding: name.prefix { $0 != 0 }, as: UTF8.self)
        return isKnown && !text.isEmpty && !text.contains("/") ? text : "localhost"
    }

    private func failure(_ code: Int32) -> EventError { EventWriter.failure(url, code) }

    private static func failure(_ url: URL, _ code: Int32) -> EventError {
        let remedy =
            switch code {
            case ENOSPC, EDQUOT, EFBIG: "free some space or choose another disk"
            case EACCES, EPERM, EROFS: "check the permissions or choose another folder"
            default: "choose another folder"
            }
        return EventError(
            description: "cannot write \(url.path): \(String(cString: strerror(code))); \(remedy)")
    }
}
