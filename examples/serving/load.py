"""Requests per second and latency of a server at 1, 8 and 64 requests at one time.

    python examples/serving/load.py photos/ --port 8000 --json figures.json
    python examples/serving/load.py photos/ --port 8000 --triton

Clients are threads that send one image after the other, each over its own connection.
"""

import argparse
import contextlib
import http.client
import json
import threading
import time
from dataclasses import asdict, dataclass
from itertools import count
from pathlib import Path

import numpy as np
from PIL import Image


@dataclass(frozen=True)
class Request:
    """A POST: path, body and headers."""

    path: str
    body: bytes
    headers: dict[str, str]


@dataclass(frozen=True)
class Load:
    """What a number of clients saw together; latencies in ms."""

    clients: int
    requests: int
    requests_per_second: float
    p50_ms: float
    p95_ms: float


def plain(file: Path) -> Request:
    """An image as server.py takes it."""
    return Request("/detect", file.read_bytes(), {})


def tensor(file: Path, name: str = "pixels") -> Request:
    """Its pixels, decoded already, as Triton takes them: JSON that describes the bytes behind it."""
    with Image.open(file) as opened:
        pixels = np.asarray(opened.convert("RGB"))[None]
    inputs = {"name": name, "shape": pixels.shape, "datatype": "UINT8"}
    inputs["parameters"] = {"binary_data_size": pixels.nbytes}
    head = json.dumps({"inputs": [inputs], "parameters": {"binary_data_output": True}}).encode()
    headers = {"Inference-Header-Content-Length": str(len(head)), "Content-Type": "application/octet-stream"}
    return Request("/v2/models/detector/infer", head + pixels.tobytes(), headers)


def send(connection: http.client.HTTPConnection, request: Request) -> bytes:
    connection.request("POST", request.path, request.body, request.headers)
    answer = connection.getresponse()
    content = answer.read()
    if answer.status != 200:
        raise SystemExit(f"{request.path}: {answer.status} {content[:300]!r}")
    return content


def measure(place: tuple[str, int], requests: list[Request], clients: int, seconds: float) -> Load:
    """So many clients for so long; every one has sent a request before the clock starts."""
    started, latencies, errors = [], [], []
    ready = threading.Barrier(clients, action=lambda: started.append(time.perf_counter()))

    def client(first: int) -> None:
        try:
            with contextlib.closing(http.client.HTTPConnection(*place, timeout=120)) as connection:
                send(connection, requests[first % len(requests)])
                ready.wait()
                for k in count(first + 1):
                    begun = time.perf_counter()
                    if begun > started[0] + seconds:
                        return
                    send(connection, requests[k % len(requests)])
                    latencies.append(time.perf_counter() - begun)
        except BaseException as error:
            errors.append(error)
            ready.abort()

    threads = [threading.Thread(target=client, args=(k,)) for k in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise next((error for error in errors if not isinstance(error, threading.BrokenBarrierError)), errors[0])
    took = time.perf_counter() - started[0]
    middle, late = (round(float(each), 1) for each in np.percentile(latencies, (50, 95)) * 1e3)
    return Load(clients, len(latencies), round(len(latencies) / took, 1), middle, late)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("images", type=Path, help="directory of images")
    parser.add_argument("--port", type=int, default=8000)
    parser.add_argument("--triton", action="store_true", help="the server is Triton, with what triton.py has written")
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 8, 64])
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    files = sorted(file for file in args.images.iterdir() if file.suffix.lower() in (".jpg", ".jpeg", ".png", ".webp"))
    requests = [tensor(file) if args.triton else plain(file) for file in files[:64]]
    loads = []
    for clients in args.clients:
        loads.append(measure(("127.0.0.1", args.port), requests, clients, args.seconds))
        print(loads[-1], flush=True)
    if args.json:
        from ld_hub.ops.hardware import program_hardware  # noqa: PLC0415  # torch would take time from the server

        hardware = program_hardware("onnxruntime", None)
        content = {"hardware": hardware, "triton": args.triton, "loads": [asdict(load) for load in loads]}
        args.json.write_text(json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    main()
