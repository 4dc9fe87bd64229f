"""The driver and the PyTorch side of Scripts/compare-pytorch, which installs what this needs and calls it.

The supernet step is AdamW's on the support tensors and the head of a vision transformer in which each of the
blocks' Linears computes, on a path drawn uniformly from the 432 per layer and step,

    W = W0 * (1 + A) + B             [out, in]
    b = b0 * (1 + D) + E + W0 @ C    [out]
    y = x @ W.T + b                  [batch, tokens, out]

A Linear without a bias has no C, D and E. The model is written as timm writes one, and `glora bench` reads it, so that both sides have
one architecture.

The driver runs ours and theirs in turn, each in a fresh process: neither finds the other's memory, threads or
heated caches, and a change of the machine's speed reaches both. With --ours, the report of `glora doctor` is our side.
"""

import argparse
import json
import math
import os
import platform
import random
import re
import statistics
import subprocess
import sys
import tempfile
import time

CLASSES = 10
RANK = 4
LORA_RANK = 8
LINEARS = r".*blocks\.\d+\.(attn\.(qkv|q_proj|k_proj|v_proj|proj)|mlp\.(fc1|fc1_g|fc1_x|fc2))"

# One Linear's search space: 4 * 4 * 3 * 3 * 3 = 432 paths.
CHOICES = {
    "A": ("lora", "vector", "constant", "none"),
    "B": ("lora", "vector", "constant", "none"),
    "C": ("lora", "vector", "none"),
    "D": ("vector", "constant", "none"),
    "E": ("vector", "constant", "none"),
}

# row: (arguments of `glora bench`, the side that runs in PyTorch, what is compared)
ROWS = {
    "supernet_step_vs_plain": (("step",), "plain", "imagesPerSecond"),
    "supernet_step_vs_peft": (("step",), "peft-glora", "imagesPerSecond"),
    "lora_step_vs_peft": (("step", "--method", "lora", "--rank", str(LORA_RANK)), "peft-lora", "imagesPerSecond"),
    "inference_vs_timm": (("inference",), "inference", "imagesPerSecond"),
    "memory_vs_plain": (("step",), "plain", "peakBytes"),
    "products_vs_torch": (("gemm",), "products", "gflops"),
}


# MARK: The PyTorch side


def plain_glora_linear(linear):
    """`linear` with the plain formula and support tensors as the original initialises them, its weights frozen."""
    import torch
    from torch import nn

    outputs, inputs = linear.weight.shape

    def down(rows):
        return nn.Parameter(torch.zeros(rows, RANK))  # [rows, R]

    def up(columns):
        return nn.Parameter(nn.init.xavier_uniform_(torch.empty(RANK, columns)))  # [R, columns]

    class PlainGLoRALinear(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = linear.weight.requires_grad_(False)  # [out, in]
            self.bias = None if linear.bias is None else linear.bias.requires_grad_(False)  # [out]
            self.Ad, self.Au = down(outputs), up(inputs)
            self.Bd, self.Bu = down(outputs), up(inputs)
            self.Cd, self.Cu = down(inputs), up(1)
            self.D = nn.Parameter(torch.zeros(outputs))
            self.E = nn.Parameter(torch.zeros(outputs))
            self.path = dict.fromkeys(CHOICES, "none")

        def low_rank(self, name):
            """A or B, broadcast to [out, in]; C, [in, 1]; None off the path."""
            d, u = getattr(self, name + "d"), getattr(self, name + "u")
            return {
                "lora": lambda: d @ u,
                "vector": lambda: d[:, :1],
                "constant": lambda: d[0, 0],
                "none": lambda: None,
            }[self.path[name]]()

        def vector(self, name):
            """D or E, broadcast to [out]; None off the path."""
            whole = getattr(self, name)
            return {"vector": whole, "constant": whole[0], "none": None}[self.path[name]]

        def forward(self, x):  # [batch, tokens, in]
            a, b, c = self.low_rank("A"), self.low_rank("B"), self.low_rank("C")
            d, e = self.vector("D"), self.vector("E")
            # A term off the path is left out rather than added as zeros (the original adds dense zeros): the
            # comparison is with PyTorch at its best, which then needs neither the passes nor, without A and B,
            # the gradient of W.
            weight, bias = self.weight, self.bias
            if bias is None:
                c = d = e = None
            if a is not None:
                weight = weight * (1 + a)
            if b is not None:
                weight = weight + b
            if d is not None:
                bias = bias * (1 + d)
            if e is not None:
                bias = bias + e
            if c is not None:
                bias = bias + (self.weight @ c).squeeze(-1)
            return nn.functional.linear(x, weight, bias)

    return PlainGLoRALinear()


def create(options):
    """The model of timm's, with random weights: the time doesn't depend on them. Ends the program where no pass calls its Linears."""
    import timm

    size = {"img_size": options.image_size} if options.image_size else {}
    try:
        model = timm.create_model(options.model, pretrained=False, num_classes=CLASSES, **size)
    except (RuntimeError, TypeError, AssertionError) as error:
        sys.exit(f"timm makes no {options.model} of {options.image_size or 'its own'} pixels: {error}")
    targets = [key for key, _ in model.named_modules() if re.fullmatch(LINEARS, key)]
    if not targets or len(targets) != len(model.blocks) * len([key for key in targets if ".0." in key]):
        sys.exit(f"{options.model} has no blocks of Linears in timm's names; choose a vision transformer of timm.")
    # EVA's fused projection with a bias of queries and values is called past its module.
    if getattr(model.blocks[0].attn, "q_bias", None) is not None:
        sys.exit(f"timm adds the biases of {options.model}'s queries itself, so that no adapter can take its place there.")
    return model, targets


def write(options, folder):
    """The model as timm writes it, for `glora bench`."""
    import timm
    from timm.models._hub import save_for_hf

    model, _ = create(options)
    arguments = {"img_size": options.image_size} if options.image_size else None
    data = timm.data.resolve_data_config({}, model=model)
    data["input_size"] = (3, *model.patch_embed.img_size)  # what it says otherwise is of its own size
    save_for_hf(model, folder, safe_serialization=True, model_args=arguments, data_config=data)


def build_model(side, options):
    """The model of a side."""
    model, targets = create(options)
    if side == "inference":
        return model.eval()
    if side == "plain":
        model.requires_grad_(False)
        model.get_classifier().requires_grad_(True)
        for key in targets:
            parent, _, child = key.rpartition(".")
            setattr(model.get_submodule(parent), child, plain_glora_linear(model.get_submodule(key)))
        return model.train()
    import peft

    if side == "peft-glora":
        configuration = peft.GloraConfig(r=RANK, target_modules=LINEARS, modules_to_save=["head"])
    else:
        configuration = peft.LoraConfig(
            r=LORA_RANK, lora_alpha=LORA_RANK, lora_dropout=0.0, target_modules=LINEARS, modules_to_save=["head"]
        )
    return peft.get_peft_model(model, configuration).train()


def synchronizer(device):
    """What waits for a device of PyTorch; ends the program when PyTorch has no such device."""
    import torch

    if device == "cpu":
        return lambda: None
    # Apple's is torch.mps, and asked for under torch.backends.
    if not {"mps": torch.backends.mps}.get(device, getattr(torch, device)).is_available():
        sys.exit(f"PyTorch finds no {device} device; use --torch-device cpu, or --venv with a build of PyTorch for it.")
    return getattr(torch, device).synchronize


def peak_bytes():
    """The largest resident size that this process has had, in bytes."""
    try:
        with open("/proc/self/status") as status:
            return next(int(line.split()[1]) * 1024 for line in status if line.startswith("VmHWM"))
    except (OSError, StopIteration):
        sys.exit("there is no VmHWM in /proc/self/status; run this on Linux.")


def timed(step, synchronize):
    """Seconds of each step after the warm-up: four of slow ones, three seconds of fast ones, within half a minute."""

    def once():
        start = time.perf_counter()
        step()
        synchronize()
        return time.perf_counter() - start

    if once() < 2:  # the first step allocates; a fast model needs a second for the caches and clocks
        once()
    seconds = []
    while (len(seconds) < 4 or sum(seconds) < 3) and (len(seconds) < 2 or sum(seconds) < 30):
        seconds.append(once())
    return seconds


def run_side(options):
    """Measures one side in this process and prints one JSON object."""
    import torch
    import timm

    if options.side.startswith("peft"):
        import peft  # noqa: F401  before the memory is marked: a library is no part of a step
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    paths = random.Random(0)
    synchronize = synchronizer(options.torch_device)
    # Libraries are loaded; what follows is the model's and the step's. On other devices most of it lies elsewhere.
    before = peak_bytes() if options.torch_device == "cpu" else None
    model = build_model(options.side, options).to(options.torch_device)
    base = getattr(model, "base_model", model)
    size = getattr(base, "model", base).patch_embed.img_size
    images = torch.randn(options.batch, 3, *size, device=options.torch_device)  # [batch, 3, height, width]
    labels = torch.randint(CLASSES, (options.batch,), device=options.torch_device)  # [batch]
    last = None

    def autocast():
        return torch.autocast(options.torch_device, torch.bfloat16, enabled=options.precision == "bfloat16")

    if options.side == "inference":

        def step():
            nonlocal last
            with torch.inference_mode(), autocast():
                last = model(images)

    else:
        trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
        optimizer = torch.optim.AdamW(trained, lr=1e-4, weight_decay=1e-4)
        layers = [module for module in model.modules() if hasattr(module, "path")]

        def step():
            nonlocal last
            for layer in layers:
                layer.path = {name: paths.choice(choices) for name, choices in CHOICES.items()}
            with autocast():
                last = torch.nn.functional.cross_entropy(model(images), labels)
            last.backward()
            optimizer.step()
            optimizer.zero_grad()  # sets None: a tensor off the next path is skipped

    seconds = timed(step, synchronize)
    if not torch.isfinite(last).all():
        sys.exit("PyTorch's result is not finite; the comparison would mean nothing.")
    median = statistics.median(seconds)
    result = {"imagesPerSecond": options.batch / median, "seconds": median, "steps": len(seconds)}
    if before is not None:
        result["peakBytes"] = peak_bytes() - before
    print(json.dumps(result))


def run_products(options):
    """The products of a block's Linears and of their gradients, as `glora bench gemm` has them, once each in a round."""
    import torch

    torch.set_num_threads(options.threads)
    model, targets = create(options)
    with torch.inference_mode():
        tokens = model.forward_features(torch.zeros(1, 3, *model.patch_embed.img_size)).shape[1]
    rows = options.batch * tokens
    dtype = torch.bfloat16 if options.precision == "bfloat16" else torch.float32
    products, flops = [], 0
    for target in targets:
        if ".0." not in target:
            continue
        outputs, inputs = model.get_submodule(target).weight.shape
        x = torch.randn(rows, inputs, device=options.torch_device, dtype=dtype)
        dy = torch.randn(rows, outputs, device=options.torch_device, dtype=dtype)
        weight = torch.randn(outputs, inputs, device=options.torch_device, dtype=dtype)
        products += [(x, weight.t()), (dy, weight), (dy.t(), x)]
        flops += 3 * 2 * rows * outputs * inputs
    synchronize = synchronizer(options.torch_device)
    seconds = 0
    for a, b in products:
        out = torch.empty(a.shape[0], b.shape[1], device=options.torch_device, dtype=dtype)
        seconds += statistics.median(timed(lambda: torch.mm(a, b, out=out), synchronize))
    print(json.dumps({"gflops": flops / seconds * 1e-9, "seconds": seconds}))


# MARK: The driver


def fail(sentence):
    sys.exit(f"compare-pytorch: {sentence}")


def last_object(command, name, environment):
    """Runs `command` and returns the object in the last line that it prints."""
    try:
        run = subprocess.run(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    except OSError as error:
        fail(f"{command[0]} cannot be run ({error.strerror}); name the glora binary with GLORA=PATH.")
    shown = "".join(f"\n    {line}" for line in (run.stdout + run.stderr).strip().splitlines()[-8:])
    if run.returncode != 0:
        fail(f"{name} ended with status {run.returncode}; correct what its last lines say: {shown or 'nothing'}")
    try:
        found = json.loads(run.stdout.strip().splitlines()[-1])
    except (IndexError, ValueError):
        found = None
    if not isinstance(found, dict):
        fail(f"{name} printed no JSON object in its last line; build it from this checkout. Its last lines: {shown}")
    return found


def read_report(options):
    """Our side from a report of `glora doctor`: {bench: its result}, in options.ours. The report's model, batch and device
    become the options', and the rows those that it has where all were asked for."""
    path = options.ours
    try:
        with open(path, encoding="utf-8") as file:
            report = json.load(file)
    except (OSError, ValueError) as error:
        fail(f"{path} can't be read as JSON ({error}); give what glora doctor --output wrote.")
    if not isinstance(report, dict) or report.get("schema") != "glora.doctor/1":
        fail(f"{path} is no report of glora doctor that this script knows (schema glora.doctor/1).")
    for device in report["devices"]:
        name = device["device"]["device"]
        found = [each for each in device["precisions"] if each["precision"] == options.precision and "step" in each]
        if found and options.device in (None, name):
            break
    else:
        fail(f"{path} has no step in {options.precision} on {options.device or 'any device'}; choose another of the two.")
    options.ours = found[0]
    options.device, options.model, options.batch = name, device["model"], device["batch"]
    # A method of its own isn't in the report: a row has the whole command that it needs.
    there = [row for row in options.rows if len(ROWS[row][0]) == 1 and ROWS[row][0][0] in options.ours]
    for row in options.rows:
        if row not in there and not options.rows_there:
            fail(f"{path} doesn't have what {row} compares; leave that row out of --only.")
    options.rows = there


def measure(options):
    """{row: [(ours, theirs) of each round]}."""
    environment = dict(os.environ)
    # PoCL's name for its threads changed with version 5; PyTorch's pools must not start larger than they are used.
    for variable in (
        "GLORA_THREADS",
        "POCL_MAX_PTHREAD_COUNT",
        "POCL_CPU_MAX_CU_COUNT",
        "OMP_NUM_THREADS",
        "MKL_NUM_THREADS",
    ):
        environment[variable] = str(options.threads)
    environment["HF_HUB_OFFLINE"] = "1"  # random weights: nothing is to be fetched
    common = ["--model", options.model, "--batch", str(options.batch)]
    own = ["--model", options.folder, "--batch", str(options.batch)]
    if options.image_size:
        common += ["--image-size", str(options.image_size)]
    if not options.ours:
        script = [sys.executable, os.path.abspath(__file__), *common, "--write", options.folder]
        run = subprocess.run(script, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        if run.returncode != 0:
            fail((run.stdout.strip() or "the model can't be written").splitlines()[-1])
    results = {row: [] for row in options.rows}
    for number in range(1, options.rounds + 1):
        measured = {}  # rows with a side in common share its run within the round

        def once(key, command, name):
            if key not in measured:
                found = measured[key] = last_object(command, name, environment)
                figures = ", ".join(f"{k} {v:.4g}" for k, v in found.items() if isinstance(v, (int, float)))
                print(f"round {number} of {options.rounds}: {name}: {figures}", file=sys.stderr, flush=True)
            return measured[key]

        for row in options.rows:
            bench, side, figure = ROWS[row]
            if options.ours:
                ours = options.ours[bench[0]]
            else:
                command = [options.glora, "bench", *bench, "--device", options.device, *own]
                command += ["--precision", options.precision, "--json"]
                if bench[0] == "step":
                    command += ["--memory", options.memory]
                ours = once(bench, command, " ".join(["glora bench", *bench]))
            command = [sys.executable, os.path.abspath(__file__), "--side", side, *common]
            command += ["--threads", str(options.threads), "--torch-device", options.torch_device]
            command += ["--precision", options.precision]
            theirs = once(side, command, f"PyTorch ({side})")
            value = ours.get(figure)
            if not isinstance(value, (int, float)) or not (value > 0 and math.isfinite(value)):
                fail(f"glora bench {bench[0]} printed no positive {figure}; build it from this checkout.")
            results[row].append((value, theirs[figure]))
    return results


def processor_name():
    try:
        with open("/proc/cpuinfo") as information:
            return next(line.split(":", 1)[1].strip() for line in information if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.machine()


def run_driver(options):
    if options.ours:
        read_report(options)
    with tempfile.TemporaryDirectory() as folder:
        options.folder = folder
        results = measure(options)
    from importlib.metadata import version

    packages = ", ".join(f"{name} {version(name)}" for name in ("torch", "timm", "peft"))
    size = f" at {options.image_size} pixels" if options.image_size else ""
    size += f", --memory {options.memory}" if options.memory != "balanced" else ""
    print(f"{options.model}{size}, batch {options.batch}, {options.precision}, {options.threads} threads, {options.rounds} rounds")
    where = " (of the report)" if options.ours else ""
    print(f"ours on {options.device}{where}, theirs on {options.torch_device}: {packages}; {processor_name()}")
    print(f"{'':24} {'ours':>10} {'theirs':>10} {'':9} {'ratio':>7}   of each round")
    summary = {}
    for row, pairs in results.items():
        ours, theirs = (statistics.median(values) for values in zip(*pairs))
        ratios = [mine / other for mine, other in pairs]
        scale, unit = {"peakBytes": (2**20, "MiB"), "gflops": (1, "GFLOP/s")}.get(ROWS[row][2], (1, "images/s"))
        print(
            f"{row:24} {ours / scale:10.2f} {theirs / scale:10.2f} {unit:9} {ours / theirs:7.3f}"
            f"   {min(ratios):.3f} to {max(ratios):.3f}"
        )
        summary[row] = {"ours": ours, "theirs": theirs, "ratio": ours / theirs}
    if options.json:
        print(json.dumps(summary))


def main():
    parser = argparse.ArgumentParser(description="Called by Scripts/compare-pytorch; see its --help.")
    parser.add_argument("--glora")
    parser.add_argument("--ours")
    parser.add_argument("--rows-there", action="store_true", help="of the rows, those that --ours has")
    parser.add_argument("--device")
    parser.add_argument("--torch-device", default="cpu")
    parser.add_argument("--model", default="vit_base_patch16_224")
    parser.add_argument("--image-size", type=int)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--write", metavar="FOLDER")
    parser.add_argument("--precision", choices=["float32", "bfloat16"], default="float32")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--memory", default="balanced")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--rows", nargs="+", choices=ROWS, default=list(ROWS))
    parser.add_argument("--side", choices=sorted({side for _, side, _ in ROWS.values()}))
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    if options.write:
        write(options, options.write)
    elif options.side == "products":
        run_products(options)
    elif options.side:
        run_side(options)
    elif options.glora or options.ours:
        run_driver(options)
    else:
        parser.error("run Scripts/compare-pytorch instead")


if __name__ == "__main__":
    main()
