"""Measure, publish, load back, verify: python examples/publish.py runs/distil/vlr-0/model my-name/my-detector mine/

Needs a token with write access (`hf auth login`). The card lists no AP but what `ld-hub eval` measured; verify computes
it again from what was published.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import torch

import ld_hub
from ld_hub.cli.main import main as command  # what `ld-hub` calls
from ld_hub.data import load_data


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="directory of a model")
    parser.add_argument("repo", help="ORG/NAME on the Hub; made if it does not exist")
    parser.add_argument("data", help="directory with images and boxes to evaluate on")
    parser.add_argument("--license", default="apache-2.0", help="of the weights")
    parser.add_argument("--public", action="store_true", help="a new repository is private otherwise")
    args = parser.parse_args()

    evaluation = Path(args.model) / "eval"
    if command(["eval", args.model, "--data", args.data, "--out", str(evaluation)]) != 0:
        sys.exit("not evaluated, so not published")

    model = ld_hub.create_model(args.model)
    image = load_data(args.data, "val").rows[0]["path"]
    commit = model.push_to_hub(
        args.repo,
        private=not args.public,
        license=args.license,
        eval_results=evaluation,
        image=image,  # the detections on it are the card's picture
    )
    print(f"published: {commit}")

    again = ld_hub.create_model(f"hf-hub:{args.repo}@{commit.oid}", pretrained=True)
    here, there = model.predict(image), again.predict(image)
    assert torch.equal(here.boxes, there.boxes) and torch.equal(here.scores, there.scores)
    sys.exit(command(["verify", args.repo, "--data", args.data]))


if __name__ == "__main__":
    main()
