"""Exported detectors without torch: NumPy, Pillow and onnxruntime alone, and nothing else of this library.

```python
from ld_hub.runtime import Detector

detector = Detector("exported")  # what `ld-hub export` wrote
for found in detector.predict("street.jpg", threshold=0.3):
    print(found.label, found.score, found.box)
```

Names are imported at first use: whether a directory is an export is asked without NumPy, too.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ld_hub.runtime.exported_files import Exported, ExportedError, is_exported
    from ld_hub.runtime.reader import Detector
    from ld_hub.runtime.results import Found, FoundObject

_FILE_OF = {
    "Detector": "reader",
    "Exported": "exported_files",
    "ExportedError": "exported_files",
    "Found": "results",
    "FoundObject": "results",
    "is_exported": "exported_files",
}

__all__ = ["Detector", "Exported", "ExportedError", "Found", "FoundObject", "is_exported"]


def __getattr__(name: str) -> Any:
    if name not in _FILE_OF:
        raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
    return getattr(importlib.import_module(f"{__name__}.{_FILE_OF[name]}"), name)
