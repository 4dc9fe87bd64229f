import Datasets
import Foundation
import Testing

@Suite("Folders with lists beside them")
struct AnnotatedFolderTests {
    /// A data set whose images lie at `place`, in a folder that is gone afterwards.
    private func withFolder(_ place: String, _ body: (URL) throws -> Void) throws {
        let root = FileManager.default.temporaryDirectory.appendingPathComponent("glora-\(UUID().uuidString)")
        defer { try? FileManager.default.removeItem(at: root) }
        let lists = root.appendingPathComponent("annotations")
        let images = root.appendingPathComponent(place + "cars_train")
        for url in [lists, images] {
            try FileManager.default.createDirectory(at: url, withIntermediateDirectories: true)
        }
        for name in ["a.jpg", "0.01_soap dispenser _ soap.jpg"] {
            try Data([1]).write(to: images.appendingPathComponent(name))
        }
        let text = "cars_train/a.jpg 0\ncars_train/0.01_soap dispenser _ soap.jpg 4\n"
        for name in ["train_meta.list.num_shot_2.seed_1", "val_meta.list"] {
            try Data(text.utf8).write(to: lists.appendingPathComponent(name))
        }
        try body(root)
    }

    @Test(
        "Paths are relative to images/ or to the data set's folder, whichever has the first",
        arguments: ["images/", ""])
    func places(_ place: String) throws {
        try withFolder(place) { root in
            let folder = try #require(AnnotatedFolder(root))
            let list = try ImageList(listFile: folder.trainingList(shots: 2, seed: 1))
            #expect(list.samples.map(\.label) == [0, 4] && list.classCount == 5)
            #expect(list.imageName(at: 1).hasSuffix("/\(place)cars_train/0.01_soap dispenser _ soap.jpg"))
            #expect(try ImageList.classCount(ofLists: [folder.validationList]) == 5)
            #expect(try ImageList(listFile: folder.validationList, classCount: 9).classCount == 9)
            #expect(throws: DatasetError.self) {
                _ = try ImageList(listFile: folder.validationList, classCount: 4)
            }
        }
    }

    @Test("test_meta.list is what is tested on, val_meta.list where there is none")
    func tests() throws {
        try withFolder("") { root in
            let folder = try #require(AnnotatedFolder(root))
            #expect(folder.testList == folder.validationList)
            try Data("cars_train/a.jpg 0\n".utf8)
                .write(to: root.appendingPathComponent("annotations/test_meta.list"))
            #expect(folder.testList.lastPathComponent == "test_meta.list")
            #expect(AnnotatedFolder(root.appendingPathComponent("cars_train")) == nil)
        }
    }

    @Test("A classes.txt beside a list names its classes, so that lists of two folders are matched by name")
    func names() throws {
        try withFolder("images/") { root in
            let list = root.appendingPathComponent("annotations/val_meta.list")
            let classes = root.appendingPathComponent("annotations/classes.txt")
            try Data("kiwi\nemu\ndog\nmoa\ncat\n".utf8).write(to: classes)
            let images = try ImageList(listFile: list, classCount: 7)
            #expect(images.classNames == ["kiwi", "emu", "dog", "moa", "cat"] && images.classCount == 5)
            #expect(try ImageList.classCount(ofLists: [list]) == 5)
            let matched = try images.matched(to: ["cat", "dog", "kiwi"], classCount: 3)
            #expect(matched.samples.map(\.label) == [2, 0] && matched.matching == .name)
            try Data("kiwi\nemu\n".utf8).write(to: classes)
            #expect(throws: DatasetError.self) { _ = try ImageList(listFile: list) }
        }
    }
}
