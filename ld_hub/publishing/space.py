"""A model's page to try it, as a Space on the Hub: metadata, requirements and an app of a few lines."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from ld_hub.hub import atomic_write
from ld_hub.hub.upload import CARD_NAME, upload
from ld_hub.version import __version__

if TYPE_CHECKING:
    from huggingface_hub import CommitInfo

_README = """\
---
title: {title}
emoji: 📦
colorFrom: indigo
colorTo: gray
sdk: gradio
app_file: app.py
pinned: false
models:
- {model}
{license}---

Boxes of [{model}](https://huggingface.co/{model}) on your images, by [ld_hub](https://pypi.org/project/ld_hub).
"""
_APP = """\
\"\"\"Boxes of {model} on images that are uploaded.\"\"\"

from ld_hub.app import launch

launch(["{model}"])
"""


def space_files(model: str, license: str | None = None) -> dict[str, str]:
    """Text of each file of the Space.

    Args:
        model: ``org/name`` of the model's repository.
        license: SPDX id of the weights' licence.
    """
    title = json.dumps(f"{model.rpartition('/')[2]}: try it")
    terms = f"license: {json.dumps(license)}\n" if license else ""
    return {
        CARD_NAME: _README.format(title=title, model=model, license=terms),
        "requirements.txt": f"ld_hub[app]>={__version__}\n",
        "app.py": _APP.format(model=model),
    }


def publish_space(
    model: str,
    space: str,
    *,
    license: str | None = None,
    private: bool | None = None,
    create_pr: bool = False,
    token: str | bool | None = None,
) -> CommitInfo:
    """Make a Space that shows what a published model finds, in one commit; what its owner wrote into README.md stays.

    Args:
        model: ``org/name`` of the model's repository.
        space: ``org/name`` of the Space; made if it does not exist.
        license: SPDX id of the weights' licence.
        private: Make a new Space private.
        create_pr: Propose the commit as a pull request.
        token: Access token; by default the stored one.

    Returns:
        The commit.

    Raises:
        HubError: As `ld_hub.hub.upload.upload`.
    """
    with tempfile.TemporaryDirectory(prefix="ld_hub_", ignore_cleanup_errors=True) as folder:
        files = {name: atomic_write(Path(folder) / name, text) for name, text in space_files(model, license).items()}
        return upload(
            space,
            files,
            commit_message=f"A page to try {model}",
            renew_card=lambda old, new: old,
            private=private,
            create_pr=create_pr,
            token=token,
            kind="space",
        )
