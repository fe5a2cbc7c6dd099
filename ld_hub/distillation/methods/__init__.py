"""Distillation methods, a file each: paper, configuration, term, its second version in loops, recipes.

Every module that lies here is imported, so that a new file is a new method and nothing else has to name it.
"""

from __future__ import annotations

import importlib
import pkgutil

for _module in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{_module.name}")
