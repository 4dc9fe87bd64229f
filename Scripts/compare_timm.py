"""Run by Scripts/compare-timm: every plain vision transformer of timm's at its own width, against ours."""

import argparse
import json
import math
import shutil
import subprocess
import sys
import tempfile
import warnings
from pathlib import Path

import numpy
import timm
import torch
from PIL import Image
from timm.models._hub import save_for_hf

warnings.filterwarnings("ignore")
MODULES = ["vision_transformer", "deit", "eva", "beit"]
CLASSES = 7
BOUND = 2e-5


def build(name, depth, arguments):
    """The architecture with so many blocks. Where it has a list with an entry a block, that is cut."""
    try:
        return timm.create_model(name, depth=depth, num_classes=CLASSES, **arguments)
    except TypeError:  # no depth of its own
        return timm.create_model(name, num_classes=CLASSES, **arguments)
    except AssertionError:
        return timm.create_model(name, depth=depth, num_kv_heads=[1] * depth, num_classes=CLASSES, **arguments)


def randomise(model, seed):
    """Numbers for everything, norms, layer scales and tables too, so that nothing is left out unnoticed."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            if "norm" in name and name.endswith("weight") or "gamma" in name:
                parameter.copy_(1 + 0.3 * noise)
            elif parameter.ndim >= 2 and name.endswith("weight"):
                parameter.copy_(noise / math.sqrt(parameter[0].numel()))
            else:
                parameter.copy_(0.3 * noise)


def images(folder, size, seed):
    """Two images of the model's own size, so that preparing them is normalising them."""
    generator = numpy.random.default_rng(seed)
    pixels = []
    for index in range(2):
        array = generator.integers(0, 256, (*size, 3), dtype=numpy.uint8)
        Image.fromarray(array).save(folder / f"{index}.png")
        pixels.append(array)
    return numpy.stack(pixels)


def compare(glora, name, depth, device, precision, arguments):
    """(outcome, detail): equal with the error, refused with the sentence, or different."""
    torch.manual_seed(0)
    model = build(name, depth, arguments).eval()
    randomise(model, len(name))
    folder = Path(tempfile.mkdtemp(prefix="compare-timm-"))
    try:
        config = timm.data.resolve_data_config({}, model=model)
        size = model.patch_embed.img_size or config["input_size"][1:]
        data = {"input_size": (3, *size), "mean": config["mean"], "std": config["std"], "crop_pct": 1.0,
                "interpolation": "bicubic", "crop_mode": "center"}
        save_for_hf(
            model, folder / "model", safe_serialization=True, model_args=arguments or None, data_config=data)
        (folder / "images").mkdir()
        pixels = images(folder / "images", size, len(name))
        run = subprocess.run(
            [glora, "predict", "--model", folder / "model", "--data", folder / "images", "--output",
             folder / "out.jsonl", "--logits", "--device", device, "--precision", precision],
            capture_output=True, text=True)
        if run.returncode != 0:
            return "refused" if run.returncode == 1 else "failed", run.stderr.strip().splitlines()[-1]
        rows = [json.loads(line) for line in (folder / "out.jsonl").read_text().splitlines()]
        ours = numpy.array([row["logits"] for row in sorted(rows, key=lambda row: row["path"])])
        x = torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 255
        mean, std = (torch.tensor(config[key]).reshape(1, 3, 1, 1) for key in ("mean", "std"))
        with torch.no_grad():
            theirs = model((x - mean) / std).numpy()
        error = float(numpy.abs(ours - theirs).max() / numpy.abs(theirs).max())
        return "equal" if error < BOUND else "different", error
    finally:
        shutil.rmtree(folder)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--glora", required=True)
    parser.add_argument("--output")
    parser.add_argument("--only", default="")
    parser.add_argument("--depth", type=int, default=1)
    parser.add_argument("--arguments", type=json.loads, default={}, help="of the models, such as {\"qk_norm\": true}")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--precision", default="float32")
    options = parser.parse_args()
    results = {}
    for module in MODULES:
        for name in timm.list_models(module=module):
            if options.only not in name:
                continue
            try:
                outcome, detail = compare(
                    options.glora, name, options.depth, options.device, options.precision, options.arguments)
            except Exception as error:  # theirs
                outcome, detail = "failed", f"{type(error).__name__}: {error}"
            results[name] = {"module": module, "outcome": outcome, "detail": detail}
            print(f"{outcome:9} {name}  {detail if isinstance(detail, str) else f'{detail:.1e}'}", flush=True)
            if options.output:
                Path(options.output).write_text(json.dumps(results, indent=1))
    groups = [("vision_transformer, deit", MODULES[:2]), ("eva, beit", MODULES[2:])]
    for title, modules in groups:
        own = [result["outcome"] for result in results.values() if result["module"] in modules]
        counts = {outcome: own.count(outcome) for outcome in ("equal", "refused", "different", "failed")}
        print(f"{title}: " + ", ".join(f"{count} {outcome}" for outcome, count in counts.items()) + f" of {len(own)}")
    sys.exit(any(result["outcome"] in ("different", "failed") for result in results.values()))


main()
