"""Records what Pillow makes of small images, for the tests of package picture.

    python3 -m venv venv && venv/bin/pip install pillow
    venv/bin/python dataset/picture/testdata/golden.py > dataset/picture/testdata/golden.json

Each case is a PNG file, a size, a filter and a colour, and the bytes that Pillow
makes of it: Image.open, convert, resize.
"""

import base64
import io
import json
import random
import sys

from PIL import Image

FILTERS = {
    "nearest": Image.Resampling.NEAREST,
    "box": Image.Resampling.BOX,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
}
MODES = {"rgb": "RGB", "gray": "L"}

rng = random.Random(7)


def picture(mode, w, h):
    """Noise with an edge in it, so that bicubic overshoots."""
    n = len(Image.new(mode, (1, 1)).getbands())
    data = bytes(
        255 if (i // n) % w > w // 2 and rng.random() < 0.7 else rng.randrange(256) for i in range(w * h * n)
    )
    return Image.frombytes(mode, (w, h), data)


def encode(b):
    return base64.b64encode(b).decode()


cases = []
for mode, (w, h), (w2, h2) in [
    ("RGB", (31, 23), (9, 7)),
    ("RGB", (7, 5), (20, 13)),
    ("RGB", (16, 16), (16, 5)),
    ("L", (40, 11), (3, 11)),
    ("RGBA", (19, 8), (8, 8)),
    ("P", (12, 12), (5, 6)),
    ("RGB", (1, 1), (3, 2)),
]:
    img = picture("RGB" if mode == "P" else mode, w, h)
    if mode == "P":
        img = img.quantize(16)
    file = io.BytesIO()
    img.save(file, "PNG")
    for name, resample in FILTERS.items():
        for color in MODES:
            out = Image.open(io.BytesIO(file.getvalue())).convert(MODES[color]).resize((w2, h2), resample)
            cases.append({
                "mode": mode, "file": encode(file.getvalue()), "height": h2, "width": w2,
                "filter": name, "color": color, "want": encode(out.tobytes()),
            })
json.dump(cases, sys.stdout, indent=0)
print()
