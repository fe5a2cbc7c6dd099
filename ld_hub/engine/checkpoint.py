"""A run directory and the checkpoints in it: safetensors and JSON, whole or not there at all.

torch is imported where tensors are: whether a directory may be written to is asked before.

```
RUN/
  config.json                 settings of the run
  arguments.yaml, command.txt flags of the command, and what was typed: a line for the start and each continuation
  metrics.jsonl               one line per logged step and per evaluation
  checkpoints/step_00001000/  state.json, model.safetensors, optimizer.safetensors, ema.safetensors, manifest.json
  best/, model/               loadable models: best AP so far, and last
  result.json                 written when the run is complete
  comparison/, comparison.json  other seeds and the student alone (`ld_hub.launch.repeats`)
```
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict

from ld_hub.checked import Scalar
from ld_hub.engine.proof import (
    FORMAT,
    STATE,
    TENSORS,
    UNPROVEN,
    faults,
    is_checkpoint,
    last_whole,
    require_whole,
    retire,
    step_of,
)
from ld_hub.errors import CheckpointError, ConfigError, MissingFileError
from ld_hub.hub import atomic_directory, atomic_write
from ld_hub.hub.manifest import write_manifest
from ld_hub.version import __version__

if TYPE_CHECKING:
    import torch
    from torch import Tensor

KEPT = 2  # checkpoints; the one before the last is there in case the last turns out bad


class OptimizerState(TypedDict):
    """``torch.optim.Optimizer.state_dict()``: tensors and numbers of each parameter, settings of each group."""

    state: dict[int, dict[str, Tensor | Scalar]]
    param_groups: list[dict[str, Scalar | list[int]]]


class OptimizerValues(TypedDict):
    """What of an `OptimizerState` goes into JSON."""

    state: dict[str, dict[str, Scalar]]
    param_groups: list[dict[str, Scalar | list[int]]]


@dataclass
class Checkpoint:
    """Everything that a continued run needs.

    Attributes:
        step: Optimizer steps made.
        model: State dict of the task (detector and terms).
        optimizer: Its momenta and settings.
        ema: State dict of the average, or None.
        state: JSON values: settings, what the run is of, best AP, scaler, random number generators.
    """

    step: int
    model: dict[str, Tensor]
    optimizer: OptimizerState
    ema: dict[str, Tensor] | None
    state: dict[str, Any] = field(default_factory=dict)

    def save(self, path: Path) -> None:
        """Write to a directory that appears in one rename, when everything in it is on disk, its manifest last."""
        import torch

        from ld_hub.hub import save_safetensors

        tensors, values = flatten_optimizer(self.optimizer)
        with atomic_directory(path) as beside:
            save_safetensors(self.model, beside / "model.safetensors")
            save_safetensors(tensors, beside / "optimizer.safetensors")
            if self.ema is not None:
                save_safetensors(self.ema, beside / "ema.safetensors")
            content = {**self.state, "format": FORMAT, "step": self.step, "optimizer": values}
            atomic_write(beside / "state.json", json.dumps(content))
            files = [name for name in (STATE, *TENSORS) if (beside / name).is_file()]
            versions = {"ld_hub": __version__, "torch": torch.__version__}
            about = {"step": self.step, "versions": versions, "run": self.state.get("identity")}
            write_manifest(beside, files, about)

    def bytes(self) -> int:
        """Of all tensors."""
        from ld_hub.engine.disk import bytes_of

        return bytes_of(self.model.values(), flatten_optimizer(self.optimizer)[0].values(), (self.ema or {}).values())

    @classmethod
    def load(cls, path: Path) -> Checkpoint:
        """Read what `save` wrote.

        Raises:
            MissingFileError: If it is no checkpoint directory.
            CheckpointError: If a file is not as it was written, cannot be read, or is of another format.
        """
        from ld_hub.hub import load_safetensors

        require_whole(path)
        file = path / "state.json"
        if not file.is_file():
            raise MissingFileError(
                f"'{path}' is no checkpoint: it has no state.json. Checkpoints are RUN/checkpoints/step_*."
            )
        try:
            state = json.loads(file.read_text(encoding="utf-8"))
        except ValueError as error:
            raise CheckpointError(f"'{file}' is not readable JSON ({error}): take another checkpoint.") from None
        if state.get("format") not in (FORMAT, UNPROVEN):
            raise CheckpointError(
                f"'{file}' has format {state.get('format')!r}; this version of ld_hub reads format {FORMAT}."
            )
        ema = path / "ema.safetensors"
        return cls(
            step=state.pop("step"),
            model=load_safetensors(path / "model.safetensors"),
            optimizer=restore_optimizer(load_safetensors(path / "optimizer.safetensors"), state.pop("optimizer")),
            ema=load_safetensors(ema) if ema.is_file() else None,
            state=state,
        )


class RunDirectory:
    """The files of one run.

    Args:
        path: The directory; made when something is written.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.config_file = self.path / "config.json"
        self.metrics_file = self.path / "metrics.jsonl"
        self.result_file = self.path / "result.json"
        self.model_dir = self.path / "model"
        self.best_dir = self.path / "best"
        self._checkpoints = self.path / "checkpoints"

    def has_run(self) -> bool:
        """Whether a run was begun here."""
        return any(file.exists() for file in (self.config_file, self.metrics_file, self._checkpoints))

    def require_new(self) -> None:
        """Refuse to write over a run.

        Raises:
            ConfigError: If there is one.
        """
        for place in (self.path, *self.path.parents):
            if place.exists() and not place.is_dir():
                raise ConfigError(f"output_dir '{self.path}': '{place}' is a file; name a directory.")
        if self.has_run():
            raise ConfigError(
                f"'{self.path}' already holds a run: pass --resume (resume=True) to continue it, or another "
                "--output_dir; nothing is overwritten."
            )

    def claim(self, resume: bool | str) -> None:
        """Refuse to write over a run other than the one that is continued.

        Args:
            resume: True for the run here, or the path of what is continued, which may be of another directory.

        Raises:
            ConfigError: If there is one.
        """
        inside = isinstance(resume, str) and Path(resume).resolve().is_relative_to(self.path.resolve())
        if resume is not True and not inside:
            self.require_new()

    def checkpoints(self) -> list[Path]:
        """Checkpoints that were written to the end, oldest first; `find` looks whether they are still whole."""
        return sorted(path for path in self._checkpoints.glob("step_*") if is_checkpoint(path))

    def find(self, resume: bool | str) -> Path | None:
        """Checkpoint to continue from: one whose files are what was written.

        Args:
            resume: True for the last one here, or the path of a checkpoint or of a run directory.

        Returns:
            Its path, or None where this run has saved nothing yet.

        Raises:
            MissingFileError: If a path was given and there is no checkpoint.
            CheckpointError: If there are checkpoints, and all are damaged.
        """
        if isinstance(resume, bool):
            return last_whole(self.checkpoints())
        path = Path(resume)
        if (path / "state.json").is_file():
            require_whole(path)
            return path
        found = last_whole(RunDirectory(path).checkpoints())
        if found is None:
            raise MissingFileError(
                f"resume '{resume}': neither a checkpoint (RUN/checkpoints/step_*) nor a run with one."
            )
        return found

    def damaged_after(self, path: Path) -> list[str]:
        """What is wrong with the checkpoints that are later than one, in words."""
        later = [each for each in self.checkpoints() if each.name > path.name]
        return [f"'{each}': {'; '.join(found)}" for each in later if (found := faults(each))]

    def resumes(self, resume: bool | str) -> bool:
        """Whether a run with this setting continues from a checkpoint."""
        return bool(resume) and self.find(resume) is not None

    def save(self, checkpoint: Checkpoint, *, keep: int = KEPT, best: int | None = None) -> Path:
        """Write a checkpoint; once it is proven, remove the oldest ones and whatever a killed process left behind.

        Args:
            checkpoint: What is saved.
            keep: How many checkpoints stay, this one included.
            best: Step of one that stays beside them.

        Raises:
            CheckpointError: If what was written cannot be read back; all earlier checkpoints are there then.
        """
        path = self._checkpoints / f"step_{checkpoint.step:08d}"
        checkpoint.save(path)
        require_whole(path)
        for old in self.checkpoints()[:-keep]:
            if step_of(old) != best:
                retire(old)
                shutil.rmtree(old)
        self.clean()
        return path

    def clean(self) -> None:
        """Remove half-written and half-removed directories of a killed process."""
        for leftover in [*self.path.glob(".*.tmp"), *self._checkpoints.glob(".*.tmp")]:
            shutil.rmtree(leftover, ignore_errors=True)
        for path in self._checkpoints.glob("step_*"):
            if not is_checkpoint(path):
                shutil.rmtree(path, ignore_errors=True)

    def settings(self) -> dict[str, Any]:
        """Content of config.json.

        Raises:
            CheckpointError: If it is missing or cannot be read.
        """
        try:
            return dict(json.loads(self.config_file.read_text(encoding="utf-8")))
        except (OSError, ValueError) as error:
            raise CheckpointError(
                f"'{self.config_file}' cannot be read ({error}), so nothing says what was trained in '{self.path}': "
                "remove the directory, or use another --output_dir."
            ) from None

    def write_json(self, file: Path, content: Mapping[str, Any]) -> None:
        """Write one of the JSON files."""
        atomic_write(file, json.dumps(content, indent=2, ensure_ascii=False) + "\n")

    def forget_after(self, step: int, *, unscored: bool = False) -> None:
        """Drop what a run that continues from `step` will write again: later checkpoints, later lines of metrics.

        A half-written last line goes too.

        Args:
            step: Of the checkpoint.
            unscored: Whether the evaluation of that step will be written again too.
        """
        for path in self.checkpoints():
            if step_of(path) > step:
                retire(path)
        self.clean()
        self.result_file.unlink(missing_ok=True)
        if not self.metrics_file.is_file():
            return
        kept = []
        for line in self.metrics_file.read_text(encoding="utf-8").splitlines():
            try:
                record = json.loads(line)
            except ValueError:
                continue
            again = unscored and record.get("step") == step and any(name.startswith("eval/") for name in record)
            if record.get("step", 0) <= step and not again:
                kept.append(line + "\n")
        atomic_write(self.metrics_file, "".join(kept))


def flatten_optimizer(state: OptimizerState) -> tuple[dict[str, Tensor], OptimizerValues]:
    """Split an optimizer's state dict into tensors by name and JSON values."""
    from torch import Tensor

    tensors: dict[str, Tensor] = {}
    values: dict[str, dict[str, Scalar]] = {}
    for index, entries in state["state"].items():
        for key, value in entries.items():
            if isinstance(value, Tensor):
                tensors[f"{index}.{key}"] = value
            else:
                values.setdefault(str(index), {})[key] = value
    return tensors, {"state": values, "param_groups": state["param_groups"]}


def restore_optimizer(tensors: Mapping[str, Tensor], values: OptimizerValues) -> OptimizerState:
    """Inverse of `flatten_optimizer`."""
    state: dict[int, dict[str, Tensor | Scalar]] = {int(k): {**each} for k, each in values["state"].items()}
    for name, tensor in tensors.items():
        index, key = name.split(".", 1)
        state.setdefault(int(index), {})[key] = tensor
    return {"state": state, "param_groups": values["param_groups"]}


@dataclass(frozen=True)
class RandomState:
    """Every random number generator of one process, as JSON values.

    Attributes:
        torch: Bytes of the CPU generator, hexadecimal.
        cuda: Those of the GPU's, or None.
        numpy: As `numpy.random.get_state` gives it, the key as a list.
        python: Version, internal state, and the next normal number if there is one.
    """

    torch: str
    cuda: str | None
    numpy: Mapping[str, Any]
    python: tuple[int, tuple[int, ...], float | None]


def random_state(device: torch.device) -> RandomState:
    """State of every random number generator of this process."""
    import random

    import numpy as np
    import torch

    numpy: Any = np.random.get_state(legacy=False)
    numpy["state"]["key"] = numpy["state"]["key"].tolist()
    return RandomState(
        torch=torch.get_rng_state().numpy().tobytes().hex(),
        cuda=torch.cuda.get_rng_state(device).numpy().tobytes().hex() if device.type == "cuda" else None,
        numpy=numpy,
        python=random.getstate(),
    )


def set_random_state(state: RandomState, device: torch.device) -> None:
    """Inverse of `random_state`."""
    import random

    import numpy as np
    import torch

    torch.set_rng_state(_bytes(state.torch))
    if device.type == "cuda" and state.cuda is not None:
        torch.cuda.set_rng_state(_bytes(state.cuda), device)
    numpy = {**state.numpy, "state": {**state.numpy["state"]}}
    numpy["state"]["key"] = np.array(numpy["state"]["key"], dtype=np.uint32)
    np.random.set_state(numpy)
    random.setstate(state.python)


def _bytes(text: str) -> Tensor:
    import torch

    return torch.frombuffer(bytearray.fromhex(text), dtype=torch.uint8).clone()
