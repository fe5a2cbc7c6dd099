"""Exported detectors without torch: NumPy, Pillow and onnxruntime alone, and nothing else of this library.

```python
from ld_hub.runtime import Detector

detector = Detector("exported")  # what `ld-hub export` wrote
for found in detector.predict("street.jpg", threshold=0.3):
    print(found.label, found.score, found.box)
```
"""

from ld_hub.runtime.exported_files import Exported, ExportedError, is_exported
from ld_hub.runtime.reader import Detector
from ld_hub.runtime.results import Found, FoundObject

__all__ = ["Detector", "Exported", "ExportedError", "Found", "FoundObject", "is_exported"]
