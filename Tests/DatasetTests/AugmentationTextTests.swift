import Foundation
import Testing

@testable import Datasets

@Suite("Augmentations as text")
struct AugmentationTextTests {
    @Test("RandAugment's texts are read as timm reads them")
    func policies() throws {
        for record in AugmentationFixtures.expected.policies {
            let policy = try RandAugment(record.text)
            #expect(policy.layers == record.layers && policy.magnitude == record.magnitude)
            #expect(policy.probability == record.probability && policy.largest == record.largest)
            #expect(min(1000, policy.deviation > 100 ? .infinity : policy.deviation) == record.deviation)
            // Where a name is `Increasing`, a level gives another argument.
            for (index, name) in record.names.enumerated() {
                let plain = name.replacingOccurrences(of: "Increasing", with: "")
                let kind = try #require(RandAugment.Kind(rawValue: plain))
                var other = RandAugment()
                other.increases = name != plain
                #expect(
                    policy.operation(kind, level: 7, isNegated: true)
                        == other.operation(kind, level: 7, isNegated: true))
                #expect(policy.weighted == (record.weights != nil))
                if let weights = record.weights {
                    let total = RandAugment.Kind.allCases.reduce(0) { $0 + $1.weight }
                    #expect(abs(kind.weight / total - weights[index]) < 1e-12)
                }
            }
            #expect(try RandAugment("\(policy)") == policy)
        }
    }

    @Test(
        "What can't be read is refused by its name",
        arguments: [
            ("rand-x3", "'x3' isn't known"), ("rand-m9-w0", "'w0' is no longer timm's"),
            ("rand-t3a", "'t3a'"), ("rand-tnone", "'tnone' isn't known"),
            ("rand-inc2", "'inc2' needs a whole number"),
            ("rand-inc", "'inc' needs a whole number"), ("rand-m", "'m' needs a whole number"),
            ("rand-m9.5", "'m9.5' needs a whole number"), ("rand-p1.5", "'p1.5' needs a number of"),
            ("rand-m9-m8", "'m8' is the second"), ("rand--m9", "'' isn't known"),
            ("strong", "'strong' isn't known; there are none, light, fewshot"),
            ("light,flip=1", "part 'flip=1' isn't known; there are crop="),
            ("light,hflip=2", "hflip is 2.0; it must be a probability"),
            ("light,scale=1:0.5", "scale can't be '1:0.5'; write two numbers"),
            ("light,scale=0:1", "scale is 0.0...1.0; it must be above 0"),
            ("light,jitter=nan", "jitter is nan"), ("light,mixup=-1", "mixup is -1.0"),
            ("light,remode=black", "remode can't be 'black'; write const, rand, pixel"),
            ("", "'' isn't known"),
        ])
    func refusals(_ text: String, _ sentence: String) {
        let error = #expect(throws: DatasetError.self) { try Augmentation(text) }
        #expect(error?.description.contains(sentence) == true, "\(error as Any)")
    }

    @Test(
        "A text is what it says, and is written back",
        arguments: [
            "none", "light", "fewshot", "rand-m9-mstd0.5-inc1", "light,hflip=0.0", "none,hflip=0.5",
            "light,scale=0.35:1.0,ratio=0.9:1.1111111111111112", "rand,interpolation=bilinear,jitter=0.4",
            "rand-n3,crop=off,reprob=0.25,remode=rand,recount=2", "none,mixup=0.2,mixprob=0.5,mixswitch=0.25",
        ])
    func roundTrip(_ text: String) throws {
        let augmentation = try Augmentation(text)
        #expect("\(augmentation)" == text)
    }

    @Test("Members are what the names say")
    func members() throws {
        let light = try Augmentation("light")
        #expect(light.crop == RandomResizedCrop(scale: 0.5...1, ratio: 0.75...4.0 / 3))
        #expect(light.horizontalFlip == 0.5 && light.randAugment == nil && !light.mixing.isOn)
        let fewshot = try Augmentation("fewshot,cutmix=0")
        #expect(fewshot.randAugment == (try RandAugment("rand-m9-mstd0.5-inc1")))
        #expect(fewshot.crop?.scale == 0.08...1 && fewshot.interpolation == .bicubic)
        #expect(fewshot.erasing == RandomErasing(probability: 0.25, mode: .pixel, count: 1))
        #expect(fewshot.colorJitter == 0 && fewshot.mixing == BatchMixing(mixup: 0.8))
        #expect(try Augmentation("rand-m9").interpolation == .random)
    }
}
