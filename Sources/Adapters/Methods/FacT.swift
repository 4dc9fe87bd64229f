import TensorCore

/// FacT: the updates of all Linears from factors that they share. With U [r, D] and V [D, r] for the whole model,
///
///     ΔW of a D × D slice = s · V · Σ · U,      x ↦ u = x Uᵀ,  c = drop(u · M),  y += s · c Vᵀ
///
/// A block has 4 + 2m slices for an MLP of m times the width: q, k, v, proj; m for fc1, whose output falls into m parts; m for
/// fc2, whose input does. Biases stay.
///
/// - TT: each slice has a core of its own. fc1's is [m·r, r] and fc2's [r, m·r], one Linear for all parts.
/// - TK: Σ of slice p is S[:, :, p]ᵀ with S = C ×₃ P, C [r, r, r], P [r, (4 + 2m)·L]. The authors' code reads the m slices of
///   fc1 and fc2 as a [r, m·r] matrix without permuting, so that its column b·m + j holds S[a, b, j]; ours does the same.
///
/// V begins at zero. Source: PETL-ViT FacT/fact_tt.py, fact_tk.py; arXiv 2212.03145.
struct FacT: TuningMethod {
    let isTucker: Bool
    let rank: Int
    let scale: Double
    let dropout: Double

    init(isTucker: Bool, _ settings: MethodSettings, _ shape: TransformerShape) throws {
        guard shape.hiddenWidth % shape.width == 0 else {
            throw MethodError(
                "FacT cuts the MLP into slices of the width, and \(shape.hiddenWidth) is no multiple of \(shape.width)"
            )
        }
        try settings.allow("fact", [settings.$rank, settings.$scale, settings.$dropout])
        self.isTucker = isTucker
        rank = settings.rank ?? (isTucker ? 32 : 16)
        scale = settings.scale ?? 1
        dropout = settings.dropout ?? 0.1
    }

    func declarations(_ shape: TransformerShape, seed: Int) -> [ParameterStore.Declaration] {
        var random = Initialization(seed, "fact")
        let (d, r, m) = (shape.width, rank, shape.hiddenWidth / shape.width)
        var declared: [ParameterStore.Declaration] = [
            random.linear("FacTu.weight", [r, d], inputs: d), zeros("FacTv.weight", [d, r]),
        ]
        if isTucker {
            let slices = (4 + 2 * m) * shape.depth
            // PyTorch's fans of a tensor of three dimensions: the second and the first, times the rest.
            declared.append(random.xavier("FacTc", [r, r, r], inputs: r * r, outputs: r * r))
            declared.append(random.xavier("FacTp", [r, slices], inputs: slices, outputs: r))
        } else {
            for block in 0..<shape.depth {
                for name in ["attn.q", "attn.k", "attn.v", "attn.proj"] {
                    declared.append(
                        random.linear("blocks.\(block).\(name)_FacTs.weight", [r, r], inputs: r))
                }
                declared.append(
                    random.linear("blocks.\(block).mlp.fc1_FacTs.weight", [m * r, r], inputs: r))
                declared.append(
                    random.linear("blocks.\(block).mlp.fc2_FacTs.weight", [r, m * r], inputs: m * r))
            }
        }
        return declared
    }

    func attach(
        to model: inout Attachments, _ store: ParameterStore, _ arena: Arena, _ backend: any Backend
    ) throws {
        let shape = model.shape
        let (r, m) = (rank, shape.hiddenWidth / shape.width)
        let (u, v) = (store["FacTu.weight"]!, store["FacTv.weight"]!)
        let slices = (4 + 2 * m) * shape.depth
        // S [r · r, slices] and its gradient.
        let products = isTucker ? (try arena.take([r * r, slices]), try arena.take([r * r, slices])) : nil
        /// A core of `count` slices from slice `first` on; `places` says how they lie in it.
        func tucker(_ shape: [Int], _ places: [FacTUpdate.Copy], isTransposed: Bool) throws -> FacTUpdate.Core
        {
            FacTUpdate.Core(
                matrix: try arena.take(shape), gradient: try arena.take(shape), isTransposed: isTransposed,
                copies: places, accumulates: !isTucker)
        }
        for block in 0..<shape.depth {
            let cores: [FacTUpdate.Core]
            if let (s, ds) = products {
                let first = (4 + 2 * m) * block
                // Slice p as a [r, r] block at `column` of a matrix of `stride` columns.
                func slice(_ p: Int, column: Int, stride: Int) -> [FacTUpdate.Copy] {
                    (0..<r).map { a in
                        FacTUpdate.Copy(
                            source: MatrixBlock(s, offset: a * r * slices + p, stride: slices),
                            sourceGradient: MatrixBlock(ds, offset: a * r * slices + p, stride: slices),
                            offset: a * stride + column, stride: 1, rows: r, columns: 1)
                    }
                }
                func interleaved(_ p: Int) -> [FacTUpdate.Copy] {
                    [
                        FacTUpdate.Copy(
                            source: MatrixBlock(s, offset: p, stride: slices),
                            sourceGradient: MatrixBlock(ds, offset: p, stride: slices), offset: 0, stride: m,
                            rows: r * r, columns: m)
                    ]
                }
                cores = [
                    try tucker(
                        [r, 3 * r],
                        (0..<3).flatMap { slice(first + $0, column: $0 * r, stride: 3 * r) },
                        isTransposed: false),
                    try tucker([r, r], slice(first + 3, column: 0, stride: r), isTransposed: false),
                    try tucker([r, m * r], interleaved(first + 4), isTransposed: false),
                    try tucker([r, m * r], interleaved(first + 4 + m), isTransposed: true),
                ]
            } else {
                func stored(_ name: String) -> Parameter {
                    store["blocks.\(block).\(name)_FacTs.weight"]!
                }
                func direct(_ name: String) -> FacTUpdate.Core {
                    let core = stored(name)
                    return FacTUpdate.Core(
                        matrix: core.value, gradient: core.gradient!, isTransposed: true, copies: [],
                        accumulates: true)
                }
                let stacked = ["attn.q", "attn.k", "attn.v"].enumerated().map { index, name in
                    FacTUpdate.Copy(
                        source: MatrixBlock(stored(name).value, stride: r),
                        sourceGradient: MatrixBlock(stored(name).gradient!, stride: r),
                        offset: index * r * r, stride: r, rows: r, columns: r)
                }
                cores = [
                    try tucker([3 * r, r], stacked, isTransposed: true), direct("attn.proj"),
                    direct("mlp.fc1"), direct("mlp.fc2"),
                ]
            }
            for (linear, core) in zip(shape.sites, cores) {
                let base = model.blocks[block][linear.role].base
                let term = try FacTUpdate(
                    u: u, v: v, core: core, width: shape.width, inputParts: linear.inputs / shape.width,
                    outputParts: linear.outputs / shape.width, scale: scale, dropout: dropout,
                    place: shape.ordinal(block, linear.role), arena, backend)
                model.blocks[block][linear.role] = AdaptedLinear(base, beside: term)
            }
        }
        if let (s, ds) = products, let c = store["FacTc"], let p = store["FacTp"] {
            let flat = c.value.reshaped([r * r, r])
            model.begin = {
                backend.matmul(s, flat, p.value, transposeA: false, transposeB: false, accumulate: false)
            }
            model.end = {
                backend.matmul(
                    c.gradient!.reshaped([r * r, r]), ds, p.value, transposeA: false, transposeB: true,
                    accumulate: true)
                backend.matmul(
                    p.gradient!, flat, ds, transposeA: true, transposeB: false, accumulate: true)
            }
        }
    }
}

/// FacT's term of one Linear: x [n, i·D] as i·n rows, y [n, o·D] as o·n rows.
final class FacTUpdate: Update {
    /// M [i·r, o·r], or its transpose.
    struct Core {
        let matrix, gradient: Tensor
        let isTransposed: Bool
        /// The parts that `matrix` is put together from before each use, and its gradient taken apart into; none where it is a
        /// parameter itself.
        let copies: [Copy]
        /// Whether gradients go to parameters. TK's go to that of S, which each backward writes once before `end` reads it.
        let accumulates: Bool
    }

    /// A part of a core: where it is stored, and where it lies in the core.
    struct Copy {
        let source, sourceGradient: MatrixBlock
        let offset, stride, rows, columns: Int
    }

    private let u, v: Parameter  // U [r, D], V [D, r]
    private let core: Core
    private let width, rank, inputParts, outputParts: Int
    private let scale: Float
    private let dropout: Double
    private let seed: UInt64  // of this place, so that dropouts differ
    private let scaled, gradient: Tensor  // s · V and dyᵀ c: [D, r]
    private let backend: any Backend

    init(
        u: Parameter, v: Parameter, core: Core, width: Int, inputParts: Int, outputParts: Int, scale: Double,
        dropout: Double, place: Int, _ arena: Arena, _ backend: any Backend
    ) throws {
        (self.u, self.v, self.core, self.width) = (u, v, core, width)
        rank = u.value.shape[0]
        (self.inputParts, self.outputParts) = (inputParts, outputParts)
        self.scale = Float(scale)
        self.dropout = dropout
        self.seed = UInt64(place + 1) &* 0x9e37_79b9_7f4a_7c15
        scaled = try arena.take([width, rank])
        gradient = try arena.take([width, rank])
        self.backend = backend
    }

    // u, c and their gradients.
    func keptShapes(rows: Int) -> [[Int]] {
        let (narrow, wide) = ([rows, inputParts * rank], [rows, outputParts * rank])
        return [narrow, wide, narrow, wide]
    }

    func add(to y: Tensor, _ x: Tensor, _ kept: [Tensor], dropoutSeed: UInt64?) {
        load()
        let (u, c) = (kept[0], kept[1])
        backend.linear(parts(u, rank), parts(x, width), self.u.value, nil)
        backend.matmul(
            c, u, core.matrix, transposeA: false, transposeB: core.isTransposed, accumulate: false)
        if let dropoutSeed, dropout > 0 { backend.dropout(c, c, rate: dropout, seed: dropoutSeed ^ seed) }
        backend.matmul(
            parts(y, width), parts(c, rank), scaled, transposeA: false, transposeB: true, accumulate: true)
    }

    func backward(_ dx: Tensor?, _ dy: Tensor, _ x: Tensor, _ kept: [Tensor], dropoutSeed: UInt64?) {
        let (u, c, du, dc) = (kept[0], kept[1], kept[2], kept[3])
        let dyParts = parts(dy, width)
        backend.matmul(
            gradient, dyParts, parts(c, rank), transposeA: true, transposeB: false, accumulate: false)
        backend.addScaled(v.gradient!, gradient, scale)
        backend.matmul(
            parts(dc, rank), dyParts, scaled, transposeA: false, transposeB: false, accumulate: false)
        if let dropoutSeed, dropout > 0 { backend.dropout(dc, dc, rate: dropout, seed: dropoutSeed ^ seed) }
        backend.matmul(
            du, dc, core.matrix, transposeA: false, transposeB: !core.isTransposed, accumulate: false)
        backend.matmul(
            core.gradient, core.isTransposed ? dc : u, core.isTransposed ? u : dc, transposeA: true,
            transposeB: false, accumulate: core.copies.isEmpty)
        for copy in core.copies {
            backend.copyBlock(
                copy.sourceGradient, MatrixBlock(core.gradient, offset: copy.offset, stride: copy.stride),
                rows: copy.rows, columns: copy.columns, accumulate: core.accumulates)
        }
        backend.matmul(
            self.u.gradient!, parts(du, rank), parts(x, width), transposeA: true, transposeB: false,
            accumulate: true)
        if let dx {
            backend.matmul(
                parts(dx, width), parts(du, rank), self.u.value, transposeA: false, transposeB: false,
                accumulate: true)
        }
    }

    /// The core alone: U and V belong to all.
    var parameterCount: Int { core.matrix.count }

    func factors() -> LinearFactors? {
        load()
        let (u, v) = (backend.host(self.u.value), backend.host(scaled))
        var m = backend.host(core.matrix)
        if core.isTransposed { m = m.transposed }
        // mᵀ [o·r, i·r]: part j of the output and part i of the input meet in an r × r block.
        let core = m.transposed
        func block(_ row: Int, _ column: Int) -> HostTensor {
            var values: [Float] = []
            for i in 0..<rank {
                let start = (row * rank + i) * inputParts * rank + column * rank
                values += core.values[start..<start + rank]
            }
            return HostTensor(shape: [rank, rank], values: values)
        }
        if inputParts == 1 {
            var up: [Float] = []
            for part in 0..<outputParts { up += v.product(block(part, 0)).values }
            return LinearFactors(
                down: u, up: HostTensor(shape: [outputParts * width, rank], values: up), bias: nil)
        }
        let columns = (0..<inputParts).map { block(0, $0).product(u).values }
        var down: [Float] = []
        for row in 0..<rank {
            for part in columns { down += part[row * width..<(row + 1) * width] }
        }
        return LinearFactors(
            down: HostTensor(shape: [rank, inputParts * width], values: down), up: v, bias: nil)
    }

    private func load() {
        for copy in core.copies {
            backend.copyBlock(
                MatrixBlock(core.matrix, offset: copy.offset, stride: copy.stride), copy.source,
                rows: copy.rows, columns: copy.columns, accumulate: false)
        }
        backend.fill(scaled, 0)
        backend.addScaled(scaled, v.value, scale)
    }

    /// [n, parts · length] as [n · parts, length].
    private func parts(_ x: Tensor, _ length: Int) -> Tensor { x.reshaped([x.count / length, length]) }
}
