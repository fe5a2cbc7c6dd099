"""What a card may say, and where each fact comes from: the model, its run, and evaluations by `ld-hub eval`."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import timm
import torch

from ld_hub.analysis.comparison import Comparison
from ld_hub.benchmark.figures import Figures
from ld_hub.benchmark.profile import ParameterCount, multiply_adds, params
from ld_hub.checked import Source, read_fields
from ld_hub.engine.records import RunSettings
from ld_hub.errors import CheckpointError, EvaluationError, LdHubError
from ld_hub.hub import WEIGHTS_NAME, save_safetensors, sha256_of
from ld_hub.hub.card_file import read_yaml
from ld_hub.hub.config_file import parse_json
from ld_hub.hub.evidence import COMPARISON_NAME, Evidence
from ld_hub.models.backbones import timm_name
from ld_hub.models.label_names import default_labels
from ld_hub.models.short_names import SHORT_NAMES
from ld_hub.registry import MODELS, PretrainedCfg

TABLE_SIZE = (800, 1280)  # height, width at which papers count multiply-adds
_MAX_BYTES = 2_000_000
_WHAT = "what a run writes"


@dataclass(frozen=True)
class Measured:
    """Evaluations by what they are of.

    Attributes:
        own: Of the model's own weights.
        teacher: Of its teacher's.
        alone: Of the same structure without distillation.
    """

    own: list[Evidence] = field(default_factory=list)
    teacher: list[Evidence] = field(default_factory=list)
    alone: list[Evidence] = field(default_factory=list)

    def beside(self, own: Evidence) -> list[tuple[str, Evidence]]:
        """Evaluations of teacher and baseline like one of the model's own, with titles: same images, same protocol."""
        rows = [("teacher", each) for each in self.teacher] + [("without distillation", each) for each in self.alone]
        return [(title, each) for title, each in rows if each.comparable == own.comparable]


@dataclass(frozen=True)
class RunArguments:
    """What a card tells of the flags of a run.

    Attributes:
        name: Model to train.
        data: Directory of the data.
        pretrained_backbone: Whether timm's weights of the backbone were the start.
        backbone_checkpoint: File of the backbone's weights that were the start.
        checkpoint: Weights of a whole detector that were the start.
        teacher: The teacher as it was given.
    """

    name: str | None = None
    data: str | None = None
    pretrained_backbone: bool = False
    backbone_checkpoint: str | None = None
    checkpoint: str | None = None
    teacher: str | None = None

    @classmethod
    def of(cls, text: str, where: str) -> RunArguments:
        """Read an arguments.yaml.

        Args:
            text: Its content.
            where: Its path in quotes, for messages.

        Raises:
            CheckpointError: If it is no YAML mapping of flags, or a flag has a value of the wrong type.
        """
        try:
            content = read_yaml(text)
        except LdHubError as error:
            raise CheckpointError(f"{where}: its lines {error}") from None
        return read_fields(cls, {"pretrained_backbone": True, **content}, Source(where, CheckpointError))


@dataclass(frozen=True)
class Run:
    """What the files of a training run say; empty where there is none.

    Attributes:
        path: Its directory.
        settings: Its config.json.
        arguments: Of its arguments.yaml.
        text: arguments.yaml as it stands, the home directory written as ``~``.
        commands: Lines of its command.txt, likewise: what was typed to start the run, and to continue it.
        speed: Its benchmark.json, as `ld-hub benchmark --json` writes it.
        comparison: Its comparison.json: the student alone beside it.
    """

    path: Path | None = None
    settings: RunSettings | None = None
    arguments: RunArguments = RunArguments()
    text: str = ""
    commands: tuple[str, ...] = ()
    speed: Figures | None = None
    comparison: Comparison | None = None

    @property
    def distils(self) -> bool:
        """Whether it was a distillation."""
        return self.settings is not None and self.settings.identity.teaching is not None

    @property
    def processes(self) -> int | None:
        """Number of processes, from the images of a step; None where that cannot be told."""
        if self.settings is None:
            return None
        one, images = self.settings.config.batch_size * self.settings.config.accumulation, self.settings.images_per_step
        return images // one if images % one == 0 else None

    @property
    def teacher_hashes(self) -> tuple[str, ...]:
        """First digits of the hashes of the teachers' tensors."""
        teachers = () if self.settings is None else self.settings.identity.teachers
        return tuple(teacher.weights_sha256 for teacher in teachers)

    @property
    def data(self) -> str:
        """What the data set is called; the empty string where that is not known."""
        return "" if self.arguments.data is None else Path(self.arguments.data).name


def read_run(path: Path | None) -> Run:
    """Read the files of a run that a card uses; those that are missing leave their facts out.

    Args:
        path: Directory of a run, or None.

    Raises:
        CheckpointError: If one of them is damaged.
    """
    if path is None:
        return Run()
    text, typed = (_text(path / name) for name in ("arguments.yaml", "command.txt"))
    config, benchmark, comparison = (path / name for name in ("config.json", "benchmark.json", COMPARISON_NAME))
    return Run(
        path=path,
        settings=RunSettings.from_dict(parse_json(config, _WHAT), f"'{config}'") if _small(config) else None,
        arguments=RunArguments.of(text, f"'{path / 'arguments.yaml'}'") if text else RunArguments(),
        text=text,
        commands=tuple(typed.splitlines()),
        speed=Figures.from_dict(parse_json(benchmark, _WHAT), f"'{benchmark}'") if _small(benchmark) else None,
        comparison=Comparison.read(comparison) if _small(comparison) else None,
    )


def sort_evaluations(model: Any, evaluations: Sequence[Evidence], run: Run) -> Measured:
    """Tell whose each evaluation is, by hashes, and refuse those that are nobody's.

    An evaluation is the model's own if the weights file that it names is, bit for bit, the one that `save_pretrained`
    writes of this model; the teacher's, if the run trained with a teacher of these tensors (without a run: if it has
    the name of the recipe's teacher); the baseline's, if it is of the same structure and was not distilled.

    Args:
        model: A detector with its weights.
        evaluations: All that are at hand.
        run: Of the model's training.

    Raises:
        EvaluationError: If one is of none of the three.
    """
    if not evaluations:
        return Measured()
    own_hash, found = saved_hash(model), Measured()
    hashes, taught = run.teacher_hashes, model.teaching is not None
    names = model.teaching.teachers if taught else ()
    for each in evaluations:
        judged, weights = each.model, each.weights
        same = judged.family == model.family and judged.config == asdict(model.config)
        if weights.sha256 == own_hash:
            found.own.append(each)
        elif taught and (weights.tensors in hashes if hashes else judged.architecture in names):
            found.teacher.append(each)
        elif taught and same and not judged.recipe:
            found.alone.append(each)
        else:
            digits = weights.sha256[:12]
            raise EvaluationError(
                f"The evaluation of '{judged.name}' is of other weights (sha256 {digits}...) than this model's "
                f"({own_hash[:12]}...), and neither of its teacher nor of the same model without distillation. "
                "Evaluate this model: `ld-hub eval MODEL_DIR --data DIR`."
            )
    return found


def saved_hash(model: Any) -> str:
    """sha256 of the model.safetensors that `save_pretrained` writes of a model."""
    with tempfile.TemporaryDirectory() as directory:
        return sha256_of(save_safetensors(model.state_dict(), Path(directory) / WEIGHTS_NAME))


def size_of(model: Any) -> tuple[ParameterCount, int, tuple[int, int]]:
    """Parameters, multiply-adds, and the height and width in px that these were counted at.

    The input is that of the published tables for models that take such images, else the model's own landscape input.

    Args:
        model: A detector; nothing is computed with it.
    """
    data = model.data_config
    side = data.size_divisor
    size = TABLE_SIZE
    if data.image_size != type(data)().image_size:
        size = (-(-data.image_size[0] // side) * side, -(-data.image_size[1] // side) * side)
    found = _COSTS.get((type(model), model.config, size))
    if found is None:
        found = _COSTS[type(model), model.config, size] = _cost(model, size)
    return params(model), found, size


_COSTS: dict[tuple[Any, Any, tuple[int, int]], int] = {}


def _cost(model: Any, size: tuple[int, int]) -> int:
    """Multiply-adds of a structure, without computing anything."""
    if not next(model.parameters()).is_meta:
        with torch.device("meta"):
            model = type(model)(model.config)
    return sum(multiply_adds(model, size).values())


def backbone_repo(backbone: str) -> str | None:
    """Hub repository of the weights that a backbone starts from; None where timm has none.

    Args:
        backbone: Short or full name.
    """
    if backbone in SHORT_NAMES and "." not in SHORT_NAMES[backbone].timm:
        return None  # Caffe's weights
    cfg = timm.get_pretrained_cfg(timm_name(backbone))
    found = None if cfg is None else cfg.hf_hub_id
    return found if isinstance(found, str) and found.startswith("timm/") else None


def backbone_license(backbone: str) -> str:
    """SPDX id of the licence of `backbone_repo`'s weights; the empty string where timm names none."""
    cfg = timm.get_pretrained_cfg(timm_name(backbone))
    return (cfg.license or "") if cfg is not None else ""


def published_rows(name: str, labels: Iterable[str] | None = None) -> list[tuple[str, PretrainedCfg]]:
    """Published figures of a name: ``(name.tag, weights)``.

    Args:
        name: Registered or not.
        labels: Only those of weights with these classes; None for all.
    """
    tags = MODELS[name].pretrained if name in MODELS else {}
    wanted = None if labels is None else tuple(labels)
    return [
        (f"{name}.{tag}", cfg)
        for tag, cfg in tags.items()
        if cfg.ap is not None and wanted in (None, cfg.label_names or default_labels(cfg.num_classes)[0])
    ]


def from_hub(source: Any) -> tuple[str, str] | None:
    """``(org/name, revision)`` of a model that was named by ``hf-hub:org/name@revision``; None for any other."""
    found = re.fullmatch(r"hf[-_]hub:([\w.-]+/[\w.-]+)(?:@([\w./-]+))?", str(source), re.ASCII)
    return (found.group(1), found.group(2) or "") if found else None


def _small(file: Path) -> bool:
    if not file.is_file():
        return False
    if file.stat().st_size > _MAX_BYTES:
        raise CheckpointError(f"'{file}' has more than {_MAX_BYTES:,} bytes; no run writes such a file.")
    return True


def _text(file: Path) -> str:
    """Content of a file, the home directory written as ``~``; the empty string where there is none."""
    return without_home(file.read_text(encoding="utf-8", errors="replace")) if _small(file) else ""


def without_home(text: str) -> str:
    """A text with the home directory of this account written as ``~``."""
    home = f"{Path.home()}/"
    return text.replace(home, "~/") if len(home) > 2 else text
