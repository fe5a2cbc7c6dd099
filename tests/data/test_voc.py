from __future__ import annotations

import json
import warnings
from pathlib import Path

import pytest

from ld_hub.data import doctor, load_data, load_voc
from ld_hub.data.voc import find_sets
from ld_hub.errors import ConfigError, DataError, HubError, LdHubError, MissingFileError
from ld_hub.structures.class_names import VOC_LABELS
from tests.support.directories import voc_devkit, voc_image, voc_list, voc_year


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    place = tmp_path / "cache"
    monkeypatch.setenv("LD_HUB_CACHE", str(place))
    return place


@pytest.fixture
def devkit(tmp_path):
    return voc_devkit(tmp_path / "VOCdevkit")


def stems(dataset):
    return [Path(path).stem for path in dataset.rows["path"]]


A, B = [f"2007_{k:06d}" for k in range(1, 7)], [f"2012_{k:06d}" for k in range(1, 4)]


@pytest.mark.parametrize(
    ("split", "expected", "protocol"),
    [
        ("train", A[:3] + B, "voc12"),  # the paper's 07+12
        ("val", A[3:], "voc07"),
        ("test", A[3:], "voc07"),
        ("trainval", A[:3] + B, "voc12"),
        ("trainval2007", A[:3], "voc07"),
        ("train2012", B[:2], "voc12"),
        ("val2012", B[2:], "voc12"),
    ],
)
def test_splits_of_a_devkit(devkit, split, expected, protocol):
    found = load_data(devkit, split)
    assert (stems(found), found.protocol) == (expected, protocol)
    assert found.rows["image_id"][:] == list(range(1, len(expected) + 1))
    assert load_data(devkit.parent, split).rows["path"][:] == found.rows["path"][:]  # the directory that holds it


@pytest.mark.parametrize(
    ("lists", "expected"),  # images of train, val, test
    [
        ({"trainval": A[:3], "train": A[:2], "val": A[2:3], "test": A[3:]}, (A[:3], A[3:], A[3:])),
        ({"trainval": A[:3], "train": A[:2], "val": A[2:3]}, (A[:2], A[2:3], A[2:3])),
        ({"train": A[:2], "val": A[2:3], "test": A[3:]}, (A[:2], A[2:3], A[3:])),
        ({"train": A[:2], "test": A[3:]}, (A[:2], A[3:], A[3:])),
        ({"trainval": A[:3]}, (A[:3], None, None)),
    ],
)
def test_no_image_is_in_training_and_evaluation(tmp_path, lists, expected):
    folder = voc_year(tmp_path / "VOC2007", test=True)
    for file in (folder / "ImageSets/Main").iterdir():
        file.unlink()
    for part, names in lists.items():
        voc_list(folder, part, *names)
    for split, wanted in zip(("train", "val", "test"), expected, strict=True):
        if wanted is None:
            with pytest.raises(MissingFileError, match=rf"No list of the split '{split}'.*Found .*trainval\.txt"):
                load_data(folder, split)
        else:
            assert stems(load_data(folder, split)) == wanted


def test_without_the_test_images_2012_val_is_held_out(devkit):
    (devkit / "VOC2007/ImageSets/Main/test.txt").unlink()
    assert stems(load_data(devkit, "val")) == B[2:] == stems(load_data(devkit, "test"))
    assert stems(load_data(devkit, "train")) == A[:3] + B[:2]


def test_boxes_are_whole_pixels_from_one_with_both_corners_inside(devkit):
    found = load_voc(devkit, "test")
    assert found.label_names == VOC_LABELS and found.category_ids == tuple(range(1, 21))
    first, second = found.rows[0], found.rows[1]
    assert first["boxes"] == [[0, 0, 60, 40]]  # (1, 1) to (60, 40) is the whole image; the person is difficult
    assert second["boxes"] == [[0, 0, 60, 40], [8, 5, 24, 30]]
    assert [VOC_LABELS[label] for label in second["labels"]] == ["dog", "person"]
    assert found.dropped == {"flagged ignore": 1}
    assert Path(first["path"]) == devkit / "VOC2007/JPEGImages/2007_000004.jpg"


def test_difficult_objects_are_no_fault_and_reach_the_evaluation(devkit):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = load_voc(devkit, "test", on_bad_box="error")
    content = json.loads(Path(found.annotation_file).read_text())
    assert [row["ignore"] for row in content["annotations"]] == [0, 1, 0, 0, 0, 0]
    assert [row["bbox"] for row in content["annotations"]][1] == [7, 5, 16, 25]
    assert any("difficult: 1." in note for note in doctor(devkit, "test").notes)


def test_the_cached_file_says_by_its_name_what_it_holds(devkit, cache, tmp_path):
    first = Path(load_data(devkit, "val").annotation_file)
    assert first.parent == cache / "datasets" and first.name.startswith("VOCdevkit-")
    written = first.stat().st_mtime_ns
    assert Path(load_data(devkit, "val").annotation_file) == first and first.stat().st_mtime_ns == written
    other = voc_devkit(tmp_path / "elsewhere" / "VOCdevkit")
    assert Path(load_data(other, "val").annotation_file).name == first.name  # paths in it are relative
    xml = other / "VOC2007/Annotations" / f"{A[4]}.xml"
    xml.write_text(xml.read_text().replace("<xmin>9<", "<xmin>10<"))
    assert Path(load_data(other, "val").annotation_file).name != first.name


def test_a_cache_that_cannot_be_written(devkit, tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("LD_HUB_CACHE", str(tmp_path / "file"))
    with pytest.raises(HubError, match=r"file/datasets' cannot be written .*LD_HUB_CACHE=DIR"):
        load_data(devkit, "val")


def test_classes_are_vocs_or_all_names_of_the_directory(devkit, tmp_path):
    own = tmp_path / "own"
    voc_image(own, "a", [("zebra", 0, (2, 2, 9, 9))])
    voc_image(own, "b", [("ant", 0, (2, 2, 9, 9))])
    voc_list(own, "train", "a")
    voc_list(own, "val", "b")
    assert load_data(own, "train").label_names == load_data(own, "val").label_names == ("ant", "zebra")
    assert load_data(own, "val").protocol == "voc12"
    (own / "classes.txt").write_text("zebra\nant\nbee\n")
    assert load_data(own, "val").label_names == ("zebra", "ant", "bee")
    (own / "classes.txt").write_text("zebra\n")
    with pytest.raises(DataError, match=r"Annotations/b\.xml has the class 'ant', classes\.txt has not"):
        load_data(own, "val")
    (own / "classes.txt").write_text("zebra\nzebra\n")
    with pytest.raises(DataError, match=r"classes\.txt gives the class 'zebra' twice"):
        load_data(own, "val")


def test_a_size_that_is_missing_is_the_images(tmp_path):
    voc_image(tmp_path, "a", [("cat", 0, (1, 1, 70, 30))], (70, 30), with_size=False)
    xml = voc_image(tmp_path, "b", [("cat", 0, (1, 1, 70, 30))], (70, 30))
    xml.write_text(xml.read_text().replace("<width>70<", "<width>0<"))
    voc_list(tmp_path, "train", "a", "b")
    found = load_data(tmp_path)
    assert found.sizes.tolist() == [[30, 70], [30, 70]] and found.rows[1]["boxes"] == [[0, 0, 70, 30]]


def test_images_of_other_kinds_and_lists_with_flags(tmp_path):
    voc_image(tmp_path, "a b", [("cat", 0, (1, 1, 30, 30))])
    (tmp_path / "JPEGImages/a b.jpg").rename(tmp_path / "JPEGImages/a b.PNG")
    voc_image(tmp_path, "c 1", [("cat", 0, (1, 1, 30, 30))])
    voc_list(tmp_path, "train", "a b -1", "c 1")
    assert [Path(path).name for path in load_data(tmp_path).rows["path"]] == ["a b.PNG", "c 1.jpg"]


def spoil(old, new):
    return lambda xml: xml.write_text(xml.read_text().replace(old, new, 1))


BOMB = """<!DOCTYPE a [<!ENTITY b "dog"><!ENTITY c "&b;&b;&b;&b;&b;&b;&b;&b;">]><annotation>&c;</annotation>"""
FAULTS = {  # how to spoil 2007_000005.xml, and the words of the error
    "outside": (spoil("<xmax>60<", "<xmax>600<"),
                r"object 1 \('dog'\) has the box \(1, 1\) to \(600, 40\), outside its image of 60 x 40 px"),
    "below the image": (spoil("<ymax>40<", "<ymax>42<"), "outside its image"),
    "below zero": (spoil("<ymin>1<", "<ymin>-7<"), r"outside its image"),
    "swapped": (spoil("<xmin>1<", "<xmin>61<"), r"object 1 \('dog'\) has the box .* xmax and ymax are the larger"),
    "no number": (spoil("<ymin>6<", "<ymin>six<"), r"object 2 \('person'\) has ymin = 'six', expected a number"),
    "not finite": (spoil("<ymin>6<", "<ymin>nan<"), r"has ymin = 'nan', expected a number"),
    "mixed tags": (spoil("bndbox", "box"), "is not valid XML"),
    "no bndbox": (lambda xml: xml.write_text(xml.read_text().replace("bndbox", "box")), "object 1 .* has no bndbox"),
    "no name": (spoil("<name>dog</name>", ""), "object 1 has no name"),
    "difficult": (spoil("<difficult>0<", "<difficult>maybe<"), "has difficult = 'maybe', expected 0 or 1"),
    "size": (spoil("<width>60<", "<width>60.5<"), r"the size is '60\.5' x '40', expected whole numbers"),
    "cut short": (spoil("</annotation>", ""), "is not valid XML"),
    "empty": (lambda xml: xml.write_bytes(b""), "is not valid XML"),
    "binary": (lambda xml: xml.write_bytes(b"\xff\x00\xfe"), "is not valid XML"),
    "document type": (lambda xml: xml.write_text(BOMB), "has a DOCTYPE"),
    "hidden document type": (lambda xml: xml.write_text(BOMB, encoding="utf-16"), "has a DOCTYPE"),
    "missing": (Path.unlink, "does not exist"),
    "no annotation": (lambda xml: xml.write_text("<html><body/></html>"), "has the root <html>, expected VOC's"),
    "a directory": (lambda xml: (xml.unlink(), xml.mkdir()), "cannot be read"),
}  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_one_error_with_the_xml(devkit, fault, capsys):
    from ld_hub.cli.main import main

    change, words = FAULTS[fault]
    change(devkit / f"VOC2007/Annotations/{A[4]}.xml")
    with pytest.raises(LdHubError, match=rf"VOC2007/Annotations/{A[4]}\.xml.*{words}") as caught:
        load_data(devkit, "val")
    assert isinstance(caught.value, MissingFileError) == (fault == "missing")
    assert str(devkit) in str(caught.value) and "\n" not in str(caught.value)
    report = doctor(devkit, "val")
    assert len(report.problems) == 1 and report.images == 2 and A[4] in report.problems[0].message
    assert main(["data", "doctor", str(devkit), "--split", "val"]) == 1
    assert "1 kind of problems." in capsys.readouterr().out
    assert stems(load_data(devkit, "train")) == A[:3] + B


def test_all_faults_are_in_the_doctors_report(devkit):
    notes = devkit / "VOC2007/Annotations"
    (notes / f"{A[3]}.xml").unlink()
    spoil("<xmax>60<", "<xmax>99<")(notes / f"{A[4]}.xml")
    (devkit / f"VOC2007/JPEGImages/{A[5]}.jpg").unlink()
    kinds = {problem.kind: problem.message for problem in doctor(devkit, "val").problems}
    assert kinds.keys() == {"missing annotations", "boxes outside the image", "missing images"}
    assert f"VOC2007/JPEGImages/{A[5]}.jpg" in kinds["missing images"]
    with pytest.raises(MissingFileError, match="and 2 other kinds of problems"):
        load_data(devkit, "val")


def test_missing_images_are_named(devkit):
    (devkit / f"VOC2007/JPEGImages/{A[4]}.jpg").unlink()
    with pytest.raises(MissingFileError, match=rf"1 of 3 images are not in .*VOC2007/JPEGImages/{A[4]}\.jpg"):
        load_data(devkit, "val")
    assert len(load_data(devkit, "val", check_files=False)) == 3
    xml = devkit / f"VOC2007/Annotations/{A[4]}.xml"
    xml.write_text(xml.read_text().replace("<size>", "<dimensions>").replace("</size>", "</dimensions>"))
    with pytest.raises(MissingFileError, match=rf"{A[4]}\.xml has no size, and No image file"):
        load_data(devkit, "val")


def test_zero_based_files_are_read_and_pointed_out(tmp_path):
    voc_image(tmp_path, "a", [("cat", 0, (0, 0, 59, 39))])
    voc_list(tmp_path, "train", "a")
    assert load_data(tmp_path).rows[0]["boxes"] == [[0, 0, 59, 39]]
    assert any("do these files count from 0?" in note for note in doctor(tmp_path).notes)


def test_an_image_listed_twice(devkit):
    voc_list(devkit / "VOC2007", "test", *A[3:], A[3])
    with pytest.raises(DataError, match=rf"{A[3]}\.xml is listed 2 times"):
        load_data(devkit, "val")


def test_bad_boxes_of_coco_checks_name_the_xml(tmp_path):
    voc_image(tmp_path, "a", [("cat", 0, (60, 10, 60.5, 20)), ("cat", 0, (1, 1, 9, 9))])
    voc_image(tmp_path, "b", [("cat", 0, (61, 10, 61, 20))])  # one px beyond: read, but nothing of it is in the image
    voc_list(tmp_path, "train", "a", "b")
    with pytest.warns(UserWarning, match=r"1 outside the image \(annotation id 3 \(Annotations/b\.xml\)\)"):
        load_data(tmp_path)
    with pytest.raises(DataError, match=r"Annotations/b\.xml"):
        load_data(tmp_path, on_bad_box="error")


def test_byte_order_marks_and_line_ends(devkit):
    (devkit / "classes.txt").write_text("person\ndog\n")
    before = load_data(devkit, "val")
    for file in [*devkit.rglob("*.xml"), *devkit.rglob("*.txt")]:
        file.write_bytes(b"\xef\xbb\xbf" + file.read_bytes().replace(b"\n", b"\r\n"))
    after = load_data(devkit, "val")
    assert after.label_names == before.label_names == ("person", "dog")
    assert after.rows["boxes"] == before.rows["boxes"] and stems(after) == stems(before)


@pytest.mark.parametrize(("content", "words"), [(b"\n\n", "There is no image name in"), (b"\xff\xfe0", "is not text")])
def test_a_list_without_names(devkit, content, words):
    file = devkit / "VOC2007/ImageSets/Main/test.txt"
    (devkit / "VOC2012/ImageSets/Main/val.txt").write_bytes(content)
    (devkit / "VOC2007/ImageSets/Main/trainval.txt").write_bytes(content)
    file.unlink()
    with pytest.raises(DataError, match=words) as caught:
        load_data(devkit, "val")
    assert "VOC2012/ImageSets/Main/val.txt" in str(caught.value)


def test_years(tmp_path):
    for year in ("VOC2008", "VOC2010"):
        voc_year(tmp_path / year, test=False)
    assert [s.prefix for s in find_sets(tmp_path)] == ["VOC2010/"]
    voc_year(tmp_path / "VOC2007", test=False)
    assert [s.prefix for s in find_sets(tmp_path)] == ["VOC2007/"]


def test_directories_that_are_not_there(devkit, tmp_path):
    with pytest.raises(MissingFileError, match="does not exist"):
        load_voc(tmp_path / "none")
    with pytest.raises(ConfigError, match="plain name"):
        load_data(devkit, "../train")
    with pytest.raises(MissingFileError, match=r"split 'nonsense'.*Found VOC2007/ImageSets/Main/test\.txt"):
        load_data(devkit, "nonsense")
    (tmp_path / "empty").mkdir()
    with pytest.raises(MissingFileError, match=r"No list of the split 'train'.*Annotations/"):
        load_voc(tmp_path / "empty")
    voc_image(tmp_path / "bare", "a")
    voc_list(tmp_path / "bare", "train", "a")
    with pytest.raises(DataError, match="no XML names a class"):
        load_data(tmp_path / "bare")


@pytest.mark.parametrize("line", ["{}.jpg", "JPEGImages/{}.jpg", "Annotations/{}.xml", "C:\\voc\\{}.jpg 1"])
def test_lists_of_files_in_place_of_names(tmp_path, line):
    for stem in ("x.1", "y"):
        voc_image(tmp_path / "v", stem, [("cat", 0, (1, 1, 9, 9))])
    voc_list(tmp_path / "v", "train", line.format("x.1"))
    voc_list(tmp_path / "v", "val", line.format("y"))
    assert [Path(p).name for p in load_data(tmp_path / "v", "train").rows["path"]] == ["x.1.jpg"]
    assert [Path(p).name for p in load_data(tmp_path / "v", "val").rows["path"]] == ["y.jpg"]
