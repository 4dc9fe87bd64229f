import CFuzzer
import Foundation

// Fuzzing list                      the targets' names
// Fuzzing seeds TARGET FOLDER       writes the target's valid inputs, and reads them
// Fuzzing TARGET …                  runs libFuzzer with its own arguments; a file in place of a folder is run alone

let words = Array(CommandLine.arguments.dropFirst())
if words == ["list"] {
    for target in Target.all { print(target.name) }
    exit(0)
}
let target = Target.named(words.first == "seeds" ? words[1] : words.first ?? "")
if words.first == "seeds" {
    for (index, seed) in try target.seeds().enumerated() {
        do { try target.run(Input(bytes: seed)) } catch {
            print("seed \(index) of \(target.name) is refused: \(error)")
            exit(1)
        }
        try Data(seed).write(to: URL(fileURLWithPath: "\(words[2])/seed-\(index)"))
    }
    exit(0)
}

// libFuzzer reads its flags behind the program's name, which stands where the target's does.
var count = CommandLine.argc - 1
var arguments: UnsafeMutablePointer<UnsafeMutablePointer<CChar>?>? = CommandLine.unsafeArgv + 1
exit(
    LLVMFuzzerRunDriver(&count, &arguments) { bytes, count in
        // What a reader refuses, it throws; a trap, a sanitizer's report or the clock is what is looked for.
        try? target.run(Input(bytes: Array(UnsafeBufferPointer(start: bytes, count: count))))
        return 0
    })
