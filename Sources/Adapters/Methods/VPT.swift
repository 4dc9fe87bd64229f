import TensorCore

/// VPT: p prompt tokens behind the class token, without position embeddings.
///
/// - shallow: P [1, p, D] enters before block 0 and flows on.
/// - deep: before block i ≥ 1 the p tokens are replaced by row i − 1 of [L − 1, p, D].
///
/// Prompts begin as U(±√(6 / (3·patch² + D))). Nothing merges: the tokens are there in inference.
/// Source: KMnP/vpt, src/models/vit_prompt/vit.py; arXiv 2203.12119.
struct VPT: TuningMethod {
    let isDeep: Bool
    let count: Int
    let dropout: Double

    init(isDeep: Bool, _ settings: MethodSettings) throws {
        try settings.allow("vpt", [settings.$prompts, settings.$dropout])
        self.isDeep = isDeep
        count = settings.prompts ?? 5
        dropout = settings.dropout ?? 0
    }

    let unmergeable: String? = "VPT's prompts are tokens of the sequence, which no weight can stand for"

    func declarations(_ shape: TransformerShape, seed: Int) -> [ParameterStore.Declaration] {
        var random = Initialization(seed, "vpt")
        let d = shape.width
        let bound = (6 / Double(3 * shape.patchSize * shape.patchSize + d)).squareRoot()
        var declared = [
            random.uniform("prompt_embeddings", [1, count, d], bound)
        ]
        if isDeep, shape.depth > 1 {
            declared.append(
                random.uniform("deep_prompt_embeddings", [shape.depth - 1, count, d], bound))
        }
        return declared
    }

    func attach(
        to model: inout Attachments, _ store: ParameterStore, _ arena: Arena, _ backend: any Backend
    ) throws {
        let shape = model.shape
        let front = shape.hasClassToken ? 1 : 0
        model.blocks[0].tokens = TokenEdit(
            prompts: store["prompt_embeddings"]!, offset: 0, count: count, removed: 0, front: front,
            dropout: dropout)
        if let deep = store["deep_prompt_embeddings"] {
            for block in 1..<shape.depth {
                model.blocks[block].tokens = TokenEdit(
                    prompts: deep, offset: (block - 1) * count * shape.width, count: count, removed: count,
                    front: front, dropout: dropout)
            }
        }
    }
}
