"""The notebook's cells run in their order; what is stored of them is of such a run, small, and of no certain machine.

The cells run here in one namespace and not in a Jupyter kernel: they use nothing of one, and nbclient with ipykernel
would bring twenty packages into the test environment. To renew the outputs, run it after a fresh `ld-hub demo`.
"""

from __future__ import annotations

import ast
import base64
import io
import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

pytest.importorskip("matplotlib").use("Agg")
FILE = Path(__file__).parents[2] / "examples/ideas.ipynb"
NOTEBOOK = json.loads(FILE.read_text())
CODE = [cell for cell in NOTEBOOK["cells"] if cell["cell_type"] == "code"]
KINDS = ("image/jpeg", "text/plain")


def execute(source: str, names: dict[str, Any]) -> object:
    """Run a cell and return the value of its last expression, as Jupyter shows it."""
    body = ast.parse(source).body
    last = ast.Expression(body.pop().value) if isinstance(body[-1], ast.Expr) else None
    exec(compile(ast.Module(body, []), FILE.name, "exec"), names)
    return None if last is None else eval(compile(last, FILE.name, "eval"), names)


def test_the_cells_run(demo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.set_num_threads(1)
    (tmp_path / "ld_hub_demo").symlink_to(demo)
    (tmp_path / "examples").mkdir()
    monkeypatch.chdir(tmp_path / "examples")
    names: dict[str, Any] = {}
    pictures = []
    for cell in CODE:
        value = execute("".join(cell["source"]), names)
        stored = [kind for output in cell["outputs"] for kind in output.get("data", {})]
        assert stored == ([] if value is None else ["image/jpeg" if hasattr(value, "_repr_jpeg_") else "text/plain"])
        if hasattr(value, "_repr_jpeg_"):
            pictures.append(Image.open(io.BytesIO(value._repr_jpeg_())))
    assert len(pictures) == 4 and all(min(picture.size) > 100 for picture in pictures)
    main, valuable = names["main"], names["valuable"] > 0
    assert main.any() and valuable.any() and not (main & valuable).all()
    edges = names["outputs"]["teacher"].box.softmax(dim=3)
    assert torch.allclose(edges.sum(dim=3), torch.ones(edges.shape[:3]), atol=1e-5)


def test_what_is_stored_is_of_one_run_and_small() -> None:
    assert FILE.stat().st_size <= 300_000
    assert [cell["execution_count"] for cell in CODE] == list(range(1, len(CODE) + 1))
    outputs = [output for cell in CODE for output in cell["outputs"]]
    assert {output["output_type"] for output in outputs} == {"stream", "execute_result"}
    assert not [output for output in outputs if output.get("name") == "stderr"]
    texts = [output["text"] for output in outputs if "text" in output] + [cell["source"] for cell in CODE]
    assert texts and not re.search(r"(?<![\w.])/\w+/", "\n".join("".join(text) for text in texts))  # absolute paths
    for output in outputs:
        for kind, data in output.get("data", {}).items():
            assert kind in KINDS
            if kind == "image/jpeg":
                assert min(Image.open(io.BytesIO(base64.b64decode("".join(data)))).size) > 100
