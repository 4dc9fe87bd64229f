import Experiments
import Foundation
import TensorCore
import Testing
import Training

@Suite("The numbers of a comparison's tables")
struct ComparisonTests {
    @Test(
        "The averages are the mean of the group means and the mean of the tasks, each of all its tasks or none"
    )
    func averages() throws {
        // Natural 0.7, specialized 0.4, structured 0.8: what no two averages share.
        let values: [VTABTask.Group: Double] = [.natural: 0.7, .specialized: 0.4, .structured: 0.8]
        var accuracies = Dictionary(uniqueKeysWithValues: VTABTask.all.map { ($0, values[$0.group]!) })
        let whole = VTABAverages(accuracies)
        #expect(abs(whole.natural! - 0.7) < 1e-12 && abs(whole.specialized! - 0.4) < 1e-12)
        #expect(abs(whole.structured! - 0.8) < 1e-12)
        #expect(abs(whole.ofGroups! - 1.9 / 3) < 1e-12)
        #expect(abs(whole.ofTasks! - (7 * 0.7 + 4 * 0.4 + 8 * 0.8) / 19) < 1e-12)
        accuracies[try #require(VTABTask.named("kitti"))] = nil
        let part = VTABAverages(accuracies)
        #expect(part.natural != nil && part.structured == nil && part.ofGroups == nil && part.ofTasks == nil)
        #expect(abs(part.ofThose! - (7 * 0.7 + 4 * 0.4 + 7 * 0.8) / 18) < 1e-12)
        #expect(VTABAverages([:]).ofThose == nil)
    }

    @Test("VTAB-1K has 19 tasks in groups of 7, 4 and 8, and their scripts' other names")
    func tasks() {
        #expect(
            VTABTask.Group.allCases.map { group in VTABTask.all.count { $0.group == group } } == [7, 4, 8])
        #expect(Set(VTABTask.all.map(\.name)).count == 19)
        #expect(VTABTask.named("cifar100")?.name == "cifar")
        #expect(VTABTask.named("oxford_pet")?.name == "oxford_iiit_pet")
        #expect(VTABTask.named("mnist") == nil)
    }

    /// What PACE's Table 1 prints; its NOAH row says 74.2, the papers on NOAH 75.5. RepAdapter's says 76.1, and its own row gives 75.7.
    @Test(
        "Every published row gives the average that is printed beside it",
        arguments: [
            ("Full", 68.9), ("Linear", 57.6), ("VPT-Deep", 72.0), ("Adapter", 73.9), ("AdaptFormer", 74.7),
            ("LoRA", 74.5), ("NOAH", 75.5), ("RepAdapter", 75.7), ("GLoRA", 78.0), ("PACE", 79.0),
        ])
    func published(_ name: String, _ average: Double) throws {
        #expect(PublishedVTABRow.all.count == 10)
        let row = try #require(PublishedVTABRow.all.first { $0.name == name })
        #expect(row.values.count == 19)
        let averages = VTABAverages(row.accuracies)
        #expect(abs(100 * averages.ofGroups! - average) < 0.11)
    }

    @Test("A spread has the sample's deviation, and a single value none")
    func spread() throws {
        let spread = try #require(Spread([1, 2, 6]))
        #expect(spread.mean == 3 && abs(spread.deviation! - 7.0.squareRoot()) < 1e-12 && spread.count == 3)
        #expect(Spread([0.5])?.deviation == nil && Spread([0.5])?.mean == 0.5 && Spread([]) == nil)
    }

    @Test(
        "The best rate has the best accuracy, of equals the lowest loss, of those it is the first; never one that failed"
    )
    func rates() {
        func best(_ tried: (Double?, Double?)...) -> Double? {
            TriedRate.best(
                tried.enumerated().map {
                    TriedRate(rate: Double($0.offset), accuracy: $0.element.0, loss: $0.element.1)
                })
        }
        #expect(best((0.5, 1), (0.6, 9), (0.4, 0)) == 1)
        #expect(best((0.5, 1), (0.5, 0.5), (0.5, 0.7)) == 1)
        #expect(best((0.5, 1), (0.5, 1)) == 0)
        #expect(best((nil, nil), (0, 3)) == 1)
        #expect(best((nil, nil)) == nil)
    }

    @Test("A rate's folder has its fewest digits")
    func short() {
        #expect(
            [1e-3, 3e-3, 0.25, 1, 30, 1.5e-5].map(\.short) == [
                "1e-3", "3e-3", "2.5e-1", "1e0", "3e1", "1.5e-5",
            ])
        #expect(Double((0.1 + 0.2).short) == 0.1 + 0.2)
    }

    @Test("Settings differ by their names; where model and data lie makes no difference")
    func differences() throws {
        var (one, other) = (TrainingOptions(), TrainingOptions())
        other.model = "elsewhere"
        other.data = "elsewhere"
        #expect(one.differences(from: other).isEmpty)
        other.epochs = 3
        other.ranks = [8, 4]
        one.heads = 2
        #expect(
            one.differences(from: other) == [
                "`epochs` 500, not 3", "`heads` 2, not unset", "`ranks` 4, not 8,4",
            ])
    }

    @Test("The peak of memory begins anew, so that one training's is not the next one's")
    func peak() {
        let before = ResidentMemory.current
        do {
            let much = UnsafeMutableRawPointer.allocate(byteCount: 256 << 20, alignment: 4096)
            memset(much, 1, 256 << 20)
            #expect(ResidentMemory.peak > before + (200 << 20))
            much.deallocate()
        }
        ResidentMemory.resetPeak()
        #expect(ResidentMemory.peak < ResidentMemory.current + (100 << 20))
    }
}
