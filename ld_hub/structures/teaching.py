"""How a student is taught: one thing, from the flags to the card."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal, TypeAlias

from ld_hub.checked import Source, read_fields
from ld_hub.errors import CheckpointError, ConfigError

HASHED = "sha256:"  # how the origin of a teacher starts that is a file or has no commit
Balance: TypeAlias = Literal["none", "gradient"]
_IN_FILES = {"recipe": "name", "teachers": "teacher", "origins": "teacher_origin"}  # what files call some fields
_OPTIONS = (
    "teachers",
    "origins",
    "kinds",
    "balance",
    "teacher_scale",
    "class_map",
    "teacher_weights",
    "unlabeled",
    "scored",
    "feature_teacher",
)


@dataclass(frozen=True)
class Unlabeled:
    """How images without labels take part in a distillation.

    Attributes:
        batch: Images without labels per process and micro-step.
        weight: Factor of their losses.
        ramp: Share of the run over which the factor rises from 0.
        threshold: Least score of a teacher's detection that is a target; None for the score of best F1 on the labelled
            images, or 0.45 where there are none.
        unsure: Least score of a detection that is at least no background; None for half the threshold.
        per_class: Look for a threshold for each class, instead of one for all.
        targets: Train on the teacher's detections (scored targets).
        terms: Apply the recipe's terms to these images, too.
        labeled_terms: Apply the recipe's terms to the images with labels; with neither terms the teacher teaches by
            its detections alone.
        regions: Where terms look: around the scored ``"targets"``, or at the teacher's ``"confident"`` cells.

    Raises:
        ConfigError: If a number is out of range, or neither targets nor terms are wanted.
    """

    batch: int = 2
    weight: float = 1.0
    ramp: float = 0.0
    threshold: float | None = None
    unsure: float | None = None
    per_class: bool = False
    targets: bool = True
    terms: bool = True
    labeled_terms: bool = True
    regions: Literal["targets", "confident"] = "targets"

    def __post_init__(self) -> None:
        if self.batch < 1:
            raise ConfigError(f"unlabeled_batch is {self.batch}; expected at least 1.")
        if not 0 <= self.weight < float("inf") or not 0 <= self.ramp <= 1:
            raise ConfigError(
                f"unlabeled_weight is {self.weight:g} and unlabeled_ramp {self.ramp:g}; expected a number of at least "
                "0 and a share of the run from 0 to 1."
            )
        for name in ("threshold", "unsure"):
            value = getattr(self, name)
            if value is not None and not 0 < value <= 1:
                raise ConfigError(f"unlabeled_{name} is {value:g}; expected a score above 0, up to 1.")
        if self.threshold is not None and self.unsure is not None and self.unsure > self.threshold:
            raise ConfigError(
                f"unlabeled_unsure is {self.unsure:g}, above unlabeled_threshold, {self.threshold:g}: nothing could be "
                "unsure."
            )
        if self.regions not in ("targets", "confident"):
            raise ConfigError(f"unlabeled_regions is {self.regions!r}; expected 'targets' or 'confident'.")
        if not (self.targets or self.terms):
            raise ConfigError("unlabeled_targets and unlabeled_terms are both false: the images would teach nothing.")

    def factor(self, step: int, steps: int) -> float:
        """Factor of their losses at a 0-based optimizer step of a run of so many."""
        rising = self.ramp * steps
        return self.weight * min(1.0, (step + 1) / rising) if rising else self.weight


@dataclass(frozen=True)
class FeatureTeaching:
    """An image encoder that teaches features.

    Attributes:
        name: Of the encoder, in timm where it is from there, with its tag.
        weights_sha256: First digits of the hash of its tensors.
        terms: What it teaches beside a detector, whose recipe is another: fields of each term by its name, with its
            ``kind``. Empty where it teaches alone, by the teaching's recipe.
    """

    name: str = ""
    weights_sha256: str = ""
    terms: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


@dataclass(frozen=True)
class Scored:
    """What came of images without labels.

    Attributes:
        images: How many took part.
        sure: Least score of a detection that was a target, for each class of the student.
        unsure: Least score of a detection that was at least no background, likewise.
    """

    images: int
    sure: tuple[float, ...]
    unsure: tuple[float, ...]

    def describe(self) -> str:
        """From which scores on boxes counted, in words; of classes that differ, the least and the largest."""
        sure, unsure = (_range(values) for values in (self.sure, self.unsure))
        return f"boxes were targets from a score of {sure} on, and from {unsure} on neither targets nor background"


@dataclass(frozen=True)
class Teaching:
    """What is distilled, by whom, and with which options: plain values, that need no term to be known.

    `ld_hub.distillation.make_teaching` makes one of a recipe, `recipe_of` gives the recipe back. A trainer takes it,
    adds the teachers and leaves it with the student (`DenseDetector.teaching`), in whose config.json it is stored as
    ``"recipe"``; cards, and runs that are continued, read it from there.

    Attributes:
        recipe: Name of the recipe.
        summary: Of the recipe, one line.
        reference: Code base whose computation the terms follow; None for the sound default.
        family: Family of detectors whose published settings the terms have.
        paper: Address of the recipe's paper.
        terms: Fields of each term by its name, with its ``kind``.
        teachers: Names of the teachers' models, the image encoder's last.
        origins: ``org/name@commit`` by name, of those that came from the Hub; ``sha256:...`` of files of boxes.
        kinds: What teachers are that are no detectors of this library, by name: they only detect.
        individual_ld: Whether loss_bbox and loss_dfl are left to the teacher (LD paper, supplement, Table 1).
        balance: ``"gradient"`` scales each term so that its gradient is a set share of the detection loss's, whatever
            its weight; ``"none"`` takes the weights as they are.
        teacher_scale: Size of the teachers' images over the student's.
        class_map: The teacher's name of classes that the student calls otherwise.
        teacher_weights: Of several teachers: factor of each one's terms, by the name that it was given under.
        unlabeled: How images without labels take part; None where there are none.
        scored: What came of them, once the run has begun.
        feature_teacher: The image encoder among the teachers; None where there is none.
    """

    recipe: str = "custom"
    summary: str = ""
    reference: str | None = None
    family: str = "gfocal"
    paper: str = ""
    terms: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    teachers: tuple[str, ...] = ()
    origins: Mapping[str, str] = field(default_factory=dict)
    kinds: Mapping[str, str] = field(default_factory=dict)
    individual_ld: bool = False
    balance: Balance = "none"
    teacher_scale: float = 1.0
    class_map: Mapping[str, str] = field(default_factory=dict)
    teacher_weights: Mapping[str, float] = field(default_factory=dict)
    unlabeled: Unlabeled | None = None
    scored: Scored | None = None
    feature_teacher: FeatureTeaching | None = None

    @property
    def detectors(self) -> tuple[str, ...]:
        """Names of the teachers that find boxes."""
        return self.teachers if self.feature_teacher is None else self.teachers[:-1]

    def who(self) -> str:
        """The teachers in words: names, and what and whence they are, as far as that is known."""
        facts = {name: [self.kinds.get(name), self.origins.get(name)] for name in self.teachers}
        if self.feature_teacher is not None:
            facts[self.feature_teacher.name] += ["image encoder", f"sha256 {self.feature_teacher.weights_sha256}..."]
        told = {name: ", ".join(filter(None, each)) for name, each in facts.items()}
        return ", ".join(f"{name} ({each})" if each else name for name, each in told.items())

    def without_labels(self) -> str:
        """How images without labels took part, in words; the empty string where there were none."""
        if self.unlabeled is None:
            return ""
        number = "Images" if self.scored is None else f"{self.scored.images} images"
        text = (
            f"{number} without labels took part, {self.unlabeled.batch} a batch, with weight {self.unlabeled.weight:g}"
        )
        boxes = "; their scored targets were left out" if not self.unlabeled.targets else ""
        return text + (boxes or ("" if self.scored is None else f"; {self.scored.describe()}"))

    def wished(self) -> Teaching:
        """What was asked for: without commits, which may hold the same weights, and without what was found."""
        return replace(self, origins={}, scored=None)

    def to_dict(self) -> dict[str, Any]:
        """JSON values as config.json has them; a single teacher stands there as a text, and options where given."""
        plain, defaults = asdict(self), vars(Teaching())
        if len(self.teachers) == 1:
            plain["teachers"] = self.teachers[0]
        kept = {name: value for name, value in plain.items() if name not in _OPTIONS or value != defaults[name]}
        return {_IN_FILES.get(name, name): value for name, value in kept.items()}

    @classmethod
    def from_dict(cls, content: Mapping[str, Any], where: str = "the recipe") -> Teaching:
        """The inverse of `to_dict`, checked.

        Args:
            content: Parsed JSON.
            where: Its source, for messages.

        Raises:
            CheckpointError: Naming the field, what it is and what it should be.
        """
        fields = {_IN_FILES.get(name, name): name for name in vars(cls())}
        named = {fields[key]: value for key, value in content.items() if key in fields}
        if isinstance(named.get("teachers"), str):
            named["teachers"] = [named["teachers"]]
        return read_fields(cls, named, Source(where, CheckpointError))


def _range(values: tuple[float, ...]) -> str:
    least, most = min(values), max(values)
    return f"{least:g}" if least == most else f"{least:g} to {most:g}"
