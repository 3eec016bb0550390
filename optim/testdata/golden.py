"""Records ten steps of PyTorch's optimizers and schedules: golden.json.

    python golden.py > golden.json      # torch 2.x, CPU

Gradients are exact binary fractions, given in the file, so that nothing but the
optimizer's own arithmetic is compared. Clipping is spelled out, since
torch.nn.utils.clip_grad_norm_ adds 1e-6 to the norm.
"""

import json
import random

import torch
from torch.optim import lr_scheduler as sched

N, STEPS = 12, 10
CASES = [
    ("sgd", dict(lr=0.1), None),
    ("sgd", dict(lr=0.1, momentum=0.9), None),
    ("sgd", dict(lr=0.1, momentum=0.9, nesterov=True), None),
    ("sgd", dict(lr=0.1, momentum=0.9), 0.5),
    ("adam", dict(lr=0.01, betas=(0.9, 0.999), eps=1e-7), None),
    ("adam", dict(lr=0.01, betas=(0.8, 0.95), eps=1e-3), 1.0),
    ("adamw", dict(lr=0.01, betas=(0.9, 0.999), eps=1e-7, weight_decay=0.004), None),
    ("adamw", dict(lr=0.01, betas=(0.9, 0.999), eps=1e-7, weight_decay=0.5), None),
]
RULES = {"sgd": torch.optim.SGD, "adam": torch.optim.Adam, "adamw": torch.optim.AdamW}


def fractions(rng, scale):
    """N multiples of 2^-20, one of them 0, over a wide range of sizes."""
    v = [round(rng.uniform(-1, 1) * scale * 4.0 ** -(i % 6) * 2**20) / 2**20 for i in range(N)]
    v[3] = 0.0
    return v


def clip(g, limit):
    norm = torch.linalg.vector_norm(g.double())
    return g * torch.clamp(limit / norm, max=1.0).float()


def run(kind, args, limit, rng):
    start = fractions(rng, 2)
    p = torch.tensor(start, dtype=torch.float32, requires_grad=True)
    opt = RULES[kind]([p], foreach=False, **args)
    grads, params = [], []
    for _ in range(STEPS):
        grads.append(fractions(rng, 1))
        p.grad = torch.tensor(grads[-1], dtype=torch.float32)
        if limit is not None:
            p.grad = clip(p.grad, limit)
        opt.step()
        params.append(p.detach().tolist())
    return dict(kind=kind, args=args, clip=limit or 0, start=start, grads=grads, params=params)


def schedule(name, make):
    opt = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.1)
    s = make(opt)
    rates = []
    for _ in range(30):
        rates.append(opt.param_groups[0]["lr"])
        opt.step()
        s.step()
    return dict(name=name, rates=rates)


def warm(opt, after):
    up = sched.LinearLR(opt, start_factor=1 / 6, end_factor=1.0, total_iters=5)
    return sched.SequentialLR(opt, [up, after(opt)], milestones=[5])


def cosine(opt):
    # PyTorch's formula rises again after T_max; ours stays, so the tests stop there.
    return sched.CosineAnnealingLR(opt, T_max=20, eta_min=0.01)


def step(opt):
    return sched.StepLR(opt, step_size=4, gamma=0.3)


def main():
    rng = random.Random(1)
    steps = [run(*c, rng) for c in CASES]
    schedules = [
        schedule("cosine", cosine),
        schedule("step", step),
        schedule("warm cosine", lambda o: warm(o, cosine)),
        schedule("warm step", lambda o: warm(o, step)),
    ]
    print("{" + f'"torch": "{torch.__version__}",')
    print('"steps": [\n' + ",\n".join(map(json.dumps, steps)) + "\n],")
    print('"schedules": [\n' + ",\n".join(map(json.dumps, schedules)) + "\n]}")


main()
