"""Drives the client module of Krita's plugin, krita-ai-diffusion, against the server at URL.

    drive_krita.py PLUGIN URL [CHECKPOINT]

PLUGIN is the plugin's directory (the one with `ai_diffusion` in it, as a release or a checkout with its submodules). Without
CHECKPOINT only nodes are used that hand pictures to and fro; with one, pictures are generated and refined as well.
Prints a line of JSON for each step; the last says {"done": true}.
"""

import asyncio
import json
import os
import sys

plugin, url, *rest = sys.argv[1:]
checkpoint = rest[0] if rest else None
os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")
sys.path.insert(0, plugin)

from PyQt5.QtCore import QCoreApplication, Qt
from PyQt5.QtGui import QImage, qAlpha, qBlue, qGreen, qRed, qRgb, qRgba

application = QCoreApplication.instance() or QCoreApplication([])

from ai_diffusion import eventloop
from ai_diffusion.settings import settings

eventloop.setup()
# Whoever renders has what the test needs, and none of the models of a whole installation.
settings.check_server_resources = False

from ai_diffusion.backend.api import (
    CheckpointInput,
    ConditioningInput,
    CustomWorkflowInput,
    ExtentInput,
    ImageInput,
    InpaintMode,
    InpaintParams,
    SamplingInput,
    WorkflowInput,
    WorkflowKind,
)
from ai_diffusion.backend.client import ClientEvent
from ai_diffusion.backend.comfy_client import ComfyClient
from ai_diffusion.image import Bounds, Extent, Image

SIZE = 64
STEPS = 3


def tell(**what):
    print(json.dumps(what), flush=True)


def canvas():
    """A picture whose every pixel is its own place."""
    image = QImage(SIZE, SIZE, QImage.Format.Format_ARGB32)
    for y in range(SIZE):
        for x in range(SIZE):
            image.setPixel(x, y, qRgba(3 * x, 3 * y, 7, 255))
    return Image(image)


def selection():
    image = QImage(SIZE, SIZE, QImage.Format.Format_Grayscale8)
    for y in range(SIZE):
        for x in range(SIZE):
            image.setPixel(x, y, qRgb(2 * x, 2 * x, 2 * x))
    return Image(image)


def half_clear():
    """A layer whose left half is clear."""
    image = QImage(SIZE, SIZE, QImage.Format.Format_ARGB32)
    for y in range(SIZE):
        for x in range(SIZE):
            image.setPixel(x, y, qRgba(200, 100, 50, 255 if x >= SIZE // 2 else 0))
    return Image(image)


def pixels(image):
    q = image._qimage
    assert (q.width(), q.height()) == (SIZE, SIZE), (q.width(), q.height())
    return [[(qRed(p), qGreen(p), qBlue(p)) for p in (q.pixel(x, y) for x in range(SIZE))] for y in range(SIZE)]


def same(one, other):
    """A ComfyUI computes with floats and cuts off what is behind the point."""
    pairs = (pair for a, b in zip(one, other) for p, q in zip(a, b) for pair in zip(p, q))
    return all(abs(a - b) <= 1 for a, b in pairs)


def images(mask=None):
    extent = Extent(SIZE, SIZE)
    given = ImageInput(ExtentInput(extent, extent, extent, extent), canvas())
    given.hires_mask = mask
    return given


def handing_to_and_fro():
    """The canvas inverted, the selection as a picture, and where a layer is opaque: through all of the plugin's nodes."""
    graph = {
        "1": {"class_type": "ETN_KritaCanvas", "inputs": {}},
        "2": {"class_type": "ETN_KritaSelection", "inputs": {}},
        "3": {"class_type": "ETN_KritaImageLayer", "inputs": {"name": "layer"}},
        "4": {"class_type": "ImageInvert", "inputs": {"image": ["1", 0]}},
        "5": {"class_type": "MaskToImage", "inputs": {"mask": ["2", 0]}},
        "6": {"class_type": "MaskToImage", "inputs": {"mask": ["3", 1]}},
        "7": {"class_type": "ETN_SaveImageCache", "inputs": {"images": ["4", 0], "format": "PNG"}},
        "8": {"class_type": "ETN_SaveImageCache", "inputs": {"images": ["5", 0], "format": "PNG"}},
        "9": {
            "class_type": "ETN_KritaOutput",
            "inputs": {"images": ["6", 0], "name": "opaque", "x": 5, "y": 6, "batch_mode": "layers", "resize_canvas": False},
        },
    }
    custom = CustomWorkflowInput(graph, {"layer": half_clear(), "seed": 1})
    return WorkflowInput(
        WorkflowKind.custom,
        images=images(selection()),
        sampling=SamplingInput("euler", "normal", cfg_scale=1.0, total_steps=1, seed=1),
        custom_workflow=custom,
        inpaint=InpaintParams(InpaintMode.fill, Bounds(0, 0, SIZE, SIZE)),
    )


def sampling():
    return SamplingInput("euler", "normal", cfg_scale=4.0, total_steps=STEPS, seed=7)


def generating():
    return WorkflowInput(
        WorkflowKind.generate,
        models=CheckpointInput(checkpoint),
        images=ImageInput.from_extent(Extent(SIZE, SIZE)),
        conditioning=ConditioningInput("a lighthouse", "fog"),
        sampling=sampling(),
    )


async def finished(messages, client, work):
    """The pictures of a piece of work, and all that was said of it."""
    job = await client.enqueue(work)
    told = []
    async for message in messages:
        if message.event is ClientEvent.error:
            raise RuntimeError(message.error)
        if message.job_id != job:
            continue
        told.append(message)
        if message.event in (ClientEvent.finished, ClientEvent.interrupted):
            return message, told


async def cancelled(messages, client, work):
    """Interrupts what runs; whether that was said."""
    job = await client.enqueue(work)
    async for message in messages:
        if message.event is ClientEvent.error:
            raise RuntimeError(message.error)
        if message.job_id == job and message.event is ClientEvent.progress:
            await client.interrupt()
        if message.job_id == job and message.event is ClientEvent.interrupted:
            return True
        assert message.event is not ClientEvent.finished, "it was interrupted"


async def main():
    client = ComfyClient(url)
    await client.connect()
    tell(connected=client.device_info.name, vram=client.device_info.vram)
    async for _ in client.discover_models(refresh=False):
        pass
    tell(checkpoints=sorted(client.models.checkpoints))
    messages = client.listen()

    end, told = await finished(messages, client, handing_to_and_fro())
    assert end.event is ClientEvent.finished, end
    given, inverted = pixels(canvas()), [[(255 - r, 255 - g, 255 - b) for r, g, b in row] for row in pixels(canvas())]
    mask, opaque = pixels(selection()), [[(255,) * 3 if x >= SIZE // 2 else (0,) * 3 for x in range(SIZE)]] * SIZE
    came = [pixels(image) for image in end.images]
    for name, wanted in [("canvas", inverted), ("selection", mask), ("layer", opaque)]:
        assert any(same(wanted, picture) for picture in came), f"the {name} did not come back as it was to"
    assert not any(same(given, picture) for picture in came) and len(came) == 3, len(came)
    outputs = [message.result for message in told if message.event is ClientEvent.output]
    info = next(output for output in outputs if hasattr(output, "batch_mode"))
    assert (info.name, info.offset.x, info.offset.y, info.batch_mode.name) == ("opaque", 5, 6, "layers"), info
    tell(pictures=len(came), info=info.name, progress=any(message.event is ClientEvent.progress for message in told))

    # The same again: nothing is handed in twice, and all of it comes again.
    end, _ = await finished(messages, client, handing_to_and_fro())
    assert sorted(map(str, map(pixels, end.images))) == sorted(map(str, came))
    tell(again=len(end.images))

    job = await client.enqueue(handing_to_and_fro())
    await client.cancel([job])
    async for message in messages:
        if message.job_id == job and message.event is ClientEvent.interrupted:
            break
    end, _ = await finished(messages, client, handing_to_and_fro())
    tell(after_one_that_was_taken_back=len(end.images))

    if checkpoint is not None:
        end, told = await finished(messages, client, generating())
        assert [image.extent for image in end.images] == [Extent(SIZE, SIZE)], end.images
        tell(generated=len(end.images), steps=max(message.progress for message in told if message.progress))
        work = generating()
        work.sampling.total_steps = 1000
        tell(interrupted=await cancelled(messages, client, work))
        end, _ = await finished(messages, client, generating())
        tell(after=len(end.images))
    await client.disconnect()


task = eventloop.run(main())
while not task.done():
    application.processEvents()
task.result()
tell(done=True)
