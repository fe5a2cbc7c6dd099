from __future__ import annotations

import json

from ld_hub.cli.main import main
from ld_hub.models.checkpoints.pretrained import save_pretrained
from ld_hub.models.factory import create_model
from ld_hub.structures import Teaching


def facts(capsys, *arguments: str) -> dict[str, str]:
    """What is shown, by row; every line fits 80 columns."""
    assert main(["info", *arguments]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 80
    rows: dict[str, str] = {}
    for line in filter(None, lines):
        if not line.startswith(" "):
            title, _, text = line.partition(" ")
            title = f"layer {title}" if "part" in rows and title != "weights" else title
            rows[title] = text.strip()
        else:
            rows[title] += f" {line.strip()}"
    return rows


def test_a_distilled_name(capsys):
    shown = facts(capsys, "gfocal_r50_ld_r101")
    assert shown["parameters"] == "32.44 M, 32.22 M trainable"
    assert shown["multiply-adds"].startswith("208.31 G at 1280x800")
    assert (shown["student"], shown["teacher"]) == ("gfocal_r50", "gfocal_r101")
    assert shown["recipe"].startswith("ld: ")
    assert shown["weights"].startswith(
        "gfocal_r50_ld_r101.mmdet_1x_coco (default) COCO val2017 AP 41.0 as published, not measured here "
        "OpenMMLab model zoo, Apache-2.0, https://arxiv.org/abs/2102.12252 "
        "converter tested on the published key list; file not run "
    )
    assert "channels 512, 1024, 2048 at strides 8, 16, 32; 1 stage(s) frozen with the stem" in shown["layer backbone"]
    assert shown["input"] == "rgb, mean 123.675/116.28/103.53, std 58.395/57.12/57.375"


def test_tags_with_settings_of_their_own(capsys):
    own = "boxes=exp, center_radius=0, centerness_on=cls, mean=102.9801/115.9465/122.7717, std=1/1/1, channel_order=bgr"
    shown = facts(capsys, "fcos_r101_caffe")
    assert f"its own settings: {own}" in shown["weights"]
    assert shown["input"].startswith("bgr, mean 103.53/116.28/123.675")
    assert shown["detections"] == (
        "score > 0.05, the best 1000 pairs of location and class of each level, NMS at IoU 0.6, at most 100 per image"
    )
    assert facts(capsys, "fcos_r101_caffe.mmdet_ms2x_coco")["input"].startswith("bgr, mean 102.9801/115.9465/122.7717")
    voc = facts(capsys, "gfocal_r18_ld_r101.ld_4e_voc0712")
    assert voc["classes"] == "20 (aeroplane, bicycle, bird, boat, ...)"
    assert voc["weights"].startswith("gfocal_r18_ld_r101.ld_4e_voc0712 VOC07 test AP (mean of the 11-point AP at IoU ")
    assert "53.0 as published" in voc["weights"] and "mmdet" not in voc["weights"]
    assert "box_loss=ciou" in voc["weights"] and "no stable address" in voc["weights"]
    assert main(["info", "gfocal_r50.nope"]) == 2


def test_a_name_without_weights(capsys):
    assert facts(capsys, "gfocal_tiny")["weights"] == "none published in this version"


def test_a_directory(capsys, tmp_path):
    model = create_model("gfocal_tiny", label_names=["a", "b"], fpn_channels=16, head_width=16, head_depth=1)
    model.teaching = Teaching("vlr")
    save_pretrained(model, tmp_path / "m")
    (tmp_path / "m" / "model.safetensors").unlink()  # the description alone is read
    for name in (str(tmp_path / "m"), f"local-dir:{tmp_path / 'm'}"):
        shown = facts(capsys, name)
        assert shown["model"] == "gfocal_tiny" and shown["classes"] == "2 (a, b)"
        count = sum(p.numel() for p in model.parameters())
        assert shown["parameters"].startswith(f"{count / 1e6:.2f} M")
    (tmp_path / "run.v2").mkdir()
    (tmp_path / "m").rename(tmp_path / "run.v2" / "model")
    assert main(["info", str(tmp_path / "run.v2")]) == 2
    assert f"Did you mean '{tmp_path / 'run.v2' / 'model'}'?" in capsys.readouterr().err


def test_errors(capsys, tmp_path):
    assert main(["info", "gfl_r50"]) == 2
    assert "Did you mean 'gfocal_r50'?" in capsys.readouterr().err
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "bert"}))
    assert main(["info", str(tmp_path)]) == 2
    assert '"bert", not "ld_hub"' in capsys.readouterr().err
