"""Train a detector: ``accelerate launch -m ld_hub.train NAME --data DIR``, or ``ld-hub train``."""

from __future__ import annotations

import sys
from collections.abc import Sequence


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code; see ``--help``."""
    from ld_hub.cli.main import guarded
    from ld_hub.launch import commands

    return guarded(lambda: commands.train(list(sys.argv[1:] if argv is None else argv)), "ld_hub.train")


if __name__ == "__main__":
    sys.exit(main())
