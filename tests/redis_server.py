"""A real Redis of a test's own, on a socket in a folder of its own, that can be killed and started again."""

import shutil
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Self

import pytest

PROGRAM = shutil.which("redis-server")


class RedisServer:
    """Keeps what it was told: an append-only file, synced before every reply."""

    def __init__(self, **settings: str) -> None:
        if PROGRAM is None:
            pytest.skip("redis-server is not installed")
        pytest.importorskip("redis")
        self.folder = Path(tempfile.mkdtemp(prefix="redis-"))  # short: a socket's path has at most 107 letters
        self._settings = {"appendonly": "yes", "appendfsync": "always", "save": "", **settings}
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"unix://{self._socket}"

    @property
    def _socket(self) -> Path:
        return self.folder / "socket"

    def start(self) -> None:
        assert PROGRAM is not None
        self._socket.unlink(missing_ok=True)
        settings = {"port": "0", "unixsocket": str(self._socket), "dir": str(self.folder), "loglevel": "warning"}
        arguments = [part for name, value in (settings | self._settings).items() for part in (f"--{name}", value)]
        self._process = subprocess.Popen([PROGRAM, *arguments], stdout=subprocess.DEVNULL)
        ends = time.monotonic() + 60.0
        while self.say("PING") != b"+PONG\r\n":
            assert time.monotonic() < ends, "redis-server does not start"
            time.sleep(0.02)

    def say(self, text: str) -> bytes:
        """Its first answer to one command; nothing where it cannot be reached."""
        with socket.socket(socket.AF_UNIX) as found:
            try:
                found.connect(str(self._socket))
                found.sendall(f"{text}\r\n".encode())
                return found.recv(4096)
            except OSError:
                return b""

    def flush(self) -> None:
        assert self.say("FLUSHALL") == b"+OK\r\n"

    def signal(self, number: int) -> None:
        assert self._process is not None
        self._process.send_signal(number)

    def kill(self) -> None:
        if self._process is not None:
            self._process.send_signal(signal.SIGKILL)
            self._process.wait(10)
            self._process = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.kill()
        shutil.rmtree(self.folder, ignore_errors=True)
