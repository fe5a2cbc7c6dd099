"""`export_model`: a detector as a directory that runs elsewhere, written only if it gives what the model gives."""

from __future__ import annotations

import contextlib
import copy
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from PIL import Image

from ld_hub.data import DetectionSet
from ld_hub.engine.evaluate import evaluate
from ld_hub.engine.identity import weights_digest
from ld_hub.errors import ConfigError, ExportError
from ld_hub.evaluation import DetectionMetrics
from ld_hub.export.calibration import Calibration, Sample
from ld_hub.export.checking import TOLERANCES, Agreement, compare_detections, compare_rows, random_images
from ld_hub.export.choice_graph import require_hard
from ld_hub.export.exported_model import ExportedModel
from ld_hub.export.formats import ExportPlan, FormatFile, check_place, find_format, require_calibration
from ld_hub.export.program import DetectorRows, whole_square
from ld_hub.export.readme import readme
from ld_hub.export.reducing import quantized, reduced
from ld_hub.export.web_page import runtime_for, write_page
from ld_hub.hub import atomic_directory, new_directory, write_json
from ld_hub.models.detector import DenseDetector
from ld_hub.preprocessing import ImageSource, load_image
from ld_hub.runtime.exported_files import (
    CONFIG,
    FORMAT_VERSION,
    MODEL_TYPE,
    ExportedError,
    is_exported,
    listed,
    write_sums,
)
from ld_hub.version import __version__

CHECKED = 8  # images of a data set on which detections are compared


@dataclass(frozen=True)
class ExportReport:
    """What was written, and how it compares.

    Attributes:
        directory: Where it lies.
        plan: What stands around the network; its size where that had to be fixed.
        agreement: With the model.
        remark: What the user should know; empty where everything went as asked.
    """

    directory: Path
    plan: ExportPlan
    agreement: Agreement
    remark: str = ""


def export_model(
    model: DenseDetector,
    directory: str | Path,
    *,
    to: str = "onnx",
    no_nms: bool = False,
    with_preprocessing: bool = False,
    size: tuple[int, int] | None = None,
    precision: str = "float32",
    images: Sequence[ImageSource] = (),
    dataset: DetectionSet | None = None,
    calibration: DetectionSet | None = None,
    calibration_images: int = 128,
    keep: bool = False,
    page: bool = False,
    onnxruntime_web: str | Path | None = None,
) -> ExportReport:
    """Write a detector as a program that needs neither torch nor this library, checked against the model.

    Args:
        model: Stays as it is; a float32 copy on the CPU, batch norms folded, is exported.
        directory: Where to: a new or empty directory, or one that an export has written before.
        to: Format; see `ld_hub.export.formats.FORMATS`.
        no_nms: Leave out the choice of boxes; the program gives rows then.
        with_preprocessing: Take uint8 pixels and prepare them inside; boxes are in px of these pixels.
        size: Height and width in px that all images are padded to; None for any multiples of ``size_divisor``.
        precision: Of the numbers inside; see `ld_hub.export.formats.PRECISIONS`.
        images: Real images to compare on, beside random ones.
        dataset: Also compare the AP on it, and detections on its first images.
        calibration: Training images, on which int8 measures its ranges.
        calibration_images: How many of them, evenly over the set.
        keep: Write it even where it differs from the model by more than its precision's `TOLERANCES`.
        page: Also write a web page that runs the program in a browser; its images are prepared inside then.
        onnxruntime_web: Where the npm package lies that the page takes; None to find or fetch it.

    Returns:
        The report.

    Raises:
        ConfigError: If the format, its packages or the place are not to be had, or the model cannot be exported (its
            backbone is not traced, its images are no pictures of 8 bits, its NMS is not greedy: then ``no_nms``).
        DataError: If an image to calibrate on is damaged.
        ExportError: If the exported detector differs from the model; nothing is written then.
    """
    runtime = runtime_for(to, onnxruntime_web, no_nms=no_nms) if page else None
    plan = ExportPlan(no_nms, with_preprocessing or page, size, precision, runtime)
    sample = _sample(precision, dataset, calibration, calibration_images)
    file = _ready(model, directory, to, plan)
    own = copy.deepcopy(model).cpu().float().eval()
    rows = DetectorRows(own.fuse() if not own.is_fused else own)
    network, plan, remark = _convert(file, rows, plan)
    pictures = [*random_images(own.data_config.image_size), *map(load_image, images), *_first(dataset)]
    target = None if dataset is None else _Target(dataset, _ap(evaluate(own, dataset, workers=0)[0]))
    with _replacing(directory) as draft:
        network, how = _reduced(file, network, rows, plan, draft / "trial", to, target, sample)
        write_export(file, network, rows, _of_rows(plan), draft / "rows", to)
        write_export(file, network, rows, plan, draft, to, how, weights_digest(own))
        agreement = _compare(file, DetectorRows(own), draft, pictures, target, precision)
        _require(agreement, own.name, to, keep=keep)
    return ExportReport(Path(directory), plan, agreement, " ".join(filter(None, (remark, _said(how)))))


@contextlib.contextmanager
def _replacing(place: str | Path) -> Iterator[Path]:
    """A draft that becomes the directory; of an earlier export there, nothing stays that only that one lists."""
    directory = Path(place).expanduser()
    again = is_exported(directory)
    try:
        earlier = listed(directory) if again else {}
    except ExportedError as error:
        raise ConfigError(f"{error} Or remove '{directory}'.") from error
    with (atomic_directory if again else new_directory)(directory) as draft:
        yield draft
    for name in earlier.keys() - listed(directory).keys():
        (directory / name).unlink(missing_ok=True)


@dataclass(frozen=True)
class _Target:
    """A data set to evaluate on, and the model's AP on it, 0..100."""

    dataset: DetectionSet
    ap: float


def _ap(metrics: DetectionMetrics) -> float:
    return 100 * (metrics.stats["AP"] or 0.0)


def _require(agreement: Agreement, name: str, to: str, *, keep: bool) -> None:
    """Refuse an export that is not what the model is, unless it is to be kept all the same."""
    if agreement.fault and not keep:
        raise ExportError(
            f"'{name}' exported to {to} is not what the model is: {agreement.fault}. Nothing was written; "
            "keep it all the same with --keep (keep=True)."
        )


def _of_rows(plan: ExportPlan) -> ExportPlan:
    """The network alone, whose rows are compared."""
    return replace(plan, no_nms=True, with_preprocessing=False, page=None)


def _sample(
    precision: str, dataset: DetectionSet | None, calibration: DetectionSet | None, images: int
) -> Sample | None:
    """What int8 measures its ranges on; None for other precisions.

    Raises:
        ConfigError: If int8 has nothing to measure them on, or AP cannot be compared.
    """
    require_calibration(precision, dataset is not None and calibration is not None, images)
    return Sample(calibration, images) if calibration is not None and precision == "int8" else None


def _ready(model: DenseDetector, directory: str | Path, to: str, plan: ExportPlan) -> FormatFile:
    """The format's functions, once nothing speaks against the export; errors of `export_model`."""
    form = find_format(to)
    form.require(plan)
    check_place(directory)
    _require_pictures(model, page=plan.page is not None)
    if not plan.no_nms:
        require_hard(model.postprocess_config)
    return form.load()


def _first(dataset: DetectionSet | None) -> list[Image.Image]:
    """The images of a data set on which detections are compared."""
    return [] if dataset is None else [dataset.records.load(row) for row in range(min(CHECKED, len(dataset)))]


def _reduced(
    file: FormatFile,
    network: Any,
    rows: DetectorRows,
    plan: ExportPlan,
    place: Path,
    to: str,
    target: _Target | None,
    sample: Sample | None,
) -> tuple[Any, Calibration | None]:
    """The network in its precision; int8 with as many layers in float32 as AP needs, candidates written to a place."""
    if target is None or sample is None:
        return reduced(network, plan.precision, to), None

    def lost_ap(candidate: Any) -> float:
        write_export(file, candidate, rows, replace(plan, page=None), place, to)
        found = _ap(ExportedModel(place, program=file.opened(place)).evaluate(target.dataset)[0])
        shutil.rmtree(place)
        return target.ap - found

    inputs = sample.inputs(rows, plan.size)
    made, kept = quantized(network, inputs, lost_ap, TOLERANCES[plan.precision].ap)
    return made, sample.described(kept)


def _said(how: Calibration | None) -> str:
    """Which layers are not int8; empty where all are that may be."""
    if how is None or not how.float32_layers:
        return ""
    names = ", ".join(layer.removeprefix("model.").removesuffix(".weight") for layer in how.float32_layers)
    return f"int8 costs too much AP in {names}: float32 there."


def _require_pictures(model: DenseDetector, *, page: bool) -> None:
    """Refuse models that take other bands than those of pictures.

    Raises:
        ConfigError: If this is one.
    """
    config = model.data_config
    if config.band_ranges or config.channels not in ((3,) if page else (1, 3)):
        deep = " of more than 8 bits" if config.band_ranges else ""
        taken = (
            "a page gives RGB pictures of 8 bits: export without --page"
            if page
            else "exported detectors take pictures of 8 bits, grey or RGB: run the model itself"
        )
        bands = f"{config.channels} band{'s' if config.channels > 1 else ''}{deep}"
        raise ConfigError(f"'{model.name}' takes {bands}, and {taken}.")


def _convert(file: FormatFile, rows: DetectorRows, plan: ExportPlan) -> tuple[Any, ExportPlan, str]:
    """The network for any image size, or for one where the backbone cannot be traced otherwise."""
    try:
        return file.convert(rows, plan.size), plan, ""
    except ConfigError as error:
        if plan.size is not None:
            raise
        size = whole_square(rows)
        try:
            network = file.convert(rows, size)
        except ConfigError:
            raise error from None
        remark = (
            f"The backbone '{rows.model.config.backbone}' cannot be exported for any image size: all images are padded "
            f"to {size[0]} x {size[1]} px. Another size: --size H W."
        )
        return network, replace(plan, size=size), remark


def write_export(
    file: FormatFile,
    network: Any,
    rows: DetectorRows,
    plan: ExportPlan,
    directory: Path,
    to: str,
    calibration: Calibration | None = None,
    weights: str = "",
) -> None:
    """Program, config.json, README.md and sums; `weights` are the digits that tell which model's it is."""
    directory.mkdir(exist_ok=True)
    model = rows.model
    content = {
        "model_type": MODEL_TYPE,
        "format_version": FORMAT_VERSION,
        "ld_hub_version": __version__,
        "architecture": model.name,
        "family": model.family,
        "config": asdict(model.config),
        "weights": weights,
        "to": to,
        "program": file.write(network, rows, plan, directory),
        "precision": plan.precision,
        "chooses": not plan.no_nms,
        "takes_pixels": plan.with_preprocessing,
        "size": plan.size,
        "label_names": list(model.label_names),
        "category_ids": list(model.category_ids),
        "data_config": model.data_config.to_dict(),
        "postprocess": model.postprocess_config.to_dict(),
    }
    if calibration is not None:
        content["calibration"] = asdict(calibration)
    write_json(directory / CONFIG, content)
    (directory / "README.md").write_text(readme(model, to, plan, str(content["program"])), encoding="utf-8")
    if plan.page is not None:
        write_page(plan.page, directory)
    write_sums(directory)


def _compare(
    file: FormatFile,
    model: DetectorRows,
    draft: Path,
    pictures: Sequence[Image.Image],
    target: _Target | None,
    precision: str,
) -> Agreement:
    """The rows first, then what is found, then AP; removes the rows, which serve this alone."""
    limits, agreement = TOLERANCES[precision], Agreement()
    compare_rows(
        agreement, model, ExportedModel(draft / "rows", program=file.opened(draft / "rows")).detector, pictures, limits
    )
    shutil.rmtree(draft / "rows")
    exported = ExportedModel(draft, program=file.opened(draft))
    compare_detections(agreement, model, exported.detector, pictures, limits)
    if target is not None:
        found = _ap(exported.evaluate(target.dataset)[0])
        agreement.ap = target.ap, found
        if limits.loses(target.ap, found):
            agreement.blame(f"its AP is {found:.2f}, the model's {target.ap:.2f}; {limits.ap:g} are allowed")
    return agreement
