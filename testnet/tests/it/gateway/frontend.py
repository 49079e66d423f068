"""Sits at ComfyUI's frontend in a browser: runs a workflow, watches it, looks at the result, cancels another, uploads a picture.

URL, directory for screenshots, workflow, slow workflow (API format); prints what went wrong, nothing when all is well.
"""

import json
import shutil
import struct
import sys
import zlib
from pathlib import Path

from playwright.sync_api import sync_playwright

url, shots, workflow, slow = sys.argv[1], Path(sys.argv[2]), *map(lambda path: json.loads(Path(path).read_text()), sys.argv[3:5])
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
ARGUMENTS = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
]
errors, texts, pictures = [], [], []


def ours(message):
    """What the page asks of hosts elsewhere is not ours to answer."""
    where = (message.location or {}).get("url", "")
    return message.type == "error" and (not where or where.startswith(url))


def socket(ws):
    def heard(payload):
        (texts if isinstance(payload, str) else pictures).append(payload)

    ws.on("framereceived", heard)


def wait(page, what, fact, seconds=60):
    for _ in range(seconds * 20):
        if fact():
            return
        page.wait_for_timeout(50)
    page.screenshot(path=shots / "stuck.png")
    sys.exit(f"not within {seconds} s: {what}; errors: {errors}; {len(texts)} texts, {len(pictures)} pictures")


def a_picture():
    """A PNG of 8 by 8 pixels."""
    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    rows = b"".join(b"\0" + bytes([16 * row, 128, 200] * 8) for row in range(8))
    head = struct.pack(">IIBBBBB", 8, 8, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def said(kind):
    return [json.loads(text) for text in texts if text.startswith('{"type":"%s"' % kind)]


with sync_playwright() as playwright:
    browser = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
    page = browser.new_page(viewport={"width": 1600, "height": 900})
    page.on("console", lambda message: errors.append(f"{message.text} {message.location}") if ours(message) else None)
    page.on("pageerror", lambda error: errors.append(f"{error} {error.stack}"))
    page.on("websocket", socket)
    # The older one trips over its own default for how a canvas is moved, whatever the server.
    settings = {"Comfy.TutorialCompleted": True, "Comfy.UseNewMenu": "Top", "Comfy.Canvas.NavigationMode": "custom"}
    page.request.post(f"{url}/api/settings", data=json.dumps(settings))
    # A node that takes a file and knows none asks for one without a name, whatever the server.
    page.request.post(f"{url}/api/upload/image", multipart={
        "image": {"name": "first.png", "mimeType": "image/png", "buffer": a_picture()},
    })
    page.goto(url, wait_until="domcontentloaded")
    # Its own first workflow is there: nothing replaces ours any more.
    page.wait_for_function("window.app?.graph?.nodes?.length > 0", timeout=60_000)
    wait(page, "the socket says hello", lambda: said("status"))
    run = page.locator('[data-testid="queue-button"]').or_(page.get_by_role("button", name="Run", exact=True)).first
    run.wait_for(timeout=60_000)
    page.evaluate("workflow => window.app.loadApiJson(workflow, 'test')", workflow)
    page.evaluate("() => { window.app.canvas.ds.scale = 0.7; window.app.canvas.ds.offset = [-150, 100]; window.app.canvas.setDirty(true, true) }")
    run.click()
    wait(page, "progress and a preview", lambda: said("progress") and pictures)
    page.wait_for_timeout(600)
    page.screenshot(path=shots / "running.png")
    done = "Object.values(window.app.nodeOutputs ?? {}).some(node => node.images?.length)"
    page.wait_for_function(done, timeout=60_000)
    wait(page, "the end", lambda: said("execution_success"))
    panel = page.locator('button[aria-label^="Assets"], button[aria-label^="Queue (q"], .queue-tab-button').first
    panel.click()
    page.locator('img[src*="view?"]').first.wait_for(timeout=60_000)
    page.wait_for_timeout(500)
    page.screenshot(path=shots / "done.png")
    panel.click()

    texts.clear()
    page.evaluate("workflow => window.app.loadApiJson(workflow, 'slow')", slow)
    run.click()
    wait(page, "the slow one samples", lambda: said("progress"))
    page.locator('button[aria-label^="Cancel current run"], button[aria-label="Cancel"], button[aria-label^="Interrupt"]').first.click()
    wait(page, "it is interrupted", lambda: said("execution_interrupted"))
    page.wait_for_timeout(500)
    page.screenshot(path=shots / "cancelled.png")

    # A picture from this machine, by the button of a node that takes one.
    plate = Path("plate.png")
    plate.write_bytes(a_picture())
    with page.expect_response(lambda answer: "/upload/image" in answer.url) as uploaded:
        with page.expect_file_chooser() as chooser:
            page.evaluate("""() => {
                window.plate = window.LiteGraph.createNode('LoadImage')
                window.app.graph.add(window.plate)
                window.plate.widgets.find(widget => widget.name === 'upload' || widget.type === 'button').callback()
            }""")
        chooser.value.set_files(plate)
    if not uploaded.value.ok or uploaded.value.json()["name"] != "plate.png":
        sys.exit(f"the upload was answered with {uploaded.value.status}: {uploaded.value.text()}")
    page.wait_for_function("window.plate.widgets.find(widget => widget.name === 'image').value === 'plate.png'", timeout=60_000)
    page.wait_for_function("window.plate.imgs?.[0]?.naturalWidth === 8", timeout=60_000)
    page.wait_for_timeout(500)
    page.screenshot(path=shots / "uploaded.png")

    # What workflows come along: none of the gateway's own, and its page says so without an error.
    with page.expect_response(lambda answer: "/templates/index" in answer.url) as templates:
        with page.expect_response(lambda answer: answer.url.endswith("/api/workflow_templates")) as customs:
            page.locator('button[aria-label^="Templates"], .templates-tab-button').first.click()
    for answer in (templates.value, customs.value):
        if not answer.ok:
            sys.exit(f"{answer.url} was answered with {answer.status}")
    page.wait_for_timeout(1000)
    page.screenshot(path=shots / "templates.png")
    browser.close()

if errors:
    sys.exit("the console says: " + "\n".join(errors))
