"""Writes training.json: what PyTorch, timm and transformers do in 50 steps of softmax regression, in double precision.

    pip install torch timm==1.0.31 transformers==5.24.0 scikit-learn
    python make_fixtures.py

All 24 examples are one batch, so that neither an order nor a division into smaller batches changes what is computed.
"""

import json
import math
from pathlib import Path

import timm
import torch
from sklearn.metrics import average_precision_score, r2_score
from timm.loss import LabelSmoothingCrossEntropy
from timm.optim import Lion, param_groups_layer_decay
from timm.scheduler import CosineLRScheduler
from timm.utils import ModelEmaV3
from torch.nn import functional
from torch.optim.lr_scheduler import OneCycleLR
from transformers.optimization import get_linear_schedule_with_warmup

N, D, K, STEPS = 24, 8, 3, 50
torch.set_default_dtype(torch.float64)

x = torch.tensor([[math.sin(1 + 7 * i + 3 * j) for j in range(D)] for i in range(N)])
# Of the classes 0, 1 and 2 there are 12, 8 and 4.
y = torch.tensor([0] * 12 + [1] * 8 + [2] * 4)


def model():
    linear = torch.nn.Linear(D, K)
    with torch.no_grad():
        linear.weight.copy_(torch.tensor([[0.3 * math.cos(i * D + j) for j in range(D)] for i in range(K)]))
        linear.bias.copy_(torch.tensor([0.1, -0.2, 0.05]))
    return linear


def run(optimizer, *, clip=None, smoothing=0.0, weights=None, ema=None, schedule=None, loss_of=None):
    """Losses, gradient norms and rates of the steps; what the parameters and their average are behind them."""
    linear = model()
    optimizer = optimizer(linear)
    schedule = schedule(optimizer) if schedule else None
    average = ModelEmaV3(linear, decay=ema) if ema else None
    result = {"losses": [], "norms": [], "rates": []}
    for _ in range(STEPS):
        optimizer.zero_grad()
        loss = loss_of(linear(x)) if loss_of else functional.cross_entropy(
            linear(x), y, weight=weights, label_smoothing=smoothing)
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(linear.parameters(), clip or 1e30)
        result["losses"].append(loss.item())
        result["norms"].append(norm.item())
        result["rates"].append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        if average:
            average.update(linear)
        if schedule:
            schedule(len(result["losses"]))
    result["weight"] = linear.weight.detach().flatten().tolist()
    result["bias"] = linear.bias.detach().tolist()
    result["outputs"] = linear(x).detach().flatten().tolist()
    if average:
        result["average"] = average.module.weight.detach().flatten().tolist()
    return result


def adamw(**options):
    return lambda m: torch.optim.AdamW(m.parameters(), **{"lr": 0.05, "weight_decay": 0.1, **options})


def groups(bias):
    return lambda m: torch.optim.AdamW(
        [{"params": [m.weight]}, {"params": [m.bias], **bias}], lr=0.05, weight_decay=0.1)


def cosine(optimizer):
    scheduler = CosineLRScheduler(
        optimizer, t_initial=STEPS - 10, lr_min=1e-3, warmup_t=10, warmup_lr_init=1e-4, warmup_prefix=True,
        t_in_epochs=False)
    return scheduler.step_update


def linear(optimizer):
    scheduler = get_linear_schedule_with_warmup(optimizer, 10, STEPS)
    return lambda _: scheduler.step()


def one_cycle(optimizer):
    scheduler = OneCycleLR(optimizer, max_lr=0.05, total_steps=STEPS, cycle_momentum=False)
    return lambda done: scheduler.step() if done < STEPS else None


# Labels of which any number may hold, and values, which are standardised.
labels = torch.tensor([[float(math.sin(2 * i + 5 * k) > 0.3) for k in range(K)] for i in range(N)])
values = torch.tensor([[1000 * (k + 1) + 300 * math.sin(i + k) for k in range(K)] for i in range(N)])
mean, deviation = values.mean(0), values.std(0, correction=0)

balanced = N / (K * torch.tensor([12.0, 8.0, 4.0]))

runs = {
    "adamw": run(adamw()),
    "betas": run(adamw(betas=(0.8, 0.95), eps=1e-4)),
    "sgd": run(lambda m: torch.optim.SGD(m.parameters(), lr=0.05, weight_decay=0.1, momentum=0.7)),
    "nesterov": run(
        lambda m: torch.optim.SGD(m.parameters(), lr=0.05, weight_decay=0.1, momentum=0.7, nesterov=True)),
    "lion": run(lambda m: Lion(m.parameters(), lr=0.01, weight_decay=0.1, betas=(0.9, 0.99))),
    "clip": run(adamw(), clip=0.3),
    "smoothing": run(adamw(), smoothing=0.1),
    "weights": run(adamw(), weights=balanced),
    "weightsAndSmoothing": run(adamw(), weights=torch.tensor([0.5, 1.0, 4.0]), smoothing=0.2),
    "ema": run(adamw(), ema=0.9),
    "decay": run(groups({"weight_decay": 0.0})),
    "factors": run(groups({"lr": 0.2})),
    "cosine": run(adamw(), schedule=cosine),
    "linear": run(adamw(), schedule=linear),
    "labels": run(adamw(), loss_of=lambda z: functional.binary_cross_entropy_with_logits(z, labels)),
    "values": run(adamw(), loss_of=lambda z: functional.mse_loss(z, (values - mean) / deviation)),
    "oneCycle": run(adamw(), schedule=one_cycle),
}

for name in runs:
    if name not in ("labels", "values"):
        del runs[name]["outputs"]
runs["labels"]["score"] = average_precision_score(labels, torch.tensor(runs["labels"]["outputs"]).view(N, K))
predicted = torch.tensor(runs["values"]["outputs"]).view(N, K) * deviation + mean
runs["values"]["outputs"] = predicted.flatten().tolist()
runs["values"]["score"] = r2_score(values, predicted)

# The shares of the rate in layer-wise decay, and the decay, of a ViT of three blocks.
vit = timm.create_model("vit_tiny_patch16_224", depth=3, num_classes=5)
names = {id(parameter): name for name, parameter in vit.named_parameters()}
layers = {
    names[id(parameter)]: [group["lr_scale"], group["weight_decay"]]
    for group in param_groups_layer_decay(
        vit, weight_decay=1.0, layer_decay=0.5, no_weight_decay_list=vit.no_weight_decay())
    for parameter in group["params"]
}

# timm's own smoothing is PyTorch's.
logits = model()(x)
assert torch.allclose(
    LabelSmoothingCrossEntropy(0.1)(logits, y), functional.cross_entropy(logits, y, label_smoothing=0.1))

path = Path(__file__).with_name("training.json")
path.write_text(json.dumps({"runs": runs, "layers": layers}, indent=1) + "\n")
print(path, path.stat().st_size)
