import Datasets
import Foundation
import Testing

@Suite("What is said of a data set before it is used")
struct DataSummaryTests {
    /// A folder with images 0.png to 9.png of different bytes and these lists, each image with its label.
    private func withLists(
        _ lists: [String: [(image: Int, label: Int)]], _ body: (TaskFolder) throws -> Void
    ) throws {
        var files: [String: [UInt8]] = [:]
        for number in 0..<10 { files["\(number).png"] = try Fixtures.bytes("grey1.png") + [UInt8(number)] }
        for (name, lines) in lists {
            files[name + ".txt"] = Array(lines.map { "\($0.image).png \($0.label)\n" }.joined().utf8)
        }
        try withTemporaryFolder(files) { url in try body(try TaskFolder.open(url)) }
    }

    private func summary(_ folder: TaskFolder) throws -> DataSummary {
        let hasValidation = folder.splitNames.contains { Split($0) == .validation }
        return try folder.summary(
            [.init(.training, try folder.split(.train))]
                + (hasValidation ? [.init(.validation, try folder.split(.validation))] : []))
    }

    @Test("Images of each part and the classes; nothing odd gives no note")
    func plain() throws {
        try withLists(["train": [(0, 0), (1, 1), (2, 1)], "val": [(3, 0)], "test": [(4, 1), (5, 0)]]) {
            folder in
            let summary = try summary(folder)
            #expect(
                summary.lines == [
                    "\(folder.name): 3 training, 1 validation and 2 test images",
                    "2 classes by number, 0 to 1: no names are given",
                ])
            #expect(summary.notes == [])
            let test = try folder.split(.test)
            let scored = DataSummary(of: "data", [.init(.test, test, name: "V2")])
            #expect(scored.lines[0] == "data: 2 V2 images" && scored.notes == [])
            let matched = try test.matched(to: ["a", "b", "c"], classCount: 3)
            #expect(
                DataSummary(of: "data", [.init(.test, matched)]).lines[1]
                    == "2 of the model's 3 classes, matched by number")
        }
    }

    @Test(
        "Classes without training images, classes only in the test images, labels from 1, no validation images"
    )
    func classes() throws {
        try withLists(["train": [(0, 1), (1, 3)], "test": [(2, 3), (3, 4)]]) { folder in
            let notes = try summary(folder).notes
            #expect(
                notes == [
                    "the smallest label is 1, not 0: no image is of class 0. If the lists count from 1, the head has "
                        + "a class too many.",
                    "2 of 5 classes have no training images: 2, 4.",
                    "1 class occurs only in the test images: 4.",
                    "there are no validation images: the best state is the last.",
                ])
            // Who only scores is not told of training.
            #expect(try folder.summary([.init(.test, try folder.split(.test))]).notes == [])
            // By number on a model with a class more, all would be wrong without a word.
            let scored = try folder.split(.test).matched(to: nil, classCount: 9, by: .number)
            #expect(
                try folder.summary([.init(.test, scored)]).notes == [
                    "the smallest label is 1, not 0: if the lists count from 1, each image is taken for one of the "
                        + "class after its own."
                ])
        }
        try withLists(["train": [(0, 0), (1, 102)], "val": [(2, 0)]]) { folder in
            let notes = try summary(folder).notes
            #expect(
                notes == [
                    "101 of 103 classes have no training images: 1, 2, 3, 4, 5, 6, 7, 8, 9, 10 and 91 more."
                ])
        }
    }

    @Test("Images that are trained on: the same file by any name, and copies of it")
    func overlaps() throws {
        let lists = [
            "train": [(0, 0), (1, 1), (2, 1)], "val": [(1, 1), (3, 0)], "test": [(4, 1), (5, 0), (6, 0)],
        ]
        try withLists(lists) { folder in
            let url = folder.url
            func place(_ number: Int) -> URL { url.appendingPathComponent("\(number).png") }
            for number in [4, 5, 6] { try FileManager.default.removeItem(at: place(number)) }
            try FileManager.default.createSymbolicLink(at: place(4), withDestinationURL: place(0))
            try FileManager.default.linkItem(at: place(2), to: place(5))
            try FileManager.default.copyItem(at: place(1), to: place(6))
            let notes = try summary(folder).notes
            #expect(
                notes == [
                    "1 of the 2 validation images are trained on: how well they are recognised says little.",
                    "3 of the 3 test images are trained on, 1 of them as copies: how well they are recognised says little.",
                ])
            let both = DataSummary.Part(.training, try folder.split(.trainAndValidation))
            #expect(
                try folder.summary([both]).notes.first
                    == "2 of the 2 validation images are trained on: how well they are recognised says little."
            )
        }
    }

    @Test("One image with two labels is told of")
    func twoLabels() throws {
        try withLists(["train": [(0, 0), (1, 1), (0, 1), (1, 1), (1, 1)], "val": [(2, 0)]]) { folder in
            let notes = try summary(folder).notes
            #expect(
                notes == ["1 of the 5 training images are there with another label too."])
        }
    }

    @Test("Of folders: what is no class, what lies in no class, and splits that can't be used")
    func folders() throws {
        let png = try Fixtures.bytes("grey1.png")
        let files = [
            "train/a/1.png": png, "train/b/1.png": png + [1], "train/c/.keep": [], "train/stray.png": png,
            "val/a/1.png": png + [2], "test/c/1.png": png + [3],
        ]
        try withTemporaryFolder(files) { url in
            let folder = try TaskFolder.open(url)
            let summary = try summary(folder)
            #expect(
                summary.lines == ["\(folder.name): 2 training and 1 validation images", "2 classes: a, b"])
            try #require(summary.notes.count == 3)
            #expect(summary.notes[0].hasSuffix("/train has folders without images, which are no classes: c."))
            #expect(summary.notes[1].contains("1 file is in \(url.path)/train and in no class folder"))
            #expect(
                summary.notes[2].hasPrefix("the test images can't be used: \(url.path)/test/c is not one of"))
            let matched = try folder.split(.test, matchedTo: ["c", "b"], classCount: 2)
            #expect(
                DataSummary(of: "data", [.init(.test, matched)]).lines[1]
                    == "1 of the model's 2 classes, matched by name: c")
        }
    }
}
