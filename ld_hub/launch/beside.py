"""Every run that one command of `ld_hub.distill` makes: a distillation, other seeds of it, the student alone beside."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path

import yaml

from ld_hub.analysis.comparison import Comparison
from ld_hub.data import DetectionSet
from ld_hub.data.stream_set import TrainingSet
from ld_hub.engine.checkpoint import RunDirectory
from ld_hub.engine.run_result import RunResult
from ld_hub.engine.train_config import TrainConfig
from ld_hub.engine.trainer import DetectionTrainer, DistillationTrainer
from ld_hub.hub.card_file import read_yaml
from ld_hub.launch.arguments import ComparisonArguments, DistillArguments, HubArguments, ModelArguments
from ld_hub.launch.flag_parser import Command, Parsed
from ld_hub.launch.repeats import Repeats, result_of
from ld_hub.launch.start import Say, build_model, require_known, seed_weights
from ld_hub.models.detector import DenseDetector
from ld_hub.models.feature_teacher import FeatureTeacher
from ld_hub.models.names import find, split_tag
from ld_hub.structures import Teaching
from ld_hub.teachers.box_teacher import BoxTeacher


@dataclass(frozen=True)
class Students:
    """What the runs of a command begin with; the data is read and the teachers are loaded once for all of them.

    Attributes:
        parsed: The flags.
        training: Images with labels to train on, or None.
        evaluation: Images to evaluate on, or None.
        unlabeled: Images without labels, or None.
        teacher: Who finds boxes: a detector, or several by name, or what only detects; None where nobody does.
        encoder: The image encoder that teaches features, or None.
        teaching: What they teach.
        first: Settings of the first distillation.
        attachments: Of its directory.
        commands: Those of the distillation and of the training alone, whose flags go into the other directories.
        say: Told what the user should know.
    """

    parsed: Parsed
    training: TrainingSet | None
    evaluation: DetectionSet | None
    unlabeled: DetectionSet | None
    teacher: DenseDetector | Mapping[str, DenseDetector] | BoxTeacher | None
    encoder: FeatureTeacher | None
    teaching: Teaching
    first: TrainConfig
    attachments: Mapping[str, str]
    commands: tuple[Command, Command]
    say: Say

    def train(self) -> tuple[RunResult, Comparison | None]:
        """All runs asked for; returns what came out of the first distillation, and the comparison if there is one."""
        wanted = self.parsed.of(ComparisonArguments)
        if not wanted.wanted:
            return self.distilled(self.first).train(), None
        alone = self.alone if wanted.compare_alone else None
        comparison = Repeats(self.distilled, alone, seeds=wanted.seeds, say=self.say).train(self.first)
        return result_of(RunDirectory(self.first.output_dir)), comparison

    def distilled(self, config: TrainConfig) -> DistillationTrainer:
        """The trainer of a student with its teachers."""
        flags = self.parsed.of(DistillArguments)
        return DistillationTrainer(
            self._student(self.parsed.name, config),
            self.teacher,
            feature_teacher=self.encoder,
            teaching=self.teaching,
            cache_teacher=flags.cache_teacher,
            cache_bits=flags.cache_bits,
            unlabeled_dataset=self.unlabeled,
            train_dataset=self.training,
            eval_dataset=self.evaluation,
            config=config,
            attachments=self.attachments if config == self.first else self._flags(config, self.commands[0]),
        )

    def alone(self, config: TrainConfig) -> DetectionTrainer:
        """The trainer of the same student without them."""
        return DetectionTrainer(
            self._student(_student_of(self.parsed.name), config),
            train_dataset=require_known(self.training, None),
            eval_dataset=self.evaluation,
            config=config,
            attachments=self._flags(config, self.commands[1]),
        )

    def _student(self, name: str, config: TrainConfig) -> DenseDetector:
        """A student of the data's classes with the weights that it starts from."""
        seed_weights(config)
        known = require_known(self.training, self.evaluation)
        resuming = RunDirectory(config.output_dir).resumes(config.resume)
        return build_model(name, self.parsed.of(ModelArguments), known, self.say, resuming=resuming)

    def _flags(self, config: TrainConfig, command: Command) -> dict[str, str]:
        """arguments.yaml of another run than the first: the flags by which a command makes this one by itself."""
        names = {"name", *(item.name for kind in command.groups for item in fields(kind))}
        changes = {**config.to_dict(), **vars(ComparisonArguments()), **vars(HubArguments()), "resume": False}
        if command is self.commands[0]:
            names.add("terms")
        else:
            changes["name"] = _student_of(self.parsed.name)
        if self.parsed.values["train_teacher"]:
            changes |= {"train_teacher": False, "teacher": str(Path(config.output_dir).parents[1] / "teacher/model")}
        values = {**read_yaml(self.parsed.yaml), **changes}
        kept = {key: value for key, value in values.items() if key in names}
        return {"arguments.yaml": yaml.safe_dump(kept, sort_keys=False)}


def _student_of(name: str) -> str:
    """The student's own name of a distilled one; any other name stays."""
    distilled = find(split_tag(name)[0]).distilled
    return name if distilled is None else distilled.student
