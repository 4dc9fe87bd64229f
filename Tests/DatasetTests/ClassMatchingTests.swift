import Datasets
import Foundation
import Testing

@Suite("Data are matched with a model's classes")
struct ClassMatchingTests {
    /// A folder with an image of each of these classes to test on, and of others to train on.
    private func withFolder(
        _ classes: [String], training: [String] = [], _ body: (TaskFolder) throws -> Void
    ) throws {
        let png = try Fixtures.bytes("grey1.png")
        let names = classes.map { "test/\($0)/1.png" } + training.map { "train/\($0)/1.png" }
        try withTemporaryFolder(Dictionary(uniqueKeysWithValues: names.map { ($0, png) })) { url in
            try body(try TaskFolder.open(url))
        }
    }

    /// A folder with a list of these labels.
    private func withList(_ labels: [Int], names: String? = nil, _ body: (TaskFolder) throws -> Void) throws {
        var files = ["a.png": try Fixtures.bytes("grey1.png")]
        files["test.txt"] = Array(labels.map { "a.png \($0)\n" }.joined().utf8)
        if let names { files["classes.txt"] = Array(names.utf8) }
        try withTemporaryFolder(files) { url in try body(try TaskFolder.open(url)) }
    }

    private func refuse(_ words: String..., body: () throws -> ImageList) {
        let text = #expect(throws: DatasetError.self) { try body() }?.description ?? ""
        for word in words { #expect(text.contains(word), "\(text)") }
    }

    @Test("By name: fewer classes, another order, a larger head and accents in another encoding")
    func names() throws {
        try withFolder(["dog", "emu"]) { folder in
            let own = try folder.split(.test)
            #expect(own.samples.map(\.label) == [0, 1] && own.matching == nil)
            let list = try own.matched(to: ["cat", "dog", "emu"], classCount: 3)
            #expect(list.samples.map(\.label) == [1, 2] && list.matching == .name)
            #expect(list.classCount == 3 && list.classNames == ["cat", "dog", "emu"])
            let other = try own.matched(to: ["emu", "x", "dog", "y"], classCount: 4)
            #expect(other.samples.map(\.label) == [2, 0])
        }
        // Sorted by bytes 10 comes before 2.
        try withFolder(["10", "2", "e\u{301}"]) { folder in
            let list = try folder.split(.test).matched(to: ["2", "10", "\u{e9}"], classCount: 3)
            #expect(list.samples.map(\.label) == [1, 0, 2])
        }
    }

    @Test("Classes that the model doesn't know are listed with those that it knows")
    func unknown() throws {
        try withFolder(["cat", "gnu", "yak"]) { folder in
            refuse("doesn't know: gnu, yak", "it knows cat, dog", "`match-classes number`") {
                try folder.split(.test).matched(to: ["cat", "dog"], classCount: 2)
            }
            let many = (0..<103).map { "class \($0)" }
            refuse("class 0, class 1", "class 9 and 93 more", "doesn't know: cat") {
                try folder.split(.test).matched(to: many, classCount: 103)
            }
        }
        // A name that no image has may be unknown.
        try withList([0, 2], names: "cat\nnone\ndog\n") { folder in
            let list = try folder.split(.test).matched(to: ["dog", "cat"], classCount: 2)
            #expect(list.samples.map(\.label) == [1, 0])
        }
    }

    @Test("A name that two classes share is refused, unless both sides name all alike")
    func ambiguous() throws {
        let model = ["crane", "cat", "crane"]
        try withFolder(["cat", "crane"]) { folder in
            refuse("several classes of the model are called 'crane'", "`match-classes number`") {
                try folder.split(.test).matched(to: model, classCount: 3)
            }
        }
        try withFolder(["cat"]) { folder in
            let list = try folder.split(.test).matched(to: model, classCount: 3)
            #expect(list.samples.map(\.label) == [1])
        }
        try withList([0, 2], names: "crane\ncat\ncrane\n") { folder in
            let list = try folder.split(.test).matched(to: model, classCount: 3)
            #expect(list.samples.map(\.label) == [0, 2] && list.matching == .name)
            refuse("several classes of \(folder.name) test are called 'crane'") {
                try folder.split(.test).matched(to: ["crane", "cat"], classCount: 2)
            }
        }
    }

    @Test("Without names on one side: by rank where the counts agree, else nothing tells which is which")
    func rank() throws {
        try withFolder(["dog", "emu"]) { folder in
            let list = try folder.split(.test).matched(to: nil, classCount: 2)
            #expect(list.samples.map(\.label) == [0, 1] && list.matching == .number)
            refuse("has 2 classes (dog, emu)", "the model 3 without names", "`match-classes number`") {
                try folder.split(.test).matched(to: nil, classCount: 3)
            }
            refuse("the model has no class names") {
                try folder.split(.test).matched(to: nil, classCount: 2, by: .name)
            }
        }
    }

    @Test("Lists go by number, and so does all that is forced to")
    func numbers() throws {
        try withList([0, 2]) { folder in
            let list = try folder.split(.test).matched(to: ["a", "b", "c", "d"], classCount: 4)
            #expect(list.samples.map(\.label) == [0, 2] && list.matching == .number && list.classCount == 4)
            #expect(list.contentHash == (try folder.split(.test).contentHash))
            refuse("the label 2 of", "a.png is out of range", "the model has 2 classes, 0 to 1") {
                try folder.split(.test).matched(to: nil, classCount: 2)
            }
            refuse("\(folder.name) test has no class names") {
                try folder.split(.test).matched(to: ["a", "b", "c"], classCount: 3, by: .name)
            }
        }
        try withFolder(["dog", "emu"]) { folder in
            for names in [nil, ["emu", "dog", "cat"]] {
                let list = try folder.split(.test).matched(to: names, classCount: 3, by: .number)
                #expect(list.samples.map(\.label) == [0, 1] && list.matching == .number)
            }
            refuse("the label 1 of", "test/emu/1.png") {
                try folder.split(.test).matched(to: nil, classCount: 1, by: .number)
            }
        }
    }

    @Test("A folder's split can be of classes that its training images lack, when the model knows them")
    func strangers() throws {
        try withFolder(["cat", "emu"], training: ["cat", "dog"]) { folder in
            refuse("test/emu is not one of") { try folder.split(.test) }
            let list = try folder.split(.test, matchedTo: ["emu", "dog", "cat"], classCount: 3)
            #expect(list.samples.map(\.label) == [2, 0] && list.classCount == 3)
            refuse("doesn't know: emu", "the training images") {
                try folder.split(.test, matchedTo: ["dog", "cat"], classCount: 2, of: "the training images")
            }
            refuse("test/emu is not one of the 2 classes") {
                try folder.split(.test, matchedTo: ["emu", "dog"], classCount: 2, by: .number)
            }
        }
    }

    /// Runs recognise their data by these, so they are what they were before classes were matched so.
    @Test("The hash of a list is that of its own numbering, with the new numbers behind it where they differ")
    func hashes() throws {
        try withFolder(["dog", "emu"]) { folder in
            let png = folder.url.appendingPathComponent("test/emu")
            try FileManager.default.moveItem(
                at: png.appendingPathComponent("1.png"), to: png.appendingPathComponent("2.png"))
            let own = try folder.split(.test)
            #expect(own.contentHash == 0x5a67_f4e5_bf2b_15e2)
            #expect(try own.matched(to: ["dog", "emu"], classCount: 2).contentHash == own.contentHash)
            #expect(try own.matched(to: nil, classCount: 2).contentHash == own.contentHash)
            let renumbered = try own.matched(to: ["emu", "cat", "dog"], classCount: 3)
            #expect(renumbered.contentHash == 0xb0d5_a58a_e8c6_34a8)
        }
    }
}
