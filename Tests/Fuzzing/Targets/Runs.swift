import Adapters
import ArchitectureSearch
import Foundation
import ModelConfiguration
import Yams

@testable import Checkpoints
@testable import Datasets
@testable import SupernetSearch
@testable import Training

private let scratch = Scratch("run", folder: "search")
private let task = Scratch("task")
private let table = Scratch("table")

private let architecture = ViTConfiguration(
    imageSize: 16, patchSize: 8, width: 16, depth: 2, heads: 2, hiddenWidth: 32, classCount: 2)
private func config() throws -> String {
    try YAMLEncoder().encode(
        RunDirectory.Configuration(
            options: TrainingOptions(), paths: [.full(rank: 4)], baseHash: "0123", dataHash: "4567",
            classCount: 2,
            classNames: ["a", "b"], architecture: architecture, productParts: 2))
}
private let metrics = """
    {"epoch":0,"loss":1.5,"lr":0.001,"step":1}
    {"epoch":0,"trainLoss":1.5}
    {"epoch":0,"valAccuracy":0.5,"valLoss":1.25}

    """
private let summary = "{\"seconds\": 1.5, \"peakBytes\": 1000000}"
private let journal = """
    {"search":{"settings":{"algorithm":"evolution","population":4,"generations":1,"top":2,"mutations":2,"crossovers":2,"fitness":"loss","seed":1},"minParameters":0,"maxParameters":9000,"fitnessSplit":"val","checkpoint":"last","step":8,"exhaustive":false}}
    {"judged":{"candidate":"00000","parameters":10,"score":{"accuracy":0.5,"loss":1.5}}}
    {"generation":{"number":0,"judged":4,"accuracy":0.5,"parameters":10,"seconds":0.5}}
    {"refined":{"candidate":"0000z","parameters":10,"score":{"accuracy":0.5,"loss":1.5}}}

    """
private let found = """
    {"layers":{"blocks.0.attn.qkv":{"A":"LoRA_4","B":"vector","C":"none","D":"constant","E":"vector"}},"parameters":10,"algorithm":"evolution","checkpoint":"last","fitnessSplit":"val","fitness":"loss","accuracy":0.5,"loss":1.5}
    """
private let searchSummary = """
    {"judged":4,"givenUp":1,"blocksRun":0.5,"seconds":2,"peakBytes":1000000,"test":{"accuracy":0.5,"loss":1.5,"count":10}}
    """
private let ablation = """
    {"found":[{"without":"","accuracy":0.5,"loss":1,"parameters":10},{"without":"A","accuracy":0.25,"loss":2,"parameters":5}],"searched":[]}
    """
private let searchFiles = [
    "search.jsonl", "architecture.json", "front.json", "summary.json", "ablation.json",
].map { "search/" + $0 }

/// A run's folder, its search's, and lists of images.
let runTargets = [
    // A run's config.yaml, and the settings that --config reads.
    Target(
        name: "config",
        seeds: { [try Array(config().utf8), Array("lr: 1e-3\npath: full\nvalidate-every: 2\n".utf8)] }
    ) { input in
        scratch.write(input.bytes, "config.yaml")
        func use(_ options: TrainingOptions) throws {
            try options.validate()
            _ = options.differences(from: TrainingOptions())
            _ = options.cosineSchedule
            _ = try options.preprocessor(for: architecture)
        }
        if let configuration = try? RunDirectory(scratch.url).configuration() {
            try? use(configuration.options)
        }
        guard let text = String(validating: input.bytes, as: UTF8.self) else { return }
        for (key, value) in try Yams.compose(yaml: text)?.mapping ?? [:] {
            _ = (key.string, value.bool, value.string, value.sequence?.map(\.string))
        }
    },
    Target(name: "metrics", seeds: { [Input.joined([metrics, summary])] }) { input in
        input.write(["metrics.jsonl", "summary.json"], to: scratch)
        let run = RunDirectory(scratch.url)
        for state in [RunState.last, .best] { _ = try? run.validation(of: state) }
        try? run.addToSummary(seconds: 1, peakBytes: 1)
        var state = TrainingState()
        (state.step, state.epoch) = (1, 1)
        _ = try run.truncateMetrics(to: state)
    },
    // What the metadata of last.safetensors say, and which tensors it holds.
    Target(
        name: "state",
        seeds: {
            var state = TrainingState()
            state.stepCounts = ["head.bias": 3]
            state.bestAccuracy = 0.5
            state.lossScale = LossScale()
            return [
                Input.joined([
                    String(decoding: try JSONEncoder().encode(state), as: UTF8.self),
                    "{\"head.bias\": [3], \"moment1.head.bias\": [3], \"moment2.head.bias\": [3]}",
                ])
            ]
        }
    ) { input in
        let parts = input.parts
        guard parts.count > 1, let shapes = Shapes(parts[1], limit: 1 << 20) else { return }
        let text = String(decoding: parts[0], as: UTF8.self)
        _ = try TrainingSnapshot(
            contentsOf: scratch.write(
                shapes.safetensors(metadata: ["glora_state": text]), "last.safetensors",
                zeros: 4 * shapes.count))
    },
    Target(
        name: "search",
        seeds: {
            [Input.joined([journal, found, "[\(found)]", searchSummary, ablation])]
        }
    ) { input in
        input.write(searchFiles, to: scratch)
        let directory = SearchDirectory(RunDirectory(scratch.url))
        _ = directory.readAblation()
        _ = try? directory.readFront()
        _ = try? directory.readSummary()
        _ = try? directory.found()
        if let configuration = try? directory.configuration() { _ = try? directory.recall(configuration) }
        _ = try directory.judged()
    },
    Target(
        name: "report",
        seeds: {
            [
                Input.joined([
                    try config(), metrics, summary, journal, found, "[\(found)]", searchSummary,
                    ablation,
                ])
            ]
        }
    ) { input in
        input.write(
            ["config.yaml", "metrics.jsonl", "summary.json"] + searchFiles, to: scratch
        )
        try Report.parse(["--run", scratch.url.path]).run()
    },
    Target(
        name: "lists",
        seeds: {
            [
                Input.joined(["a.png 0\nno such.png 1\n", "a.png 0\n", "cat\ndog\n"]),
                Input.joined(["a.png 0\r\na.png 1\r\n", "a.png 1\n"]),
            ]
        }
    ) { input in
        task.write([0x89, 0x50, 0x4e, 0x47], "a.png")
        input.write(["train800.txt", "val200.txt", "classes.txt"], to: task)
        _ = try? ImageList.classCount(ofLists: [task.url.appendingPathComponent("train800.txt")])
        _ = try? ImageList(listFile: task.url.appendingPathComponent("train800.txt"))
        let folder = try TaskFolder.open(task.url)
        for name in ["train", "val"] { _ = try? folder.split(name) }
    },
    Target(
        name: "tables",
        seeds: {
            [
                Input.joined(["path,label\na.png,cat\n", "class,file\r\n\"cat\",a.png\r\n"]),
                Input.joined(["path,labels\na.png,cat|dog\n", "path,dog,cat\na.png,1,0\n"]),
                Input.joined(["path,age,size\na.png,3.5,-1e3\n", "size,path,age\n1,a.png,0\n"]),
            ]
        }
    ) { input in
        table.write([0x89, 0x50, 0x4e, 0x47], "a.png")
        input.write(["train.csv", "val.csv"], to: table)
        let folder = try TaskFolder.open(table.url, for: nil)
        for name in ["train", "val"] {
            guard let list = try? folder.split(name) else { continue }
            _ = list.targets(at: 0)
            _ = try folder.summary([.init(.training, list)])
        }
    },
]
