"""The page of an export: its files, what is refused, and in Chromium the boxes that `ld_hub.runtime` finds.

The tests in Chromium are slow ones. They take ``pip install playwright``, Chromium (the system's, or what
``playwright install chromium`` fetches), and onnxruntime-web in this library's cache or npm.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tarfile
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from ld_hub.cli.main import main
from ld_hub.errors import ConfigError
from ld_hub.export.formats import ExportPlan
from ld_hub.export.web_page import PACKAGE, RUNTIME_FILES, find_runtime
from ld_hub.runtime import Detector, ExportedError, Found
from tests.export.conftest import Converted, detector
from tests.export.test_exports import pictures

PAGE = {"index.html", "page.css", "page.js", "detector.js", "onnxruntime-web.LICENSE"}
FROM_NPM = f"`npm pack {PACKAGE}`"


@pytest.fixture(autouse=True)
def cache(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache, but for the tests in Chromium."""
    if "browser" not in request.fixturenames:
        monkeypatch.setenv("LD_HUB_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """An npm package whose files say their names."""
    dist = tmp_path / "package" / "dist"
    dist.mkdir(parents=True)
    for name in (*RUNTIME_FILES, "ort.all.js"):
        (dist / name).write_text(name)
    return dist.parent


def packed(package: Path, archive: Path) -> Path:
    with tarfile.open(archive, "w:gz") as file:
        file.add(package, "package")
    return archive


def typed(*words: str | Path) -> int:
    return main(["export", *map(str, words)])


def test_a_page_is_written_and_its_files_have_sums(package: Path, tmp_path: Path) -> None:
    pytest.importorskip("onnxscript", reason="onnxscript is not installed (extra `export`)")
    pytest.importorskip("onnxruntime", reason="onnxruntime is not installed (extra `export`)")
    detector().save_pretrained(tmp_path / "model")
    place = tmp_path / "e"
    words = (tmp_path / "model", "--out", place, "--size", "96", "96", "--page")
    assert typed(*words, "--onnxruntime_web", package) == 0
    assert {file.name for file in place.iterdir()} == {
        *PAGE,
        *RUNTIME_FILES,
        *("config.json", "model.onnx", "README.md", "SHA256SUMS"),
    }
    for name in RUNTIME_FILES:
        assert (place / name).read_text() == name
    assert "Copyright (c) Microsoft" in (place / "onnxruntime-web.LICENSE").read_text()
    assert "python -m http.server" in (place / "README.md").read_text()
    sha256sum = shutil.which("sha256sum")
    if sha256sum is not None:
        done = subprocess.run([sha256sum, "-c", "SHA256SUMS"], cwd=place, capture_output=True, text=True, check=True)
        assert done.stdout.count(": OK") == len(PAGE) + len(RUNTIME_FILES) + 3
    config = json.loads((place / "config.json").read_text())
    assert config["takes_pixels"] and config["chooses"]  # what the page asks for
    Detector(place)
    (place / "page.js").write_text("")
    with pytest.raises(ExportedError, match=r"page\.js' was changed"):
        Detector(place)


def test_an_archive_is_unpacked_once(package: Path, tmp_path: Path) -> None:
    archive = packed(package, tmp_path / "onnxruntime-web-1.0.0.tgz")
    found = find_runtime(archive)
    assert {file.name: file.read_text() for file in found.iterdir()} == {name: name for name in RUNTIME_FILES}
    assert find_runtime(archive) == found
    for place in (package, package / "dist", package.parent):
        assert find_runtime(place) == package / "dist"


def test_npm_is_asked_once(package: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    packed(package, tmp_path / "made.tgz")
    npm = tmp_path / "bin" / "npm"
    npm.parent.mkdir()
    npm.write_text(f'#!/bin/sh\necho "$@" >> "{tmp_path}/asked"\ncp "{tmp_path}/made.tgz" .\n')
    npm.chmod(0o755)
    monkeypatch.setenv("PATH", f"{npm.parent}:{os.environ['PATH']}")
    found = find_runtime()
    assert (found / RUNTIME_FILES[2]).read_text() == RUNTIME_FILES[2]
    assert find_runtime() == found
    assert [line.split()[:2] for line in (tmp_path / "asked").read_text().splitlines()] == [["pack", PACKAGE]]
    npm.write_text("#!/bin/sh\necho no network >&2\nexit 1\n")
    monkeypatch.setenv("LD_HUB_CACHE", str(tmp_path / "other"))
    with pytest.raises(ConfigError, match=f"could not fetch {PACKAGE}: no network.*{FROM_NPM}"):
        find_runtime()


def test_without_onnxruntime_web_the_command_is_said(
    package: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "which", lambda _: None)
    with pytest.raises(ConfigError, match=f"npm is not installed here.*{FROM_NPM}.*--onnxruntime_web"):
        find_runtime()
    with pytest.raises(ConfigError, match=f"no dist/{RUNTIME_FILES[0]}.*{FROM_NPM}"):
        find_runtime(tmp_path / "nowhere")
    (package / "dist" / RUNTIME_FILES[1]).unlink()
    with pytest.raises(ConfigError, match=f"no dist/{RUNTIME_FILES[1]}"):
        find_runtime(package)
    archive = packed(package, tmp_path / "part.tgz")
    with pytest.raises(ConfigError, match=rf"part\.tgz' is not what {FROM_NPM} writes"):
        find_runtime(archive)
    archive.write_bytes(archive.read_bytes()[:50])
    with pytest.raises(ConfigError, match=rf"part\.tgz' is not what {FROM_NPM} writes"):
        find_runtime(archive)
    assert not list((tmp_path / "cache").rglob("*.*js"))  # no half runtime is kept


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--page", "--to", "openvino"), "runs ONNX programs, not openvino"),
        (("--page", "--no_nms"), "leave out --no_nms"),
        (("--onnxruntime_web", "x"), "add --page"),
    ],
)
def test_what_a_page_cannot_run_is_refused(
    words: tuple[str, ...], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert typed("gfocal_r18", "--out", tmp_path / "e", *words) == 2
    assert said in capsys.readouterr().err


def test_grey_models_have_no_page(package: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="takes 1 band, and a page gives RGB"):
        detector(in_chans=1).export(tmp_path / "e", page=True, onnxruntime_web=package)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Chromium with a camera that shows a test picture."""
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    own = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    flags = ["--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"]
    with playwright.sync_playwright() as running:
        try:
            chromium = running.chromium.launch(executable_path=own, args=flags)
        except playwright.Error as error:
            pytest.skip(f"Chromium does not start: {error}")
        yield chromium
        chromium.close()


@pytest.fixture(scope="module")
def exported(gfocal: Converted, tmp_path_factory: pytest.TempPathFactory) -> Path:
    try:
        runtime = find_runtime()
    except ConfigError as error:
        pytest.skip(str(error))
    plan = ExportPlan(with_preprocessing=True, page=runtime)
    return gfocal.write(tmp_path_factory.mktemp("page") / "e", plan)


@pytest.fixture
def opened(browser: Any, exported: Path, tmp_path: Path) -> Iterator[Any]:
    """The page, loaded; when the test is over, no error stands in the console and nothing came from elsewhere."""
    yield from served_page(browser, exported)


def served_page(browser: Any, directory: Path, whole: bool = True, width: int = 1100) -> Iterator[Any]:
    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(directory)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    page = browser.new_page(viewport={"width": width, "height": 900})
    said, asked = [], []
    page.on("console", lambda message: said.append((message.type, message.text)))
    page.on("worker", lambda worker: worker.on("console", lambda message: said.append((message.type, message.text))))
    page.on("pageerror", lambda error: said.append(("error", str(error))))
    page.on("request", lambda request: asked.append(request.url))
    address = f"http://127.0.0.1:{server.server_port}/"
    try:
        page.goto(address)
        wait(page, "ready", "failed")
        yield page
        assert not whole or [each for each in said if each[0] in ("error", "warning")] == []
        assert not whole or {address + "model.onnx", address + RUNTIME_FILES[2]} <= set(asked)
        assert all(url.startswith((address, f"blob:{address}", "data:")) for url in asked)
    finally:
        page.close()
        server.shutdown()
        server.server_close()


def wait(page: Any, *states: str) -> None:
    page.wait_for_selector(", ".join(f"body[data-state={state}]" for state in states), timeout=60_000)


def boxes_on(page: Any, file: Path) -> list[dict[str, Any]]:
    page.evaluate("document.body.dataset.state = 'asked'")
    page.set_input_files("#file", file)
    wait(page, "done", "failed")
    assert page.text_content("#error") == ""
    found: list[dict[str, Any]] = page.evaluate("window.detections")
    return found


def assert_same(found: list[dict[str, Any]], expected: Found, scores: float = 1e-4, px: float = 1.0) -> None:
    assert len(found) == len(expected) >= 4
    assert [each["name"] for each in found] == expected.names
    np.testing.assert_allclose([each["box"] for each in found], expected.boxes, rtol=0, atol=px)
    np.testing.assert_allclose([each["score"] for each in found], expected.scores, rtol=0, atol=scores)


def saved(directory: Path) -> list[Path]:
    """Pictures: lossless, JPEG, and lying on its side with EXIF's remark that it does."""
    files = [directory / name for name in ("a.png", "b.jpg", "c.jpg")]
    for image, file, turned in zip(pictures(), files, (1, 1, 6), strict=False):
        exif = Image.Exif()
        exif[0x0112] = turned
        image.save(file, exif=exif, quality=95)
    return files


@pytest.mark.slow
def test_boxes_in_the_browser_are_those_of_the_runtime(opened: Any, exported: Path, tmp_path: Path) -> None:
    runtime = Detector(exported)
    for file in saved(tmp_path):
        expected = runtime.predict(file)
        assert isinstance(expected, Found)
        assert_same(boxes_on(opened, file), expected)
        threshold = float(np.median(expected.scores))
        opened.evaluate(
            "(value) => { threshold.value = value; threshold.dispatchEvent(new Event('input')); }", threshold
        )
        least = float(opened.input_value("#threshold"))
        shown = len(expected.filter(least))
        assert 0 < shown < len(expected)
        assert opened.locator("#rows tr").count() == shown
        assert f"{shown} of {len(expected)} boxes" in opened.text_content("#status")
        assert opened.locator("#rows tr").first.text_content().startswith(expected.names[0])


@pytest.mark.slow
def test_large_images_are_reduced_and_boxes_are_px_of_the_file(opened: Any, exported: Path, tmp_path: Path) -> None:
    small = pictures()[0]
    small.resize((6400, 4800), Image.Resampling.NEAREST).save(tmp_path / "large.png")
    expected = Detector(exported).predict(tmp_path / "large.png")
    found = boxes_on(opened, tmp_path / "large.png")
    assert "4096\u00a0×\u00a03072\u00a0px" in opened.text_content("#status")
    assert isinstance(expected, Found)
    for mine, theirs in zip(found[:3], expected, strict=False):
        assert mine["name"] == theirs.label
        assert mine["score"] == pytest.approx(theirs.score, abs=0.02)
        np.testing.assert_allclose(mine["box"], theirs.box, rtol=0, atol=0.01 * 6400)


@pytest.mark.slow
def test_the_camera_is_looked_at_until_it_is_stopped(opened: Any) -> None:
    for _ in range(2):
        opened.click("#camera")
        wait(opened, "done", "failed")
        assert opened.evaluate("window.detections.length") > 0
        assert opened.text_content("#camera") == "Stop camera"
        opened.click("#camera")
        assert opened.text_content("#camera") == "Start camera"
    assert opened.text_content("#error") == ""


@pytest.mark.slow
def test_a_file_that_is_no_image_is_said(opened: Any, tmp_path: Path) -> None:
    (tmp_path / "a.png").write_text("text")
    opened.set_input_files("#file", tmp_path / "a.png")
    opened.wait_for_selector("#error:visible")
    assert "a.png is no image" in opened.text_content("#error")
    boxes_on(opened, saved(tmp_path)[0])
    assert opened.locator("#error").is_hidden()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("model.onnx", None, "model.onnx: the server answered 404"),
        ("model.onnx", "none", "model.onnx cannot be run"),
        ("ort.wasm.min.mjs", None, "ort.wasm.min.mjs did not start"),
        ("ort-wasm-simd-threaded.wasm", None, "ort-wasm-simd-threaded.wasm: the server answered 404"),
        ("config.json", None, "config.json: the server answered 404"),
        ("config.json", "{}", "not one that `ld-hub export` writes"),
        ("config.json", '{"model_type": "ld_hub_exported", "to": "onnx"}', "exported without --page"),
    ],
)
def test_what_is_missing_is_said_on_the_page(
    browser: Any, exported: Path, tmp_path: Path, name: str, text: str | None, said: str
) -> None:
    copy = Path(shutil.copytree(exported, tmp_path / "copy"))
    (copy / name).unlink() if text is None else (copy / name).write_text(text)
    for page in served_page(browser, copy, whole=False):
        assert said in page.text_content("#error")
        assert page.is_disabled("#camera")


@pytest.mark.slow
@pytest.mark.parametrize("width", [1100, 390])
def test_the_page_fits(browser: Any, exported: Path, tmp_path: Path, width: int) -> None:
    for page in served_page(browser, exported, width=width):
        boxes_on(page, saved(tmp_path)[0])
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        for control in ("#choose", "#camera", ".slider"):
            box = page.locator(control).bounding_box()
            assert box["height"] >= 44 and box["x"] >= 0 and box["x"] + box["width"] <= width
        page.screenshot(path=tmp_path / f"{width}.png", full_page=True)
