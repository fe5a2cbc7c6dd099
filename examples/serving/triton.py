"""An exported detector as a model repository of Triton, which puts requests together by itself.

    python examples/serving/triton.py exported --out models                  for NVIDIA's server (onnxruntime backend)
    python examples/serving/triton.py exported --out models --python --serve for the one in `nvidia-pytriton`, started

The second has the Python backend alone; there triton_model.py calls onnxruntime. README.md says what was tried.
"""

import argparse
import importlib.util
import os
import shutil
import sys
from pathlib import Path

import onnxruntime

from ld_hub.runtime import Detector, ExportedError

NAME = "detector"
TYPES = {"tensor(float)": "TYPE_FP32", "tensor(int64)": "TYPE_INT64", "tensor(uint8)": "TYPE_UINT8"}


def tensors(kind: str, given: list) -> str:
    """Inputs or outputs as config.pbtxt has them: without the batch, -1 for what is free."""
    texts = []
    for each in given:
        dims = ", ".join(str(side if isinstance(side, int) else -1) for side in each.shape[1:])
        texts.append(f'  {{ name: "{each.name}" data_type: {TYPES[each.type]} dims: [ {dims} ] }}')
    return f"{kind} [\n" + ",\n".join(texts) + "\n]\n"


def write_repository(directory: str | Path, out: Path, *, python: bool = False, batch_size: int = 8) -> Path:
    """Write OUT/detector with its config.pbtxt and version 1; the files of the export are compared first."""
    exported = Detector(directory).exported
    if exported.to != "onnx" or not exported.chooses:
        raise ExportedError(f"'{directory}': Triton is given ONNX with the choice of boxes: export without --no_nms.")
    session = onnxruntime.InferenceSession(str(exported.file), providers=["CPUExecutionProvider"])
    config = f'name: "{NAME}"\nbackend: "{"python" if python else "onnxruntime"}"\nmax_batch_size: {batch_size}\n'
    config += tensors("input", session.get_inputs()) + tensors("output", session.get_outputs())
    config += "dynamic_batching { }\n"  # what waits is run together, and nothing waits for more
    place = out / NAME / "1"
    place.mkdir(parents=True, exist_ok=True)
    (place.parent / "config.pbtxt").write_text(config)
    shutil.copyfile(exported.file, place / "model.onnx")
    if python:
        shutil.copyfile(Path(__file__).with_name("triton_model.py"), place / "model.py")
    return out


def bundled(backends: Path) -> Path:
    """The server in the wheel `nvidia-pytriton`; its Python backend is laid out for this Python."""
    found = importlib.util.find_spec("pytriton")
    if found is None or found.origin is None:
        sys.exit("There is no tritonserver here: pip install --no-deps nvidia-pytriton, or take NVIDIA's container.")
    home = Path(found.origin).parent / "tritonserver"
    stub = home / "python_backend_stubs" / f"{sys.version_info.major}.{sys.version_info.minor}"
    for source in (home / "backends", stub):
        shutil.copytree(source, backends if source != stub else backends / "python", dirs_exist_ok=True)
    for file in (home / "bin" / "tritonserver", backends / "python" / "triton_python_backend_stub"):
        file.chmod(0o755)
    return home / "bin" / "tritonserver"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("directory", help="what `ld-hub export` wrote")
    parser.add_argument("--out", type=Path, default=Path("models"), help="the model repository")
    parser.add_argument("--batch_size", type=int, default=8, help="most images in one run")
    parser.add_argument("--python", action="store_true", help="for the Python backend")
    parser.add_argument("--serve", action="store_true", help="start the server of nvidia-pytriton")
    parser.add_argument("--port", type=int, default=8000)
    args = parser.parse_args()
    out = write_repository(args.directory, args.out.absolute(), python=args.python, batch_size=args.batch_size)
    if args.serve:
        backends = out.with_name(out.name + "_backends")
        flags = ("--model-repository", out, "--backend-directory", backends, "--http-port", args.port)
        local = ("--http-address", "127.0.0.1", "--allow-grpc=false", "--allow-metrics=false")
        command = [bundled(backends), *flags, *local]
        libraries = command[0].parents[3] / "nvidia_pytriton.libs"  # beside the package, for its stub
        os.environ["LD_LIBRARY_PATH"] = f"{libraries}:{os.environ.get('LD_LIBRARY_PATH', '')}"
        os.execv(command[0], [str(word) for word in command])


if __name__ == "__main__":
    main()
