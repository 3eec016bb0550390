"""Records ten steps of optimizers that golden.py lacks, and schedules: more.json.

    KERAS_BACKEND=torch python more.py > more.json      # torch 2.x, keras 3.x, CPU

RMSprop, Adagrad and the exponential schedule are PyTorch's. LAMB is Keras' (there
is none in PyTorch), without decay, of two tensors of 5 and 7 elements; epsilon and
betas as they stand in the record. So is the piecewise schedule.
"""

import json
import os
import random

os.environ["KERAS_BACKEND"] = "torch"

import keras
import torch

from torch.optim import lr_scheduler as sched

N, STEPS, CUT = 12, 10, 5
CASES = [
    ("rmsprop", torch.optim.RMSprop, dict(lr=0.01, alpha=0.9, eps=1e-7)),
    ("rmsprop", torch.optim.RMSprop, dict(lr=0.01, alpha=0.75, eps=1e-3, momentum=0.5)),
    ("adagrad", torch.optim.Adagrad, dict(lr=0.05, initial_accumulator_value=0.1, eps=1e-7)),
]


def fractions(rng, scale):
    v = [round(rng.uniform(-1, 1) * scale * 4.0 ** -(i % 6) * 2**20) / 2**20 for i in range(N)]
    v[3] = 0.0
    return v


def run_torch(kind, rule, args, rng):
    start = fractions(rng, 2)
    p = torch.tensor(start, dtype=torch.float32, requires_grad=True)
    opt = rule([p], foreach=False, **args)
    grads, params = [], []
    for _ in range(STEPS):
        grads.append(fractions(rng, 1))
        p.grad = torch.tensor(grads[-1], dtype=torch.float32)
        opt.step()
        params.append(p.detach().tolist())
    return dict(kind=kind, args=args, clip=0, start=start, grads=grads, params=params)


def run_lamb(rng):
    args = dict(lr=0.01, betas=[0.9, 0.999], eps=1e-6)
    start = fractions(rng, 2)
    tensors = [keras.Variable(start[:CUT]), keras.Variable(start[CUT:])]
    opt = keras.optimizers.Lamb(learning_rate=0.01, beta_1=0.9, beta_2=0.999, epsilon=1e-6)
    grads, params = [], []
    for _ in range(STEPS):
        grads.append(fractions(rng, 1))
        g = torch.tensor(grads[-1], dtype=torch.float32)
        opt.apply([g[:CUT], g[CUT:]], tensors)
        params.append([v for t in tensors for v in t.value.tolist()])
    return dict(kind="lamb", args=args, clip=0, start=start, grads=grads, params=params)


def exponential():
    opt = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.1)
    s = sched.ExponentialLR(opt, gamma=0.5 ** (1 / 4))
    rates = []
    for _ in range(30):
        rates.append(opt.param_groups[0]["lr"])
        opt.step()
        s.step()
    return dict(name="exponential", rates=rates)


def piecewise():
    s = keras.optimizers.schedules.PiecewiseConstantDecay([5, 12], [0.1, 0.25, 0.03125])
    return dict(name="piecewise", rates=[float(s(t)) for t in range(30)])


rng = random.Random(2)
print(json.dumps(dict(
    steps=[run_torch(*c, rng) for c in CASES] + [run_lamb(rng)],
    schedules=[exponential(), piecewise()],
), separators=(",", ":")))
