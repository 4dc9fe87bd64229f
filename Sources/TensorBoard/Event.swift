/// What TensorBoard's files hold, as protocol buffers: a field is its number · 8 + its wire type, and the value.
///
/// Numbers are those of event.proto, summary.proto and tensor.proto in tensorboard/compat/proto; only what is written here is.
struct Message {
    private(set) var bytes: [UInt8] = []

    /// Wire type 0: seven bits a byte, the lowest first. As protobuf's own writers do, a zero isn't written.
    mutating func add(_ field: Int, _ value: Int) {
        guard value != 0 else { return }
        addVarint(UInt64(field) << 3)
        addVarint(UInt64(bitPattern: Int64(value)))
    }

    /// Wire type 1.
    mutating func add(_ field: Int, _ value: Double) {
        addVarint(UInt64(field) << 3 | 1)
        bytes += littleEndian(value.bitPattern)
    }

    /// Wire type 5. A zero is written: a summary's value is one of several fields, and which says that it is there.
    mutating func add(_ field: Int, _ value: Float) {
        addVarint(UInt64(field) << 3 | 5)
        bytes += littleEndian(value.bitPattern)
    }

    /// Wire type 2, like the three below: length and bytes.
    mutating func add(_ field: Int, _ value: some Collection<UInt8>) {
        addVarint(UInt64(field) << 3 | 2)
        addVarint(UInt64(value.count))
        bytes += value
    }

    mutating func add(_ field: Int, _ text: String) { add(field, text.utf8) }

    mutating func add(_ field: Int, _ message: Message) { add(field, message.bytes) }

    mutating func add(_ field: Int, _ fill: (inout Message) -> Void) {
        var message = Message()
        fill(&message)
        add(field, message)
    }

    private mutating func addVarint(_ value: UInt64) {
        var rest = value
        while rest >= 0x80 {
            bytes.append(UInt8(truncatingIfNeeded: rest) | 0x80)
            rest >>= 7
        }
        bytes.append(UInt8(rest))
    }
}

/// What happened at a time, at a step.
enum Event {
    /// The first record of a file.
    case version
    /// What earlier files say of this step and of later ones no longer holds.
    case start
    case scalar(tag: String, Float)
    case image(tag: String, png: [UInt8], width: Int, height: Int)
    case text(tag: String, String)

    /// `seconds`: since 1970.
    func message(at seconds: Double, step: Int) -> Message {
        var event = Message()
        event.add(1, seconds)
        event.add(2, step)
        switch self {
        case .version: event.add(3, "brain.Event:2")
        case .start: event.add(7) { $0.add(1, 1) }
        case .scalar(let tag, let value):
            event.addValue(tag) { $0.add(2, value) }
        case .image(let tag, let png, let width, let height):
            event.addValue(tag) {
                $0.add(4) {
                    $0.add(1, height)
                    $0.add(2, width)
                    $0.add(3, 3)  // RGB
                    $0.add(4, png)
                }
            }
        case .text(let tag, let text):
            // So torch's `add_text` names and marks it, which the text plugin looks for.
            event.addValue(tag + "/text_summary") {
                $0.add(8) {
                    $0.add(1, 7)  // DT_STRING
                    $0.add(2) { $0.add(2) { $0.add(1, 1) } }  // of shape [1]
                    $0.add(8, text)
                }
                $0.add(9) { $0.add(1) { $0.add(1, "text") } }
            }
        }
        return event
    }
}

extension Message {
    /// A summary of one value.
    fileprivate mutating func addValue(_ tag: String, _ fill: (inout Message) -> Void) {
        add(5) {
            $0.add(1) {
                $0.add(1, tag)
                fill(&$0)
            }
        }
    }

    /// The record of a TFRecord file that holds this message: length (8 bytes), its check, the message, its check.
    var record: [UInt8] {
        let length = littleEndian(UInt64(bytes.count))
        return length + littleEndian(CRC32C.masked(length)) + bytes + littleEndian(CRC32C.masked(bytes))
    }
}

private func littleEndian(_ value: some FixedWidthInteger) -> [UInt8] {
    withUnsafeBytes(of: value.littleEndian) { Array($0) }
}
