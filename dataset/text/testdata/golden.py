"""Records what Keras' Tokenizer and pad_sequences make of texts, for the tests of
package text.

    python3 -m venv venv && venv/bin/pip install keras torch
    KERAS_BACKEND=torch venv/bin/python dataset/text/testdata/golden.py > dataset/text/testdata/golden.json
"""

import json
import sys

from keras.src.legacy.preprocessing.text import Tokenizer
from keras.utils import pad_sequences

ENGLISH = [
    "The cat sat on the mat.",
    "The dog, the cat & the bird: who's there?",
    "",
    "!!! ???",
    "a b c d e f g a b c a b a",
    "Tab\tand\nnew line; under_score and hy-phen",
    "'quoted' isn't \"double\"<br /><br />markup",
]
OTHER = [
    "ΟΔΥΣΣΕΥΣ ΚΑΙ ΠΗΝΕΛΟΠΗ. ΟΣ' Σ ΑΣ.Α ΑΣ",
    "İstanbul ISTANBUL ıI",
    "Straße STRASSE ß ẞ ÀÉÎ ǅ ǆ Ⅷ",
    "no\u00a0break\u2003em\u3000wide\rreturn",
    "日本語 テキスト 日本語",
    "🙂 🙂🙃 e\u0301 \u00e9 É",
]
UNSEEN = ["the cat and an unseen wolf", "日本語 the", "nothing known here", "a " * 30]

BASE = {
    "num_words": 0, "lower": True, "filters": '!"#$%&()*+,-./:;<=>?@[\\]^_`{|}~\t\n', "split": " ",
    "oov_token": "", "maxlen": 0, "padding": "pre", "truncating": "pre",
}

cases = []
for fit, options in [
    (ENGLISH, {}),
    (ENGLISH, {"num_words": 6}),
    (ENGLISH, {"num_words": 6, "oov_token": "<OOV>"}),
    (ENGLISH, {"oov_token": "<OOV>", "maxlen": 4}),
    (ENGLISH, {"maxlen": 4, "padding": "post", "truncating": "post"}),
    (ENGLISH, {"maxlen": 5, "padding": "post"}),
    (ENGLISH, {"maxlen": 5, "truncating": "post"}),
    (ENGLISH, {"lower": False, "filters": ""}),
    (ENGLISH, {"split": "a"}),
    (ENGLISH, {"split": "--", "filters": "e \n"}),
    (ENGLISH, {"num_words": 2, "maxlen": 3}),
    (ENGLISH, {"num_words": 2, "maxlen": 3, "oov_token": "?"}),
    (OTHER, {}),
    (OTHER, {"lower": False}),
    (OTHER + ENGLISH, {"num_words": 30, "maxlen": 7, "oov_token": "<unk>"}),
]:
    o = BASE | options
    t = Tokenizer(
        num_words=o["num_words"] or None, filters=o["filters"], lower=o["lower"], split=o["split"],
        oov_token=o["oov_token"] or None,
    )
    t.fit_on_texts(fit)
    texts = fit + UNSEEN
    maxlen = o["maxlen"]
    if not maxlen:
        # The longest text, counted before num_words leaves words out.
        whole = Tokenizer(filters=o["filters"], lower=o["lower"], split=o["split"])
        whole.fit_on_texts(fit)
        maxlen = max(len(s) for s in whole.texts_to_sequences(fit))
    rows = pad_sequences(
        t.texts_to_sequences(texts), maxlen=maxlen, padding=o["padding"], truncating=o["truncating"]
    )
    words = sorted(t.word_index, key=t.word_index.get)
    cases.append({"options": o, "fit": fit, "texts": texts, "words": words, "rows": rows.tolist()})
json.dump(cases, sys.stdout, indent=0)
print()
