from __future__ import annotations

import pytest

from tests.support.server import serve

server = pytest.fixture(serve)
