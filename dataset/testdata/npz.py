"""Writes dataset/testdata/golden.npz, for the tests of the kind npz.

    venv/bin/python dataset/testdata/npz.py
"""

import pathlib

import numpy as np

a = np.arange(12).reshape(2, 3, 2)
np.savez_compressed(
    pathlib.Path(__file__).with_name("golden.npz"),
    y=np.array([1, 0], dtype=np.int64),
    onehot=np.array([[0, 1], [1, 0]], dtype=np.bool_),
    **{t: (a * 2).astype(t) for t in ("u1", "i1", "u2", ">i2", "u4", "<i4", "u8", ">i8", "f4", ">f8")},
    half=a.astype("f2"),
    fortran=np.asfortranarray(a),
    huge=a + 2**24,
    nan=np.full((2, 3, 2), np.nan),
    flat=np.arange(2.0),
    three=np.arange(3),
)
