extension RGBImage {
    /// A contact sheet: the images row by row, `columns` in each, in cells of the largest width and height
    /// with `gap` pixels of white between them. Traps without an image or a column.
    public static func sheet(images: [RGBImage], columns: Int, gap: Int = 4) -> RGBImage {
        precondition(!images.isEmpty && columns > 0 && gap >= 0, "a sheet needs images and columns")
        let (cellWidth, cellHeight) = (images.map(\.width).max()!, images.map(\.height).max()!)
        let rows = (images.count + columns - 1) / columns
        let width = columns * (cellWidth + gap) - gap
        let height = rows * (cellHeight + gap) - gap
        var pixels = [UInt8](repeating: 255, count: width * height * 3)
        for (index, image) in images.enumerated() {
            let left = index % columns * (cellWidth + gap)
            let top = index / columns * (cellHeight + gap)
            for row in 0..<image.height {
                let start = ((top + row) * width + left) * 3
                pixels.replaceSubrange(
                    start..<start + image.width * 3,
                    with: image.pixels[row * image.width * 3..<(row + 1) * image.width * 3])
            }
        }
        return RGBImage(width: width, height: height, pixels: pixels)
    }
}
