"""Writes Sources/Checkpoints/TimmArchitectures.swift from timm's own registry.

    pip install torch timm==1.0.31
    python Scripts/timm_architectures.py

Builds every architecture of timm's vision transformers with random weights and asks its modules what no tensor
shows. Stops at one that computes something else than a plain ViT and whose name has none of the words below.
"""

import warnings
from pathlib import Path

import timm
import torch
from timm.models._registry import _deprecated_models
from torch import nn

warnings.filterwarnings("ignore")

# Words of the names of architectures that compute something else.
DIFFERENT = [
    ("rpn", "puts each LayerNorm behind its attention or MLP"),
    ("quickgelu", "has QuickGELU"),
    ("siglip", "has the tanh form of GELU or pools by attention"),
    ("flexivit", "has positions for the patches only"),
    ("dinov2", "has LayerScale"),
    ("dinov3", "has rotary positions"),
    ("tipsv2", "has LayerScale and register tokens"),
    ("radio", "has register tokens"),
    ("_reg", "has register tokens"),
    ("aimv2", "has RMSNorm and a gated MLP"),
    ("beit", "has relative positions or LayerNorms within its layers"),
    ("eva02", "has rotary positions"),
    ("eva_giant", "has a qkv bias without keys"),
    ("clip", "has a LayerNorm before the blocks, and an eps of 1e-5"),
    ("deit3", "has LayerScale"),
    ("distilled", "has a distillation token"),
    ("_xp_", "runs attention and MLP in parallel"),
    ("18x2", "runs two blocks in parallel"),
    ("36x1", "has LayerScale"),
    ("_plus_", "has LayerScale"),
    ("vit_medium_", "has LayerScale"),
    ("vit_betwixt_", "has LayerScale"),
    ("intern300m", "has LayerScale"),
    ("test_vit2", "has LayerScale and register tokens"),
    ("test_vit3", "has LayerScale and register tokens"),
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


def plain(name):
    """(heads, pooling) of a plain ViT, or None."""
    with torch.device("meta"):
        try:
            model = timm.create_model(name, depth=1)
        except (TypeError, AssertionError):  # no depth of its own, or one list entry a block
            model = timm.create_model(name)
    if type(model).__name__ != "VisionTransformer":
        return None
    block = model.blocks[0]
    norms = [m for m in model.modules() if "Norm" in type(m).__name__]
    same = (
        type(block).__name__ == "Block" and type(block.mlp).__name__ == "Mlp"
        and isinstance(block.mlp.act, nn.GELU | timm.layers.GELU)
        and getattr(block.mlp.act, "approximate", "none") == "none"
        and all(isinstance(n, nn.LayerNorm) and n.eps == 1e-6 for n in norms)
        and type(model.patch_embed).__name__ == "PatchEmbed" and model.patch_embed.proj.bias is not None
        and all(isinstance(m, nn.Identity) for m in
                [model.norm_pre, block.ls1, block.ls2, block.attn.q_norm, block.attn.k_norm, block.attn.norm])
        and not model.no_embed_class and model.reg_token is None and model.attn_pool is None
        and model.pos_embed is not None and model.global_pool in ("token", "avg")
    )
    return (block.attn.num_heads, model.global_pool) if same else None


groups = {}
for module in MODULES:
    for name in timm.list_models(module=module):
        facts = plain(name)
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

/// What timm's names of architectures mean, where no tensor shows it.
enum TimmArchitectures {{
    /// An architecture that is a plain ViT: exact GELU, LayerNorms before attention and MLP, eps 1e-6.
    struct Plain {{
        var heads: Int
        /// `token` or `avg`.
        var pooling: String
    }}

    /// The architectures that are plain ViTs. Names that timm gave up are among them.
    static let plain: [String: Plain] = {{
        var table: [String: Plain] = [:]
        for (heads, pooling, names) in groups {{
            for name in names.split(whereSeparator: \\.isWhitespace) {{
                table[String(name)] = Plain(heads: heads, pooling: pooling)
            }}
        }}
        return table
    }}()

    /// What another architecture does that this program doesn't compute; nil for a name that timm doesn't have.
    static func difference(_ name: String) -> String? {{
        plain[name] == nil ? differences.first {{ name.contains($0.word) }}?.meaning : nil
    }}

    private static let groups: [(heads: Int, pooling: String, names: String)] = [
""" + "\n".join(
    f'        (\n            {heads}, "{pooling}",\n            """\n{wrapped(names)}\n            """\n        ),'
    for (heads, pooling), names in sorted(groups.items())
) + """
    ]

    /// Words of the names of all others, the first that fits.
    private static let differences: [(word: String, meaning: String)] = [
""" + "\n".join(f'        ("{word}", "{meaning}"),' for word, meaning in DIFFERENT) + """
    ]
}
"""
(Path(__file__).parent.parent / "Sources/Checkpoints/TimmArchitectures.swift").write_text(text)
