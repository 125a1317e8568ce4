"""A set of pictures that say what they are: picture i has the colour 20 i throughout and the class i mod 3."""

import io

import numpy as np
import tensorflow_datasets as tfds
from PIL import Image

COUNTS = {"train": 10, "test": 4}


class Builder(tfds.core.GeneratorBasedBuilder):
    """The classes a, b, c; `photo` shows the same picture in many sizes."""

    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES = {"1.0.0": "All there is."}

    def _info(self):
        features = {
            "image": tfds.features.Image(shape=(6, 4, 3)),
            "photo": tfds.features.Image(shape=(None, None, 3)),
            "label": tfds.features.ClassLabel(names=["a", "b", "c"]),
        }
        return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features))

    def _split_generators(self, dl_manager):
        return {split: self._generate_examples(count) for split, count in COUNTS.items()}

    def _generate_examples(self, count):
        for i in range(count):
            yield i, {"image": _png(i, 6, 4), "photo": _png(i, 9, 5 + i), "label": i % 3}


def _png(i: int, height: int, width: int) -> io.BytesIO:
    file = io.BytesIO()
    Image.fromarray(np.full((height, width, 3), 20 * i, np.uint8)).save(file, "PNG")
    file.seek(0)
    return file
