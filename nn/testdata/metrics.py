"""Records what Keras' own metrics and fit tell, for the tests of packages nn and train.

    python3 -m venv venv && venv/bin/pip install torch numpy keras scikit-learn
    KERAS_BACKEND=torch venv/bin/python nn/testdata/metrics.py > nn/testdata/metrics.json

"metrics" calls keras.metrics on outputs and labels, in batches of 7, and where Keras
has no such metric (averages of precision and recall by class, the confusion matrix)
sklearn.metrics. Keras runs in float32, as it does if nothing is said: a rounded product
decides on which side of AUC's thresholds an output lies. The epsilon that it adds to
F1's denominators, and we do not, is made too small to be seen.

"fits" trains small models with Model.fit on whole batches, with weights of samples or
of classes or with regularizers, and records what it says of each epoch.
"""

import json
import os

os.environ["KERAS_BACKEND"] = "torch"

import keras
import numpy as np
import sklearn
import sklearn.metrics as sk

SPARSE, CATEGORICAL, BINARY = "sparse_categorical_crossentropy", "categorical_crossentropy", "binary_crossentropy"
rng = np.random.default_rng(20240611)


def f32(a):
    return np.asarray(a, dtype=np.float32)


def softmax(z):
    e = np.exp(z - z.max(axis=1, keepdims=True))
    return f32(e / e.sum(axis=1, keepdims=True))


def numbers(a):
    """The shortest numbers that are the same float32s."""
    return [int(v) if v == int(v) else float(str(v)) for v in f32(a).ravel()]


def run(metric, y, p):
    for lo in range(0, len(p), 7):
        metric.update_state(y[lo : lo + 7], p[lo : lo + 7])
    return float(metric.result())


def case(name, loss, p, y, plain=True):
    """y is [n] class ids for SPARSE, else [n, width]; plain: no ties, no shares."""
    p, width = f32(p), p.shape[1]
    wide = f32(np.eye(width)[y.astype(int)] if loss == SPARSE else y)
    keras.config.set_epsilon(1e-30)
    got = {"auc": run(keras.metrics.AUC(), wide, p)}
    got["precision"] = run(keras.metrics.Precision(), wide, p)
    got["recall"] = run(keras.metrics.Recall(), wide, p)
    threshold = 0.5 if loss == BINARY else None
    if width == 1:
        got["f1_score"] = run(keras.metrics.F1Score(average="macro", threshold=threshold), wide, p)
    else:
        for average in ["macro", "micro", "weighted"]:
            got["f1_score_" + average] = run(keras.metrics.F1Score(average=average, threshold=threshold), wide, p)
    table = None
    if plain and loss != BINARY:
        true, predicted = wide.argmax(axis=1), p.argmax(axis=1)
        of = dict(labels=range(width), average="macro", zero_division=0)
        got["precision_macro"] = sk.precision_score(true, predicted, **of)
        got["recall_macro"] = sk.recall_score(true, predicted, **of)
        table = sk.confusion_matrix(true, predicted, labels=range(width)).tolist()
    elif plain and width == 1:
        table = sk.confusion_matrix(y[:, 0], p[:, 0] > 0.5, labels=range(2)).tolist()
    elif plain:
        of = dict(average="macro", zero_division=0)
        got["precision_macro"] = sk.precision_score(wide.astype(int), (p > 0.5).astype(int), **of)
        got["recall_macro"] = sk.recall_score(wide.astype(int), (p > 0.5).astype(int), **of)
    return {
        "name": name, "loss": loss, "width": width, "p": numbers(p), "y": numbers(y),
        "values": got, "table": table,
    }


def cases():
    def labels(n, share=0.4):
        return (rng.random((n, 1)) < share).astype(float)

    y = labels(300)
    yield case("one unit", BINARY, f32(np.clip(rng.normal(0.4 + 0.3 * y, 0.2), 0, 1)), y)
    y = labels(2000, 0.1)
    yield case("few positives", BINARY, f32(np.clip(rng.normal(0.1 + 0.1 * y, 0.1), 0, 1)), y)
    edges = np.concatenate([np.arange(200) / 199, [0, 1, 0.5, np.nextafter(f32(0.5), f32(1)), 1e-45, 1 - 2**-24]])
    edges = f32(edges)[:, None]
    yield case("on the thresholds", BINARY, edges, labels(len(edges)))
    places = np.repeat(np.arange(1, 199), 2)  # one on each threshold, one in the middle below it
    below = np.tile([0, 0.5], 198)
    yield case("on and between the thresholds", BINARY, f32((places - below) / 199)[:, None], (below[:, None] > 0).astype(float))
    p = f32(rng.random((20, 1)))
    yield case("no positives", BINARY, p, np.zeros((20, 1)))
    yield case("no negatives", BINARY, p, np.ones((20, 1)))
    yield case("nothing predicted", BINARY, p / 2, labels(20))
    yield case("nothing there, nothing predicted", BINARY, p / 2, np.zeros((20, 1)))
    yield case("several units", BINARY, f32(rng.random((60, 3))), (rng.random((60, 3)) < 0.4).astype(float))
    yield case("a unit without labels", BINARY, f32(rng.random((30, 3))), labels(30) * [[1, 0, 1]])
    ids = rng.integers(0, 5, 200)
    yield case("class ids", SPARSE, softmax(rng.normal(size=(200, 5)) + 1.5 * np.eye(5)[ids]), ids)
    ids = rng.integers(0, 3, 40)  # classes 3 and 4 are never there; 4 is never predicted either
    z = rng.normal(size=(40, 5))
    z[:, 4] = -9
    yield case("empty classes", SPARSE, softmax(z), ids)
    ids = rng.integers(0, 4, 50)
    yield case("one-hot", CATEGORICAL, softmax(rng.normal(size=(50, 4))), np.eye(4)[ids])
    yield case("ties", SPARSE, f32(np.repeat([[0.375, 0.375, 0.25], [1 / 3, 1 / 3, 1 / 3]], 5, axis=0)), rng.integers(0, 3, 10), plain=False)
    yield case("shares", CATEGORICAL, softmax(rng.normal(size=(40, 3))), f32(rng.multinomial(4, [0.5, 0.3, 0.2], 40) / 4).astype(float), plain=False)


def fit(name, loss, sample_weight=False, class_weight=None, regularizer=None, smoothing=0.0, one_hot=False):
    """Trains 36 samples of 4 features on whole batches, a third of them for validation."""
    keras.config.set_epsilon(1e-7)
    n, classes, epochs, rate = 36, 2 if loss == BINARY else 3, 4, 0.5
    x = f32(rng.normal(size=(n, 4)))
    ids = rng.integers(0, classes, n)
    weights = f32(rng.choice([0, 0.5, 1, 2.25], n)) if sample_weight else None
    y = ids[:, None] if loss == BINARY else np.eye(classes)[ids] if loss == CATEGORICAL else ids
    reg = keras.regularizers.L1L2(**regularizer) if regularizer else None
    outputs = keras.layers.Dense(1, activation="sigmoid") if loss == BINARY else keras.layers.Dense(3, activation="softmax")
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(5, activation="tanh", kernel_regularizer=reg), outputs])
    start = [f32(rng.normal(size=w.shape) * 0.5) for w in model.get_weights()]
    model.set_weights(start)
    which = {BINARY: keras.losses.BinaryCrossentropy, CATEGORICAL: keras.losses.CategoricalCrossentropy}
    criterion = which[loss](label_smoothing=smoothing) if loss in which else keras.losses.SparseCategoricalCrossentropy()
    metrics = ["accuracy"] if loss == SPARSE else ["accuracy", keras.metrics.AUC(name="auc"), keras.metrics.Precision(name="precision"), keras.metrics.Recall(name="recall")]
    if loss == CATEGORICAL:
        metrics.append(keras.metrics.F1Score(average="macro", name="f1_score_macro"))
    model.compile(optimizer=keras.optimizers.SGD(rate), loss=criterion, metrics=metrics)
    said = model.fit(x, y, batch_size=n, epochs=epochs, shuffle=False, verbose=0, sample_weight=weights, class_weight=class_weight, validation_split=1 / 3)
    flat = lambda all: [v for w in all for v in numbers(w)]
    return {
        "name": name, "loss": loss, "classes": classes, "rate": rate, "epochs": epochs, "smoothing": smoothing,
        "x": flat([x]), "ids": [int(i) for i in ids], "sample_weight": None if weights is None else flat([weights]),
        "class_weight": [class_weight[c] for c in range(classes)] if class_weight else None, "regularizer": regularizer,
        "start": flat(start), "end": flat(model.get_weights()),
        "history": {k: [float(v) for v in vs] for k, vs in said.history.items()},
    }


def fits():
    yield fit("samples, class ids", SPARSE, sample_weight=True)
    yield fit("samples, one-hot", CATEGORICAL, sample_weight=True)
    yield fit("samples, one unit", BINARY, sample_weight=True)
    yield fit("classes, class ids", SPARSE, class_weight={0: 0.5, 1: 1.0, 2: 3.0})
    yield fit("classes, one-hot", CATEGORICAL, class_weight={0: 0.5, 1: 1.0, 2: 3.0}, smoothing=0.2)
    yield fit("classes, one unit", BINARY, class_weight={0: 0.25, 1: 2.0}, smoothing=0.1)
    yield fit("regularizers", SPARSE, regularizer={"l1": 0.01, "l2": 0.05})


print(json.dumps({
    "keras": keras.__version__, "sklearn": sklearn.__version__,
    "metrics": list(cases()), "fits": list(fits()),
}, indent=None, separators=(",", ":")).replace('{"name"', '\n{"name"'))
