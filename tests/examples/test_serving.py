"""The servers of examples/serving: the runtime's own detections, several requests in a run, and refusals."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import importlib.util
import io
import json
import os
import socket
import struct
import subprocess
import sys
import threading
import time
import types
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import ModuleType
from typing import Any
from unittest import mock

import numpy as np
import pytest
from PIL import Image

from ld_hub.export.formats import ExportPlan
from ld_hub.runtime import Detector, ExportedError
from tests.export.conftest import Converted, gfocal  # noqa: F401  # a fixture
from tests.export.test_exports import pictures

FOLDER = Path(__file__).parents[2] / "examples" / "serving"
Ask = Any  # a function: body, query and headers to status and content; ``place`` is its host and port


def example(name: str) -> ModuleType:
    return _module(f"serving_{name}", FOLDER / f"{name}.py")


def _module(name: str, file: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, file)
    assert spec is not None and spec.loader is not None
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def exported(gfocal: Converted, tmp_path_factory: pytest.TempPathFactory) -> Path:  # noqa: F811
    return gfocal.write(tmp_path_factory.mktemp("serving") / "exported", ExportPlan())


@pytest.fixture(scope="module")
def pixels(gfocal: Converted, tmp_path_factory: pytest.TempPathFactory) -> Path:  # noqa: F811
    return gfocal.write(tmp_path_factory.mktemp("serving") / "pixels", ExportPlan(with_preprocessing=True))


def png(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


@contextlib.contextmanager
def serving(detector: Detector, batch_size: int = 8, queue: type = asyncio.Queue) -> Iterator[Ask]:
    """The real server on a free port, and a function that asks it."""
    uvicorn = pytest.importorskip("uvicorn")
    pytest.importorskip("fastapi")
    place = socket.create_server(("127.0.0.1", 0), backlog=128)
    with mock.patch.object(asyncio, "Queue", queue):
        app = example("server").make_app(detector, batch_size)
    server = uvicorn.Server(uvicorn.Config(app, log_level="critical"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [place]}, daemon=True)
    thread.start()

    def ask(body: Any, query: str = "", path: str = "/detect", **headers: str) -> tuple[int, Any]:
        connection = http.client.HTTPConnection(*place.getsockname(), timeout=60)
        with contextlib.closing(connection):
            connection.request("GET" if body is None else "POST", path + query, body, {**headers})
            answer = connection.getresponse()
            content = answer.read()
            json_given = "json" in answer.getheader("content-type", "")
            return answer.status, json.loads(content) if json_given else content.decode()

    ask.place = place.getsockname()
    try:
        yield ask
    finally:
        server.should_exit = True
        thread.join(30)
        place.close()


def assert_same(answer: list[dict[str, Any]], image: Image.Image, detector: Detector, threshold: float) -> None:
    found = detector.predict(image, threshold=threshold)
    assert [each["label"] for each in answer] == found.names
    np.testing.assert_allclose([each["score"] for each in answer], found.scores, rtol=1e-5)
    np.testing.assert_allclose(np.reshape([each["box"] for each in answer], (-1, 4)), found.boxes, rtol=1e-4, atol=1e-3)


def test_what_is_found_is_what_the_runtime_finds(exported: Path) -> None:
    detector = Detector(exported)
    image = pictures()[0]
    turned = Image.Exif()
    turned[0x0112] = 6  # to be turned by a quarter
    clear = image.convert("RGBA")
    clear.putalpha(Image.linear_gradient("L").resize(image.size))
    with serving(detector) as ask:
        assert ask(None, path="/health") == (200, {"model": "gfocal", "labels": ["cat", "dog", "cow"]})
        for content in (png(image), png(image, "JPEG", exif=turned), png(clear), png(image.convert("L"))):
            opened = Image.open(io.BytesIO(content))
            status, answer = ask(content, "?threshold=0.1")
            assert status == 200 and len(answer) > 4
            assert_same(answer, opened, detector, 0.1)
        assert len(ask(png(image), "?threshold=0.6")[1]) < len(ask(png(image))[1])


def test_the_server_is_short_and_imports_no_torch() -> None:
    pytest.importorskip("fastapi")
    assert (FOLDER / "server.py").read_text().count("\n") <= 60
    words = "import sys, server; print(sorted({'torch', 'huggingface_hub', 'ld_hub'} & set(sys.modules)))"
    place = os.pathsep.join((str(FOLDER), str(FOLDER.parents[1])))
    done = subprocess.run(
        [sys.executable, "-c", words],
        env={**os.environ, "PYTHONPATH": place},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "['ld_hub']\n"


def test_requests_at_one_time_share_a_run(exported: Path) -> None:
    images = [Image.fromarray(np.roll(np.asarray(pictures()[0]), 7 * k, axis=1)) for k in range(12)]
    detector, alone = Detector(exported), Detector(exported)
    run, sizes, begun, all_wait = detector.run, [], threading.Event(), threading.Event()
    put: list[object] = []

    class Watched(asyncio.Queue):
        def put_nowait(self, item: object) -> None:
            super().put_nowait(item)
            put.append(item)
            if len(put) == len(images):
                all_wait.set()

    def held(inputs: dict[str, Any]) -> Any:
        sizes.append(len(inputs["images"]))
        begun.set()
        assert all_wait.wait(60)
        return run(inputs)

    detector.run = held
    with serving(detector, 4, Watched) as ask, ThreadPoolExecutor(len(images)) as clients:
        asked = [clients.submit(ask, png(images[0]), "?threshold=0.1")]
        assert begun.wait(60)
        asked += [clients.submit(ask, png(image), "?threshold=0.1") for image in images[1:]]
        answers = [each.result() for each in asked]
    assert sizes == [1, 4, 4, 3]
    for (status, answer), image in zip(answers, images, strict=True):
        assert status == 200 and len(answer) > 4
        assert_same(answer, image, alone, 0.1)


def test_what_is_no_image_is_refused_and_the_server_goes_on(exported: Path) -> None:
    detector = Detector(exported)
    good = png(pictures()[0])
    size = struct.pack(">II", 60_000, 60_000)
    head = b"IHDR" + size + good[24:29]
    bomb = good[:12] + head + struct.pack(">I", zlib.crc32(head)) + good[33:]
    refused = {
        "cannot identify": b"no image",
        "decompression bomb": bomb,
        "truncated": good[: len(good) // 2],
        "gif": png(pictures()[0], "GIF"),
    }
    with serving(detector) as ask:
        for words, content in refused.items():
            status, answer = ask(content)
            assert status == 400 and answer["detail"].startswith("No image that can be read: ")
            assert words in answer["detail"] or words == "gif"
        for body, headers in ((good, {"Content-Length": "20000001"}), (iter([good]), {}), (b"", {})):
            status, answer = ask(body, **headers)
            assert status == 413 and "1 to 20,000,000 bytes" in answer["detail"]
        assert ask(good, "?threshold=much")[0] == 422
        run = detector.run
        detector.run = lambda inputs: 1 / 0
        assert ask(good)[0] == 500
        detector.run = run
        assert ask(good)[0] == 200


def test_the_load_counts_every_request(exported: Path, tmp_path: Path) -> None:
    detector, sizes = Detector(exported), []
    run = detector.run
    detector.run = lambda inputs: (sizes.append(len(inputs["images"])), run(inputs))[1]
    pictures()[0].save(tmp_path / "0.png")
    load = example("load")
    with serving(detector) as ask:
        seen = load.measure(ask.place, [load.plain(tmp_path / "0.png")], clients=3, seconds=0.3)
        assert sum(sizes) == seen.requests + 3  # one of each before the clock starts
        assert seen.clients == 3 and 0 < seen.p50_ms <= seen.p95_ms
        assert seen.requests / 3 < seen.requests_per_second < seen.requests / 0.3
        with pytest.raises(SystemExit, match=r"/detect: 400 .*No image"):
            load.measure(ask.place, [load.Request("/detect", b"no image", {})], clients=3, seconds=0.3)


@pytest.mark.parametrize("python", [False, True])
def test_the_repository_of_triton_is_one(exported: Path, pixels: Path, python: bool, tmp_path: Path) -> None:
    """Read by Triton's own description of the file, in its package of clients."""
    found = importlib.util.find_spec("tritonclient")
    if found is None or found.origin is None:
        pytest.skip("tritonclient is not installed")
    from google.protobuf import text_format

    description = _module("model_config", Path(found.origin).parent / "grpc" / "model_config_pb2.py")
    for directory, inputs in (
        (pixels, [("pixels", "TYPE_UINT8", [-1, -1, 3])]),
        (exported, [("images", "TYPE_FP32", [3, -1, -1]), ("image_sizes", "TYPE_INT64", [2])]),
    ):
        out = example("triton").write_repository(directory, tmp_path / directory.name, python=python, batch_size=4)
        config = text_format.Parse((out / "detector/config.pbtxt").read_text(), description.ModelConfig())
        kinds = description.DataType.Name
        assert [(each.name, kinds(each.data_type), list(each.dims)) for each in config.input] == inputs
        assert [(each.name, kinds(each.data_type), list(each.dims)) for each in config.output] == [
            ("boxes", "TYPE_FP32", [-1, 4]),
            ("scores", "TYPE_FP32", [-1]),
            ("labels", "TYPE_INT64", [-1]),
        ]
        assert (config.name, config.max_batch_size, config.HasField("dynamic_batching")) == ("detector", 4, True)
        assert config.backend == ("python" if python else "onnxruntime")
        assert (out / "detector/1/model.onnx").read_bytes() == (directory / "model.onnx").read_bytes()
        assert (out / "detector/1/model.py").is_file() == python


def test_rows_are_not_given_to_triton(gfocal: Converted, tmp_path: Path) -> None:  # noqa: F811
    place = gfocal.write(tmp_path / "rows", ExportPlan(no_nms=True))
    with pytest.raises(ExportedError, match="export without --no_nms"):
        example("triton").write_repository(place, tmp_path / "models")
    assert not (tmp_path / "models").exists()


def test_the_python_backend_runs_requests_together(
    pixels: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    backend = types.ModuleType("triton_python_backend_utils")
    backend.get_input_tensor_by_name = lambda request, name: request[name]
    backend.Tensor = types.SimpleNamespace(from_dlpack=lambda name, array: (name, array))
    backend.InferenceResponse = dict
    monkeypatch.setitem(sys.modules, backend.__name__, backend)
    model = example("triton_model").TritonPythonModel()
    out = example("triton").write_repository(pixels, tmp_path, python=True)
    model.initialize({"model_repository": str(out / "detector"), "model_version": "1"})
    images = np.stack([np.roll(np.asarray(pictures()[0]), 9 * k, axis=0) for k in range(4)])
    run, sizes = model.session.run, []
    model.session = mock.Mock(wraps=model.session)
    model.session.run = lambda names, inputs: (sizes.append(len(inputs["pixels"])), run(names, inputs))[1]
    responses = model.execute([{"pixels": images[:1]}, {"pixels": images[1:3]}, {"pixels": images[3:]}])
    assert sizes == [4] and [len(each["boxes"]) for each in responses] == [1, 2, 1]
    check_triton(np.concatenate([each["scores"] for each in responses]), pixels, images)


def check_triton(scores: np.ndarray, directory: Path, images: np.ndarray) -> None:
    """Scores of Triton's outputs, padded with zeros, are those of the runtime."""
    for row, found in zip(scores, Detector(directory).predict(list(images)), strict=True):
        assert len(found) > 4
        np.testing.assert_allclose(row[row > 0], found.scores, rtol=1e-5)


def connected(port: int) -> http.client.HTTPConnection:
    """A connection to a server that says it has started a moment before it listens."""
    connection, end = http.client.HTTPConnection("127.0.0.1", port, timeout=60), time.monotonic() + 30
    while True:
        try:
            connection.connect()
        except ConnectionRefusedError:
            if time.monotonic() > end:
                raise
        else:
            return connection


@pytest.mark.slow
def test_triton_itself(pixels: Path, tmp_path: Path) -> None:
    """The server in the wheel of nvidia-pytriton, started as README.md says."""
    if importlib.util.find_spec("pytriton") is None:
        pytest.skip("nvidia-pytriton is not installed")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    words = ("triton.py", pixels, "--out", tmp_path / "models", "--python", "--serve", "--port", port)
    server = subprocess.Popen([sys.executable, *map(str, words)], cwd=FOLDER, stderr=subprocess.PIPE, text=True)
    try:
        said = next(line for line in server.stderr if "Started HTTPService" in line)
        assert str(port) in said
        load, image = example("load"), pictures()[0]
        image.save(tmp_path / "0.png")
        with contextlib.closing(connected(port)) as connection:
            request = load.tensor(tmp_path / "0.png")
            connection.request("POST", request.path, request.body, request.headers)
            answer = connection.getresponse()
            content = answer.read()
            length = int(answer.getheader("Inference-Header-Content-Length"))
        outputs = json.loads(content[:length])["outputs"]
        assert [each["name"] for each in outputs] == ["boxes", "scores", "labels"]
        start = length + outputs[0]["parameters"]["binary_data_size"]
        size = outputs[1]["parameters"]["binary_data_size"]
        scores = np.frombuffer(content[start : start + size], np.float32).reshape(outputs[1]["shape"])
        check_triton(scores, pixels, np.asarray(image)[None])
    finally:
        server.terminate()
        server.wait(60)
