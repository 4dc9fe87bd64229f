import ArgumentParser
import Checkpoints
import Foundation
import Training

struct Convert: ParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Turn another method's run into the GLoRA path that computes the same function.",
        discussion: """
            LoRA, FacT, RepAdapter, BitFit and SSF on Linears are GLoRA paths. The two
            models are run beside each other on the validation images, and the largest
            difference of a logit is printed; above 1e-3 nothing is written. The
            result is an adapter in PEFT's GLoRA format.

            Example:
              glora convert --run runs/lora --to glora --output lora-as-glora
              glora convert --model vit --adapter peft-lora --data task --to glora \\
                --output lora-as-glora
            """)

    enum Target: String, CaseIterable, ExpressibleByArgument {
        case glora
    }

    @OptionGroup var source: ModelFlags
    @Option(help: "What to convert to: glora.")
    var to = Target.glora
    @Option(help: "The adapter's folder.")
    var output: String
    @Option(help: "The data set whose validation images are compared (default: the run's own).")
    var data: String?
    @OptionGroup var device: DeviceFlags
    @OptionGroup var common: CommonFlags

    struct Result: Encodable {
        let output: String
        let parameters: Int
        let maxLogitDifference: Double
        let comparedImages: Int
    }

    func run() throws {
        let console = common.console
        let folder = URL(fileURLWithPath: output)
        let lock = try FolderLock.output(folder, console)
        defer { lock.release() }
        try device.requireFloat32()
        let ready = try source.open(device, console)
        let converted = try gloraAdapter(of: ready, on: try comparedImages(ready, data, console))
        console.say(
            "as GLoRA against \(ready.options.method.rawValue): logits differ by at most "
                + "\(String(format: "%.2e", converted.difference.largest)) over "
                + "\(converted.difference.imageCount) images")
        try converted.difference.check()
        try PEFTAdapter.save(
            converted.adapter, to: folder, names: ready.model.adapterNames, extra: ready.adapterExtra)
        let count = converted.model.parameterCount
        console.say("wrote \(output): \(count.grouped) parameters on its paths")
        try console.result(
            Result(
                output: output, parameters: count, maxLogitDifference: converted.difference.largest,
                comparedImages: converted.difference.imageCount),
            schema: "glora.convert/1")
    }
}
