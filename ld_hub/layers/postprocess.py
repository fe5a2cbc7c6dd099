"""From dense predictions to detections: pre-filter, decode, NMS (reference SPEC 5). Inference only."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from ld_hub.errors import ConfigError
from ld_hub.ops.nms import class_aware_nms, score_voting_nms, soft_nms
from ld_hub.structures import DenseOutput

NmsKind = Literal["hard", "soft_linear", "soft_gaussian", "score_voting"]
NMS_KINDS: tuple[NmsKind, ...] = get_args(NmsKind)
_FIRST = ("score_threshold", "nms_iou", "nms_pre", "max_detections", "prefilter")  # fields all versions know


@dataclass(frozen=True)
class PostprocessConfig:
    """Inference settings, stored with a model.

    Attributes:
        score_threshold: A (location, class) pair counts if its score is larger.
        nms_iou: Boxes of a class that overlap a better one by more are dropped.
        nms_pre: Pre-filter per level.
        max_detections: Per image.
        prefilter: ``"location"``: the `nms_pre` locations with the best class score keep all their classes (LD);
            ``"pair"``: the `nms_pre` best (location, class) pairs above the threshold (OpenMMLab since 2.14, BCKD).
        nms: ``"hard"``; ``"soft_linear"`` or ``"soft_gaussian"`` (Soft-NMS: overlapping boxes lose score instead);
            ``"score_voting"`` (score-voting Cluster-DIoU NMS: hard by DIoU, then boxes are averaged). See
            `ld_hub.ops.nms`.
        soft_sigma: Width of the Gaussian of ``"soft_gaussian"``.
        soft_least: Soft-NMS drops boxes whose score falls to this.
        voting_sigma: Width of the votes of ``"score_voting"``.
    """

    score_threshold: float = 0.05
    nms_iou: float = 0.6
    nms_pre: int = 1000
    max_detections: int = 100
    prefilter: Literal["location", "pair"] = "location"
    nms: NmsKind = "hard"
    soft_sigma: float = 0.5
    soft_least: float = 0.001
    voting_sigma: float = 0.025

    def __post_init__(self) -> None:
        for name in ("score_threshold", "nms_iou", "soft_least"):
            if not 0 <= getattr(self, name) <= 1:
                raise ConfigError(f"{name} is {getattr(self, name)!r}; expected a number from 0 to 1.")
        for name in ("nms_pre", "max_detections"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} is {getattr(self, name)!r}; expected at least 1.")
        if self.prefilter not in {"location", "pair"}:
            raise ConfigError(f"prefilter is {self.prefilter!r}; expected 'location' or 'pair'.")
        if self.nms not in NMS_KINDS:
            raise ConfigError(f"nms is {self.nms!r}; expected one of {', '.join(NMS_KINDS)}.")
        for name in ("soft_sigma", "voting_sigma"):
            if not 0 < getattr(self, name) < float("inf"):
                raise ConfigError(f"{name} is {getattr(self, name)!r}; expected a number above 0.")

    def letting_through(self, threshold: float) -> PostprocessConfig:
        """The same settings with a first filter that no score above a threshold fails.

        Heads with a quality score multiply behind it, so what is found has to be filtered once more.
        """
        return replace(self, score_threshold=min(threshold, self.score_threshold))

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON values. What later versions added is left out where it changes nothing, for older readers."""
        items = ((item.name, getattr(self, item.name), item.default) for item in fields(self))
        return {name: value for name, value, default in items if name in _FIRST or value != default}


@dataclass(frozen=True, eq=False)
class RawDetections:
    """Detections of one image before they get names: boxes ``(K, 4)`` xyxy px, scores and labels ``(K,)``."""

    boxes: Tensor
    scores: Tensor
    labels: Tensor


def _kept_locations(ranking: Tensor, level_sizes: tuple[int, ...], most: int) -> Tensor:
    """Indices ``(N, M)`` into A of the best `most` locations of each level; ``ranking`` is ``(N, A)``."""
    kept, start = [], 0
    for size in level_sizes:
        level = ranking[:, start : start + size]
        if size > most:
            kept.append(level.topk(most, dim=1).indices + start)
        else:
            kept.append(torch.arange(start, start + size, device=ranking.device).expand(len(ranking), -1))
        start += size
    return torch.cat(kept, dim=1)


def _best_pairs(scores: Tensor, levels: Tensor, most: int, threshold: float) -> tuple[Tensor, Tensor]:
    """(location, class) pairs of one image above the threshold, the best `most` of each level; scores ``(M, C)``."""
    location, label = (scores > threshold).nonzero(as_tuple=True)
    order = scores[location, label].argsort(descending=True, stable=True)
    location, label = location[order], label[order]
    level = levels[location]
    rank = torch.zeros_like(level)
    for index in range(int(levels.max()) + 1 if len(levels) else 0):
        here = level == index
        rank[here] = torch.arange(int(here.sum()), device=level.device)
    keep = rank < most
    return location[keep], label[keep]


def postprocess(
    output: DenseOutput, image_sizes: Tensor, scale_factors: Tensor | None, config: PostprocessConfig
) -> list[RawDetections]:
    """Decode, filter and suppress the predictions of a batch.

    Locations on the padding of an image beyond its own padded size take no part, so that the batch an image came
    in does not matter.

    Args:
        output: Raw predictions.
        image_sizes: ``(N, 2)`` height, width in px before padding; boxes are clipped to it.
        scale_factors: ``(N, 2)`` resized / original along x and y; boxes are divided by it. None keeps resized px.
        config: Settings.

    Returns:
        N results, best score first.
    """
    ranking = output.cls_logits.amax(dim=2)
    if output.quality is not None:
        ranking = ranking.sigmoid() * output.quality.sigmoid()
    ranking = ranking.masked_fill(~output.priors.valid(image_sizes), -torch.inf)
    by_location = config.prefilter == "location"
    keep = _kept_locations(ranking, output.priors.level_sizes, config.nms_pre if by_location else ranking.shape[1])
    results = []
    for n in range(len(keep)):  # inference is exempt from the rule of batched code: NMS is per image by nature
        index = keep[n][ranking[n, keep[n]] > -torch.inf]
        scores = output.cls_logits[n, index].sigmoid()
        if by_location:
            location, label = (scores > config.score_threshold).nonzero(as_tuple=True)
        else:
            location, label = _best_pairs(scores, output.priors.levels[index], config.nms_pre, config.score_threshold)
        box = output.coder.decode_rows(output.box[n, index], output.priors, index)
        height, width = image_sizes[n].to(box.dtype)
        box = torch.minimum(box.clamp(min=0), torch.stack([width, height, width, height]))
        if scale_factors is not None:
            box = box / scale_factors[n].to(box.dtype).repeat(2)
        score = scores[location, label]
        if output.quality is not None:
            score = score * output.quality[n, index].sigmoid()[location]
        results.append(suppress(RawDetections(box[location], score, label), config))
    return results


def suppress(found: RawDetections, config: PostprocessConfig) -> RawDetections:
    """The NMS that the settings name, on one image; best score first.

    Args:
        found: Candidates.
        config: Settings.
    """
    boxes, scores, labels = found.boxes, found.scores, found.labels
    iou, most = config.nms_iou, config.max_detections
    match config.nms:
        case "hard":
            best = class_aware_nms(boxes, scores, labels, iou, most)
            boxes, scores = boxes[best], scores[best]
        case "score_voting":
            sigma = config.voting_sigma
            best, boxes = score_voting_nms(boxes, scores, labels, iou_threshold=iou, sigma=sigma, most=most)
            scores = scores[best]
        case "soft_linear" | "soft_gaussian":
            best, scores = soft_nms(
                boxes, scores, labels, "linear" if config.nms == "soft_linear" else "gaussian",
                iou_threshold=iou, sigma=config.soft_sigma, least=config.soft_least, most=most,
            )  # fmt: skip
            boxes = boxes[best]
    return RawDetections(boxes, scores, labels[best])
