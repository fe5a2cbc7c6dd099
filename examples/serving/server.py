"""An exported detector over HTTP, without torch; requests that wait at one time share a run. README.md has the rest."""

import argparse
import asyncio
import contextlib
import io

import uvicorn
from fastapi import FastAPI, HTTPException, Request
from PIL import Image

from ld_hub.runtime import Detector
from ld_hub.runtime.pixels import read_pixels

FORMATS, MAX_REQUESTS, MAX_BYTES = ("JPEG", "PNG", "WEBP"), 256, 20_000_000
Image.MAX_IMAGE_PIXELS = 25_000_000  # Pillow refuses twice as many


async def work(detector: Detector, batch_size: int, waiting: asyncio.Queue) -> None:
    while batch := [await waiting.get()]:
        batch += [waiting.get_nowait() for _ in range(min(batch_size - 1, waiting.qsize()))]  # came during the last run
        images, futures = zip(*batch, strict=True)
        run = asyncio.to_thread(detector.predict_all, images, batch_size=batch_size)
        (found,) = await asyncio.gather(run, return_exceptions=True)  # of an error: later requests are answered
        for k, future in ((k, each) for k, each in enumerate(futures) if not each.done()):  # done: it has hung up
            future.set_exception(found) if isinstance(found, Exception) else future.set_result(found[k])


def make_app(detector: Detector, batch_size: int = 8) -> FastAPI:
    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI):
        task = asyncio.create_task(work(detector, batch_size, waiting))
        yield
        task.cancel()

    app, waiting = FastAPI(lifespan=lifespan), asyncio.Queue()  # pixels, and the future of what is found on them
    app.get("/health")(lambda: {"model": detector.exported.architecture, "labels": detector.label_names})

    @app.post("/detect")
    async def detect(request: Request, threshold: float = 0.3) -> list[dict]:
        if not 0 < int(request.headers.get("content-length", 0)) <= MAX_BYTES:
            raise HTTPException(413, f"Expected an image of 1 to {MAX_BYTES:,} bytes, and its Content-Length.")
        content, future = io.BytesIO(await request.body()), asyncio.get_running_loop().create_future()
        try:
            image, channels = Image.open(content, formats=FORMATS), len(detector.exported.preparation.mean)
            waiting.put_nowait((await asyncio.to_thread(read_pixels, image, channels), future))
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
            raise HTTPException(400, f"No image that can be read: {error}") from None
        return [each._asdict() for each in (await future).filter(threshold)]

    return app


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("directory", help="what `ld-hub export` wrote")
    parser.add_argument("--port", type=int, default=8000)
    parser.add_argument("--batch_size", type=int, default=8, help="most images in one run")
    args = parser.parse_args()
    uvicorn.run(make_app(Detector(args.directory), args.batch_size), port=args.port, limit_concurrency=MAX_REQUESTS)
