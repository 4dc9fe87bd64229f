import Adapters
import Foundation
import Training

/// A method as a comparison's command line names it: `lora`; `glora`, a supernet, a search and the training of what was found;
/// and GLoRA with a path that is known, `glora:full`, `glora:none` or `glora:FILE.json`.
public struct MethodEntry: Hashable, Sendable, CustomStringConvertible {
    /// The method.
    public let method: MethodName
    /// What is behind the colon.
    public let path: String?

    /// Reads one entry. Throws `TrainingError.settings` for a name that isn't one.
    public init(_ text: String) throws {
        let parts = text.split(separator: ":", maxSplits: 1, omittingEmptySubsequences: false)
        guard let method = MethodName(rawValue: String(parts.first ?? "")) else {
            let names = MethodName.allCases.map(\.rawValue).joined(separator: ", ")
            throw TrainingError.settings("`methods`: there is no method '\(text)'; there are \(names)")
        }
        self.method = method
        path = parts.count > 1 ? String(parts[1]) : nil
        guard let path else { return }
        guard method == .glora else {
            throw TrainingError.settings(
                "`methods`: '\(text)' names a path, which only glora takes; write \(method.rawValue)")
        }
        guard !path.isEmpty, path != "supernet" else {
            throw TrainingError.settings(
                "`methods`: '\(text)' is no path; write glora, glora:full, glora:none or glora:FILE.json")
        }
        if PathChoice.isFile(path), !FileManager.default.isReadableFile(atPath: path) {
            throw TrainingError.settings(
                "`methods`: '\(text)' names no file of paths; write glora:full, glora:none or glora:FILE.json"
            )
        }
    }

    /// What one training of these settings trains; nothing is searched for.
    public init(of options: TrainingOptions) {
        method = options.method
        path = method == .glora ? options.path : nil
    }

    /// Whether the path is to be searched for.
    public var isSearched: Bool { method == .glora && path == nil }

    /// What the user wrote.
    public var description: String { method.rawValue + (path.map { ":" + $0 } ?? "") }

    /// The name of its folder: `lora`, `glora-full`, `glora-found` for `glora:runs/found.json`.
    public var folderName: String {
        guard let path else { return method.rawValue }
        let name = URL(fileURLWithPath: path).deletingPathExtension().lastPathComponent
        return method.rawValue + "-" + name
    }

    /// What a command line gives, by name, and else what the method's authors do.
    public func options(_ given: [String: any SettingValue]) -> TrainingOptions {
        var options = TrainingOptions(given: given.merging(["method": method]) { $1 })
        if let path { options.path = path }
        if isSearched { options.recipe = .sandwich }
        return options
    }
}
