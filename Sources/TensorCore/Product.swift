/// The product of sizes that a file or a setting gave; nil when it overflows on the way, whatever comes behind.
package func product(_ sizes: [Int]) -> Int? {
    var total = 1
    for size in sizes {
        let (value, overflow) = total.multipliedReportingOverflow(by: size)
        if overflow { return nil }
        total = value
    }
    return total
}
