import Datasets
import Foundation
import Testing

@Suite("Tables of images and targets")
struct TableTests {
    /// A folder with a.png to h.png of different bytes and these tables, each without `.csv`.
    private func withTables(_ tables: [String: String], _ body: (URL) throws -> Void) throws {
        var files: [String: [UInt8]] = [:]
        for (number, name) in "abcdefgh".enumerated() {
            files["images/\(name).png"] = try Fixtures.bytes("grey1.png") + [UInt8(number)]
        }
        for (name, text) in tables {
            files[name.contains(".") ? name : name + ".csv"] = Array(text.utf8)
        }
        try withTemporaryFolder(files, body)
    }

    /// What is said of a folder with this training table, and of its validation table.
    private func refuse(
        _ tables: [String: String], split: String = "train", for task: LearningTask? = nil,
        _ words: String...,
        line: Int = #line
    ) throws {
        try withTables(tables) { url in
            let error = #expect(throws: DatasetError.self) {
                try TaskFolder.open(url, for: task).split(split)
            }
            let text = error?.description ?? ""
            for word in words {
                #expect(text.contains(word), "\(text)", sourceLocation: location(line))
            }
        }
    }

    private func location(_ line: Int) -> SourceLocation {
        SourceLocation(fileID: #fileID, filePath: #filePath, line: line, column: 1)
    }

    private func targets(_ list: ImageList) -> [[Float]] { (0..<list.count).map(list.targets) }

    // MARK: Classes

    @Test(
        "Classes by name: sorted names of the training images, whatever the columns' order and the lines' ends"
    )
    func classNames() throws {
        let train =
            "\u{feff}\"Label\",Path\r\n\"dog, \"\"big\"\"\",images/a.png\r\n\r\ncat , images/b.png\r\nZebra,images/c.png"
        try withTables(["train": train, "validation": "file,class\rimages/d.png,cat\r"]) { url in
            let folder = try TaskFolder.open(url)
            #expect(folder.task == .classes && folder.classNames == ["Zebra", "cat", "dog, \"big\""])
            #expect(folder.splitNames == ["train", "validation"])
            let list = try folder.split(.train)
            #expect(list.samples.map(\.label) == [2, 1, 0])
            #expect(list.imageName(at: 1) == url.appendingPathComponent("images/b.png").path)
            #expect(targets(list) == [[0, 0, 1], [0, 1, 0], [1, 0, 0]] && list.targetCount == 3)
            #expect(try folder.split(.validation).samples.map(\.label) == [1])
            #expect(try folder.split(.trainAndValidation).count == 4)
            #expect(try folder.split("train.csv").count == 3)
        }
    }

    @Test("Classes by number are as in lists; a classes.txt names them, or gives names their order")
    func classNumbers() throws {
        let table = "path,label\nimages/a.png,10\nimages/b.png,2\n"
        try withTables(["train": table, "val": "path,label\nimages/c.png,7\n"]) { url in
            let folder = try TaskFolder.open(url)
            #expect(folder.classCount == 11 && folder.classNames == nil)
            #expect(try folder.split(.train).samples.map(\.label) == [10, 2])
            #expect(try folder.split(.validation).samples.map(\.label) == [7])
        }
        try withTables(["train": "path,label\nimages/a.png,1\n", "classes.txt": "cat\ndog\n"]) { url in
            let list = try TaskFolder.open(url).split(.train)
            #expect(list.classNames == ["cat", "dog"] && list.samples.map(\.label) == [1])
        }
        try withTables(["train": table, "classes.txt": "2\n10\nx\n"]) { url in
            let list = try TaskFolder.open(url).split(.train)
            #expect(list.classNames == ["2", "10", "x"] && list.samples.map(\.label) == [1, 0])
        }
        // Where no training images are, the others say what there is.
        try withTables(["test": "path,label\nimages/a.png,b\n", "val": "path,label\nimages/a.png,a\n"]) {
            url in
            let list = try TaskFolder.open(url).split(.test)
            #expect(list.samples.map(\.label) == [1])
        }
    }

    @Test("Lists of the usual names come before tables, tables before folders")
    func layouts() throws {
        try withTables(["train": "path,label\nimages/a.png,0\n", "train800.txt": "images/b.png 3\n"]) { url in
            let list = try TaskFolder.open(url).split(.train)
            #expect(list.samples.map(\.label) == [3])
        }
        try withTables(["train": "path,label\ntrain/x.png,0\n", "train/x.png": "x", "other.txt": "notes"]) {
            url in
            let list = try TaskFolder.open(url).split(.train)
            #expect(list.count == 1)
        }
        try refuse(["train.txt": "images/a.png 0\n"], for: .labels, "no tables that say labels")
        try refuse(["other": "path,label\nimages/a.png,0\n"], "nor tables such as train.csv")
    }

    // MARK: Labels and values

    @Test(
        "Labels by name: between |, ; or blanks, as the training images have it; a cell without any is none",
        arguments: [
            ("big cat|dog", "dog | big cat|", ["big cat", "dog"]), ("a;b c", "b c", ["a", "b c"]),
            ("b a", "b  b", ["a", "b"]),
        ])
    func labelNames(_ first: String, _ second: String, _ names: [String]) throws {
        let table = "path,labels\nimages/a.png,\(first)\nimages/b.png,\nimages/c.png,\(second)\n"
        try withTables(["train": table, "val": "path,labels\nimages/d.png,\(names[1])\n"]) { url in
            let folder = try TaskFolder.open(url, for: nil)
            #expect(folder.task == .labels && folder.classNames == names && folder.classCount == 2)
            let list = try folder.split(.train)
            #expect(list.task == .labels && list.label(at: 0) == 0)
            let both = second.contains("big")
            #expect(targets(list) == [[1, 1], [0, 0], [both ? 1 : 0, 1]])
            #expect(targets(try folder.split(.validation)) == [[0, 1]])
        }
    }

    @Test(
        "Labels in columns of zeros and ones, in the header's order; the same columns as values where that is asked"
    )
    func marks() throws {
        let table = "dog,path,cat\n1,images/a.png,0.0\n1,images/b.png,1.0\n"
        // Columns are known by name, and a table may name labels instead.
        let others = [
            "val": "path,cat,dog\nimages/c.png,1,0\n", "test": "path,labels\nimages/d.png,cat\n",
        ]
        try withTables(others.merging(["train": table]) { first, _ in first }) { url in
            let folder = try TaskFolder.open(url, for: nil)
            #expect(folder.task == .labels && folder.classNames == ["dog", "cat"])
            #expect(targets(try folder.split(.train)) == [[1, 0], [1, 1]])
            #expect(targets(try folder.split(.validation)) == [[0, 1]])
            #expect(targets(try folder.split(.test)) == [[0, 1]])
            let values = try TaskFolder.open(url, for: .values)
            let asked = try values.split(.train)
            #expect(values.task == .values && targets(asked) == [[1, 0], [1, 1]])
            #expect(try asked.contentHash != folder.split(.train).contentHash)
        }
        try refuse(
            ["train": "path,cat\nimages/a.png,1\nimages/b.png,2\n"], for: .labels,
            "train.csv, line 3: 2 for cat is neither")
        // The validation images don't make values of labels.
        try refuse(
            ["train": "path,cat\nimages/a.png,1\n", "val": "path,cat\nimages/b.png,0.5\n"], split: "val",
            "val.csv, line 2: 0.5 for cat is neither")
    }

    @Test("Values are the columns' numbers")
    func values() throws {
        let table = "path,age,weight\nimages/a.png,3.5,-1e-3\nimages/b.png, 4 ,\"12\"\n"
        try withTables(["train": table]) { url in
            let folder = try TaskFolder.open(url, for: nil)
            #expect(folder.task == .values && folder.classNames == ["age", "weight"])
            #expect(targets(try folder.split(.train)) == [[3.5, -0.001], [4, 12]])
        }
    }

    @Test("What a command isn't made for is refused by a sentence")
    func tasks() throws {
        let values = ["train": "path,age\nimages/a.png,3.5\n"]
        try refuse(
            values, for: .classes, "train.csv, line 1", "are for values, not for classes", "column label")
        try refuse(values, for: .labels, "line 2: 3.5 for age is neither 0 nor 1")
        try refuse(
            ["train": "path,label\nimages/a.png,3\n"], for: .values, "are for classes, not for values")
        try refuse(
            ["train": "path,labels\nimages/a.png,a\n"], for: .classes, "are for labels, not for classes")
    }

    // MARK: What is wrong

    @Test("Rows that can't be meant are refused with file and line")
    func rows() throws {
        let start = "path,label\nimages/a.png,cat\n"
        func train(_ text: String) -> [String: String] { ["train": text] }
        try refuse(train(start + "images/b.png\n"), "train.csv, line 3: the row has 1 cells, the header 2")
        try refuse(train(start + "images/b.png,cat,1\n"), "train.csv, line 3: the row has 3 cells")
        try refuse(
            train(start + "\n\nimages/a.png,cat\n"), "line 5: images/a.png is there already, in line 2")
        try refuse(train(start + "\"images/\nb.png\",cat\nimages/c.png,\n"), "line 5: the label is missing")
        try refuse(train(start + ",cat\n"), "line 3: the path is missing")
        try refuse(train(start + "images/z.png,cat\n"), "line 3: there is no image file at")
        try refuse(train(start + "\"images/b.png,cat\n"), "line 3: a quotation mark is never closed")
        try refuse(train(start + "\"images/b.png\"x,cat\n"), "line 3: text follows a closing quotation mark")
        try refuse(train(start + "images/\"b\".png,cat\n"), "line 3: a quotation mark stands inside a cell")
        try refuse(train("path,label\n"), "lists no images")
        try refuse(train(""), "train.csv is empty")
        try refuse(
            ["train": start, "val": "path,label\nimages/b.png,gnu\n"], split: "val",
            "val.csv, line 2: gnu is not one",
            "1 class", "(cat)")
        try refuse(
            ["train": "path,label\nimages/a.png,3\n", "val": "path,label\nimages/b.png,4\n"], split: "val",
            "val.csv, line 2: 4 is not one of the 4 classes", "(0 to 3)")
        try refuse(train("path,label\nimages/a.png,-1\n"), "line 2: -1 is not one")
        try refuse(
            train("path,label\nimages/a.png,100000\n"), "line 2: 100000 is not one of the 100000 classes")
        let many = (0...100_000).map { "\($0).png,c\($0)\n" }.joined()
        try refuse(train("path,label\n" + many), "names 100001 classes, more than the limit of 100000")
        try withTables([:]) { url in
            try write(
                Array("path,label\nimages/a.png,".utf8) + [0xe9, 0x0a], url, named: Array("train.csv".utf8))
            let error = #expect(throws: DatasetError.self) { try TaskFolder.open(url) }
            #expect(error?.description.contains("line 2: \"\\xe9\" is no UTF-8") == true)
        }
    }

    @Test("Numbers that are none are refused", arguments: ["nan", "inf", "-inf", "", "1e39", "1;5", "three"])
    func numbers(_ cell: String) throws {
        try refuse(
            ["train": "path,age\nimages/a.png,2\nimages/b.png,\(cell)\n"], "train.csv, line 3: ",
            cell.isEmpty ? "age is missing" : "\"\(cell)\" for age is no finite number")
    }

    @Test("Headers that don't say what is what are refused")
    func headers() throws {
        func refuse(_ header: String, _ words: String) throws {
            try self.refuse(
                [
                    "train": header
                        + "\nimages/a.png,1,2\n".prefix(
                            1 + 12 + 2 * (header.count { $0 == "," }))
                ], "train.csv, line 1: ", words)
        }
        try refuse("images/b.png,0", "no column of paths")
        try refuse("path;label", "no column of paths")
        try refuse("path", "path is the only column")
        try refuse("path,file", "path and file mean the same")
        try refuse("path,label,class", "label and class mean the same")
        try refuse("path,label,age", "label already says what the images are; remove age")
        try refuse("path,a,a", "column 3 has the name a of another")
        try refuse("path,a,", "column 3 has no name")
        let train = "path,age,size\nimages/a.png,2,3\n"
        try self.refuse(
            ["train": train, "val": "path,age\nimages/b.png,2\n"], split: "val",
            "val.csv, line 1: add a column for size")
        try self.refuse(
            ["train": train, "val": "path,age,size,x\nimages/b.png,2,3,4\n"], split: "val",
            "remove the columns x")
        try self.refuse(
            ["train": train, "val": "path,label\nimages/b.png,a\n"], split: "val",
            "(path, label) are for another task")
        try self.refuse(
            ["train": "path,labels\nimages/a.png,a|b\nimages/b.png,a;b\n"], "separated by '|' and by ';'")
        try self.refuse(["train": "path,labels\nimages/a.png,\n"], "no image has a label")
    }

    // MARK: Uses

    @Test("The hash is of paths, sizes and targets")
    func hash() throws {
        func hash(_ table: String) throws -> UInt64 {
            var hash: UInt64 = 0
            try withTables(["train": table]) {
                hash = try TaskFolder.open($0, for: nil).split(.train).contentHash
            }
            return hash
        }
        let plain = "path,age\nimages/a.png,2\nimages/b.png,3\n"
        let hashes = [
            try hash(plain), try hash("path,age\nimages/a.png,2\nimages/b.png,4\n"),
            try hash("path,age\nimages/a.png,2\nimages/c.png,3\n"),
        ]
        #expect(Set(hashes).count == 3)
        #expect(try hash("age,path\n2.0,images/a.png\n3,images/b.png\n") == hashes[0])
    }

    @Test(
        "Labels and values take the order of a model's; what it doesn't know, and values that are missing, are refused"
    )
    func matching() throws {
        try withTables(["train": "path,cat,dog\nimages/a.png,1,0\nimages/b.png,1,1\n"]) { url in
            let list = try TaskFolder.open(url, for: .labels).split(.train)
            let matched = try list.matched(to: ["emu", "dog", "cat"], classCount: 3)
            #expect(targets(matched) == [[0, 0, 1], [0, 1, 1]] && matched.matching == .name)
            #expect(throws: DatasetError.self) { try list.matched(to: ["cat"], classCount: 1) }
            #expect(targets(try list.matched(to: nil, classCount: 2)) == [[1, 0], [1, 1]])
            #expect(throws: DatasetError.self) { try list.matched(to: nil, classCount: 3, by: .number) }
            let values = try TaskFolder.open(url, for: .values).split(.train)
            #expect(targets(try values.matched(to: ["dog", "cat"], classCount: 2)) == [[0, 1], [1, 1]])
            let error = #expect(throws: DatasetError.self) {
                try values.matched(to: ["emu", "dog", "cat"], classCount: 3)
            }
            #expect(error?.description.contains("lacks values that the model has: emu") == true)
        }
    }

    @Test("The summary speaks of labels and values, and of how uneven classes and labels are")
    func summary() throws {
        func summary(_ tables: [String: String]) throws -> DataSummary {
            var summary: DataSummary?
            try withTables(tables) { url in
                let folder = try TaskFolder.open(url, for: nil)
                summary = try folder.summary([.init(.training, try folder.split(.train))])
            }
            return try #require(summary)
        }
        func rows(_ cells: [String]) -> String {
            zip("abcdefgh", cells).map { "images/\($0).png,\($1)\n" }.joined()
        }
        let labels = try summary([
            "train": "path,cat,dog,emu\n" + rows(["1,1,0", "1,0,0", "0,0,0", "1,0,0"]),
            "val": "path,cat,dog,emu\nimages/h.png,0,0,1\n",
        ])
        #expect(
            Array(labels.lines.dropFirst()) == [
                "3 labels: cat, dog, emu",
                "uneven labels: from 1 training images of dog to 3 of cat, 3 times as many",
            ])
        #expect(labels.notes == ["1 of 3 labels has no training images: emu."])
        let values = try summary([
            "train": "path,age\n" + rows(["2", "3"]), "val": "path,age\nimages/h.png,1\n",
        ])
        #expect(Array(values.lines.dropFirst()) == ["1 value: age"] && values.notes == [])
        let classes = try summary(["train": "path,label\n" + rows(["0", "1", "1", "0", "1", "1", "1", "1"])])
        #expect(classes.lines.count == 3)
        #expect(
            classes.lines.last
                == "uneven classes: from 2 training images of class 0 to 6 of class 1, 3 times as many")
        let even = try summary(["train": "path,label\n" + rows(["0", "1", "1", "0", "1", "1", "1"])])
        #expect(even.lines.count == 2)
        let names = try summary(["train": "path,label\n" + rows(["b", "a", "b", "b", "b", "b", "b", "a"])])
        #expect(
            names.lines.count == 3
                && names.lines.last?.hasSuffix("from 2 training images of a to 6 of b, 3 times as many")
                    == true
        )
    }

    @Test("Images in memory for labels and values")
    func memory() {
        let images = [1, 2].map { RGBImage(width: 1, height: 1, pixels: [0, 0, $0]) }
        let source = InMemoryImages(
            name: "m", images: images, targets: [[1, 0, 1], [0, 0, 0]], targetCount: 3, task: .labels)
        #expect(source.task == .labels && source.targetCount == 3 && source.label(at: 1) == 0)
        #expect(source.targets(at: 0) == [1, 0, 1])
        let classes = InMemoryImages(name: "m", images: images, labels: [1, 0], classCount: 2)
        #expect(classes.task == .classes && classes.targets(at: 0) == [0, 1])
        let generated: any ImageSource = GreyLabels()
        #expect(generated.task == .classes && generated.targets(at: 1) == [0, 1, 0])
    }
}

/// A source that says nothing of targets.
private struct GreyLabels: ImageSource {
    let name = "grey"
    let count = 3
    let classCount = 3
    let contentHash: UInt64 = 0
    func label(at index: Int) -> Int { index }
    func image(at index: Int) throws -> RGBImage { throw DatasetError("no image") }
}
