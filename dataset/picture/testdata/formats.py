"""Records what Pillow makes of the kinds of JPEG and PNG that there are, for the
tests of package picture.

    python3 -m venv venv && venv/bin/pip install pillow
    venv/bin/python dataset/picture/testdata/formats.py > dataset/picture/testdata/formats.json

Each case is a file and the pixels of Image.open(file).convert("RGB"), at its own
size. The image is a smooth one with an edge: noise would measure how libjpeg and Go
differ in what JPEG leaves open, the upsampling of colour, and little else.
"""

import base64
import io
import json
import sys

from PIL import Image

W, H = 40, 24


def base():
    img = Image.new("RGB", (W, H))
    for y in range(H):
        for x in range(W):
            v = 200 if x > W // 2 else 40
            img.putpixel((x, y), (x * 255 // W, v, y * 255 // H))
    return img


def encode(b):
    return base64.b64encode(b).decode()


def case(name, img, fmt, **options):
    file = io.BytesIO()
    img.save(file, fmt, **options)
    with Image.open(io.BytesIO(file.getvalue())) as back:
        want = back.convert("RGB")
        cases.append({
            "name": name, "file": encode(file.getvalue()),
            "width": want.width, "height": want.height, "want": encode(want.tobytes()),
        })


cases = []
rgb = base()
exif = Image.Exif()
exif[0x0112] = 6  # turn by 90 degrees to show
alpha = rgb.convert("RGBA")
alpha.putalpha(rgb.convert("L"))

case("jpeg 4:4:4", rgb, "JPEG", quality=90, subsampling=0)
case("jpeg 4:2:2", rgb, "JPEG", quality=90, subsampling=1)
case("jpeg 4:2:0", rgb, "JPEG", quality=90, subsampling=2)
case("jpeg progressive", rgb, "JPEG", quality=90, subsampling=0, progressive=True)
case("jpeg gray", rgb.convert("L"), "JPEG", quality=90)
case("jpeg cmyk", rgb.convert("CMYK"), "JPEG", quality=95)
case("jpeg oriented", rgb, "JPEG", quality=90, subsampling=0, exif=exif)
case("jpeg restarts", rgb, "JPEG", quality=90, subsampling=0, restart_marker_blocks=2)
case("png rgb", rgb, "PNG")
case("png rgba", alpha, "PNG")
case("png gray", rgb.convert("L"), "PNG")
case("png gray alpha", alpha.convert("LA"), "PNG")
case("png 1 bit", rgb.convert("1"), "PNG")
case("png palette", rgb.quantize(16), "PNG")
case("png palette, one colour transparent", rgb.quantize(16), "PNG", transparency=3)
case("png rgb, one colour transparent", rgb, "PNG", transparency=(0, 40, 0))
json.dump(cases, sys.stdout, indent=0)
print()
