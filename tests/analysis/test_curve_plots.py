"""Curves are drawn where matplotlib is, and left out where it is not."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from ld_hub.analysis.curve_plots import plot_curves
from ld_hub.analysis.curves import LOSSES, Group, course, panels

ALONE = [{"step": 1, "loss_cls": 1.0, "eval/AP": 0.1}, {"step": 2, "loss_cls": 0.5}]
LD = [{"step": 1, "loss_cls": 1.0, "distill_ld": 2.0, "share/distill_ld": 0.1}]


def colours(path: Path) -> set[tuple[int, ...]]:
    with Image.open(path) as picture:
        return {colour for _, colour in picture.convert("RGB").getcolors(1 << 20)}


def test_one_panel_per_quantity(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    groups = [course("alone", ALONE), course("ld", LD)]
    assert plot_curves(panels(groups, LOSSES), tmp_path / "sub" / "losses.png")
    assert plot_curves(panels(groups), tmp_path / "all.png")
    with Image.open(tmp_path / "sub/losses.png") as losses, Image.open(tmp_path / "all.png") as every:
        assert every.width == losses.width > losses.height > 100
        assert every.height > losses.height  # 4 panels, 3 in a row
    blue, orange = (31, 119, 180), (255, 127, 14)  # matplotlib's first two
    assert {blue, orange} <= colours(tmp_path / "all.png")


def test_the_spread_is_drawn(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    runs = tuple(tuple({"step": step, "loss_cls": value + k} for step in range(9)) for k, value in enumerate((1, 2)))
    plot_curves(panels([Group("a", (), runs[:1])]), tmp_path / "one.png")
    plot_curves(panels([Group("a", (), runs)]), tmp_path / "two.png")
    band = {colour for colour in colours(tmp_path / "two.png") if colour[0] > 200 and colour[2] > colour[0] + 20}
    assert band and not band & colours(tmp_path / "one.png")


def test_a_wide_band_does_not_stretch_a_logarithmic_axis(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The std of 0.001 and 2 is larger than their mean: the band has no lower end there."""
    figure = pytest.importorskip("matplotlib.figure")
    seen: list[tuple[str, float]] = []
    save = figure.Figure.savefig

    def look(self: Any, *args: Any, **options: Any) -> None:
        seen.extend((axes.get_yscale(), axes.get_ylim()[0]) for axes in self.axes)
        save(self, *args, **options)

    monkeypatch.setattr(figure.Figure, "savefig", look)
    runs = tuple(tuple({"step": step, "share/kd": value} for step in range(9)) for value in (0.001, 2.0))
    plot_curves(panels([Group("a", (), runs)]), tmp_path / "a.png")
    assert seen == [("log", pytest.approx(0.5 * 1.0005))]


def test_nothing_without_matplotlib_or_curves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert not plot_curves({}, tmp_path / "losses.png")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert not plot_curves(panels([course("alone", ALONE)]), tmp_path / "losses.png")
    assert not (tmp_path / "losses.png").exists()
