"""Makes the images here and expected.json with the pixels that Pillow reads and resizes.

    apt-get install libjpeg-turbo-progs  # cjpeg, for a chroma subsampling that Pillow doesn't write
    python3 -m venv venv && venv/bin/pip install pillow==13.0.0 numpy torchvision==0.29.2 transformers==5.24.0
    venv/bin/python make_fixtures.py

PNG forms that Pillow can't write (16 bits with colour, 2 and 4 bits, interlaced, a gamma chunk) are encoded here.
"""

import base64, io, json, pathlib, struct, subprocess, zlib

import numpy as np
from PIL import Image
from torchvision.transforms import CenterCrop
from torchvision.transforms.functional import pil_to_tensor
from transformers import ViTImageProcessor
from transformers.image_utils import SizeDict

here = pathlib.Path(__file__).parent
rng = np.random.default_rng(7)
width, height = 23, 17


def picture(channels, w=width, h=height, noise=40):
    """Smooth colours with noise, [h, w, channels], 0...255."""
    y, x = np.mgrid[0:h, 0:w]
    planes = [127 + 100 * np.sin(x / (3 + c) + c) * np.cos(y / (5 - c) + c) for c in range(channels)]
    return np.clip(np.stack(planes, -1) + rng.integers(-noise, noise, (h, w, channels)), 0, 255).astype(np.uint8)


def png(name, values, depth, colour, palette=None, transparency=None, gamma=None, interlaced=False):
    """A PNG of values [h, w, channels] with any depth and colour type."""
    h, w, _ = values.shape

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    def rows(part):
        out = b""
        for row in part:
            flat = row.reshape(-1)
            if depth == 16:
                line = flat.astype(">u2").tobytes()
            elif depth == 8:
                line = flat.astype(np.uint8).tobytes()
            else:
                bits = ((flat[:, None] >> np.arange(depth - 1, -1, -1)) & 1).reshape(-1)
                line = np.packbits(bits.astype(np.uint8)).tobytes()
            out += b"\0" + line
        return out

    adam7 = [(0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2)]
    parts = [values[y::dy, x::dx] for x, y, dx, dy in adam7] if interlaced else [values]
    data = b"".join(rows(p) for p in parts if p.size)
    out = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", w, h, depth, colour, 0, 0, int(interlaced)))
    if gamma is not None:
        out += chunk(b"gAMA", struct.pack(">I", gamma))
    if palette is not None:
        out += chunk(b"PLTE", palette.astype(np.uint8).tobytes())
    if transparency is not None:
        out += chunk(b"tRNS", transparency)
    out += chunk(b"IDAT", zlib.compress(data, 9)) + chunk(b"IEND", b"")
    (here / name).write_bytes(out)


def jpeg(name, image, **options):
    image.save(here / name, "JPEG", **{"quality": 90, "subsampling": 0, **options})


rgb = Image.fromarray(picture(3))
jpeg("rgb444.jpg", rgb)
jpeg("rgb422.jpg", rgb, subsampling=1)
jpeg("rgb420.jpg", rgb, subsampling=2)
jpeg("progressive.jpg", rgb, subsampling=2, progressive=True)
jpeg("restarts.jpg", rgb, subsampling=2, restart_marker_blocks=2)
jpeg("storedrgb.jpg", rgb, keep_rgb=True)
jpeg("grey.jpg", Image.fromarray(picture(1)[:, :, 0]))
rotated = Image.Exif()
rotated[0x0112] = 6
jpeg("exifrotated.jpg", rgb, exif=rotated)
cmyk = Image.fromarray(picture(4), "CMYK")
jpeg("cmyk.jpg", cmyk)
data = (here / "cmyk.jpg").read_bytes()
at = data.index(b"Adobe") + 11
assert data[at] == 0
(here / "ycck.jpg").write_bytes(data[:at] + b"\x02" + data[at + 1 :])

ppm = io.BytesIO()
rgb.save(ppm, "PPM")
sampled = subprocess.run(["cjpeg", "-sample", "3x1"], input=ppm.getvalue(), capture_output=True, check=True)
(here / "sampled3x1.jpg").write_bytes(sampled.stdout)

random16 = lambda c: rng.integers(0, 65536, (height, width, c))
png("grey1.png", rng.integers(0, 2, (height, width, 1)), 1, 0)
png("grey2.png", rng.integers(0, 4, (height, width, 1)), 2, 0)
png("grey4.png", rng.integers(0, 16, (height, width, 1)), 4, 0)
png("grey8.png", picture(1), 8, 0)
png("grey16.png", random16(1), 16, 0)
png("greytransparent.png", picture(1), 8, 0, transparency=struct.pack(">H", 127))
png("greyalpha8.png", picture(2), 8, 4)
png("greyalpha16.png", random16(2), 16, 4)
png("rgb8.png", picture(3), 8, 2)
png("rgb16.png", random16(3), 16, 2)
png("rgba8.png", picture(4), 8, 6)
png("rgba16.png", random16(4), 16, 6)
png("gamma.png", picture(3), 8, 2, gamma=100000)
png("interlaced.png", picture(3), 8, 2, interlaced=True)
png("interlacedalpha16.png", random16(4), 16, 6, interlaced=True)
for depth in (1, 2, 4, 8):
    colours = 1 << depth
    png(
        f"palette{depth}.png", rng.integers(0, colours, (height, width, 1)), depth, 3,
        palette=rng.integers(0, 256, (colours, 3)), transparency=rng.integers(0, 256, colours, np.uint8).tobytes(),
        interlaced=depth == 4)

# As an X-ray: 12 bits in 16. From a generator of its own, so that the random pictures above and below stay what they are.
png("grey12of16.png", np.random.default_rng(12).integers(2048, 4096, (height, width, 1)), 16, 0)

packed = lambda array: base64.b64encode(np.ascontiguousarray(array, np.uint8).tobytes()).decode()


def fnv(data):
    value = 0xCBF29CE484222325
    for byte in data:
        value = ((value ^ byte) * 0x100000001B3) & 0xFFFFFFFFFFFFFFFF
    return f"{value:016x}"


decoded = []
for path in sorted([*here.glob("*.jpg"), *here.glob("*.png")]):
    if path.name == "source.png":
        continue
    with Image.open(path) as image:
        if path.name in ("grey16.png", "grey12of16.png"):  # The high byte; convert("RGB") would clip at 255.
            grey = (np.asarray(image).astype(np.uint16) >> 8).astype(np.uint8)
            pixels = np.repeat(grey[:, :, None], 3, 2)
        else:
            pixels = np.asarray(image.convert("RGB"))
    decoded.append({"file": path.name, "width": pixels.shape[1], "height": pixels.shape[0], "pixels": packed(pixels)})

# Noise at full contrast, so that the cubic's overshoot is clipped between the passes.
noise = np.where(picture(3, 61, 47) > 127, 255, picture(3, 61, 47, 120)).astype(np.uint8)
source = Image.fromarray(noise)
source.save(here / "source.png", optimize=True)
resized = []
for size in [(32, 32), (61, 32), (32, 47), (61, 47), (7, 90), (97, 5), (1, 1), (60, 46), (62, 48), (224, 224)]:
    pixels = np.asarray(source.resize(size, Image.BICUBIC)).tobytes()
    case = {"width": size[0], "height": size[1], "hash": fnv(pixels)}
    if len(pixels) < 7000:
        case["pixels"] = packed(np.frombuffer(pixels, np.uint8))
    resized.append(case)

# torchvision's Resize(shorter side) and CenterCrop, in its arithmetic.
cropped = []
views = {
    "whole": source,
    "transposed": source.transpose(Image.Transpose.TRANSPOSE),
    "narrow": source.crop((0, 0, 19, source.height)),
}
for view, image in views.items():
    for shorter, side in [(32, 28), (33, 24), (47, 47), (20, 15), (8, 7)]:
        w, h = image.size
        longer = int(shorter * max(w, h) / min(w, h))
        scaled = image.resize((shorter, longer) if w <= h else (longer, shorter), Image.BICUBIC)
        left, top = int(round((scaled.width - side) / 2.0)), int(round((scaled.height - side) / 2.0))
        pixels = np.asarray(scaled.crop((left, top, left + side, top + side)))
        cropped.append({"view": view, "shorter": shorter, "side": side, "hash": fnv(pixels.tobytes())})

# Every filter, up and down, and tall and narrow images, of which rows come first.
filtered = []
sizes = {
    "whole": [(9, 7), (32, 32), (224, 160), (7, 90), (97, 5), (1, 1), (60, 46), (183, 141), (61, 20)],
    "narrow": [(10, 12), (50, 9), (224, 224)],
}
for name in ["nearest", "box", "bilinear", "hamming", "bicubic", "lanczos"]:
    for view, targets in sizes.items():
        for size in targets:
            pixels = np.asarray(views[view].resize(size, Image.Resampling[name.upper()])).tobytes()
            case = {"filter": name, "view": view, "width": size[0], "height": size[1], "hash": fnv(pixels)}
            if len(pixels) < 400:
                case["pixels"] = packed(np.frombuffer(pixels, np.uint8))
            filtered.append(case)

# The centre without resizing, by torchvision and by transformers' processors; a smaller image lies on black.
centred = []
processor = ViTImageProcessor()
for view, image in views.items():
    for side in [16, 17, 28, 33, 48, 64, 65]:
        theirs = np.asarray(CenterCrop(side)(image))
        tensor = processor.center_crop(pil_to_tensor(image), SizeDict(height=side, width=side))
        for crop, pixels in [("rounded", theirs), ("truncated", tensor.permute(1, 2, 0).numpy())]:
            centred.append({"crop": crop, "view": view, "side": side, "hash": fnv(pixels.tobytes())})

text = json.dumps({
    "decoded": decoded, "resized": resized, "cropped": cropped, "filtered": filtered, "centred": centred}, indent=0)
(here / "expected.json").write_text(text + "\n")
