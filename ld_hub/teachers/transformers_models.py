"""Detectors of the library transformers as teachers: DETR, RT-DETR, D-FINE, Deformable DETR, YOLOS and their like.

Named ``hf:org/name``, ``hf:org/name@revision``, or by a directory that ``save_pretrained`` wrote. Weights are taken
from safetensors alone, code from the installed package alone, and nothing is fetched where the network is forbidden.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ld_hub.errors import CheckpointError, ConfigError, LdHubError
from ld_hub.hub import CONFIG_NAME, MODEL_TYPE
from ld_hub.teachers.box_teacher import LEAST, BoxTeacher, PixelTeacher, detections_in
from ld_hub.teachers.kinds import Kind, register_kind

if TYPE_CHECKING:
    import torch
    from PIL import Image

    from ld_hub.structures import Detections

PREFIX = "hf:"
INPUT_NAME = "preprocessor_config.json"
_REPOSITORY = re.compile(r"hf:([\w.-]+/[\w.-]+)(?:@([\w./-]+))?", re.ASCII)
_ARCHITECTURE = "ForObjectDetection"  # how the names of transformers' detectors end
_LOADING: tuple[type[Exception], ...] = (OSError, ValueError, RuntimeError, KeyError, ImportError)


class TransformersTeacher(PixelTeacher):
    """A detector of transformers.

    Args:
        folder: Directory with ``config.json``, ``preprocessor_config.json`` and safetensors.
        name: See `BoxTeacher`.
        origin: See `BoxTeacher`.

    Raises:
        CheckpointError: If there are no safetensors, or they do not fill the network; names what is missing.
    """

    kind = "detector of transformers"

    def __init__(self, folder: Path, name: str, origin: str = "") -> None:
        import hashlib

        from ld_hub.hub import sha256_of

        files = sorted(folder.glob("*.safetensors"))
        if not files:
            raise CheckpointError(
                f"'{folder}' has no safetensors. Pickled weights (pytorch_model.bin) are not loaded: open the model "
                "where you trust it, and save_pretrained(DIR) it again."
            )
        self.model, self.processor = _load(folder)
        names = {int(k): str(label) for k, label in self.model.config.id2label.items()}
        labels = [names.get(k, f"class_{k}") for k in range(max(names) + 1)]
        hashes = "".join(sha256_of(file) for file in files)
        digest = hashes if len(files) == 1 else hashlib.sha256(hashes.encode()).hexdigest()
        super().__init__(name, labels, origin=origin, digest=digest)

    def to(self, device: torch.device) -> BoxTeacher:
        """See `BoxTeacher.to`."""
        self.model.to(device)
        return self

    def see(self, images: Sequence[Image.Image]) -> list[Detections]:
        """See `PixelTeacher.see`; images of one size go through the network together, so none is padded."""
        groups: dict[tuple[int, int], list[int]] = defaultdict(list)
        for index, image in enumerate(images):
            groups[image.size].append(index)
        found: dict[int, Detections] = {}
        for (width, height), members in groups.items():
            said = self._ask([images[index] for index in members], (height, width))
            found |= dict(zip(members, said, strict=True))
        return [found[index] for index in range(len(images))]

    def _ask(self, images: list[Image.Image], size: tuple[int, int]) -> list[Detections]:
        import torch

        with torch.inference_mode():
            inputs = self.processor(images=images, return_tensors="pt").to(self.model.device)
            outputs = self.model(**inputs)
            if not bool(outputs.logits.isfinite().all()):
                raise CheckpointError(f"Teacher '{self.name}': its class scores are not finite. Did it diverge?")
            said = self.processor.post_process_object_detection(
                outputs, threshold=LEAST, target_sizes=[size] * len(images)
            )
        return [detections_in(each, self.label_names) for each in said]


def _load(folder: Path) -> tuple[Any, Any]:
    """Network in eval mode, and what prepares its input and reads its output."""
    import transformers

    processors: Any = transformers.AutoImageProcessor
    detectors: Any = transformers.AutoModelForObjectDetection
    local = {"local_files_only": True, "trust_remote_code": False}
    try:
        processor = processors.from_pretrained(folder, **local)
        model, report = detectors.from_pretrained(folder, use_safetensors=True, output_loading_info=True, **local)
    except _LOADING as error:
        raise CheckpointError(f"'{folder}' is no detector that transformers can load: {_line(error)}.") from None
    missing = sorted(report["missing_keys"])
    if missing:
        raise CheckpointError(
            f"'{folder}': its weights leave {len(missing)} tensors of the network empty ({', '.join(missing[:3])}). "
            "A teacher of random numbers teaches nothing: save the whole detector."
        )
    if not hasattr(processor, "post_process_object_detection"):
        raise CheckpointError(f"'{folder}': {type(processor).__name__} does not turn outputs into boxes.")
    return model.eval().requires_grad_(False), processor


def _line(error: Exception) -> str:
    from ld_hub.hub.downloads import first_line, secrets_in_use

    return first_line(error, secrets_in_use(None))


def _fits(teacher: str) -> bool:
    if teacher.startswith(PREFIX):
        return True
    file = Path(teacher).expanduser() / CONFIG_NAME
    return bool(teacher) and file.is_file() and _is_detector(file)


def _is_detector(file: Path) -> bool:
    """Whether a config.json is that of a detector of transformers."""
    from ld_hub.hub.config_file import MAX_CONFIG_BYTES, parse_json

    if file.stat().st_size > MAX_CONFIG_BYTES:
        return False
    try:
        content = parse_json(file, "a model configuration")
    except LdHubError:
        return False
    names = content.get("architectures")
    listed = isinstance(names, list) and any(str(name).endswith(_ARCHITECTURE) for name in names)
    return listed and content.get("model_type") != MODEL_TYPE


def _require(teacher: str) -> None:
    if teacher.startswith(PREFIX) and not _REPOSITORY.fullmatch(teacher):
        raise ConfigError(f"--teacher is '{teacher}'; expected hf:ORG/NAME or hf:ORG/NAME@REVISION.")
    if find_spec("transformers") is None:
        raise ConfigError(
            f"The teacher '{teacher}' needs the package transformers: pip install 'ld_hub[transformers]'."
        )


def _make(teacher: str, _: Path | None) -> TransformersTeacher:
    from ld_hub.hub.config_file import parse_json
    from ld_hub.hub.downloads import download, origin_of

    named = _REPOSITORY.fullmatch(teacher)
    if named is None:
        folder = Path(teacher).expanduser()
        return TransformersTeacher(folder, folder.resolve().name)
    repository, revision = named.groups()
    folder = download(repository, revision, weights=False)
    if parse_json(folder / CONFIG_NAME, "a model configuration").get("model_type") == MODEL_TYPE:
        raise ConfigError(f"'{teacher}' is a detector of this library: hf-hub:{teacher.removeprefix(PREFIX)}.")
    folder = download(repository, folder.name, also=(INPUT_NAME,))  # of the same commit
    return TransformersTeacher(folder, repository, origin_of(folder) or "")


register_kind(
    "transformers",
    Kind(_fits, _require, _make, words="hf:ORG/NAME@REVISION or DIR, a detector of the package transformers"),
)
