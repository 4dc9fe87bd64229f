import Foundation
import OpenCLBackend
import Testing

@Suite("The cache uses nothing that a stranger could have planted") struct CacheFolderTests {
    private func withFolder(_ body: (CacheFolder) throws -> Void) throws {
        let url = FileManager.default.temporaryDirectory.appendingPathComponent("cache-\(UUID().uuidString)")
        defer { try? FileManager.default.removeItem(at: url) }
        try body(CacheFolder(url))
    }

    @Test("The user's own files are read, replaced whole, and lie in a folder for the user alone")
    func ownFilesAreRead() throws {
        try withFolder { folder in
            #expect(folder.read("a") == nil)
            #expect(folder.write("a", Data("one".utf8)) && folder.read("a") == Data("one".utf8))
            #expect(folder.write("a", Data("two".utf8)) && folder.read("a") == Data("two".utf8))
            let names = try FileManager.default.contentsOfDirectory(atPath: folder.url.path)
            #expect(names == ["a"])
            var status = stat()
            stat(folder.url.path, &status)
            #expect(status.st_mode & 0o777 == 0o700)
        }
    }

    @Test("Files and folders that others may write to or own, links and pipes are not read")
    func strangersFilesAreNot() throws {
        try withFolder { folder in
            let path = folder.url.appendingPathComponent("a").path
            #expect(folder.write("a", Data("one".utf8)))
            for mode: mode_t in [0o777, 0o770, 0o702] {
                chmod(folder.url.path, mode)
                #expect(folder.read("a") == nil && !folder.write("b", Data()), "\(mode)")
            }
            chmod(folder.url.path, 0o700)
            chmod(path, 0o666)
            #expect(folder.read("a") == nil)
            chmod(path, 0o600)
            #expect(folder.read("a") == Data("one".utf8))
            let link = folder.url.appendingPathComponent("link").path
            #expect(symlink(path, link) == 0 && folder.read("link") == nil)
            #expect(mkfifo(folder.url.appendingPathComponent("pipe").path, 0o600) == 0)
            #expect(folder.read("pipe") == nil)
            // Only root can give files away; who isn't reads root's own folder, which is never his.
            if geteuid() == 0 {
                chown(path, 12345, 12345)
                #expect(folder.read("a") == nil)
                // It is replaced, not written through.
                #expect(folder.write("a", Data("two".utf8)) && folder.read("a") == Data("two".utf8))
                chown(folder.url.path, 12345, 12345)
                #expect(folder.read("a") == nil && !folder.write("a", Data()))
            } else {
                #expect(CacheFolder(URL(fileURLWithPath: "/etc")).read("passwd") == nil)
            }
        }
    }

    @Test("What a killed process left is removed, and what another one is writing stays")
    func leftoversAreRemoved() throws {
        try withFolder { folder in
            #expect(folder.write("a", Data()))
            var dead: pid_t = 4_000_000  // more than Linux gives on most machines
            while kill(dead, 0) == 0 { dead += 1 }
            for process in [dead, getpid()] {
                try Data().write(to: folder.url.appendingPathComponent("tmp-\(process)-7"))
            }
            #expect(folder.write("a", Data()))
            let names = try FileManager.default.contentsOfDirectory(atPath: folder.url.path)
            #expect(names.sorted() == ["a", "tmp-\(getpid())-7"])
        }
    }
}
