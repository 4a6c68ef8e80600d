"""A headless Chromium with one page, driven by the DevTools protocol over a pipe."""

import base64
import json
import os
import select
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
_OPTIONS = (
    *("--headless=new", "--no-sandbox", "--disable-gpu", "--remote-debugging-pipe", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-extensions", "--mute-audio"),
    *("--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"),  # a microphone that beeps
)


class Browser:
    """`events` are all that came, in order: of the network, the console, the page."""

    def __init__(self, commands: int, answers: int):
        self._commands, self._answers = commands, answers
        self._read, self._number = b"", 0
        self._session: str | None = None
        self.events: list[dict[str, Any]] = []
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Network", "Log", "DOM"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """The answer to a command."""
        self._number += 1
        message: dict[str, Any] = {"id": self._number, "method": method, "params": parameters}
        if self._session is not None:
            message["sessionId"] = self._session
        os.write(self._commands, json.dumps(message).encode() + b"\0")
        until = time.monotonic() + 30
        while True:
            found = self._message(until)
            if found.get("id") == self._number:
                assert "error" not in found, f"{method}: {found['error']}"
                return found["result"]

    def open(self, url: str, width: int = 1280, height: int = 900) -> None:
        self.size(width, height)
        self.call("Page.navigate", url=url)

    def size(self, width: int, height: int) -> None:
        narrow = width < 600
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=narrow)

    def run(self, script: str) -> Any:
        """The value of an expression; of a promise, what it comes to."""
        found = self.call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in found, found["exceptionDetails"]
        return found["result"].get("value")

    def wait(self, script: str, seconds: float = 30) -> Any:
        """The value of an expression as soon as it is true of something."""
        until = time.monotonic() + seconds
        while True:
            value = self.run(f"(() => {{ try {{ const v = {script}; return v instanceof Node || v }} catch {{ }} }})()")
            if value:
                return value
            assert time.monotonic() < until, f"never came: {script}\n{self.run('document.body.innerText')}"
            time.sleep(0.05)

    def choose_file(self, selector: str, path: Path) -> None:
        """Through the real file input."""
        root = self.call("DOM.getDocument")["root"]["nodeId"]
        node = self.call("DOM.querySelector", nodeId=root, selector=selector)["nodeId"]
        self.call("DOM.setFileInputFiles", files=[str(path)], nodeId=node)

    def click(self, selector: str) -> None:
        """With the mouse, in the middle of an element."""
        box = self.box(selector)
        self.drag(box, 0.5, 0.5)

    def box(self, selector: str) -> dict[str, float]:
        self.run(f"document.querySelector({json.dumps(selector)}).scrollIntoView({{block: 'center'}})")
        return self.run(f"document.querySelector({json.dumps(selector)}).getBoundingClientRect().toJSON()")

    def drag(self, box: dict[str, float], start: float, end: float) -> None:
        """The mouse, from one part of a box's width to another."""
        places = [box["x"] + box["width"] * part for part in (start, end)]
        y = box["y"] + box["height"] / 2
        for kind, x in (("mouseMoved", 0), ("mousePressed", 0), ("mouseMoved", 1), ("mouseReleased", 1)):
            self.call("Input.dispatchMouseEvent", type=kind, x=places[x], y=y, button="left", clickCount=1)

    def write(self, selector: str, text: str) -> None:
        """From the keyboard, with Enter."""
        self.click(selector)
        self.call("Input.insertText", text=text)
        # A page that is still coming to life puts its own empty value back.
        self.wait(f"document.querySelector({json.dumps(selector)}).value.includes({json.dumps(text)})")
        for kind in ("keyDown", "keyUp"):
            key = {"key": "Enter", "code": "Enter", "windowsVirtualKeyCode": 13, "text": "\r"}
            self.call("Input.dispatchKeyEvent", type=kind, **key)

    def picture(self, path: Path, whole: bool = False) -> None:
        found = self.call("Page.captureScreenshot", format="png", captureBeyondViewport=whole)
        path.write_bytes(base64.b64decode(found["data"]))

    def hosts(self) -> set[str]:
        """Where requests went."""
        sent = [event["params"] for event in self.events if event["method"] == "Network.requestWillBeSent"]
        urls = [one["request"]["url"] for one in sent]
        return {url.split("/")[2] for url in urls if not url.startswith(("data:", "blob:", "about:"))}

    def complaints(self) -> list[Any]:
        """Errors and warnings on the console, and scripts that failed."""
        found = []
        for event in self.events:
            said = event["params"]
            if event["method"] == "Runtime.exceptionThrown":
                found.append(said["exceptionDetails"])
            if event["method"] == "Runtime.consoleAPICalled" and said["type"] in ("error", "assert"):
                found.append(said["args"])
            if event["method"] == "Log.entryAdded" and said["entry"]["level"] == "error":
                found.append(said["entry"])
        return found

    def _message(self, until: float) -> dict[str, Any]:
        while b"\0" not in self._read:
            ready, _, _ = select.select([self._answers], [], [], max(0.0, until - time.monotonic()))
            assert ready, "the browser does not answer"
            more = os.read(self._answers, 1 << 16)
            assert more, "the browser has ended"
            self._read += more
        line, _, self._read = self._read.partition(b"\0")
        found = json.loads(line)
        if "method" in found:
            self.events.append(found)
        return found


@contextmanager
def browser(profile: Path) -> Iterator[Browser]:
    found = next((path for name in BROWSERS if (path := shutil.which(name))), None)
    assert found, f"no browser: one of {', '.join(BROWSERS)} must be on the PATH; `make browser` installs one"
    (its_commands, commands), (answers, its_answers) = os.pipe(), os.pipe()
    command = ["bash", "-c", f'exec "$@" 3<&{its_commands} 4>&{its_answers}', "bash"]
    command += [found, *_OPTIONS, f"--user-data-dir={profile}"]
    log = (profile.parent / "browser.log").open("wb")
    process = subprocess.Popen(command, pass_fds=(its_commands, its_answers), stdout=log, stderr=log)
    os.close(its_commands)
    os.close(its_answers)
    try:
        page = Browser(commands, answers)
        yield page
        page._session = None
        page.call("Browser.close")
        process.wait(timeout=10)
    finally:
        process.kill()
        process.wait()
        log.close()
        os.close(commands)
        os.close(answers)
