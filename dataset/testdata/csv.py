"""Writes dataset/testdata/table.csv and table.json: what NumPy makes of its columns,
for the tests of the kind csv.

    venv/bin/python dataset/testdata/csv.py
"""

import json
import pathlib

import numpy as np

here = pathlib.Path(__file__)
rng = np.random.default_rng(7)
n = 40
columns = {
    "plain": rng.normal(size=n),
    "offset": 1e7 + rng.normal(size=n),
    "small": 1e-20 * rng.normal(size=n),
    "large": 1e30 * rng.normal(size=n),
    "skewed": rng.lognormal(sigma=6, size=n),
    "same": np.full(n, 0.1),
}
y = rng.integers(0, 3, size=n)
with here.with_name("table.csv").open("w") as f:
    print(*columns, "y", sep=",", file=f)
    for i in range(n):
        print(*(repr(float(c[i])) for c in columns.values()), y[i], sep=",", file=f)
table = np.genfromtxt(here.with_name("table.csv"), delimiter=",", skip_header=1)[:, :-1].astype(np.longdouble)
deviation = table.std(axis=0)
deviation[np.ptp(table, axis=0) == 0] = 1
span = np.ptp(table, axis=0)
span[span == 0] = 1
json.dump(
    {
        "standard": ((table - table.mean(axis=0)) / deviation).astype(float).tolist(),
        "minmax": ((table - table.min(axis=0)) / span).astype(float).tolist(),
    },
    here.with_name("table.json").open("w"),
)
