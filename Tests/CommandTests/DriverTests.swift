import Foundation
import Testing

@Suite("Drivers that fail")
struct DriverTests {
    /// Lets launches of kernels fail after so many; OpenCL's loader gets those before.
    private static let shim = """
        #define _GNU_SOURCE
        #include <dlfcn.h>
        #include <stdlib.h>
        int clEnqueueNDRangeKernel(
            void *queue, void *kernel, unsigned dimensions, const size_t *offset, const size_t *global,
            const size_t *local, unsigned count, const void *events, void *event) {
            static long launches;
            int (*next)(void *, void *, unsigned, const size_t *, const size_t *, const size_t *, unsigned,
                const void *, void *) = dlsym(RTLD_NEXT, "clEnqueueNDRangeKernel");
            if (++launches > atol(getenv("FAIL_AFTER"))) return atoi(getenv("FAIL_WITH"));
            return next(queue, kernel, dimensions, offset, global, local, count, events, event);
        }

        """

    /// Compiles C to a library for LD_PRELOAD; its path.
    static func library(_ source: String, in folder: URL) throws -> String {
        try folder.write("shim.c", source)
        let compiler = Process()
        compiler.executableURL = URL(fileURLWithPath: "/usr/bin/env")
        compiler.arguments = ["cc", "-shared", "-fPIC", "-o", "shim.so", "shim.c"]
        compiler.currentDirectoryURL = folder
        try compiler.run()
        compiler.waitUntilExit()
        try #require(compiler.terminationStatus == 0)
        return folder.appendingPathComponent("shim.so").path
    }

    @Test("A launch that fails ends a command with one sentence, the state that is kept, and how to go on")
    func failingLaunches() throws {
        try Fixture.withFolder { folder in
            let library = try DriverTests.library(DriverTests.shim, in: folder)
            func environment(_ launches: Int, _ status: Int) -> [String: String] {
                ["LD_PRELOAD": library, "FAIL_AFTER": "\(launches)", "FAIL_WITH": "\(status)"]
            }
            let train = Fixture.train("new", "--device", "opencl:0")
            // Four steps an epoch, about 300 launches each.
            let outcome = try Glora.refuse(
                train, in: folder,
                saying: [
                    "opencl:0", "ran out of memory", "CL_MEM_OBJECT_ALLOCATION_FAILURE (-4)", "--batch-size",
                    "the state after step 4 is kept in", "new/last.safetensors", "new --resume`",
                ], environment: environment(1600, -4))
            #expect(outcome.signal == nil)
            try Glora.succeed(["train", "--run", "new", "--resume", "--device", "opencl:0"], in: folder)
            for arguments in [
                ["eval", "--run", "run", "--split", "test", "--json"], ["selftest"],
                ["merge", "--run", "run", "--output", "merged"],
                ["bench", "gemm", "--model", "vit_tiny_patch16_224", "--batch", "1", "--json"],
            ] {
                let lost = try Glora.refuse(
                    arguments + ["--device", "opencl:0"], in: folder,
                    saying: ["was lost", "CL_INVALID_COMMAND_QUEUE (-36)"], environment: environment(1, -36))
                #expect(!lost.output.contains("\"") && !lost.output.contains("%"), "\(lost.output)")
            }
            #expect(!FileManager.default.fileExists(atPath: folder.appendingPathComponent("merged").path))
        }
    }

    @Test("A platform without a device is no missing platform")
    func noDevice() throws {
        try Fixture.withFolder { folder in
            // A file where PoCL wants its cache folder: it offers no device then.
            let outcome = try Glora.succeed(
                ["devices"], in: folder,
                environment: [
                    "OCL_ICD_VENDORS": "/etc/OpenCL/vendors/pocl.icd",
                    "POCL_CACHE_DIR": folder.appendingPathComponent("model/config.json/cache").path,
                ])
            #expect(outcome.errors.contains("Portable Computing Language: CL_DEVICE_NOT_FOUND (-1)"))
            #expect(outcome.errors.contains("$POCL_CACHE_DIR") && !outcome.errors.contains("install your"))
        }
    }
}
