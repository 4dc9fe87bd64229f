import CFuzzer

/// What libFuzzer calls to change an input: its own changes, and now and then another number in place of one that is written in
/// digits. Readers convert, add and multiply those, and libFuzzer alone hardly ever writes one that is too large.
@_cdecl("LLVMFuzzerCustomMutator")
public func mutate(_ bytes: UnsafeMutablePointer<UInt8>, _ count: Int, _ limit: Int, _ seed: UInt32) -> Int {
    let numbers = numbers(UnsafeBufferPointer(start: bytes, count: count))
    guard seed % 4 == 0, !numbers.isEmpty else { return LLVMFuzzerMutate(bytes, count, limit) }
    let old = numbers[Int(seed >> 2) % numbers.count]
    let new = extremes[Int(seed >> 17) % extremes.count].utf8
    let changed = count - old.count + new.count
    guard changed <= limit else { return LLVMFuzzerMutate(bytes, count, limit) }
    (bytes + old.lowerBound + new.count).update(from: bytes + old.upperBound, count: count - old.upperBound)
    for (index, byte) in new.enumerated() { bytes[old.lowerBound + index] = byte }
    return changed
}

private let extremes = [
    "0", "-1", "1", "2147483648", "4294967296", "9223372036854775807", "-9223372036854775808",
    "18446744073709551615", "1e-320", "1e15", "1e19", "-1e300", "1.7976931348623157e308",
]

/// Where the input has numbers.
private func numbers(_ bytes: UnsafeBufferPointer<UInt8>) -> [Range<Int>] {
    var found: [Range<Int>] = []
    var start: Int?
    for (index, byte) in bytes.enumerated() {
        let isDigit = (0x30...0x39).contains(byte)
        if isDigit, start == nil { start = index }
        if !isDigit, byte != UInt8(ascii: "."), let from = start {
            found.append(from..<index)
            start = nil
        }
    }
    if let from = start { found.append(from..<bytes.count) }
    return found
}
