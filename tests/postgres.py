"""A Postgres server of a test's own, to be killed and started again."""

import os
import pwd
import signal
import subprocess
import time
from contextlib import contextmanager

import psycopg

from app.store.embedded import programs
from tests.conftest import public_folder


class Postgres:
    """On a Unix socket in a folder of its own; as root it runs as the user the embedded one runs as."""

    def __init__(self):
        self.folder = public_folder()
        self.data = self.folder / "data"
        self.data.mkdir(mode=0o700)
        self.user = "pgserver" if os.geteuid() == 0 else None
        if self.user:
            found = pwd.getpwnam(self.user)
            os.chown(self.data, found.pw_uid, found.pw_gid)
            os.chown(self.folder, found.pw_uid, found.pw_gid)
        self._run("initdb", "--auth=trust", "--encoding=utf8", "-U", "postgres", "-D", str(self.data), "--no-sync")
        self.process = None

    @property
    def url(self):
        return f"postgresql://postgres:@/postgres?host={self.folder}"

    def start(self):
        """Until it answers; what a killed one has left goes first."""
        end = time.monotonic() + 600
        while time.monotonic() < end:
            if self.process is None or self.process.poll() is not None:
                command = [programs() / "postgres", "-D", str(self.data), "-k", str(self.folder), "-h", ""]
                self.process = subprocess.Popen(
                    command, user=self.user, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
                )
            try:
                psycopg.connect(self.url, connect_timeout=2).close()
                return
            except psycopg.OperationalError:
                time.sleep(0.1)
        raise AssertionError("it did not start")

    def kill(self):
        """The server and all that work for it, as when memory runs out."""
        os.kill(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def end(self):
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
            self.process.wait(300)

    def _run(self, program, *arguments):
        subprocess.run([programs() / program, *arguments], user=self.user, check=True, capture_output=True)


@contextmanager
def postgres():
    server = Postgres()
    try:
        server.start()
        yield server
    finally:
        server.end()
