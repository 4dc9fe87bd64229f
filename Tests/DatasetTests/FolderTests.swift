import Datasets
import Foundation
import Testing

@Suite("Class folders as people and their systems leave them")
struct FolderTests {
    /// An ImageFolder with these images, changed by `change`.
    private func withFolder(
        _ images: [String], _ change: (URL) throws -> Void = { _ in }, _ body: (URL) throws -> Void
    ) throws {
        let png = try Fixtures.bytes("grey1.png")
        try withTemporaryFolder(Dictionary(uniqueKeysWithValues: images.map { ($0, png) })) { url in
            try change(url)
            try body(url)
        }
    }

    private func link(_ url: URL, _ name: String, to target: String) throws {
        try FileManager.default.createSymbolicLink(
            atPath: url.appendingPathComponent(name).path, withDestinationPath: target)
    }

    /// The split's images by path from `url`, with their classes.
    private func images(_ url: URL, _ split: Split = .train) throws -> [String: Int] {
        let list = try TaskFolder.open(url).split(split)
        return Dictionary(
            uniqueKeysWithValues: list.samples.map {
                (String("\($0.path)".dropFirst(url.path.count + 1)), $0.label)
            })
    }

    private func message(_ url: URL, _ split: Split = .train) -> String {
        #expect(throws: DatasetError.self) { try TaskFolder.open(url).split(split) }?.description ?? ""
    }

    @Test("Links to splits, classes, folders inside them and files are followed")
    func links() throws {
        try withFolder(["all/1.png", "all/deep/2.png", "train/b/3.png", "elsewhere/test/b/4.png"]) { url in
            try link(url, "train/a", to: "../all")
            try link(url, "train/b/more", to: "../../all/deep")
            try link(url, "train/b/5.png", to: "../../all/1.png")
            try link(url, "test", to: "elsewhere/test")
        } _: { url in
            let train = try images(url)
            #expect(
                train == [
                    "train/a/1.png": 0, "train/a/deep/2.png": 0, "train/b/3.png": 1, "train/b/5.png": 1,
                    "train/b/more/2.png": 1,
                ])
            #expect(try images(url, .test) == ["test/b/4.png": 1])
        }
    }

    @Test("A link that git or an archive has written as text is called that")
    func flattenedLinks() throws {
        try withFolder(["all/1.png", "train/b/1.png"]) { url in
            try write(Array("../all".utf8), url, named: Array("train".utf8), Array("a".utf8))
        } _: { url in
            #expect(message(url).contains("/train/a is a symbolic link that was written as text (../all)"))
        }
    }

    @Test("Links to a folder that they lie in are not followed and are no class")
    func cycles() throws {
        try withFolder(["train/a/1.png", "train/b/deep/2.png"]) { url in
            try link(url, "train/a/self", to: ".")
            try link(url, "train/a/classes", to: "..")
            try link(url, "train/a/root", to: "/")
            try link(url, "train/b/deep/up", to: "../../b")
            try link(url, "train/loop", to: "../train")
        } _: { url in
            let task = try TaskFolder.open(url)
            #expect(task.classNames == ["a", "b"])
            #expect(try images(url) == ["train/a/1.png": 0, "train/b/deep/2.png": 1])
        }
    }

    @Test("What systems leave behind and empty folders are no class, shift none and are no image")
    func leftBehind() throws {
        let junk = [
            "train/__MACOSX/cat/._1.png", "train/a/Thumbs.db", "train/b/.DS_Store", "train/.git/1.png",
            "train/b/desktop.ini", "train/b/Icon\r", "train/b/__MACOSX/2.png", "train/@eaDir/1.png",
            "train/aa/deep/.keep", "test/aaa/.keep",
        ]
        try withFolder(["train/a/1.png", "train/b/1.png", "test/b/2.png"] + junk) { url in
            let task = try TaskFolder.open(url)
            #expect(task.classNames == ["a", "b"])
            #expect(try images(url) == ["train/a/1.png": 0, "train/b/1.png": 1])
            #expect(try images(url, .test) == ["test/b/2.png": 1])
        }
        try withFolder(["train/a/1.png", "train/b/.keep", "test/b/2.png"]) { url in
            #expect(message(url, .test).contains("test/b is not one of the 1 classes that"))
        }
        try withFolder(["train/a/.keep", "test/b/.keep"]) { url in
            #expect(message(url).contains("train lists no images"))
        }
        // Lists that macOS' archives put beside the lists.
        try withFolder(["a.png"]) { url in
            try write(Array("a.png 0\n".utf8), url, named: Array("shots.txt".utf8))
            try write([0, 5, 0x16, 7], url, named: Array("._shots.txt".utf8))
        } _: { url in
            let task = try TaskFolder.open(url)
            #expect(task.splitNames == ["shots"])
        }
    }

    @Test("Names that are not UTF-8 are classes and files, in the order of their bytes")
    func bytes() throws {
        let png = try Fixtures.bytes("rgb8.png")
        let (train, val) = (Array("train".utf8), Array("val".utf8))
        let (gbk, e): ([UInt8], [UInt8]) = ([0xb9, 0xb7], Array("è".utf8))
        try withFolder(["train/c/1.png", "val/c/1.png"]) { url in
            for split in [train, val] {
                for name in [gbk, e] { try write(png, url, named: split, name, [0xe4] + ".png".utf8) }
            }
        } _: { url in
            let task = try TaskFolder.open(url)
            #expect(task.classNames == ["c", #"\xb9\xb7"#, "è"])
            let list = try task.split(.train)
            #expect(list.samples.map(\.label) == [0, 1, 2])
            #expect(list.imageName(at: 1) == url.path + #"/train/\xb9\xb7/\xe4.png"#)
            #expect(try list.image(at: 1) == decode(png))
            #expect(try task.split(.validation).samples.map(\.label) == [0, 1, 2])
        }
        // The characters that b9 is shown as, and b9.
        try withFolder([#"train/\xb9/1.png"#]) { url in
            try write(png, url, named: train, [0xb9], Array("1.png".utf8))
        } _: { url in
            #expect(message(url).contains("two class folders whose names read alike"))
        }
    }

    @Test("A link that leads nowhere, a FIFO and a folder with an image's name are called that")
    func kinds() throws {
        for name in ["train/a/2.png", "train/b", "train"] {
            try withFolder(name == "train" ? ["x/1.png"] : ["train/a/1.png"]) { url in
                try link(url, name, to: "nowhere/at all")
            } _: { url in
                let text = message(url)
                #expect(
                    text.contains("/\(name) can't be read: it is a symbolic link to nowhere/at all"),
                    "\(text)")
            }
        }
        for name in ["train/a/2.png", "train/pipe"] {
            try withFolder(["train/a/1.png"]) { url in
                try #require(mkfifo(url.path + "/" + name, 0o600) == 0)
            } _: { url in
                #expect(message(url).contains("/\(name) is a FIFO"))
            }
        }
        for (name, words) in [
            ("pipe.png", "it is a FIFO"), ("link.png", "it is a symbolic link to nowhere"),
            ("p", "it is a folder"),
            ("p/1.png/2", "Not a directory"),
        ] {
            try withFolder(["p/1.png"]) { url in
                try #require(mkfifo(url.path + "/pipe.png", 0o600) == 0)
                try link(url, "link.png", to: "nowhere")
                try write(Array("p/1.png 0\n\(name) 0\n".utf8), url, named: Array("train.txt".utf8))
            } _: { url in
                let text = message(url)
                #expect(text.contains("train.txt, line 2: there is no image file at \(url.path)/\(name)"))
                #expect(text.contains(words), "\(text)")
            }
        }
        for name in ["train.txt", "classes.txt"] {
            try withFolder(["p/1.png"]) { url in
                try write(Array("p/1.png 0\n".utf8), url, named: Array("test.txt".utf8))
                try #require(mkfifo(url.path + "/" + name, 0o600) == 0)
            } _: { url in
                let text = message(url)
                #expect(text.contains("/\(name) can't be read: it is a FIFO"), "\(text)")
            }
        }
    }

    @Test("An image of another format is called by its name, in folders and where it is decoded")
    func formats() throws {
        let starts: [(String, [UInt8])] = [
            ("a GIF image", Array("GIF89a".utf8)), ("a BMP image", Array("BM6".utf8)),
            ("a TIFF image", [0x49, 0x49, 0x2a, 0]), ("a TIFF image", [0x4d, 0x4d, 0, 0x2a]),
            ("a WebP image", Array("RIFF".utf8) + [1, 2, 0, 0] + Array("WEBPVP8 ".utf8)),
            ("an AVIF image", [0, 0, 0, 28] + Array("ftypavif".utf8)),
            ("a HEIC image", [0, 0, 0, 28] + Array("ftypheic".utf8)),
            ("HTML or XML", Array("<!DOCTYPE html>".utf8)),
            ("Git LFS", Array("version https://git-lfs".utf8)),
            ("is neither a JPEG nor a PNG; convert", Array("a note".utf8)),
        ]
        for (name, bytes) in starts {
            try withFolder(["train/a/1.png"]) { url in
                try write(bytes, url, named: Array("train".utf8), Array("a".utf8), Array("2.jpg".utf8))
            } _: { url in
                let text = message(url)
                #expect(text.contains("train/a/2.jpg is neither") && text.contains(name), "\(text)")
            }
            let error = #expect(throws: DatasetError.self) { try decode(bytes) }
            #expect(error?.description.contains(name) == true)
        }
    }
}
