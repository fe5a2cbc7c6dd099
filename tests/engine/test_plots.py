"""Curves are drawn where matplotlib is, and left out where it is not."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest
from PIL import Image

from ld_hub.engine.plots import plot_losses

COURSES = {
    "alone": [{"step": 1, "loss_cls": 1.0}, {"step": 2, "loss_cls": 0.5}],
    "ld": [{"step": 1, "loss_cls": 1.0, "distill_ld": 2.0, "share/distill_ld": 0.1}],
}


def test_one_panel_per_loss(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    assert plot_losses(COURSES, tmp_path / "sub" / "losses.png")
    with Image.open(tmp_path / "sub" / "losses.png") as picture:
        assert picture.width > picture.height > 100
        assert len(picture.convert("RGB").getcolors(1 << 20)) > 20


def test_nothing_without_matplotlib(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert not plot_losses(COURSES, tmp_path / "losses.png")
    assert not (tmp_path / "losses.png").exists()
