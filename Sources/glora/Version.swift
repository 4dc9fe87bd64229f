import CBuild
import TensorCore

/// What this program is; `glora --version --json` prints it.
struct Version: Encodable {
    let version = "0.1.0"
    /// The commit that was checked out when the build was planned, which knows nothing of changes since; nil where the sources were
    /// no Git checkout.
    let commit = String(cString: build_commit()).isEmpty ? nil : String(cString: build_commit())
    let build = Build()
    /// Those that each kind of device computes in.
    let precisions = ["cpu": [Precision.float32], "opencl": Precision.allCases]

    struct Build: Encodable {
        #if DEBUG
            let configuration = "debug"
        #else
            let configuration = "release"
        #endif
        let compiler = String(cString: build_compiler())
    }

    /// For a report: `0.1.0, commit 0123456789ab`.
    var sentence: String {
        let origin = commit.map { ", commit \($0.prefix(12))" }
        return version + (origin ?? ", of an unknown commit")
            + (build.configuration == "debug" ? ", a debug build" : "")
    }
}
