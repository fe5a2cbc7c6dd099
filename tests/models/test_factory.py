from __future__ import annotations

from pathlib import Path

import pytest
import timm
import torch

import ld_hub
from ld_hub.errors import CheckpointError, ConfigError, HubError, MissingFileError, UnknownNameError
from ld_hub.models import names
from ld_hub.models.checkpoints.pretrained import save_pretrained
from ld_hub.models.factory import create_model, model_entrypoint
from ld_hub.models.names import get_pretrained_cfg, is_model, list_models, list_modules, list_pretrained
from ld_hub.registry import MODELS, ModelEntry, PretrainedCfg

TINY = {"fpn_channels": 16, "head_width": 16, "head_depth": 1}


def on_meta(name: str, **arguments):
    with torch.device("meta"):
        return create_model(name, **arguments)


@pytest.fixture
def tagged(monkeypatch):
    """Two names in a registry of their own: one with three tags, one without weights."""
    family = MODELS["gfocal_tiny"]
    tags = {
        "soon_coco": PretrainedCfg(),
        "mmdet_1x_coco": PretrainedCfg(url="https://example.org/a.pth", ap=40.2),
        "mine_voc": PretrainedCfg(file="/nowhere", num_classes=20),
    }
    entries = {
        "gfocal_x50": ModelEntry("gfocal_x50", "gfocal", family.build, family.config, None, tags),
        "gfocal_x9": ModelEntry("gfocal_x9", "gfocal", family.build, family.config),
        "atss_x9": ModelEntry("atss_x9", "atss", family.build, family.config),
    }
    monkeypatch.setattr(MODELS, "_entries", entries)


def test_every_required_name_is_registered():
    backbones = ("r18", "r34", "r50", "r101", "x101_32x4d")
    wanted = {"gfocal", *(f"gfocal_{backbone}" for backbone in backbones)}
    wanted |= {f"gfocal_{s}_{r}_r101" for s in ("r18", "r34", "r50") for r in ("ld", "vlr")}
    wanted |= {f"gfocal_{b}_ld_{b}" for b in ("r18", "r50", "x101_32x4d")}
    wanted |= {
        f"{f}_{b}{form}" for f in ("atss", "retinanet") for b in ("r18", "r50", "r101") for form in ("", "_bins")
    }
    wanted |= {f"fcos_{b}_caffe{form}" for b in ("r50", "r101") for form in ("", "_bins")}
    wanted |= {f"{f}_r50_{r}_r101" for f in ("atss", "fcos", "retinanet") for r in ("ld", "vlr")}
    assert wanted <= set(list_models())
    assert list_modules() == ["atss", "fcos", "gfocal", "retinanet"]


def test_distilled_names_have_their_students_structure_and_know_the_teacher():
    for name in list_models():
        distilled = MODELS[name].distilled
        if distilled is not None:
            assert is_model(distilled.student) and is_model(distilled.teacher)
            assert MODELS[name].config == MODELS[distilled.student].config
            assert distilled.recipe in ld_hub.list_recipes()
    assert MODELS["gfocal_r18_vlr_r101"].distilled.teacher == "gfocal_r101"


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ({}, ["atss_x9", "gfocal_x9", "gfocal_x50"]),  # natural order: 9 before 50
        ({"filter": "gfocal*"}, ["gfocal_x9", "gfocal_x50"]),
        ({"filter": ["*x50", "atss*"]}, ["atss_x9", "gfocal_x50"]),
        ({"filter": "x50"}, []),  # a filter is a wildcard, not a part of the name
        ({"module": "atss"}, ["atss_x9"]),
        ({"module": ["atss", "gfocal"], "exclude_filters": "*_x9"}, ["gfocal_x50"]),
        ({"pretrained": True}, ["gfocal_x50.mine_voc", "gfocal_x50.mmdet_1x_coco"]),
        ({"pretrained": True, "include_tags": False}, ["gfocal_x50"]),
        (
            {"include_tags": True, "filter": "gfocal_x*"},
            ["gfocal_x9", "gfocal_x50.mine_voc", "gfocal_x50.mmdet_1x_coco", "gfocal_x50.soon_coco"],
        ),
        ({"include_tags": True, "filter": "*.mine*"}, ["gfocal_x50.mine_voc"]),
        (
            {"include_tags": True, "filter": "gfocal*", "exclude_filters": "gfocal_x50"},
            ["gfocal_x9"],
        ),
    ],
)
def test_list_models_has_the_rules_of_timm(tagged, arguments, expected):
    assert list_models(**arguments) == expected


def test_list_models_agrees_with_timm_on_timms_own_names(monkeypatch):
    """The same questions to both registries, over 60 names of timm with their tags."""
    chosen = timm.list_models("resnet*", module="resnet")[:30] + timm.list_models("convnext*")[:30]
    build = MODELS["gfocal"].build
    entries = {}
    for name in chosen:
        tags = {}
        for full in timm.list_models(name, include_tags=True):
            tag = full.partition(".")[2]
            if tag:
                tags[tag] = PretrainedCfg(url="there" if timm.get_pretrained_cfg(full).has_weights else "")
        entries[name] = ModelEntry(name, "resnet" if name.startswith("resnet") else "convnext", build, {}, None, tags)
    monkeypatch.setattr(MODELS, "_entries", entries)
    everything = set(chosen)
    for arguments in (
        {"filter": "*"},
        {"filter": "*50*"},
        {"filter": ["resnet1*", "convnext_*"], "exclude_filters": ["*101*", "*_l*"]},
        {"filter": "resnet*", "module": "resnet", "pretrained": True},
        {"filter": "*in12k*", "include_tags": True},
        {"filter": "resnet50.a*", "pretrained": True},
        {"pretrained": True, "include_tags": False},
    ):
        theirs = [name for name in timm.list_models(**arguments) if name.partition(".")[0] in everything]
        assert list_models(**arguments) == theirs, arguments
        assert theirs


def test_pretrained_cfg_of_name_and_tag(tagged):
    assert get_pretrained_cfg("gfocal_x50").ap == 40.2  # the first tag that has weights
    assert get_pretrained_cfg("gfocal_x50.mine_voc").num_classes == 20
    assert get_pretrained_cfg("gfocal_x9") is None
    with pytest.raises(UnknownNameError, match="no published weights"):
        get_pretrained_cfg("gfocal_x9", allow_unregistered=False)
    assert list_pretrained("*voc") == ["gfocal_x50.mine_voc"]
    assert is_model("gfocal_x50.whatever") and not is_model("gfocal_x51")


def test_a_wrong_tag_lists_the_tags(tagged):
    with pytest.raises(UnknownNameError) as caught:
        create_model("gfocal_x50.mmdet_2x_coco", pretrained=True)
    for tag in ("gfocal_x50.mmdet_1x_coco", "gfocal_x50.mine_voc"):
        assert tag in str(caught.value)
    with pytest.raises(UnknownNameError, match="no published weights"):
        create_model("gfocal_x9.some")


def test_weights_that_are_elsewhere_or_nowhere_say_what_to_do(tagged, tmp_path, monkeypatch):
    monkeypatch.setenv("LD_HUB_OFFLINE", "1")
    with pytest.raises(HubError, match=rf"https://example\.org/a\.pth is needed.*belongs at '{tmp_path}/a\.pth'"):
        create_model("gfocal_x50.mmdet_1x_coco", pretrained=True, cache_dir=tmp_path)
    with pytest.raises(
        HubError, match=r"at no address that lasts.*convert FILE\.pth DIR --model gfocal_x50\.soon_coco"
    ):
        create_model("gfocal_x50.soon_coco", pretrained=True)
    with pytest.raises(HubError, match="checkpoint_path=FILE"):
        create_model("gfocal_x9", pretrained=True)


def test_a_tag_with_a_local_file_loads_it(tmp_path, monkeypatch):
    saved = create_model("gfocal_tiny", num_classes=3, **TINY)
    save_pretrained(saved, tmp_path / "m")
    entry = MODELS["gfocal_tiny"]
    tags = {"mine": PretrainedCfg(file=str(tmp_path / "m"), num_classes=3)}
    replaced = ModelEntry(entry.name, entry.family, entry.build, entry.config, None, tags)
    monkeypatch.setitem(MODELS._entries, "gfocal_tiny", replaced)
    loaded = create_model("gfocal_tiny", pretrained=True)
    assert torch.equal(loaded.head.cls.weight, saved.head.cls.weight)
    assert on_meta("gfocal_tiny.mine").config.num_classes == 3  # as in timm, the tag's classes without its weights
    assert on_meta("gfocal_tiny").config.num_classes == 80


@pytest.mark.parametrize(
    ("name", "right"),
    [
        ("gfl_r50", "'gfocal_r50'"),
        ("gfocal_resnet50", "'gfocal_r50'"),
        ("GFocal-R50", "'gfocal_r50'"),
        ("gfocal-resnet-101", "'gfocal_r101'"),
        ("gfl_x101_32x4d", "'gfocal_x101_32x4d'"),
        ("gfocal_resnext101_32x4d", "'gfocal_x101_32x4d'"),
        ("gfl_r50_fpn_1x_coco", "'gfocal_r50'"),
        ("ld_r18_gflv1_r101_fpn_coco_1x", "'gfocal_r18_ld_r101'"),
        ("gfl_r34_ld", "'gfocal_r34_ld_r101' or 'gfocal_r34_ld_r101_dcn'"),
        ("gfocal_convnext_tiny", "create_model('gfocal', backbone='convnext_tiny')"),
        ("gfl_mobilenetv2_100", "create_model('gfocal', backbone='mobilenetv2_100')"),
    ],
)
def test_near_misses_are_answered_with_the_right_name(name, right):
    with pytest.raises(UnknownNameError) as caught:
        create_model(name)
    assert f"Did you mean {right}?" in str(caught.value)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("fcos_r5", "Close matches: fcos_r50"),
        ("gfocal_r5", "Close matches: gfocal_r50"),
        ("yolo", "Families in this version: atss, fcos, gfocal, retinanet"),
        ("", "Unknown model ''"),
    ],
)
def test_other_unknown_names(name, words):
    with pytest.raises(UnknownNameError, match="Unknown model") as caught:
        create_model(name)
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("org/name/more", "hf-hub:org/name/more"),
        ("./nowhere", "local-dir:PATH"),
        ("s3:bucket", "Unknown source 's3:'"),
        ("hf-hub:", "Nothing follows"),
        ("local-dir:/no/such/place", "no directory '/no/such/place'"),
    ],
)
def test_names_that_look_like_places(name, words):
    with pytest.raises(ConfigError) as caught:
        create_model(name)
    assert words in str(caught.value)


def test_two_words_are_a_repository_unless_the_first_is_a_directory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert names.parse_source("org/name.x@v1") == ("hf-hub", "org/name.x@v1")
    monkeypatch.setenv("LD_HUB_OFFLINE", "1")
    with pytest.raises(HubError, match=r"config\.json of 'org/name' is not in the cache"):
        create_model("org/name", cache_dir=tmp_path / "cache")
    (tmp_path / "org").mkdir()
    with pytest.raises(ConfigError, match="'org/name' is neither a registered model nor a directory"):
        create_model("org/name")
    (tmp_path / "org/name").mkdir()
    with pytest.raises(MissingFileError, match="'org/name' is not a model directory"):
        create_model("org/name")


def test_source_is_split_from_place():
    assert names.parse_source("hf_hub:org/name@v1") == ("hf-hub", "org/name@v1")
    assert names.parse_source("local-dir:C:\\models\\a:b") == ("local-dir", "C:\\models\\a:b")
    assert names.parse_source("gfocal_r50.mmdet") == ("", "gfocal_r50.mmdet")


def test_structure_arguments_reach_the_model():
    model = on_meta(
        "gfocal",
        backbone="r18",
        num_classes=7,
        in_chans=1,
        reg_max=8,
        anchor_scale=4.0,
        fpn_channels=32,
        head_width=48,
        head_depth=2,
        frozen_stages=1,
    )
    assert model.backbone.body.conv1.weight.shape == (64, 1, 7, 7)
    assert model.head.cls.weight.shape == (7, 48, 3, 3)
    assert model.head.box.weight.shape == (4 * 9, 48, 3, 3)
    assert len(model.neck.lateral_convs) == 3 and model.neck.fpn_convs[0].weight.shape == (32, 32, 3, 3)
    assert len(model.head.cls_tower) == 2
    assert not model.backbone.body.layer1[0].conv1.weight.requires_grad
    assert model.backbone.body.layer2[0].conv1.weight.requires_grad
    narrow = model.make_priors(64, 64, "cpu").anchors[0]
    assert float(narrow[2] - narrow[0]) == 4.0 * 8


def test_unknown_arguments_name_the_close_one_and_all_others():
    with pytest.raises(ConfigError) as caught:
        create_model("gfocal_tiny", reg_maxx=8)
    assert "'reg_maxx'" in str(caught.value) and "Close matches: reg_max" in str(caught.value)
    assert "anchor_scale, backbone, box_loss" in str(caught.value)
    with pytest.raises(ConfigError, match="head_depth is 'two'"):
        create_model("gfocal_tiny", head_depth="two")


def test_classes_are_counted_from_any_argument_and_must_agree():
    model = on_meta("gfocal_tiny", label_names=["cat", "dog"], category_ids=[3, 9])
    assert (model.config.num_classes, model.label_names, model.category_ids) == (2, ("cat", "dog"), (3, 9))
    model = on_meta("gfocal_tiny", num_classes=2)
    assert (model.label_names, model.category_ids) == (("class_0", "class_1"), (0, 1))
    model = on_meta("gfocal_tiny")
    assert model.label_names[:2] == ("person", "bicycle") and model.category_ids[-1] == 90
    with pytest.raises(ConfigError, match="num_classes: 3, label_names: 2"):
        create_model("gfocal_tiny", num_classes=3, label_names=["cat", "dog"])
    with pytest.raises(ConfigError, match="label_names: 2, category_ids: 1"):
        create_model("gfocal_tiny", label_names=["cat", "dog"], category_ids=[1])
    with pytest.raises(ConfigError, match="an id twice"):
        create_model("gfocal_tiny", category_ids=[1, 1])
    with pytest.raises(ConfigError, match="expected a list of names"):
        create_model("gfocal_tiny", label_names="cat")


def test_model_entrypoint_builds_its_model_as_timms_does():
    build = model_entrypoint("gfocal_tiny.any_tag", module_filter="gfocal")
    assert build.__name__ == "gfocal_tiny"
    with torch.device("meta"):
        model = build(num_classes=4, **TINY)
    assert model.name == "gfocal_tiny" and model.config.num_classes == 4
    with pytest.raises(UnknownNameError, match="belongs to the family 'gfocal'"):
        model_entrypoint("gfocal_tiny", module_filter="atss")


def test_no_download_unless_asked(monkeypatch):
    """Whatever reaches for the network fails the build; only pretrained_backbone=True may, and names the way out."""
    asked = []

    def refuse(*arguments, **options):
        asked.append((arguments, options))
        raise OSError("no network in this test")

    monkeypatch.setattr("ld_hub.models.timm_features.unreachable", lambda: "")
    monkeypatch.setattr("timm.models._builder.load_state_dict_from_hf", refuse)
    monkeypatch.setattr("timm.models._builder.load_state_dict_from_url", refuse)
    create_model("gfocal_tiny", num_classes=2, **TINY)
    assert asked == []
    with pytest.raises(CheckpointError, match="backbone_checkpoint=FILE"):
        create_model("gfocal_tiny", num_classes=2, pretrained_backbone=True, cache_dir="/the/cache", **TINY)
    assert asked and asked[0][1]["cache_dir"] == "/the/cache"


def test_full_weights_need_no_backbone_weights(tmp_path, monkeypatch):
    saved = create_model("gfocal_tiny", num_classes=2, **TINY)
    save_pretrained(saved, tmp_path / "m")

    def refuse(*arguments, **options):
        raise AssertionError("the backbone's weights were fetched")

    monkeypatch.setattr("timm.models._builder.load_state_dict_from_hf", refuse)
    for model in (
        create_model(tmp_path / "m", pretrained_backbone=True),
        create_model(f"local-dir:{tmp_path / 'm'}", pretrained=True, pretrained_backbone=True),
        create_model(
            "gfocal_tiny",
            num_classes=2,
            pretrained_backbone=True,
            checkpoint_path=tmp_path / "m" / "model.safetensors",
            **TINY,
        ),
    ):
        assert torch.equal(model.head.box.weight, saved.head.box.weight)
        assert not model.training


def test_local_dir_as_in_timm_and_plain_directory(tmp_path):
    saved = create_model("gfocal_tiny", label_names=["a", "b"], category_ids=[5, 6], anchor_scale=3.0, **TINY)
    place = save_pretrained(saved, tmp_path / "gfocal_model")
    for model in (create_model(str(place)), create_model(f"local-dir:{place}", pretrained=True)):
        assert torch.equal(model.head.cls.weight, saved.head.cls.weight)
        assert (model.label_names, model.category_ids) == (("a", "b"), (5, 6))
        assert model.config == saved.config
    with pytest.warns(UserWarning, match="fresh weights; pretrained=True loads its own"):
        fresh = create_model(f"local-dir:{place}")  # pretrained=False: the architecture alone, as in timm
    assert fresh.config == saved.config and fresh.training
    assert not torch.equal(fresh.head.cls.weight, saved.head.cls.weight)
    with pytest.warns(UserWarning, match="fresh weights"):
        other = create_model(f"local-dir:{place}", num_classes=5)
    assert other.config.num_classes == 5 and other.label_names[0] == "class_0"


@pytest.mark.parametrize("kind", [str, lambda place: place, lambda place: f"local-dir:{place}"])
def test_a_run_or_another_directory_is_no_model(tmp_path, kind):
    run = tmp_path / "gfl_r50.v2"  # would also pass for a name with a tag
    save_pretrained(create_model("gfocal_tiny", num_classes=2, **TINY), run / "model")
    with pytest.raises(MissingFileError, match="is not a model directory") as caught:
        create_model(kind(run))
    assert f"Did you mean '{run / 'model'}'?" in str(caught.value)
    (run / "config.json").write_text('{"steps": 5}')  # what the trainer writes there
    with pytest.raises(CheckpointError, match="is not the configuration of an ld_hub model") as caught:
        create_model(kind(run))
    assert f"Did you mean '{run / 'model'}'?" in str(caught.value)
    with pytest.raises(MissingFileError, match=r"is not a model directory.*save_pretrained\(DIR\) writes") as caught:
        create_model(kind(tmp_path))
    assert "Did you mean" not in str(caught.value)


def test_other_places_that_are_no_model(tmp_path):
    with pytest.raises(MissingFileError, match="No model directory"):
        create_model(tmp_path / "nowhere")
    (tmp_path / "a.pth").write_bytes(b"")
    with pytest.raises(ConfigError, match="checkpoint_path=FILE"):
        create_model(str(tmp_path / "a.pth"))


def test_a_registered_name_is_not_shadowed_by_a_directory(tmp_path, monkeypatch):
    save_pretrained(create_model("gfocal_tiny", num_classes=2, **TINY), tmp_path / "gfocal_tiny")
    monkeypatch.chdir(tmp_path)
    assert on_meta("gfocal_tiny").config.num_classes == 80
    assert create_model(Path("gfocal_tiny")).config.num_classes == 2  # a Path is always a place


def test_checkpoint_of_another_structure_says_where(tmp_path):
    place = save_pretrained(create_model("gfocal_tiny", num_classes=2, **TINY), tmp_path / "m")
    with pytest.raises(CheckpointError, match="wrong shape"):
        create_model("gfocal_tiny", num_classes=2, checkpoint_path=place, fpn_channels=32, head_width=16, head_depth=1)


def test_hub_names_pass_repository_revision_and_cache(tmp_path, monkeypatch):
    saved = create_model("gfocal_tiny", num_classes=2, **TINY)
    save_pretrained(saved, tmp_path / "m")
    calls = []

    def fetch(repo_id, revision=None, **options):
        calls.append((repo_id, revision, options["cache_dir"], options.get("weights", True)))
        return tmp_path / "m"

    monkeypatch.setattr("ld_hub.models.factory.download", fetch)
    (tmp_path / "org" / "name").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)  # a directory of that name is not what hf-hub: asks for
    model = create_model("hf-hub:org/name@v1", pretrained=True, cache_dir=tmp_path / "cache")
    assert torch.equal(model.head.cls.weight, saved.head.cls.weight)
    with pytest.warns(UserWarning, match="fresh weights"):
        create_model("hf-hub:org/name")
    assert calls == [("org/name", "v1", tmp_path / "cache", True), ("org/name", None, None, False)]
