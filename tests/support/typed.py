"""Types command lines that somebody may have got wrong: ``python -m tests.support.typed < lines.json``.

Each runs in a fork of a process that has imported nothing, and is told about in a line of JSON.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
import tempfile
import time
from pathlib import Path


def answer(words: list[str], told: Path) -> None:
    """Run a command, and write what came of it; ends the process."""
    with open(told.with_suffix(".said"), "w", encoding="utf-8") as stream:
        os.dup2(stream.fileno(), 1)
        os.dup2(stream.fileno(), 2)
    start, code = time.process_time(), None
    try:
        code = importlib.import_module(words[0]).main(words[1:])
    except SystemExit as ended:
        code = ended.code
    sys.stdout.flush()
    sys.stderr.flush()
    heavy = [name for name in ("torch", "timm", "huggingface_hub", "datasets", "accelerate") if name in sys.modules]
    told.write_text(json.dumps({"code": code, "heavy": heavy, "cpu": time.process_time() - start}))
    os._exit(0)


def main() -> None:
    """Answers for all lines of stdin."""
    with tempfile.TemporaryDirectory() as folder:
        for number, line in enumerate(sys.stdin):
            told = Path(folder, f"{number}.json")
            child = os.fork()
            if child == 0:
                answer(json.loads(line), told)
            os.waitpid(child, 0)
            result = json.loads(told.read_text()) if told.is_file() else {"code": "crashed"}
            print(json.dumps({**result, "said": told.with_suffix(".said").read_text()}), flush=True)


if __name__ == "__main__":
    main()
