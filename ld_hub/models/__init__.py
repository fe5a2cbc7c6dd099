"""Detectors by name.

Importing the package imports every module in it, so that a family is registered by its file and nothing else has to
name it.
"""

from __future__ import annotations

import importlib
import pkgutil

for _module in pkgutil.iter_modules(__path__):
    if not _module.ispkg:
        importlib.import_module(f"{__name__}.{_module.name}")
