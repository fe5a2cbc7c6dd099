"""The page beside an exported detector: it runs the program in a browser, with nothing from a network.

The page itself lies in ``page/``. What runs the program is onnxruntime-web, an npm package of which three files are
copied; it comes from where the user has it, or through npm, once.
"""

from __future__ import annotations

import gzip
import shutil
import subprocess
import tarfile
import tempfile
import zlib
from pathlib import Path

from ld_hub.errors import ConfigError
from ld_hub.hub.files import atomic_directory, cache_root

VERSION = "1.30.0"
PACKAGE = f"onnxruntime-web@{VERSION}"
RUNTIME_FILES = ("ort.wasm.min.mjs", "ort-wasm-simd-threaded.mjs", "ort-wasm-simd-threaded.wasm")
_PAGE = Path(__file__).parent / "page"
PAGE_FILES = (*sorted(file.name for file in _PAGE.iterdir()), *RUNTIME_FILES)  # what a page adds to an export
_TIMEOUT = 600  # seconds for 33 MB


def require_page(to: str, *, no_nms: bool) -> None:
    """Refuse exports that a page cannot run.

    Raises:
        ConfigError: If the program is no ONNX, or does not choose boxes.
    """
    if to != "onnx":
        raise ConfigError(f"A page runs ONNX programs, not {to}: export with --to onnx, or without --page.")
    if no_nms:
        raise ConfigError("A page draws chosen boxes: leave out --no_nms (no_nms=True), or --page (page=True).")


def runtime_for(to: str, given: str | Path | None = None, *, no_nms: bool = False) -> Path:
    """As `find_runtime`, for an export that a page can run; see `require_page`."""
    require_page(to, no_nms=no_nms)
    return find_runtime(given)


def find_runtime(given: str | Path | None = None) -> Path:
    """Where onnxruntime-web's files lie; through npm into this library's cache where they are nowhere yet.

    Args:
        given: The unpacked npm package, its ``dist`` directory, or the ``.tgz`` that ``npm pack`` writes.

    Returns:
        Directory with `RUNTIME_FILES`.

    Raises:
        ConfigError: If they are not there, or cannot be had; it says the command that gets them.
    """
    kept = cache_root() / "onnxruntime-web" / VERSION
    if given is None:
        return kept if _holds(kept) else _through_npm(kept)
    place = Path(given).expanduser()
    if place.is_file():
        return _unpacked(place, cache_root() / "onnxruntime-web" / place.stem)
    for directory in (place, place / "dist", place / "package" / "dist", place / "node_modules/onnxruntime-web/dist"):
        if _holds(directory):
            return directory
    missing = [name for name in RUNTIME_FILES if not (place / "dist" / name).is_file()]
    raise ConfigError(
        f"'{given}' is not the npm package onnxruntime-web: there is no dist/{missing[0]}. Get it with "
        f"`npm pack {PACKAGE}`, and name the file that this writes."
    )


def write_page(runtime: Path, directory: Path) -> None:
    """Write the page, what runs its program, and that one's licence.

    Args:
        runtime: What `find_runtime` returns.
        directory: Of the export.
    """
    for file in (*sorted(_PAGE.iterdir()), *(runtime / name for name in RUNTIME_FILES)):
        shutil.copyfile(file, directory / file.name)


def _holds(directory: Path) -> bool:
    return all((directory / name).is_file() for name in RUNTIME_FILES)


def _through_npm(kept: Path) -> Path:
    npm = shutil.which("npm")
    if npm is None:
        raise ConfigError(
            f"A page takes the npm package {PACKAGE}, and npm is not installed here. Where it is, type "
            f"`npm pack {PACKAGE}`, and name the file that this writes with --onnxruntime_web FILE.tgz."
        )
    with tempfile.TemporaryDirectory() as beside:
        command = [npm, "pack", PACKAGE, "--silent", "--pack-destination", beside]
        try:
            subprocess.run(  # noqa: S603  # a command of our own
                command, check=True, capture_output=True, text=True, timeout=_TIMEOUT, cwd=beside
            )
        except (subprocess.SubprocessError, OSError) as error:
            said = str(getattr(error, "stderr", None) or error).strip().splitlines()
            raise ConfigError(
                f"npm could not fetch {PACKAGE}: {said[-1] if said else 'it does not say why'}. Where there is a "
                f"network, type `npm pack {PACKAGE}`, and name the file that this writes with --onnxruntime_web "
                "FILE.tgz."
            ) from error
        return _unpacked(next(Path(beside).glob("*.tgz")), kept)


def _unpacked(archive: Path, kept: Path) -> Path:
    """Keep the three files of an archive."""
    try:
        with tarfile.open(archive) as package, atomic_directory(kept) as draft:
            for name in RUNTIME_FILES:
                member = package.extractfile(f"package/dist/{name}")
                if member is None:
                    raise KeyError(name)
                with member, open(draft / name, "wb") as copy:
                    shutil.copyfileobj(member, copy)
    except (tarfile.TarError, gzip.BadGzipFile, zlib.error, EOFError, KeyError) as error:
        raise ConfigError(
            f"'{archive}' is not what `npm pack {PACKAGE}` writes ({error}). Get it anew with this command."
        ) from error
    return kept
