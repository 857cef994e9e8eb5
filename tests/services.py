"""Inference services and web servers as processes of their own."""

import contextlib
import os
import socket
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import httpx2

# A client makes a context for TLS, and reads all known authorities, unless told not to. Each request its connection.
http = httpx2.Client(verify=False, trust_env=False, limits=httpx2.Limits(max_keepalive_connections=0))


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Process:
    """``saescope ARGUMENTS --port PORT`` until ``end``; its output is kept in a file."""

    def __init__(self, *arguments, port, log: Path, ready="/readyz", **settings):
        self.port, self.log, self.url = port, log, f"http://127.0.0.1:{port}"
        environment = {name: value for name, value in os.environ.items() if not name.startswith("SAESCOPE_")}
        environment |= {"PYTHONPATH": str(Path.cwd()), "SAESCOPE_DTYPE": "float32", "SAESCOPE_DEVICE": "cpu"}
        environment |= {f"SAESCOPE_{name.upper()}": str(value) for name, value in settings.items()}
        command = [sys.executable, "-m", "app.cli", *map(str, arguments), "--port", str(port)]
        with log.open("wb") as out:
            self.process = subprocess.Popen(command, stdout=out, stderr=subprocess.STDOUT, env=environment)
        end = time.monotonic() + 900  # Ray alone takes over a minute on two cores that test something else as well
        while time.monotonic() < end and self.process.poll() is None:
            with contextlib.suppress(httpx2.TransportError):
                if http.get(self.url + ready, timeout=60).status_code == 200:
                    return
            time.sleep(0.1)
        self.end()
        raise AssertionError(log.read_text())

    @property
    def pid(self):
        return self.process.pid

    def pending(self):
        return http.get(self.url + "/readyz", timeout=300).json()["pending"]

    def idle(self):
        """Wait until nothing is on its way there."""
        end = time.monotonic() + 300
        while self.pending() and time.monotonic() < end:
            time.sleep(0.02)
        return self.pending() == 0

    def kill(self):
        self.process.kill()
        self.process.wait()

    def end(self):
        if self.process.poll() is None:
            self.process.terminate()
        try:
            return self.process.wait(timeout=300)
        finally:
            self.process.kill()


@contextmanager
def started(*arguments, **given):
    process = Process(*arguments, **given)
    try:
        yield process
    finally:
        process.end()
