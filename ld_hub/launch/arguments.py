"""Flags of `ld_hub.train` and `ld_hub.distill`: the fields of dataclasses, on the command line and in YAML.

Distilling parses twice: once to learn the recipe, then with a flag for each field of each of its terms.
"""

from __future__ import annotations

import dataclasses
import difflib
import re
import textwrap
from argparse import ArgumentError
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar, get_args, get_origin

from ld_hub.data.discovery import require_places
from ld_hub.engine.train_config import TrainConfig
from ld_hub.errors import ConfigError
from ld_hub.fields import ConfigField, config_fields
from ld_hub.hub import offline

Arguments = TypeVar("Arguments")
WIDTH = 78  # columns of texts in --help


@dataclass(frozen=True)
class DataArguments:
    """Where the images are.

    Attributes:
        data: Directory of the data: COCO's (train2017/ or train/, val2017/ or val/, annotations/*.json), PASCAL VOC's
            (VOCdevkit: trained on 07+12 trainval, evaluated on VOC2007 test) or YOLO's (data.yaml).
        train_images: Directory of training images, where data does not tell.
        train_annotations: COCO file of the training images, where data does not tell.
        val_images: Directory of the images to evaluate on, where data does not tell.
        val_annotations: COCO file of the images to evaluate on, where data does not tell. Without data and without
            this nothing is evaluated.
        on_bad_box: What happens to boxes outside their image or with no area: drop leaves them out and says how many,
            as published; error stops and names them.
    """

    data: str | None = None
    train_images: str | None = None
    train_annotations: str | None = None
    val_images: str | None = None
    val_annotations: str | None = None
    on_bad_box: Literal["drop", "error"] = "drop"

    def require(self) -> None:
        """Refuse places that do not exist, or are not named, before anything is read or imported.

        Raises:
            MissingFileError: If there is no such directory or file.
            ConfigError: If the flags do not say where the data is.
        """
        if self.data is None and (self.train_images is None or self.train_annotations is None):
            raise ConfigError(
                "Say where the data is: --data DIR, or both --train_images DIR and --train_annotations FILE."
            )
        require_places(self.data, images=self.train_images, annotations=self.train_annotations)
        if self.data is None and self.val_annotations is None:
            return
        if self.data is None and self.val_images is None:
            raise ConfigError("--val_annotations needs --val_images DIR beside it.")
        require_places(self.data, images=self.val_images, annotations=self.val_annotations)


@dataclass(frozen=True)
class ModelArguments:
    """What is trained. The number of classes and their names are the data's.

    Attributes:
        backbone: Another backbone than the name's: r18 ... r101 or any timm model with features at strides 8, 16, 32.
        reg_max: Largest distance to a box edge in strides; a box edge has one bin more.
        anchor_scale: Side of the anchors in strides; smaller ones suit small objects.
        fpn_channels: Channels of the pyramid.
        head_width: Channels of the head's towers.
        head_depth: Convolutions per tower.
        pretrained_backbone: Start from timm's weights of the backbone, fetched once; false starts from random
            numbers, with all stages and batch norms trained.
        backbone_checkpoint: Local safetensors file with the backbone's weights under timm's names; nothing is fetched.
        checkpoint: Start from these weights of a whole detector: a model directory, a checkpoint file or a name with
            published weights. With other classes, the layer that predicts them starts anew.
    """

    backbone: str | None = None
    reg_max: int | None = None
    anchor_scale: float | None = None
    fpn_channels: int | None = None
    head_width: int | None = None
    head_depth: int | None = None
    pretrained_backbone: bool = True
    backbone_checkpoint: str | None = None
    checkpoint: str | None = None

    def require_one_start(self) -> None:
        """Refuse two sources of the same weights.

        Raises:
            ConfigError: If there are two.
        """
        if self.checkpoint is not None and self.backbone_checkpoint is not None:
            raise ConfigError("--checkpoint and --backbone_checkpoint exclude each other: a checkpoint has a backbone.")


@dataclass(frozen=True)
class DistillArguments:
    """Who teaches, and how.

    Attributes:
        teacher: Teacher: a model directory (RUN/model) or a name. Several are separated by commas; all teach by the
            same recipe. NAME's own where not given.
        teacher_checkpoint: Weights of a teacher given by name: a .safetensors or a published .pth file.
        teacher_weights: With several teachers: a factor of each one's terms, in their order; 1 where not given.
        teacher_scale: Size of the teacher's images over the student's; 2 lets its level l + 1 teach level l.
        class_map: Which class of the data is which of the teacher's, where names differ: person=pedestrian,car=auto
            (a mapping in YAML). Classes of the same name correspond anyhow.
        recipe: What is distilled: the name of a recipe, or a YAML file with one. NAME's own where not given.
        reference: Compute every loss as the code base of the LD paper (ld) or of BCKD (bckd) did, faults included.
        individual_ld: Leave loss_bbox and loss_dfl to the teacher (LD paper, supplement, Table 1).
        balance: gradient scales each term so that its gradient is a set share of the detection loss's, instead of by
            the published weights, which were tuned for COCO; --terms.TERM.share sets it, 0.3 where not given.
        train_teacher: First train the teacher on this data, in output_dir/teacher, then distil. Resumable as a whole.
    """

    teacher: str | None = None
    teacher_checkpoint: str | None = None
    teacher_weights: tuple[float, ...] | None = None
    teacher_scale: float = 1.0
    class_map: str | dict[str, str] | None = None
    recipe: str | None = None
    reference: Literal["ld", "bckd"] | None = None
    individual_ld: bool = False
    balance: Literal["none", "gradient"] = "none"
    train_teacher: bool = False

    def __post_init__(self) -> None:
        weights: Any = self.teacher_weights
        if isinstance(weights, list):  # from the command line or YAML
            object.__setattr__(self, "teacher_weights", tuple(weights))

    def classes(self) -> dict[str, str]:
        """`class_map` as a mapping.

        Raises:
            ConfigError: If the text is no list of pairs.
        """
        if not isinstance(self.class_map, str):
            return dict(self.class_map or {})
        pairs = [entry.split("=") for entry in self.class_map.split(",")]
        if any(len(pair) != 2 or not all(pair) for pair in pairs):
            raise ConfigError(
                f"--class_map is {self.class_map!r}; expected MINE=THEIRS,MINE=THEIRS ... (names with commas or equals "
                "signs: as a mapping in a YAML file)."
            )
        return {mine.strip(): theirs.strip() for mine, theirs in pairs}

    def weights(self, teachers: Sequence[str]) -> dict[str, float] | None:
        """`teacher_weights` by teacher.

        Raises:
            ConfigError: If there are not as many weights as teachers.
        """
        if self.teacher_weights is not None and len(self.teacher_weights) != len(teachers):
            raise ConfigError(
                f"--teacher_weights has {len(self.teacher_weights)} numbers; there are {len(teachers)} teachers "
                f"({', '.join(teachers)})."
            )
        return None if self.teacher_weights is None else dict(zip(teachers, self.teacher_weights, strict=True))


@dataclass(frozen=True)
class TeacherArguments:
    """How train_teacher trains; everything not given here is as for the student.

    Attributes:
        teacher_steps: Optimizer steps of the teacher's training.
        teacher_epochs: Passes over the training images, instead of teacher_steps.
        teacher_lr: Learning rate, as lr.
        teacher_backbone: Another backbone than the teacher's name says.
        teacher_pretrained_backbone: Start from timm's weights of the backbone, unless there are published weights of
            the teacher or teacher_checkpoint.
        teacher_backbone_checkpoint: Local safetensors file with the backbone's weights under timm's names.
    """

    teacher_steps: int | None = None
    teacher_epochs: float | None = None
    teacher_lr: float | None = None
    teacher_backbone: str | None = None
    teacher_pretrained_backbone: bool = True
    teacher_backbone_checkpoint: str | None = None


@dataclass(frozen=True)
class HubArguments:
    """Whether and where the model is published when the run has ended; `ld-hub push` does the same at any time.

    Attributes:
        push_to_hub: Publish the model with its card on the Hugging Face Hub, as hub_model_id.
        hub_model_id: Repository to publish to, ORG/NAME; made if it does not exist.
        hub_private: Make a new repository private; as the account's settings say where not given.
        hub_license: Licence of the weights as the card states it, e.g. apache-2.0.
        hub_pictures: Publish the training curves and a picture of the detections on one of the images to evaluate on.
    """

    push_to_hub: bool = False
    hub_model_id: str | None = None
    hub_private: bool | None = None
    hub_license: str | None = None
    hub_pictures: bool = True

    def __post_init__(self) -> None:
        if self.push_to_hub != (self.hub_model_id is not None):
            raise ConfigError("--push_to_hub and --hub_model_id ORG/NAME belong together: give both, or neither.")
        if self.push_to_hub and offline():
            raise ConfigError(f"--push_to_hub needs the network, which {offline()} forbids: unset it, or push later.")


GROUPS: dict[type[Any], str] = {
    DataArguments: "data",
    ModelArguments: "model",
    DistillArguments: "distillation",
    TeacherArguments: "teacher's training (with --train_teacher)",
    TrainConfig: "training",
    HubArguments: "publishing",
}
TERMS_FLAG = re.compile(r"--terms\.[\w.]+(=.*)?$", re.DOTALL)


@dataclass(frozen=True)
class Command:
    """One of the two commands.

    Attributes:
        program: How it is called.
        summary: What it does.
        name_help: What its NAME is.
        groups: Dataclasses whose fields are its flags.
        examples: Last lines of the help.
        more: What the help says about a flag beside its field's text, by name.
    """

    program: str
    summary: str
    name_help: str
    groups: tuple[type[Any], ...]
    examples: str
    more: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class TermFlags:
    """A term of a recipe, on the command line.

    Attributes:
        name: In the recipe.
        kind: As of `ld_hub.distillation.TERMS`.
        fields: Its fields with the recipe's values.
    """

    name: str
    kind: str
    fields: tuple[ConfigField, ...]


@dataclass(frozen=True)
class RecipeFlags:
    """A recipe, on the command line.

    Attributes:
        name: Of the recipe.
        terms: Its terms.
    """

    name: str
    terms: tuple[TermFlags, ...]


@dataclass(frozen=True)
class Parsed:
    """A parsed command line.

    Attributes:
        name: Positional NAME.
        values: All flags by name, as plain values.
        terms: Values of the terms' flags by term and field.
        yaml: The same as text for ``--config``.
    """

    name: str
    values: dict[str, Any]
    yaml: str
    terms: dict[str, dict[str, Any]] = field(default_factory=dict)

    def of(self, kind: type[Arguments], **changes: Any) -> Arguments:
        """The flags that are fields of a dataclass, as that dataclass."""
        names = [item.name for item in dataclasses.fields(kind)]  # type: ignore[arg-type]  # any dataclass
        return kind(**{**{name: self.values[name] for name in names}, **changes})


def parse(
    command: Command, argv: Sequence[str], recipe: RecipeFlags | None = None, *, any_terms: bool = False
) -> Parsed:
    """Parse a command line.

    Args:
        command: Which command.
        argv: Arguments after the program's name.
        recipe: Recipe whose terms get flags.
        any_terms: First pass: take any ``--terms`` without looking at it, and leave ``--help`` to the second pass.

    Raises:
        ConfigError: If something is unknown, missing or of the wrong type; names the flag.
        SystemExit: After ``--help`` and ``--print_config``.
    """
    parser = make_parser(command, recipe, any_terms=any_terms)
    try:
        found = parser.parse_args(without_terms(argv) if any_terms else list(argv))
    except ArgumentError as error:
        raise ConfigError(_readable(str(error), parser)) from None
    values = found.as_dict()
    terms = values.pop("terms", None) or {}
    values.pop("config", None)
    text = parser.dump(found)
    return Parsed(name=values.pop("name"), values=values, yaml=text, terms=terms)


def without_terms(argv: Sequence[str]) -> list[str]:
    """The arguments without ``--terms.TERM.FIELD VALUE`` and without ``--help``."""
    kept: list[str] = []
    skip = False
    for argument in argv:
        if skip:
            skip = False
        elif TERMS_FLAG.match(argument):
            skip = "=" not in argument
        elif argument not in ("-h", "--help"):
            kept.append(argument)
    return kept


def make_parser(command: Command, recipe: RecipeFlags | None = None, *, any_terms: bool = False) -> Any:
    """The parser of a command; with a recipe, including a flag for each field of its terms."""
    from jsonargparse import ArgumentParser

    parser = ArgumentParser(
        prog=command.program,
        usage=f"{command.program} NAME --data DIR [flags]",
        description=textwrap.fill(command.summary, WIDTH),
        epilog=command.examples,
        exit_on_error=False,
        allow_abbrev=False,
        formatter_class=_formatter(),
    )
    parser.add_argument("name", type=str, metavar="NAME", help=command.name_help)
    parser.add_argument("--config", action="config", help="YAML file with values of these flags.")
    for kind in command.groups:
        group = parser.add_argument_group(GROUPS[kind], _first_line(kind))
        _add_fields(group, config_fields(kind), more=command.more)
    if any_terms:
        parser.add_argument("--terms", type=dict, default=None)  # in a YAML file
    if recipe is not None:
        for term in recipe.terms:
            title = f"term {term.name} of the recipe {recipe.name} ({term.kind}; other recipes have other terms)"
            _add_fields(parser.add_argument_group(title), term.fields, f"terms.{term.name}.")
    return parser


def _add_fields(
    group: Any, known: Iterable[ConfigField], prefix: str = "", more: Mapping[str, str] | None = None
) -> None:
    for each in known:
        text = " ".join([each.text, *filter(None, [(more or {}).get(each.name)])])
        group.add_argument(f"--{prefix}{each.name}", help=text, **_typed(each.hint, each.default))


def _typed(hint: Any, default: Any) -> dict[str, Any]:
    """How a field's type is written on a command line."""
    inner = [part for part in get_args(hint) if part is not type(None)]
    tuples = [part for part in (hint, *inner) if get_origin(part) is tuple]
    if tuples:
        first, second = get_args(tuples[0])[:2]
        many: Any = "+" if second is Ellipsis else 2
        return {"type": first, "nargs": many, "default": default if default is None else list(default)}
    if hint is bool or bool in inner:  # --flag alone means true
        return {"type": hint, "nargs": "?", "const": True, "default": default}
    return {"type": hint, "default": default}


def _first_line(kind: type[Any]) -> str:
    return textwrap.fill((kind.__doc__ or "").split("\n", 1)[0], WIDTH)


def _formatter() -> type[Any]:
    """Help as of jsonargparse, with the examples' lines left as they are."""
    import argparse

    from jsonargparse import DefaultHelpFormatter

    class Formatter(DefaultHelpFormatter, argparse.RawDescriptionHelpFormatter):
        pass

    return Formatter


def _readable(message: str, parser: Any) -> str:
    """A message of jsonargparse as one sentence with the flag's name."""
    message = re.sub(r"<class '([\w.]+)'>|typing\.", r"\1", message)
    value = re.search(r"Given value: (.*)", message)
    key = re.search(r'Parser key "([\w.]+)"', message)
    types = re.search(r"Subtypes: \[(.*)\]", message)
    if key and value and types:
        expected = types.group(1).replace(", NoneType", "")
        return f"--{key.group(1)}: expected {expected}, got {value.group(1)!r}."
    if key:
        return f"--{key.group(1)}: {' '.join(message.split(':', 1)[1].split())}."
    unknown = re.search(r"unrecognized arguments: (\S+)|Option '(\S+)' is not accepted", message)
    if unknown:
        name = (unknown.group(1) or f"--{unknown.group(2)}").split("=")[0]
        known = [option for action in parser._actions for option in action.option_strings]
        close = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
        hint = f"Did you mean {' or '.join(close)}?" if close else "`--help` lists the flags."
        return f"Unknown flag or key {name}. {hint}"
    return f"{' '.join(message.split())}. `--help` explains the flags."
