"""Writes golden.json: images warped by SciPy and by Keras, for the test beside it.

    pip install numpy==2.4.6 scipy==1.17.1 keras==3.15.1 jax==0.10.2
    KERAS_BACKEND=jax python golden.py > golden.json

SciPy's affine_transform (order 1) is given the matrix of the package's comment,
composed here by numpy; images that are not square are its. Keras is given the
parameters alone, which checks order, signs and directions; its images are square,
because it turns others around a wrong centre. Wrapping is SciPy's grid-wrap.
"""

import json

import numpy as np
import scipy.ndimage
from keras.src.legacy.preprocessing.image import apply_affine_transform

rng = np.random.default_rng(20)

MODES = {"nearest": "nearest", "reflect": "reflect", "wrap": "grid-wrap", "constant": "constant"}


def image(h, w, c):
    return rng.integers(0, 256, (h, w, c)).astype(np.float64) / 255


def draw(h, w, far=1.0):
    return {
        "Theta": rng.uniform(-180, 180) * far,
        "Shear": rng.uniform(-60, 60) * far,
        "Dx": rng.uniform(-0.4, 0.4) * w * far,
        "Dy": rng.uniform(-0.4, 0.4) * h * far,
        "Zx": 1 + rng.uniform(-0.5, 1.5) * far,
        "Zy": 1 + rng.uniform(-0.5, 1.5) * far,
        "FlipX": bool(rng.integers(2)),
        "FlipY": bool(rng.integers(2)),
        "Brightness": 1,
    }


def by_scipy(x, t, mode, cval):
    h, w, _ = x.shape
    a, s = np.deg2rad(t["Theta"]), np.deg2rad(t["Shear"])
    turn = np.array([[np.cos(a), -np.sin(a)], [np.sin(a), np.cos(a)]])
    shear = np.array([[1, -np.sin(s)], [0, np.cos(s)]])
    m = turn @ shear @ np.diag([t["Zx"], t["Zy"]])
    centre = np.array([(w - 1) / 2, (h - 1) / 2])
    offset = centre + turn @ [t["Dx"], t["Dy"]] - m @ centre
    m, offset = m[::-1, ::-1], offset[::-1]  # rows first, as numpy has them
    planes = [
        scipy.ndimage.affine_transform(x[..., k], m, offset, order=1, mode=MODES[mode], cval=cval)
        for k in range(x.shape[2])
    ]
    return np.stack(planes, axis=-1)


def by_keras(x, t, mode, cval):
    return apply_affine_transform(
        x, theta=t["Theta"], tx=t["Dx"], ty=t["Dy"], shear=t["Shear"], zx=t["Zx"], zy=t["Zy"],
        row_axis=0, col_axis=1, channel_axis=2, fill_mode=mode, cval=cval, order=1,
    )


def case(source, warp, shape, mode, far=1.0):
    x, t, cval = image(*shape), draw(*shape[:2], far), 0.25
    y = warp(x, t, mode, cval)
    y = y[:, ::-1] if t["FlipX"] else y
    y = y[::-1] if t["FlipY"] else y
    return {
        "Source": source, "Shape": shape, "FillMode": mode, "Cval": cval, "Transform": t,
        "Image": np.rint(x * 255).astype(int).ravel().tolist(),
        "Want": np.round(y, 9).ravel().tolist(),
    }


def main():
    cases = []
    for mode in MODES:
        for shape in ([7, 9, 3], [9, 6, 1], [5, 8, 4]):
            cases += [case("scipy", by_scipy, shape, mode, far) for far in (0.1, 1.0)]
        if mode != "wrap":
            cases += [case("keras", by_keras, [8, 8, 3], mode, far) for far in (0.1, 1.0)]
    print("[")
    print(",\n".join(json.dumps(c, separators=(",", ":")) for c in cases))
    print("]")


if __name__ == "__main__":
    main()
