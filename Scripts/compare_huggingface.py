"""Run by Scripts/compare-huggingface: transformers, timm and PEFT against ours, from the same files."""

import argparse
import copy
import json
import math
import shutil
import subprocess
import sys
import tempfile
import warnings
from pathlib import Path

import numpy
import peft
import timm
import torch
import transformers
from PIL import Image
from safetensors.torch import load_file, save_file
from timm.models._hub import save_for_hf

warnings.filterwarnings("ignore")
transformers.logging.set_verbosity_error()
transformers.logging.disable_progress_bar()
torch.set_num_threads(1)
BOUND = 2e-5
SIDE = 32  # of the images; patches are of 8 pixels, so that there are 16
CLASSES = ["ant", "bee", "cat"]
RUNS = {"glora": ["--path", "full"], "lora": ["--method", "lora"], "lora-all": ["--method", "lora", "--targets", "all"]}


class Refusal(Exception):
    """A sentence of glora's."""


class Difference(Exception):
    """What is not as it should be."""


class Absence(Exception):
    """What a library doesn't have or can't do."""


def randomise(model, seed):
    """Numbers for everything, norms, layer scales and tables too, so that nothing is left out unnoticed."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            if "norm" in name and name.endswith("weight") or "gamma" in name or "lambda" in name:
                parameter.copy_(1 + 0.3 * noise)
            elif parameter.ndim >= 2 and name.endswith("weight"):
                parameter.copy_(noise / math.sqrt(parameter[0].numel()))
            else:
                parameter.copy_(0.3 * noise)
    return model.eval()


# MARK: Images


def write_images(folder, count, seed, side=SIDE):
    """Random pixels of the model's own size, so that preparing them is normalising them."""
    folder.mkdir(parents=True)
    generator = numpy.random.default_rng(seed)
    pixels = []
    for index in range(count):
        array = generator.integers(0, 256, (side, side, 3), dtype=numpy.uint8)
        Image.fromarray(array).save(folder / f"{index}.png")
        pixels.append(array)
    return numpy.stack(pixels)


class Data:
    """An ImageFolder of three classes, and other images to predict."""

    def __init__(self, folder, side=SIDE):
        self.task = folder / "task"
        for index, name in enumerate(CLASSES):
            write_images(self.task / "train" / name, 4, index)
            write_images(self.task / "val" / name, 1, 10 + index)
        self.images = folder / "images"
        self.pixels = write_images(self.images, 3, 20, side)
        # Of another shape, to see what an image processor does.
        array = numpy.random.default_rng(30).integers(0, 256, (45, 61, 3), dtype=numpy.uint8)
        self.odd = Image.fromarray(array)

    def normalised(self, mean, std):
        x = torch.from_numpy(self.pixels).permute(0, 3, 1, 2).double() / 255
        mean, std = (torch.tensor(values, dtype=torch.float64).reshape(1, 3, 1, 1) for values in (mean, std))
        return (x - mean) / std


# MARK: glora


class Glora:
    def __init__(self, binary, device):
        self.binary, self.device = binary, device

    def __call__(self, command, *arguments):
        line = [self.binary, command, *map(str, arguments), "--device", self.device]
        run = subprocess.run(line, capture_output=True, text=True)
        if run.returncode != 0:
            lines = run.stderr.strip().splitlines() or ["not a word"]
            if 0 < run.returncode < 128 and lines[-1].startswith("Error: "):
                raise Refusal(f"{command}: {lines[-1]}")
            # Not the last line of what Swift prints about a crash, but what crashed.
            lines = [line for line in lines if "Fatal error" in line or "Program crashed" in line] or lines[-1:]
            raise Difference(f"{command} ended with {run.returncode}: {lines[0]}")
        return run.stdout + run.stderr

    def logits(self, folder, data, *source, labels=None):
        output = folder / "predictions.jsonl"
        output.unlink(missing_ok=True)
        self("predict", *source, "--data", data.images, "--output", output, "--logits")
        rows = [json.loads(line) for line in output.read_text().splitlines()]
        for row in rows:
            if labels and row["class"] != labels[numpy.argmax(row["logits"])]:
                raise Difference(f"the class of {row['path']} is called {row['class']}")
        return numpy.array([row["logits"] for row in sorted(rows, key=lambda row: row["path"])])

    def tokens(self, folder, data, *source):
        """What a head would read, and the last layer's tokens."""
        output = folder / "features.safetensors"
        output.unlink(missing_ok=True)
        self("predict", *source, "--data", data.images, "--features", output, "--tokens")
        tensors = load_file(output)
        return tensors["features"].numpy(), tensors["tokens"].numpy()


def relative_error(ours, theirs):
    theirs = theirs.detach().numpy() if isinstance(theirs, torch.Tensor) else theirs
    if ours.shape != theirs.shape:
        raise Difference(f"shapes {ours.shape} and {theirs.shape}")
    error = float(numpy.abs(ours - theirs).max() / numpy.abs(theirs).max())
    if not error < BOUND:
        raise Difference(f"differs by {error:.1e} of the largest number")
    return error


# MARK: Models of transformers


def vision(config_class, depth, **settings):
    """The configuration of a small model. What it doesn't know by one word it knows by another."""
    words = {"hidden_size": 48, "num_hidden_layers": depth, "num_attention_heads": 3, "image_size": SIDE, "patch_size": 8}
    if "mlp_ratio" in config_class().to_dict():
        words["mlp_ratio"] = 2
    else:
        words["intermediate_size"] = 96
    return config_class(**{**words, **settings})


def both(config_class, vision_config):
    text = dict(vocab_size=50, hidden_size=48, intermediate_size=96, num_hidden_layers=1, num_attention_heads=3,
                max_position_embeddings=8, bos_token_id=1, eos_token_id=2, pad_token_id=0, projection_size=48)
    return config_class(text_config=text, vision_config=vision_config.to_dict(), projection_dim=48)


FAMILIES = {  # configuration, mean and std that its files say
    "vit": (transformers.ViTConfig, [0.5] * 3, [0.5] * 3),
    "deit": (transformers.DeiTConfig, [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]),
    "dinov2": (transformers.Dinov2Config, [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]),
    "dinov2_with_registers": (transformers.Dinov2WithRegistersConfig, [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]),
    "dinov3": (transformers.DINOv3ViTConfig, [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]),
    "clip": (transformers.CLIPVisionConfig, [0.481, 0.457, 0.408], [0.268, 0.261, 0.275]),
    "siglip": (transformers.SiglipVisionConfig, [0.5] * 3, [0.5] * 3),
    "vit_mae": (transformers.ViTMAEConfig, [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]),
}


def processor(family):
    """The family's own image processor, which makes an image of the model's side."""
    _, mean, std = FAMILIES[family]
    square, edge = {"height": SIDE, "width": SIDE}, {"shortest_edge": SIDE}
    common = {"image_mean": mean, "image_std": std}
    if family in ("dinov2", "dinov2_with_registers"):
        return transformers.BitImageProcessor(size=edge, crop_size=square, resample=3, **common)
    if family == "dinov3":
        return transformers.DINOv3ViTImageProcessor(size=square, **common)
    if family == "clip":
        return transformers.CLIPImageProcessor(size=edge, crop_size=square, **common)
    if family == "siglip":
        return transformers.SiglipImageProcessor(size=square, **common)
    if family == "deit":
        return transformers.DeiTImageProcessor(size=square, crop_size=square, **common)
    return transformers.ViTImageProcessor(size=square, **common)


class TransformersModel:
    """A class of transformers with random values."""

    def __init__(self, name, family, depth, labels=None, own_names=False, **settings):
        self.family, self.own_names = family, own_names
        self.mean, self.std = FAMILIES[family][1:]
        config = vision(FAMILIES[family][0], depth, **settings)
        self.has_text = family in ("clip", "siglip") and "Vision" not in name
        if self.has_text:
            config = both(getattr(transformers, "CLIPConfig" if family == "clip" else "SiglipConfig"), config)
        if labels:
            config.id2label = dict(enumerate(labels))
            config.label2id = {label: index for index, label in enumerate(labels)}
        self.name = name
        self.model = randomise(getattr(transformers, name)(config), len(name))

    def save(self, folder):
        self.model.save_pretrained(folder)
        processor(self.family).save_pretrained(folder)
        if self.own_names:  # not the ones that transformers translates them into for its older versions
            save_file({name: tensor.contiguous() for name, tensor in self.model.state_dict().items()},
                      folder / "model.safetensors", {"format": "pt"})
        return folder

    def logits(self, data):
        with torch.no_grad():
            return self.model.double()(pixel_values=data.normalised(self.mean, self.std), **self.words(data)).logits

    def words(self, data):
        """What some classes must be told about images of another size; the others see it."""
        if data.pixels.shape[1] == SIDE or self.family.startswith("dino"):
            return {}
        return {"interpolate_pos_encoding": True}

    def tokens(self, data):
        """(what the class with a head would read, the last layer's tokens)"""
        x = data.normalised(self.mean, self.std)
        inner = self.model.double()
        if self.has_text:
            inner = inner.vision_model
        for part in ("vit", "deit", "vision_model"):  # not the reconstruction or the projection on top
            inner = getattr(inner, part, inner)
        words = self.words(data)
        if self.family == "vit_mae":  # all patches, in their order
            inner.config.mask_ratio = 0.0
            words["noise"] = torch.arange(16).double().repeat(len(x), 1)
        with torch.no_grad():
            tokens = inner(x, **words)
        if hasattr(tokens, "feature_maps"):  # a backbone's last stage, normalised, without other tokens
            return None, tokens.feature_maps[-1].flatten(2).transpose(1, 2)
        tokens = tokens.last_hidden_state
        if self.family.startswith("dinov2"):
            patches = tokens[:, tokens.shape[1] - (data.pixels.shape[1] // 8) ** 2:]
            return torch.cat([tokens[:, 0], patches.mean(1)], 1), tokens
        if self.family == "clip":
            return tokens[:, 1:].mean(1), tokens
        return (tokens.mean(1) if self.family == "siglip" else tokens[:, 0]), tokens


def class_cases():
    """name of the row: (class, family, settings); a name with a colon is a class with other settings than usual."""
    for own in (False, True):
        suffix = ": its own names" if own else ""
        for name, family in [
            ("ViTForImageClassification", "vit"), ("ViTModel", "vit"), ("ViTForMaskedImageModeling", "vit"),
            ("ViTMAEModel", "vit_mae"), ("DeiTForImageClassification", "deit"), ("DeiTModel", "deit"),
            ("Dinov2ForImageClassification", "dinov2"), ("Dinov2Model", "dinov2"),
            ("Dinov2WithRegistersForImageClassification", "dinov2_with_registers"),
            ("Dinov2WithRegistersModel", "dinov2_with_registers"),
            ("CLIPVisionModel", "clip"), ("CLIPVisionModelWithProjection", "clip"),
            ("CLIPForImageClassification", "clip"), ("CLIPModel", "clip"),
            ("SiglipVisionModel", "siglip"), ("SiglipForImageClassification", "siglip"), ("SiglipModel", "siglip"),
        ]:
            yield name + suffix, (name, family, {"own_names": own})
        for count in (0, 4):
            yield f"DINOv3ViTModel: {count} registers{suffix.replace(':', ',')}", (
                "DINOv3ViTModel", "dinov3", {"own_names": own, "num_register_tokens": count})
    yield "ViTMAEForPreTraining", ("ViTMAEForPreTraining", "vit_mae", dict(
        decoder_hidden_size=32, decoder_num_hidden_layers=1, decoder_num_attention_heads=2, decoder_intermediate_size=64))
    yield "DeiTForImageClassificationWithTeacher", ("DeiTForImageClassificationWithTeacher", "deit", {})
    yield "DINOv3ViTForImageClassification", ("DINOv3ViTForImageClassification", "dinov3", {})
    yield "Dinov2Backbone", ("Dinov2Backbone", "dinov2", {})
    yield "DINOv3ViTBackbone", ("DINOv3ViTBackbone", "dinov3", dict(num_register_tokens=4))
    for family, stem in [("dinov2", "Dinov2"), ("dinov2_with_registers", "Dinov2WithRegisters")]:
        name = stem + "ForImageClassification"
        yield name + ": swiglu", (name, family, dict(use_swiglu_ffn=True))
        yield name + ": swiglu, hidden_act relu", (name, family, dict(use_swiglu_ffn=True, hidden_act="relu"))
        yield name + ": hidden_act relu", (name, family, dict(hidden_act="relu"))
        yield name + ": without qkv_bias", (name, family, dict(qkv_bias=False))
        yield name + ": eps 1e-3", (name, family, dict(layer_norm_eps=1e-3))
    yield "Dinov2WithRegistersModel: 1 register", ("Dinov2WithRegistersModel", "dinov2_with_registers", dict(
        num_register_tokens=1))
    for act in ("gelu_new", "quick_gelu", "silu", "relu", "gelu_python", "gelu_fast", "tanh"):
        yield f"ViTForImageClassification: hidden_act {act}", ("ViTForImageClassification", "vit", dict(hidden_act=act))
    for act in ("gelu", "gelu_pytorch_tanh"):
        yield f"CLIPForImageClassification: hidden_act {act}", ("CLIPForImageClassification", "clip", dict(hidden_act=act))
    yield "SiglipForImageClassification: hidden_act gelu", ("SiglipForImageClassification", "siglip", dict(hidden_act="gelu"))
    yield "SiglipVisionModel: without its head", ("SiglipVisionModel", "siglip", dict(vision_use_head=False))
    for name, family in [("ViTForImageClassification", "vit"), ("DeiTForImageClassification", "deit"),
                         ("CLIPForImageClassification", "clip"), ("SiglipForImageClassification", "siglip"),
                         ("DINOv3ViTModel", "dinov3")]:
        yield name + ": eps 1e-3", (name, family, dict(
            layer_norm_eps=1e-3, **({"num_register_tokens": 4} if family == "dinov3" else {})))
    yield "ViTForImageClassification: without qkv_bias", ("ViTForImageClassification", "vit", dict(qkv_bias=False))
    yield "DeiTForImageClassification: without qkv_bias", ("DeiTForImageClassification", "deit", dict(qkv_bias=False))
    for words in [dict(use_gated_mlp=True, hidden_act="silu"), dict(use_gated_mlp=True), dict(num_register_tokens=1),
                  dict(key_bias=True), dict(query_bias=False, value_bias=False), dict(query_bias=False), dict(proj_bias=False),
                  dict(mlp_bias=False), dict(rope_theta=10.0), dict(pos_embed_rescale=None),
                  dict(layerscale_value=0.5)]:
        row = ", ".join(f"{key} {value}" for key, value in words.items())
        yield f"DINOv3ViTModel: {row}", ("DINOv3ViTModel", "dinov3", {"num_register_tokens": 4, **words})
    for side in (16, 48):
        for name, family, words in [
            ("ViTForImageClassification", "vit", {}), ("DeiTForImageClassification", "deit", {}),
            ("Dinov2ForImageClassification", "dinov2", {}),
            ("Dinov2WithRegistersForImageClassification", "dinov2_with_registers", {}),
            ("DINOv3ViTModel", "dinov3", dict(num_register_tokens=4)), ("CLIPForImageClassification", "clip", {}),
            ("SiglipForImageClassification", "siglip", {}),
        ]:
            yield f"{name}: images of {side} pixels", (name, family, {"side": side, **words})
    yield "ViTForImageClassification: image_size pair", ("ViTForImageClassification", "vit", dict(image_size=[SIDE, SIDE]))
    yield "ViTForImageClassification: head of one class", ("ViTForImageClassification", "vit", dict(num_labels=1))


def check_class(glora, data, folder, depth, case):
    name, family, settings = case
    settings, resized = dict(settings), []
    if side := settings.pop("side", None):
        data = Data(folder / "data", side)
        resized = ["--image-size", side, "--crop", "squash"]
    if not hasattr(transformers, name):
        raise Absence("transformers has no such class")
    has_head = "Classification" in name
    labels = None if "num_labels" in settings else [f"label {index}" for index in range(5)] if has_head else None
    model = TransformersModel(name, family, depth, labels, **settings)
    model.save(folder / "model")
    if has_head:
        ours = glora.logits(folder, data, "--model", folder / "model", *resized, labels=labels)
        return relative_error(ours, model.logits(data))
    features, tokens = glora.tokens(folder, data, "--model", folder / "model", *resized)
    their_features, their_tokens = model.tokens(data)
    if their_features is None:
        return relative_error(tokens[:, -their_tokens.shape[1]:], their_tokens)
    try:
        error = relative_error(tokens, their_tokens)
    except Difference as difference:
        raise Difference(f"tokens: {difference}")
    return max(error, relative_error(features, their_features))


def siglip2(folder):
    """NaFlex, of images of any shape; fixed sizes of SigLIP 2 have the type siglip."""
    config = transformers.Siglip2VisionConfig(
        hidden_size=48, num_hidden_layers=1, num_attention_heads=3, intermediate_size=96, patch_size=8, num_patches=16)
    randomise(transformers.Siglip2VisionModel(config), 1).save_pretrained(folder / "model")
    processor("siglip").save_pretrained(folder / "model")


# MARK: Models of timm's


def timm_cases(depth):
    small = dict(depth=depth, embed_dim=48, num_heads=3)
    own = {
        "vit_tiny_patch16_224": {}, "deit3_small_patch16_224": {}, "deit_tiny_distilled_patch16_224": {},
        "vit_base_patch16_rpn_224": {}, "vit_small_patch14_dinov2": {}, "vit_small_patch14_reg4_dinov2": {},
        "vit_giant_patch14_dinov2": {}, "vit_base_patch16_siglip_224": {}, "vit_base_patch16_siglip_gap_224": {},
        "vit_base_patch16_clip_224": {}, "vit_base_patch16_clip_quickgelu_224": {}, "vit_medium_patch16_reg4_gap_256": {},
        "eva02_tiny_patch14_224": {}, "eva02_base_patch16_clip_224": {}, "vit_small_patch16_dinov3": {},
        "vit_small_patch16_dinov3_qkvb": {}, "vit_huge_plus_patch16_dinov3": {}, "vit_base_patch16_rope_224": {},
        "beit_base_patch16_224": {}, "beitv2_base_patch16_224": {},
    }
    return {name: {**small, **words} for name, words in own.items()}


class TimmModel:
    """An architecture of timm's with random values."""

    def __init__(self, name, words, classes=CLASSES):
        self.words = {"img_size": SIDE, "patch_size": 8, **words}
        self.name, self.classes = name, list(classes)
        self.model = randomise(timm.create_model(name, num_classes=len(classes), **self.words), len(name))
        config = timm.data.resolve_data_config({}, model=self.model)
        self.mean, self.std = config["mean"], config["std"]

    def save(self, folder):
        data = {"input_size": (3, SIDE, SIDE), "mean": self.mean, "std": self.std, "crop_pct": 1.0,
                "interpolation": "bicubic", "crop_mode": "center"}
        save_for_hf(self.model, folder, model_config={"label_names": self.classes}, model_args=self.words,
                    safe_serialization=True, data_config=data)
        return folder

    def logits(self, data):
        with torch.no_grad():
            return self.model.double()(data.normalised(self.mean, self.std))


def bases(depth):
    """name: what makes the model of the family. The head is of other classes than the data's, where there is one."""
    for name, words in timm_cases(depth).items():
        yield "timm " + name, lambda name=name, words=words: TimmModel(name, words)
    for row, name, family, settings in [
        ("vit", "ViTForImageClassification", "vit", {}), ("deit", "DeiTForImageClassification", "deit", {}),
        ("dinov2", "Dinov2ForImageClassification", "dinov2", {}),
        ("dinov2 swiglu", "Dinov2ForImageClassification", "dinov2", dict(use_swiglu_ffn=True)),
        ("dinov2_with_registers", "Dinov2WithRegistersForImageClassification", "dinov2_with_registers", {}),
        ("dinov3", "DINOv3ViTModel", "dinov3", dict(num_register_tokens=4)),
        ("dinov3 gated", "DINOv3ViTModel", "dinov3", dict(num_register_tokens=4, use_gated_mlp=True, hidden_act="silu")),
        ("clip", "CLIPForImageClassification", "clip", {}), ("siglip", "SiglipForImageClassification", "siglip", {}),
        ("clip without head", "CLIPModel", "clip", {}), ("siglip without head", "SiglipModel", "siglip", {}),
        ("vit_mae", "ViTMAEModel", "vit_mae", {}),
    ]:
        yield "transformers " + row, lambda name=name, family=family, settings=settings: TransformersModel(
            name, family, depth, CLASSES if "Classification" in name else None, **settings)


# MARK: Merged


def train(glora, data, folder, kind):
    glora("train", "--model", folder / "model", "--data", data.task, "--run", folder / kind, "--epochs", 1,
          "--warmup-epochs", 0, "--lr", 3e-2, "--batch-size", 4, *RUNS[kind])
    return folder / kind


def check_paths(run):
    """The richest path is that of every Linear: what isn't trained would be equal, too."""
    paths = json.loads((run / "adapter" / "adapter_config.json").read_text())["glora_layer_configs"]
    idle = sorted(name for name, path in paths.items() if set(path.values()) == {"none"})
    if idle:
        raise Difference(f"{len(idle)} of {len(paths)} are on the path none: {', '.join(idle[:5])}")
    return f"{len(paths)} paths"


def load_timm(folder):
    model = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
    return model, model.pretrained_cfg


def load_transformers(folder):
    name = json.loads((folder / "config.json").read_text())["architectures"][0]
    model, report = getattr(transformers, name).from_pretrained(folder, output_loading_info=True)
    wrong = {key: sorted(map(str, value)) for key, value in report.items() if value}
    if model.config.num_labels == len(CLASSES):
        auto = transformers.AutoModelForImageClassification.from_pretrained(folder)
        if type(auto) is not type(model):
            raise Difference(f"AutoModelForImageClassification makes a {type(auto).__name__}")
    return model.eval(), wrong


def is_close(first, second):
    """Whether two objects of settings say the same; numbers to the 7 digits of float32."""
    if isinstance(first, dict):
        return first.keys() == second.keys() and all(is_close(first[key], second[key]) for key in first)
    if isinstance(first, (list, tuple)):
        return len(first) == len(second) and all(map(is_close, first, second))
    return math.isclose(first, second, rel_tol=1e-7) if isinstance(first, float) else first == second


def check_merged(glora, data, folder, model, run, form):
    """The merged folder against the run."""
    merged = folder / f"{run.name}-merged-{form}"
    ours = glora.logits(folder, data, "--run", run)
    is_own = form == ("timm" if isinstance(model, TimmModel) else "hf")
    said = glora("merge", "--run", run, "--output", merged, *([] if is_own else ["--format", form]))
    for line in said.splitlines():
        if "it refuses the model_args' norm_eps" in line:
            raise Refusal(f"merge: {line}")
    x = data.normalised(model.mean, model.std)
    wrong = {}
    if (merged / "preprocessor_config.json").exists():
        theirs, wrong = load_transformers(merged)
        names = [theirs.config.id2label[index] for index in range(theirs.config.num_labels)]
        if theirs.config.label2id != {name: index for index, name in enumerate(names)}:
            raise Difference(f"label2id {theirs.config.label2id}")
        with torch.no_grad():
            logits = theirs.double()(pixel_values=x).logits
        own = transformers.AutoImageProcessor.from_pretrained(merged)
        if not isinstance(model, TimmModel):
            base = transformers.AutoImageProcessor.from_pretrained(folder / "model")
            before, after = (each(data.odd, return_tensors="pt")["pixel_values"] for each in (base, own))
            if before.shape != after.shape or (before - after).abs().max() > 1e-5:
                raise Difference(
                    f"{type(own).__name__} prepares an image otherwise than the base's {type(base).__name__}"
                    + ("" if before.shape != after.shape else f", by {(before - after).abs().max():.1e}"))
    else:
        theirs, config = load_timm(merged)
        names = config.get("label_names") or json.loads((merged / "config.json").read_text()).get("label_names")
        with torch.no_grad():
            logits = theirs.double()(x)
        settings = timm.data.resolve_data_config({}, model=theirs)
        if isinstance(model, TimmModel):
            base, _ = load_timm(folder / "model")
            before = timm.data.resolve_data_config({}, model=base)
            if not is_close(before, settings):
                raise Difference(f"data config {settings}, was {before}")
            if type(base) is not type(theirs):
                raise Difference(f"a {type(theirs).__name__}, was a {type(base).__name__}")
    if names != CLASSES:
        raise Difference(f"class names {names}")
    error = relative_error(ours, logits)
    if wrong:
        raise Difference(f"logits equal, but {type(theirs).__name__}.from_pretrained reports {wrong}")
    # A run that changes nothing would prove nothing.
    if is_own:
        old = load_file(folder / "model" / "model.safetensors")
        new = load_file(merged / "model.safetensors")
        if old.keys() == new.keys():
            changed = sum(old[key].shape == new[key].shape and (old[key] - new[key]).abs().max() > 1e-3
                          for key in old if old[key].ndim == 2 and "head" not in key and "classifier" not in key)
            if not changed:
                raise Difference("no matrix has changed")
    return error


# MARK: PEFT


def fresh_base(model):
    """A copy of the library's model, since PEFT changes it."""
    return copy.deepcopy(model.model).float()


# The classes that put a head on models without one; an adapter has their names.
WITH_HEAD = {"ViTMAEModel": "ViTForImageClassification", "CLIPModel": "CLIPForImageClassification",
             "SiglipModel": "SiglipForImageClassification"}


def with_head(model, folder):
    """The library's model for an adapter that has a head."""
    name = WITH_HEAD.get(type(model.model).__name__)
    if not name:
        return fresh_base(model)
    return getattr(transformers, name).from_pretrained(folder / "model", num_labels=len(CLASSES)).float()


def check_export(glora, data, folder, model, run, adapter, base=None):
    """An adapter of ours on the library's model, or on `base`, the same model in timm's form."""
    ours = glora.logits(folder, data, "--run", run)
    base = base or with_head(model, folder)
    is_timm = type(base).__module__.startswith("timm")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            theirs = peft.PeftModel.from_pretrained(base, adapter).eval()
        except ValueError as error:
            if is_timm or type(error).__name__ != "NoMatchingPeftModuleError":
                raise
            raise Refusal("PEFT finds no module of these names, which are timm's, in transformers' class")
        report = peft.set_peft_model_state_dict(theirs, peft.load_peft_weights(str(adapter)))
    said = [str(warning.message) for warning in caught if "key" in str(warning.message) and "missing" in str(warning.message)]
    missing = [key for key in report.missing_keys if "lora_" in key or "glora_" in key or "modules_to_save" in key]
    error = compare_adapted(ours, theirs, data.normalised(model.mean, model.std), is_timm)
    if said or missing or report.unexpected_keys:
        raise Difference(f"logits equal, but PEFT reports {len(missing)} missing keys, {missing[:1]}, and passes "
                         f"{len(report.unexpected_keys)} over, {report.unexpected_keys[:1]}")
    return error


def compare_adapted(ours, theirs, x, is_timm):
    """The error of the logits of a model in PEFT's wrapper."""
    def logits(model):
        with torch.no_grad():
            return model.double()(x) if is_timm else model.double()(pixel_values=x).logits

    try:
        return relative_error(ours, logits(theirs))
    except Difference as difference:
        if not passes_by(theirs):
            raise
        if any("glora_C" in name for name, _ in theirs.named_modules()):
            raise Absence(f"timm passes attn.qkv by, beside which PEFT has no C, D and E: {difference}")
        try:
            error = relative_error(ours, logits(theirs.merge_and_unload()))
        except RuntimeError as sentence:
            raise Absence(f"timm passes attn.qkv by, and PEFT can't merge it: {sentence}")
        except Difference:
            raise difference
        return f"{error:.1e} once merge_and_unload has merged it; {difference} before, since timm passes attn.qkv by"


def passes_by(model):
    """Whether timm's class takes the weight of `attn.qkv` and leaves the module uncalled, whatever PEFT has made of it."""
    return any(getattr(module, "q_bias", None) is not None and not module.qkv_bias_separate for module in model.modules())


def as_timm(glora, folder):
    """A model of transformers' in timm's form, whose names adapters have: a run's, at the path that changes nothing."""
    output = folder / "as-timm"
    if not output.exists():
        said = glora("merge", "--run", folder / "glora", "--path", "none", "--output", output, "--format", "timm")
        if "it refuses the model_args' norm_eps" in said:  # the words are right about everything else
            config = json.loads((output / "config.json").read_text())
            epsilon = config["model_args"].pop("norm_eps")
            (output / "config.json").write_text(json.dumps(config))
        else:
            epsilon = None
        (output / "epsilon").write_text(json.dumps(epsilon))
    model, _ = load_timm(output)
    epsilon = json.loads((output / "epsilon").read_text())
    for module in model.modules():
        if epsilon is not None and isinstance(module, torch.nn.LayerNorm):
            module.eps = epsilon
    return model


PEFT_FORMS = {
    "names": {}, "all-linear": {}, "rslora": dict(use_rslora=True), "bias": dict(lora_bias=True),
    "patterns": dict(rank_pattern={".*fc1": 2, "query": 3}, alpha_pattern={"proj": 5, "query": 7}),
    "glora": dict(config_A_B="lora", config_C="lora", config_D_E="vector"),
    "glora of vectors": dict(config_A_B="vector", config_C="vector", config_D_E="constant"),
}


def check_import(glora, data, folder, model, form):
    """An adapter of PEFT's, read by ours."""
    base = fresh_base(model)
    head = "head" if isinstance(model, TimmModel) else "classifier"
    linears = [name for name, module in base.named_modules()
               if isinstance(module, torch.nn.Linear) and any(part.isdigit() for part in name.split("."))
               and "text_model" not in name]
    others = [name for name, module in base.named_modules() if isinstance(module, torch.nn.Linear) and name not in linears]
    has_head = head in others
    whole = [head] if has_head else None
    words = dict(target_modules=linears)
    if form == "all-linear":
        words = dict(target_modules="all-linear", exclude_modules=[name for name in others if name != head])
    if form.startswith("glora"):
        config = peft.GloraConfig(r=4, modules_to_save=whole, **words, **PEFT_FORMS[form])
    else:
        config = peft.LoraConfig(r=4, lora_alpha=6, modules_to_save=whole, **words, **PEFT_FORMS[form])
    adapted = peft.get_peft_model(base, config)
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for name, parameter in adapted.named_parameters():
            if "lora_" in name or "modules_to_save" in name:
                parameter.copy_(0.2 * torch.randn(parameter.shape, generator=generator))
    adapter = folder / f"peft-{form}"
    adapted.save_pretrained(adapter)
    adapted.eval()
    source = ["--model", folder / "model", "--adapter", adapter]
    if not has_head:
        theirs = TransformersModel.tokens(Adapted(model, adapted), data)[1]
        return relative_error(glora.tokens(folder, data, *source)[1], theirs)
    ours = glora.logits(folder, data, *source)
    return compare_adapted(ours, adapted, data.normalised(model.mean, model.std), isinstance(model, TimmModel))


class Adapted:
    """A model without a head in PEFT's wrapper."""

    def __init__(self, model, adapted):
        self.family, self.mean, self.std, self.has_text = model.family, model.mean, model.std, model.has_text
        self.model = adapted.base_model.model
        self.words = model.words


# MARK: The table


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--glora", required=True)
    parser.add_argument("--part", choices=["classes", "merged", "peft"])
    parser.add_argument("--only", default="")
    parser.add_argument("--depth", type=int, default=2)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--keep")
    parser.add_argument("--output")
    options = parser.parse_args()
    glora = Glora(options.glora, options.device)
    place = Path(options.keep or tempfile.mkdtemp(prefix="compare-huggingface-"))
    place.mkdir(parents=True, exist_ok=True)
    data = Data(place / "data")
    results = []

    def record(part, name, check, is_step=False):
        """Notes what `check` returns or throws; of a step that other rows stand on, only what it throws."""
        try:
            result = check()
            outcome, detail = "equal", result if isinstance(result, str) else f"{result:.1e}"
            if is_step:
                return True
        except Refusal as refusal:
            outcome, detail = "refused", str(refusal)
        except Difference as difference:
            outcome, detail = "DIFFERENT", str(difference)
        except Absence as absence:
            outcome, detail = "absent", str(absence)
        except Exception as error:  # the library can't load it
            outcome, detail = "FAILED", " ".join(f"{type(error).__name__}: {error}".split())[:400]
        results.append({"part": part, "name": name, "outcome": outcome, "detail": detail.replace(str(place), "")})
        print(f"{outcome:9}  {part}  {name}  {results[-1]['detail']}", flush=True)
        if options.output:
            Path(options.output).write_text(json.dumps(results, indent=1))
        return outcome == "equal"

    def fresh(name):
        folder = place / "".join(letter if letter.isalnum() else "-" for letter in name)
        folder.mkdir()
        return folder

    def is_wanted(part, name):
        return options.part in (None, part) and options.only in name

    def clean(folder):
        if not options.keep:
            shutil.rmtree(folder)

    for name, case in class_cases():
        if is_wanted("classes", name):
            folder = fresh("class " + name)
            record("classes", name, lambda: check_class(glora, data, folder, options.depth, case))
            clean(folder)
    if is_wanted("classes", "Siglip2VisionModel"):
        folder = fresh("class Siglip2VisionModel")
        siglip2(folder)
        record("classes", "Siglip2VisionModel", lambda: float(glora.tokens(folder, data, "--model", folder / "model")[0].size))
        clean(folder)
    for name, make in bases(options.depth):
        if not is_wanted("merged", name) and not is_wanted("peft", name):
            continue
        folder = fresh(name)
        made = []
        if not record("base", name, lambda: check_base(glora, data, folder, make, made)):
            clean(folder)
            continue
        model = made[0]
        own = "timm" if isinstance(model, TimmModel) else "hf"
        for kind in RUNS:
            run = folder / kind
            if not record("train", f"{name}, {kind}", lambda: str(train(glora, data, folder, kind)), is_step=True):
                continue
            if is_wanted("merged", name) and kind == "glora":
                record("merged", f"{name}, {kind}, every Linear of the blocks", lambda: check_paths(run))
            if is_wanted("merged", name):
                for form in [own, "hf" if own == "timm" else "timm"] if kind != "lora-all" else [own]:
                    record("merged", f"{name}, {kind}, {form}'s form",
                           lambda: check_merged(glora, data, folder, model, run, form))
            if is_wanted("peft", name):
                check_adapters(record, glora, data, folder, model, run, name)
        if is_wanted("peft", name):
            for form in PEFT_FORMS:
                record("peft", f"{name}, PEFT's: {form}", lambda: check_import(glora, data, folder, model, form))
        clean(folder)
    print()
    for part in ("classes", "base", "train", "merged", "peft"):
        own = [result["outcome"] for result in results if result["part"] == part]
        if own:
            counts = {outcome: own.count(outcome) for outcome in ("equal", "refused", "absent", "DIFFERENT", "FAILED")}
            print(f"{part}: " + ", ".join(f"{count} {outcome}" for outcome, count in counts.items() if count) + f" of {len(own)}")
    if not options.keep:
        shutil.rmtree(place)
    sys.exit(any(result["outcome"] in ("DIFFERENT", "FAILED") for result in results))


def check_adapters(record, glora, data, folder, model, run, name):
    adapters = {f"{name}, {run.name}'s adapter": run / "adapter"}
    if run.name == "lora-all":
        adapters[f"{name}, {run.name}, converted"] = folder / "converted"
    for row, adapter in adapters.items():
        def read():
            if adapter.name == "converted":
                glora("convert", "--run", run, "--output", adapter)
            ours = glora.logits(folder, data, "--run", run)
            try:
                again = glora.logits(folder, data, "--model", folder / "model", "--adapter", adapter)
            except Refusal as refusal:  # of what it wrote itself
                raise Difference(str(refusal))
            return relative_error(again, ours)

        def check(base=None):
            return check_export(glora, data, folder, model, run, adapter, base and base())

        record("peft", row + ", read again", read)
        if not (adapter / "adapter_config.json").exists():
            continue
        targets = json.loads((adapter / "adapter_config.json").read_text())["target_modules"]
        # Where no class of transformers' has a head the names are timm's.
        if not isinstance(model, TimmModel) and targets[0].startswith("blocks."):
            record("peft", row + ", timm's form", lambda: check(lambda: as_timm(glora, folder)))
        record("peft", row, check)


def check_base(glora, data, folder, make, made):
    """The model before anything is trained, so that what differs later isn't the base."""
    model = make()
    made.append(model)
    model.save(folder / "model")
    if isinstance(model, TimmModel) or "Classification" in model.name:
        return relative_error(glora.logits(folder, data, "--model", folder / "model"), model.logits(data))
    return relative_error(glora.tokens(folder, data, "--model", folder / "model")[1], model.tokens(data)[1])


main()
