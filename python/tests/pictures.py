"""Encoded pictures and files of them, for the tests of the readers."""

import io
import json

import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from agflow.data.preprocessing import Preprocessing

RGB = Preprocessing((16, 16), (0.5, 0.5, 0.5), (0.25, 0.25, 0.25))
GREY = Preprocessing((16, 16), (0.0,), (1.0,))
STRUCT = pa.struct([("bytes", pa.binary()), ("path", pa.string())])


def picture(shade=0, size=(20, 20), form="PNG", mode="RGB"):
    file = io.BytesIO()
    Image.new("RGB", size, (shade,) * 3).convert(mode).save(file, form)
    return file.getvalue()


def values(dataset):
    """The grey value of each image, 0 to 255."""
    mean, std = dataset.preprocessing.mean[0], dataset.preprocessing.std[0]
    return [round(float((image.mean() * std + mean) * 255)) for image, _ in dataset]


def embedded(images):
    return pa.array([{"bytes": image, "path": None} for image in images], STRUCT)


def write_parquet(path, columns, features=None, **how):
    """Write columns; ``features`` is what Hugging Face's datasets say about them."""
    table = pa.table(columns)
    if features is not None:
        about = json.dumps({"info": {"features": features}})
        table = table.replace_schema_metadata({"huggingface": about})
    pq.write_table(table, path, **how)
    return f"parquet:{path}"
