"""Makes the fixtures beside it: tiny vision transformers and adapters, written by the tools that users have,
with the logits that those tools compute.

    pip install torch timm==1.0.31 transformers==5.23.0 peft==0.21.2 safetensors numpy
    python make_fixtures.py

Every model: width 24, depth 2, 2 heads, MLP 36 (ratio 1.5), 16-pixel images, patches of 8, 5 classes, eps 1e-5.
inputs.safetensors holds x [2, 3, 16, 16] and x24 [2, 3, 24, 24]; logits.safetensors what each case makes of them.
"""

import json
import shutil
from functools import partial
from pathlib import Path

import numpy as np
import timm
import torch
from peft import GloraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from timm.layers import resample_abs_pos_embed
from timm.models.vision_transformer import VisionTransformer
from transformers import ViTConfig, ViTForImageClassification

here = Path(__file__).parent
torch.manual_seed(0)
mean, std = [0.4, 0.45, 0.5], [0.2, 0.25, 0.3]
arguments = dict(img_size=16, patch_size=8, num_classes=5, embed_dim=24, depth=2, num_heads=2, mlp_ratio=1.5)
logits = {}


def model(**changes):
    """A ViT whose every number matters: nothing is zero or one as an initialisation would have it."""
    eps = changes.pop("eps", 1e-5)
    vit = VisionTransformer(**{**arguments, **changes}, norm_layer=partial(torch.nn.LayerNorm, eps=eps)).eval()
    with torch.no_grad():
        for name, value in vit.named_parameters():
            spread = 0.1 if value.ndim == 1 else 0.3 / value[0].numel() ** 0.5 * 2
            value.copy_(torch.randn_like(value) * spread + (1 if "norm" in name and name.endswith("weight") else 0))
    return vit


def folder(name):
    path = here / name
    shutil.rmtree(path, ignore_errors=True)
    path.mkdir()
    return path


def save_timm(name, vit, **model_args):
    path = folder(name)
    save_file(vit.state_dict(), path / "model.safetensors", metadata={"format": "pt"})
    config = {
        "architecture": "vision_transformer", "num_classes": 5, "num_features": 24,
        "global_pool": vit.global_pool,
        "model_args": {"img_size": 16, "patch_size": 8, "embed_dim": 24, "depth": 2, "num_heads": 2,
                       "mlp_ratio": 1.5, "qkv_bias": True, "norm_eps": 1e-05, **model_args},
        "pretrained_cfg": {"input_size": [3, 16, 16], "mean": mean, "std": std, "num_classes": 5},
    }
    (path / "config.json").write_text(json.dumps(config, indent=2) + "\n")


x = torch.randn(2, 3, 16, 16)
x24 = torch.randn(2, 3, 24, 24)
save_file({"x": x, "x24": x24}, here / "inputs.safetensors")

with torch.no_grad():
    # timm, class token
    vit = model()
    save_timm("timm", vit)
    logits["timm"] = vit(x)

    # timm, mean of the patches, then fc_norm
    pooled = model(global_pool="avg")
    save_timm("timm-mean", pooled, global_pool="avg")
    logits["timm-mean"] = pooled(x)

    # the first model for 24-pixel images
    wide = model(img_size=24)
    state = vit.state_dict()
    state["pos_embed"] = resample_abs_pos_embed(state["pos_embed"], [3, 3])
    wide.load_state_dict(state)
    logits["timm-24"] = wide(x24)
    logits["timm-24.pos_embed"] = state["pos_embed"]
    # a grid of 7 to grids of 5 and 16: down and far up
    grid = torch.randn(1, 1 + 49, 4)
    logits["grid-7"] = grid
    for size in [5, 16]:
        logits[f"grid-7.to-{size}"] = resample_abs_pos_embed(grid, [size, size])

    # Hugging Face
    hf = ViTForImageClassification(ViTConfig(
        hidden_size=24, num_hidden_layers=2, num_attention_heads=2, intermediate_size=36, image_size=16,
        patch_size=8, num_labels=5, layer_norm_eps=1e-5)).eval()
    for name, value in hf.named_parameters():
        spread = 0.1 if value.ndim == 1 else 0.6 / value[0].numel() ** 0.5
        value.copy_(torch.randn_like(value) * spread + (1 if "layernorm" in name and name.endswith("weight") else 0))
    path = folder("huggingface")
    hf.save_pretrained(path)
    (path / "preprocessor_config.json").write_text(json.dumps({
        "do_normalize": True, "image_mean": mean, "image_std": std, "image_processor_type": "ViTImageProcessor",
        "size": {"height": 16, "width": 16}}, indent=2) + "\n")
    logits["huggingface"] = hf(x).logits

    # Google's npz, read by timm; eps 1e-6 there
    heads, width = 2, 24
    npz = {}

    def put(name, *shape):
        scale = 0.1 if len(shape) == 1 else 0.6 / np.prod(shape[:-1]) ** 0.5
        npz[name] = np.random.default_rng(len(npz)).normal(0, scale, shape).round(3).astype(np.float32)
        if name.endswith("scale"):
            npz[name] += 1

    put("cls", 1, 1, width)
    put("embedding/kernel", 8, 8, 3, width), put("embedding/bias", width)
    put("Transformer/posembed_input/pos_embedding", 1, 5, width)
    put("Transformer/encoder_norm/scale", width), put("Transformer/encoder_norm/bias", width)
    put("head/kernel", width, 5), put("head/bias", 5)
    for index in range(2):
        block = f"Transformer/encoderblock_{index}/"
        for norm in ["LayerNorm_0", "LayerNorm_2"]:
            put(block + norm + "/scale", width), put(block + norm + "/bias", width)
        attention = block + "MultiHeadDotProductAttention_1/"
        for name in ["query", "key", "value"]:
            put(attention + name + "/kernel", width, heads, width // heads)
            put(attention + name + "/bias", heads, width // heads)
        put(attention + "out/kernel", heads, width // heads, width), put(attention + "out/bias", width)
        put(block + "MlpBlock_3/Dense_0/kernel", width, 36), put(block + "MlpBlock_3/Dense_0/bias", 36)
        put(block + "MlpBlock_3/Dense_1/kernel", 36, width), put(block + "MlpBlock_3/Dense_1/bias", width)
    np.savez_compressed(here / "google.npz", **npz)
    google = model(eps=1e-6)
    google.load_pretrained(str(here / "google.npz"))
    logits["google"] = google(x)

# PEFT's adapters on the first model, every tensor perturbed; merged weights too
forms = {
    "peft-lora": dict(config_A_B="lora", config_C="lora", config_D_E="vector"),
    "peft-vector": dict(config_A_B="vector", config_C="vector", config_D_E="constant"),
    "peft-constant": dict(config_A_B="constant", config_C="none", config_D_E="none"),
    "peft-none": dict(config_A_B="none", config_C="vector", config_D_E="vector"),
}
for name, form in forms.items():
    base = model()
    base.load_state_dict(vit.state_dict())
    targets = ["qkv", "fc1"] if name == "peft-none" else ["qkv", "proj", "fc1", "fc2"]
    # "proj" would match the patch embedding, a convolution
    targets = r"blocks\.\d+\..*(" + "|".join(targets) + ")"
    adapted = get_peft_model(base, GloraConfig(r=2, target_modules=targets, modules_to_save=["head"], **form)).eval()
    with torch.no_grad():
        for key, value in adapted.named_parameters():
            if value.requires_grad:
                value.add_(torch.randn_like(value) * 0.2)
        path = folder(name)
        adapted.save_pretrained(path)
        (path / "README.md").unlink(missing_ok=True)
        logits[name] = adapted(x)
        merged = adapted.merge_and_unload().state_dict()
        for key in ["blocks.0.attn.qkv", "blocks.1.mlp.fc1"]:
            for kind in ["weight", "bias"]:
                logits[f"{name}.{key}.{kind}"] = merged[f"{key}.{kind}"]

save_file({key: value.contiguous() for key, value in logits.items()}, here / "logits.safetensors")
