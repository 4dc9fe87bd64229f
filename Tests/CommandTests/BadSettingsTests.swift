import Foundation
import Testing

@Suite("Command lines, devices and disks that can't be used")
struct BadSettingsTests {
    private static let usage: [([String], [String])] = [
        (["train"], ["--run"]),
        (["train", "--run", "new"], ["--model is missing"]),
        (["train", "--run", "new", "--model", "model"], ["--data is missing"]),
        (["train", "--run", "new", "--config", "nowhere.yaml"], ["nowhere.yaml can't be read"]),
        (["train", "--run", "new", "--config", "task"], ["task can't be read"]),
        (["train", "--run", "new", "--config", "bad.yaml"], ["bad.yaml is not YAML", "2:"]),
        (["train", "--run", "new", "--config", "list.yaml"], ["list.yaml must hold lines such as"]),
        (["train", "--run", "new", "--config", "key.yaml"], ["--learning-speed"]),
        (["train", "--run", "new", "--config"], ["--config needs"]),
        (["eval"], ["--run or --model"]),
        (["eval", "--run", "run", "--model", "model"], ["--run or --model"]),
        (["eval", "--model", "model"], ["--data is missing"]),
        (["eval", "--run", "run", "--adapter", "run/adapter"], ["--adapter needs the --model"]),
        (["eval", "--run", "run", "--image-size", "32"], ["--image-size", "the run's own"]),
        (["eval", "--model", "model", "--data", "task", "--path", "none"], ["--path", "--run"]),
        (["eval", "--run", "run", "--batch-size", "0"], ["--batch-size must be from 1 to 65536, not 0"]),
        (["eval", "--run", "run", "--checkpoint", "first"], ["'first'", "best", "last"]),
        (["merge", "--run", "run"], ["--output"]),
        (["merge", "--run", "run", "--output", "new", "--format", "onnx"], ["'onnx'", "timm", "hf"]),
        (["pretrain", "--output", "new.safetensors", "--heads", "0"], ["--heads must be from 1"]),
        (
            ["pretrain", "--output", "new.safetensors", "--patch-size", "0"],
            ["--patch-size must be from 1"]
        ),
        (["pretrain", "--output", "new.safetensors", "--images=-3"], ["--images must be from 1"]),
        (["pretrain", "--output", "new.safetensors", "--heads", "5"], ["--heads must divide --width"]),
        (["pretrain", "--output", "nowhere/new.safetensors"], ["nowhere/new.safetensors can't be written"]),
        (["tarin"], ["'tarin'"]),
    ]

    @Test("A wrong command line ends with exit code 64 and makes nothing", arguments: usage)
    func commandLine(_ arguments: [String], _ words: [String]) throws {
        try Fixture.withFolder { folder in
            try folder.write("bad.yaml", "lr: 1e-3\nepochs: 4: 5\n")
            try folder.write("list.yaml", "- lr\n")
            try folder.write("key.yaml", "learning-speed: 3\n")
            try Glora.refuse(arguments, in: folder, code: 64, saying: words)
            #expect(!folder.exists("new") && !folder.exists("new.safetensors"))
        }
    }

    private static let settings: [([String], Int32, [String])] = [
        (["--batch-size", "0"], 64, ["--batch-size must be from 1 to 65536, not 0"]),
        (["--batch-size=-8"], 64, ["--batch-size", "-8"]),
        (["--batch-size", "many"], 64, ["'many'", "--batch-size"]),
        (["--epochs", "0"], 64, ["--epochs", "not 0"]),
        (["--epochs", "9223372036854775807"], 64, ["--epochs"]),
        (["--lr", "nan"], 64, ["--lr", "nan"]),
        (["--lr=-1"], 64, ["--lr"]),
        (["--warmup-lr=-1"], 64, ["--warmup-lr"]),
        (["--min-lr", "nan"], 64, ["--min-lr"]),
        (["--weight-decay", "inf"], 64, ["--weight-decay"]),
        (["--drop-path", "1"], 64, ["--drop-path"]),
        (["--ranks", "0"], 64, ["ranks"]),
        (["--ranks", "4,4"], 64, ["ranks"]),
        (["--ranks", "1000000000"], 64, ["--ranks must be from 1 to 4096"]),
        (["--forms-c", "constant"], 64, ["C has no form 'constant'"]),
        (["--forms-d", "lowRank"], 64, ["D has no form 'lowRank'"]),
        (["--linears", "query"], 64, ["'query'"]),
        (["--rank", "0"], 64, ["--rank must be from 1 to 4096, not 0"]),
        (["--method", "adapter", "--dropout", "1"], 64, ["--dropout must be at least 0 and below 1"]),
        (["--placement", "above"], 64, ["--placement is parallel or sequential, not above"]),
        (["--method", "lora", "--targets", "k"], 1, ["--targets is qv or all, not k"]),
        (["--normalize", "zscore"], 64, ["'zscore'", "imagenet"]),
        (["--image-size", "0"], 64, ["--image-size"]),
        (["--image-size", "20"], 1, ["image size 20", "multiple of 8"]),
        (["--image-size", "16384"], 1, ["image size 16384", "number of patches 4194304"]),
        (["--crop", "center", "--resize-to", "4"], 1, ["resized to 4", "cropped to 16"]),
        (["--train-split", "holdout"], 1, ["no split holdout"]),
        (["--path", "fullest"], 1, ["--path fullest can't be read", "supernet, full, none"]),
        (["--path", "text.json"], 1, ["text.json is no path file", "LoRA_4"]),
        (["--path", "deep.json"], 1, ["deep.json asks for rank 16", "--ranks is 4"]),
        (["--path", "stranger.json"], 1, ["stranger.json", "'blocks.7.attn.qkv'", "blocks.1.mlp.fc2"]),
        (["--path", "form.json"], 1, ["form.json", "constant"]),
        (["--path", "qkv.json", "--linears", "fc1"], 1, ["qkv.json", "blocks.0.attn.qkv", "--linears"]),
        (["--device", "cuda"], 64, ["--device cuda", "cpu, auto, opencl:INDEX"]),
        (["--device", "opencl:"], 64, ["--device opencl:"]),
        (["--device", "opencl:99"], 1, ["opencl:99"]),
        (["--device", "opencl:-1"], 1, ["opencl:-1"]),
        (["--device", "opencl:no such card"], 1, ["'no such card'"]),
    ]

    @Test(
        "A setting that can't be meant is refused with its flag, and no folder is made", arguments: settings)
    func setting(_ flags: [String], _ code: Int32, _ words: [String]) throws {
        try Fixture.withFolder { folder in
            try folder.write("text.json", "full\n")
            try folder.write("deep.json", #"{"A": "LoRA_16"}"#)
            try folder.write("stranger.json", #"{"blocks.7.attn.qkv": {"A": "vector"}}"#)
            try folder.write("form.json", #"{"C": "constant"}"#)
            try folder.write("qkv.json", #"{"blocks.0.attn.qkv": {"A": "vector"}}"#)
            try Glora.refuse(
                [
                    "train", "--model", "model", "--data", "task", "--run", "new", "--epochs", "1",
                    "--device", "cpu",
                ]
                    + flags, in: folder, code: code, saying: words)
            #expect(!folder.exists("new"))
        }
    }

    @Test("Without any OpenCL platform, devices and auto still work, and a device's absence is explained")
    func noPlatform() throws {
        try Fixture.withFolder { folder in
            let vendors = folder.appendingPathComponent("vendors")
            try FileManager.default.createDirectory(at: vendors, withIntermediateDirectories: true)
            // The loader's usual variable, and the Khronos loader's list of libraries.
            let environment = ["OCL_ICD_VENDORS": vendors.path, "OCL_ICD_FILENAMES": ""]
            let devices = try Glora.succeed(["devices", "--json"], in: folder, environment: environment)
            #expect(try devices.json()["devices"]?.arrayValue?.count == 1)
            #expect(devices.errors.contains("note: no OpenCL device was found"))
            for command in [
                Fixture.train("new", "--device", "opencl:0"), ["selftest", "--device", "opencl:pocl"],
            ] {
                try Glora.refuse(
                    command, in: folder, saying: ["no OpenCL device was found", "install"],
                    environment: environment)
            }
            #expect(!folder.exists("new"))
            let auto = try Glora.succeed(
                Fixture.train("new", "--device", "auto"), in: folder, environment: environment)
            #expect(auto.output.contains("device: cpu"))
        }
    }

    @Test("A full disk ends a run in a sentence, and what was saved before is whole")
    func fullDisk() throws {
        try Fixture.withFolder { folder in
            // The state takes 51 KiB, the merged model 34; a limit on the size of files fails as a full disk does.
            try Glora.refuse(
                Fixture.train("new"), in: folder, saying: ["cannot write", "last.safetensors"],
                setup: "ulimit -f 40;"
            )
            #expect(!folder.exists("new/last.safetensors") && !folder.exists("new/config.yaml"))
            // The same folder can be used when there is room.
            try Glora.succeed(Fixture.train("new"), in: folder)
            let merge = ["merge", "--run", "run", "--device", "cpu", "--output"]
            try folder.write("old.safetensors", "the old one")
            try Glora.refuse(
                merge + ["old.safetensors"], in: folder, saying: ["cannot write", "old.safetensors"],
                setup: "ulimit -f 20;")
            #expect(try folder.bytes("old.safetensors") == Data("the old one".utf8))
            try Glora.refuse(
                merge + ["hf", "--format", "hf"], in: folder, saying: ["cannot write", "model.safetensors"],
                setup: "ulimit -f 20;")
            #expect(!folder.exists("hf/model.safetensors") && !folder.exists("hf/config.json"))
        }
    }

    @Test("A run whose metrics outgrow the disk says so and can go on")
    func fullMetrics() throws {
        try Fixture.withFolder { folder in
            // 50 epochs of 4 steps log 16 KiB; the state of a probe with small support tensors takes less than 12.
            func flags(_ run: String) -> [String] {
                Fixture.train(
                    run, "--epochs", "50", "--path", "none", "--linears", "fc1", "--ranks", "1",
                    "--validate-every", "10")
            }
            try Glora.refuse(
                flags("parts"), in: folder, saying: ["cannot write", "metrics.jsonl", "--resume"],
                setup: "ulimit -f 12;")
            #expect(try !folder.bytes("parts/metrics.jsonl").isEmpty)
            try Glora.succeed(["train", "--run", "parts", "--resume", "--device", "cpu"], in: folder)
            try Glora.succeed(flags("whole"), in: folder)
            for name in ["metrics.jsonl", "last.safetensors", "best.safetensors"] {
                #expect(try folder.bytes("parts/\(name)") == folder.bytes("whole/\(name)"), "\(name)")
            }
        }
    }

    @Test("A scoring at an image size of more patches than any model has says so at once")
    func scoringSize() throws {
        try Fixture.withFolder { folder in
            try Glora.succeed(
                ["merge", "--run", "run", "--output", "m.safetensors", "--device", "cpu"], in: folder)
            let eval = ["eval", "--model", "m.safetensors", "--data", "task", "--device", "cpu"]
            try Glora.refuse(
                eval + ["--image-size", "16384"], in: folder,
                saying: ["image size 16384", "number of patches 4194304"])
        }
    }

    @Test("demo doesn't write into a folder that is there; selftest needs a folder of vectors")
    func otherFolders() throws {
        try Fixture.withFolder { folder in
            try Glora.refuse(
                ["demo", "--output", "task", "--device", "cpu"], in: folder,
                saying: ["task exists already", "another --output"])
            try folder.write("letters/a.txt", "")
            for name in ["nowhere", "letters"] {
                try Glora.refuse(
                    ["selftest", "--vectors", name, "--device", "cpu"], in: folder,
                    saying: [name, "golden vectors"])
            }
        }
    }

    @Test(
        "An output that can't be written is refused with its path",
        arguments: ["task/train800.txt", "/proc/glora"])
    func unwritable(_ output: String) throws {
        try Fixture.withFolder { folder in
            let name = URL(fileURLWithPath: output).lastPathComponent
            try Glora.refuse(Fixture.train(output), in: folder, saying: [name, "folder"])
            try Glora.refuse(
                ["merge", "--run", "run", "--device", "cpu", "--output", output], in: folder,
                saying: [name, "folder"])
            try Glora.refuse(
                ["merge", "--run", "run", "--device", "cpu", "--output", output + "/new.safetensors"],
                in: folder,
                saying: ["cannot write", "new.safetensors"])
        }
    }
}
