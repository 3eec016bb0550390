"""Records what PyTorch computes, for the tests of package nn.

    python3 -m venv venv && venv/bin/pip install torch numpy
    venv/bin/python nn/testdata/golden.py > nn/testdata/golden.json

Each case is a small model with a batch. Inputs, labels and parameters are
float32 numbers; PyTorch computes in float64 from them, with its own layers, its
own losses and autograd, so that the record is the truth to far below float32
and the tests' tolerance is about our rounding alone. Kernels are written in
Keras' layout [inputs, units], which is nn.Linear's weight transposed. Gradients
are those of the sum of the losses of the samples.
"""

import json
import sys

import torch
from torch import nn
from torch.nn import functional as F

torch.manual_seed(20240601)

ACTIVATIONS = {
    "relu": nn.ReLU,
    "sigmoid": nn.Sigmoid,
    "tanh": nn.Tanh,
    "softmax": lambda: nn.Softmax(dim=-1),
    "linear": nn.Identity,
}


def build(layers, width):
    """The model as PyTorch modules, and its Linear modules in order."""
    modules, linears = [], []
    for layer in layers:
        ((kind, arg),) = layer.items()
        if kind == "flatten":
            modules.append(nn.Flatten())
        elif kind == "dropout":
            modules.append(nn.Dropout(arg["rate"]))
        elif kind == "activation":
            modules.append(ACTIVATIONS[arg["kind"]]())
        else:
            linear = nn.Linear(width, arg["units"], bias=arg.get("use_bias", True), dtype=torch.float64)
            width = arg["units"]
            linears.append(linear)
            modules += [linear, ACTIVATIONS[arg.get("activation", "linear")]()]
    return modules, linears


def losses(name, modules, x, y):
    """Losses of each sample, [N]: cross-entropies from logits, as PyTorch has them."""
    fused = {"sparse_categorical_crossentropy", "categorical_crossentropy", "binary_crossentropy"}
    z = nn.Sequential(*(modules[:-1] if name in fused else modules))(x)
    if name == "sparse_categorical_crossentropy":
        return F.cross_entropy(z, y[:, 0].long(), reduction="none")
    if name == "categorical_crossentropy":
        return F.cross_entropy(z, y, reduction="none")
    if name == "binary_crossentropy":
        return F.binary_cross_entropy_with_logits(z, y, reduction="none").mean(1)
    return F.mse_loss(z, y, reduction="none").mean(1)


def metrics(names, loss, out, y):
    """Per-sample metrics, [N] each."""
    values = {}
    for name in names:
        if name == "mean_squared_error":
            v = F.mse_loss(out, y, reduction="none").mean(1)
        elif name == "mean_absolute_error":
            v = F.l1_loss(out, y, reduction="none").mean(1)
        elif name == "binary_accuracy" or loss == "binary_crossentropy" or out.shape[1] == 1:
            v = (out > 0.5).eq(y > 0.5).double().mean(1)
        elif y.shape[1] == 1:
            v = out.argmax(1).eq(y[:, 0].long()).double()
        else:
            v = out.argmax(1).eq(y.argmax(1)).double()
        values[name] = v.tolist()
    return values


def float32(t):
    return t.detach().to(torch.float32).double()


def numbers(t, digits=12):
    """9 digits name a float32 exactly; 12 of a float64 are enough for every test."""
    return [float(f"{v:.{digits}g}") for v in t.detach().flatten().tolist()]


def case(name, shape, layers, loss, y, metric_names=(), x=None, scale=1.0):
    n, width = y.shape[0], int(torch.tensor(shape).prod())
    modules, linears = build(layers, width)
    x = float32(torch.randn(n, *shape) if x is None else x)
    y = float32(y)
    with torch.no_grad():
        for p in (p for m in linears for p in m.parameters()):
            p.copy_(float32(p * scale))
    model = nn.Sequential(*modules).eval()
    out = model(x)
    loss_values = losses(loss, modules, x, y)
    loss_values.sum().backward()
    params, grads = [], []
    for m in linears:
        params.append(m.weight.T.flatten())
        grads.append(m.weight.grad.T.flatten())
        if m.bias is not None:
            params.append(m.bias)
            grads.append(m.bias.grad)
    return {
        "name": name,
        "input": list(shape),
        "layers": layers,
        "loss": loss,
        "classes": out.shape[1] if loss.endswith("categorical_crossentropy") else 0,
        "x": numbers(x, 9),
        "y": numbers(y, 9),
        "params": numbers(torch.cat(params), 9),
        "out": numbers(out),
        "losses": numbers(loss_values),
        "grads": numbers(torch.cat(grads)),
        "metrics": metrics(metric_names, loss, out, y),
    }


def dense(units, activation="linear", **more):
    return {"dense": {"units": units, "activation": activation, **more}}


def ids(n, classes):
    return torch.randint(classes, (n, 1)).double()


def one_hot(n, classes):
    return F.one_hot(ids(n, classes)[:, 0].long(), classes).double()


SPARSE, CATEGORICAL = "sparse_categorical_crossentropy", "categorical_crossentropy"
BINARY, MSE = "binary_crossentropy", "mean_squared_error"
FLATTEN = {"flatten": {}}


def activation(kind):
    return {"activation": {"kind": kind}}


def cases():
    yield case("the tutorial's network, small", (6, 7), [FLATTEN, dense(16, "relu"), {"dropout": {"rate": 0.2}}, dense(10, "softmax")],
               SPARSE, ids(8, 10), ["accuracy"])
    yield case("linear regression", (5,), [dense(1)], MSE, torch.randn(7, 1), ["mean_squared_error", "mean_absolute_error"])
    yield case("regression of several outputs", (4,), [dense(9, "tanh"), dense(3)], MSE, torch.randn(6, 3),
               ["mean_absolute_error", "mean_squared_error", "accuracy"])
    yield case("one-hot labels", (5,), [dense(8, "tanh"), dense(4, "softmax")], CATEGORICAL, one_hot(9, 4), ["accuracy", "mean_squared_error"])
    yield case("soft labels", (5,), [dense(8, "sigmoid"), dense(4, "softmax")], CATEGORICAL,
               float32(torch.softmax(torch.randn(5, 4), 1)), ["accuracy"])
    yield case("one sigmoid", (6,), [dense(8, "relu"), dense(1, "sigmoid")], BINARY, ids(9, 2), ["accuracy", "binary_accuracy"])
    yield case("several labels at once", (6,), [dense(8, "tanh"), dense(5, "sigmoid")], BINARY, torch.randint(2, (7, 5)).double(),
               ["binary_accuracy", "accuracy", "mean_absolute_error"])
    yield case("sigmoid far from zero", (3,), [dense(2, "sigmoid")], BINARY, torch.randint(2, (8, 2)).double(), ["binary_accuracy"],
               x=torch.randn(8, 3) * 60)
    yield case("logits in the thousands", (3,), [dense(6, "softmax")], SPARSE, ids(8, 6), ["accuracy"], x=torch.randn(8, 3) * 2000)
    yield case("softmax inside and squared errors behind it", (5,), [dense(7, "softmax"), dense(4, "softmax")], MSE, one_hot(6, 4), ["accuracy"])
    yield case("sigmoid and squared errors", (5,), [dense(3, "sigmoid")], MSE, torch.rand(6, 3), ["mean_squared_error"])
    yield case("activations as layers, no bias", (2, 2, 2), [activation("tanh"), FLATTEN, dense(6, use_bias=False), activation("relu"),
               activation("sigmoid"), dense(4), activation("softmax")], SPARSE, ids(5, 4), ["accuracy"])
    yield case("relu exactly at zero", (2,), [dense(3, "relu", use_bias=False), dense(2)], MSE, torch.randn(4, 2), [],
               x=torch.tensor([[0.0, 0.0], [1.0, 2.0], [0.0, 0.0], [-1.0, 0.5]]))
    yield case("four layers deep", (8,), [dense(12, "relu"), dense(12, "tanh"), dense(12, "sigmoid"), dense(5, "softmax")], SPARSE, ids(11, 5),
               ["accuracy"], scale=2.0)


def dropout_values(rate):
    """The values that PyTorch's dropout makes of ones."""
    return sorted(set(F.dropout(torch.ones(1000), rate).tolist()))


def main():
    record = {
        "torch": torch.__version__,
        "dropout": {str(rate): dropout_values(rate) for rate in (0.1, 0.2, 0.25, 0.5, 0.9)},
        "cases": list(cases()),
    }
    json.dump(record, sys.stdout, separators=(",", ":"))
    print()


main()
