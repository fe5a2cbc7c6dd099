"""Images as a teacher is asked about them: files on disk, with what a list of boxes may call them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from PIL import Image

    from ld_hub.data import DetectionSet


@dataclass(frozen=True)
class Photo:
    """One image file.

    Attributes:
        path: Where it lies.
        size: Height and width in px.
        image_id: Its id in the annotation file of the data set it belongs to; None where it has none.
    """

    path: str
    size: tuple[int, int]
    image_id: int | None = None

    def load(self) -> Image.Image:
        """8-bit RGB, upright where its size says so: the pixels that a student sees.

        Raises:
            DataError: If the file is damaged; names it.
            MissingFileError: If it is gone.
        """
        from ld_hub.preprocessing.loading import load_image

        height, width = self.size
        return load_image(self.path, size=(width, height))

    def content(self) -> str:
        """What is on it, by which a cache knows the image wherever it lies (`file_content`)."""
        from ld_hub.data.detection_set import file_content

        return file_content(self.path, *self.size)


def photos_of(dataset: DetectionSet) -> list[Photo]:
    """The images of a data set, in its order, with the ids of the user's own annotation file where there is one.

    Args:
        dataset: With or without labels; of a tile it is the whole image.
    """
    records, ids = dataset.records, dataset.file_ids
    sizes = records.sizes if records.crops is None else records.crops[:, [5, 4]]
    pairs = zip(records.paths.to_pylist(), sizes.tolist(), strict=True)
    return [Photo(path, (height, width), ids.get(path)) for path, (height, width) in pairs]
