"""The README.md of an exported detector: what it is, and how it runs without torch."""

from __future__ import annotations

from ld_hub.export.formats import ExportPlan
from ld_hub.models.detector import DenseDetector
from ld_hub.preprocessing import DataConfig

_RUNTIME = """\
## With `ld_hub.runtime` (NumPy, Pillow and {runs}; no torch)

```python
from ld_hub.runtime import Detector

detector = Detector(".")
for found in detector.predict("photo.jpg", threshold=0.3):
    print(found.label, found.score, found.box)
```
"""

_PT2 = """\
## With torch

```python
import torch

program = torch.export.load("{program}").module()
boxes, scores, quality, level_sizes = program(images, image_sizes)
```
"""

_AOTI = """\
## With torch

Compiled by AOTInductor: machine code for CPUs like the one that made it. Open only packages that you made.

```python
import torch

program = torch._inductor.aoti_load_package("{program}")
boxes, scores, quality, level_sizes = program(images, image_sizes)
```
"""

_PAGE = """
## In a browser

`index.html` runs the program on images and on the camera. They stay on the machine, and nothing is taken from a
network. Any web server serves the directory as it is, this one for instance, at http://localhost:8000:

```
python -m http.server
```

From elsewhere than localhost, browsers give the camera to https pages only. What begins with `ort` is onnxruntime-web,
under the MIT licence (`onnxruntime-web.LICENSE`).
"""

_PIXELS = """\
import json

import numpy as np
import onnxruntime
from PIL import Image

image = Image.open("photo.jpg").convert("RGB")
pixels = np.asarray(image)[None]  # (N, height, width, 3), uint8
session = onnxruntime.InferenceSession("{program}")
"""

_TENSORS = """\
import json

import numpy as np
import onnxruntime
from PIL import Image

image = Image.open("photo.jpg").convert("RGB")
scale = min({long} / max(image.size), {short} / min(image.size))
width, height = (max(1, int(side * scale + 0.5)) for side in image.size)
ratio = width / image.width, height / image.height
# bilinear without smoothing, as the model was trained; Image.resize would smooth
affine = (1 / ratio[0], 0, 0, 0, 1 / ratio[1], 0)
small = image.transform((width, height), Image.Transform.AFFINE, affine, Image.Resampling.BILINEAR)
pixels = np.asarray(small, np.float32){reverse}
mean, std = np.float32({mean}), np.float32({std})
padded = {padded}
images = np.zeros((1, 3, *padded), np.float32)
images[0, :, :height, :width] = ((pixels - mean) / std).transpose(2, 0, 1)
session = onnxruntime.InferenceSession("{program}")
inputs = {{"images": images, "image_sizes": np.int64([[height, width]])}}
"""

_TORCH = {"pt2": _PT2, "aoti": _AOTI}  # formats that torch itself runs
_PRECISIONS = {
    "float32": "",
    "float16": " Numbers inside are float16; boxes and scores are computed in float32.",
    "int8": " Its convolutions are int8, calibrated on images that config.json names; boxes and scores are float32.",
    "int8_weights": " The weights of its convolutions are int8; it computes in float32.",
}

_CHOSEN = """\
for box, score, label in zip(boxes[0], scores[0], labels[0]):
    if score > 0.3:  # places that nothing was found for have the score 0
        print(names[label], score, box{unscaled})
"""


def readme(model: DenseDetector, to: str, plan: ExportPlan, program: str) -> str:
    """The text; with code for onnxruntime where that runs the program.

    Args:
        model: What was exported.
        to: Format.
        plan: What stands around the network.
        program: Its file.
    """
    given = "uint8 pixels in RGB order" if plan.with_preprocessing else "normalised images"
    gives = "rows: boxes, class scores, quality, rows per level" if plan.no_nms else "boxes, scores and labels"
    size = "any size" if plan.size is None else f"{plan.size[0]} x {plan.size[1]} px, padding included"
    runs = "openvino" if to == "openvino" else "onnxruntime"
    text = f"""\
# {model.name}, exported to {to}

A {model.title or model.family} detector of {model.num_classes} classes: {program} takes {given} of {size} and gives
{gives}. `config.json` holds the class names and settings, `SHA256SUMS` what every file has to be
(`sha256sum -c SHA256SUMS`).{_PRECISIONS[plan.precision]}

{_TORCH[to].format(program=program) if to in _TORCH else _RUNTIME.format(runs=runs)}"""
    if plan.page is not None:
        text += _PAGE
    if to != "onnx" or plan.no_nms or model.config.in_chans != 3:
        return text
    return f"{text}\n## With onnxruntime alone\n\n```python\n{_code(model.data_config, plan, program)}```\n"


def _code(data: DataConfig, plan: ExportPlan, program: str) -> str:
    names = 'names = json.load(open("config.json"))["label_names"]\n'
    if plan.with_preprocessing:
        run = 'boxes, scores, labels = session.run(None, {"pixels": pixels})\n'
        return _PIXELS.format(program=program) + names + run + _CHOSEN.format(unscaled="")
    (short, long), divisor = data.image_size, data.size_divisor
    by_divisor = f"[-(-side // {divisor}) * {divisor} for side in (height, width)]"
    scale_comment = "" if plan.size is None else "  # images that are larger than this have to be scaled down further"
    code = _TENSORS.format(
        short=short,
        long=long,
        reverse="[:, :, ::-1]" if data.channel_order == "bgr" else "",
        mean=list(data.mean),
        std=list(data.std),
        padded=f"{by_divisor if plan.size is None else plan.size}{scale_comment}",
        program=program,
    )
    run = "boxes, scores, labels = session.run(None, inputs)\n"
    return code + names + run + _CHOSEN.format(unscaled=" / np.float32([*ratio, *ratio])")
