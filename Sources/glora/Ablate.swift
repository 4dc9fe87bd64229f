import ArgumentParser
import Datasets
import Foundation
import SupernetSearch
import Training

struct Ablate: ParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "What A, B, C, D and E are each worth: the score without them.",
        discussion: """
            Scores the found paths without each of the five, on the split that the
            search used, and repeats the search in spaces that lack them. The weights are
            the supernet's as they are; nothing is trained. The result is also in
            RUN/search/ablation.json.

            Example:
              glora ablate --run runs/a
              glora ablate --run runs/a --no-searches
            """)

    @Option(name: .customLong("run"), help: "A run with a finished search.")
    var runFolder: String
    @Flag(inversion: .prefixedNo, help: "Repeat the search without each of the five.")
    var searches = true
    @Option(help: "Images at a time.")
    var batchSize = 32
    @OptionGroup var match: MatchFlags
    @OptionGroup var device: DeviceFlags
    @OptionGroup var common: CommonFlags

    mutating func validate() throws {
        try checkBatchSize(batchSize)
    }

    func run() throws {
        let console = common.console
        let directory = RunDirectory(URL(fileURLWithPath: runFolder))
        let lock = try directory.lock(console)
        defer { lock.release() }
        let folder = SearchDirectory(directory)
        let found = try folder.found()
        let backend = try device.backend(
            console, productParts: try directory.configuration().productParts)
        let ready = try ReadyModel(run: directory, state: found.checkpoint, on: backend)
        for note in ready.notes { console.note(note) }
        let task = try TaskFolder.open(URL(fileURLWithPath: ready.options.data), for: ready.task)
        let images = try match.open([found.fitnessSplit], of: task, for: ready, console)[0]
        console.say(ready.preprocessingLine)
        let ablation = try ablate(
            ready, folder, on: try ready.prepare(images), searches: searches,
            batchSize: min(batchSize, images.count)
        ) { isSearched, entry in
            let what =
                entry.without.isEmpty
                ? "found" : (isSearched ? "searched without " : "found, without ") + entry.without
            console.say(
                "\(what.padded(to: 20)) \((100 * entry.accuracy).fixed(2)) %  loss \(entry.loss.fixed(4))  "
                    + "\(entry.parameters.grouped) parameters")
        }
        try folder.write(ablation, to: folder.ablation)
        try console.result(ablation, schema: "glora.ablate/1")
    }
}
