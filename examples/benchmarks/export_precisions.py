"""Size, latency on one thread and AP of one detector exported in several precisions, measured in turn.

python examples/benchmarks/export_precisions.py DATA EXPORT... > examples/benchmarks/cpu_export_precisions.json
"""

from __future__ import annotations

import json
import platform
import statistics
import sys
import time
from pathlib import Path

import numpy as np

from ld_hub.data import load_data
from ld_hub.export.exported_model import ExportedModel

ROUNDS = 200


def main(data: str, places: list[str]) -> None:
    """Print the table as JSON."""
    models = {place: ExportedModel(place, threads=1) for place in places}
    dataset = load_data(data, "val")
    image = np.asarray(dataset.records.load(0))
    seconds: dict[str, list[float]] = {place: [] for place in places}
    for number in range(ROUNDS + 10):
        for place, model in models.items():  # in turn, so that what else runs slows all of them
            start = time.perf_counter()
            model.detector.detect([image])
            if number >= 10:
                seconds[place].append(time.perf_counter() - start)
    rows = []
    for place, model in models.items():
        exported = model.detector.exported
        metrics, _ = model.evaluate(dataset)
        rows.append(
            {
                "to": exported.to,
                "precision": exported.precision,
                "bytes": sum(file.stat().st_size for file in Path(place).glob("model.*")),
                "median_ms": round(1000 * statistics.median(seconds[place]), 3),
                "least_ms": round(1000 * min(seconds[place]), 3),
                "AP": round(100 * (metrics.stats["AP"] or 0.0), 2),
            }
        )
    first = next(iter(models.values())).detector.exported
    height, width = image.shape[:2]
    about = {"model": first.architecture, "height": height, "width": width, "images": len(dataset), "rounds": ROUNDS}
    print(json.dumps({"hardware": hardware(), "threads": 1, **about, "programs": rows}, indent=1))


def hardware() -> str:
    """Processor and libraries."""
    cpu = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.is_file():
        lines = info.read_text().splitlines()
        cpu = next((line.partition(": ")[2] for line in lines if line.startswith("model name")), cpu)
        flags = next((line.split() for line in lines if line.startswith("flags")), [])
        cpu += ", AVX-512 VNNI" if "avx512_vnni" in flags else ""
    versions = [f"{name} {__import__(name).__version__}" for name in ("onnxruntime", "openvino") if name in sys.modules]
    return f"{cpu}; {', '.join(versions)}"


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
