"""The other side of input: photographs decoded, resized to 150×150 and augmented, on
one core, by Pillow, torchvision and Keras, as far as they are here.

    python peer.py DIRECTORY SECONDS    prints {"side: row": times a second of CPU time}
"""

import io
import json
import pathlib
import sys
import time

import numpy as np
from PIL import Image

DECODE = "decode and resize, photographs/s"
AUGMENT = "augment 150×150×3, images/s"
files = [p.read_bytes() for p in sorted(pathlib.Path(sys.argv[1]).iterdir())]
seconds = float(sys.argv[2])
figures = {}


def measure(row, work):
    for i in range(3):
        work(i)
    begun, n = time.process_time(), 0
    while (spent := time.process_time() - begun) < seconds:
        for _ in range(16):
            work(n)
            n += 1
    figures[row] = n / spent


def pillow(i):
    photo = Image.open(io.BytesIO(files[i % len(files)])).convert("RGB")
    return np.asarray(photo.resize((150, 150), Image.Resampling.BILINEAR))


measure(f"Pillow: {DECODE}", pillow)
photo = np.random.default_rng(1).random((150, 150, 3), dtype=np.float32)

try:
    import torch
    from torchvision.io import ImageReadMode, decode_image
    from torchvision.transforms import InterpolationMode, v2

    torch.set_num_threads(1)
    raw = [torch.frombuffer(bytearray(f), dtype=torch.uint8) for f in files]
    resize = v2.Resize((150, 150), antialias=True)
    measure(f"torchvision: {DECODE}", lambda i: resize(decode_image(raw[i % len(raw)], ImageReadMode.RGB)))
    warp = v2.Compose([
        v2.RandomAffine(40, translate=(0.2, 0.2), scale=(0.8, 1.2), shear=0.2, interpolation=InterpolationMode.BILINEAR),
        v2.RandomHorizontalFlip(),
    ])
    tensor = torch.from_numpy(photo).permute(2, 0, 1).contiguous()
    measure(f"torchvision: {AUGMENT}", lambda i: warp(tensor))
except ImportError as e:
    print(f"no torchvision: {e}", file=sys.stderr)

try:
    from keras.src.legacy.preprocessing.image import ImageDataGenerator

    keras = ImageDataGenerator(
        rotation_range=40, width_shift_range=0.2, height_shift_range=0.2, shear_range=0.2,
        zoom_range=0.2, horizontal_flip=True, fill_mode="nearest",
    )
    measure(f"Keras: {AUGMENT}", lambda i: keras.random_transform(photo))
except ImportError as e:
    print(f"no Keras: {e}", file=sys.stderr)

print(json.dumps(figures))
