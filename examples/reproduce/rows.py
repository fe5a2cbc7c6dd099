"""The published rows: what each was trained from, how, and what came out, as its authors say.

Settings are those of the configuration files that the authors published; where there is none, of the nearest one, which
the notes say. Learning rates are for 16 images per step, as everywhere in ld_hub.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import ld_hub.models.factory  # noqa: F401  # registers the models
from ld_hub.distillation import get_recipe
from ld_hub.registry import MODELS

LD = "README of the LD repository"
LD_PAPER = "LD paper"
BCKD = "README of the BCKD repository"
CROSSKD = "CrossKD paper"
TEACHER_FILES = {"gfocal_r101": "ms2x", "gfocal_r101_dcn": "ms2x", "gfocal_r50": "1x"}  # OpenMMLab's, as the authors'

PER_DEVICE = (
    "With reference: ld the LD terms are sums over a device's own images, so that images per device matter (the "
    "published rule is at most 3). Without reference they are not: then the strength is that of 2 images per device."
)
TEACHER_FIRST = (
    "There are no weights of the authors' teacher to download: it is trained first ({epochs} epochs), in RUN/teacher. "
    "{how}To use one that you have: --train_teacher false --teacher DIR."
)


@dataclass(frozen=True)
class Row:
    """A row of a published table.

    Attributes:
        model: Distilled name, with a tag where the weights' own settings are wanted.
        title: What is trained.
        ap: Published AP in percent; None where its authors give none.
        source: Who says so.
        more: Further figures of the row.
        metric: What the AP is, if not COCO val2017's.
        suffix: Tells its file from others of the same name.
        processes: Devices of the published run.
        batch_size: Images per device.
        reference: Code base whose computation is taken.
        teacher_epochs: Train the teacher first, for so many epochs.
        changes: Further flags.
        notes: What a user should know.
    """

    model: str
    title: str
    ap: float | None
    source: str
    more: str = ""
    metric: str = ""
    suffix: str = ""
    processes: int = 2
    batch_size: int = 3
    reference: str | None = "ld"
    teacher_epochs: int | None = None
    changes: dict[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @property
    def file(self) -> str:
        """Name of its YAML without the ending."""
        return self.model.partition(".")[0] + (f"_{self.suffix}" if self.suffix else "")

    @property
    def voc(self) -> bool:
        """Whether it is trained on PASCAL VOC."""
        return self.suffix == "voc"

    @property
    def images_per_step(self) -> int:
        """Images of all devices."""
        return self.processes * self.batch_size

    @property
    def published(self) -> str:
        """The figures and their source, in words."""
        if self.ap is None:
            return f"no figure ({self.source})."
        return f"{self.metric or 'COCO val2017'} AP {self.ap:.1f}{self.more} ({self.source})."

    @property
    def recipe(self) -> str:
        """Name of the recipe."""
        distilled = MODELS[self.model.partition(".")[0]].distilled
        return "" if distilled is None else distilled.recipe

    def names(self) -> tuple[str, str]:
        """Student and teacher."""
        distilled = MODELS[self.model.partition(".")[0]].distilled
        return ("", "") if distilled is None else (distilled.student, distilled.teacher)

    def settings(self) -> dict[str, Any]:
        """The flags."""
        teacher = self.names()[1]
        flags: dict[str, Any] = {"name": self.model, "recipe": self.recipe}
        if self.reference is not None:
            flags["reference"] = self.reference
        if self.teacher_epochs is not None:  # from its backbone's weights, even where there are weights of the detector
            backbone = MODELS[teacher].config["backbone"]
            flags |= {"train_teacher": True, "teacher_epochs": self.teacher_epochs, "teacher_backbone": backbone}
        elif teacher in TEACHER_FILES:
            flags["teacher"] = f"{teacher}.mmdet_{TEACHER_FILES[teacher]}_coco"
        flags |= {"schedule": "1x", "lr": 0.01, "batch_size": self.batch_size, "image_size": [800, 1333]}
        flags |= {"warmup_steps": 500, "filter_empty": True, "eval_every_epochs": 1, **self.changes}
        return {name: value for name, value in flags.items() if value is not None}


MULTI_SCALE: dict[str, Any] = {"schedule": "2x", "short_sides": [480, 800]}
FCOS: dict[str, Any] = {"bias_lr_factor": 2.0, "bias_weight_decay": 0.0, "warmup_ratio": 0.3333333333333333}
MANY_SCALES = (
    "The authors' saw short sides of 480 to 800; with those: `accelerate launch -m ld_hub.train {teacher} --data coco/ "
    "--schedule 2x --short_sides 480 800` first. "
)
CAFFE = (
    "Caffe-style backbones: timm has no weights of them. Give --backbone_checkpoint FILE (and "
    "--teacher_backbone_checkpoint FILE where the teacher is trained first)."
)


def _bins_teacher(teacher: str) -> str:
    return TEACHER_FIRST.format(epochs=24, how=MANY_SCALES.format(teacher=teacher))


def _main() -> list[Row]:
    """Main-region LD alone: LD's first table."""
    return [
        Row("gfocal_r18_ld_r101", "GFocal R-18 by R-101, main LD alone, 1x", 36.5, LD,
            ", AP50 52.9, AP75 39.3; OpenMMLab's 36.5; without a teacher 35.8", notes=(PER_DEVICE,)),
        Row("gfocal_r34_ld_r101", "GFocal R-34 by R-101, main LD alone, 1x", 39.8, LD,
            ", AP50 56.6, AP75 43.1; OpenMMLab's 39.9; without a teacher 38.9", notes=(PER_DEVICE,)),
        Row("gfocal_r50_ld_r101", "GFocal R-50 by R-101, main LD alone, 1x", 41.1, LD,
            ", AP50 58.7, AP75 44.9; OpenMMLab's 41.0; without a teacher 40.1", batch_size=2, notes=(
                "Temperature (LD paper): --terms.ld.temperature 1 / 5 / 10 / 15 / 20 gave 40.3 / 40.9 / 41.1 / 40.7 / "
                "40.5.", PER_DEVICE)),
        Row("gfocal_r101_ld_r101_dcn", "GFocal R-101 by R-101-DCN, main LD alone, multi-scale 2x", 45.4, LD,
            ", AP50 63.1, AP75 49.5; OpenMMLab's 45.5; without a teacher 44.6", changes=MULTI_SCALE,
            notes=(PER_DEVICE,)),
        Row("gfocal_r18_ld_r101", "GFocal R-18 by R-101, LD in the place of GIoU loss and DFL, 1x", 36.4,
            "LD paper, supplement", ", AP75 39.3; with all of them 36.5, with GIoU loss and DFL alone 35.8",
            suffix="individual", changes={"individual_ld": True}, notes=(PER_DEVICE,)),
    ]  # fmt: skip


def _full() -> list[Row]:
    """Main KD + main LD + VLR LD, alone and with imitation; GFocalV2."""
    gamma = (
        "Gamma: --terms.ld_vlr.gamma 1 / 0.75 / 0.5 / 0.25 / 0 gave 41.1 / 41.2 / 41.7 / 41.8 / 41.7 (second-hand "
        "figures, it seems without the main KD: --terms.kd.weight 0); 1 leaves the region empty."
    )
    second = TEACHER_FIRST.format(epochs=24, how="The authors' saw several scales. ")
    joint = "The released head distils class logits before they are multiplied by the quality; here their product."
    return [
        Row("gfocal_r18_vlr_r101", "GFocal R-18 by R-101: main KD + main LD + VLR LD, 1x", 37.5, LD,
            notes=(PER_DEVICE,)),
        Row("gfocal_r34_vlr_r101", "GFocal R-34 by R-101: main KD + main LD + VLR LD, 1x", 41.0, LD,
            notes=(PER_DEVICE,)),
        Row("gfocal_r50_vlr_r101", "GFocal R-50 by R-101: main KD + main LD + VLR LD, 1x", 42.1, LD,
            ", AP50 60.3, AP75 45.6, S/M/L 24.5/46.2/54.8; without a teacher 40.1", batch_size=2,
            notes=("The released R-50 configuration also imitates features: gfocal_r50_vlr_fine_grained_r101.yaml.",
                   gamma, PER_DEVICE)),
        Row("gfocal_r50_vlr_gi_r101", "GFocal R-50 by R-101: main KD + main LD + VLR LD + GI imitation, 1x", 42.4, LD,
            batch_size=2, notes=(PER_DEVICE,)),
        Row("gfocal_r50_vlr_fine_grained_r101", "GFocal R-50 by R-101 as the released R-50 configuration, 1x", None,
            "the LD repository's configuration adds fine-grained imitation to the 42.1 row, and no table has both",
            batch_size=2, notes=(PER_DEVICE,)),
        Row("gfocalv2_r50_vlr_r101", "GFocalV2 R-50 by R-101: main KD + main LD + VLR LD, 1x", 42.7, LD,
            "; without a teacher 41.1", teacher_epochs=24, notes=(second, joint, PER_DEVICE)),
        Row("gfocalv2_r101_vlr_r101_dcn", "GFocalV2 R-101 by R-101-DCN: main KD + main LD + VLR LD, multi-scale 2x",
            47.1, LD, metric="COCO test-dev", processes=8, batch_size=2, teacher_epochs=24,
            changes={"schedule": "2x", "short_sides": [480, 960]}, notes=(second, joint, PER_DEVICE)),
    ]  # fmt: skip


def _self() -> list[Row]:
    """A student taught by a detector like itself."""
    nearest = "No configuration of this row is known: settings are those of its neighbours in the tables."
    own = TEACHER_FIRST.format(epochs=12, how="")
    twice = TEACHER_FIRST.format(epochs=24, how="")
    wide = "The authors' x101 teacher has 46.9; OpenMMLab's multi-scale one, which could be named instead, has 48.1."
    return [
        Row("gfocal_r18_ld_r18", "GFocal R-18 by itself, main LD alone, 1x", 36.1, LD,
            ", AP75 38.5; its teacher 35.8", teacher_epochs=12, notes=(nearest, own, PER_DEVICE)),
        Row("gfocal_r50_ld_r50", "GFocal R-50 by itself, main LD alone, 1x", 40.6, LD,
            ", AP50 58.2, AP75 43.8; its teacher 40.1, the one named here 40.2", batch_size=2,
            notes=(nearest, PER_DEVICE)),
        Row("gfocal_x101_32x4d_dcn_ld_x101_32x4d_dcn", "GFocal X-101-32x4d-DCN by itself, main LD alone, 2x", 47.5, LD,
            ", AP50 65.8, AP75 51.8; its teacher 46.9", teacher_epochs=24, changes={"schedule": "2x"}, batch_size=2,
            notes=(nearest, twice, wide, PER_DEVICE)),
    ]  # fmt: skip


def _imitation() -> list[Row]:
    """Feature imitation without logits, R-101 to R-50: LD's Table 6."""
    rows: dict[str, tuple[float, str, tuple[str, ...]]] = {
        "fitnets": (40.7, ", AP50 58.6, AP75 44.0", (
            "Every cell, as the table says; the released code's 'fitnet' looks inside the boxes only, as "
            "gfocal_r50_inside_gt_r101.yaml does.",)),
        "inside_gt": (40.7, ", AP50 58.6, AP75 44.2", ()),
        "main_region": (41.1, ", AP50 58.7, AP75 44.4", ()),
        "fine_grained": (41.1, ", AP50 58.8, AP75 44.8", ()),
        "defeat": (40.8, ", AP50 58.6, AP75 44.2", (
            "The released code of this method ('decouple') stops with an error; the weights of foreground and "
            "background are its own.",)),
        "gi": (41.5, ", AP50 59.6, AP75 45.2", ()),
    }  # fmt: skip
    weight = "The weight of imitation, 2, is that of the released R-50 configuration."
    return [
        Row(f"gfocal_r50_{recipe}_r101", f"GFocal R-50 by R-101: {get_recipe(recipe).summary}, 1x", ap, LD,
            f"{more}; without a teacher 40.1", batch_size=2, notes=(*notes, weight))
        for recipe, (ap, more, notes) in rows.items()
    ]  # fmt: skip


def _families() -> list[Row]:
    """LD with other heads: paper's table of sizes and speeds."""
    words = "R-50 by R-101, boxes as bins: main KD + main LD + VLR LD, 1x"
    return [
        Row("atss_r50_vlr_r101", f"ATSS {words}", 41.6, LD_PAPER, "; without 39.2", processes=8, batch_size=2,
            teacher_epochs=24, notes=(_bins_teacher("atss_r101_bins"), PER_DEVICE)),
        Row("fcos_r50_vlr_r101", f"FCOS {words}", 40.6, LD_PAPER, "; without 38.6", processes=8, batch_size=2,
            teacher_epochs=24, changes=FCOS, notes=(CAFFE, _bins_teacher("fcos_r101_caffe_bins"), PER_DEVICE)),
        Row("retinanet_r50_vlr_r101", f"RetinaNet {words}", 39.0, LD_PAPER, "; without 36.9", batch_size=2,
            teacher_epochs=24, notes=(_bins_teacher("retinanet_r101_bins"), PER_DEVICE)),
    ]  # fmt: skip


def _bckd() -> list[Row]:
    """Binary class distillation and IoU of boxes."""
    nearest = "No configuration of this student was released; this is R-50's."
    parts = "Parts (second-hand figures): --terms.bckd_box.weight 0 gave 42.0, --terms.bckd_cls.weight 0 gave 42.3."
    leaky = "A MobileNetV2 with leaky ReLU; all of its stages are trained."
    swin = (
        "The teacher has no published weights: `accelerate launch -m ld_hub.train gfocal_swin_t --data coco/ "
        "--optimizer adamw --schedule 2x`, then --teacher runs/gfocal_swin_t/model."
    )
    common: dict[str, Any] = {"processes": 8, "batch_size": 2, "reference": "bckd"}
    return [
        Row("gfocal_r18_bckd_r101", "GFocal R-18 by R-101: BCKD, 1x", 38.6, BCKD, "; without a teacher 35.8",
            notes=(nearest,), **common),
        Row("gfocal_r34_bckd_r101", "GFocal R-34 by R-101: BCKD, 1x", 42.0, BCKD, "; without a teacher 38.9",
            notes=(nearest,), **common),
        Row("gfocal_r50_bckd_r101", "GFocal R-50 by R-101: BCKD, 1x", 43.2, BCKD, "; without a teacher 40.1",
            notes=(parts,), **common),
        Row("gfocal_mobilenetv2_leaky_bckd_r101", "GFocal MobileNetV2 by R-101: BCKD, 1x", None,
            "a configuration of the BCKD repository without a figure", notes=(leaky,), **common),
        Row("gfocal_r50_bckd_swin_t", "GFocal R-50 by Swin-T: BCKD, 1x", None,
            "a configuration of the BCKD repository without a figure", notes=(swin,), **common),
    ]  # fmt: skip


def _crosskd() -> list[Row]:
    """The student's features through the teacher's head."""
    over = {name: {"over": "batch"} for name in ("cross_cls", "cross_box", "cross_pkd")}
    cross: dict[str, Any] = {"terms": {name: over[name] for name in ("cross_cls", "cross_box")}}
    with_pkd: dict[str, Any] = {"terms": over}
    written = (
        "Written from a description of the method, not from its code (whose licence excludes commercial use): no "
        "recorded data proves it. The schedule is that of its tables, the rest of it as usual in its code base."
    )
    batch = "over: batch takes statistics over a device's whole batch, padding included, as published."
    fcos = (
        "The authors' detectors are FCOS's first version; this student's boxes and centerness are its improved one's."
    )
    common: dict[str, Any] = {"processes": 8, "batch_size": 2, "reference": None}
    notes = (written, batch)
    return [
        Row("gfocal_r50_crosskd_r101", "GFocal R-50 by R-101: CrossKD, 1x", 43.7, CROSSKD, changes=cross, notes=notes,
            **common),
        Row("gfocal_r50_crosskd_pkd_r101", "GFocal R-50 by R-101: CrossKD + PKD, 1x", 43.9, CROSSKD, changes=with_pkd,
            notes=notes, **common),
        Row("atss_r50_crosskd_r101", "ATSS R-50 by R-101: CrossKD, 1x", 41.8, CROSSKD, "; without a teacher 39.4",
            changes={"teacher": "atss_r101.mmdet_1x_coco", **cross}, notes=notes, **common),
        Row("fcos_r50_crosskd_r101", "FCOS R-50 by R-101: CrossKD, multi-scale 2x", 41.1, CROSSKD,
            "; without a teacher 38.5", notes=(CAFFE, fcos, *notes),
            changes={"teacher": "fcos_r101_caffe.mmdet_ms2x_coco", "schedule": "2x", "short_sides": [640, 800], **FCOS,
                     **cross}, **common),
        Row("retinanet_r50_crosskd_r101", "RetinaNet R-50 by R-101: CrossKD, 2x", 39.7, CROSSKD,
            "; without a teacher 37.4", notes=notes,
            changes={"teacher": "retinanet_r101.mmdet_2x_coco", "schedule": "2x", **cross}, **common),
    ]  # fmt: skip


def _voc() -> list[Row]:
    """PASCAL VOC 07+12, tested on VOC07: 4 epochs over three times the images are 12 passes."""
    rows = {  # AP, further figures, epochs of the teacher
        ("r18", "r34"): (52.9, ", AP50 75.7; without a teacher 51.8", 4),
        ("r18", "r50"): (52.8, ", AP50 75.4; without a teacher 51.8", 4),
        ("r18", "r101"): (53.0, ", AP50 75.9; without a teacher 51.8", 16),
        ("r18", "r101_dcn"): (52.8, ", AP50 75.3; without a teacher 51.8", 16),
        ("r34", "r101_dcn"): (56.7, ", AP50 78.4, 56.5 in the list of files; without a teacher 55.7", 16),
        ("r50", "r101"): (56.1, ", AP50 78.5; without a teacher 55.8", 16),
        ("r101", "r101_dcn"): (58.4, ", AP50 80.2; without a teacher 57.6", 16),
    }
    data = (
        "Data: VOCdevkit/ with VOC2007/ and VOC2012/ as they are unpacked: trained on the trainval lists of both, "
        "evaluated on VOC2007 test by the published protocol, the mean of the 11-point AP at IoU .50:.05:.95."
    )
    passes = (
        "The tag brings the CIoU loss of the published student. Schedule voc is 12 epochs: the published 4 are over a "
        "data set that is repeated three times. The released configuration has 3 images on each of 2 devices, and the "
        "same rate per image."
    )
    changes = {"schedule": "voc"}
    made = []
    for (student, teacher), (ap, more, epochs) in rows.items():
        known = "" if teacher == "r101" else "How the authors trained this one is not known: R-101's 16 are known. "
        first = TEACHER_FIRST.format(epochs=3 * epochs, how=known)
        model, title = f"gfocal_{student}_ld_{teacher}", f"GFocal {_short(student)} by {_short(teacher)}"
        made.append(
            Row(f"{model}.ld_4e_voc0712", f"{title}, main LD alone, VOC 07+12", ap, LD, more, metric="VOC07 test",
                suffix="voc", processes=8, batch_size=2, teacher_epochs=3 * epochs, changes=changes,
                notes=(data, passes, first, PER_DEVICE))
        )  # fmt: skip
    return made


def _short(backbone: str) -> str:
    return backbone.upper().replace("R", "R-", 1).replace("_", "-")


ROWS = [*_main(), *_full(), *_self(), *_imitation(), *_families(), *_bckd(), *_crosskd(), *_voc()]
