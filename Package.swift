// swift-tools-version: 6.3
import PackageDescription

/// Of tests that have no loops of their own to wait for.
let unoptimised: [SwiftSetting] = [.unsafeFlags(["-Onone"])]

let package = Package(
    name: "swift-glora",
    products: [
        .executable(name: "glora", targets: ["glora"]),
        // All of the library by one import, or its parts: each brings those below it.
        .library(name: "SwiftGLoRA", targets: ["SwiftGLoRA"]),
        .library(name: "TensorCore", targets: ["TensorCore"]),
        .library(name: "CPUBackend", targets: ["CPUBackend"]),
        .library(name: "OpenCLBackend", targets: ["OpenCLBackend"]),
        .library(name: "Adapters", targets: ["Adapters"]),
        .library(name: "Datasets", targets: ["Datasets"]),
        .library(name: "TensorBoard", targets: ["TensorBoard"]),
        .library(name: "Checkpoints", targets: ["Checkpoints"]),
        .library(name: "VisionModels", targets: ["VisionModels", "Transformers", "ModelConfiguration"]),
        .library(name: "Training", targets: ["Training"]),
        .library(name: "SupernetSearch", targets: ["SupernetSearch", "ArchitectureSearch"]),
    ],
    dependencies: [
        .package(url: "https://github.com/apple/swift-argument-parser", from: "1.8.2"),
        .package(url: "https://github.com/jpsim/Yams", from: "6.2.2"),
        // swift package generate-documentation
        .package(url: "https://github.com/swiftlang/swift-docc-plugin", from: "1.5.0"),
    ],
    targets: [
        // Lowest first; an arrow in the graph points only upwards in this list.
        .systemLibrary(name: "COpenCL"),
        .systemLibrary(name: "CCLBlast"),
        .systemLibrary(name: "CTurboJPEG"),
        .systemLibrary(name: "CZlib"),
        .systemLibrary(name: "COpenSSL"),
        .target(name: "CImageShim", linkerSettings: [.linkedLibrary("png16")]),
        .target(name: "CKernels"),
        .target(name: "CProcessor"),
        .target(name: "CEmbedded", exclude: ["Golden", "Model"]),
        .target(
            name: "CBuild",
            cSettings: [
                .define("GLORA_COMMIT", to: "\"\(Context.gitInformation?.currentCommit ?? "")\"")
            ]),
        .target(
            name: "TensorCore",
            dependencies: ["CProcessor", "COpenSSL"]),
        .target(name: "COpenBLAS"),
        .target(name: "CLoops"),
        .target(name: "CPUBackend", dependencies: ["TensorCore", "COpenBLAS", "CLoops", "CProcessor"]),
        .target(
            name: "OpenCLBackend",
            dependencies: ["TensorCore", "COpenCL", "CCLBlast", "CKernels", "CProcessor"]),
        .target(name: "Adapters", dependencies: ["TensorCore"]),
        .target(name: "ArchitectureSearch", dependencies: ["TensorCore", "Adapters"]),
        .target(name: "Datasets", dependencies: ["TensorCore", "CTurboJPEG", "CImageShim"]),
        .target(name: "TensorBoard"),
        .target(name: "ModelConfiguration", dependencies: ["TensorCore", "Adapters", "Datasets"]),
        .target(
            name: "Checkpoints",
            dependencies: ["TensorCore", "Adapters", "Datasets", "ModelConfiguration", "CZlib"]),
        .target(name: "GeneratedTasks", dependencies: ["TensorCore", "Datasets"]),
        .target(name: "Transformers", dependencies: ["TensorCore", "Adapters"]),
        .target(
            name: "VisionModels",
            dependencies: [
                "TensorCore", "Adapters", "Transformers", "Datasets", "ModelConfiguration", "Checkpoints",
            ]),
        .target(
            name: "Training",
            dependencies: [
                "TensorCore", "Adapters", "Transformers", "Datasets", "ModelConfiguration", "Checkpoints",
                "VisionModels", "TensorBoard", "Yams",
            ]),
        .target(
            name: "SupernetSearch",
            dependencies: [
                "TensorCore", "Adapters", "ArchitectureSearch", "Transformers", "Checkpoints", "VisionModels",
                "Training",
            ]),
        .target(
            name: "SwiftGLoRA",
            dependencies: [
                "TensorCore", "CPUBackend", "OpenCLBackend", "Adapters", "ArchitectureSearch", "Datasets",
                "TensorBoard", "ModelConfiguration", "Checkpoints", "Transformers", "VisionModels",
                "Training", "SupernetSearch",
            ]),
        .target(
            name: "Experiments",
            dependencies: [
                "TensorCore", "Adapters", "ArchitectureSearch", "Transformers", "Datasets",
                "ModelConfiguration", "Checkpoints", "VisionModels", "Training", "SupernetSearch", "Yams",
            ]),
        .target(
            name: "GoldenVectors",
            dependencies: [
                "TensorCore", "Adapters", "ArchitectureSearch", "Transformers", "ModelConfiguration",
                "Checkpoints", "VisionModels", "Training", "CEmbedded",
            ]),
        .executableTarget(
            name: "glora",
            dependencies: [
                "CBuild", "CProcessor", "TensorCore", "CPUBackend", "OpenCLBackend", "Adapters",
                "ArchitectureSearch", "Datasets", "Transformers", "ModelConfiguration", "Checkpoints",
                "GeneratedTasks", "VisionModels", "Training", "SupernetSearch", "SwiftGLoRA", "Experiments",
                "GoldenVectors", "CEmbedded", "Yams",
                .product(name: "ArgumentParser", package: "swift-argument-parser"),
            ]),
        .target(
            name: "TestSupport",
            dependencies: ["TensorCore", "CPUBackend", "OpenCLBackend", "ModelConfiguration"],
            path: "Tests/TestSupport"),
        .testTarget(
            name: "BackendTests",
            dependencies: [
                "TestSupport", "TensorCore", "CPUBackend", "OpenCLBackend", "COpenCL", "CCLBlast",
            ]),
        .testTarget(
            name: "CheckpointTests",
            dependencies: [
                "TestSupport", "TensorCore", "Adapters", "Datasets", "ModelConfiguration", "Checkpoints",
                "CZlib",
            ],
            exclude: ["Fixtures"],
            swiftSettings: unoptimised),
        .testTarget(
            name: "DatasetTests", dependencies: ["TensorCore", "Datasets", "GeneratedTasks"],
            exclude: ["Fixtures"],
            swiftSettings: unoptimised),
        .testTarget(
            name: "TensorBoardTests", dependencies: ["Datasets", "TensorBoard"],
            exclude: ["Fixtures"],
            swiftSettings: unoptimised),
        .testTarget(name: "AdapterTests", dependencies: ["TestSupport", "TensorCore", "Adapters"]),
        .testTarget(
            name: "SearchTests", dependencies: ["TensorCore", "Adapters", "ArchitectureSearch"],
            swiftSettings: unoptimised),
        .testTarget(
            name: "ModelTests",
            dependencies: [
                "TestSupport", "TensorCore", "CPUBackend", "OpenCLBackend", "Adapters", "Transformers",
                "ModelConfiguration", "Checkpoints", "VisionModels", "Training", "GoldenVectors", "CEmbedded",
            ]),
        .testTarget(
            name: "TrainingTests",
            dependencies: [
                "TestSupport", "TensorCore", "CPUBackend", "OpenCLBackend", "Adapters", "ArchitectureSearch",
                "Datasets", "ModelConfiguration", "Checkpoints", "Transformers", "VisionModels", "Training",
                "SupernetSearch", "Experiments",
            ],
            swiftSettings: unoptimised),
        .testTarget(
            name: "CommandTests",
            dependencies: ["TensorCore", "Datasets", "ModelConfiguration", "Checkpoints"],
            swiftSettings: unoptimised),
    ]
)

// Scripts/fuzz alone builds it: it needs libFuzzer's runtime and instrumented code.
if Context.environment["GLORA_FUZZ"] != nil {
    package.targets += [
        .systemLibrary(name: "CFuzzer", path: "Tests/Fuzzing/CFuzzer"),
        .executableTarget(
            name: "Fuzzing",
            dependencies: [
                "CFuzzer", "CZlib", "TensorCore", "CPUBackend", "OpenCLBackend", "Adapters",
                "ArchitectureSearch", "Datasets", "ModelConfiguration", "Checkpoints", "VisionModels",
                "Training", "SupernetSearch", "Yams",
                .product(name: "ArgumentParser", package: "swift-argument-parser"),
            ],
            path: "Tests/Fuzzing/Targets",
            // libFuzzer is written in C++.
            linkerSettings: [.linkedLibrary("stdc++")]),
    ]
}
