"""Flags of `ld_hub.train` and `ld_hub.distill`: fields of dataclasses. Those of the training are `TrainConfig`'s."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from ld_hub.errors import ConfigError, MissingFileError
from ld_hub.hub import offline
from ld_hub.launch.data_arguments import DataArguments

if TYPE_CHECKING:
    from ld_hub.structures import Unlabeled


@dataclass(frozen=True)
class ModelArguments:
    """What is trained. The number of classes and their names are the data's.

    Attributes:
        backbone: Another backbone than the name's: r18 ... r101 or any timm model with features at strides 8, 16, 32.
        in_chans: Bands of an image: 1 for grey, 5 for TIFFs of five. Of bands of more than 8 bits, the percentiles 1
            and 99 over the training images become 0 and 255, and are kept in config.json.
        reg_max: Largest distance to a box edge in strides; a box edge has one bin more.
        anchor_scale: Side of the anchors in strides; smaller ones suit small objects.
        fpn_channels: Channels of the pyramid.
        head_width: Channels of the head's towers.
        head_depth: Convolutions per tower.
        frozen_stages: Keep the backbone's stem and so many of its stages as they are (0 trains everything, 1 is up to
            stride 4, as most ResNets here have it); the name's own where not given.
        pretrained_backbone: Start from timm's weights of the backbone, fetched once; false starts from random
            numbers, with all stages and batch norms trained.
        backbone_checkpoint: Local safetensors file with the backbone's weights under timm's names; nothing is fetched.
        checkpoint: Start from these weights of a whole detector: a model directory, a checkpoint file or a name with
            published weights. With other classes, the layer that predicts them starts anew.
        finetune_from: As checkpoint, of a model directory or a name with published weights: classes of the same name
            keep what it knows of them, in whatever order and number; the rows of others start anew, and it is said
            which.
    """

    backbone: str | None = None
    in_chans: int | None = None
    reg_max: int | None = None
    anchor_scale: float | None = None
    fpn_channels: int | None = None
    head_width: int | None = None
    head_depth: int | None = None
    frozen_stages: int | None = None
    pretrained_backbone: bool = True
    backbone_checkpoint: str | None = None
    checkpoint: str | None = None
    finetune_from: str | None = None

    def require_one_start(self) -> None:
        """Refuse two sources of the same weights.

        Raises:
            ConfigError: If there are two.
        """
        names = ("checkpoint", "finetune_from", "backbone_checkpoint")
        given = [f"--{name}" for name in names if getattr(self, name) is not None]
        if len(given) > 1:
            why = ": a checkpoint has a backbone" if "--backbone_checkpoint" in given else ""
            raise ConfigError(f"{' and '.join(given)} exclude each other{why}.")
        if self.finetune_from is not None and Path(self.finetune_from).expanduser().is_file():
            raise ConfigError(
                f"--finetune_from '{self.finetune_from}' is a file, which does not say what its classes are called: "
                "give the directory of a saved model or a name with weights, or take --checkpoint FILE."
            )
        if self.frozen_stages and not self.has_weights:
            raise ConfigError(
                f"--frozen_stages {self.frozen_stages} would keep random numbers as they are: leave it out, or give "
                "the backbone weights (without --pretrained_backbone false, or --backbone_checkpoint FILE)."
            )

    @property
    def has_weights(self) -> bool:
        """Whether the backbone starts from anything but random numbers."""
        return self.pretrained_backbone or self.starts_whole or self.backbone_checkpoint is not None

    @property
    def starts_whole(self) -> bool:
        """Whether the whole detector starts from trained weights."""
        return self.checkpoint is not None or self.finetune_from is not None

    def require_sizes(self) -> None:
        """Refuse sizes of nothing.

        Raises:
            ConfigError: Naming the flag.
        """
        for name in ("reg_max", "anchor_scale", "fpn_channels", "head_width", "head_depth"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise ConfigError(f"--{name} is {value}; it must be above 0.")


@dataclass(frozen=True)
class DistillArguments:
    """Who teaches, and how.

    Attributes:
        teacher: Teacher: a model directory (RUN/model) or a name. Several are separated by commas; all teach by the
            same recipe. NAME's own where not given. Or what only detects, and teaches by its boxes on the images of
            --unlabeled: hf:ORG/NAME or a directory (transformers), torchvision:NAME, boxes.json (COCO results), a
            directory of YOLO predictions.
        teacher_checkpoint: Weights of a teacher given by name: a .safetensors or a published .pth file; of one of
            torchvision's the state dict.
        teacher_weights: With several teachers: a factor of each one's terms, in their order; 1 where not given.
        teacher_scale: Size of the teacher's images over the student's; 2 lets its level l + 1 teach level l.
        class_map: Which class of the data is which of the teacher's, where names differ: person=pedestrian,car=auto
            (a mapping in YAML). Classes of the same name correspond anyhow.
        feature_teacher: An image encoder that teaches features: any timm model with maps, e.g.
            vit_small_patch16_dinov3.lvd1689m, whose weights are fetched once. Alone it teaches by the recipe cosine or
            another one on features; beside a detector by cosine, and the recipe is the detector's.
        feature_teacher_checkpoint: Local safetensors file with its weights under timm's names; nothing is fetched.
        feature_teacher_weight: Beside a teacher: a factor of its terms; 1 where not given.
        recipe: What is distilled: the name of a recipe, or a YAML file with one. NAME's own where not given, or
            auto, the one that we stand for (examples/unlabeled). A teacher that only detects takes none.
        reference: Compute every loss as the code base of the LD paper (ld) or of BCKD (bckd) did, faults included.
        individual_ld: Leave loss_bbox and loss_dfl to the teacher (LD paper, supplement, Table 1).
        balance: gradient scales each term so that its gradient is a set share of the detection loss's, instead of by
            the published weights, which were tuned for COCO; --terms.TERM.share sets it, 0.3 where not given.
        train_teacher: First train the teacher on this data, in output_dir/teacher, then distil. Resumable as a whole.
        cache_teacher: Ask the teacher once about each image, before the training, and read its answers from this
            directory in every step; auto chooses one, which other runs with this teacher, data and image size find
            again. Mirrored images have answers of their own; random sizes (short_sides) exclude it, as does what
            augment does beside the mirror.
        cache_bits: 32 keeps the teacher's numbers as they are, 8 takes a quarter of the room.
    """

    teacher: str | None = None
    teacher_checkpoint: str | None = None
    teacher_weights: tuple[float, ...] | None = None
    teacher_scale: float = 1.0
    class_map: str | dict[str, str] | None = None
    feature_teacher: str | None = None
    feature_teacher_checkpoint: str | None = None
    feature_teacher_weight: float | None = None
    recipe: str | None = None
    reference: Literal["ld", "bckd"] | None = None
    individual_ld: bool = False
    balance: Literal["none", "gradient"] = "none"
    train_teacher: bool = False
    cache_teacher: str | None = None
    cache_bits: Literal[8, 32] = 8

    def __post_init__(self) -> None:
        weights: Any = self.teacher_weights
        if isinstance(weights, list):  # from the command line or YAML
            object.__setattr__(self, "teacher_weights", tuple(weights))

    def require_teachers(self, teacher: str) -> None:
        """Refuse flags about a teacher that there is not.

        Args:
            teacher: Name or directory of the detector that teaches; the empty string where there is none.

        Raises:
            ConfigError: Naming the flag.
        """
        given = {name for name, value in vars(self).items() if value not in (None, False)}
        if self.feature_teacher is None:
            wrong, missing = given & {"feature_teacher_checkpoint", "feature_teacher_weight"}, "--feature_teacher NAME"
        elif not teacher:
            of_detectors = {"teacher_checkpoint", "teacher_weights", "train_teacher", "class_map"}
            wrong = given & {*of_detectors, "feature_teacher_weight"}
            missing = "--teacher NAME; --terms.TERM.weight weighs what a feature teacher teaches alone"
        else:
            return
        if wrong:
            raise ConfigError(f"--{min(wrong)} is about a teacher that is not there: give {missing}.")

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

    def weights(self, teachers: Sequence[str]) -> dict[str, float]:
        """`teacher_weights` by teacher, and that of the feature teacher.

        Raises:
            ConfigError: If there are not as many weights as teachers.
        """
        if self.teacher_weights is not None and len(self.teacher_weights) != len(teachers):
            raise ConfigError(
                f"--teacher_weights has {len(self.teacher_weights)} numbers; there are {len(teachers)} teachers "
                f"({', '.join(teachers)})."
            )
        weights = dict(zip(teachers, self.teacher_weights, strict=True)) if self.teacher_weights is not None else {}
        if self.feature_teacher is not None and self.feature_teacher_weight is not None:
            weights[self.feature_teacher] = self.feature_teacher_weight
        return weights


@dataclass(frozen=True)
class TeacherArguments:
    """How train_teacher trains; everything not given here is as for the student.

    Attributes:
        teacher_steps: Optimizer steps of the teacher's training.
        teacher_epochs: Passes over the training images, instead of teacher_steps.
        teacher_lr: Learning rate, as lr.
        teacher_backbone: Another backbone than the teacher's name says.
        teacher_pretrained_backbone: Start from published weights of the teacher or, where there are none, from timm's
            weights of its backbone; false starts from random numbers, and nothing is fetched.
        teacher_backbone_checkpoint: Local safetensors file with the backbone's weights under timm's names.
    """

    teacher_steps: int | None = None
    teacher_epochs: float | None = None
    teacher_lr: float | None = None
    teacher_backbone: str | None = None
    teacher_pretrained_backbone: bool = True
    teacher_backbone_checkpoint: str | None = None


@dataclass(frozen=True)
class UnlabeledArguments:
    """Images without labels: the teacher's detections on them are targets, weighted by their scores.

    Attributes:
        unlabeled: The images: a directory (with subdirectories), a .txt file with a path on each line, or a data set,
            of which only the training images' pixels are used.
        unlabeled_batch: Images without labels per process and micro-step; batch_size where not given.
        unlabeled_weight: Factor of their losses, which are logged as unlabeled_....
        unlabeled_ramp: Share of the run over which the factor rises from 0.
        unlabeled_threshold: Least score of a detection that is a target; the score of best F1 on the labelled images
            where not given, 0.45 where there are none.
        unlabeled_unsure: Detections between this score and the threshold are neither targets nor background; half the
            threshold where not given.
        unlabeled_per_class: Find a threshold for each class, instead of one for all.
        unlabeled_targets: Train on the teacher's detections; false leaves the recipe's terms alone.
        unlabeled_terms: Apply the recipe's terms to these images, too.
        labeled_terms: Apply them to the images with labels; with neither the teacher teaches by its detections alone.
        unlabeled_regions: Where these terms look: around the teacher's detections, or at its confident cells.
        train_labels: false takes no image with labels: data is only evaluated on.
    """

    unlabeled: str | None = None
    unlabeled_batch: int | None = None
    unlabeled_weight: float = 1.0
    unlabeled_ramp: float = 0.0
    unlabeled_threshold: float | None = None
    unlabeled_unsure: float | None = None
    unlabeled_per_class: bool = False
    unlabeled_targets: bool = True
    unlabeled_terms: bool = True
    labeled_terms: bool = True
    unlabeled_regions: Literal["targets", "confident"] = "targets"
    train_labels: bool = True

    def require(self) -> None:
        """Refuse images that are not there, or are missed.

        Raises:
            MissingFileError: If there is no such place.
            ConfigError: If there is nothing to train on.
        """
        if self.unlabeled is not None and not Path(self.unlabeled).expanduser().exists():
            raise MissingFileError(f"--unlabeled: there is no directory, list or data set '{self.unlabeled}'.")
        if self.unlabeled is None and not self.train_labels:
            raise ConfigError("--train_labels false leaves nothing to train on: give images, --unlabeled DIR.")

    def wanted(self, batch_size: int) -> Unlabeled | None:
        """How the images take part; None where there are none.

        Args:
            batch_size: Of the images with labels.

        Raises:
            ConfigError: If a value is out of range.
        """
        from ld_hub.structures import Unlabeled

        if self.unlabeled is None:
            return None
        return Unlabeled(
            batch=batch_size if self.unlabeled_batch is None else self.unlabeled_batch,
            weight=self.unlabeled_weight,
            ramp=self.unlabeled_ramp,
            threshold=self.unlabeled_threshold,
            unsure=self.unlabeled_unsure,
            per_class=self.unlabeled_per_class,
            targets=self.unlabeled_targets,
            terms=self.unlabeled_terms,
            labeled_terms=self.labeled_terms,
            regions=self.unlabeled_regions,
        )


@dataclass(frozen=True)
class ComparisonArguments:
    """What the distillation gains: the student alone beside it, over seeds; output_dir/comparison.json has the numbers.

    Attributes:
        compare_alone: Also train the same student without the teacher, from the same start on the same batches: for as
            many steps, and again for as many seconds as the distillation took, each with its whole schedule. With
            unlabeled, on the images with labels only. Takes three times as long.
        seeds: Repeat all of it with so many seeds, from seed on; 3 or more tell a gain from chance.
    """

    compare_alone: bool = False
    seeds: int = 1

    @property
    def wanted(self) -> bool:
        """Whether there is more than a single run."""
        return self.compare_alone or self.seeds > 1

    def require(self, data: DataArguments, unlabeled: UnlabeledArguments) -> None:
        """Refuse comparisons that nothing would come out of.

        Raises:
            ConfigError: If the student alone has nothing to train on, or there are no images to evaluate on.
        """
        if self.seeds < 1:
            raise ConfigError(f"--seeds is {self.seeds}; it must be at least 1.")
        if self.compare_alone and not unlabeled.train_labels:
            raise ConfigError(
                "--compare_alone trains the student on images with labels, and --train_labels false takes none: leave "
                "one of the two out."
            )
        if self.wanted and data.data is None and data.val_annotations is None:
            flag = "--compare_alone" if self.compare_alone else "--seeds"
            raise ConfigError(
                f"{flag} compares by AP, and there are no images to evaluate on: give --val_images DIR and "
                "--val_annotations FILE."
            )


@dataclass(frozen=True)
class TrialArguments:
    """Whether the run is only tried.

    Attributes:
        dry_run: Read the data, build the networks, make one step on two images, print what the run will be, and end;
            nothing is written.
    """

    dry_run: bool = False


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
