"""Any image set of tensorflow-datasets that is prepared on this disk, read at random without TensorFlow.

tensorflow-datasets prepares most sets with TensorFlow and reads them without if they are stored as array_record (or parquet):

    python -c "import tensorflow_datasets as t; t.builder('cifar10', file_format='array_record').download_and_prepare()"

Nothing is ever downloaded here: a set that is missing, or stored otherwise, is refused with that command.
"""

import io
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Int

from diffjax.errors import InputError, unknown

from . import pictures
from .source import Batch, Source

RANDOM_ACCESS = ("array_record", "parquet")


class Records(NamedTuple):
    """Reading by index from a prepared set."""

    records: Sequence[dict[str, Any]]
    keys: tuple[str, str | None]
    size: int
    channels: int

    def __call__(self, indices: Int[np.ndarray, "n"]) -> Batch:
        image, label = self.keys
        chosen = self.records.__getitems__([int(i) for i in indices])
        x = np.stack([self._pixels(record[image], i) for record, i in zip(chosen, indices, strict=True)])
        return {"x": x} if label is None else {"x": x, "label": np.asarray([r[label] for r in chosen], np.int32)}

    def _pixels(self, image, index):
        if isinstance(image, bytes):
            return pictures.read(
                io.BytesIO(image), size=self.size, channels=self.channels, name=f"number {index} of the data set"
            )
        return np.asarray(image)


def tfds(
    split: str,
    *,
    dataset: str,
    data_dir: str = "",
    image: str = "image",
    label: str = "label",
    size: int = 0,
    channels: int = 3,
) -> Source:
    """The images of a prepared set, by name and split.

    `image` and `label` name its features; label "" reads none.  Images of one size need no `size`; others, and all if `size` is
    given, are resized and cropped to size x size.
    """
    builder = _builder(dataset, data_dir)
    info = builder.info
    if split.split("[")[0] not in info.splits:
        raise unknown(f"split of {dataset}", split, info.splits)
    for key in filter(None, (image, label)):
        if key not in info.features:
            raise unknown(f"feature of {dataset}", key, info.features)
    shape = info.features[image].shape
    decoders = None
    if size or None in shape:
        if not size:
            raise InputError(f"the images of {dataset} are of many sizes; set data.size to resize and crop them")
        from tensorflow_datasets import decode

        shape, decoders = (size, size, channels), {image: decode.SkipDecoding()}
    records = builder.as_data_source(split=split, decoders=decoders)
    read = Records(records, (image, label or None), shape[0], shape[-1])
    classes = info.features[label].num_classes if label else 0
    return Source(read, len(records), tuple(shape), classes, low=0.0, high=255.0, unit="images", in_memory=False)


def _builder(dataset: str, data_dir: str):
    try:
        import tensorflow_datasets as library
    except ImportError as error:
        raise InputError(
            f"data 'tfds' needs tensorflow-datasets ({error}); install diffjax with the extra [data]"
        ) from error

    prepare = (
        f"prepare it once with: python -c \"import tensorflow_datasets as t; t.builder('{dataset}', "
        f"file_format='array_record').download_and_prepare()\" (which may need tensorflow and the network)"
    )
    options = {"data_dir": data_dir} if data_dir else {}
    for file_format in RANDOM_ACCESS:
        try:
            builder = library.builder(dataset, file_format=file_format, **options)
        except Exception as error:  # its errors for an unknown set are many
            raise InputError(
                f"tensorflow-datasets has no set '{dataset}' here: {str(error).splitlines()[0]}; {prepare}"
            ) from error
        if builder.is_prepared() and builder.info.file_format.value == file_format:
            return builder
    raise InputError(f"the data set '{dataset}' is not on this disk in a format that can be read at random; {prepare}")
