"""What `ld-hub benchmark --cache_teacher` says of a teacher that is asked once."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from ld_hub.benchmark.caching import measure_cache
from ld_hub.benchmark.figures import Figures
from ld_hub.benchmark.steps import Workload
from ld_hub.cli.main import main
from tests.engine.runs import detector

SMALL = ["--size", "64", "64", "--repeats", "1", "--batch_size", "1", "--num_classes", "3", "--device", "cpu"]


def test_bytes_and_differences_are_those_of_the_answers() -> None:
    """3 classes and 4 x 9 bins in each of 86 cells, and safetensors' header."""
    cost = measure_cache(detector(), detector(seed=1), "vlr", Workload(2, 64, 64, 3, repeats=1))
    cells = 64 + 16 + 4 + 1 + 1
    numbers = {"32": 4 * (3 + 4 * 9), "8": (3 + 2 + 2) + 4 * (9 + 2)}  # float32; codes, scales, and largest of classes
    for bits, each in numbers.items():
        assert cells * each < cost.bytes_per_image[bits] < cells * each + 600
    assert list(cost.differences) == ["distill_kd", "distill_ld", "distill_ld_vlr"]
    assert all(0 < difference < 0.005 for difference in cost.differences.values())
    assert min(time.least for time in (cost.plain, cost.live, *cost.cached.values())) > 0


def test_verb_with_a_cache(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["gfocal_tiny", "--teacher", "gfocal_tiny", "--recipe", "ld", "--mode", "training", "--cache_teacher"]
    torch.manual_seed(0)
    assert main(["benchmark", *words, *SMALL, "--json", str(tmp_path / "o.json")]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines[lines.index("teacher asked once") : -1])) <= 80
    content = json.loads((tmp_path / "o.json").read_text())
    found = Figures.from_dict(content).cache
    assert found is not None and found.plain.median == content["cache"]["plain"]["median"]
    (line,) = [line.split() for line in lines if line.startswith("  8 bits")]
    assert line[2:4] == [f"{found.cached['8'].median:.1f}", f"{found.cached['8'].least:.1f}"]
    assert line[4] == f"{found.cached['8'].median / found.plain.median:.3f}"
    assert line[5] == f"{found.bytes_per_image['8'] / 1024:.0f}"
    assert any(line.startswith("  distill_ld in 8 bits is ") for line in lines)


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["gfocal_tiny", "--mode", "inference"], "no --mode inference"),
        (["gfocal_tiny", "--table"], "give one model name"),
        (["gfocal_tiny"], "'gfocal_tiny' has no teacher; name one, --teacher NAME"),
    ],
)
def test_a_cache_without_a_teacher_is_refused(capsys: pytest.CaptureFixture[str], words: list[str], named: str) -> None:
    assert main(["benchmark", *words, "--cache_teacher", *SMALL]) == 2
    assert named in " ".join(capsys.readouterr().err.split())
