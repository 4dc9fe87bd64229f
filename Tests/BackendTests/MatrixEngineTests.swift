import Foundation
import Testing

@testable import OpenCLBackend

/// Engines are tried in a process of their own.
@Suite struct MatrixEngineTests {
    @Test func onlySuccessCounts() {
        func succeeds(_ script: String, within seconds: Double = 20) -> Bool? {
            MatrixEngine.succeeds(URL(fileURLWithPath: "/bin/sh"), ["-c", script], within: seconds)
        }
        #expect(succeeds("exit 0") == true)
        #expect(succeeds("exit 1") == false)
        #expect(succeeds("kill -ILL $$") == false)
        #expect(succeeds("exec sleep 30", within: 0.2) == false)
        #expect(MatrixEngine.succeeds(URL(fileURLWithPath: "/nowhere/glora"), [], within: 20) == false)
        // Whoever stopped it says nothing about the engine.
        #expect(succeeds("kill -KILL $$") == nil)
    }

    @Test func panelsHoldPairs() {
        #expect(MatrixEngine.avx512.words(5) == 3 && MatrixEngine.avx512.words(64) == 32)
        #expect(MatrixEngine.amx.words(5) == 16 && MatrixEngine.amx.words(65) == 48)
    }
}
