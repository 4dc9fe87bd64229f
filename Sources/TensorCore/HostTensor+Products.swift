extension HostTensor {
    /// This vector as a matrix of one column.
    public var column: HostTensor { HostTensor(shape: [values.count, 1], values: values) }

    /// This [m, k] times another [k, n], summed in double.
    public func product(_ other: HostTensor) -> HostTensor {
        let (m, k, n) = (shape[0], shape[1], other.shape[1])
        precondition(other.shape[0] == k)
        var result = [Float](repeating: 0, count: m * n)
        var row = [Double](repeating: 0, count: n)
        for i in 0..<m {
            for j in 0..<n { row[j] = 0 }
            for l in 0..<k {
                let a = Double(values[i * k + l])
                for j in 0..<n { row[j] += a * Double(other.values[l * n + j]) }
            }
            for j in 0..<n { result[i * n + j] = Float(row[j]) }
        }
        return HostTensor(shape: [m, n], values: result)
    }

    /// The transpose of a matrix.
    public var transposed: HostTensor {
        let (rows, columns) = (shape[0], shape[1])
        var result = values
        for i in 0..<rows { for j in 0..<columns { result[j * rows + i] = values[i * columns + j] } }
        return HostTensor(shape: [columns, rows], values: result)
    }
}
