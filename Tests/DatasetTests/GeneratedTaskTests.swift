import Datasets
import Foundation
import Testing

@testable import GeneratedTasks

@Suite("Generated tasks")
struct GeneratedTaskTests {
    private static let checksums: [UInt64] = [
        6_021_891_579_121_353_691, 546_287_425_381_878_534,
        476_449_819_541_051_971, 3_228_027_364_137_843_923,
    ]

    /// FNV-1a of the first images of every split: a machine that draws other pixels can't reproduce the pretrained
    /// backbone. A change on purpose raises `GeneratedTask.version` and needs a new backbone.
    @Test("Pixels are the same on every machine", arguments: zip(GeneratedTask.allCases, checksums))
    func pixelsAreTheSameOnEveryMachine(task: GeneratedTask, checksum: UInt64) {
        var hash: UInt64 = 0xcbf2_9ce4_8422_2325
        for split in GeneratedSplit.allCases {
            let images = task.source(split: split, count: 64)
            for index in 0..<images.count {
                for byte in images.image(at: index).pixels {
                    hash = (hash ^ UInt64(byte)) &* 0x100_0000_01b3
                }
            }
        }
        #expect(hash == checksum)
    }

    @Test("An image depends on its index and not on how many there are", arguments: GeneratedTask.allCases)
    func anImageIsAFunctionOfItsIndex(task: GeneratedTask) {
        let few = task.source(split: .train, count: 40)
        let many = task.source(split: .train, count: 4000)
        for index in [39, 0, 17] {
            #expect(few.image(at: index) == many.image(at: index))
            #expect(few.label(at: index) == many.label(at: index))
        }
        #expect(few.image(at: 0) != few.image(at: few.classCount))
    }

    @Test("Splits and seeds share no image", arguments: GeneratedTask.allCases)
    func splitsAndSeedsShareNoImage(task: GeneratedTask) {
        var seen: Set<[UInt8]> = []
        var count = 0
        for split in GeneratedSplit.allCases {
            for seed in [0, 1] {
                let images = task.source(split: split, count: 100, seed: seed)
                for index in 0..<images.count { seen.insert(images.image(at: index).pixels) }
                count += images.count
            }
        }
        #expect(seen.count == count)
    }

    @Test("Labels are balanced", arguments: GeneratedTask.allCases)
    func labelsAreBalanced(task: GeneratedTask) {
        for split in GeneratedSplit.allCases {
            let images = task.source(split: split)
            #expect(images.count == split.vtabCount)
            #expect(images.classCount == task.classNames.count)
            #expect(Set(task.classNames).count == images.classCount)
            var counts = Array(repeating: 0, count: images.classCount)
            for index in 0..<images.count { counts[images.label(at: index)] += 1 }
            #expect(counts.max()! - counts.min()! <= 1)
        }
    }

    @Test("The content hash tells sources apart")
    func contentHashTellsSourcesApart() {
        var hashes: Set<UInt64> = []
        for task in GeneratedTask.allCases {
            for split in GeneratedSplit.allCases {
                for seed in [0, 1] {
                    for count in [100, 101] {
                        hashes.insert(task.source(split: split, count: count, seed: seed).contentHash)
                    }
                }
            }
        }
        #expect(hashes.count == 48)
        let source = GeneratedTask.counting.source(split: .test)
        #expect(source.contentHash == GeneratedTask.counting.source(split: .test).contentHash)
    }

    /// The lists in VTAB-1K's layout, each image decoded again.
    @Test("A task is written as a folder in VTAB-1K's layout")
    func folderHoldsTheImagesInVTABLayout() throws {
        let folder = FileManager.default.temporaryDirectory
            .appendingPathComponent("generated-\(UUID().uuidString)")
        defer { try? FileManager.default.removeItem(at: folder) }
        try GeneratedTask.orientation.writeVTABFolder(to: folder, seed: 3)

        func lines(_ name: String) throws -> [String] {
            try String(contentsOf: folder.appendingPathComponent(name), encoding: .utf8)
                .split(separator: "\n").map(String.init)
        }
        #expect(try lines("classes.txt") == GeneratedTask.orientation.classNames)
        let train = try lines("train800.txt")
        let validation = try lines("val200.txt")
        let test = try lines("test.txt")
        #expect(train.count == 800 && validation.count == 200 && test.count == 1000)
        #expect(try lines("train800val200.txt") == train + validation)
        #expect(train[9] == "images/train/000009.png 1")

        for (split, list) in [(GeneratedSplit.train, train), (.validation, validation), (.test, test)] {
            let images = GeneratedTask.orientation.source(split: split, seed: 3)
            for index in stride(from: 0, to: list.count, by: 37) {
                let parts = list[index].split(separator: " ")
                let image = try RGBImage(contentsOf: folder.appendingPathComponent(String(parts[0])).path)
                #expect(image == images.image(at: index))
                #expect(Int(parts[1]) == images.label(at: index))
            }
        }
    }

    @Test("A folder that can't be written to is named")
    func aFolderThatCannotBeWrittenIsNamed() throws {
        let file = FileManager.default.temporaryDirectory
            .appendingPathComponent("generated-\(UUID().uuidString)")
        try Data().write(to: file)
        defer { try? FileManager.default.removeItem(at: file) }
        let error = #expect(throws: DatasetError.self) {
            try GeneratedTask.counting.writeVTABFolder(to: file)
        }
        #expect(error?.description.contains(file.path) == true)
    }
}
