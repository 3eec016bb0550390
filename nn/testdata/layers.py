"""Records what Keras' and PyTorch's own layers compute, for the tests of package nn.

    python3 -m venv venv && venv/bin/pip install torch numpy keras
    KERAS_BACKEND=torch venv/bin/python nn/testdata/layers.py > nn/testdata/layers.json

As golden.py: inputs, labels and parameters are float32 numbers, the frameworks
compute in float64 from them, and gradients are those of the sum of the losses.
The first half builds each model of keras.layers (with PyTorch behind them), whose
shapes, gate orders, padding and masks ours are meant to have: parameters are
those of the layers one after another, as Keras lists them. In the place of the
gradient of a moving statistic stands the batch's own, times the number of
samples, taken from how Keras moves it. "steps" are the parameters after ten
steps of plain gradient descent on the mean loss. The second half calls torch.nn
and turns its weights into Keras' layout.
"""

import json
import os
import sys

os.environ["KERAS_BACKEND"] = "torch"

import keras
import torch
from keras import layers as K
from torch import nn

torch.manual_seed(20240602)
keras.config.set_floatx("float64")
keras.config.set_epsilon(1e-15)

SPARSE, CATEGORICAL = "sparse_categorical_crossentropy", "categorical_crossentropy"
BINARY, MSE = "binary_crossentropy", "mean_squared_error"


def float32(t):
    return t.detach().to(torch.float32).double()


def numbers(t, digits=11):
    return [float(f"{v:.{digits}g}") for v in t.detach().flatten().tolist()]


def keras_layer(kind, arg):
    arg = dict(arg)
    trainable = arg.pop("trainable", True)
    if kind == "bidirectional":
        ((inner, inner_arg),) = arg["layer"].items()
        return K.Bidirectional(keras_layer(inner, inner_arg), merge_mode=arg.get("merge_mode", "concat"))
    names = {
        "conv2d": K.Conv2D, "max_pooling2d": K.MaxPooling2D, "average_pooling2d": K.AveragePooling2D,
        "global_average_pooling2d": K.GlobalAveragePooling2D, "global_max_pooling2d": K.GlobalMaxPooling2D,
        "spatial_dropout2d": K.SpatialDropout2D, "dropout": K.Dropout, "dense": K.Dense, "flatten": K.Flatten,
        "embedding": K.Embedding, "lstm": K.LSTM, "gru": K.GRU, "batch_normalization": K.BatchNormalization,
        "layer_normalization": K.LayerNormalization, "reshape": K.Reshape,
    }
    if kind == "activation":
        return K.Activation(arg["kind"])
    layer = names[kind](**arg)
    layer.trainable = trainable
    return layer


def apply(specs, x, made):
    """Appends the layers of specs to a functional model, and to made in their order."""
    for spec in specs:
        ((kind, arg),) = spec.items()
        if kind == "residual":
            x = K.Add()([apply(arg["layers"], x, made), apply(arg.get("shortcut", []), x, made)])
        elif kind == "concat":
            x = K.Concatenate()([apply(b, x, made) for b in arg["branches"]])
        else:
            layer = keras_layer(kind, arg)
            made.append(layer)
            x = layer(x)
    return x


def losses(name, out, y, smoothing=0.0):
    if name == SPARSE and smoothing:
        return keras.losses.categorical_crossentropy(keras.ops.one_hot(y[:, 0].long(), out.shape[1], dtype="float64"), out, label_smoothing=smoothing)
    if name == SPARSE:
        return keras.losses.sparse_categorical_crossentropy(y[:, 0], out)
    if smoothing:
        f = {CATEGORICAL: keras.losses.categorical_crossentropy, BINARY: keras.losses.binary_crossentropy}[name]
        return f(y, out, label_smoothing=smoothing)
    return {
        CATEGORICAL: keras.losses.categorical_crossentropy, BINARY: keras.losses.binary_crossentropy,
        MSE: keras.losses.mean_squared_error, "mean_absolute_error": keras.losses.mean_absolute_error,
        "huber": keras.losses.huber,
    }[name](y, out)


def is_statistic(v):
    return v.name.startswith("moving_")


def run(model, weights, loss, x, y, train, frozen, smoothing=0.0, class_weight=None):
    """Output, losses, and what package nn writes as the gradient."""
    for v in weights:
        v.value.grad = None
    before = [v.value.detach().clone() for v in weights]
    out = model(x, training=train)
    values = losses(loss, out, y, smoothing)
    if class_weight:
        classes = y.argmax(1) if y.shape[1] > 1 else y[:, 0].long()
        values = values * torch.tensor(class_weight, dtype=torch.float64)[classes]
    values.sum().backward()
    grads = []
    for v, b in zip(weights, before):
        if id(v) in frozen:
            grads.append(torch.zeros_like(b))
        elif is_statistic(v):
            momentum = 0.75
            batch = (v.value.detach() - momentum * b) / (1 - momentum)
            grads.append(batch * x.shape[0] if train else torch.zeros_like(b))
        else:
            grads.append(v.value.grad)
    for v, b in zip(weights, before):
        v.assign(b)
    return out, values, grads


def case(name, shape, specs, loss, y, x=None, train=False, scale=1.0, steps=0.0, metric=None, **more):
    n = y.shape[0]
    made = []
    inputs = keras.Input(shape)
    model = keras.Model(inputs, apply(specs, inputs, made))
    weights = [v for layer in made for v in layer.weights if "seed" not in v.name]
    frozen = {id(v) for layer in made if not layer.trainable for v in layer.weights}
    x = float32(torch.randn(n, *shape) if x is None else x)
    y = float32(y)
    for v in weights:
        t = torch.rand(v.shape) + 0.5 if "variance" in v.name or "gamma" in v.name else torch.randn(v.shape) * scale / max(1, v.shape[0] if len(v.shape) == 2 else 4) ** 0.5
        v.assign(float32(t))
    params = torch.cat([v.value.detach().flatten() for v in weights])
    out, values, grads = run(model, weights, loss, x, y, train, frozen, **more)
    record = {
        "name": name, "from": "keras " + keras.__version__, "input": list(shape), "layers": specs, "loss": loss,
        "classes": out.shape[1] if loss == SPARSE else 0, "train": train,
        "x": numbers(x, 9), "y": numbers(y, 9), "params": numbers(params, 9), "out": numbers(out),
        "losses": numbers(values), "grads": numbers(torch.cat([g.flatten() for g in grads])), **more,
    }
    if metric:
        record["metrics"] = {metric: numbers(getattr(keras.metrics, metric)(y[:, 0] if y.shape[1] == 1 else y, out, k=5).double())}
    if steps:
        for _ in range(10):
            _, _, grads = run(model, weights, loss, x, y, True, frozen)
            for v, g in zip(weights, grads):
                if id(v) in frozen:
                    continue
                move = 0.25 * (g / n - v.value.detach()) if is_statistic(v) else -steps * g / n
                v.assign(v.value.detach() + move)
        record["rate"] = steps
        record["steps"] = numbers(torch.cat([v.value.detach().flatten() for v in weights]))
    return record


def L(kind, /, **arg):
    return {kind: arg}


def ids(n, classes):
    return torch.randint(classes, (n, 1)).double()


def tokens(n, t, vocabulary):
    """Sequences that end in padding, one of them of nothing but padding, one with a hole."""
    x = torch.randint(1, vocabulary, (n, t)).double()
    for i in range(n):
        x[i, t - i % t:] = 0
    x[0, 1] = 0
    x[-1, :] = 0
    return x


def keras_cases():
    bn = {"momentum": 0.75}
    softmax = L("dense", units=3, activation="softmax")
    yield case("conv2d valid", (5, 6, 2), [L("conv2d", filters=3, kernel_size=[3, 2], activation="relu"), L("flatten"), softmax], SPARSE, ids(3, 3))
    yield case("conv2d same, strides, no bias, two of them", (6, 5, 2),
               [L("conv2d", filters=3, kernel_size=3, padding="same", activation="tanh"),
                L("conv2d", filters=2, kernel_size=[4, 3], strides=2, padding="same", use_bias=False), L("flatten"), softmax], SPARSE, ids(3, 3))
    yield case("conv2d strides valid, 1x1 behind it", (7, 7, 1),
               [L("conv2d", filters=3, kernel_size=3, strides=[2, 3]), L("conv2d", filters=2, kernel_size=1, activation="sigmoid"), L("flatten"), L("dense", units=2)],
               MSE, torch.randn(3, 2))
    yield case("pooling, valid and same", (8, 7, 2),
               [L("conv2d", filters=3, kernel_size=2), L("max_pooling2d"), L("conv2d", filters=2, kernel_size=2, padding="same"),
                L("average_pooling2d", pool_size=2, strides=[1, 2], padding="same"), L("max_pooling2d", pool_size=[3, 2], strides=2, padding="same"),
                L("flatten"), softmax], SPARSE, ids(3, 3))
    yield case("average pooling valid, spatial dropout asleep, global maximum", (6, 6, 1),
               [L("conv2d", filters=3, kernel_size=2), L("average_pooling2d", pool_size=2, strides=1), L("spatial_dropout2d", rate=0.5), L("global_max_pooling2d"), softmax],
               SPARSE, ids(4, 3))
    yield case("a small CNN, ten steps", (10,), [L("reshape", target_shape=[5, 2, 1]), L("conv2d", filters=3, kernel_size=2, padding="same", activation="relu"),
               L("batch_normalization", **bn), L("global_average_pooling2d"), softmax], SPARSE, ids(6, 3), train=True, steps=0.5)
    yield case("batch_normalization of images", (3, 4, 2), [L("batch_normalization", **bn), L("conv2d", filters=2, kernel_size=2), L("batch_normalization", center=False, **bn),
               L("activation", kind="tanh"), L("flatten"), L("dense", units=2)], MSE, torch.randn(4, 2), train=True)
    yield case("batch_normalization of vectors", (4,), [L("dense", units=5), L("batch_normalization", scale=False, epsilon=0.01, **bn), L("activation", kind="relu"), softmax],
               SPARSE, ids(7, 3), train=True, steps=0.3)
    yield case("batch_normalization in evaluation", (4,), [L("dense", units=5), L("batch_normalization", **bn), softmax], SPARSE, ids(5, 3))
    yield case("batch_normalization of one sample", (4,), [L("dense", units=5), L("batch_normalization", **bn), softmax], SPARSE, ids(1, 3), train=True)
    yield case("frozen layers", (4,), [L("dense", units=4, trainable=False), L("dense", units=5, activation="tanh"), L("batch_normalization", trainable=False, **bn),
               L("dense", units=4, activation="tanh", trainable=False), softmax], SPARSE, ids(6, 3), train=True, steps=0.3)
    yield case("layer_normalization", (3, 4), [L("layer_normalization"), L("flatten"), L("dense", units=6), L("activation", kind="tanh"), L("dense", units=3)], MSE, torch.randn(4, 3))
    yield case("layer_normalization without beta, without gamma", (8,), [L("dense", units=6), L("layer_normalization", center=False, epsilon=0.01), L("activation", kind="tanh"),
               L("dense", units=7), L("layer_normalization", scale=False), L("dense", units=3)], MSE, torch.randn(4, 3), steps=0.1)
    yield case("embedding", (5,), [L("embedding", input_dim=7, output_dim=3), L("flatten"), softmax], SPARSE, ids(4, 3), x=torch.randint(7, (4, 5)))
    yield case("lstm", (4, 3), [L("lstm", units=5), softmax], SPARSE, ids(3, 3))
    yield case("lstm of lstm, no bias", (4, 3), [L("lstm", units=4, return_sequences=True, use_bias=False, unit_forget_bias=False), L("lstm", units=3), L("dense", units=2)], MSE, torch.randn(3, 2))
    yield case("embedding with padding, lstm, ten steps", (6,), [L("embedding", input_dim=8, output_dim=4, mask_zero=True), L("lstm", units=4, return_sequences=True), L("lstm", units=3), softmax],
               SPARSE, ids(5, 3), x=tokens(5, 6, 8), steps=0.5)
    yield case("gru", (4, 3), [L("gru", units=5), softmax], SPARSE, ids(3, 3))
    yield case("gru with padding, sequences, no bias", (5,), [L("embedding", input_dim=8, output_dim=4, mask_zero=True), L("gru", units=4, return_sequences=True, use_bias=False), L("gru", units=3), softmax],
               SPARSE, ids(4, 3), x=tokens(4, 5, 8), steps=0.5)
    yield case("bidirectional lstm", (4, 3), [L("bidirectional", layer=L("lstm", units=3)), softmax], SPARSE, ids(3, 3))
    yield case("bidirectional sequences with padding", (5,), [L("embedding", input_dim=8, output_dim=4, mask_zero=True), L("bidirectional", layer=L("gru", units=3, return_sequences=True)),
               L("bidirectional", layer=L("lstm", units=2), merge_mode="sum"), softmax], SPARSE, ids(4, 3), x=tokens(4, 5, 8))
    yield case("sequences to the end", (3, 2), [L("lstm", units=2, return_sequences=True), L("gru", units=3, return_sequences=True), L("flatten"), L("dense", units=2)], MSE, torch.randn(3, 2))
    yield case("residual", (4, 4, 2), [L("conv2d", filters=3, kernel_size=1), L("residual", layers=[L("conv2d", filters=3, kernel_size=3, padding="same", activation="relu"), L("batch_normalization", **bn)]),
               L("activation", kind="relu"), L("residual", layers=[L("conv2d", filters=2, kernel_size=3, strides=2, padding="same")],
               shortcut=[L("conv2d", filters=2, kernel_size=1, strides=2)]), L("flatten"), softmax], SPARSE, ids(3, 3), train=True, steps=0.2)
    yield case("concat", (5,), [L("concat", branches=[[L("dense", units=3, activation="tanh")], [], [L("dense", units=2), L("residual", layers=[L("dense", units=2, activation="relu")])]]),
               L("concat", branches=[[L("dense", units=3)], [L("activation", kind="sigmoid"), L("dense", units=2)]]), softmax], SPARSE, ids(4, 3))


    def every(f):
        return [L("dense", units=4, activation=f), L("activation", kind=f)]

    for f in ("leaky_relu", "elu", "gelu", "swish"):
        last = [L("dense", units=2, activation=f)] if f == "gelu" else [L("dense", units=2)]
        yield case(f, (3,), [L("activation", kind=f), *every(f), *last], MSE, torch.randn(5, 2), x=torch.randn(5, 3) * 3)
    yield case("mean_absolute_error", (3,), [L("dense", units=3)], "mean_absolute_error", torch.randn(5, 3))
    yield case("huber", (3,), [L("dense", units=3)], "huber", torch.randn(6, 3) * 2)
    many = [L("dense", units=9, activation="softmax")]
    yield case("top k of class ids", (3,), many, SPARSE, ids(12, 9), metric="sparse_top_k_categorical_accuracy")
    yield case("top k", (3,), many, CATEGORICAL, torch.eye(9)[torch.randint(9, (12,))], metric="top_k_categorical_accuracy")
    yield case("label smoothing", (3,), [L("dense", units=4, activation="softmax")], CATEGORICAL, torch.eye(4), smoothing=0.1)
    yield case("label smoothing of class ids, and class weights", (3,), [L("dense", units=4, activation="softmax")], SPARSE, ids(6, 4), smoothing=0.2,
               class_weight=[1.0, 0.5, 2.5, 0.0], train=True)
    yield case("label smoothing of two classes, and class weights", (3,), [L("dense", units=1, activation="sigmoid")], BINARY, ids(6, 2), smoothing=0.1,
               class_weight=[0.25, 1.5], train=True)


def torch_case(name, shape, specs, forward, params, loss, x, y):
    """forward uses torch.nn layers; params lists (parameter, how it lies in Keras' layout)."""
    n = y.shape[0]
    out = forward(x)
    values = (out - y).square().mean(1)
    values.sum().backward()
    return {
        "name": name, "from": "torch " + torch.__version__, "input": list(shape), "layers": specs, "loss": loss, "classes": 0, "train": False,
        "x": numbers(x, 9), "y": numbers(y, 9), "out": numbers(out), "losses": numbers(values),
        "params": numbers(torch.cat([f(p.detach()).flatten() for p, f in params]), 9),
        "grads": numbers(torch.cat([f(p.grad).flatten() for p, f in params])),
    }


def rounded(module):
    with torch.no_grad():
        for p in module.parameters():
            p.copy_(float32(p))
    return module.double()


def gates(order):
    """Columns of Keras' layout from PyTorch's rows, whose gates come in another order."""
    def f(p):
        parts = p.chunk(len(order), 0)
        return torch.cat([parts[i] for i in order], 0).T
    return f


def torch_cases():
    same = lambda p: p
    conv, last = rounded(nn.Conv2d(2, 3, (3, 2), stride=(2, 1))), rounded(nn.Linear(3 * 2 * 4, 2))
    pool = nn.MaxPool2d(1, 1)
    x, y = float32(torch.randn(3, 5, 5, 2)), float32(torch.randn(3, 2))
    last_kernel = lambda p: p.T
    yield torch_case("nn.Conv2d", (5, 5, 2), [L("conv2d", filters=3, kernel_size=[3, 2], strides=[2, 1], activation="tanh"), L("max_pooling2d", pool_size=1), L("flatten"), L("dense", units=2)],
                     lambda x: last(pool(torch.tanh(conv(x.permute(0, 3, 1, 2)))).permute(0, 2, 3, 1).flatten(1)),
                     [(conv.weight, lambda p: p.permute(2, 3, 1, 0)), (conv.bias, same), (last.weight, last_kernel), (last.bias, same)], MSE, x, y)

    lstm, head = rounded(nn.LSTM(3, 4, batch_first=True)), rounded(nn.Linear(4, 2))
    with torch.no_grad():
        lstm.bias_hh_l0.zero_()
    x, y = float32(torch.randn(3, 5, 3)), float32(torch.randn(3, 2))
    ifgo = gates([0, 1, 2, 3])
    yield torch_case("nn.LSTM", (5, 3), [L("lstm", units=4), L("dense", units=2)], lambda x: head(lstm(x)[0][:, -1]),
                     [(lstm.weight_ih_l0, ifgo), (lstm.weight_hh_l0, ifgo), (lstm.bias_ih_l0, same), (head.weight, last_kernel), (head.bias, same)], MSE, x, y)

    gru, head2 = rounded(nn.GRU(3, 4, batch_first=True)), rounded(nn.Linear(4, 2))
    x = float32(torch.randn(3, 5, 3))
    zrh = gates([1, 0, 2])  # PyTorch: r, z, n
    bias = lambda p: zrh(p[:, None])
    yield torch_case("nn.GRU", (5, 3), [L("gru", units=4), L("dense", units=2)], lambda x: head2(gru(x)[0][:, -1]),
                     [(gru.weight_ih_l0, zrh), (gru.weight_hh_l0, zrh), (gru.bias_ih_l0, bias), (gru.bias_hh_l0, bias), (head2.weight, last_kernel), (head2.bias, same)], MSE, x, y)

    table, norm, head3 = rounded(nn.Embedding(6, 3)), rounded(nn.LayerNorm(3, eps=1e-3)), rounded(nn.Linear(12, 2))
    x = torch.randint(6, (3, 4)).double()
    yield torch_case("nn.Embedding and nn.LayerNorm", (4,), [L("embedding", input_dim=6, output_dim=3), L("layer_normalization"), L("flatten"), L("dense", units=2)],
                     lambda x: head3(norm(table(x.long())).flatten(1)),
                     [(table.weight, same), (norm.weight, same), (norm.bias, same), (head3.weight, last_kernel), (head3.bias, same)], MSE, x, y)


def main():
    record = {"torch": torch.__version__, "cases": list(keras_cases()) + list(torch_cases())}
    json.dump(record, sys.stdout, separators=(",", ":"))
    print()


main()
