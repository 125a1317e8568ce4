"""Image data sets of TensorFlow Datasets that are already prepared on this machine, read without TensorFlow.

That needs a file format with random access (array_record or parquet).  Nothing is ever downloaded or prepared here: what is
missing is an error at once.  Stored images are decoded by our own `pictures`, as in `folder`.
"""

import functools
import io

import numpy as np
from jaxtyping import Int

from diffjax.data.pictures import MODES, decode, fit
from diffjax.data.source import Examples, Source
from diffjax.errors import InputError, unknown

RANDOM_ACCESS = ("array_record", "parquet")


def tfds(
    split: str,
    *,
    dataset: str,
    data_dir: str | None = None,
    image: str = "image",
    label: str = "label",
    size: int | None = None,
) -> Source:
    """A prepared data set, e.g. `dataset`="cifar10" or "name/config:1.0.0" below `data_dir` (default: that of tfds).

    `image` and `label` name its features (label "" for none); images become [size, size, C] uint8, and need no `size` where
    all are stored with the same one.

    Raises:
      InputError: for a data set that is not prepared with random access, or an unknown split or feature; when reading,
        for a label out of range.
    """
    builder = _find(dataset, data_dir)
    info = builder.info
    if split.split("[")[0] not in info.splits:
        raise unknown(f"split of {dataset}", split, info.splits)
    for name in filter(None, (image, label)):
        if name not in info.features:
            raise unknown(f"feature of {dataset}", name, info.features)
    classes = getattr(info.features[label], "num_classes", None) if label else 0
    if classes is None:
        raise InputError(f"the feature '{label}' of {dataset} has no classes; name a class feature, or set label to ''")
    directory = str(builder.data_path)
    return Source(
        read=functools.partial(_read, (directory, split, image, label), _shape(info, image, size), classes),
        size=len(_records(directory, split, image)),
        shape=_shape(info, image, size),
        classes=classes,
        low=0,
        high=255,
        unit="images",
        in_memory=False,
        names=tuple(info.features[label].names or ()) if label else (),
    )


def _find(dataset: str, data_dir: str | None):
    """The read-only builder of a data set that is on disk."""
    try:
        from tensorflow_datasets.core.read_only_builder import builder_from_files  # heavy
    except ImportError as error:
        raise InputError(f"tfds needs a package that is missing ({error.name}); pip install 'diffjax[data]'") from error
    try:
        builder = builder_from_files(dataset, data_dir=data_dir)
    except (ValueError, FileNotFoundError) as error:
        where = data_dir or "the default data_dir of tfds"
        raise InputError(
            f"no prepared data set '{dataset}' in {where}; where TensorFlow is installed, run"
            f" `tfds build {dataset} --file_format=array_record`, then set data_dir"
        ) from error
    formats = sorted(file_format.value for file_format in builder.info.available_file_formats())
    if not set(formats) & set(RANDOM_ACCESS):
        raise InputError(
            f"'{dataset}' is prepared as {', '.join(formats)}, which has no random access; where TensorFlow is installed,"
            f" run `tfds convert_format --root_data_dir=DIR --out_file_format=array_record`"
        )
    return builder


def _shape(info, image: str, size: int | None) -> tuple[int, int, int]:
    shape, dtype = info.features[image].shape, info.features[image].np_dtype
    if len(shape) != 3 or shape[2] not in MODES or dtype != np.uint8:
        raise InputError(
            f"the feature '{image}' of {info.name} is {dtype} {shape}; expected uint8 images [H, W, 1 or 3], name another"
        )
    if size is None and None in shape:
        raise InputError(f"the images of {info.name} differ in size; set size to resize them to size x size")
    return shape if size is None else (size, size, shape[2])


@functools.lru_cache(maxsize=8)
def _records(directory: str, split: str, image: str):
    """The open files; every process opens its own, so that a Source stays small when it is sent to a worker."""
    import tensorflow_datasets as library  # heavy

    builder = library.builder_from_directory(directory)
    stored = isinstance(builder.info.features[image], library.features.Image)
    return builder.as_data_source(split, decoders={image: library.decode.SkipDecoding()} if stored else None)


def _read(where: tuple[str, str, str, str], shape: tuple, classes: int, indices: Int[np.ndarray, "n"]) -> Examples:
    directory, split, image, label = where
    records = _records(directory, split, image)
    examples = [records[int(index)] for index in indices]
    x = np.empty((len(examples), *shape), np.uint8)
    for row, example in enumerate(examples):
        picture = example[image]
        if not isinstance(picture, np.ndarray):
            picture = decode(io.BytesIO(picture), shape[2], f"{directory} {split} {indices[row]}")
        x[row] = picture if picture.shape == shape else fit(picture, shape[0])
    if not label:
        return {"x": x}
    labels = np.array([example[label] for example in examples], np.int32)
    if len(labels) and not 0 <= labels.min() <= labels.max() < classes:
        raise InputError(
            f"'{directory}' has labels outside 0..{classes - 1} in {split}; set label to '' to leave them out"
        )
    return {"x": x, "label": labels}
