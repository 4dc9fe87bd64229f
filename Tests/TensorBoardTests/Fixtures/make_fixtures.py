"""Makes events.json: event files as TensorBoard's own protocol buffers and record writer make them, in base64.

    python3 -m venv venv && venv/bin/pip install tensorboard==2.21.0
    venv/bin/python make_fixtures.py

The events are those of torch.utils.tensorboard's add_scalar, add_image and add_text, and of its purge_step.
"""

import base64, io, json, pathlib

from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from tensorboard.compat.proto.summary_pb2 import Summary, SummaryMetadata
from tensorboard.compat.proto.tensor_pb2 import TensorProto
from tensorboard.compat.proto.tensor_shape_pb2 import TensorShapeProto
from tensorboard.plugins.text.plugin_data_pb2 import TextPluginData
from tensorboard.summary.writer.record_writer import RecordWriter, masked_crc32c
from tensorboard.compat.tensorflow_stub.pywrap_tensorflow import crc32c

time = 1700000000.125


def file(*events):
    stream = io.BytesIO()
    writer = RecordWriter(stream)
    for event in events:
        event.wall_time = time
        writer.write(event.SerializeToString(deterministic=True))
    return base64.b64encode(stream.getvalue()).decode()


def value(step, tag, **fields):
    return Event(step=step, summary=Summary(value=[Summary.Value(tag=tag, **fields)]))


def text(step, tag, words):
    shape = TensorShapeProto(dim=[TensorShapeProto.Dim(size=1)])
    content = TextPluginData(version=0).SerializeToString()
    plugin = SummaryMetadata.PluginData(plugin_name="text", content=content)
    return value(
        step, tag + "/text_summary", metadata=SummaryMetadata(plugin_data=plugin),
        tensor=TensorProto(dtype="DT_STRING", string_val=[words.encode()], tensor_shape=shape))


version = Event(file_version="brain.Event:2")
picture = Summary.Image(height=7, width=300, colorspace=3, encoded_image_string=bytes(range(256)))
fixtures = {
    "time": time,
    "plain": file(
        version, value(0, "loss", simple_value=0.0), value(1, "loss/train", simple_value=0.1),
        value(5_000_000_000, "é", simple_value=float("nan")), value(-1, "loss", simple_value=-2.5),
        value(7, "picture", image=picture), text(300, "settings", "**rank** 8\n" * 30)),
    "purged": file(version, Event(step=129, session_log=SessionLog(status=SessionLog.START))),
    "checks": [
        {"text": word, "crc": crc32c(word.encode()), "masked": masked_crc32c(word.encode())}
        for word in ["", "a", "123456789", "TensorBoard " * 40]],
}
path = pathlib.Path(__file__).parent / "events.json"
path.write_text(json.dumps(fixtures, indent=1) + "\n")
