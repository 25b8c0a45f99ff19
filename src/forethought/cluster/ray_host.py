"""Ray as the host of workers: one actor each, without Ray's own restarts and retries, which would run a trace twice."""

from __future__ import annotations

import logging
import os
import re
import signal
import socket
import sys
import threading
from concurrent.futures import Future
from typing import Any

from ..errors import EngineError, InvalidSettingsError, MissingExtraError
from .hosts import WorkerLostError
from .worker import EngineWorker

LOCAL, AUTO = "local", "auto"
ANSWERS_WITHIN = 5.0  # seconds for whatever listens at an address; Ray itself would try for minutes
OBJECT_STORE_BYTES = 1 << 28  # of a Ray that is started here: hidden states are the largest that passes through it
# Read when Ray is imported. The second keeps a Ray that is started here on the loopback interface.
QUIET = {"RAY_USAGE_STATS_ENABLED": "0"}
ON_LOOPBACK = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}
# Of a Ray that is started here: no processes that nobody needs yet, and workers not nicer than their driver (Ray: 15).
OWN = {"enable_worker_prestart": False, "prestart_worker_first_driver": False, "worker_niceness": 0}

logger = logging.getLogger(__name__)


class RayHost:
    """Workers as actors of Ray.

    Args:
        address: "local" starts a Ray on this machine alone, which ends with the host; "auto" is the one that runs on
            this machine; or the address of a cluster, HOST:PORT.
        num_workers: places of a Ray that is started here.
        gpus_per_worker: GPUs of each worker; a part of one is shared.
        worker: what each of them is.

    Raises:
        MissingExtraError: Ray is not installed.
        EngineError: there is no Ray at that address, or it is not to be used.
    """

    def __init__(
        self, address: str, *, num_workers: int, gpus_per_worker: float = 0.0, worker: type = EngineWorker
    ) -> None:
        if address.startswith("ray://"):
            raise InvalidSettingsError(
                f"--ray {address}: start the command on a machine of the cluster, and give --ray auto or HOST:PORT; "
                "through Ray's client it would not reach the run directory"
            )
        if address == LOCAL and "ray" in sys.modules and not ON_LOOPBACK.items() <= os.environ.items():
            raise EngineError("Ray was imported before, and would listen on every interface of this machine")
        os.environ.update(QUIET | (ON_LOOPBACK if address == LOCAL else {}))
        try:
            import ray
        except ImportError as error:
            raise MissingExtraError("--ray needs Ray; install it with: pip install 'forethought[ray]'") from error
        self._ray = ray
        on_end = signal.getsignal(signal.SIGTERM)
        quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR, "configure_logging": True}
        try:
            if address == LOCAL:
                ray.init(
                    LOCAL,
                    num_cpus=num_workers,
                    include_dashboard=False,
                    object_store_memory=OBJECT_STORE_BYTES,
                    _system_config=OWN,
                    **quiet,
                )
            else:
                _check_listening(ray._private.services.canonicalize_bootstrap_address(address))
                ray.init(address, **quiet)
        except Exception as error:  # Ray raises it bare where it does not start in time
            raise EngineError(f"--ray {address}: there is no Ray to work with: {_first_line(error)}") from error
        if callable(on_end) and threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, on_end)  # Ray has put its own in its place
        ray._private.worker._worker_logs_enabled = False  # deaths are told by the crew, and standard output holds data
        self._actor = ray.remote(worker).options(
            num_cpus=1,
            num_gpus=gpus_per_worker,
            max_restarts=0,
            max_task_retries=0,
            scheduling_strategy="SPREAD",
        )

    def begin(self, number: int) -> RayWorker:
        """See `Host.begin`."""
        return RayWorker(self._ray, self._actor.remote())

    def waiting_words(self) -> str:
        """See `Host.waiting_words`."""
        there, free = self._ray.cluster_resources(), self._ray.available_resources()
        words = [f"{free.get(name, 0):g} of {there.get(name, 0):g} {name}s are free" for name in ("CPU", "GPU")]
        return f"of the Ray cluster {' and '.join(words)}, and a worker needs 1 CPU and what --gpus-per-worker says"

    def close(self) -> None:
        """See `Host.close`."""
        self._ray.shutdown()


class RayWorker:
    """An actor of Ray that is a worker."""

    def __init__(self, ray: Any, actor: Any) -> None:
        self._ray = ray
        self._actor = actor

    def call(self, method: str, *arguments: Any) -> Future[Any]:
        """See `Remote.call`."""
        answer: Future[Any] = Future()

        def take(done: Future[Any]) -> None:
            if not answer.set_running_or_notify_cancel():
                return
            if (error := done.exception()) is None:
                answer.set_result(done.result())
            else:
                answer.set_exception(self._meant(error))

        getattr(self._actor, method).remote(*arguments).future().add_done_callback(take)
        return answer

    def _meant(self, error: BaseException) -> BaseException:
        """What the method raised, or that the worker is lost."""
        if isinstance(error, self._ray.exceptions.RayTaskError):
            cause: BaseException = error.cause
            return cause
        return WorkerLostError(_first_line(error))

    def end(self) -> None:
        """See `Remote.end`."""
        self._ray.kill(self._actor)


def _check_listening(where: str) -> None:
    """Refuses an address where nothing listens, which Ray itself would try for minutes; raises ConnectionError."""
    host, _, port = where.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=ANSWERS_WITHIN).close()
    except (OSError, OverflowError) as error:
        raise ConnectionError(f"nothing answers at {where} ({error})") from error


def _first_line(error: BaseException) -> str:
    """The sentence of one of Ray's messages that says what happened, without its advice."""
    text = " ".join(str(error).split())
    if text.startswith("Failed to connect to Ray cluster"):
        return "what answers is no Ray, or it wants a token (RAY_AUTH_MODE=token)"
    if "its node has died" in text:
        return "its machine was lost"
    if "is temporarily unavailable" in text:
        return "it does not answer any more"
    detail = re.search(r"Worker exit detail: (.*?)(?: Some common causes| \(1\)|$)", text)
    return (detail[1] if detail else text)[:300].strip(" .") or type(error).__name__
