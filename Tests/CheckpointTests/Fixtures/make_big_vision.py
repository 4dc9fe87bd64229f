"""Prints timm's logits of the model in google.npz as big_vision's newer files hold it: blocks stacked, and positions
of the patches alone. ViTCheckpointTests makes the same file and has these numbers.

    pip install torch timm==1.0.31 safetensors numpy
    python make_big_vision.py
"""

import tempfile
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file
from timm.models.vision_transformer import VisionTransformer

here = Path(__file__).parent
arrays = dict(np.load(here / "google.npz"))
stacked = {}
for name, value in arrays.items():
    new = name.replace("Attention_1", "Attention_0").replace("LayerNorm_2", "LayerNorm_1").replace("Block_3", "Block_0")
    if "encoderblock_0" in name:
        other = arrays[name.replace("block_0", "block_1")]
        stacked["params/" + new.replace("block_0", "block")] = np.stack([value, other])
    elif name.endswith("pos_embedding"):
        stacked["params/pos_embedding"] = value[:, 1:]
    elif "encoderblock" not in name:
        stacked["params/" + new] = value
model = VisionTransformer(
    img_size=16, patch_size=8, num_classes=5, embed_dim=24, depth=2, num_heads=2, mlp_ratio=1.5, no_embed_class=True,
).eval()
with tempfile.TemporaryDirectory() as folder, torch.no_grad():
    np.savez(Path(folder) / "model.npz", **stacked)
    model.load_pretrained(str(Path(folder) / "model.npz"))
    print(model(load_file(here / "inputs.safetensors")["x"]).flatten().tolist())
