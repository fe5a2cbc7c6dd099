"""torchvision's detectors as teachers: ``torchvision:retinanet_resnet50_fpn@COCO_V1``, or weights of your own."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ld_hub.errors import CheckpointError, ConfigError, UnknownNameError, unknown_name
from ld_hub.teachers.box_teacher import BoxTeacher, PixelTeacher, detections_in
from ld_hub.teachers.kinds import Kind, register_kind

if TYPE_CHECKING:
    import torch
    from PIL import Image
    from torch import Tensor

    from ld_hub.structures import Detections

PREFIX = "torchvision:"
BACKGROUND = "__background__"  # torchvision's class 0
_BUILDER = re.compile(r"@register_model\(\)\n(?:@.*\n(?:    .*\n|\)\n)*)?def (\w+)\(")
_HASH = re.compile(r"-([0-9a-f]{8,64})\.pth$")  # in addresses of published files
# Class and box predictors, whose widths say how many classes there are: a class tensor, and the box tensor that has
# four numbers for each of its anchors; with Faster R-CNN and its kin the class tensor alone.
_PREDICTORS = (
    ("roi_heads.box_predictor.cls_score.weight", None),
    ("head.classification_head.cls_logits.weight", "head.regression_head.bbox_reg.weight"),
    ("head.classification_head.module_list.0.1.weight", "head.regression_head.module_list.0.1.weight"),
    ("head.classification_head.module_list.0.weight", "head.regression_head.module_list.0.weight"),
)


class TorchvisionTeacher(PixelTeacher):
    """A detector of torchvision.

    Args:
        name: See `BoxTeacher`.
        model: The network.
        label_names: Its classes, the background first; empty where nobody has named them.
        digest: See `BoxTeacher`.
        classes: Number of its classes, with the background.
    """

    kind = "detector of torchvision"

    def __init__(self, name: str, model: Any, label_names: Sequence[str], digest: str, classes: int) -> None:
        super().__init__(name, label_names, digest=digest)
        self.model, self._count = model.eval().requires_grad_(False), classes

    def classes(self, label_names: Sequence[str], category_ids: Sequence[int]) -> tuple[str, ...]:
        """See `BoxTeacher.classes`.

        Raises:
            ConfigError: If nobody has named its classes and it has not as many as the student.
        """
        if self.label_names:
            return self.label_names
        if self._count != len(label_names) + 1:
            raise ConfigError(
                f"Teacher '{self.name}' was made for {self._count - 1} classes and the background, and its file does "
                f"not name them; the student has {len(label_names)}. Give weights of the data's classes, in its order."
            )
        return (BACKGROUND, *label_names)

    def to(self, device: torch.device) -> BoxTeacher:
        """See `BoxTeacher.to`."""
        self.model.to(device)
        return self

    def see(self, images: Sequence[Image.Image]) -> list[Detections]:
        """See `PixelTeacher.see`."""
        import torch
        from torchvision.transforms.functional import pil_to_tensor

        device = next(self.model.parameters()).device
        names = self.label_names or tuple(str(k) for k in range(self._count))
        with torch.inference_mode():
            said = self.model([pil_to_tensor(image).to(device).float() / 255 for image in images])
        return [detections_in(each, names) for each in said]


@lru_cache(maxsize=1)
def torchvision_names() -> tuple[str, ...]:
    """Names of torchvision's detectors, read from its source: importing it takes seconds."""
    spec = find_spec("torchvision")
    if spec is None or not spec.submodule_search_locations:
        return ()
    files = sorted(Path(spec.submodule_search_locations[0], "models", "detection").glob("*.py"))
    return tuple(name for file in files for name in _BUILDER.findall(file.read_text(encoding="utf-8")))


def _parts(teacher: str) -> tuple[str, str]:
    """Name and weights; the latter are the default ones where the text is empty."""
    name, _, weights = teacher.removeprefix(PREFIX).partition("@")
    return name, weights


def _require(teacher: str) -> None:
    name, _ = _parts(teacher)
    if name not in torchvision_names():
        raise unknown_name("detector of torchvision", name, torchvision_names())


def _make(teacher: str, checkpoint: Path | None) -> TorchvisionTeacher:
    from ld_hub.hub import sha256_of

    name, weights = _parts(teacher)
    if checkpoint is None:
        model, file, labels = _published(name, weights)
        return TorchvisionTeacher(name, model, labels, sha256_of(file), len(labels))
    if weights:
        raise ConfigError(f"'{teacher}' names published weights, and teacher_checkpoint others: leave one out.")
    model, classes = _own(name, checkpoint)
    return TorchvisionTeacher(name, model, (), sha256_of(checkpoint), classes)


def _own(name: str, file: Path) -> tuple[Any, int]:
    """A network with the weights of a file, and its number of classes."""
    from torchvision.models import get_model

    from ld_hub.models.checkpoints.convert import read_state

    state = read_state(file)
    classes = _count(file, state)
    model = get_model(name, weights=None, weights_backbone=None, num_classes=classes)
    try:
        missing, left = model.load_state_dict(state, strict=False)
    except RuntimeError as error:
        lines = [line.strip() for line in str(error).splitlines()]
        raise CheckpointError(f"'{file}' does not fit torchvision's {name}: {' '.join(lines[1:2])[:300]}") from None
    # batch norms that stayed frozen in training have no counter; nothing that computes needs it
    missing = [key for key in missing if not key.endswith("num_batches_tracked")]
    if missing or left:
        shown = ", ".join([*missing[:2], *left[:2]])
        raise CheckpointError(
            f"'{file}' does not fit torchvision's {name}: {len(missing)} tensors are missing and {len(left)} left over "
            f"({shown})."
        )
    return model, classes


def _published(name: str, weights: str) -> tuple[Any, Path, Sequence[str]]:
    """A network with published weights, their file, fetched once, and their classes."""
    from torchvision.models import get_model, get_model_weights

    from ld_hub.hub import cache_root
    from ld_hub.hub.fetch import fetch_file, one_at_a_time
    from ld_hub.models.checkpoints.convert import read_state

    known = get_model_weights(name)
    tags = list(known.__members__)
    if weights and weights not in tags:
        raise UnknownNameError(f"torchvision has no weights '{weights}' of {name}; it has {', '.join(tags)}.")
    chosen = known[weights] if weights else known.DEFAULT
    file = cache_root() / "torchvision" / Path(chosen.url).name
    digits = _HASH.search(file.name)
    if not file.is_file():
        file.parent.mkdir(parents=True, exist_ok=True)
        with one_at_a_time(file):
            if not file.is_file():
                fetch_file(chosen.url, file, sha256=digits.group(1) if digits else "")
    # torchvision would fetch the file again, and unpickle whatever is in it
    chosen.get_state_dict = lambda *_, **__: read_state(file)
    try:
        return get_model(name, weights=chosen), file, chosen.meta["categories"]
    finally:
        del chosen.get_state_dict


def _count(file: Path, state: Mapping[str, Tensor]) -> int:
    """Number of classes of a file, with the background."""
    for classes, boxes in _PREDICTORS:
        if classes in state and (boxes is None or boxes in state):
            anchors = 1 if boxes is None else len(state[boxes]) // 4
            return len(state[classes]) // max(anchors, 1)
    raise CheckpointError(
        f"'{file}' holds no detector of torchvision: it has none of {', '.join(name for name, _ in _PREDICTORS)}."
    )


def _fits(teacher: str) -> bool:
    return teacher.startswith(PREFIX) or _parts(teacher)[0] in torchvision_names()


register_kind(
    "torchvision",
    Kind(_fits, _require, _make, words="torchvision:NAME@WEIGHTS, a detector of torchvision", takes_weights=True),
)
