"""Makes the adapters in peft/ beside it, by PEFT on the models that make_fixtures.py made, and the logits that PEFT gives with
each of them loaded again.

    pip install torch timm==1.0.31 transformers==5.24.0 peft==0.21.2 safetensors
    python make_peft_fixtures.py

peft/logits.safetensors holds the logits of inputs.safetensors' x by the adapters' names.
"""

import json
import shutil
from functools import partial
from pathlib import Path

import torch
from peft import GloraConfig, LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from timm.models.vision_transformer import VisionTransformer
from transformers import ViTForImageClassification

here = Path(__file__).parent
shutil.rmtree(here / "peft", ignore_errors=True)
torch.manual_seed(0)
x = load_file(here / "inputs.safetensors")["x"]
logits = {}


def timm(classes):
    vit = VisionTransformer(
        img_size=16, patch_size=8, num_classes=classes, embed_dim=24, depth=2, num_heads=2, mlp_ratio=1.5,
        norm_layer=partial(torch.nn.LayerNorm, eps=1e-5))
    vit.load_state_dict(load_file(here / "timm/model.safetensors"), strict=classes == 5)
    return vit.eval()


def hugging_face(classes):
    return ViTForImageClassification.from_pretrained(
        here / "huggingface", num_labels=classes, ignore_mismatched_sizes=True).eval()


def adapter(name, model, config, classes=5, **changes):
    """Every trained number is drawn; `changes` are made to the saved configuration before PEFT reads it."""
    adapted = get_peft_model(model(classes), config).eval()
    with torch.no_grad():
        for value in adapted.parameters():
            if value.requires_grad:
                value.copy_(torch.randn_like(value) * 0.3)
    path = here / "peft" / name
    adapted.save_pretrained(path)
    (path / "README.md").unlink()
    settings = json.loads((path / "adapter_config.json").read_text())
    settings["base_model_name_or_path"] = None
    (path / "adapter_config.json").write_text(json.dumps({**settings, **changes}, indent=2) + "\n")
    with torch.no_grad():
        result = PeftModel.from_pretrained(model(classes), path).eval()(x)
    logits[name] = result if isinstance(result, torch.Tensor) else result.logits


linears = r"blocks\.\d+\.(attn\.qkv|mlp\.fc1)"
# Two patterns match block 1's qkv, and the first of the file counts; PEFT itself writes them sorted.
adapter("lora-patterns", timm, LoraConfig(
    r=2, lora_alpha=4, target_modules=linears, use_rslora=True, rank_pattern={"fc1": 3, "nothing": 1}),
    alpha_pattern={"^blocks.0.attn.qkv": 9, "blocks.1": 2, r"blocks\.1\..*": 6, "(qkv|proj)": 3})
adapter("lora-bias", timm, LoraConfig(r=2, lora_alpha=3, target_modules=linears, lora_bias=True))
adapter("lora-layers", timm, LoraConfig(
    r=2, target_modules=["qkv", "fc1", "fc2", "blocks.0.mlp.fc2"], layers_to_transform=[1], layers_pattern="blocks",
    exclude_modules=["mlp.fc1"], init_lora_weights="gaussian"))
adapter("hf-lora", hugging_face, LoraConfig(
    r=2, target_modules=["q_proj", "v_proj", "o_proj"], rank_pattern={"v_proj": 1}, modules_to_save=["classifier"]), 3)
adapter("hf-all-linear", hugging_face, LoraConfig(
    r=1, target_modules="all-linear", modules_to_save=["classifier"]), target_modules="all-linear")
for forms in ["lora", "vector", "constant"]:
    adapter(f"hf-glora-{forms}", hugging_face, GloraConfig(
        r=2, target_modules=["q_proj", "v_proj", "fc1"] if forms != "constant" else ["q_proj", "k_proj", "v_proj"],
        config_A_B=forms, config_C="none" if forms == "constant" else forms,
        config_D_E="constant" if forms == "constant" else "vector"))

save_file({key: value.contiguous() for key, value in logits.items()}, here / "peft/logits.safetensors")
