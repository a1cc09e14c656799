"""A page in a real browser, driven by its DevTools protocol through a pipe: nothing to install.

Chromium is that of the environment variable CHROME, or the first that is found.
"""

import base64
import json
import os
import select
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

PATIENCE = 60  # seconds without an answer
NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
KEYS = {"ArrowLeft": 37, "ArrowUp": 38, "ArrowRight": 39, "ArrowDown": 40, "Home": 36, "End": 35,
        "Tab": 9, "Enter": 13}  # fmt: skip


def found() -> str | None:
    """The browser's path; None where there is none."""
    return os.environ.get("CHROME") or next(filter(None, map(shutil.which, NAMES)), None)


class Browser:
    """One tab. What the page complained about is in `complaints`."""

    def __init__(self, to: int, back: int) -> None:
        self._to, self._back = to, os.fdopen(back, "rb", buffering=0)
        self._number, self._rest, self._session = 0, b"", ""
        self.complaints: list[str] = []
        self._events: list[str] = []
        target = self.ask("Target.createTarget", url="about:blank")["targetId"]
        attached = self.ask("Target.attachToTarget", targetId=target, flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.ask(f"{domain}.enable")

    def close(self) -> None:
        """Hear nothing more."""
        self._back.close()

    def ask(self, method: str, **given: Any) -> Any:
        """The answer to one command."""
        self._number += 1
        message: dict[str, Any] = {"id": self._number, "method": method, "params": given}
        if self._session:
            message["sessionId"] = self._session
        _write(self._to, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._next()
            if answer.get("id") == self._number:
                assert "error" not in answer, (method, answer["error"])
                return answer["result"]
            self._heard(answer)

    def _next(self) -> Any:
        while b"\0" not in self._rest:
            ready, _, _ = select.select([self._back], [], [], PATIENCE)
            more = self._back.read(1 << 16) if ready else b""
            assert more, f"the browser has gone, or was silent for {PATIENCE} seconds"
            self._rest += more
        line, _, self._rest = self._rest.partition(b"\0")
        return json.loads(line)

    def _heard(self, event: Any) -> None:
        name, what = event.get("method", ""), event.get("params", {})
        self._events.append(name)
        loud = name == "Runtime.consoleAPICalled" and what["type"] in ("error", "warning", "assert")
        if loud or name in ("Runtime.exceptionThrown", "Log.entryAdded"):
            self.complaints.append(json.dumps(what)[:500])
        if name == "Network.requestWillBeSent":
            url = what["request"]["url"]
            if not url.startswith(("file:", "data:", "about:")):
                self.complaints.append(f"asked for {url}")

    def open(self, page: Path, width: int = 1200, height: int = 900, dark: bool = False) -> None:
        """Load a page in a window of that size."""
        phone = width < 600
        self.ask("Emulation.setDeviceMetricsOverride", width=width, height=height,
                 deviceScaleFactor=1, mobile=phone)  # fmt: skip
        value = "dark" if dark else "light"
        self.ask("Emulation.setEmulatedMedia",
                 features=[{"name": "prefers-color-scheme", "value": value}])  # fmt: skip
        self._events.clear()
        self.ask("Page.navigate", url=page.as_uri())
        while "Page.loadEventFired" not in self._events:
            self._heard(self._next())

    def run(self, script: str) -> Any:
        """The value of a JavaScript expression in the page."""
        found = self.ask("Runtime.evaluate", expression=script, returnByValue=True)
        assert "exceptionDetails" not in found, found["exceptionDetails"]
        return found["result"].get("value")

    def click(self, selector: str, x: float = 0.5, y: float = 0.5) -> None:
        """Press the mouse at a place of an element: shares of its width and height."""
        box = self.run(
            f"(() => {{ const e = document.querySelector({json.dumps(selector)});"
            " e.scrollIntoView({block: 'center'}); const b = e.getBoundingClientRect();"
            " return [b.left, b.top, b.width, b.height]; })()"
        )
        place = {"x": box[0] + x * box[2], "y": box[1] + y * box[3], "button": "left"}
        for kind in ("mousePressed", "mouseReleased"):
            self.ask("Input.dispatchMouseEvent", type=kind, clickCount=1, buttons=1, **place)

    def key(self, name: str, times: int = 1) -> None:
        """Press a key on what has the focus."""
        for _ in range(times):
            for kind in ("keyDown", "keyUp"):
                self.ask("Input.dispatchKeyEvent", type=kind, key=name, code=name,
                         windowsVirtualKeyCode=KEYS[name])  # fmt: skip

    def picture(self, path: Path, whole: bool = False) -> None:
        """Write a PNG of the window, or of the whole page."""
        shot = self.ask("Page.captureScreenshot", format="png", captureBeyondViewport=whole)
        path.write_bytes(base64.b64decode(shot["data"]))


def _write(to: int, message: bytes) -> None:
    while message:
        message = message[os.write(to, message) :]


@contextmanager
def browser(program: str, folder: Path) -> Iterator[Browser]:
    """A browser without a window, its files in `folder`; ended at the end of the block."""
    from_us, to_them = os.pipe()
    from_them, to_us = os.pipe()
    # it reads from descriptor 3 and writes to 4
    command = [
        program, "--headless=new", "--remote-debugging-pipe", "--no-sandbox", "--disable-gpu",
        "--disable-dev-shm-usage", "--no-first-run", "--hide-scrollbars",
        f"--user-data-dir={folder}", "about:blank",
    ]  # fmt: skip
    shell = f'exec 3<&{from_us} 4>&{to_us}; exec "$@"'
    process = subprocess.Popen(
        ["bash", "-c", shell, "browser", *command],
        pass_fds=(from_us, to_us), stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    os.close(from_us)
    os.close(to_us)
    tab = None
    try:
        tab = Browser(to_them, from_them)
        yield tab
    finally:
        os.close(to_them)
        if tab is not None:
            tab.close()
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
