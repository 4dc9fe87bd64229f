import Foundation
import Testing

@testable import Checkpoints

/// Class names are read where a file has them and written with the head.
@Suite("The names of a model's classes")
struct ClassNameTests {
    func huggingFace(_ json: String) throws -> (names: [String]?, notes: [String]) {
        var notes: [String] = []
        let config = try JSONValue(parsing: json.utf8)
        return (try ClassNames.huggingFace(config, count: 3, path: "c.json", notes: &notes), notes)
    }

    @Test("Hugging Face's id2label names the classes in their order")
    func id2labelNamesTheClasses() throws {
        let named = try huggingFace(
            #"{"id2label": {"2": "cat", "0": "emu", "1": "dog"}, "label2id": {"cat": "2", "dog": 1, "emu": 0}}"#
        )
        #expect(named.names == ["emu", "dog", "cat"])
        #expect(named.notes == [])
        #expect(
            try huggingFace(#"{"id2label": {"0": "LABEL_0", "1": "LABEL_1", "2": "LABEL_2"}}"#).names == nil)
        #expect(try huggingFace("{}").names == nil)
        // Two classes may share a name, of which label2id holds one; numbers are names too.
        #expect(
            try huggingFace(
                #"{"id2label": {"0": "crane", "1": "crane", "2": 7}, "label2id": {"crane": 1, "7": 2}}"#)
                == (["crane", "crane", "7"], []))
        let contradicted = try huggingFace(
            #"{"id2label": {"0": "a", "1": "b", "2": "c"}, "label2id": {"a": 1, "b": 0, "c": 2}}"#)
        #expect(contradicted.names == ["a", "b", "c"])
        #expect(contradicted.notes.first?.contains("label2id says that 'a' is 1") == true)
    }

    @Test(
        "Names that don't fit the head are refused",
        arguments: [
            (#"{"0": "a", "1": "b"}"#, "names 2 classes, but the head has 3"),
            (#"{"0": "a", "1": "b", "3": "c"}"#, "key '3'"),
            (#"{"0": "a", "1": "b", "x": "c"}"#, "key 'x'"),
            (#"{"0": "a", "1": "b", "01": "c"}"#, "no class"), (#"{"0": "a", "1": "b", "2": []}"#, "no name"),
            (#""abc""#, "neither a list nor an object"),
        ])
    func namesThatDontFitTheHeadAreRefused(_ labels: String, _ part: String) throws {
        expectError(part) { _ = try huggingFace("{\"id2label\": \(labels)}") }
        expectError(part) {
            let config = try JSONValue(parsing: "{\"label_names\": \(labels)}".utf8)
            _ = try ClassNames.timm(config, count: 3, path: "c.json")
        }
    }

    @Test(
        "Names are read from all places where timm puts them",
        arguments: [
            #"{"label_names": ["a", "b", "c"], "pretrained_cfg": {"label_names": ["x"]}}"#,
            #"{"label_names": {"1": "b", "0": "a", "2": "c"}}"#,
            #"{"pretrained_cfg": {"label_names": ["a", "b", "c"]}}"#,
            #"{"labels": ["a", "b", "c"]}"#,
        ])
    func timmsPlacesForNamesAreRead(_ json: String) throws {
        let names = try ClassNames.timm(JSONValue(parsing: json.utf8), count: 3, path: "c.json")
        #expect(names == ["a", "b", "c"])
        let generic = try JSONValue(parsing: #"{"label_names": ["LABEL_0", "LABEL_1", "LABEL_2"]}"#.utf8)
        #expect(try ClassNames.timm(generic, count: 3, path: "c.json") == nil)
    }

    @Test("Names are written with the head and dropped with it")
    func namesAreWrittenAndDroppedWithTheHead() throws {
        try withTemporaryFolder { folder in
            var checkpoint = try ViTCheckpoint.load(fixture("timm"))
            #expect(checkpoint.classNames == nil)
            checkpoint.classNames = ["cat", "\"dog\"", "crane", "emu", "crane"]
            let hf = folder.appendingPathComponent("hf")
            try checkpoint.saveHuggingFace(to: hf)
            #expect(try ViTCheckpoint.load(hf).classNames == checkpoint.classNames)
            #expect(try ViTCheckpoint.load(hf).notes == [])
            for place in ["timm", "timm.safetensors"] {
                let url = folder.appendingPathComponent(place)
                try checkpoint.saveTimm(to: url)
                #expect(try ViTCheckpoint.load(url).classNames == checkpoint.classNames)
            }
            #expect(checkpoint.withoutHead().classNames == nil)
            #expect(checkpoint.withHead(weight: numbers([5, 24]), bias: numbers([5])).classNames == nil)
            try checkpoint.withoutHead().saveHuggingFace(to: hf)
            #expect(try ViTCheckpoint.load(hf).classNames == nil)
            checkpoint.classNames = ["cat"]
            expectError("5 classes, but 1 names") { try checkpoint.saveTimm(to: hf) }
            expectError("5 classes, but 1 names") { try checkpoint.saveHuggingFace(to: hf) }
        }
    }
}
