import Adapters
import Foundation
import Training
import Yams

extension Sweep {
    /// The keys of a sweep's file beside the settings of a training.
    private static let ownKeys = ["sweep", "search", "trials", "seeds", "halving", "seed", "test", "device"]

    /// Settings that don't vary, and why.
    private static let constant = [
        "data": "accuracies on other data can't be compared",
        "train-split": "accuracies after other images can't be compared",
        "seed": "write seeds: [0, 1, 2] beside 'sweep'",
    ]

    /// Settings that no sweep has, and why.
    private static let unfit = [
        "log-dir": "its trainings would write into folders of the same names",
        "task": "its trials are judged by their accuracy on classes",
        "time-limit": "trainings that are cut off can't be compared; give fewer epochs, or halving",
    ]

    private static func checkFit(_ key: String) throws {
        if let reason = unfit[key] { throw Fault("'\(key)' is not for sweeps: \(reason)") }
    }

    /// Reads a sweep's file: `yaml` is its text, `name` what it is called in errors. Throws `TrainingError.settings` with the
    /// key that can't be meant.
    public init(yaml: String, name: String) throws {
        let node: Node?
        do { node = try Yams.compose(yaml: yaml) } catch {
            // The parser's message goes on with a picture of the place; its first line says what and where.
            let reason = ("\(error)".split(separator: "\n").first ?? "")
                .trimmingCharacters(in: CharacterSet(charactersIn: ":"))
            throw TrainingError.settings(
                "\(name) is not YAML (\(reason)); write lines such as 'lr: 0.001'")
        }
        do {
            guard let mapping = node?.mapping else {
                throw Fault("must hold lines such as 'lr: 0.001', and what varies below 'sweep:'")
            }
            self.init()
            for (key, value) in mapping { try take(key.string ?? "", value) }
            try check()
        } catch let fault as Fault { throw TrainingError.settings("\(name): \(fault.sentence)") }
    }

    /// What is wrong with the file, without its name.
    private struct Fault: Error {
        let sentence: String
        init(_ sentence: String) { self.sentence = sentence }
    }

    // MARK: Keys

    private mutating func take(_ key: String, _ value: Node) throws {
        switch key {
        case "sweep":
            guard let mapping = value.mapping, !mapping.isEmpty else {
                throw Fault("'sweep' holds a line for each flag that varies, such as 'lr: [1e-4, 1e-3]'")
            }
            axes = try mapping.map { key, value in try Sweep.axis(key.string ?? "", value) }
        case "search":
            guard let search = value.string.flatMap(Search.init(rawValue:)) else {
                throw Fault("'search' is grid or random")
            }
            self.search = search
        case "trials":
            guard let count = Sweep.whole(value), (1...Sweep.largestTrialCount).contains(count) else {
                throw Fault("'trials' is a number from 1 to \(Sweep.largestTrialCount)")
            }
            drawCount = count
        case "seeds":
            let seeds = value.sequence?.map(Sweep.whole) ?? []
            guard !seeds.isEmpty, !seeds.contains(where: { $0 == nil || $0! < 0 }),
                Set(seeds).count == seeds.count, seeds.count <= 1000
            else { throw Fault("'seeds' lists different whole numbers from 0 on, such as [0, 1, 2]") }
            self.seeds = seeds.compactMap(\.self)
        case "seed":
            guard let seed = Sweep.whole(value) else {
                throw Fault("'seed', of the draws, is a whole number")
            }
            self.seed = seed
        case "test":
            guard let isOn = value.bool else { throw Fault("'test' is true or false") }
            testsBest = isOn
        case "device":
            guard let word = value.string else { throw Fault("'device' is a word, such as cpu") }
            device = word
        case "halving": halving = try Sweep.halving(value)
        default:
            try Sweep.checkFit(key)
            let word = try Sweep.word(key, value)
            try Sweep.checkValue(key, word)
            fixed[key] = word
        }
    }

    private static func halving(_ node: Node) throws -> Halving {
        let mapping = node.mapping
        let epochs = mapping?["epochs"]?.sequence?.compactMap(whole) ?? []
        guard let mapping, Set(mapping.keys.compactMap(\.string)) == ["epochs", "keep"],
            let keep = mapping["keep"].flatMap(number), keep > 0, keep < 1, epochs.count > 1,
            epochs.count == mapping["epochs"]?.sequence?.count, zip(epochs, epochs.dropFirst()).allSatisfy(<),
            epochs[0] > 0, (epochs.last ?? 0) <= TrainingOptions.largestEpochCount
        else {
            throw Fault(
                "'halving' is such as {epochs: [2, 6, 20], keep: 0.333}: rising numbers of epochs, and the share, above 0 and "
                    + "below 1, that goes on")
        }
        return Halving(epochs: epochs, keep: keep)
    }

    private static func axis(_ key: String, _ node: Node) throws -> Axis {
        guard let setting = TrainingOptions().settings.first(where: { $0.name == key }) else {
            throw unknown(key, below: "sweep")
        }
        try checkFit(key)
        if let reason = constant[key] { throw Fault("'\(key)' can't vary: \(reason)") }
        if let list = node.sequence {
            let words = try list.map { try word(key, $0) }
            for word in words { try checkValue(key, word) }
            let meanings = words.map { (values(key, $0) ?? [:]).mapValues { AnyHashable($0) } }
            for (index, word) in words.enumerated() where meanings[..<index].contains(meanings[index]) {
                throw Fault("'\(key)' lists \(word) twice")
            }
            guard !words.isEmpty else { throw Fault("'\(key)' lists nothing") }
            return Axis(name: key, range: .choices(words))
        }
        guard let mapping = node.mapping, mapping.count == 1, let kind = mapping.first?.key.string,
            ["uniform", "log", "integers"].contains(kind), let bounds = mapping.first?.value.sequence,
            bounds.count == 2
        else {
            throw Fault(
                "'\(key)', which varies, is a list or a range: {uniform: [a, b]}, {log: [a, b]} or {integers: [a, b]}"
            )
        }
        let isWhole = holds(Int.self, setting)
        guard isWhole || holds(Double.self, setting) else {
            throw Fault("'\(key)' is no number; list what it may be")
        }
        guard isWhole == (kind == "integers") else {
            throw Fault(
                "'\(key)' is a \(isWhole ? "whole number: use {integers: [a, b]}" : "number: use uniform or log")"
            )
        }
        for bound in bounds { try checkValue(key, try word(key, bound)) }
        if isWhole, let low = whole(bounds[0]), let high = whole(bounds[1]), low < high {
            return Axis(name: key, range: .integers(low...high))
        }
        if !isWhole, let low = number(bounds[0]), let high = number(bounds[1]), low < high, low.isFinite,
            high.isFinite, kind == "uniform" || low > 0
        {
            return Axis(name: key, range: kind == "log" ? .log(low...high) : .uniform(low...high))
        }
        throw Fault("'\(key)': the first bound is below the second\(kind == "log" ? ", and above 0" : "")")
    }

    private static func holds<Item, S: AnySetting>(_: Item.Type, _ setting: S) -> Bool {
        S.Value.self == Item.self || S.Value.self == Item?.self
    }

    /// A value as a command line would have it: a list's entries with commas between.
    private static func word(_ key: String, _ node: Node) throws -> String {
        if let isOn = node.bool { return isOn ? "true" : "false" }
        if let word = node.string, !word.isEmpty { return word }
        if let list = node.sequence, !list.isEmpty {
            return try list.map { entry in
                guard let word = entry.string, !word.isEmpty else { throw Fault("'\(key)' is not a value") }
                return word
            }.joined(separator: ",")
        }
        throw Fault("'\(key)' is not a value")
    }

    // YAML's own numbers need a point before an exponent.
    private static func whole(_ node: Node) -> Int? { node.string.flatMap { Int($0) } }
    private static func number(_ node: Node) -> Double? { node.string.flatMap { Double($0) } }

    private static func unknown(_ key: String, below: String? = nil) -> Fault {
        Fault(
            "there is no flag '\(key)' of glora train\(below.map { " to vary below '\($0)'" } ?? "")"
                + "; the help of train lists them"
                + (below == nil ? ", a sweep's own keys are \(ownKeys.joined(separator: ", "))" : ""))
    }

    private static func checkValue(_ key: String, _ word: String) throws {
        guard let setting = TrainingOptions().settings.first(where: { $0.name == key }) else {
            throw unknown(key)
        }
        guard let values = values(key, word) else {
            let choices = choices(setting)
            throw Fault(
                "'\(key)' can't be '\(word)'"
                    + (choices.isEmpty ? "" : "; there are \(choices.joined(separator: ", "))"))
        }
        var options = TrainingOptions()
        options.take(values)
        if let fault = options.fault { throw Fault("'\(key)': \(fault)") }
    }

    private static func choices<S: AnySetting>(_ setting: S) -> [String] { S.Value.choices }

    // MARK: All of it

    /// What no key shows alone; makes the trials.
    private mutating func check() throws {
        for key in ["model", "data"] where fixed[key] == nil && !axes.contains(where: { $0.name == key }) {
            throw Fault("'\(key)' is missing")
        }
        guard !axes.isEmpty else {
            throw Fault("'sweep' is missing: what varies, such as 'lr: [1e-4, 1e-3]'")
        }
        for axis in axes where fixed[axis.name] != nil {
            throw Fault("'\(axis.name)' is both fixed and below 'sweep'; leave out one")
        }
        let methods =
            [fixed["method"]].compactMap(\.self)
            + axes.flatMap { axis -> [String] in
                guard axis.name == "method", case .choices(let words) = axis.range else { return [] }
                return words
            }
        if let method = methods.first(where: { $0.hasPrefix("glora:") }),
            fixed["path"] != nil || axes.contains(where: { $0.name == "path" })
        {
            throw Fault("'path' is said by 'method' already (\(method)); leave out one")
        }
        if let last = halving?.epochs.last {
            if axes.contains(where: { $0.name == "epochs" }) {
                throw Fault("'epochs' can't vary beside 'halving', which says them")
            }
            if let epochs = fixed["epochs"], epochs != "\(last)" {
                throw Fault("'epochs' is \(epochs), and the last of 'halving' \(last); leave out the first")
            }
            fixed["epochs"] = "\(last)"
        }
        switch search {
        case .grid:
            if drawCount != nil { throw Fault("'trials' goes with 'search: random'; a grid has them all") }
            var count = 1
            for axis in axes {
                guard case .choices(let words) = axis.range else {
                    throw Fault(
                        "'\(axis.name)' is a range, from which only 'search: random' draws; list its values")
                }
                count = min(count * words.count, Sweep.largestTrialCount + 1)
            }
            guard count <= Sweep.largestTrialCount else {
                throw Fault(
                    "'sweep' makes more than \(Sweep.largestTrialCount) trials; draw some with 'search: random'"
                )
            }
            trials = Sweep.grid(axes)
        case .random:
            guard let drawCount else { throw Fault("'trials' is missing: how many 'search: random' draws") }
            trials = Sweep.draws(axes, count: drawCount, seed: seed)
        }
        for trial in trials {
            do {
                let options = options(trial, seed: seeds[0])
                try options.validate()
                try options.refuseWithoutEffect()
            } catch {
                throw Fault("trial \(trial.number) (\(text(trial))): \(error)")
            }
        }
    }
}
