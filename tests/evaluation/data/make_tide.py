"""Writes tide.json: random detection problems and what tidecv 1.0.1 says about them.

Run by hand, where tidecv is installed: ``python make_tide.py``. The library and its tests do not need tidecv. Boxes are
``[image, category, x, y, width, height, crowd]``, detections ``[image, category, x, y, width, height, score]``. Stored
are tidecv's figures (x100) and, for means over other sets of classes, its AP of each class in every state (None where
the class is empty).
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from tidecv import TIDE, Data
from tidecv.errors.main_errors import FalsePositiveError

# name: images, classes with boxes, boxes an image, false boxes an image, digits of the scores, whole px, extra class
SETS = {
    "plain": (14, 4, 5, 4, 4, False, False),
    "crowded": (4, 3, 70, 110, 3, False, False),  # up to 194 detections: only the 100 best of an image count
    "odd classes": (16, 4, 3, 4, 3, False, True),  # one class without detections, one without boxes
    "equals": (30, 5, 6, 4, 1, True, False),  # many equal scores and overlaps
}
WORDS = {"FalsePos": "FP", "FalseNeg": "FN"}


def problem(random, images, classes, most, false, digits, whole, extra):  # noqa: C901
    boxes, found = [], []
    for image in range(1, images + 1):
        if image % 7 == 0:
            continue  # nothing there, nothing found
        truth = []
        for _ in range(random.integers(most // 2, most + 1)):
            size = random.uniform(10, 60, 2)
            corner = random.uniform(0, 140, 2)
            truth.append([image, int(random.integers(1, classes + 1)), *corner, *size])
        if truth and random.random() < 0.5:  # a near copy, of another class: confusions
            again = list(truth[0])
            again[1] = again[1] % classes + 1
            again[2] += 2
            truth.append(again)
        for row in truth:
            boxes.append([*row, int(random.random() < 0.12)])
            for _ in range(random.integers(0, 4)):
                near = np.array(row[2:]) + random.normal(0, random.choice([1, 4, 10]), 4)
                near[2:] = near[2:].clip(4)
                label = row[1] if random.random() < 0.75 else int(random.integers(1, classes + 1 + extra))
                found.append([image, label, *near, random.beta(3, 2)])
        for _ in range(random.integers(0, false + 1)):
            label = int(random.integers(1, classes + 1 + extra))
            found.append([image, label, *random.uniform(0, 140, 2), *random.uniform(10, 60, 2), random.beta(2, 3)])
    if extra:
        found = [row for row in found if row[1] != 2]
    places = 0 if whole else 1
    for row in boxes + found:
        row[2:6] = [float(np.round(side, places)) for side in row[2:6]]
    for row in found:
        row[6] = float(np.round(row[6], digits))
    return {"images": images, "categories": classes + extra, "boxes": boxes, "detections": found}


def by_class(state, count):
    aps = {c: state.objs[c] for c in list(state.objs)}
    return [aps[c].get_ap() if c in aps and not aps[c].is_empty() else None for c in range(1, count + 1)]


def figures(content):
    truth, found = Data("truth"), Data("found")
    for image in range(1, content["images"] + 1):
        truth.add_image(image, str(image))
    for c in range(1, content["categories"] + 1):
        truth.add_class(c, str(c))
    for image, label, *box, crowd in content["boxes"]:
        (truth.add_ignore_region if crowd else truth.add_ground_truth)(image, label, box)
    for image, label, *box, score in content["detections"]:
        found.add_detection(image, label, score, box)
    tide = TIDE()
    run = tide.evaluate(truth, found, mode=TIDE.BOX, name="run")
    every, count = tide.get_all_errors(), content["categories"]
    states = {"ap": run.ap_data}
    for kind in TIDE._error_types:
        states[kind.short_name] = run.fix_errors(lambda error, kind=kind: isinstance(error, kind))
    states["FP"] = run.fix_errors(transform=FalsePositiveError.fix)
    states["FN"] = run.fix_errors(false_neg_dict=run.false_negatives)
    return {
        "ap": run.ap,
        "main": every["main"]["run"],
        "special": {WORDS[name]: value for name, value in every["special"]["run"].items()},
        "counts": {kind.short_name: number for kind, number in run.count_errors().items()},
        "per_class": {name: by_class(state, count) for name, state in states.items()},
    }


def main():
    sets = {}
    for seed, (name, settings) in enumerate(SETS.items()):
        content = problem(np.random.default_rng(seed), *settings)
        sets[name] = {**content, "tidecv": figures(content)}
    text = json.dumps(sets, separators=(",", ":"))
    Path(__file__).with_name("tide.json").write_text(text)
    for name, content in sets.items():
        most = np.bincount([row[0] for row in content["detections"]]).max()
        print(name, len(content["boxes"]), len(content["detections"]), "most", most, content["tidecv"])


if __name__ == "__main__":
    main()
