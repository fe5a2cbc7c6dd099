"""The table of exports in README.md, from cpu_export.json beside it: python -m examples.benchmarks.table [--write]."""

from __future__ import annotations

import json
import sys
from pathlib import Path

HERE = Path(__file__).parent
BEGIN, END = "<!-- export:begin -->", "<!-- export:end -->"
TITLES = {
    "eager": "torch",
    "fused": "torch, `model.fuse()`",
    "compiled": "torch, `fuse()` and `torch.compile`",
    "onnx float32": "ONNX Runtime",
    "onnx float16": "ONNX Runtime, float16",
    "onnx int8": "ONNX Runtime, int8",
    "openvino float32": "OpenVINO",
    "openvino int8": "OpenVINO, int8",
}


def tables(found: dict) -> str:
    """Text of all models.

    Args:
        found: Content of cpu_export.json.
    """
    parts = [f"{found['hardware']}."]
    for model in found["models"]:
        threads = sorted({row["threads"] for row in model["rows"]})
        heads = [f"{n} thread{'s' if n > 1 else ''}, ms" for n in threads]
        lines = [
            f"**{name(model)}**, {model['height']} × {model['width']} px",
            "",
            f"| | {' | '.join(heads)} | program, MB | AP |",
            "|---" * (len(threads) + 3) + "|",
        ]
        for way, title in TITLES.items():
            rows = [next(row for row in model["rows"] if (row["way"], row["threads"]) == (way, n)) for n in threads]
            times = [f"{digits(row['median_ms'])} ({row['times_eager']:.1f} ×)" for row in rows]
            size = "" if rows[0]["bytes"] is None else f"{rows[0]['bytes'] / 1e6:.1f}"
            ap = "" if rows[0]["AP"] is None else f"{rows[0]['AP']:.2f}"
            lines.append(f"| {title} | {' | '.join(times)} | {size} | {ap} |")
        parts.append("\n".join(lines))
    return "\n\n".join(parts)


def digits(milliseconds: float) -> str:
    """As many as a noisy machine is good for."""
    return f"{milliseconds:.{0 if milliseconds >= 100 else 1}f}"


def name(model: dict) -> str:
    """What a model is called: of a directory its last part."""
    family, _, backbone = model["model"].partition(":")
    if model["trained"]:
        return f"`{model['model']}` of `ld-hub demo`"
    return f"`{family}`" + (f" on `{backbone}`" if backbone else "") + ", random weights"


def main() -> None:
    """Print the table, or put it into README.md."""
    text = tables(json.loads((HERE / "cpu_export.json").read_text()))
    print(text)
    if "--write" in sys.argv:
        readme = (HERE / "README.md").read_text()
        head, rest = readme.split(BEGIN)
        (HERE / "README.md").write_text(f"{head}{BEGIN}\n{text}\n{END}{rest.split(END)[1]}")


if __name__ == "__main__":
    main()
