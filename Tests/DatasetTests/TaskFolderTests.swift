import Datasets
import Foundation
import Testing

@Suite("Folders that hold a task")
struct TaskFolderTests {
    /// A VTAB-1K folder with three training, two validation and one test image, over these changes.
    private func withTask(_ changes: [String: String], _ body: (URL) throws -> Void) throws {
        let png = try Fixtures.bytes("grey1.png")
        var files: [String: [UInt8]] = [
            "train800.txt": Array("images/a.png 0\nimages/b.png 2\r\nimages/soap dispenser 3.png 1\n".utf8),
            "val200.txt": Array("images/d.png 1\n\nimages/e.png\t0".utf8),
            "test.txt": Array("images/f.png 3\n".utf8),
        ]
        for name in ["a", "b", "soap dispenser 3", "d", "e", "f"] { files["images/\(name).png"] = png }
        for (path, text) in changes { files[path] = Array(text.utf8) }
        try withTemporaryFolder(files, body)
    }

    private func message(_ url: URL, _ split: String) -> String {
        #expect(throws: DatasetError.self) { try TaskFolder.open(url).split(split) }?.description ?? ""
    }

    @Test("VTAB-1K's lists are read")
    func readsLists() throws {
        try withTask([:]) { url in
            let task = try TaskFolder.open(url)
            #expect(task.classCount == 4)  // The test split's label 3 counts.
            #expect(task.classNames == nil)
            #expect(task.splitNames == ["test", "train800", "val200"])
            let train = try task.split("train800")
            #expect(train.samples.map(\.label) == [0, 2, 1])
            #expect(
                train.samples.map { "\($0.path)" }
                    == ["a", "b", "soap dispenser 3"].map { "\(url.path)/images/\($0).png" })
            #expect(train.classCount == 4)
            #expect(try train.image(at: 2) == decode(Fixtures.bytes("grey1.png")))
            #expect(try task.split(.validation).samples.map(\.label) == [1, 0])
            #expect(try task.split(.test).count == 1)
        }
    }

    @Test("Training and validation images can be joined")
    func joinsTrainingAndValidation() throws {
        try withTask([:]) { url in
            let both = try TaskFolder.open(url).split(.trainAndValidation)
            #expect(both.samples.map(\.label) == [0, 2, 1, 1, 0])
        }
        try withTask(["train800val200.txt": "images/e.png 0\n"]) { url in
            let both = try TaskFolder.open(url).split("train800val200")
            #expect(both.samples.map(\.label) == [0])
        }
    }

    @Test("classes.txt names the classes")
    func readsClassNames() throws {
        try withTask(["classes.txt": "cat\ndog\nowl\nsoap dispenser\nzebra\n"]) { url in
            let task = try TaskFolder.open(url)
            #expect(task.classCount == 5)
            #expect(task.classNames == ["cat", "dog", "owl", "soap dispenser", "zebra"])
        }
        try withTask(["classes.txt": "cat\ndog\n"]) { url in
            let text = message(url, "train")
            #expect(text.contains("train800.txt, line 2"))
            #expect(text.contains("label 2") && text.contains("2 classes"))
        }
        try withTask(["classes.txt": "\n"]) { url in
            #expect(message(url, "train").contains("classes.txt names no classes"))
        }
    }

    @Test("Lists of any name are splits")
    func readsOtherLists() throws {
        let png = try Fixtures.bytes("grey1.png")
        let line = Array("p/a.png 4\n".utf8)
        try withTemporaryFolder(["p/a.png": png, "shots.seed0.txt": line]) { url in
            let task = try TaskFolder.open(url)
            #expect(task.classCount == 5)
            #expect(try task.split("shots.seed0").samples.map(\.label) == [4])
            #expect(try task.split("shots.seed0.txt").count == 1)
            let list = try ImageList(listFile: url.appendingPathComponent("shots.seed0.txt"), relativeTo: url)
            #expect(list.classCount == 5 && list.count == 1)
        }
    }

    @Test("A bad line of a list is named with its number")
    func badLinesAreNamed() throws {
        for (lines, words) in [
            ("images/a.png 0\nimages/missing.png 1\n", ["line 2", "/images/missing.png"]),
            ("images/a.png 0\n\nimages/a.png one\n", ["line 3", "\"one\"", "not an integer"]),
            ("images/a.png 1.0\n", ["line 1", "not an integer"]),
            ("images/a.png\n", ["line 1", "no label"]),
            ("images/a.png -1\n", ["line 1", "-1", "out of range"]),
            ("images/a.png 100000000\n", ["line 1", "100000000", "out of range"]),
            ("images 0\n", ["line 1", "no image file"]),
            ("empty.png 0\n", ["line 1", "empty"]),
            ("\n \n", ["train800.txt", "lists no images"]),
            ("", ["train800.txt", "lists no images"]),
        ] {
            try withTask(["train800.txt": lines, "empty.png": ""]) { url in
                let text = message(url, "train")
                for word in words { #expect(text.contains(word), "\(lines): \(text)") }
            }
        }
    }

    @Test("A byte-order mark, returns, tabs and blanks at a line's ends are no part of it")
    func windowsLists() throws {
        let mark = "\u{feff}"
        let first = mark + "images/a.png 0\r\n  images/soap dispenser 3.png\t 1 \t\r\n \t\r\n"
        let list = Array((first + mark + "images/b.png\t2\u{a0}\r\n\r\n").utf8)
        let classes = Array((mark + "cat \r\ndog\r\nowl\r\nzebra\r\n").utf8)
        try withTask([:]) { url in
            try write(list, url, named: Array("train800.txt".utf8))
            try write(classes, url, named: Array("classes.txt".utf8))
            let task = try TaskFolder.open(url)
            #expect(task.classNames == ["cat", "dog", "owl", "zebra"])
            let train = try task.split(.train)
            #expect(train.samples.map(\.label) == [0, 1, 2])
            let names = ["a", "soap dispenser 3", "b"].map { "\(url.path)/images/\($0).png" }
            #expect(train.samples.map { "\($0.path)" } == names)
            // An old Mac's lines.
            try write(Array("images/a.png 0\rimages/b.png 1\r".utf8), url, named: Array("train800.txt".utf8))
            #expect(try TaskFolder.open(url).split(.train).samples.map(\.label) == [0, 1])
        }
    }

    @Test("UTF-16, with and without its mark, is called that", arguments: ["train800.txt", "classes.txt"])
    func utf16(_ name: String) throws {
        let text: [UInt8] = "images/a.png 0\n".utf16.flatMap { [UInt8($0), 0] }
        for bytes in [[0xff, 0xfe] + text, text] {
            try withTask([:]) { url in
                try write(bytes, url, named: Array(name.utf8))
                let text = message(url, "train")
                #expect(text.contains(name) && text.contains("UTF-16") && text.contains("UTF-8"), "\(text)")
            }
        }
    }

    @Test("A list's paths are bytes: names in Latin-1 are found, and shown in messages")
    func latinPaths() throws {
        try withTask([:]) { url in
            let name: [UInt8] = [0xe4] + Array(".png".utf8)
            try write(Fixtures.bytes("rgb8.png"), url, named: Array("images".utf8), name)
            let list: [UInt8] = Array("images/".utf8) + name + Array(" 3\n".utf8)
            try write(list, url, named: Array("train800.txt".utf8))
            let train = try TaskFolder.open(url).split(.train)
            #expect(train.samples.map(\.label) == [3])
            #expect(train.imageName(at: 0) == "\(url.path)/images/\\xe4.png")
            #expect(try train.image(at: 0) == decode(Fixtures.bytes("rgb8.png")))
            let missing: [UInt8] = list.map { $0 == 0xe4 ? 0xe5 : $0 }
            try write(list + missing, url, named: Array("train800.txt".utf8))
            #expect(
                message(url, "train").contains(
                    "line 2: there is no image file at \(url.path)/images/\\xe5.png"))
        }
    }

    @Test("val, valid and validation are the validation images, two of them an error")
    func validationNames() throws {
        for name in ["val", "valid", "validation"] {
            let line = "images/e.png 2\n"
            try withTask([:]) { url in
                try FileManager.default.removeItem(at: url.appendingPathComponent("val200.txt"))
                try write(Array(line.utf8), url, named: Array("\(name).txt".utf8))
                let task = try TaskFolder.open(url)
                for split in ["val", "valid", "validation", "val200"] {
                    #expect(try task.split(split).samples.map(\.label) == [2])
                }
            }
            let png = try Fixtures.bytes("grey1.png")
            let files = ["train/a/1.png", "train/b/1.png", "\(name)/b/2.png"]
            try withTemporaryFolder(Dictionary(uniqueKeysWithValues: files.map { ($0, png) })) { url in
                let task = try TaskFolder.open(url)
                #expect(task.splitNames == ["train", name])
                #expect(try task.split(.validation).samples.map(\.label) == [1])
                #expect(try task.split(.trainAndValidation).samples.map(\.label) == [0, 1, 1])
                let other = name == "val" ? "valid" : "val"
                try FileManager.default.createSymbolicLink(
                    at: url.appendingPathComponent(other),
                    withDestinationURL: url.appendingPathComponent(name))
                let text = message(url, "train")
                #expect(text.contains("/\(name)") && text.contains("/\(other)") && text.contains("keep one"))
            }
        }
        try withTask(["val.txt": "images/e.png 0\n", "validation.txt": "images/e.png 1\n"]) { url in
            #expect(message(url, "train").contains("val.txt and"))
        }
    }

    @Test("The error for a missing split lists those that are there")
    func missingSplitsListThoseThatAreThere() throws {
        try withTask([:]) { url in
            let text = message(url, "holdout")
            #expect(text.contains("no split holdout") && text.contains("test, train800, val200"))
        }
    }

    @Test("A folder without a task is refused")
    func foldersWithoutATaskAreRefused() throws {
        try withTemporaryFolder(["notes.md": [65]]) { url in
            #expect(message(url, "train").contains("holds no task"))
            #expect(message(url.appendingPathComponent("nowhere"), "train").contains("no folder"))
        }
    }

    @Test("A folder for each class is a task")
    func readsImageFolders() throws {
        let png = try Fixtures.bytes("grey1.png")
        let names = [
            "train/dog/2.png", "train/dog/10.png", "train/Zebra/1.png", "train/cat/deep/1.jpg",
            "train/.hidden/1.png", "val/cat/9.png", "test/dog/.DS_Store", "test/dog/3.png",
        ]
        try withTemporaryFolder(Dictionary(uniqueKeysWithValues: names.map { ($0, png) })) { url in
            let task = try TaskFolder.open(url)
            #expect(task.classNames == ["Zebra", "cat", "dog"])
            #expect(task.splitNames == ["train", "val", "test"])
            let train = try task.split("train800")
            let paths = train.samples.map { String("\($0.path)".dropFirst(url.path.count + 1)) }
            #expect(
                paths == ["train/Zebra/1.png", "train/cat/deep/1.jpg", "train/dog/10.png", "train/dog/2.png"])
            #expect(train.samples.map(\.label) == [0, 1, 2, 2])
            #expect(try task.split("val200").samples.map(\.label) == [1])
            #expect(try task.split("train800val200").samples.map(\.label) == [0, 1, 2, 2, 1])
            #expect(try task.split(.test).samples.map(\.label) == [2])
        }
    }

    @Test("Class folders with stray files or unknown classes are refused")
    func imageFoldersWithStrangersAreRefused() throws {
        let png = try Fixtures.bytes("grey1.png")
        try withTemporaryFolder(["train/a/1.png": png, "test/b/1.png": png, "val/a/note.txt": [65]]) { url in
            #expect(message(url, "test").contains("test/b is not one of the 1 classes"))
            #expect(message(url, "val").contains("val/a/note.txt is neither"))
        }
        try withTemporaryFolder(["train/1.png": png]) { url in
            #expect(message(url, "train").contains("no class folders"))
        }
        try withTemporaryFolder(["train/a/1.png": png, "val/a/.keep": []]) { url in
            #expect(message(url, "val").contains("lists no images"))
            #expect(message(url, "test").contains("there are: train, val"))
        }
    }

    @Test("The content hash depends on the content and not on the place")
    func hashesKnowContentAndNotPlace() throws {
        var hashes: [UInt64] = []
        let reordered = "images/b.png 2\nimages/a.png 0\nimages/soap dispenser 3.png 1\n"
        let relabelled = "images/a.png 1\nimages/b.png 2\nimages/soap dispenser 3.png 1\n"
        for changes in [
            [:], [:], ["train800.txt": reordered], ["train800.txt": relabelled], ["images/a.png": "longer"],
        ] {
            try withTask(changes) { hashes.append(try TaskFolder.open($0).split(.train).contentHash) }
        }
        #expect(hashes[0] == hashes[1])
        #expect(Set(hashes).count == 4)
        // FNV-1a over the path, the label and the size of each file in 8 bytes: what earlier runs have in their files.
        #expect(hashes[0] == 0xa4cb_3c1f_871b_b4de)
    }
}
