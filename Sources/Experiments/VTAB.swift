/// A task of VTAB-1K: its folder, its group, and its column in the papers' tables.
public struct VTABTask: Hashable, Sendable {
    /// The three groups.
    public enum Group: String, CaseIterable, Codable, Sendable {
        /// Photographs of things.
        case natural
        /// Pictures of special devices.
        case specialized
        /// Rendered scenes and their geometry.
        case structured
    }

    /// The folder, as NOAH's script writes it.
    public let name: String
    /// Its column.
    public let shortName: String
    /// Its group.
    public let group: Group

    /// All 19 in the papers' order.
    public static let all: [VTABTask] = [
        ("cifar", "Cifar", Group.natural), ("caltech101", "Calt", .natural), ("dtd", "DTD", .natural),
        ("oxford_flowers102", "Flow", .natural), ("oxford_iiit_pet", "Pets", .natural),
        ("svhn", "SVHN", .natural), ("sun397", "Sun", .natural),
        ("patch_camelyon", "Came", .specialized), ("eurosat", "EuroS", .specialized),
        ("resisc45", "Resi", .specialized), ("diabetic_retinopathy", "Retin", .specialized),
        ("clevr_count", "ClevrC", .structured), ("clevr_dist", "ClevrD", .structured),
        ("dmlab", "DMLab", .structured), ("kitti", "KITTI", .structured),
        ("dsprites_loc", "dSprL", .structured), ("dsprites_ori", "dSprO", .structured),
        ("smallnorb_azi", "sNOazi", .structured), ("smallnorb_ele", "sNOele", .structured),
    ].map { VTABTask(name: $0, shortName: $1, group: $2) }

    /// The task of a name, its folder's or one of the scripts' other ones; nil for another word.
    public static func named(_ name: String) -> VTABTask? {
        let aliases = [
            "cifar100": "cifar", "oxford_pet": "oxford_iiit_pet", "oxford_flowers": "oxford_flowers102",
        ]
        return all.first { $0.name == aliases[name] ?? name }
    }
}

/// The averages of a row of VTAB-1K's table. Each needs all of its tasks: a mean over some would look like one over all.
public struct VTABAverages: Codable, Equatable, Sendable {
    /// Of the seven natural tasks.
    public let natural: Double?
    /// Of the four specialized ones.
    public let specialized: Double?
    /// Of the eight structured ones.
    public let structured: Double?
    /// The mean of the three group means, which papers print.
    public let ofGroups: Double?
    /// The mean of the 19 tasks.
    public let ofTasks: Double?
    /// The mean of the tasks that are there, however few.
    public let ofThose: Double?

    /// Of accuracies by task.
    public init(_ accuracies: [VTABTask: Double]) {
        func mean(_ tasks: [VTABTask]) -> Double? {
            let values = tasks.compactMap { accuracies[$0] }
            return values.count == tasks.count && !values.isEmpty
                ? values.reduce(0, +) / Double(values.count) : nil
        }
        func mean(_ group: VTABTask.Group) -> Double? { mean(VTABTask.all.filter { $0.group == group }) }
        (natural, specialized, structured) = (mean(.natural), mean(.specialized), mean(.structured))
        ofTasks = mean(VTABTask.all)
        ofThose = mean(VTABTask.all.filter { accuracies[$0] != nil })
        ofGroups =
            if let natural, let specialized, let structured {
                (natural + specialized + structured) / 3
            } else { nil }
    }
}

/// A published row of VTAB-1K: ViT-B/16 pretrained on ImageNet-21k, top-1 accuracy in per cent.
///
/// Source: PACE, Table 1. The average that it prints for NOAH, 74.2, is not the mean of its row's group means, 75.5.
public struct PublishedVTABRow: Sendable {
    /// The method as the table calls it.
    public let name: String
    /// [19] in the order of `VTABTask.all`.
    public let values: [Double]

    /// By task, 0 to 1.
    public var accuracies: [VTABTask: Double] {
        Dictionary(uniqueKeysWithValues: zip(VTABTask.all, values.map { $0 / 100 }))
    }

    /// The table.
    public static let all: [PublishedVTABRow] = [
        .init(
            name: "Full",
            values: [
                68.9, 87.7, 64.3, 97.3, 86.9, 87.4, 38.8, 79.7, 95.7, 84.2, 73.9,
                56.3, 58.6, 41.7, 65.5, 57.5, 46.7, 25.7, 29.1,
            ]),
        .init(
            name: "Linear",
            values: [
                64.4, 85.0, 63.2, 97.0, 86.3, 36.6, 51.0, 78.5, 87.5, 68.5, 74.0,
                34.3, 30.6, 33.2, 55.4, 12.5, 20.0, 9.6, 19.2,
            ]),
        .init(
            name: "VPT-Deep",
            values: [
                78.8, 90.8, 65.8, 98.0, 88.3, 78.1, 49.6, 81.8, 96.1, 83.4, 68.4,
                68.5, 60.0, 46.5, 72.8, 73.6, 47.9, 32.9, 37.8,
            ]),
        .init(
            name: "Adapter",
            values: [
                69.2, 90.1, 68.0, 98.8, 89.9, 82.8, 54.3, 84.0, 94.9, 81.9, 75.5,
                80.9, 65.3, 48.6, 78.3, 74.8, 48.5, 29.9, 41.6,
            ]),
        .init(
            name: "AdaptFormer",
            values: [
                70.8, 91.2, 70.5, 99.1, 90.9, 86.6, 54.8, 83.0, 95.8, 84.4, 76.3,
                81.9, 64.3, 49.3, 80.3, 76.3, 45.7, 31.7, 41.1,
            ]),
        .init(
            name: "LoRA",
            values: [
                67.1, 91.4, 69.4, 98.8, 90.4, 85.3, 54.0, 84.9, 95.3, 84.4, 73.6,
                82.9, 69.2, 49.8, 78.5, 75.7, 47.1, 31.0, 44.0,
            ]),
        .init(
            name: "NOAH",
            values: [
                69.6, 92.7, 70.2, 99.1, 90.4, 86.1, 53.7, 84.4, 95.4, 83.9, 75.8,
                82.8, 68.9, 49.9, 81.7, 81.8, 48.3, 32.8, 44.2,
            ]),
        .init(
            name: "RepAdapter",
            values: [
                69.0, 92.6, 75.1, 99.4, 91.8, 90.2, 52.9, 87.4, 95.9, 87.4, 75.5,
                75.9, 62.3, 53.3, 80.6, 77.3, 54.9, 29.5, 37.9,
            ]),
        .init(
            name: "GLoRA",
            values: [
                76.4, 92.9, 74.6, 99.6, 92.5, 91.5, 57.8, 87.3, 96.8, 88.0, 76.0,
                83.1, 67.3, 54.5, 86.2, 83.8, 52.9, 37.0, 41.4,
            ]),
        .init(
            name: "PACE",
            values: [
                79.0, 94.2, 73.6, 99.4, 92.4, 93.7, 58.0, 87.4, 96.4, 89.3, 77.1,
                84.9, 70.9, 54.9, 84.3, 84.7, 57.3, 39.3, 44.8,
            ]),
    ]
}
