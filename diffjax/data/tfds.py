"""Any image set of tensorflow-datasets that is prepared on this disk, read at random without TensorFlow.

tensorflow-datasets prepares most sets with TensorFlow; it reads without it what is stored as array_record or parquet:

    python -c "import tensorflow_datasets as t; t.builder('cifar10', file_format='array_record').download_and_prepare()"

A set of your own needs no code here, only its files: `data_dir` holds `dataset/version`, or `dataset/config/version`.
Nothing is ever downloaded: a set that is missing, or stored otherwise, is refused with that command.
"""

import io
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Int

from diffjax.errors import InputError, unknown

from . import pictures
from .source import Batch, Source

RANDOM_ACCESS = ("array_record", "parquet")


class Records(NamedTuple):
    """Reading by index from a prepared set."""

    records: Any  # what as_data_source returns: read here by __getitems__(indices) -> dicts
    keys: tuple[str, str | None]
    size: int
    channels: int

    def __call__(self, indices: Int[np.ndarray, "n"]) -> Batch:
        image, label = self.keys
        chosen = self.records.__getitems__([int(i) for i in indices])
        x = np.stack([self._pixels(record[image], i) for record, i in zip(chosen, indices, strict=True)])
        return {"x": x} if label is None else {"x": x, "label": np.asarray([r[label] for r in chosen], np.int32)}

    def _pixels(self, image, index):
        if not isinstance(image, bytes):
            return np.asarray(image)
        name = f"number {index} of the data set"
        return pictures.read(io.BytesIO(image), size=self.size, channels=self.channels, name=name)


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
    """The images of a prepared set, by name ("mnist", "set/config:1.0.0") and split ("train", "test[:90%]", "a+b").

    `image` and `label` name its features; label "" reads none.  Images of one size need no `size`; others, and all if
    `size` is given, are resized and cropped to size x size.  Raises InputError for a set or a name that is not there.
    """
    if size < 0 or channels not in (1, 3):
        raise InputError(f"images need a size of at least 1 and 1 or 3 channels; got size={size}, channels={channels}")
    builder = _prepared(dataset, data_dir)
    shape, classes = _facts(builder.info.features, dataset, image, label)
    decoders = None
    if size or None in shape:
        if not size:
            raise InputError(f"the images of {dataset} are of many sizes; set data.size to resize and crop them")
        from tensorflow_datasets import decode

        shape, decoders = (size, size, channels), {image: decode.SkipDecoding()}
    for part in split.split("+"):
        if (name := part.split("[")[0].strip()) not in builder.info.splits:
            raise unknown(f"split of {dataset}", name, builder.info.splits)
    try:
        records = builder.as_data_source(split=split, decoders=decoders)
    except ValueError as error:
        raise InputError(f"the split '{split}' of {dataset} cannot be read: {_line(error)}") from error
    read = Records(records, (image, label or None), shape[0], shape[-1])
    return Source(read, len(records), shape, classes, low=0.0, high=255.0, unit="images", in_memory=False)


def _facts(features: Mapping[str, Any], dataset: str, image: str, label: str) -> tuple[tuple[Any, ...], int]:
    """Shape of the images (None where it varies) and number of classes, if these features are images and labels."""
    for key in filter(None, (image, label)):
        if key not in features:
            raise unknown(f"feature of {dataset}", key, features)
    pixels = features[image]
    if len(pixels.shape or ()) != 3 or pixels.np_dtype != np.uint8:
        raise InputError(f"the feature '{image}' of {dataset} is not an image of 8 bits; set data.image to one that is")
    if label and not hasattr(features[label], "num_classes"):
        raise InputError(f"the feature '{label}' of {dataset} is not a class label; set data.label to one, or to ''")
    return tuple(pixels.shape), features[label].num_classes if label else 0


def _prepared(dataset: str, data_dir: str) -> Any:
    """The builder of a set whose files are here; nothing is generated, and nothing is looked up elsewhere."""
    try:
        import tensorflow_datasets as library
        from tensorflow_datasets.core import naming
    except ImportError as error:
        raise InputError(
            f"data 'tfds' needs tensorflow-datasets ({error}); install diffjax with the extra [data]"
        ) from error
    options: dict[str, Any] = {"data_dir": data_dir} if data_dir else {}
    try:
        name, _ = naming.parse_builder_name_kwargs(dataset)
        if name.namespace:
            raise ValueError(f"a set of '{name.namespace}' would be downloaded")
        builder = library.builder(dataset, **options)
    except Exception as error:  # its errors for an unknown set are many
        raise InputError(
            f"there is no data set '{dataset}' in {data_dir or 'the folder of tensorflow-datasets'}: {_line(error)}; "
            f"check data.dataset and data.data_dir"
        ) from error
    stored = builder.info.file_format if builder.is_prepared() else None
    if stored and stored.value in RANDOM_ACCESS:
        return builder
    where = f"data_dir='{data_dir}', " if data_dir else ""
    state = f"stored as {stored.value}, not to be read at random," if stored else "not prepared"
    todo = "delete it and prepare it" if stored else "prepare it once"
    raise InputError(
        f"the data set '{dataset}' is {state} in {builder.data_dir}; {todo} with: python -c \"import "
        f"tensorflow_datasets as t; t.builder('{dataset}', {where}file_format='array_record').download_and_prepare()\" "
        f"(which may need tensorflow and the network)"
    )


def _line(error: Exception) -> str:
    """The first line that says anything."""
    return str(error).strip().partition("\n")[0].rstrip(".") or type(error).__name__
