from __future__ import annotations

from tests.engine.conftest import data, one_thread  # noqa: F401  # fixtures
