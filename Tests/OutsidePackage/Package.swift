// swift-tools-version: 6.3
import PackageDescription

// A package of somebody else's on top of swift-glora: what the documentation shows, built from the products' names alone. It depends on
// the folder above, or on a tagged repository where SWIFT_GLORA names one: SWIFT_GLORA=file:///clone swift build.
let repository = Context.environment["SWIFT_GLORA"]
let folder = Context.packageDirectory + "/../.."
/// SwiftPM calls a package by the last part of its place.
let name = (repository ?? String(Context.packageDirectory.dropLast("/Tests/OutsidePackage".count)))
    .split(separator: "/").last.map(String.init)!
let glora = Target.Dependency.product(name: "SwiftGLoRA", package: name)

let package = Package(
    name: "OutsidePackage",
    dependencies: [repository.map { .package(url: $0, from: "0.1.0") } ?? .package(path: folder)],
    targets: [
        .executableTarget(name: "TwentyLines", dependencies: [glora]),
        .target(name: "QueryBias", dependencies: [glora]),
        .target(name: "SiLU", dependencies: [glora]),
        .executableTarget(name: "BenchSiLU", dependencies: ["SiLU", glora]),
        .testTarget(name: "OutsideTests", dependencies: ["QueryBias", "SiLU", glora]),
    ]
)
