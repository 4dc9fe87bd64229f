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
    ("siglip", "pools by attention"),
    ("_map_", "pools by attention"),
    ("giant_patch14_dinov2", "has a gated MLP"),
    ("giant_patch14_reg", "has a gated MLP"),
    ("dinov3", "has rotary positions"),
    ("aimv2", "has RMSNorm and a gated MLP"),
    ("beit3", "has LayerNorms within its layers"),
    ("beit", "has relative positions"),
    ("eva02", "has rotary positions"),
    ("eva_giant", "has a qkv bias without keys"),
    ("distilled", "has a distillation token"),
    ("_xp_", "runs attention and MLP in parallel"),
    ("18x2", "runs two blocks in parallel"),
    ("dlittle", "has differential attention"),
    ("dwee", "has differential attention"),
    ("dpwee", "has differential attention"),
    ("wee", "runs attention and MLP in parallel"),
    ("test_vit3", "pools by attention over all tokens"),
    ("test_vit4", "has RMSNorm"),
    ("rope", "has rotary positions"),
    ("vit_pe_", "has rotary positions"),
    ("lingbot", "has rotary positions"),
    ("sapiens2", "has rotary positions"),
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


ACTIVATIONS = {("GELU", "none"): "gelu", ("GELU", "tanh"): "geluTanh", ("GELUTanh", "none"): "geluTanh", ("QuickGELU", "none"): "quickGELU"}


def settings(name):
    """(heads, pooling, eps, activation, whether the patches alone have positions) of an architecture that this program computes, or None."""
    with torch.device("meta"):
        try:
            model = timm.create_model(name, depth=1)
        except (TypeError, AssertionError):  # no depth of its own, or one list entry a block
            model = timm.create_model(name)
    if type(model).__name__ != "VisionTransformer":
        return None
    block = model.blocks[0]
    if type(block).__name__ != "Block":
        return None
    norms = [m for m in model.modules() if "Norm" in type(m).__name__]
    activation = ACTIVATIONS.get((type(block.mlp.act).__name__, getattr(block.mlp.act, "approximate", "none")))
    same = (
        type(block.attn).__name__ == "Attention" and type(block.mlp).__name__ == "Mlp" and activation
        and all(isinstance(n, nn.LayerNorm) for n in norms) and len({n.eps for n in norms}) == 1
        and type(model.patch_embed).__name__ == "PatchEmbed"
        and all(isinstance(m, nn.Identity) for m in [block.attn.q_norm, block.attn.k_norm, block.attn.norm])
        and model.attn_pool is None and not model.pool_include_prefix
        and model.pos_embed is not None and model.global_pool in ("token", "avg")
    )
    return (block.attn.num_heads, model.global_pool, norms[0].eps, activation, model.no_embed_class) if same else None


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


text = f"""// Written by Scripts/timm_architectures.py from timm {timm.__version__}; change that.

import ModelConfiguration
import TensorCore

/// What timm's names of architectures mean, where no tensor shows it.
enum TimmArchitectures {{
    /// What an architecture of this program's kind does.
    struct Settings {{
        var heads: Int
        /// `token` or `avg`.
        var pooling: String
        /// ε of the LayerNorms.
        var epsilon: Float
        var activation: Activation
        var positions: ViTConfiguration.Positions
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
            Settings(
                heads: {heads}, pooling: "{pooling}", epsilon: {epsilon:.0e}, activation: .{activation},
                positions: .{"patches" if alone else "allTokens"}),
            \"\"\"
{wrapped(names)}
            \"\"\"
        ),"""
    for (heads, pooling, epsilon, activation, alone), names in sorted(groups.items())
) + """
    ]

    /// Words of the names of all others, the first that fits.
    private static let differences: [(word: String, meaning: String)] = [
""" + "\n".join(f'        ("{word}", "{meaning}"),' for word, meaning in DIFFERENT) + """
    ]
}
"""
(Path(__file__).parent.parent / "Sources/Checkpoints/TimmArchitectures.swift").write_text(text)
