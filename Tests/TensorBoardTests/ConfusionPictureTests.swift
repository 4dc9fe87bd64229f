import Datasets
import TensorBoard
import Testing

@Suite("Confusion matrices as pictures")
struct ConfusionPictureTests {
    private func pixel(_ picture: ConfusionPicture, row: Int, column: Int) -> [UInt8] {
        let start = (row * picture.side + column) * 3
        return Array(picture.pixels[start..<start + 3])
    }

    @Test("Rows are shares of their class; a class without images is grey")
    func shares() throws {
        let picture = ConfusionPicture([[4, 0, 0], [1, 1, 0], [0, 0, 0]])
        #expect(picture.side == 399)
        #expect(pixel(picture, row: 0, column: 0) == [8, 48, 107])
        #expect(pixel(picture, row: 132, column: 133) == [255, 255, 255])
        #expect(pixel(picture, row: 133, column: 132) == [132, 152, 181])
        #expect(pixel(picture, row: 265, column: 265) == [132, 152, 181])
        #expect(pixel(picture, row: 266, column: 398) == [225, 225, 225])
    }

    @Test("Ten classes have 400 pixels a side, many at most 1,000, and none of their mistakes is lost")
    func sizes() {
        func diagonal(_ count: Int) -> [[Int]] {
            (0..<count).map { i in (0..<count).map { $0 == i ? 1 : 0 } }
        }
        #expect([1, 10, 300, 1000].map { ConfusionPicture(diagonal($0)).side } == [400, 400, 300, 1000])
        var counts = diagonal(1500)
        counts[1499] = [Int](repeating: 0, count: 1500)
        counts[1499][1] = 3
        let picture = ConfusionPicture(counts)
        #expect(picture.side == 1000)
        #expect(pixel(picture, row: 999, column: 0) == [255, 255, 255])
        #expect(pixel(picture, row: 999, column: 1) == [8, 48, 107])
        #expect((0..<1000).allSatisfy { pixel(picture, row: $0, column: $0) == [8, 48, 107] })
    }

    @Test("A PNG in memory reads as what was drawn")
    func png() throws {
        let picture = ConfusionPicture([[3, 1], [0, 5]])
        let image = RGBImage(width: picture.side, height: picture.side, pixels: picture.pixels)
        let bytes = try image.png()
        let read = try bytes.withUnsafeBytes { try RGBImage.decode($0, name: "picture") }
        #expect(read == image && bytes.count < 5000)
    }
}
