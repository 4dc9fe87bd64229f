import Foundation
import Testing

@Suite("Tasks and images that can't be used")
struct BadDataTests {
    private static let image = "task/train800/an image 5.png"

    /// Trains on the fixture's task as `change` leaves it, and expects a refusal.
    private func refuse(_ words: String..., after change: (URL) throws -> Void) throws {
        try Fixture.withFolder { folder in
            try Fixture.own("task", in: folder)
            try change(folder)
            try Glora.refuse(Fixture.train("new"), in: folder, saying: words)
        }
    }

    private func append(_ line: String, to list: String, _ folder: URL) throws {
        try folder.write(list, try folder.bytes(list) + Data("\(line)\n".utf8))
    }

    @Test(
        "A list with a missing image, a label out of range or no label, an empty split: file and line are named"
    )
    func lists() throws {
        let list = "task/train800.txt"
        let at = "train800.txt, line 33"
        try refuse(at, "no image file at", "nope.png", "remove the line") {
            try append("nope.png 1", to: list, $0)
        }
        try refuse(at, "label 3 is out of range", "3 classes, 0 to 2") {
            try $0.write("task/classes.txt", "red\ngreen\nblue\n")
            try append("train800/an image 0.png 3", to: list, $0)
        }
        try refuse(at, "label -1 is out of range") { try append("train800/an image 0.png -1", to: list, $0) }
        try refuse(at, "label 100000 is out") { try append("train800/an image 0.png 100000", to: list, $0) }
        try refuse(at, "\"red\" is not an integer") { try append("train800/image.png red", to: list, $0) }
        try refuse(at, "has no label") { try append("image.png", to: list, $0) }
        try refuse(list, "lists no images") { try $0.write(list, "\n") }
        try refuse("val200.txt", "lists no images") { try $0.write("task/val200.txt", "") }
        try refuse("no split train800", "test, val200") {
            try FileManager.default.removeItem(at: $0.appendingPathComponent(list))
        }
    }

    @Test("An image that is damaged, hostile or none: its path is named, and what was saved stays readable")
    func images() throws {
        func refuseImage(_ word: String, _ bytes: (Data) -> Data) throws {
            try refuse("an image 5.png", word, "remove") { folder in
                try folder.write(Self.image, bytes(try folder.bytes(Self.image)))
            }
        }
        /// The PNG with another size in its header, the checksum made right.
        func claiming(_ width: UInt32, _ height: UInt32) -> (Data) -> Data {
            { png in
                var chunk = Data("IHDR".utf8)
                for value in [width, height] { chunk += withUnsafeBytes(of: value.bigEndian) { Data($0) } }
                chunk += png[24..<29]
                var crc = ~UInt32(0)
                for byte in chunk {
                    crc ^= UInt32(byte)
                    for _ in 0..<8 { crc = crc & 1 == 1 ? crc >> 1 ^ 0xEDB8_8320 : crc >> 1 }
                }
                return png[..<12] + chunk + withUnsafeBytes(of: (~crc).bigEndian) { Data($0) } + png[33...]
            }
        }
        try refuseImage("damaged") { $0.prefix($0.count / 2) }
        try refuseImage("damaged") { $0.prefix(30) }
        try refuseImage("empty") { _ in Data() }
        try refuseImage("more than the limit", claiming(.max, .max))
        try refuseImage("more than the limit", claiming(1 << 31 - 1, 1 << 31 - 1))
        try refuseImage("damaged", claiming(13_000, 13_000))
        try refuseImage("0x0", claiming(0, 0))
        // A JPEG's start, a frame of 65535 x 65535 pixels, and nothing after it.
        let frame: [UInt8] = [
            0xFF, 0xD8, 0xFF, 0xC0, 0, 17, 8, 0xFF, 0xFF, 0xFF, 0xFF, 3, 1, 0x11, 0, 2, 0x11, 0, 3, 0x11, 0,
        ]
        try refuseImage("an image 5.png") { _ in Data(frame) }
        try refuse("an image 5.png", "neither a JPEG nor a PNG", "convert") {
            try $0.write(Self.image, "GIF89a and so on")
        }
        try refuse("an image 5.png", "no image file") {
            let url = $0.appendingPathComponent(Self.image)
            try FileManager.default.removeItem(at: url)
            try FileManager.default.createDirectory(at: url, withIntermediateDirectories: true)
        }
    }

    @Test("A damaged image stops a scoring too, with nothing on standard output for --json")
    func evaluation() throws {
        try Fixture.withFolder { folder in
            try Fixture.own("task", in: folder)
            try folder.write("task/test/an image 3.png", "no image")
            let outcome = try Glora.refuse(
                ["eval", "--run", "run", "--device", "cpu", "--json"], in: folder,
                saying: ["test/an image 3.png", "neither a JPEG nor a PNG"])
            #expect(outcome.output.isEmpty)
        }
    }

    @Test("A data folder that is none, or an ImageFolder with stray files and classes")
    func folders() throws {
        try Fixture.withFolder { folder in
            func refuse(_ data: String, _ words: String...) throws {
                try Glora.refuse(Fixture.train("new", "--data", data), in: folder, saying: [data] + words)
                #expect(!folder.exists("new"))
            }
            try refuse("nowhere", "no folder")
            try refuse("task/train800.txt", "no folder")
            try folder.write("empty/readme", "")
            try refuse("empty", "holds no task")
            try Fixture.own("folders", in: folder)
            try folder.write("folders/val/zebra/1.png", try folder.bytes(Self.image))
            try refuse("folders", "folders/val/zebra", "3 classes")
            try folder.write("folders/train/c0/notes.txt", "x")
            try refuse("folders", "notes.txt", "neither a JPEG nor a PNG")
            try folder.write("bare/train/c0/.keep", "")
            try refuse("bare", "lists no images")
        }
    }

    @Test("Data of more classes than the head has, and a split that isn't there")
    func scoring() throws {
        try Fixture.withFolder { folder in
            try Fixture.own("task", in: folder)
            let eval = ["eval", "--run", "run", "--device", "cpu"]
            try Glora.refuse(
                eval + ["--split", "holdout"], in: folder,
                saying: ["no split holdout", "test, train800, val200"])
            try append("test/an image 0.png 7", to: "task/test.txt", folder)
            try Glora.refuse(eval, in: folder, saying: ["label 7", "3 classes, 0 to 2"])
        }
    }
}
