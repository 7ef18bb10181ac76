"""A headless Chromium, driven over its debugging pipe: what a page did, said and asked for."""

from __future__ import annotations

import json
import os
import queue
import shutil
import subprocess
import tempfile
import threading
from base64 import b64decode
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

PROGRAM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")

FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
    "--hide-scrollbars",
    "--remote-debugging-pipe",
)


class Chromium:
    """One browser process. Requests and answers are JSON, ended by NUL, on two pipes."""

    def __init__(self, to: int, back: int) -> None:
        self._to, self._back = os.fdopen(to, "wb", buffering=0), os.fdopen(back, "rb", buffering=0)
        self._number = 0
        self._answers: dict[int, queue.Queue[dict]] = {}
        self.events: list[dict] = []
        threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self) -> None:
        buffer = b""
        while chunk := self._back.read(1 << 20):
            *whole, buffer = (buffer + chunk).split(b"\0")
            for text in whole:
                message = json.loads(text)
                if "id" in message:
                    self._answers[message["id"]].put(message)
                else:
                    self.events.append(message)

    def call(self, method: str, session: str | None = None, **params: Any) -> dict:
        self._number += 1
        answer = self._answers[self._number] = queue.Queue()
        request = {
            "id": self._number,
            "method": method,
            "params": params,
            **({"sessionId": session} if session else {}),
        }
        self._to.write(json.dumps(request).encode() + b"\0")
        message = answer.get(timeout=60)
        if "error" in message:
            raise RuntimeError(f"{method}: {message['error']}")
        return message["result"]

    def open(self, url: str, *, width: int = 1440, height: int = 900, dark: bool = False) -> Page:
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        page = Page(self, session)
        for domain in ("Page", "Runtime", "Network", "Log"):
            page.call(f"{domain}.enable")
        page.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        page.call("Emulation.setEmulatedMedia", features=[scheme])
        page.call("Page.navigate", url=url)
        page.wait("document.readyState === 'complete'")
        return page


class Page:
    """One tab."""

    def __init__(self, browser: Chromium, session: str) -> None:
        self._browser, self._session = browser, session

    def call(self, method: str, **params: Any) -> dict:
        return self._browser.call(method, self._session, **params)

    def evaluate(self, expression: str) -> Any:
        """The value of a JavaScript expression; a promise is awaited."""
        result = self.call("Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True)
        if "exceptionDetails" in result:
            raise RuntimeError(result["exceptionDetails"].get("exception", {}).get("description", result))
        return result["result"].get("value")

    def wait(self, condition: str, seconds: float = 20) -> None:
        """Until the expression is true, asked each frame."""
        self.evaluate(
            f"new Promise((done, fail) => {{ const until = performance.now() + {1000 * seconds};"
            f"const ask = () => {{ if ({condition}) done(true); else if (performance.now() > until)"
            f" fail(new Error('waited in vain: ' + {json.dumps(condition)})); else setTimeout(ask, 5); }}; ask(); }})"
        )

    def key(self, key: str) -> None:
        text = {"text": key} if len(key) == 1 else {}
        for kind in ("keyDown", "keyUp"):
            self.call("Input.dispatchKeyEvent", type=kind, key=key, **(text if kind == "keyDown" else {}))

    def events(self, *methods: str) -> list[dict]:
        return [
            e["params"] for e in self._browser.events if e.get("sessionId") == self._session and e["method"] in methods
        ]

    def complaints(self) -> list[str]:
        """Exceptions, and errors on the console: violations of the content security policy stand there."""
        thrown = [
            e["exceptionDetails"]["exception"].get("description", "") for e in self.events("Runtime.exceptionThrown")
        ]
        logged = [e["entry"]["text"] for e in self.events("Log.entryAdded") if e["entry"]["level"] == "error"]
        said = [str(e["args"]) for e in self.events("Runtime.consoleAPICalled") if e["type"] == "error"]
        return thrown + logged + said

    def requests(self) -> list[str]:
        return [e["request"]["url"] for e in self.events("Network.requestWillBeSent")]

    def screenshot(self, path: Path) -> None:
        path.write_bytes(b64decode(self.call("Page.captureScreenshot", format="png")["data"]))

    def close(self) -> None:
        self.call("Page.close")


@contextmanager
def chromium() -> Iterator[Chromium]:
    """A browser with an empty profile; it ends with the block."""
    assert PROGRAM is not None
    (ours_in, to), (back, ours_out) = os.pipe(), os.pipe()
    with tempfile.TemporaryDirectory(prefix="chromium-", ignore_cleanup_errors=True) as profile:
        redirect = f'exec "$@" 3<&{ours_in} 4>&{ours_out}'
        process = subprocess.Popen(
            ["bash", "-c", redirect, "bash", PROGRAM, *FLAGS, f"--user-data-dir={profile}"],
            pass_fds=(ours_in, ours_out),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(ours_in)
        os.close(ours_out)
        browser = Chromium(to, back)
        try:
            yield browser
        finally:
            with suppress(RuntimeError, queue.Empty, OSError):
                browser.call("Browser.close")
            try:
                process.wait(timeout=10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
