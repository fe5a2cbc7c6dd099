"""Train a student from a teacher: ``accelerate launch -m ld_hub.distill NAME --data DIR``, or ``ld-hub distill``."""

from __future__ import annotations

import sys
from collections.abc import Sequence


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code; see ``--help``."""
    from ld_hub.cli.main import guarded
    from ld_hub.launch import commands

    return guarded(lambda: commands.distill(list(sys.argv[1:] if argv is None else argv)), "ld_hub.distill")


if __name__ == "__main__":
    sys.exit(main())
