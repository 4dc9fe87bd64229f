"""Reads a folder of event files as TensorBoard does and prints what it holds; fails where it holds nothing or what can't be read.

    python3 -m venv venv && venv/bin/pip install tensorboard pillow
    venv/bin/python Scripts/check_tensorboard.py FOLDER
"""

import io
import sys
from pathlib import Path

try:
    from PIL import Image
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from tensorboard.backend.event_processing.plugin_event_accumulator import EventAccumulator as ServerAccumulator
except ImportError as error:
    sys.exit(f"check_tensorboard: {error}; install tensorboard and pillow with pip.")

if len(sys.argv) != 2 or not Path(sys.argv[1]).is_dir():
    sys.exit(__doc__)
folder = sys.argv[1]
everything = 0

# By kind, as the files have it.
events = EventAccumulator(folder, size_guidance={"scalars": 0, "images": 0, "tensors": 0}).Reload()
tags = events.Tags()
for tag in tags["scalars"]:
    values = events.Scalars(tag)
    everything += len(values)
    print(f"scalars {tag}: " + ", ".join(f"{value.step}={value.value:.6g}" for value in values))
for tag in tags["images"]:
    for image in events.Images(tag):
        everything += 1
        picture = Image.open(io.BytesIO(image.encoded_image_string))
        picture.load()
        if picture.size != (image.width, image.height):
            sys.exit(f"check_tensorboard: {tag} says {image.width}x{image.height} and is {picture.size}")
        print(f"images {tag}: {image.step}={picture.width}x{picture.height} {picture.mode}")
for tag in tags["tensors"]:
    plugin = events.SummaryMetadata(tag).plugin_data.plugin_name
    for tensor in events.Tensors(tag):
        everything += 1
        words = b" ".join(tensor.tensor_proto.string_val).decode()
        print(f"tensors {tag} ({plugin}): {tensor.step}={words!r}")

# And as TensorBoard's server sees it, which gives each tag to a plugin.
shown = ServerAccumulator(folder).Reload()
plugins = {}
for tag in sorted(shown.Tags()["tensors"]):
    plugins.setdefault(shown.SummaryMetadata(tag).plugin_data.plugin_name, []).append(tag)
for plugin, names in sorted(plugins.items()):
    print(f"plugin {plugin or '?'}: {', '.join(names)}")
if "" in plugins or sum(map(len, plugins.values())) < sum(len(tags[kind]) for kind in ("scalars", "images", "tensors")):
    sys.exit("check_tensorboard: no plugin would show all of this")
if everything == 0:
    sys.exit(f"check_tensorboard: {folder} holds no events")
