"""The table of metrics."""

from __future__ import annotations

import json
import unicodedata

import pytest

from ld_hub.evaluation import DetectionMetrics
from ld_hub.evaluation.metrics import STAT_NAMES


def metrics(names, values):
    stats = dict.fromkeys(STAT_NAMES, 0.25)
    stats["APs"] = None
    return DetectionMetrics(stats, dict(zip(names, values, strict=True)), dict.fromkeys(names, 12), 3, 40)


def columns(line):
    return sum(2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in line)


def test_numbers_stand_under_their_names():
    lines = metrics(["a"], [0.5]).table().splitlines()
    assert lines[1].split() == ["AP", "AP50", "AP75", "APs", "APm", "APl"]
    assert lines[2].split() == ["25.0", "25.0", "25.0", "–", "25.0", "25.0"]
    assert lines[3].split() == ["AR1", "AR10", "AR100", "ARs", "ARm", "ARl"]
    assert str(metrics(["a"], [0.5])) == metrics(["a"], [0.5]).table()


def test_classes_are_sorted_best_first_missing_last():
    table = metrics(["low", "none", "high", "zero"], [0.1, None, 0.9, 0.0]).table()
    rows = [line.split() for line in table.splitlines()[-4:]]
    assert rows == [["high", "90.0", "12"], ["low", "10.0", "12"], ["zero", "0.0", "12"], ["none", "–", "12"]]
    assert "high" not in metrics(["high"], [0.9]).table(per_class=False)


def test_table_fits_80_columns():
    names = [f"a rather long class name, number {k}" for k in range(40)]
    names += [f"{k}号高楼大厦高楼大厦高楼大厦" for k in range(41)]
    lines = metrics(names, [k / 100 for k in range(81)]).table().splitlines()
    assert max(columns(line) for line in lines) <= 80
    assert len(lines) < 50  # two columns of classes
    assert max(columns(line) for line in metrics(["x" * 100], [0.5]).table().splitlines()) <= 80


@pytest.mark.parametrize("protocol, words", [("voc07", "VOC 2007, 11-point AP"), ("voc12", "VOC 2012, AP by area")])
def test_the_table_of_voc(protocol, words):
    stats = {"AP": 0.5, **{f"AP{k}": k / 100 for k in range(50, 95, 5)}, "AP95": None}
    lines = DetectionMetrics(stats, {"a": 0.5}, {"a": 9}, 4952, 123456, protocol=protocol).table().splitlines()
    assert words in lines[0] and max(map(columns, lines)) <= 80
    assert lines[1].split() == ["AP", "AP50", "AP55", "AP60", "AP65", "AP70"]
    assert lines[2].split() == ["50.0", "50.0", "55.0", "60.0", "65.0", "70.0"]
    assert lines[3].split() == ["AP75", "AP80", "AP85", "AP90", "AP95"]
    assert lines[4].split() == ["75.0", "80.0", "85.0", "90.0", "–"]


def test_it_is_made_again_from_its_dict():
    one = DetectionMetrics({"AP": None}, {"a": None}, {"a": 0}, 3, 200, 100, "voc12")
    assert DetectionMetrics(**json.loads(json.dumps(one.to_dict()))) == one
    assert "100 detections were not counted" in DetectionMetrics({}, {}, not_counted=100).table()


def test_to_dict_is_plain_json():
    content = json.loads(json.dumps(metrics(["a", "b"], [0.5, None]).to_dict(), allow_nan=False))
    assert content["stats"]["APs"] is None and content["per_class"] == {"a": 0.5, "b": None}
    assert content["images"] == 3 and content["boxes"] == {"a": 12, "b": 12}
