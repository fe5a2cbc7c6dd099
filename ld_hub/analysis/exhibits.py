"""The sections of pictures: score errors, edge distributions, detections, NMS."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import PurePath

import numpy as np
from PIL import Image

from ld_hub.analysis import pictures, plots, probe
from ld_hub.analysis.choice import spread, telling_boxes
from ld_hub.analysis.idea_pictures import draw_ideas
from ld_hub.analysis.ideas import gather
from ld_hub.analysis.marks import COLORS, Kind, marks_of
from ld_hub.analysis.numbers import Analysis, EntropyStudy
from ld_hub.analysis.page import Content, Html, Picture, Section, grid, heading, join, note, table, tag
from ld_hub.analysis.photograph import Photograph
from ld_hub.analysis.watchers import NMS_IOUS, BoxTrace, Crowding, ScoreErrors
from ld_hub.drawing import Color, class_color
from ld_hub.errors import ConfigError
from ld_hub.structures import Detections

SHOWN = 3  # detectors beside each other in pictures
NAMED = 12  # boxes of a picture whose class is written; more names would hide the image
HEAT_IMAGES, NMS_IMAGES = 2, 3
IDEAS = ("main", "vlr", "inside_gt", "gi")  # regions of the picture of the ideas
KINDS = {
    "gained": "{1} detects better than {0}",
    "lost": "{1} detects worse than {0}",
    "best": "Best",
    "worst": "Worst",
}
WISHES = {
    "sure": "The object with the surest edges",
    "unsure": "The object with the least sure edges",
    "apart": "The object whose box {0} and {1} see most differently",
}


class Album:
    """The images of the set by id, and how they are called."""

    def __init__(self, analysis: Analysis) -> None:
        self.records, self.names = analysis.dataset.records, analysis.dataset.label_names
        self.row = {image_id: row for row, image_id in enumerate(self.records.image_ids.tolist())}
        self.analysis = analysis

    def load(self, image_id: int) -> Image.Image:
        """The picture itself."""
        return self.records.load(self.row[image_id])

    def title(self, image_id: int) -> str:
        """Its id and file name."""
        return f"image {image_id} ({PurePath(self.records.paths[self.row[image_id]].as_py()).name})"

    def photograph(self, image_id: int) -> Photograph:
        """With its true boxes that rows can answer for."""
        row = self.row[image_id]
        part = slice(int(self.records.offsets[row]), int(self.records.offsets[row + 1]))
        keep = ~self.records.crowd[part]
        labels = tuple(self.records.labels[part][keep].tolist())
        names = tuple(self.names[label] for label in labels)
        return Photograph(
            self.load(image_id), self.records.boxes[part][keep], labels, names, "Objects: the true boxes."
        )

    def truth(self, image_id: int, image: Image.Image) -> Picture:
        """With its true boxes."""
        row = self.row[image_id]
        part = slice(int(self.records.offsets[row]), int(self.records.offsets[row + 1]))
        boxes, labels = self.records.boxes[part].tolist(), self.records.labels[part].tolist()
        texts = [self.names[label] if k < NAMED else "" for k, label in enumerate(labels)]
        return pictures.with_boxes(image, boxes, labels, f"{self.title(image_id)}, true boxes", texts=texts)

    def found(self, name: str, image_id: int, image: Image.Image) -> Picture:
        """With the detections of a detector, right, false and missed ones in colours of their own."""
        found, dataset = self.analysis, self.analysis.dataset
        marks = marks_of(
            image_id,
            found.collected.truth,
            found.judged[name].rows,
            dataset.category_ids,
            score=found.score,
            skip_ignored=found.skip_ignored,
        )
        marks.sort(key=lambda mark: mark.kind != "right")  # drawn last, on top
        wrong = [k for k, mark in enumerate(marks) if mark.kind != "right"]
        named = {*wrong[: NAMED // 2], *wrong[-(NAMED // 2) :]}  # false ones of the best scores, and missed ones
        return pictures.with_boxes(
            image,
            [mark.box for mark in marks],
            [mark.label for mark in marks],
            f"{self.title(image_id)}, detections of {name}",
            texts=[self.names[mark.label] if k in named else "" for k, mark in enumerate(marks)],
            colors=[COLORS[mark.kind] for mark in marks],
        )


def score_errors(analysis: Analysis, album: Album) -> Section:
    """Where students' class scores differ from the teacher's, on each level."""
    errors = analysis.collected.score_errors
    lead = (
        "Bright places are where the student's class scores differ most from the teacher's: there it can still learn."
    )
    body: list[Content] = [note(line) for line in analysis.collected.left_out["scores"]]
    if errors:
        body += [
            note(
                "L1 error of class scores (after the sigmoid, 0 to 1), mean over the classes, at every place of each "
                "level of the pyramid. Colours mean the same on all maps of a group. In the table: times 1000."
            ),
            _mean_errors(errors),
            *_mean_maps(analysis, errors),
        ]
        kept = next(iter(errors.values())).maps
        for image_id in [list(kept)[k] for k in spread(len(kept), HEAT_IMAGES)]:
            body += _maps_of(image_id, errors, album)
    return Section("scores", "Class scores of student and teacher", lead, body)


def _level(index: int, stride: int) -> str:
    """P3 is the level of stride 8."""
    power = stride.bit_length() - 1
    return f"P{power}, stride {stride}" if stride == 1 << power else f"level {index}, stride {stride}"


def _mean_errors(errors: Mapping[str, ScoreErrors]) -> Html:
    strides = next(iter(errors.values())).strides
    head = ["student", *(_level(k, stride) for k, stride in enumerate(strides))]
    rows = ([name, *(f"{1000 * mean:.2f}" for mean in one.means)] for name, one in errors.items())
    return table(head, rows)


def _mean_maps(analysis: Analysis, errors: Mapping[str, ScoreErrors]) -> list[Content]:
    sizes = analysis.dataset.sizes
    shape = (float(np.median(sizes[:, 0])), float(np.median(sizes[:, 1])))
    largest = max(float(one.mean_maps.max()) for one in errors.values())
    content: list[Content] = [heading(f"Mean over {next(iter(errors.values())).images} images")]
    content.append(plots.color_bar(largest, "mean L1 error of class scores").html())
    for name, one in errors.items():
        figures = [
            pictures.heat(cells, largest, shape, f"Mean score error of {name}, {_level(k, stride)}").html(
                f"{_level(k, stride)}: {mean:.2g}"
            )
            for k, (cells, stride, mean) in enumerate(zip(one.mean_maps, one.strides, one.means, strict=True))
        ]
        content += [note(f"{name} against {one.teacher}; below each map its mean."), grid(figures, "strip")]
    return content


def _maps_of(image_id: int, errors: Mapping[str, ScoreErrors], album: Album) -> list[Content]:
    image = pictures.fit(album.load(image_id))
    largest = max(float(cells.max()) for one in errors.values() for cells in one.maps[image_id])
    content: list[Content] = [heading(album.title(image_id))]
    content.append(plots.color_bar(largest, "L1 error of class scores").html())
    for name, one in errors.items():
        figures = []
        for k, (cells, stride) in enumerate(zip(one.maps[image_id], one.strides, strict=True)):
            word = _level(k, stride)
            alt = f"Score error of {name} on {album.title(image_id)}, {word}"
            scale = stride * image.width / one.widths[image_id]
            picture = pictures.heat_over(image, cells, scale, largest, alt)
            figures.append(picture.html(f"{word}: {cells.mean():.2g}"))
        content += [note(f"{name} against {one.teacher}"), grid(figures, "strip")]
    return content


def edges(analysis: Analysis, album: Album) -> Section:
    """Edge distributions of single objects, and edge entropy against overlap."""
    lead = "Where an edge is clear, one or two bins hold the mass; the broader a distribution, the less sure the edge."
    body: list[Content] = [note(line) for line in analysis.collected.left_out["edges"]]
    colors = {name: index for index, name in enumerate(analysis.names)}
    traces = analysis.collected.traces
    if traces:
        names = list(traces[0].edges)
        first = [trace.edges[names[0]] for trace in traces]
        gap = None
        if len(names) > 1:
            gap = [trace.edges[names[1]].iou - edge.iou for trace, edge in zip(traces, first, strict=True)]
        for wish, index in telling_boxes([edge.entropy for edge in first], gap).items():
            body += [heading(WISHES[wish].format(*names)), _object(traces[index], colors, album)]
        body.append(
            note(
                f"All read at one place of the pyramid: of those that learn to detect the object, the one where "
                f"{names[0]} fits best. Cut-out: the true box is white."
            )
        )
    if analysis.entropy:
        body += _entropies(analysis.entropy, colors)
    return Section("edges", "Edge distributions", lead, body)


def _object(trace: BoxTrace, colors: Mapping[str, int], album: Album) -> Html:
    label = album.names[trace.label]
    most = max(edge.bins.shape[1] for edge in trace.edges.values())
    alt = f"Edge distributions of a {label} on {album.title(trace.image_id)}"
    values = {name: edge.bins.numpy() for name, edge in trace.edges.items()}
    chart = plots.edges(probe.truth_bins(trace.distance, most).numpy(), values, colors, alt=alt)
    cut = pictures.cut_out(
        album.load(trace.image_id),
        trace.box.tolist(),
        [edge.box.tolist() for edge in trace.edges.values()],
        [plots.color_of(colors[name]) for name in trace.edges],
        f"{label} on {album.title(trace.image_id)} with its boxes",
    )
    said = "; ".join(
        f"{name}: IoU {edge.iou:.2f}, score {edge.score:.2f}, entropy {edge.entropy:.2f} nats"
        for name, edge in trace.edges.items()
    )
    words = f"{label} on {album.title(trace.image_id)}, bins of {trace.stride:g} px of the resized image. {said}."
    return grid([chart.html(words), cut.html("White: the true box. Colours as in the legend.")])


def ideas(analysis: Analysis, album: Album) -> Section:
    """Assignment, regions and edges on one image, of the second of the pair and the teacher."""
    lead = "On one image: which cells answer for which object, where a teacher can teach, and one object's edges."
    kept = list(analysis.collected.crowding[analysis.names[0]].detections[NMS_IOUS[0]])
    image_id, seen = min(
        ((image_id, album.photograph(image_id)) for image_id in kept), key=lambda pair: len(pair[1])
    )  # few boxes are read most easily
    name = next((one for one in reversed(analysis.pair) if one != analysis.teacher), analysis.names[0])
    teacher = analysis.teacher if analysis.teacher != name else None
    models = [analysis.models[one] for one in (name, teacher) if one is not None]
    try:
        whole = gather(seen, *models, names=(name, teacher or ""))
    except ConfigError as error:  # two that no recipe could bring together
        return Section("ideas", "What is learnt where", lead, [note(str(error))])
    shown = replace(whole, regions=[one for one in whole.regions if one.name in IDEAS], left_out={})
    words = f"{name}{f' and {teacher}' if teacher else ''} on {album.title(image_id)}"
    picture = pictures.jpeg(draw_ideas(shown), f"Assignment, regions and edges: {words}")
    return Section("ideas", "What is learnt where", lead, [picture.html(f"{words}. More of them: ld-hub show.")])


def _entropies(studies: Mapping[str, EntropyStudy], colors: Mapping[str, int]) -> list[Content]:
    means = {name: study.by_iou[1] for name, study in studies.items()}
    figures = [
        plots.entropy_means(means, colors).html("Mean over the four edges and the candidates in each tenth of IoU.")
    ]
    for name, study in studies.items():
        r = "not defined" if study.correlation is None else f"{study.correlation:+.2f}"
        words = f"{name}: {len(study.iou)} candidates, correlation {r}."
        chart = plots.entropy_histogram(study.entropy, study.iou, study.limit, name=name, color=colors[name])
        figures.append(chart.html(words))
    return [
        heading("Entropy of the edges against overlap"),
        note(
            "Candidates: of the 100 best-scored places of each image (score above 0.05, before NMS) those that overlap "
            "an object of their class by at least 0.1. The more the cloud falls to the right, the better entropy tells "
            "which boxes fit; the largest possible entropy is the top of each plot."
        ),
        grid(figures),
    ]


def detections(analysis: Analysis, album: Album) -> Section:
    """Images on which detection went best, worst and most differently."""
    shown = _shown(analysis)
    body: list[Content] = [note(_legend(analysis))]
    for kind, image_ids in analysis.image_ids.items():
        if not image_ids:
            continue
        body.append(heading(KINDS[kind].format(*analysis.pair)))
        for image_id in image_ids:
            image = album.load(image_id)
            figures = [album.truth(image_id, image).html(f"{album.title(image_id)}: true boxes")]
            for name in shown:
                result = analysis.judged[name].images[image_id]
                f1 = "–" if result.f1 is None else f"{result.f1:.2f}"
                words = f"{name}: F1 {f1} ({result.found} found, {result.missed} missed, {result.false} false)"
                figures.append(album.found(name, image_id, image).html(words))
            body.append(grid(figures, "pictures"))
    body.append(
        note(
            f"Detections with a score above {analysis.score:g}; an object is found by a detection of its class with "
            f"IoU 0.5. F1 is of one image. Of many boxes on a picture, {NAMED} are named. {_left_out(analysis)}"
        )
    )
    lead = "Green boxes are right, red ones false, yellow ones missed: compare the detectors on the same image."
    return Section("detections", "Detections", lead, body)


def _shown(analysis: Analysis) -> tuple[str, ...]:
    """The pair, and the teacher if there is one, or else the third detector."""
    others = sorted(analysis.names[2:], key=lambda name: name != analysis.teacher)
    return (*analysis.pair, *others)[:SHOWN]


def _legend(analysis: Analysis) -> Html:
    """The colours of boxes, named."""
    words: dict[Kind, str] = {"right": "right", "false": "false, with its class", "missed": "missed, with its class"}
    if analysis.skip_ignored or analysis.dataset.records.crowd.any():
        words["excused"] = "on a crowd or a difficult object: does not count"
    return join(_key(COLORS[kind], word) for kind, word in words.items())


def _class_key(shown: Sequence[Detections], names: Sequence[str]) -> Html:
    """The colours of the classes on some pictures, named; of many, those with the most boxes."""
    counts = Counter(label for found in shown for label in found.labels.tolist())
    labels = sorted(label for label, _ in counts.most_common(NAMED))
    return join(_key(class_color(label), names[label]) for label in labels)


def _key(color: Color, word: str) -> Html:
    return tag("span", tag("i", style=f"background:rgb{color}"), word, class_="key")


def _left_out(analysis: Analysis) -> str:
    rest = [name for name in analysis.names if name not in _shown(analysis)]
    return f"Not drawn, to keep the page small: {', '.join(rest)}." if rest else ""


def nms(analysis: Analysis, album: Album) -> Section:
    """The same predictions at two NMS thresholds."""
    crowding = analysis.collected.crowding
    lead = "At NMS 0.95 nearly all boxes stay: the closer together they lie on an object, the surer its edges are."
    words = (
        f"Detections with a score above {analysis.score:g}, and their mean IoU with the best box of their class. "
        "On the pictures each class has its colour."
    )
    kinds = [(name, iou) for name in analysis.pair for iou in NMS_IOUS]
    kept = list(crowding[analysis.names[0]].detections[NMS_IOUS[0]])
    drawn = [kept[k] for k in spread(len(kept), NMS_IMAGES)]
    key = _class_key([crowding[name].detections[iou][k] for name, iou in kinds for k in drawn], album.names)
    body: list[Content] = [_crowding_table(crowding, len(analysis.dataset)), note(words), note(key) if key else ""]
    for image_id in drawn:
        image = album.load(image_id)
        figures = []
        for name, iou in kinds:
            found = crowding[name].detections[iou][image_id]
            alt = f"{album.title(image_id)}, {name}, NMS {iou:g}"
            picture = pictures.with_boxes(image, found.boxes.tolist(), found.labels.tolist(), alt)
            figures.append(picture.html(f"{name}, NMS {iou:g}: {len(found)} boxes"))
        body += [heading(album.title(image_id)), grid(figures, "pictures")]
    return Section("nms", "Before and after NMS", lead, body)


def _crowding_table(crowding: Mapping[str, Crowding], images: int) -> Html:
    head = ["detector", *(f"{what}, NMS {iou:g}" for iou in NMS_IOUS for what in ("boxes per image", "mean IoU"))]
    rows: list[list[Content]] = []
    for name, one in crowding.items():
        line: list[Content] = [name]
        for iou in NMS_IOUS:
            mean = f"{one.overlap[iou] / one.count[iou]:.3f}" if one.count[iou] else "–"
            line += [f"{one.count[iou] / images:.1f}", mean]
        rows.append(line)
    return table(head, rows)
