"""A tab of headless Chromium, led by its DevTools protocol alone.

Playwright forbids pages to be rendered ahead of being opened, and has one target a tab; here the tab's page may be
replaced by one that was ready before.
"""

import json
import re
import subprocess
import tempfile
import threading
from contextlib import ExitStack
from types import TracebackType
from typing import Any

from websockets.sync.client import connect

WAIT_S = 20.0
ANSWER_S = 1.0  # of a page
GONE = -32001  # the session's page was replaced


class Failed(Exception):
    """The browser refused a command. ``code`` is the protocol's."""

    def __init__(self, told: dict[str, Any]) -> None:
        super().__init__(told["message"])
        self.code: int = told["code"]


class Tab:
    """Opened by ``with``. ``errors`` has what pages said on their consoles as errors, and what they threw."""

    def __init__(self, chromium: str, *, width: int, height: int) -> None:
        self._profile = tempfile.TemporaryDirectory(prefix="saescope-tab-", ignore_cleanup_errors=True)
        size, profile = f"--window-size={width},{height}", f"--user-data-dir={self._profile.name}"
        self._browser = subprocess.Popen(
            [chromium, "--headless", "--no-sandbox", "--remote-debugging-port=0", size, profile, "about:blank"],
            stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert self._browser.stderr is not None
        said = self._browser.stderr
        address = next(found[0] for line in said if (found := re.search(r"ws://\S+", line)))
        self._said = threading.Thread(target=lambda: [None for _ in said], daemon=True)
        self._said.start()
        self._held = ExitStack()
        self._socket = self._held.enter_context(connect(address, max_size=None, open_timeout=WAIT_S))
        self._last = 0
        self._pages: dict[str, tuple[str, dict[str, Any]]] = {}  # target -> session, what is told of it
        self.errors: list[str] = []

    def __enter__(self) -> "Tab":
        tabs = self.call("Target.getTargets", {"filter": [{"type": "tab"}]}, "")["targetInfos"]
        to = {"targetId": tabs[0]["targetId"], "flatten": True}
        tab = self.call("Target.attachToTarget", to, "")["sessionId"]
        attach = {"autoAttach": True, "waitForDebuggerOnStart": False, "flatten": True, "filter": [{}]}
        self.call("Target.setAutoAttach", attach, tab)
        self.call("Target.setDiscoverTargets", {"discover": True, "filter": [{}]}, "")
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._held.close()
        self._browser.kill()
        self._browser.wait()
        self._said.join()
        assert self._browser.stderr is not None
        self._browser.stderr.close()
        self._profile.cleanup()

    def call(
        self, method: str, params: dict[str, Any], session: str | None = None, wait: float = WAIT_S
    ) -> dict[str, Any]:
        """session: "" is the browser itself; without one it is the page that is shown.

        Raises:
            Failed: the browser refused.
            TimeoutError: no answer in ``wait`` seconds; a page that is replaced meanwhile gives none.
        """
        self._last += 1
        named = {"sessionId": self.shown() if session is None else session} if session != "" else {}
        self._socket.send(json.dumps({"id": self._last, "method": method, "params": params, **named}))
        mine = self._last
        while (told := json.loads(self._socket.recv(timeout=wait))).get("id") != mine:
            self._note(told)
        if "error" in told:
            raise Failed(told["error"])
        result: dict[str, Any] = told["result"]
        return result

    def shown(self) -> str:
        """The session of the page in the tab."""
        there = [s for s, info in self._pages.values() if info["type"] == "page" and not info.get("subtype")]
        return there[-1]

    def ready(self, path: str) -> bool:
        """Whether the page at ``path`` is held ready behind the one that is shown: prerendered, with all its parts."""
        self.ask("0")  # what is told of pages comes with an answer
        for session, info in list(self._pages.values()):
            if info.get("subtype") == "prerender" and info["url"].endswith(path):
                asked = {"expression": "document.readyState", "returnByValue": True}
                told = self.call("Runtime.evaluate", asked, session, wait=ANSWER_S)
                return bool(told["result"].get("value") == "complete")
        return False

    def open(self, url: str) -> None:
        self.call("Page.navigate", {"url": url})

    def press(self, key: str) -> None:
        self.call("Input.dispatchKeyEvent", {"type": "keyDown", "key": key, "text": key})
        try:
            self.call("Input.dispatchKeyEvent", {"type": "keyUp", "key": key}, wait=ANSWER_S)
        except TimeoutError:
            pass
        except Failed as error:
            if error.code != GONE:
                raise

    def ask(self, expression: str) -> Any:
        """The value of ``expression`` (JavaScript, a promise is waited for) in the page that is shown."""
        asked = {"expression": expression, "awaitPromise": True, "returnByValue": True}
        told = self.call("Runtime.evaluate", asked, wait=ANSWER_S)
        if "exceptionDetails" in told:
            raise Failed({"message": told["exceptionDetails"]["text"], "code": 0})
        return told["result"].get("value")

    def _note(self, told: dict[str, Any]) -> None:
        about = told.get("params", {})
        match told.get("method"):
            case "Target.attachedToTarget":
                self._pages[about["targetInfo"]["targetId"]] = about["sessionId"], about["targetInfo"]
                self._send_for(about["sessionId"], "Runtime.enable")
            case "Target.targetInfoChanged" if about["targetInfo"]["targetId"] in self._pages:
                target = about["targetInfo"]["targetId"]
                self._pages[target] = self._pages[target][0], about["targetInfo"]
            case "Target.targetDestroyed":
                self._pages.pop(about["targetId"], None)
            case "Target.detachedFromTarget":
                gone = [t for t, (session, _) in self._pages.items() if session == about["sessionId"]]
                for target in gone:
                    del self._pages[target]
            case "Runtime.exceptionThrown":
                self.errors.append(about["exceptionDetails"].get("exception", {}).get("description", "thrown"))
            case "Runtime.consoleAPICalled" if about["type"] == "error":
                self.errors.append(" ".join(str(one.get("value")) for one in about["args"]))

    def _send_for(self, session: str, method: str) -> None:
        self._last += 1
        self._socket.send(json.dumps({"id": self._last, "method": method, "sessionId": session}))
