"""Flags of `ld_hub.train` and `ld_hub.distill` that say where the images are, and how they are read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from ld_hub.data.discovery import require_places
from ld_hub.data.reading import Reading
from ld_hub.errors import ConfigError


@dataclass(frozen=True)
class DataArguments:
    """Where the images are.

    Attributes:
        data: Directory of the data: COCO's (train2017/ or train/, val2017/ or val/, annotations/*.json), PASCAL VOC's
            (VOCdevkit: trained on 07+12 trainval, evaluated on VOC2007 test), YOLO's (data.yaml), or what Label Studio,
            CVAT, Roboflow, VIA, VoTT, CreateML, LabelMe, Open Images or imagefolder write.
        train_images: Directory of training images, where data does not tell.
        train_annotations: COCO file of the training images, where data does not tell.
        val_images: Directory of the images to evaluate on, where data does not tell.
        val_annotations: COCO file of the images to evaluate on, where data does not tell. Without data and without
            this nothing is evaluated.
        on_bad_box: What happens to boxes outside their image or with no area: drop leaves them out and says how many,
            as published; error stops and names them.
        strict: Refuse data that would have to be repaired on reading, which else is done and said.
        val_fraction: Part of the images that is held out to evaluate on, chosen by the hash of their names: of data
            without parts (there 0.1 if it is not given), or of training images without others to evaluate on.
        keep_root_category: Keep the category without boxes that Roboflow writes above the others.
        merge_categories: Make one class of categories that share a name.
        columns: Of data of the Hub (hf:ORG/NAME, with @REVISION and :CONFIG), and of directories of parquet files or of
            datasets' save_to_disk, where columns have other names than usual: image=img,objects=boxes,bbox=box,
            category=label,form=xyxy. What was found is printed.
        streaming: Of the same data: read the training images while they are trained on, from the Hub or from their
            files, so that they need no room on the disk. They are shuffled among shuffle_buffer neighbours.
        shuffle_buffer: Images that are shuffled among each other with streaming; up to twice as many are kept in
            memory, as they are stored, by each process.
    """

    data: str | None = None
    train_images: str | None = None
    train_annotations: str | None = None
    val_images: str | None = None
    val_annotations: str | None = None
    on_bad_box: Literal["drop", "error"] = "drop"
    strict: bool = False
    val_fraction: float | None = None
    keep_root_category: bool = False
    merge_categories: bool = False
    columns: str | None = None
    streaming: bool = False
    shuffle_buffer: int = 1000

    @property
    def reading(self) -> Reading:
        """How loosely they are read.

        Raises:
            ConfigError: If a value makes no sense.
        """
        return Reading(
            self.strict,
            self.val_fraction,
            self.keep_root_category,
            self.merge_categories,
            self.columns,
            self.streaming,
        )

    def require(self) -> None:
        """Refuse places that do not exist, or are not named, before anything is read or imported.

        Raises:
            MissingFileError: If there is no such directory or file.
            ConfigError: If the flags do not say where the data is, or how to read it.
        """
        _ = self.reading
        if self.streaming:
            from ld_hub.data.stream_set import require_stream  # with it comes NumPy

            require_stream(self.data, self.columns, self.shuffle_buffer)
        if self.data is None and (self.train_images is None or self.train_annotations is None):
            raise ConfigError(
                "Say where the data is: --data DIR, or both --train_images DIR and --train_annotations FILE."
            )
        require_places(self.data, images=self.train_images, annotations=self.train_annotations)
        if self.data is None and self.val_annotations is None:
            return
        if self.data is None and self.val_images is None:
            raise ConfigError("--val_annotations needs --val_images DIR beside it.")
        require_places(self.data, images=self.val_images, annotations=self.val_annotations)
