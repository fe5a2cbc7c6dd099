"""Numbers of runs: reading, grouping by what differs, means and spreads against plain ones."""

from __future__ import annotations

import csv
import json

import numpy as np
import pytest

from ld_hub.analysis.curves import final_table, group_runs, panels, write_csv
from ld_hub.engine.records import read_records
from ld_hub.errors import CheckpointError, ConfigError, MissingFileError

SETTINGS = {
    "ld_hub_version": "1", "config": {"seed": 0, "lr": 0.01, "output_dir": "a"}, "steps": 3, "model": "gfocal_r18",
    "model_config": {"backbone": "r18"}, "train_annotations": "/data/train.json", "train_annotations_sha256": "ab",
}  # fmt: skip
VLR = {
    "recipe": {"name": "vlr", "terms": {"ld": {"weight": 0.25}}},
    "teacher": "gfocal_r101",
    "teacher_weights_sha256": "c",
}


def write_run(path, records=(), seed=0, lr=0.01, **changes):
    path.mkdir()
    settings = {**SETTINGS, **changes, "config": {"seed": seed, "lr": lr, "output_dir": str(path)}}
    (path / "config.json").write_text(json.dumps(settings))
    (path / "metrics.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


def names(*runs, **named):
    return {group.name: [run.name for run in group.runs] for group in group_runs(runs, named)}


def test_a_last_line_that_is_cut_is_left_out(tmp_path):
    file = tmp_path / "metrics.jsonl"
    file.write_text('{"step": 1, "loss": 2.5, "grad_norm": null, "x": NaN, "on": true, "text": "a"}\n{"step": 2, "lo')
    assert read_records(file) == [{"step": 1, "loss": 2.5}]
    file.write_text('{"step": 1}\n{"step": 2}')
    assert [record["step"] for record in read_records(file)] == [1, 2]
    file.write_text("")
    assert read_records(file) == []
    with pytest.raises(MissingFileError, match=r"none\.jsonl"):
        read_records(tmp_path / "none.jsonl")


@pytest.mark.parametrize(
    "line", ['{"step": 2, "lo', "[1]", "3", '{"loss": 1}', '{"step": "2"}', "", "\x00\x01", "[" * 9999]
)
def test_garbage_is_named_by_file_and_line(tmp_path, line):
    file = tmp_path / "metrics.jsonl"
    file.write_text('{"step": 1}\n' + line + '\n{"step": 3}\n')
    with pytest.raises(CheckpointError, match=r"metrics\.jsonl', line 2: .* is no record of a run") as caught:
        read_records(file)
    assert len(str(caught.value)) < 500


def test_runs_that_differ_in_the_seed_are_one_group(tmp_path):
    plain = [write_run(tmp_path / f"a{seed}", seed=seed, train_annotations=f"/{seed}/train.json") for seed in (0, 1)]
    vlr = [write_run(tmp_path / f"v{seed}", seed=seed, **VLR) for seed in (0, 1)]
    assert names(*plain) == {"gfocal_r18": ["a0", "a1"]}
    assert names(*vlr) == {"vlr": ["v0", "v1"]}
    assert names(plain[0], *vlr, plain[1]) == {"no distillation": ["a0", "a1"], "vlr": ["v0", "v1"]}
    assert names(plain[0], mine=[vlr[0], plain[1]]) == {"mine": ["v0", "a1"], "gfocal_r18": ["a0"]}
    assert [group.seeds for group in group_runs(plain)] == [(0, 1)]


def test_groups_are_called_after_what_differs(tmp_path):
    base = write_run(tmp_path / "v", **VLR)
    heavy = {"name": "vlr", "terms": {"ld": {"weight": 2.0}}}
    others = {
        "vlr lr=0.02": write_run(tmp_path / "lr", lr=0.02, **VLR),
        "vlr ld.weight=2.0": write_run(tmp_path / "w", **{**VLR, "recipe": heavy}),
        "vlr gfocal_r34": write_run(tmp_path / "m", **{**VLR, "model": "gfocal_r34"}),
        "vlr from gfocal_r50+gfocal_r101": write_run(
            tmp_path / "t", **{**VLR, "teacher": ["gfocal_r50", "gfocal_r101"]}
        ),
        "vlr train_annotations_sha256=cd": write_run(tmp_path / "d", **VLR, train_annotations_sha256="cd"),
    }
    for name, run in others.items():
        assert list(names(base, run))[1] == name
    assert len(names(base, *others.values())) == 6
    bare = names(base, write_run(tmp_path / "b"), write_run(tmp_path / "c", lr=0.1))
    assert list(bare) == ["vlr lr=0.01", "no distillation lr=0.01", "no distillation lr=0.1"]


def test_a_teacher_of_the_run_s_own_is_not_another_setting(tmp_path):
    runs = [write_run(tmp_path / f"v{k}", seed=k, **{**VLR, "teacher_weights_sha256": f"{k}"}) for k in (0, 1)]
    assert len(names(*runs)) == 2
    for run in runs:
        (run / "teacher").mkdir()  # --train_teacher
    assert names(*runs) == {"vlr": ["v0", "v1"]}


def test_mean_and_spread_are_those_of_numpy(tmp_path):
    values = np.random.default_rng(0).random((3, 4))
    runs = [
        write_run(
            tmp_path / f"a{k}", [{"step": 10 * s, "loss": values[k, s], "seconds": 1} for s in range(4 - (k == 2))], k
        )
        for k in range(3)
    ]
    (curve,) = panels(group_runs(runs))["loss"].values()
    assert curve.steps == (0, 10, 20) and curve.runs == 3  # one run has got no further
    assert np.allclose(curve.mean, values[:, :3].mean(0)) and np.allclose(curve.std, values[:, :3].std(0, ddof=1))
    (single,) = panels(group_runs(runs[:1]))["loss"].values()
    assert np.allclose(single.mean, values[0]) and single.std == (0, 0, 0, 0)

    write_csv(panels(group_runs(runs)), tmp_path / "curves.csv")
    with open(tmp_path / "curves.csv", newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [(row["quantity"], row["group"], row["step"], row["runs"]) for row in rows] == [
        ("loss", "gfocal_r18", str(step), "3") for step in (0, 10, 20)
    ]
    assert [float(row["mean"]) for row in rows] == list(curve.mean)
    assert [float(row["std"]) for row in rows] == list(curve.std)


def test_quantities_come_in_their_order(tmp_path):
    record = {"step": 1, "epoch": 1, "lr": 1, "loss": 1, "loss_dfl": 1, "loss_cls": 1, "grad_norm": 1, "seconds": 1}
    record |= {"share/distill_ld": 1, "distill_ld": 1, "eval/AP": 1, "eval/APs": 1}
    assert list(panels(group_runs([write_run(tmp_path / "a", [record])]))) == [
        "eval/AP", "loss", "loss_cls", "loss_dfl", "distill_ld", "share/distill_ld", "grad_norm", "lr",
    ]  # fmt: skip


def test_the_table_of_final_ap(tmp_path):
    def evaluated(name, aps, seed=0, **changes):
        lines = [{"step": 5, "eval/AP": ap, "eval/AP50": 2 * ap, "eval/AP75": ap / 2} for ap in aps]
        return write_run(tmp_path / name, [{"step": 1, "eval/AP": 0.9}, *lines], seed, **changes)

    runs = [evaluated("a", [0.3]), evaluated("b", [0.34], 1), evaluated("v", [0.4], **VLR)]
    head, *lines = final_table(group_runs(runs)).splitlines()
    assert head.split() == ["runs", "step", "AP", "AP50", "AP75"]
    assert lines[0].split("  ")[0] == "no distillation" and "32.0 ± 2.8  64.0 ± 5.7  16.0 ± 1.4" in lines[0]
    assert lines[1].split() == ["vlr", "1", "5", "40.0", "80.0", "20.0"]
    unfinished = write_run(tmp_path / "u", [{"step": 1, "loss": 1}], seed=0)
    text = final_table(group_runs([runs[0], unfinished]))
    assert "1 of 2 runs have not been evaluated" in text and "runs of the same seed (0, 0)" in text
    named = final_table(group_runs([], {"a name that is much too long for a column": [unfinished]}))
    assert named.splitlines()[1].split() == [*"a name that is much too l…".split(), "1", "–", "–", "–", "–"]
    assert all(len(line) <= 80 for line in [head, *lines, *named.splitlines()])


def test_what_is_no_run(tmp_path):
    run = write_run(tmp_path / "a")
    with pytest.raises(MissingFileError, match=r"lacks config\.json and metrics\.jsonl"):
        group_runs([tmp_path])
    with pytest.raises(ConfigError, match="named twice"):
        group_runs([run, tmp_path / "b" / ".." / "a"])
    with pytest.raises(ConfigError, match="at least one"):
        group_runs([])
    with pytest.raises(ConfigError, match="two groups 'gfocal_r18'"):
        group_runs([run], {"gfocal_r18": [write_run(tmp_path / "b")]})
    for text in ("{", "[]"):
        (run / "config.json").write_text(text)
        with pytest.raises(CheckpointError, match=r"config\.json"):
            group_runs([run])
