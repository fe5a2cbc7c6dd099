"""ld_hub: a timm-style hub of distilled dense object detectors.

```python
import ld_hub

model = ld_hub.create_model("gfocal_r18_ld_r101")
detections = model.predict("street.jpg", threshold=0.3)
```

Names are imported from their rooms at first use, so that ``import ld_hub`` stays light. The commands
``python -m ld_hub.train`` and ``python -m ld_hub.distill`` are modules of the package; in Python the same work is
done by `DetectionTrainer` and `DistillationTrainer`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ld_hub.lazy import lazy_names
from ld_hub.version import __version__

if TYPE_CHECKING:
    from ld_hub.distillation import get_recipe, list_recipes
    from ld_hub.engine import DetectionTrainer, DistillationTrainer
    from ld_hub.errors import LdHubError
    from ld_hub.models.checkpoints.convert import load_checkpoint
    from ld_hub.models.detector import DenseDetector
    from ld_hub.models.factory import create_model, model_entrypoint
    from ld_hub.models.names import get_pretrained_cfg, is_model, list_models, list_modules, list_pretrained
    from ld_hub.preprocessing import create_transform, resolve_data_config
    from ld_hub.publishing.push import push_to_hf_hub
    from ld_hub.structures.detections import Detections

_ROOMS = {
    "distillation": ("get_recipe", "list_recipes"),
    "engine": ("DetectionTrainer", "DistillationTrainer"),
    "errors": ("LdHubError",),
    "models.checkpoints.convert": ("load_checkpoint",),
    "models.detector": ("DenseDetector",),
    "models.factory": ("create_model", "model_entrypoint"),
    "models.names": ("get_pretrained_cfg", "is_model", "list_models", "list_modules", "list_pretrained"),
    "publishing.push": ("push_to_hf_hub",),
    "preprocessing": ("create_transform", "resolve_data_config"),
    "structures.detections": ("Detections",),
}
_ROOM_OF = {name: room for room, names in _ROOMS.items() for name in names}

__all__ = [
    "DenseDetector",
    "DetectionTrainer",
    "Detections",
    "DistillationTrainer",
    "LdHubError",
    "__version__",
    "create_model",
    "create_transform",
    "get_pretrained_cfg",
    "get_recipe",
    "is_model",
    "list_models",
    "list_modules",
    "list_pretrained",
    "list_recipes",
    "load_checkpoint",
    "model_entrypoint",
    "push_to_hf_hub",
    "resolve_data_config",
]

__getattr__ = lazy_names(__name__, _ROOM_OF)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
