from __future__ import annotations

import pytest

from ld_hub.analysis.choice import spread, telling_boxes, telling_images
from ld_hub.analysis.plots import plain_text
from ld_hub.cli.verb_analyze import short_names


def test_images_are_spread_over_the_set():
    assert spread(5, None) == [0, 1, 2, 3, 4] == spread(5, 9)
    assert spread(101, 3) == [0, 50, 100] and spread(4, 1) == [0]


def test_best_worst_and_most_changed_images():
    first = {1: 0.5, 2: 0.9, 3: 0.1, 4: 0.6, 5: None, 6: 0.7}
    second = {1: 0.9, 2: 1.0, 3: 0.1, 4: 0.0, 5: 0.2, 6: 0.7}
    assert telling_images([first, second], 1) == {"gained": [1], "lost": [4], "best": [2], "worst": [3]}
    assert telling_images([first], 2) == {"best": [2, 6], "worst": [3, 1]}
    assert telling_images([first, first], 1) == {"gained": [], "lost": [], "best": [2], "worst": [3]}


def test_boxes_with_sure_and_unsure_edges():
    assert telling_boxes([1.0, 0.2, 2.0, 1.5], [0.0, -0.4, 0.1, 0.3]) == {"sure": 1, "unsure": 2, "apart": 3}
    assert telling_boxes([1.0, 0.2], None) == {"sure": 1, "unsure": 0}
    assert telling_boxes([1.0], [0.5]) == {"sure": 0} and telling_boxes([], []) == {}


@pytest.mark.parametrize(
    "sources, expected",
    [
        (["runs/alone/model", "runs/vlr/model"], ["alone", "vlr"]),
        (["a/best/model", "b/best/model", "c"], ["a/best", "b/best", "c"]),
        (["gfocal_r50", "hf-hub:org/name"], ["gfocal_r50", "name"]),
        (["x/model", "./x"], ["x/model", "./x"]),
        (["model"], ["model"]),
    ],
)
def test_models_are_called_after_what_tells_them_apart(sources, expected):
    assert short_names(sources) == expected


def test_names_in_figures_are_no_formulas():
    assert plain_text("$\\alpha$\n<b>") == r"\$\alpha\$ <b>"
    assert plain_text("x" * 50) == "x" * 27 + "…"
