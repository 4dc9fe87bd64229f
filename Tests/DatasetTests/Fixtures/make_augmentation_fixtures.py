"""Makes augmentation.json: what Pillow, torchvision and timm make of source.png, with the draws that they made it by.

    python3 -m venv venv && venv/bin/pip install pillow==13.0.0 numpy torchvision==0.29.2 timm==1.0.31
    venv/bin/python make_augmentation_fixtures.py

Whole images are stored as a hash (FNV-1a, 64 bits) of their bytes.
"""

import base64, itertools, json, pathlib, random, types

import numpy as np
import timm.data.auto_augment as auto
import timm.data.mixup as mixup
import timm.data.random_erasing as erasing
import timm.data.transforms as timm_transforms
import torch
from PIL import Image
from timm.data import create_transform
from torchvision import transforms
from torchvision.transforms import functional

here = pathlib.Path(__file__).parent
source = Image.open(here / "source.png").convert("RGB")


def fnv(data):
    value = 0xCBF29CE484222325
    for byte in data:
        value = ((value ^ byte) * 0x100000001B3) & 0xFFFFFFFFFFFFFFFF
    return f"{value:016x}"


def pixels(image):
    return np.asarray(image).tobytes()


def floats(tensor):
    return base64.b64encode(np.asarray(tensor, dtype="<f4").tobytes()).decode()


# The same are made by the tests: `AugmentationFixtures.view`.
dim = Image.fromarray(np.asarray(source) // 4 + 40)
views = {
    "whole": source,
    "square": source.resize((40, 40), Image.BICUBIC),
    "dim": dim,
    "flat": Image.new("RGB", (9, 5), (12, 130, 255)),
    "tiny": source.resize((2, 2), Image.BICUBIC),
}
fill = (124, 116, 104)

# Operations of RandAugment at levels, with a sign that is drawn so or so.
operations = []
for name, level, negated, resample, view in itertools.product(
    auto._RAND_TRANSFORMS + [n for n in auto._RAND_INCREASING_TRANSFORMS if "Increasing" in n],
    (0, 2.3, 9, 10, 17, 30), (False, True), (Image.BILINEAR, Image.BICUBIC), views,
):
    signed = any(part in name for part in ("Rotate", "Shear", "Translate", "ColorI", "ContrastI", "BrightnessI", "SharpnessI"))
    geometric = any(part in name for part in ("Rotate", "Shear", "Translate"))
    levelless = name in ("AutoContrast", "Equalize", "Invert")
    if negated and not signed or resample == Image.BICUBIC and not geometric or levelless and level:
        continue
    if view in ("flat", "tiny", "dim") and (level not in (0, 9) or geometric and view != "tiny"):
        continue
    if view == "square" and not (geometric and level in (9, 30)):
        continue
    operation = auto.AugmentOp(
        name, prob=1.0, magnitude=level,
        hparams=dict(img_mean=fill, interpolation=resample, magnitude_max=30),
    )
    auto.random = types.SimpleNamespace(random=lambda: 0.9 if negated else 0.1)
    try:
        image = operation(views[view])
    except ValueError:  # Pillow 13 refuses to keep no bits; before, the image became black.
        assert "Posterize" in name
        continue
    operations.append(dict(
        name=name, level=level, negated=negated, cubic=resample == Image.BICUBIC, view=view, hash=fnv(pixels(image)),
    ))
auto.random = random

# Crops, with the draws of every attempt.
crops = []
for seed, (width, height), scale, ratio in itertools.product(
    range(3), ((61, 47), (300, 200), (500, 20), (20, 500), (224, 224)), ((0.08, 1.0), (0.5, 1.0)), ((3 / 4, 4 / 3), (0.9, 1.1)),
):
    random.seed(seed)
    draws = []

    timm_transforms.random = types.SimpleNamespace(
        uniform=lambda a, b: draws.append(random.uniform(a, b)) or draws[-1], randint=random.randint)
    get = timm_transforms.RandomResizedCropAndInterpolation.get_params
    i, j, h, w = get(Image.new("L", (width, height)), scale, ratio)
    timm_transforms.random = random
    crops.append(dict(width=width, height=height, scale=scale, ratio=ratio, draws=draws, box=[j, i, w, h]))

# Erased boxes and values.
erasings = []
for seed, side, count, mode in [(s, 224, c, "const") for s in range(6) for c in (1, 3)] + [
    (s, 8, 1, m) for s in (2, 3) for m in ("const", "rand", "pixel")
]:
    random.seed(seed)
    torch.manual_seed(seed)
    draws, noise, sizes = [], [], []
    get_pixels = erasing._get_pixels

    def recorded(per_pixel, rand_color, patch_size, **rest):
        result = get_pixels(per_pixel, rand_color, patch_size, **rest)
        sizes.append(patch_size[1:])
        noise.extend(result.flatten().tolist())
        return result

    erasing._get_pixels = recorded
    erasing.random = types.SimpleNamespace(
        random=lambda: 0.0, uniform=lambda a, b: draws.append(random.uniform(a, b)) or draws[-1],
        randint=lambda a, b: count if (a, b) == (1, count) else random.randint(a, b))
    start = torch.arange(3 * side * side, dtype=torch.float32).reshape(3, side, side) / 64
    image = start.clone()
    erasing.RandomErasing(probability=1, mode=mode, max_count=count, device="cpu")(image)
    erasing.random, erasing._get_pixels = random, get_pixels
    rows, columns = torch.where((image != start).any(0))
    erasings.append(dict(
        side=side, count=count, mode=mode, draws=draws, sizes=sizes,
        box=[int(columns.min()), int(rows.min()), int(sizes[0][1]), int(sizes[0][0])] if count == 1 else None,
        noise=floats(noise) if side == 8 else None, values=floats(image) if side == 8 else None,
    ))



# Mixed batches, λ and the box's centre given.
def drawing(drawn, cx, cy):
    """What mixup.py takes of numpy, with these draws."""
    centre = iter((cy, cx))
    draws = types.SimpleNamespace(
        rand=lambda: 0.0, beta=lambda a, b: drawn, randint=lambda low, high, size=None: next(centre))
    return types.SimpleNamespace(random=draws, sqrt=np.sqrt, clip=np.clip)


mixings = []
for count, alphas, drawn, (cy, cx) in [
    (4, (1, 0), 0.3, (0, 0)), (2, (1, 0), 0.8125, (0, 0)), (4, (0, 1), 0.3, (2, 5)),
    (4, (0, 1), 0.75, (0, 1)), (2, (0, 1), 0.01, (3, 3)), (6, (0, 1), 0.99, (3, 3)),
]:
    side = 6

    mixup.np = drawing(drawn, cx, cy)
    batch = torch.sin(torch.arange(count * 3 * side * side, dtype=torch.float32))
    start = floats(batch)
    batch = batch.reshape(count, 3, side, side)
    mixer = mixup.Mixup(mixup_alpha=alphas[0], cutmix_alpha=alphas[1], num_classes=count)
    weight = mixer._mix_batch(batch)
    mixings.append(dict(
        count=count, side=side, cutmix=alphas[1] > 0, drawn=drawn, centre=[cx, cy], start=start,
        values=floats(batch), weight=float(weight),
        targets=floats(mixup.mixup_target(torch.arange(count), count, weight, 0.0)),
    ))
boxes = []
for drawn, cx, cy in itertools.product((0.0, 0.1, 0.5, 0.77, 0.999), (0, 3, 111, 223), (0, 200)):
    mixup.np = drawing(drawn, cx, cy)
    yl, yh, xl, xh = mixup.rand_bbox((224, 224), drawn)
    boxes.append(dict(drawn=drawn, centre=[cx, cy], box=[int(v) for v in (xl, yl, xh - xl, yh - yl)]))

# Whole pipelines up to the pixels that are normalised.
pipelines = []
for seed, (name, arguments) in itertools.product(range(8), {
    "policy": dict(auto_augment="rand-m9-mstd0.5-inc1", interpolation="random", vflip=0.5),
    "fewshot": dict(auto_augment="rand-m9-mstd0.5-inc1", interpolation="bicubic", color_jitter=0.4),
    "jitter": dict(color_jitter=0.4, interpolation="bilinear"),
    "half": dict(auto_augment="rand-m9-n3-p1.0-mstd0.5", interpolation="bicubic", mean=(0.5, 0.5, 0.5)),
}.items()):
    random.seed(seed), np.random.seed(seed), torch.manual_seed(seed)
    first, second, _ = create_transform(
        32, is_training=True, separate=True, re_prob=0.25, re_mode="pixel", **arguments)
    record = dict(name=name, horizontal=False, vertical=False, steps=[])
    crop = first.transforms[0]

    def choice(options):
        chosen = random.choice(options)
        record["cubic"] = "bicubic" in str(chosen).lower()
        return chosen

    def recorded_crop(*rest, get=timm_transforms.RandomResizedCropAndInterpolation.get_params):
        i, j, h, w = get(*rest)
        record["box"] = [j, i, w, h]
        return i, j, h, w

    crop.get_params = recorded_crop
    record["cubic"] = arguments["interpolation"] == "bicubic"
    timm_transforms.random = types.SimpleNamespace(
        uniform=random.uniform, randint=random.randint, choice=choice)
    flips = functional.hflip, functional.vflip
    functional.hflip = lambda image: record.update(horizontal=True) or flips[0](image)
    functional.vflip = lambda image: record.update(vertical=True) or flips[1](image)

    interpolate = auto._interpolation

    def recorded_interpolation(kwargs):
        chosen = interpolate(kwargs)
        record["steps"][-1]["cubic"] = chosen == Image.BICUBIC
        return chosen

    def recording(name, function):
        def call(image, *level, **rest):
            record["steps"].append(dict(name=name, argument=level[0] if level else 0, cubic=False))
            return function(image, *level, **rest)
        return call

    auto._interpolation = recorded_interpolation
    for step in second.transforms:
        if isinstance(step, auto.RandAugment):
            record["fill"] = step.ops[0].kwargs["fillcolor"]
            for operation in step.ops:
                operation.aug_fn = recording(operation.name.replace("Increasing", ""), operation.aug_fn)
        else:
            def recorded_jitter(*rest, get=transforms.ColorJitter.get_params):
                order, *factors, hue = get(*rest)
                for index in order.tolist():
                    if index < 3:
                        record["steps"].append(dict(
                            name=("Brightness", "Contrast", "Color")[index], argument=factors[index], cubic=False))
                return order, *factors, hue
            step.get_params = recorded_jitter
    record["hash"] = fnv(pixels(second(first(source))))
    record["order"] = [type(step).__name__ for step in first.transforms + second.transforms]
    functional.hflip, functional.vflip = flips
    auto._interpolation, timm_transforms.random = interpolate, random
    pipelines.append(record)

# How texts are read.
policies = []
for text in (
    "rand", "rand-m9-mstd0.5-inc1", "rand-m9-n3-mstd0.5", "rand-m15-mmax20-p0.8-inc1", "rand-mstd101-m7",
    "rand-m5-tweights-n4", "rand-inc1-tweights", "rand-m3-inc0",
):
    hparams = {}
    policy = auto.rand_augment_transform(text, hparams)
    weights = policy.choice_weights
    operation = policy.ops[0]
    policies.append(dict(
        text=text, names=[operation.name for operation in policy.ops], layers=policy.num_layers,
        magnitude=int(operation.magnitude), probability=operation.prob,
        deviation=min(1000, operation.magnitude_std), largest=operation.magnitude_max or 10,
        weights=None if weights is None else list(map(float, weights)),
    ))

# NOAH's evaluation (lib/datasets.py, build_transform) at 28 pixels.
evaluation = transforms.Compose([transforms.Resize((int((256 / 224) * 28),) * 2, interpolation=3), transforms.CenterCrop(28)])

(here / "augmentation.json").write_text(json.dumps(dict(
    operations=operations, crops=crops, erasings=erasings, mixings=mixings, boxes=boxes, pipelines=pipelines,
    policies=policies, evaluation=fnv(pixels(evaluation(source))),
), separators=(",", ":")) + "\n")
