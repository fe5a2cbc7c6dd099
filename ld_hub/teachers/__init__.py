"""Teachers of which only detections are known: other libraries' detectors, files of boxes, functions. One file a kind.

They teach by scored targets on images without labels (`ld_hub.engine.box_task`). A kind is registered in its file
(`ld_hub.teachers.kinds.register_kind`); nothing else names it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ld_hub.lazy import lazy_names

if TYPE_CHECKING:
    from ld_hub.teachers.box_teacher import BoxTeacher, PixelTeacher
    from ld_hub.teachers.kinds import load_teacher
    from ld_hub.teachers.photos import Photo

_FILE_OF = {"BoxTeacher": "box_teacher", "Photo": "photos", "PixelTeacher": "box_teacher", "load_teacher": "kinds"}

__all__ = ["BoxTeacher", "Photo", "PixelTeacher", "load_teacher"]

__getattr__ = lazy_names(__name__, _FILE_OF)
