import Adapters
import Checkpoints
import ModelConfiguration
import TensorCore

// What the passes do at the places that a method fills: see `Attachments`.
extension VisionTransformer {
    // MARK: Linears

    /// What is at a Linear; nil for nothing.
    func places(_ index: Int) -> Attachments.LinearPlaces? {
        guard let places = attachments?.blocks[index / 4].linears[index % 4], !places.isEmpty else {
            return nil
        }
        return places
    }

    /// y = (Linear(x') + f(x')) ⊙ γ + β with x' = x + g(x), each where it is, and `activated` = GELU(y).
    func apply(
        _ places: Attachments.LinearPlaces, _ index: Int, _ y: Tensor, _ x: Tensor, activated: Tensor?,
        _ plan: ViTPlan, _ noise: UInt64?
    ) {
        let site = plan.attached!.sites[index]
        var input = x
        if let before = places.before {
            input = site.input!.reshaped(x.shape)
            backend.copy(input, x)
            add(before, to: input, x, site.before, plan, noise)
        }
        linears[index].forward(y, input, path: .none, kept(index, plan), backend, scratch)
        if let beside = places.beside { add(beside, to: y, input, site.beside, plan, noise) }
        if let behind = places.behind { scaleShift(y, y, behind, keeping: site.unscaled) }
        if let activated { backend.gelu(activated, y) }
    }

    /// `stream` is what dy mustn't overwrite: the gradient of the residual stream.
    func applyBackward(
        _ places: Attachments.LinearPlaces, _ index: Int, _ dx: Tensor, _ dy: Tensor, _ x: Tensor,
        _ plan: ViTPlan, _ noise: UInt64?, stream: Tensor?
    ) {
        let site = plan.attached!.sites[index]
        var dy = dy
        if let behind = places.behind {
            if let stream, let gradients = plan.gradients { dy = ownBranch(dy, stream, gradients) }
            scaleShiftBackward(dy, behind, site.unscaled)
        }
        linears[index].backward(dx, dy, x, path: .none, kept(index, plan), backend, scratch)
        // Nothing is both before a Linear and beside it, so x is what the term beside has read.
        if let beside = places.beside { backward(beside, dx, dy, x, site.beside, plan, noise) }
        if let before = places.before { backward(before, dx, dx, x, site.before, plan, noise) }
    }

    // MARK: Terms

    // A term is computed in float32 whatever the model is stored in: its tensors are trained, and small beside those that it
    // reads and adds to. Those are widened for it where they are stored in 16 bits, and what it adds to is rounded once more.

    /// y ← y + f(x).
    func add(
        _ update: any Update, to y: Tensor, _ x: Tensor, _ kept: [Tensor], _ plan: ViTPlan, _ noise: UInt64?
    ) {
        let wide = plan.attached?.wide
        let sum = widened(y, wide?.y)
        update.add(to: sum, widened(x, wide?.x), kept, noise: noise)
        if sum.elementType != y.elementType { backend.copy(y, sum) }
    }

    /// dx ← dx + f'(x)ᵀ · dy. dx may be dy.
    func backward(
        _ update: any Update, _ dx: Tensor, _ dy: Tensor, _ x: Tensor, _ kept: [Tensor], _ plan: ViTPlan,
        _ noise: UInt64?
    ) {
        let wide = plan.attached?.wide
        let gradient = widened(dy, wide?.y)
        let sum = dx.buffer === dy.buffer ? gradient : widened(dx, wide?.dx)
        update.backward(sum, gradient, widened(x, wide?.x), kept, noise: noise)
        if sum.elementType != dx.elementType { backend.copy(dx, sum) }
    }

    /// x, or where it is stored in 16 bits a copy in `memory` as float32.
    private func widened(_ x: Tensor, _ memory: Tensor?) -> Tensor {
        guard x.elementType != .float32, let memory else { return x }
        let copy = Tensor(buffer: memory.buffer, shape: x.shape)
        backend.copy(copy, x)
        return copy
    }

    /// `gradient` in memory that may be overwritten: where it is the stream's own, a copy.
    func ownBranch(_ gradient: Tensor, _ stream: Tensor, _ gradients: ViTPlan.Gradients) -> Tensor {
        guard gradient.buffer === stream.buffer else { return gradient }
        let own = like(gradient, gradients.branch)
        backend.copy(own, gradient)
        return own
    }

    // MARK: Scales and shifts

    /// y ← x ⊙ γ + β; `keeping` receives x where a backward follows. y may be x.
    func scaleShift(_ y: Tensor, _ x: Tensor, _ place: ScaleShift, keeping: Tensor?) {
        if let keeping { backend.copy(keeping, x) }
        backend.scaleShift(y, x, place.scale.value, place.shift.value)
    }

    /// dy ← dy ⊙ γ in place; γ and β get their gradients.
    func scaleShiftBackward(_ dy: Tensor, _ place: ScaleShift, _ kept: Tensor?) {
        backend.scaleShiftBackward(
            dy, place.scale.gradient, place.shift.gradient, dy, kept!, place.scale.value)
    }

    func finalLayerNorm(_ y: Tensor, _ x: Tensor, _ plan: ViTPlan) {
        layerNorm(y, plan.mean, plan.rstd, x, finalNorm)
        if let place = attachments?.norm { scaleShift(y, y, place, keeping: plan.attached?.norm) }
    }

    func finalNormBackward(_ dx: Tensor, _ dy: Tensor, _ x: Tensor, _ plan: ViTPlan) {
        if let place = attachments?.norm { scaleShiftBackward(dy, place, plan.attached?.norm) }
        layerNormBackward(dx, dy, x, plan.mean, plan.rstd, finalNorm, accumulate: false)
    }

    // MARK: Tokens

    /// Where what comes before block `index` writes the stream: the block's input, or memory from which its tokens are changed.
    func destination(_ index: Int, _ plan: ViTPlan) -> Tensor {
        guard let count = incomingCount(index), let incoming = plan.attached?.incoming else {
            return plan.stream(into: index)
        }
        return Tensor(buffer: incoming.buffer, shape: [plan.batch, count, configuration.width])
    }

    /// The tokens before block `index` changes them; nil where it doesn't.
    private func incomingCount(_ index: Int) -> Int? {
        guard let attachments, attachments.blocks[index].tokens != nil else { return nil }
        return index == 0
            ? configuration.tokenCount : attachments.tokenCounts(configuration.tokenCount)[index - 1]
    }

    /// The tokens that the edit at block `index` keeps, as (from, to, count) in elements of an image, and its place, in elements.
    private func moves(_ index: Int) -> (
        edit: TokenEdit, place: Int, kept: [(from: Int, to: Int, count: Int)]
    )? {
        guard let edit = attachments?.blocks[index].tokens, let count = incomingCount(index) else {
            return nil
        }
        let (d, gone) = (configuration.width, edit.replaced(of: count))
        let parts = [
            (from: 0, to: 0, count: gone.lowerBound * d),
            (
                from: gone.upperBound * d, to: (gone.lowerBound + edit.count) * d,
                count: (count - gone.upperBound) * d
            ),
        ]
        return (edit, gone.lowerBound * d, parts.filter { $0.count > 0 })
    }

    /// The input of block `index` from what came, with its prompts put in.
    func changeTokens(_ index: Int, _ plan: ViTPlan, _ noise: UInt64?) {
        guard let (edit, place, kept) = moves(index), let prompts = plan.attached?.prompts else { return }
        let (d, batch, incoming) = (configuration.width, plan.batch, destination(index, plan))
        let input = plan.stream(into: index)
        let (long, wide, length) = (input.count / batch, incoming.count / batch, edit.count * d)
        for part in kept {
            backend.copyBlock(
                MatrixBlock(input, offset: part.to, stride: long),
                MatrixBlock(incoming, offset: part.from, stride: wide), rows: batch, columns: part.count,
                accumulate: false)
        }
        let repeated = Tensor(buffer: prompts.buffer, shape: [batch, length])
        backend.copyBlock(
            MatrixBlock(repeated, stride: length),
            MatrixBlock(edit.prompts.value, offset: edit.offset, stride: 0), rows: batch, columns: length,
            accumulate: false)
        if let noise, edit.dropout > 0 {
            backend.dropout(repeated, repeated, rate: edit.dropout, seed: noise ^ UInt64(index))
        }
        backend.copyBlock(
            MatrixBlock(input, offset: place, stride: long), MatrixBlock(repeated, stride: length),
            rows: batch, columns: length, accumulate: false)
    }

    /// The stream's gradient before block `index` changed its tokens; the prompts get theirs.
    func changeTokensBackward(
        _ index: Int, _ plan: ViTPlan, _ gradients: ViTPlan.Gradients, _ noise: UInt64?
    ) {
        guard let (edit, place, kept) = moves(index), let attached = plan.attached else { return }
        let (d, batch, incoming) = (configuration.width, plan.batch, destination(index, plan))
        let dInput = like(plan.stream(into: index), gradients.stream)
        let (long, wide, length) = (dInput.count / batch, incoming.count / batch, edit.count * d)
        let own = Tensor(buffer: attached.prompts!.buffer, shape: [batch, length])
        let sums = Tensor(buffer: attached.promptSums!.buffer, shape: [length])
        backend.copyBlock(
            MatrixBlock(own, stride: length), MatrixBlock(dInput, offset: place, stride: long), rows: batch,
            columns: length, accumulate: false)
        if let noise, edit.dropout > 0 {
            backend.dropout(own, own, rate: edit.dropout, seed: noise ^ UInt64(index))
        }
        backend.sumRows(sums, own, accumulate: false)
        backend.copyBlock(
            MatrixBlock(edit.prompts.gradient!, offset: edit.offset, stride: length),
            MatrixBlock(sums, stride: length), rows: 1, columns: length, accumulate: true)
        backend.fill(incoming, 0)
        for part in kept {
            backend.copyBlock(
                MatrixBlock(incoming, offset: part.from, stride: wide),
                MatrixBlock(dInput, offset: part.to, stride: long), rows: batch, columns: part.count,
                accumulate: false)
        }
        backend.copy(like(incoming, gradients.stream), incoming)
    }

    /// The first bytes of `memory` in the shape of `tensor`.
    func like(_ tensor: Tensor, _ memory: Tensor) -> Tensor {
        Tensor(buffer: memory.buffer, shape: tensor.shape, elementType: memory.elementType)
    }

    /// The tokens that the head reads: the class token, or all patches, which prompts in front may have moved.
    var poolRange: Range<Int> {
        guard configuration.pooling != .classToken else { return 0..<1 }
        let inFront =
            attachments?.blocks.reduce(0) { sum, block in
                block.tokens.map { $0.front == nil ? sum : sum + $0.count - $0.removed } ?? sum
            } ?? 0
        let first = (configuration.hasClassToken ? 1 : 0) + inFront
        return first..<first + configuration.patchCount
    }

    // MARK: The head's batch norm

    /// What the head reads: the features, or their batch norm (eps 1e-6, no weights): over the batch, a LayerNorm of the
    /// transpose, whose statistics go into the running ones with momentum 0.1; in evaluation by the running statistics.
    func headInput(_ plan: ViTPlan, isTraining: Bool) -> Tensor {
        guard let norm = plan.attached?.head, let runningMean, let runningVariance else {
            return plan.features
        }
        let (b, d) = (plan.batch, configuration.width)
        var (mean, variance) = (backend.values(runningMean.value), backend.values(runningVariance.value))
        guard isTraining, b > 1 else {
            let rstd = variance.map { 1 / ($0 + 1e-6).squareRoot() }
            backend.upload(norm.scale, rstd)
            backend.upload(norm.shift, zip(mean, rstd).map { -$0 * $1 })
            backend.scaleShift(norm.output, plan.features, norm.scale, norm.shift)
            return norm.output
        }
        backend.fill(norm.ones, 1)
        backend.fill(norm.zeros, 0)
        backend.upload(norm.identity, (0..<b * b).map { $0 / b == $0 % b ? 1 : 0 as Float })
        transpose(norm.transposed, plan.features, norm)
        backend.layerNorm(
            norm.normed, norm.mean, norm.rstd, norm.transposed, norm.ones, norm.zeros, epsilon: 1e-6)
        transposeBack(norm.output, norm.normed, norm)
        let (batchMean, batchRstd) = (backend.values(norm.mean), backend.values(norm.rstd))
        let unbiased = Float(b) / Float(b - 1)
        for index in 0..<d {
            let batchVariance = max(1 / (batchRstd[index] * batchRstd[index]) - 1e-6, 0) * unbiased
            mean[index] += 0.1 * (batchMean[index] - mean[index])
            variance[index] += 0.1 * (batchVariance - variance[index])
        }
        backend.upload(runningMean.value, mean)
        backend.upload(runningVariance.value, variance)
        return norm.output
    }

    /// `gradients.normedPooled` from that of what the head read to that of the features.
    func headInputBackward(_ plan: ViTPlan, _ gradients: ViTPlan.Gradients, isTraining: Bool) {
        guard let norm = plan.attached?.head else { return }
        let dy = gradients.normedPooled
        guard isTraining, plan.batch > 1 else {
            return backend.scaleShiftBackward(dy, nil, nil, dy, plan.features, norm.scale)
        }
        transpose(norm.gradient, dy, norm)
        backend.layerNormBackward(
            norm.normed, nil, nil, norm.gradient, norm.transposed, norm.mean, norm.rstd, norm.ones,
            accumulate: false)
        transposeBack(dy, norm.normed, norm)
    }

    // A product with the identity: exact (but in tf32, which rounds its operands), and two of them a step are nothing.
    private func transpose(_ out: Tensor, _ x: Tensor, _ norm: AttachedPlan.HeadNorm) {
        backend.matmul(out, x, norm.identity, transposeA: true, transposeB: false, accumulate: false)
    }

    private func transposeBack(_ out: Tensor, _ x: Tensor, _ norm: AttachedPlan.HeadNorm) {
        backend.matmul(out, norm.identity, x, transposeA: false, transposeB: true, accumulate: false)
    }
}

extension ViTConfiguration {
    /// The sizes that methods ask for.
    public var shape: TransformerShape {
        TransformerShape(
            width: width, hiddenWidth: hiddenWidth, depth: depth, patchSize: patchSize,
            hasClassToken: hasClassToken)
    }
}

extension ViTCheckpoint {
    /// The backbone's tensors that `isTrained` picks by their names, in their order.
    func backboneDeclarations(_ isTrained: (String) -> Bool) -> [ParameterStore.Declaration] {
        tensors.filter { !$0.key.hasPrefix("head.") && isTrained($0.key) }
            .sorted { $0.key < $1.key }.map { .init($0.key, $0.value) }
    }
}

extension HeadKind {
    /// A head of `classes` over `width` features, with its first values.
    public func declarations(_ classes: Int, _ width: Int, seed: Int) -> [ParameterStore.Declaration] {
        var values = Initialization(Random(seed, "head"))
        let (weight, bias) = ("head.weight", "head.bias")
        let bound = 1 / Double(width).squareRoot()
        switch self {
        case .linear:
            return [
                values.uniform(weight, [classes, width], bound), values.uniform(bias, [classes], bound),
            ]
        case .batchNorm:
            return [
                values.normal(weight, [classes, width], 0.01), values.uniform(bias, [classes], bound),
                .init("head.running_mean", [width], repeating: 0),
                .init("head.running_var", [width], repeating: 1),
            ]
        case .vpt:
            let deviation = (2 / Double(classes)).squareRoot()
            return [
                values.normal(weight, [classes, width], deviation),
                .init(bias, [classes], repeating: -4.59511985013459),  // −log 99
            ]
        }
    }
}
