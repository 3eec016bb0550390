"""Images per second of one core that Keras' ImageDataGenerator warps as its guide to
small data sets does, to stand beside go test -bench Image ./dataset/augment.

    KERAS_BACKEND=jax python speed.py    (torchvision's RandomAffine too, if it is here)
"""

import time

import numpy as np
from keras.src.legacy.preprocessing.image import ImageDataGenerator

N = 100
photo = np.random.default_rng(1).random((150, 150, 3), dtype=np.float32)


def report(name, warp):
    warp()
    begun, cpu = time.perf_counter(), time.process_time()
    for _ in range(N):
        warp()
    wall, cpu = time.perf_counter() - begun, time.process_time() - cpu
    print(f"{name}: {N / cpu:.0f} images/s of CPU time, {N / wall:.0f} of the clock")


keras = ImageDataGenerator(
    rotation_range=40, width_shift_range=0.2, height_shift_range=0.2, shear_range=0.2,
    zoom_range=0.2, horizontal_flip=True, fill_mode="nearest",
)
report("Keras", lambda: keras.random_transform(photo))

try:
    import torch
    from torchvision.transforms import InterpolationMode, v2
except ImportError as e:
    raise SystemExit(f"no torchvision: {e}")
torch.set_num_threads(1)
vision = v2.Compose([
    v2.RandomAffine(40, translate=(0.2, 0.2), scale=(0.8, 1.2), shear=0.2, interpolation=InterpolationMode.BILINEAR),
    v2.RandomHorizontalFlip(),
])
tensor = torch.from_numpy(photo).permute(2, 0, 1).contiguous()
report("torchvision", lambda: vision(tensor))
