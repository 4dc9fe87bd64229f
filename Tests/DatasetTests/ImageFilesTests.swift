import Datasets
import Foundation
import Testing

@Suite("Images without classes")
struct ImageFilesTests {
    private func withImages(_ more: [String: String] = [:], _ body: (URL) throws -> Void) throws {
        let png = try Fixtures.bytes("grey1.png")
        var files = Dictionary(
            uniqueKeysWithValues: ["b.png", "a/2.png", "a/10.png", "c/one image 5", "one"].map {
                ("photos/\($0)", png)
            })
        for (path, text) in more { files[path] = Array(text.utf8) }
        try withTemporaryFolder(files, body)
    }

    private func paths(_ names: String..., in url: URL) throws -> [String] {
        let images = try ImageFiles(names.map { "\(url.path)/\($0)" })
        #expect(images.count == images.paths.count && images.classCount == 1)
        return images.paths.map { String($0.text.dropFirst(url.path.count + 1)) }
    }

    @Test("A folder's images are all below it, by the bytes of their paths, under the name that was given")
    func folders() throws {
        try withImages(["photos/a/notes.txt": "no image", "photos/train.csv": "path", "photos/.hidden": "x"])
        { url in
            let all = ["a/10.png", "a/2.png", "b.png", "c/one image 5", "one"].map { "photos/\($0)" }
            #expect(try paths("photos", in: url) == all)
            #expect(try paths("photos//", in: url) == all)
            #expect(try paths("photos/one", "photos/a", in: url) == [all[4], all[0], all[1]])
            let images = try ImageFiles([url.path + "/photos"])
            #expect(images.notes.count == 1 && images.notes[0].contains("a/notes.txt, train.csv"))
            #expect(try images.image(at: 0) == decode(Fixtures.bytes("grey1.png")))
            #expect(images.imageName(at: 2) == url.path + "/photos/b.png" && images.label(at: 2) == 0)
            let fewer = try ImageFiles([url.path + "/photos/a"])
            #expect(fewer.contentHash != images.contentHash)
        }
    }

    @Test("A list's paths lie where it does, with a label or without, which may be a name's end")
    func lists() throws {
        let text = "b.png 3\r\n\na/2.png\nc/one image 5\nc/one image 5 7\n"
        try withImages(["photos/list.txt": text]) { url in
            let listed = ["b.png", "a/2.png", "c/one image 5", "c/one image 5"].map { "photos/\($0)" }
            let found = try paths("photos/list.txt", in: url)
            #expect(found == listed)
        }
    }

    @Test("What is no image, or isn't there, is named")
    func refuses() throws {
        func refuse(_ name: String, _ words: String..., more: [String: String] = [:]) throws {
            try withImages(more) { url in
                let text =
                    #expect(throws: DatasetError.self) { try ImageFiles(["\(url.path)/\(name)"]) }?
                    .description ?? ""
                for word in words { #expect(text.contains(word), "\(text)") }
            }
        }
        try refuse("nowhere", "nowhere", "No such file")
        try refuse(
            "photos/list.txt", "list.txt, line 2", "there is no image file", "d.png",
            more: ["photos/list.txt": "b.png\nd.png 0"])
        try refuse("photos/list.txt", "lists no images", more: ["photos/list.txt": "\n"])
        try refuse("empty", "holds no images", more: ["empty/notes.txt": "nothing"])
        try refuse("photos", "x.png is neither a JPEG nor a PNG", more: ["photos/x.png": "GIF"])
        try refuse("photos", "x.png is empty", more: ["photos/x.png": ""])
        #expect(throws: DatasetError.self) { try ImageFiles([]) }
    }

    @Test("A thumbnail keeps the proportions, and its JPEG decodes to nearly the same")
    func thumbnails() throws {
        var pixels: [UInt8] = []  // [60, 90, 3], a slope
        for row in 0..<60 { for column in 0..<90 { pixels += [UInt8(2 * column), UInt8(4 * row), 90] } }
        let image = RGBImage(width: 90, height: 60, pixels: pixels)
        #expect(image.fitted(into: 90) == image && image.fitted(into: 500) == image)
        let small = image.fitted(into: 45)
        #expect(small.width == 45 && small.height == 30)
        let line = RGBImage(width: 300, height: 1, pixels: [UInt8](repeating: 9, count: 900)).fitted(into: 30)
        #expect(line.width == 30 && line.height == 1)
        let back = try decode(small.jpeg(quality: 95))
        #expect(back.width == 45 && back.height == 30)
        let worst = zip(back.pixels, small.pixels).map { abs(Int($0) - Int($1)) }.max() ?? 255
        #expect(worst <= 12)
    }
}
