import Adapters
import Checkpoints
import TensorCore

// Forward and backward; the backward reads as the forward upside down.
extension VisionTransformer {
    // MARK: Forward

    /// `plan.logits` from `plan.images` on the given paths, one for each Linear. With `dropsBranches`, every residual branch
    /// is scaled by `plan.branchScales`. `noise` seeds a method's dropout and makes its batch norm use the batch; nil in
    /// evaluation.
    public func forward(
        _ plan: ViTPlan, paths: [GLoRAPath], dropsBranches: Bool = false, noise: UInt64? = nil
    ) {
        loadWeights()
        attachments?.begin?()
        embed(plan)
        forward(plan, fromBlock: 0, paths: paths, dropsBranches: dropsBranches, noise: noise)
    }

    /// `plan.stream(into: 0)` from `plan.images`: the same whatever the paths.
    public func embed(_ plan: ViTPlan) {
        backend.extractPatches(plan.patches, plan.images, patchSize: configuration.patchSize)
        patchProjection.forward(plan.projected, plan.patches, path: .none, plan.plain, backend, scratch)
        if let place = attachments?.patches {
            scaleShift(plan.projected, plan.projected, place, keeping: plan.attached?.patches)
        }
        backend.embedTokens(destination(0, plan), plan.projected, classToken?.value, positions.value)
    }

    /// `plan.logits` from `plan.stream(into: first)`. `onBlock` is called before each further block with its number, while its
    /// stream can be read.
    public func forward(
        _ plan: ViTPlan, fromBlock first: Int, paths: [GLoRAPath], dropsBranches: Bool = false,
        noise: UInt64? = nil, onBlock: (Int) -> Void = { _ in }
    ) {
        for (index, keep) in plan.blocks.enumerated().dropFirst(first) {
            if index > first { onBlock(index) }
            changeTokens(index, plan, noise)
            let places = attachments?.blocks[index]
            let output = index + 1 == configuration.depth ? plan.output : destination(index + 1, plan)
            let branch = like(keep.middle, plan.branch)
            layerNorm(keep.normed1, keep.mean1, keep.rstd1, keep.input, norms[index].first)
            if let place = places?.norms[0] {
                scaleShift(keep.normed1, keep.normed1, place, keeping: plan.attached?.norms[index][0])
            }
            let qkv = keepsProduct(4 * index, plan, paths) ? plan.qkv : keep.qkv
            apply(4 * index, qkv, keep.normed1, plan, paths, noise)
            backend.attention(keep.attended, keep.logSumExp, qkv, heads: configuration.heads)
            apply(4 * index + 1, branch, keep.attended, plan, paths, noise)
            backend.residualAdd(
                keep.middle, askingTokens(keep, plan), branch,
                sampleScale: dropsBranches ? plan.branchScales[2 * index] : nil)

            layerNorm(keep.normed2, keep.mean2, keep.rstd2, keep.middle, norms[index].second)
            if let place = places?.norms[1] {
                scaleShift(keep.normed2, keep.normed2, place, keeping: plan.attached?.norms[index][1])
            }
            let fc1 = 4 * index + 2
            // In evaluation nobody reads the MLP before GELU, and where z is kept the backward rebuilds it.
            let hidden =
                attachments == nil && (!plan.isForTraining || keepsProduct(fc1, plan, paths))
                ? nil : keep.hidden
            apply(fc1, hidden, keep.normed2, activated: keep.activated, plan, paths, noise)
            apply(4 * index + 3, branch, keep.activated, plan, paths, noise)
            if let behind = places?.behindMLP, let attached = plan.attached {
                backend.copy(attached.mlpOutputs[index]!, branch)
                add(
                    behind, to: branch, attached.mlpOutputs[index]!, attached.behindMLP[index], plan, noise)
            }
            backend.residualAdd(
                output, keep.middle, branch,
                sampleScale: dropsBranches ? plan.branchScales[2 * index + 1] : nil)
            // Beside the MLP, not part of it: stochastic depth doesn't drop it.
            if let beside = places?.besideMLP, let attached = plan.attached {
                add(beside, to: output, keep.middle, attached.besideMLP[index], plan, noise)
            }
        }
        switch configuration.pooling {
        case .classToken:
            finalLayerNorm(plan.features, plan.output, plan)
        case .meanBeforeNorm:
            backend.poolTokens(plan.pooled, plan.output, range: poolRange)
            finalLayerNorm(plan.features, plan.pooled, plan)
        case .meanAfterNorm:
            finalLayerNorm(plan.normed, plan.output, plan)
            backend.poolTokens(plan.features, plan.normed, range: poolRange)
        }
        head.forward(
            plan.logits, headInput(plan, isTraining: noise != nil), path: .none, plan.plain, backend, scratch)
    }

    /// `plan.losses` from the logits and `plan.labels`.
    public func loss(_ plan: ViTPlan) {
        backend.softmaxCrossEntropy(plan.losses, plan.gradients?.logits, plan.logits, plan.labels)
    }

    // MARK: Backward

    /// Accumulates the gradients of the mean loss, times `lossScale`, after `forward` and `loss` with the same arguments.
    /// `plan.losses` is overwritten where that isn't 1.
    public func backward(
        _ plan: ViTPlan, paths: [GLoRAPath], dropsBranches: Bool = false, noise: UInt64? = nil,
        lossScale: Float = 1
    ) {
        guard let gradients = plan.gradients else { preconditionFailure("backward: a plan for evaluation") }
        if lossScale != 1 {
            backend.fill(plan.losses, lossScale)
            backend.scaleSamples(gradients.logits, gradients.logits, sampleScale: plan.losses)
        }
        // The first Linear that the step changes; below it nothing is differentiated. -1: the embeddings too.
        let lowest =
            attachments != nil || finalNorm.bias.gradient != nil
            ? -1 : paths.firstIndex { $0 != .none } ?? linears.count

        let reachesBlocks = lowest < linears.count
        head.backward(
            reachesBlocks ? gradients.normedPooled : nil, gradients.logits,
            plan.attached?.head?.output ?? plan.features, path: .none, plan.plain, backend, scratch)
        guard reachesBlocks else { return }
        headInputBackward(plan, gradients, isTraining: noise != nil)
        switch configuration.pooling {
        case .classToken:
            finalNormBackward(gradients.asked, gradients.normedPooled, plan.output, plan)
        case .meanBeforeNorm:
            finalNormBackward(gradients.pooled, gradients.normedPooled, plan.pooled, plan)
            backend.poolTokensBackward(
                like(plan.output, gradients.stream), gradients.pooled, range: poolRange)
        case .meanAfterNorm:
            let normed = like(plan.output, gradients.normed)
            backend.poolTokensBackward(normed, gradients.normedPooled, range: poolRange)
            finalNormBackward(like(plan.output, gradients.stream), normed, plan.output, plan)
        }

        for (index, keep) in plan.blocks.enumerated().reversed() {
            let (qkv, proj, fc1, fc2) = (4 * index, 4 * index + 1, 4 * index + 2, 4 * index + 3)
            if fc2 < lowest { return }
            let asksAll = keep.middle.count == keep.input.count
            let places = attachments?.blocks[index]
            let input = like(keep.input, gradients.stream)  // [B, T, D]
            let stream = asksAll ? input : gradients.asked  // [B, Q, D]
            let hidden = like(keep.hidden, gradients.hidden)
            let normed = like(keep.middle, gradients.normed)
            func branchGradient(_ branch: Int) -> Tensor {
                // A branch may be stored in fewer bits than the stream.
                guard dropsBranches || gradients.branch.elementType != stream.elementType else {
                    return stream
                }
                let scaled = like(keep.middle, gradients.branch)
                backend.scaleSamples(
                    scaled, stream, sampleScale: dropsBranches ? plan.branchScales[branch] : nil)
                return scaled
            }

            let rebuildsHidden = keepsProduct(fc1, plan, paths)
            if plan.sharesActivated {
                if rebuildsHidden {
                    rebuild(fc1, nil, activated: keep.activated, plan, paths)
                } else {
                    backend.gelu(keep.activated, keep.hidden)
                }
            }
            var dMLP = branchGradient(2 * index + 1)
            if let behind = places?.behindMLP, let attached = plan.attached {
                dMLP = ownBranch(dMLP, stream, gradients)
                backward(
                    behind, dMLP, dMLP, attached.mlpOutputs[index]!, attached.behindMLP[index], plan, noise)
            }
            applyBackward(
                fc2, hidden, dMLP, keep.activated, plan, paths, lowest, noise, stream: stream)
            // The MLP has read the stream's gradient; from here on it may grow.
            if let beside = places?.besideMLP, let attached = plan.attached {
                backward(
                    beside, stream, stream, keep.middle, attached.besideMLP[index], plan, noise)
            }
            if fc2 == lowest { return }
            if rebuildsHidden {
                // GELU's output is done with: its input takes its place.
                rebuild(fc1, keep.activated, activated: nil, plan, paths)
            }
            backend.geluBackward(hidden, hidden, rebuildsHidden ? keep.activated : keep.hidden)
            if plan.sharesNormed {
                layerNorm(keep.normed2, keep.mean2, keep.rstd2, keep.middle, norms[index].second)
                if let place = places?.norms[1] {
                    backend.scaleShift(keep.normed2, keep.normed2, place.scale.value, place.shift.value)
                }
            }
            applyBackward(fc1, normed, hidden, keep.normed2, plan, paths, lowest, noise)
            if fc1 == lowest { return }
            if let place = places?.norms[1] {
                scaleShiftBackward(normed, place, plan.attached?.norms[index][1])
            }
            layerNormBackward(
                stream, normed, keep.middle, keep.mean2, keep.rstd2, norms[index].second, accumulate: true)

            applyBackward(
                proj, normed, branchGradient(2 * index), keep.attended, plan, paths, lowest, noise,
                stream: stream)
            if proj == lowest { return }
            let rebuildsQKV = keepsProduct(qkv, plan, paths)
            if rebuildsQKV { rebuild(qkv, plan.qkv, activated: nil, plan, paths) }
            let dQKV = like(keep.qkv, gradients.qkv)
            backend.attentionBackward(
                dQKV, normed, keep.attended, keep.logSumExp, rebuildsQKV ? plan.qkv : keep.qkv,
                heads: configuration.heads)
            if plan.sharesNormed {
                layerNorm(keep.normed1, keep.mean1, keep.rstd1, keep.input, norms[index].first)
                if let place = places?.norms[0] {
                    backend.scaleShift(keep.normed1, keep.normed1, place.scale.value, place.shift.value)
                }
            }
            let dNormed = like(keep.input, gradients.normed)
            applyBackward(qkv, dNormed, dQKV, keep.normed1, plan, paths, lowest, noise)
            if qkv == lowest { return }
            if !asksAll {
                backend.poolTokensBackward(
                    input, gradients.asked.reshaped([plan.batch, configuration.width]), range: 0..<1)
            }
            if let place = places?.norms[0] {
                scaleShiftBackward(dNormed, place, plan.attached?.norms[index][0])
            }
            layerNormBackward(
                input, dNormed, keep.input, keep.mean1, keep.rstd1, norms[index].first, accumulate: true)
            changeTokensBackward(index, plan, gradients, noise)
        }
        attachments?.end?()
        if let dPositions = positions.gradient ?? plan.attached?.positions {
            let embedded = Tensor(
                buffer: gradients.stream.buffer,
                shape: [plan.batch, configuration.tokenCount, configuration.width])
            backend.embedTokensBackward(
                gradients.projected, classToken?.gradient ?? plan.attached?.classToken, dPositions, embedded)
        }
        if let place = attachments?.patches {
            scaleShiftBackward(gradients.projected, place, plan.attached?.patches)
        }
        guard positions.gradient != nil else { return }
        patchProjection.backward(
            nil, gradients.projected, plan.patches, path: .none, plan.plain, backend, scratch)
    }

    // MARK: Pieces

    /// The tokens of a block's input that go on behind its attention: all of them, or the class tokens.
    private func askingTokens(_ keep: ViTPlan.Block, _ plan: ViTPlan) -> Tensor {
        guard let asked = plan.askedInput, keep.middle.count < keep.input.count else { return keep.input }
        backend.poolTokens(asked.reshaped([plan.batch, configuration.width]), keep.input, range: 0..<1)
        return asked
    }

    func kept(_ index: Int, _ plan: ViTPlan) -> GLoRALinear.Kept {
        plan.blocks[index / 4].linears[index % 4]
    }

    /// Whether a Linear keeps its product z for the backward instead of its output.
    private func keepsProduct(_ index: Int, _ plan: ViTPlan, _ paths: [GLoRAPath]) -> Bool {
        guard let product = kept(index, plan).product else { return false }
        return linears[index].keepsProduct(paths[index], rows: product.rows)
    }

    private func apply(
        _ index: Int, _ y: Tensor?, _ x: Tensor, activated: Tensor? = nil, _ plan: ViTPlan,
        _ paths: [GLoRAPath], _ noise: UInt64?
    ) {
        if let places = places(index), let y {
            return apply(places, index, y, x, activated: activated, plan, noise)
        }
        if !plan.isForTraining, let prepared, prepared.paths == paths {
            return linears[index].forward(y, x, activated: activated, prepared.linears[index], backend)
        }
        linears[index].forward(
            y, x, activated: activated, path: paths[index], kept(index, plan), backend, scratch)
    }

    private func rebuild(
        _ index: Int, _ y: Tensor?, activated: Tensor?, _ plan: ViTPlan, _ paths: [GLoRAPath]
    ) {
        linears[index].rebuild(y, activated: activated, path: paths[index], kept(index, plan), backend)
    }

    private func applyBackward(
        _ index: Int, _ dx: Tensor, _ dy: Tensor, _ x: Tensor, _ plan: ViTPlan, _ paths: [GLoRAPath],
        _ lowest: Int, _ noise: UInt64?, stream: Tensor? = nil
    ) {
        if let places = places(index) {
            return applyBackward(places, index, dx, dy, x, plan, noise, stream: stream)
        }
        linears[index].backward(
            index == lowest ? nil : dx, dy, x, path: paths[index], kept(index, plan), backend, scratch)
    }

    func layerNorm(_ y: Tensor, _ mean: Tensor, _ rstd: Tensor, _ x: Tensor, _ norm: Norm) {
        backend.layerNorm(
            y, mean, rstd, x, norm.weight.value, norm.bias.value,
            epsilon: configuration.layerNormEpsilon)
    }

    func layerNormBackward(
        _ dx: Tensor, _ dy: Tensor, _ x: Tensor, _ mean: Tensor, _ rstd: Tensor, _ norm: Norm,
        accumulate: Bool
    ) {
        backend.layerNormBackward(
            dx, norm.weight.gradient, norm.bias.gradient, dy, x, mean, rstd, norm.weight.value,
            accumulate: accumulate)
    }
}
