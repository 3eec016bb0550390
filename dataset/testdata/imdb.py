"""Prints the SHA-256 of what Keras makes of the IMDb reviews: 10,000 words, rows of
200, in the order of file names; train, then test. For dataset/real_test.go.

    KERAS_BACKEND=torch venv/bin/python dataset/testdata/imdb.py aclImdb_v1.tar.gz
"""

import hashlib
import sys
import tarfile

import numpy as np
from keras.src.legacy.preprocessing.text import Tokenizer
from keras.utils import pad_sequences

texts = {}
with tarfile.open(sys.argv[1]) as tar:
    for m in tar:
        part = m.name.split("/")[1:]
        if m.isfile() and len(part) == 3 and part[1] in ("neg", "pos") and m.name.endswith(".txt"):
            texts["/".join(part)] = tar.extractfile(m).read().decode("utf-8")
t = Tokenizer(num_words=10_000)
t.fit_on_texts(texts[k] for k in sorted(texts) if k.startswith("train/"))
for part in ("train/", "test/"):
    names = [k for k in sorted(texts) if k.startswith(part)]
    rows = pad_sequences(t.texts_to_sequences(texts[k] for k in names), maxlen=200)
    print(part, len(names), hashlib.sha256(rows.astype("<i4").tobytes()).hexdigest())
