"""Writes Sources/Checkpoints/TimmArchitectures.swift from timm's own registry.

    pip install torch timm==1.0.31
    python Scripts/timm_architectures.py

Builds every architecture of timm's vision transformers with random weights and asks its modules what no tensor
shows. Stops at one that this program doesn't compute and whose name has none of the words below.
"""

import warnings
from pathlib import Path

import timm
import torch
from timm.models._registry import _deprecated_models
from torch import nn

warnings.filterwarnings("ignore")

# Words of the names of architectures that compute something else, the first that fits.
DIFFERENT = [
    ("rpn", "puts each LayerNorm behind its attention or MLP"),
    ("aimv2", "has a norm of its patches"),
    ("beit3", "has a LayerNorm inside a feed-forward layer without a gate"),
    ("beit", "has relative positions"),
    ("eva02_enormous", "puts each LayerNorm behind its attention or MLP"),
    ("_xp_", "runs attention and MLP in parallel"),
    ("18x2", "runs two blocks in parallel"),
    ("dlittle", "has differential attention"),
    ("dwee", "has differential attention"),
    ("dpwee", "has differential attention"),
    ("wee", "runs attention and MLP in parallel"),
    ("rope_mixed", "has rotary positions that are learned"),
    ("sapiens2", "shares keys and values among heads"),
    ("relpos", "has relative positions"),
    ("samvit", "attends within windows"),
    ("naflex", "takes images of any proportions"),
    ("resnet", "has a ResNet before its blocks"),
    ("_r26_", "has a ResNet before its blocks"),
    ("_r50_", "has a ResNet before its blocks"),
    ("_r_s16", "has a ResNet before its blocks"),
    ("_mci_", "has a stem of convolutions"),
]

MODULES = ["vision_transformer", "deit", "eva", "beit", "vision_transformer_hybrid", "vision_transformer_relpos",
           "vision_transformer_sam", "naflexvit"]


ACTIVATIONS = {
    ("GELU", "none"): "gelu", ("GELU", "tanh"): "geluTanh", ("GELUTanh", "none"): "geluTanh",
    ("QuickGELU", "none"): "quickGELU", ("SiLU", "none"): "silu",
}


def rotary(rope, half):
    """The Swift text of a RotaryGrid, or None for one that this program doesn't compute."""
    layout, first = "halves" if half else "interleaved", str(rope.grid_indexing == "xy").lower()
    if type(rope).__name__ == "RotaryEmbeddingDinoV3":
        if rope.normalize_coords != "separate" or rope.grid_offset or rope.min_period is not None:
            return None
        coordinates = ".centered"
    elif type(rope).__name__ == "RotaryEmbeddingCat":
        if rope.in_pixels or rope.grid_type != "index":
            return None
        reference = rope.ref_feat_shape[0] if rope.ref_feat_shape else "nil"
        coordinates = f".index(offset: {rope.grid_offset:g}, reference: {reference})"
    else:
        return None
    return (f"RotaryGrid(temperature: {rope.temperature:g}, layout: .{layout}, coordinates: {coordinates}, "
            f"startsWithColumn: {first})")


def settings(name):
    """What no tensor shows of an architecture that this program computes, or None."""
    with torch.device("meta"):
        try:
            model = timm.create_model(name, depth=1)
        except (TypeError, AssertionError):  # no depth of its own, or one list entry a block
            model = timm.create_model(name)
    isEva = type(model).__name__ == "Eva"
    if type(model).__name__ not in ("Eva", "VisionTransformer", "VisionTransformerDistilled"):
        return None
    block = model.blocks[0]
    if type(block).__name__ not in ("Block", "EvaBlock") or model.global_pool not in ("token", "avg", "map"):
        return None
    attention, mlp, pool = block.attn, block.mlp, model.attn_pool
    norms = [m for m in model.modules() if "Norm" in type(m).__name__]
    if type(mlp).__name__ == "SwiGLU":
        act, approximate = mlp.act, "none"
    else:
        act, approximate = mlp.act, getattr(mlp.act, "approximate", "none")
    activation = ACTIVATIONS.get((type(act).__name__, approximate))
    isIdentity = lambda m: isinstance(m, nn.Identity)
    same = (
        type(attention).__name__ in ("Attention", "EvaAttention", "AttentionRope")
        and type(mlp).__name__ in ("Mlp", "GluMlp", "SwiGLU") and activation
        and (type(mlp).__name__ != "GluMlp" or not mlp.gate_last)
        and (type(mlp).__name__ == "SwiGLU" or isIdentity(mlp.norm))
        and len({(type(n).__name__, getattr(n, "eps", None)) for n in norms}) == 1
        and type(model.patch_embed).__name__ == "PatchEmbed" and isIdentity(model.patch_embed.norm)
        and isIdentity(attention.q_norm) and isIdentity(attention.k_norm)
        and getattr(attention, "gate", None) is None
        and getattr(attention, "num_kv_heads", attention.num_heads) == attention.num_heads
        and (pool is None or type(pool).__name__ == "AttentionPoolLatent"
             and pool.latent_len == 1 and isIdentity(pool.q_norm) and pool.pos_embed is None
             and type(pool.mlp.act) is type(act))
        and (pool is not None or not getattr(model, "pool_include_prefix", False))
    )
    if not same:
        return None
    rope = getattr(model, "rope", None)
    grid = rotary(rope, getattr(attention, "rotate_half", False)) if rope is not None else "nil"
    if grid is None:
        return None
    poolsPrefix = pool is not None and (isEva or model.pool_include_prefix)
    positions = "none" if model.pos_embed is None else "patches" if model.no_embed_class else "allTokens"
    poolHeads = pool.num_heads if pool is not None and pool.num_heads != attention.num_heads else "nil"
    isRMS = type(norms[0]).__name__ == "RmsNorm"
    hasFinalNorm = not (isIdentity(model.norm) and isIdentity(model.fc_norm))
    return (isEva, attention.num_heads, model.global_pool, norms[0].eps, activation, positions, grid, str(poolHeads),
            poolsPrefix, isRMS, hasFinalNorm)


groups = {}
for module in MODULES:
    for name in timm.list_models(module=module):
        facts = settings(name)
        if facts:
            groups.setdefault(facts, []).append(name)
        else:
            assert any(word in name for word, _ in DIFFERENT), f"{name} needs a word"
known = {name: facts for facts, names in groups.items() for name in names}
for old, new in _deprecated_models.items():
    facts = known.get(str(new).split(".")[0])
    if facts and old not in known:
        groups[facts].append(old)


def wrapped(names):
    lines, line = [], ""
    for name in sorted(set(names)):
        if len(line) + len(name) > 96:
            lines.append(line)
            line = ""
        line += (" " if line else "") + name
    return "\n".join("            " + line for line in lines + [line])


def arguments(eva, heads, pooling, epsilon, activation, positions, grid, pool, prefix, rms, last):
    """The Swift arguments of a Settings, those that aren't a plain ViT's."""
    said = ["isEva: true"] if eva else []
    said += [f"heads: {heads}", f'pooling: "{pooling}"']
    said += [f"epsilon: {epsilon:.0e}"] if epsilon != 1e-6 else []
    said += [f"activation: .{activation}"] if activation != "gelu" else []
    said += [f"positions: .{positions}"] if positions != "allTokens" else []
    said += [f"rotary: {grid}"] if grid != "nil" else []
    said += [f"poolHeads: {pool}"] if pool != "nil" else []
    said += ["poolsPrefix: true"] * prefix + ["norm: .rms"] * rms + ["hasFinalNorm: false"] * (not last)
    return ", ".join(said)


text = f"""// Written by Scripts/timm_architectures.py from timm {timm.__version__}; change that.

import ModelConfiguration
import TensorCore

/// What timm's names of architectures mean, where no tensor shows it.
enum TimmArchitectures {{
    /// What an architecture of this program's kind does; what isn't said is a plain ViT's.
    struct Settings {{
        /// Whether the class is `Eva`, and not `VisionTransformer`.
        var isEva = false
        var heads: Int
        /// `token`, `avg` or `map`.
        var pooling: String
        /// ε of the norms.
        var epsilon: Float = 1e-6
        var activation = Activation.gelu
        var positions = ViTConfiguration.Positions.allTokens
        var rotary: RotaryGrid?
        /// The heads of a pooling by attention, where they aren't as many as the blocks'.
        var poolHeads: Int?
        /// Whether a pooling by attention reads the tokens in front of the patches, too.
        var poolsPrefix = false
        var norm = ViTConfiguration.Normalization.layer
        /// Whether there is a norm behind the blocks.
        var hasFinalNorm = true
    }}

    /// The architectures that this program computes. Names that timm gave up are among them.
    static let known: [String: Settings] = {{
        var table: [String: Settings] = [:]
        for (settings, names) in groups {{
            for name in names.split(whereSeparator: \\.isWhitespace) {{ table[String(name)] = settings }}
        }}
        return table
    }}()

    /// What another architecture does that this program doesn't compute; nil for a name that timm doesn't have.
    static func difference(_ name: String) -> String? {{
        known[name] == nil ? differences.first {{ name.contains($0.word) }}?.meaning : nil
    }}

    private static let groups: [(settings: Settings, names: String)] = [
""" + "\n".join(
    f"""        (
            Settings({arguments(*facts)}),
            \"\"\"
{wrapped(names)}
            \"\"\"
        ),"""
    for facts, names in sorted(groups.items())
) + """
    ]

    /// Words of the names of all others, the first that fits.
    private static let differences: [(word: String, meaning: String)] = [
""" + "\n".join(f'        ("{word}", "{meaning}"),' for word, meaning in DIFFERENT) + """
    ]
}
"""
(Path(__file__).parent.parent / "Sources/Checkpoints/TimmArchitectures.swift").write_text(text)
