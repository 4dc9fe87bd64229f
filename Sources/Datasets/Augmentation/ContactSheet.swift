import TensorCore

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

extension PreparedImages {
    /// A contact sheet of these images: a row for each, first as evaluation reads it, then as `views` epochs of training read it, with
    /// all of `indices` in one batch, in which they are mixed. Throws `DatasetError` for an image that can't be read.
    public func sheet(of indices: [Int], views: Int, seed: Int) throws -> RGBImage {
        let size = 3 * loader.preprocessor.imageSize * loader.preprocessor.imageSize
        var columns: [[RGBImage]] = []
        for view in 0...views {
            let draws = TrainingDraws(seed: seed, epoch: view - 1, batch: view - 1)
            start([indices], augmented: view == 0 ? nil : draws)
            guard let batch = try loader.next() else { break }
            columns.append(
                batch.withUnsafeBytes { bytes in
                    let values = bytes.bindMemory(to: Float.self)
                    return indices.indices.map { slot in
                        loader.preprocessor.image(
                            of: UnsafeBufferPointer(rebasing: values[slot * size..<(slot + 1) * size]))
                    }
                })
        }
        let rows = indices.indices.flatMap { row in columns.map { $0[row] } }
        return RGBImage.sheet(images: rows, columns: columns.count)
    }
}
