import SwiftGLoRA

/// A third backend: every operation is counted by its name and handed to another backend, whose buffers it uses as its own.
///
/// What it doesn't have are `linear`, `linearBackward` and `prepared`, which the contract makes of the others.
protocol CountingBackend: Backend {
    /// Where the operations are computed.
    var inner: any Backend { get }
    /// How often each operation was called.
    var counts: [String: Int] { get set }
}

/// What a backend may begin with: the three operations that needn't be there aren't.
final class SmallBackend: CountingBackend {
    let inner: any Backend
    var counts: [String: Int] = [:]

    init(_ inner: any Backend) { self.inner = inner }
}

/// All of the contract.
final class WholeBackend: CountingBackend {
    let inner: any Backend
    var counts: [String: Int] = [:]

    init(_ inner: any Backend) { self.inner = inner }

    func linear(
        _ y: Tensor?, _ x: Tensor, _ weight: LinearWeight, _ epilogue: Epilogue, rows: Int, outputs: Int,
        inputs: Int
    ) {
        count()
        inner.linear(y, x, weight, epilogue, rows: rows, outputs: outputs, inputs: inputs)
    }

    func linearBackward(
        _ dx: Tensor, _ dy: Tensor, _ weight: LinearWeight, rows: Int, outputs: Int, inputs: Int
    ) {
        count()
        inner.linearBackward(dx, dy, weight, rows: rows, outputs: outputs, inputs: inputs)
    }

    func prepared(_ weight: LinearWeight) throws -> LinearWeight {
        count()
        return try inner.prepared(weight)
    }
}

extension CountingBackend {
    /// Counts the operation that calls it: the name before the bracket.
    fileprivate func count(_ operation: String = #function) {
        counts[String(operation.prefix { $0 != "(" }), default: 0] += 1
    }

    // MARK: Identity and memory

    var name: String { "\(inner.name), counted" }
    var memoryByteCount: Int { inner.memoryByteCount }
    var largestBufferByteCount: Int { inner.largestBufferByteCount }
    var precision: Precision { inner.precision }
    var productParts: Int? { inner.productParts }

    func makeBuffer(byteCount: Int) throws -> any Buffer { try inner.makeBuffer(byteCount: byteCount) }
    func makeBuffer(partOf tensor: Tensor, byteOffset: Int, byteCount: Int) throws -> any Buffer {
        try inner.makeBuffer(partOf: tensor, byteOffset: byteOffset, byteCount: byteCount)
    }
    func upload(_ tensor: Tensor, from source: UnsafeRawPointer) { inner.upload(tensor, from: source) }
    func download(_ destination: UnsafeMutableRawPointer, from tensor: Tensor) {
        inner.download(destination, from: tensor)
    }
    func synchronize() { inner.synchronize() }
    func checkForFailure() throws { try inner.checkForFailure() }
    func fill(_ out: Tensor, _ value: Float, count n: Int) {
        count()
        inner.fill(out, value, count: n)
    }
    func copy(_ out: Tensor, _ x: Tensor, count n: Int) {
        count()
        inner.copy(out, x, count: n)
    }

    // MARK: Matrices

    func matmul(
        _ c: Tensor, _ a: Tensor, _ b: Tensor, transposeA: Bool, transposeB: Bool, accumulate: Bool,
        m: Int, n: Int, k: Int
    ) {
        count()
        inner.matmul(
            c, a, b, transposeA: transposeA, transposeB: transposeB, accumulate: accumulate, m: m, n: n, k: k)
    }
    func finish(_ y: Tensor?, _ z: Tensor, _ epilogue: Epilogue, rows: Int, outputs: Int) {
        count()
        inner.finish(y, z, epilogue, rows: rows, outputs: outputs)
    }
    func sumRows(_ out: Tensor, _ x: Tensor, accumulate: Bool, rows: Int, columns: Int) {
        count()
        inner.sumRows(out, x, accumulate: accumulate, rows: rows, columns: columns)
    }

    // MARK: GLoRA

    func gloraWeight(
        _ weight: Tensor, _ frozen: Tensor, _ a: MatrixTerm, _ b: MatrixTerm, outputs: Int, inputs: Int
    ) {
        count()
        inner.gloraWeight(weight, frozen, a, b, outputs: outputs, inputs: inputs)
    }
    func gloraWeightBackward(
        _ a: MatrixTerm, _ b: MatrixTerm, _ scratch: Tensor, _ dy: Tensor, _ x: Tensor, _ frozen: Tensor,
        rows: Int, outputs: Int, inputs: Int
    ) {
        count()
        inner.gloraWeightBackward(a, b, scratch, dy, x, frozen, rows: rows, outputs: outputs, inputs: inputs)
    }
    func gloraProject(_ t: Tensor, _ x: Tensor, _ b: MatrixTerm, rows: Int, inputs: Int) {
        count()
        inner.gloraProject(t, x, b, rows: rows, inputs: inputs)
    }
    func gloraOutputBackward(
        _ dBias: Tensor, _ a: MatrixTerm?, _ b: MatrixTerm?, _ dy: Tensor, _ z: Tensor?, _ t: Tensor?,
        rows: Int, outputs: Int
    ) {
        count()
        inner.gloraOutputBackward(dBias, a, b, dy, z, t, rows: rows, outputs: outputs)
    }
    func gloraProjectBackward(
        _ u: Tensor, _ b: MatrixTerm, _ dy: Tensor, _ x: Tensor, rows: Int, outputs: Int, inputs: Int
    ) {
        count()
        inner.gloraProjectBackward(u, b, dy, x, rows: rows, outputs: outputs, inputs: inputs)
    }
    func gloraBias(
        _ bias: Tensor, _ prompt: Tensor, _ frozen: Tensor, _ frozenBias: Tensor?,
        _ c: PromptTerm, _ d: ScaleTerm, _ e: ScaleTerm, outputs: Int, inputs: Int
    ) {
        count()
        inner.gloraBias(bias, prompt, frozen, frozenBias, c, d, e, outputs: outputs, inputs: inputs)
    }
    func gloraBiasBackward(
        _ c: PromptTerm, _ d: ScaleTerm, _ e: ScaleTerm,
        _ dPrompt: Tensor, _ dBias: Tensor, _ frozen: Tensor, _ frozenBias: Tensor?, outputs: Int, inputs: Int
    ) {
        count()
        inner.gloraBiasBackward(
            c, d, e, dPrompt, dBias, frozen, frozenBias, outputs: outputs, inputs: inputs)
    }

    // MARK: Transformer

    func extractPatches(
        _ patches: Tensor, _ images: Tensor, patchSize: Int, batch: Int, channels: Int, height: Int,
        width: Int
    ) {
        count()
        inner.extractPatches(
            patches, images, patchSize: patchSize, batch: batch, channels: channels, height: height,
            width: width)
    }
    func embedTokens(
        _ tokens: Tensor, _ projected: Tensor, _ prefix: Tensor?, _ positions: Tensor?, _ sizes: TokenSizes
    ) {
        count()
        inner.embedTokens(tokens, projected, prefix, positions, sizes)
    }
    func embedTokensBackward(
        _ dProjected: Tensor, _ dPrefix: Tensor?, _ dPositions: Tensor?, _ dTokens: Tensor,
        _ sizes: TokenSizes
    ) {
        count()
        inner.embedTokensBackward(dProjected, dPrefix, dPositions, dTokens, sizes)
    }
    func layerNorm(
        _ y: Tensor, _ mean: Tensor, _ rstd: Tensor,
        _ x: Tensor, _ weight: Tensor, _ bias: Tensor, epsilon: Float, rows: Int, columns: Int
    ) {
        count()
        inner.layerNorm(y, mean, rstd, x, weight, bias, epsilon: epsilon, rows: rows, columns: columns)
    }
    func layerNormBackward(
        _ dx: Tensor, _ dWeight: Tensor?, _ dBias: Tensor?,
        _ dy: Tensor, _ x: Tensor, _ mean: Tensor, _ rstd: Tensor, _ weight: Tensor, accumulate: Bool,
        rows: Int, columns: Int
    ) {
        count()
        inner.layerNormBackward(
            dx, dWeight, dBias, dy, x, mean, rstd, weight, accumulate: accumulate, rows: rows,
            columns: columns)
    }
    func rmsNorm(
        _ y: Tensor, _ rstd: Tensor, _ x: Tensor, _ weight: Tensor, epsilon: Float, rows: Int, columns: Int
    ) {
        count()
        inner.rmsNorm(y, rstd, x, weight, epsilon: epsilon, rows: rows, columns: columns)
    }
    func rmsNormBackward(
        _ dx: Tensor, _ dWeight: Tensor?, _ dy: Tensor, _ x: Tensor, _ rstd: Tensor, _ weight: Tensor,
        accumulate: Bool, rows: Int, columns: Int
    ) {
        count()
        inner.rmsNormBackward(
            dx, dWeight, dy, x, rstd, weight, accumulate: accumulate, rows: rows, columns: columns)
    }
    func rotate(
        _ x: MatrixBlock, positions: Tensor, cosines: Tensor, sines: Tensor, layout: RotaryLayout,
        inverse: Bool, _ sizes: RotarySizes
    ) {
        count()
        inner.rotate(
            x, positions: positions, cosines: cosines, sines: sines, layout: layout, inverse: inverse, sizes)
    }
    func gate(
        _ y: Tensor, _ a: MatrixBlock, _ b: MatrixBlock, _ activation: Activation, rows: Int, columns: Int
    ) {
        count()
        inner.gate(y, a, b, activation, rows: rows, columns: columns)
    }
    func gateBackward(
        _ dA: MatrixBlock, _ dB: MatrixBlock, _ dy: Tensor, _ a: MatrixBlock, _ b: MatrixBlock,
        _ activation: Activation, rows: Int, columns: Int
    ) {
        count()
        inner.gateBackward(dA, dB, dy, a, b, activation, rows: rows, columns: columns)
    }
    func attention(
        _ out: Tensor, _ logSumExp: Tensor, queries: TokenBlock, keys: TokenBlock, values: TokenBlock,
        _ sizes: AttentionSizes
    ) {
        count()
        inner.attention(out, logSumExp, queries: queries, keys: keys, values: values, sizes)
    }
    func attentionBackward(
        _ dQueries: TokenBlock, _ dKeys: TokenBlock, _ dValues: TokenBlock,
        _ dOut: Tensor, _ out: Tensor, _ logSumExp: Tensor, queries: TokenBlock, keys: TokenBlock,
        values: TokenBlock, _ sizes: AttentionSizes
    ) {
        count()
        inner.attentionBackward(
            dQueries, dKeys, dValues, dOut, out, logSumExp, queries: queries, keys: keys, values: values,
            sizes)
    }
    func residualAdd(_ out: Tensor, _ x: Tensor, _ branch: Tensor, sampleScale: Tensor?, count n: Int) {
        count()
        inner.residualAdd(out, x, branch, sampleScale: sampleScale, count: n)
    }
    func scaleSamples(_ out: Tensor, _ x: Tensor, sampleScale: Tensor, count n: Int) {
        count()
        inner.scaleSamples(out, x, sampleScale: sampleScale, count: n)
    }
    func poolTokens(_ out: Tensor, _ tokens: Tensor, range: Range<Int>, _ sizes: TokenSizes) {
        count()
        inner.poolTokens(out, tokens, range: range, sizes)
    }
    func poolTokensBackward(_ dTokens: Tensor, _ dOut: Tensor, range: Range<Int>, _ sizes: TokenSizes) {
        count()
        inner.poolTokensBackward(dTokens, dOut, range: range, sizes)
    }

    // MARK: Other methods' adapters

    func copyBlock(_ out: MatrixBlock, _ x: MatrixBlock, _ size: (rows: Int, columns: Int), accumulate: Bool)
    {
        count()
        inner.copyBlock(out, x, size, accumulate: accumulate)
    }
    func activate(_ y: Tensor, _ x: Tensor, _ activation: Activation, count n: Int) {
        count()
        inner.activate(y, x, activation, count: n)
    }
    func activateBackward(_ dx: Tensor, _ dy: Tensor, _ x: Tensor, _ activation: Activation, count n: Int) {
        count()
        inner.activateBackward(dx, dy, x, activation, count: n)
    }
    func scaleShift(_ y: Tensor, _ x: Tensor, _ scale: Tensor, _ shift: Tensor?, rows: Int, columns: Int) {
        count()
        inner.scaleShift(y, x, scale, shift, rows: rows, columns: columns)
    }
    func scaleShiftBackward(
        _ dx: Tensor?, _ dScale: Tensor?, _ dShift: Tensor?, _ dy: Tensor, _ x: Tensor, _ scale: Tensor,
        rows: Int, columns: Int
    ) {
        count()
        inner.scaleShiftBackward(dx, dScale, dShift, dy, x, scale, rows: rows, columns: columns)
    }
    func addScaled(_ y: Tensor, _ x: Tensor, _ factor: Float, count n: Int) {
        count()
        inner.addScaled(y, x, factor, count: n)
    }
    func dropout(_ y: Tensor, _ x: Tensor, _ mask: DropoutMask, count n: Int) {
        count()
        inner.dropout(y, x, mask, count: n)
    }

    // MARK: Loss and optimizer

    func softmaxCrossEntropy(
        _ losses: Tensor, _ dLogits: Tensor?, _ logits: Tensor, _ labels: Tensor, batch: Int, classes: Int
    ) {
        count()
        inner.softmaxCrossEntropy(losses, dLogits, logits, labels, batch: batch, classes: classes)
    }
    func targetLoss(
        _ losses: Tensor, _ dLogits: Tensor?, _ logits: Tensor, _ targets: Tensor, _ weights: Tensor?,
        _ kind: TargetLoss, batch: Int, outputs: Int
    ) {
        count()
        inner.targetLoss(
            losses, dLogits, logits, targets, weights, kind, batch: batch, outputs: outputs)
    }
    func adamW(
        _ values: Tensor, _ firstMoments: Tensor, _ secondMoments: Tensor,
        _ gradients: Tensor, _ segmentOfBlock: Tensor, _ segments: Tensor, _ settings: AdamWSettings,
        blocks: Int
    ) {
        count()
        inner.adamW(
            values, firstMoments, secondMoments, gradients, segmentOfBlock, segments, settings, blocks: blocks
        )
    }
    func sgd(
        _ values: Tensor, _ velocity: Tensor, _ gradients: Tensor, _ segmentOfBlock: Tensor,
        _ segments: Tensor, _ settings: SGDSettings, blocks: Int
    ) {
        count()
        inner.sgd(values, velocity, gradients, segmentOfBlock, segments, settings, blocks: blocks)
    }
    func lion(
        _ values: Tensor, _ moments: Tensor, _ gradients: Tensor, _ segmentOfBlock: Tensor,
        _ segments: Tensor, _ settings: LionSettings, blocks: Int
    ) {
        count()
        inner.lion(values, moments, gradients, segmentOfBlock, segments, settings, blocks: blocks)
    }
}
