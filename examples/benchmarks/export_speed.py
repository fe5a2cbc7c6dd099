"""How fast a detector is in torch and as exports, each beside the others in one run: time, size and AP.

    python examples/benchmarks/export_speed.py MODEL... --data DIR [--size 800 1344] [--json FILE]

A MODEL is a name, also FAMILY:BACKBONE (random weights: then only time and size mean something), or a model directory.
Every way of running it gets the same image of noise, as a tensor, and gives detections; all take turns, so that what
else runs slows all of them, and each waits until the threads of the one before have come to rest, and warms up. DIR is
what int8 measures its ranges on and what every program's AP is taken on, at the model's own image size.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import openvino
import torch

import ld_hub
from ld_hub.data import DetectionSet, load_data
from ld_hub.engine.evaluate import evaluate
from ld_hub.export.exported_model import ExportedModel
from ld_hub.export.writing import export_model
from ld_hub.models.detector import DenseDetector
from ld_hub.ops.hardware import hardware

WAYS = (  # format and precision of the exports
    ("onnx", "float32"),
    ("onnx", "float16"),
    ("onnx", "int8"),
    ("openvino", "float32"),
    ("openvino", "int8"),
)
REST = 0.2  # seconds
SMALL = (96, 96)  # px at which a model without weights is calibrated and compared


def load(name: str, classes: DetectionSet) -> tuple[DenseDetector, bool]:
    """The model, and whether its weights are worth an AP."""
    if Path(name).is_dir():
        return ld_hub.create_model(name).eval(), True
    family, _, backbone = name.partition(":")
    labels = {"label_names": classes.label_names, "category_ids": classes.category_ids}
    options = {"backbone": backbone, "pretrained_backbone": False} if backbone else {}
    torch.manual_seed(0)
    model = ld_hub.create_model(family, num_classes=len(classes.label_names), **labels, **options)
    model.data_config = replace(model.data_config, image_size=SMALL)
    return model.eval(), False


def torch_ways(model: DenseDetector) -> dict[str, Callable[[Mapping[str, np.ndarray]], object]]:
    """The ways of torch itself: as it is, with folded batch norms, and these compiled."""

    def way(network: Any) -> Callable[[Mapping[str, np.ndarray]], object]:
        def run(inputs: Mapping[str, np.ndarray]) -> object:
            images, sizes = torch.from_numpy(inputs["images"]), torch.from_numpy(inputs["image_sizes"])
            with torch.inference_mode():
                return model.postprocess(network(images), sizes)

        return run

    fused = model.fuse()
    return {"eager": way(model), "fused": way(fused), "compiled": way(torch.compile(model.fuse(), dynamic=False))}


def measure(ways: Mapping[str, Callable[[Mapping[str, np.ndarray]], object]], inputs: Any, rounds: int) -> dict:
    """Seconds of every way, which take turns."""
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, run in ways.items():
            time.sleep(REST)
            run(inputs)
            start = time.perf_counter()
            run(inputs)
            seconds[name].append(time.perf_counter() - start)
    return seconds


def table(name: str, data: str, size: tuple[int, int], threads: tuple[int, ...], rounds: int) -> dict:
    """All rows of one model."""
    val, train = load_data(data, "val"), load_data(data, "train")
    model, trained = load(name, val)
    model.eval()
    rows: list[dict] = []
    ap = 100 * (evaluate(model, val, workers=0, progress=False)[0].stats["AP"] or 0.0) if trained else None
    channels = model.data_config.channels
    height, width = size if not trained else model.data_config.image_size
    image = np.random.default_rng(0).normal(size=(1, channels, height, width)).astype(np.float32)
    inputs = {"images": image, "image_sizes": np.array([[height, width]], np.int64)}
    with tempfile.TemporaryDirectory() as folder:
        places, aps = {}, {}
        for to, precision in WAYS:
            place = Path(folder) / f"{to}-{precision}"
            print(f"{name}: {to} {precision} ...", flush=True)
            report = export_model(
                model, place, to=to, precision=precision, dataset=val if trained or precision == "int8" else None,
                calibration=train if precision == "int8" else None, keep=not trained,
            )  # fmt: skip
            places[f"{to} {precision}"] = place
            aps[f"{to} {precision}"] = report.agreement.ap[1] if trained and report.agreement.ap else None
        for count in threads:
            print(f"{name}: {count} thread{'s' if count > 1 else ''} ...", flush=True)
            torch.set_num_threads(count)
            torch._dynamo.reset()
            programs = {key: ExportedModel(place, threads=count).detector for key, place in places.items()}
            ways = torch_ways(model) | {key: program.run for key, program in programs.items()}
            seconds = measure(ways, inputs, rounds)
            first = statistics.median(seconds["eager"])
            for key, taken in seconds.items():
                median = statistics.median(taken)
                size_of = sum(file.stat().st_size for file in places[key].glob("model.*")) if key in places else None
                rows.append(
                    {
                        "way": key, "threads": count, "median_ms": round(1e3 * median, 2),
                        "least_ms": round(1e3 * min(taken), 2), "times_eager": round(first / median, 2),
                        "bytes": size_of, "AP": ap if key not in places else aps[key],
                    }
                )  # fmt: skip
                shown = "" if rows[-1]["AP"] is None else f"  AP {rows[-1]['AP']:.2f}"
                print(f"  {key:<18}{1e3 * median:>10.1f} ms {first / median:>6.2f} x{shown}", flush=True)
    return {"model": Path(name).name, "trained": trained, "height": height, "width": width, "rows": rows}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="+", metavar="MODEL")
    parser.add_argument("--data", required=True)
    parser.add_argument("--size", type=int, nargs=2, default=(800, 1344), metavar=("H", "W"))
    parser.add_argument("--threads", type=int, nargs="+", default=(1, 2))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    about = f"{hardware(torch.device('cpu'))}; onnxruntime {onnxruntime.__version__}; openvino {openvino.__version__}"
    print(about)
    tables = [table(name, args.data, tuple(args.size), tuple(args.threads), args.rounds) for name in args.models]
    if args.json:
        args.json.write_text(json.dumps({"hardware": about, "models": tables}, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
