import Adapters
import Datasets
import TensorCore

// As run folders and adapters hold it. What a plain ViT hasn't is left out where it is off, so that what older versions wrote is read, and
// they read what they can compute.

extension ViTConfiguration: Codable {
    private enum CodingKeys: String, CodingKey {
        case imageSize, patchSize, channels, width, depth, heads, hiddenWidth, classCount, layerNormEpsilon
        case qkvBias, hasClassToken, pooling, preprocessing
        case activation, layerScale, registers, positions, patchBias, normBeforeBlocks
        case norm, queries, keyBias, attentionNorm, queryKeyNorm, gate, rotary, poolingHeads, poolsPrefix
    }

    /// What a gated feed-forward layer has besides its activation.
    private struct Gate: Codable {
        var isPacked: Bool
        var hasNorm: Bool
    }

    public init(from decoder: any Decoder) throws {
        let values = try decoder.container(keyedBy: CodingKeys.self)
        self.init(
            imageSize: try values.decode(Int.self, forKey: .imageSize),
            patchSize: try values.decode(Int.self, forKey: .patchSize),
            width: try values.decode(Int.self, forKey: .width),
            depth: try values.decode(Int.self, forKey: .depth),
            heads: try values.decode(Int.self, forKey: .heads),
            hiddenWidth: try values.decode(Int.self, forKey: .hiddenWidth),
            classCount: try values.decode(Int.self, forKey: .classCount))
        channels = try values.decode(Int.self, forKey: .channels)
        layerNormEpsilon = try values.decode(Float.self, forKey: .layerNormEpsilon)
        queryBias = try values.decode(Bool.self, forKey: .qkvBias) ? .all : .none
        hasClassToken = try values.decode(Bool.self, forKey: .hasClassToken)
        pooling = try values.decode(Pooling.self, forKey: .pooling)
        preprocessing = try values.decode(Preprocessing.self, forKey: .preprocessing)
        /// A value that a plain ViT leaves out.
        func read<Value: Decodable>(_ key: CodingKeys, into value: inout Value) throws {
            value = try values.decodeIfPresent(Value.self, forKey: key) ?? value
        }
        var activation = Activation.gelu
        try read(.activation, into: &activation)
        if let gate = try values.decodeIfPresent(Gate.self, forKey: .gate) {
            feedForward = .gated(activation, isPacked: gate.isPacked, hasNorm: gate.hasNorm)
        } else {
            feedForward = .plain(activation)
        }
        try read(.layerScale, into: &layerScale)
        try read(.registers, into: &registers)
        try read(.positions, into: &positions)
        try read(.patchBias, into: &patchBias)
        try read(.normBeforeBlocks, into: &normBeforeBlocks)
        try read(.norm, into: &norm)
        try read(.queries, into: &queries)
        try read(.attentionNorm, into: &attentionNorm)
        try read(.queryKeyNorm, into: &queryKeyNorm)
        try read(.poolingHeads, into: &poolingHeads)
        try read(.poolsPrefix, into: &poolsPrefix)
        rotary = try values.decodeIfPresent(RotaryGrid.self, forKey: .rotary)
        if try values.decodeIfPresent(Bool.self, forKey: .keyBias) == false { queryBias = .withoutKeys }
    }

    public func encode(to encoder: any Encoder) throws {
        var values = encoder.container(keyedBy: CodingKeys.self)
        try values.encode(imageSize, forKey: .imageSize)
        try values.encode(patchSize, forKey: .patchSize)
        try values.encode(channels, forKey: .channels)
        try values.encode(width, forKey: .width)
        try values.encode(depth, forKey: .depth)
        try values.encode(heads, forKey: .heads)
        try values.encode(hiddenWidth, forKey: .hiddenWidth)
        try values.encode(classCount, forKey: .classCount)
        try values.encode(layerNormEpsilon, forKey: .layerNormEpsilon)
        try values.encode(queryBias != .none, forKey: .qkvBias)
        try values.encode(hasClassToken, forKey: .hasClassToken)
        try values.encode(pooling, forKey: .pooling)
        try values.encode(preprocessing, forKey: .preprocessing)
        if feedForward.activation != .gelu { try values.encode(feedForward.activation, forKey: .activation) }
        if layerScale { try values.encode(true, forKey: .layerScale) }
        if registers > 0 { try values.encode(registers, forKey: .registers) }
        if positions != .allTokens { try values.encode(positions, forKey: .positions) }
        if !patchBias { try values.encode(false, forKey: .patchBias) }
        if normBeforeBlocks { try values.encode(true, forKey: .normBeforeBlocks) }
        if norm != .layer { try values.encode(norm, forKey: .norm) }
        if queries != .fused { try values.encode(queries, forKey: .queries) }
        if queryBias == .withoutKeys { try values.encode(false, forKey: .keyBias) }
        if pooling == .attention { try values.encode(poolingHeads, forKey: .poolingHeads) }
        if poolsPrefix { try values.encode(true, forKey: .poolsPrefix) }
        if attentionNorm { try values.encode(true, forKey: .attentionNorm) }
        if queryKeyNorm { try values.encode(true, forKey: .queryKeyNorm) }
        try values.encodeIfPresent(rotary, forKey: .rotary)
        if case .gated(_, let isPacked, let hasNorm) = feedForward {
            try values.encode(Gate(isPacked: isPacked, hasNorm: hasNorm), forKey: .gate)
        }
    }
}
