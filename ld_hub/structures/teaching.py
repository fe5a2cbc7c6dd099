"""How a student is taught: one thing, from the flags to the card."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, TypeAlias

from ld_hub.checked import Source, read_fields
from ld_hub.errors import CheckpointError

Balance: TypeAlias = Literal["none", "gradient"]
_IN_FILES = {"recipe": "name", "teachers": "teacher", "origins": "teacher_origin"}  # what files call some fields
_OPTIONS = ("teachers", "origins", "balance", "teacher_scale", "class_map", "teacher_weights")  # in files where given


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
        teachers: Names of the teachers' models.
        origins: ``org/name@commit`` by name, of those that came from the Hub.
        individual_ld: Whether loss_bbox and loss_dfl are left to the teacher (LD paper, supplement, Table 1).
        balance: ``"gradient"`` scales each term so that its gradient is a set share of the detection loss's, whatever
            its weight; ``"none"`` takes the weights as they are.
        teacher_scale: Size of the teachers' images over the student's.
        class_map: The teacher's name of classes that the student calls otherwise.
        teacher_weights: Of several teachers: factor of each one's terms, by the name that it was given under.
    """

    recipe: str = "custom"
    summary: str = ""
    reference: str | None = None
    family: str = "gfocal"
    paper: str = ""
    terms: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    teachers: tuple[str, ...] = ()
    origins: Mapping[str, str] = field(default_factory=dict)
    individual_ld: bool = False
    balance: Balance = "none"
    teacher_scale: float = 1.0
    class_map: Mapping[str, str] = field(default_factory=dict)
    teacher_weights: Mapping[str, float] = field(default_factory=dict)

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
