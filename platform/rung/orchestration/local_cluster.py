"""A Ray cluster of several nodes on this machine: what runs on it runs on a real one, and nodes can be lost at will.

Every node is a `ray start --block` of its own, as KubeRay starts it in a pod: a head without CPUs for work, workers
beside it, and a token that every client must show. Unlike `ray stop`, closing it leaves all other clusters of this
machine alone.
"""

import json
import os
import secrets
import shlex
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from pathlib import Path
from socket import socket
from typing import Self

import psutil

RAY = str(Path(sys.executable).with_name("ray"))
"""Ray's command line of this installation."""

_HOST = "127.0.0.1"
_START_SECONDS, _END_SECONDS = 120.0, 10.0
_OBJECT_STORE_BYTES = 200 * 2**20
_PORTS = ("port", "dashboard-port", "ray-client-server-port", "dashboard-agent-listen-port")
_MINE = ("RAY_ADDRESS", "RAY_AUTH_TOKEN", "PYTHONPATH")
"""Not passed on: another cluster's address and token; a path on which this checkout would hide what a job uploads."""


class ClusterError(RuntimeError):
    """A node that did not start; the message holds what it said."""


class LocalCluster:
    """A head and its workers; a context manager that starts and ends them.

    Args:
        num_workers: worker nodes at the start.
        cpus: CPUs that each worker offers, whatever this machine has.
        environment: more variables for every node.
        head_flags: more flags of `ray start` for the head.

    Raises:
        ClusterError: a node did not start; so do the methods that start one.
    """

    def __init__(
        self,
        num_workers: int = 2,
        cpus: int = 2,
        environment: Mapping[str, str] | None = None,
        head_flags: Sequence[str] = (),
    ) -> None:
        self._cpus = cpus
        self._num_workers = num_workers
        self._head_flags = head_flags
        # Short, since paths of sockets may have 107 characters.
        self._files = tempfile.TemporaryDirectory(prefix="rung-ray-", dir="/tmp", ignore_cleanup_errors=True)
        self.folder = Path(self._files.name)
        self.token_file = self.folder / "auth_token"
        self._ports = dict(zip(_PORTS, free_ports(len(_PORTS)), strict=True))
        self.dashboard = f"http://{_HOST}:{self._ports['dashboard-port']}"
        self.environment = {name: value for name, value in os.environ.items() if name not in _MINE}
        self.environment |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(self.token_file)}
        self.environment["PATH"] = os.pathsep.join([str(Path(RAY).parent), os.environ.get("PATH", os.defpath)])
        self.environment |= environment or {}
        self._starts = 0
        self.head: Node | None = None
        self.workers: list[Node] = []

    def __enter__(self) -> Self:
        self.token_file.touch(mode=0o600)
        self.token_file.write_text(secrets.token_hex(32))
        try:
            self.start_head()
            for _ in range(self._num_workers):
                self.add_worker()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def start_head(self) -> None:
        """Start the head, or start it again on the same ports after it was lost."""
        flags = [f"--{name}={port}" for name, port in self._ports.items()]
        flags += ["--head", "--num-cpus=0", f"--temp-dir={self._own_folder()}", "--include-dashboard=true"]
        self.head = self._start([*flags, *self._head_flags])
        # The agent starts jobs: one that came before it is up would be refused.
        agent = f"http://{_HOST}:{self._ports['dashboard-agent-listen-port']}"
        for url in (f"{self.dashboard}/api/version", f"{agent}/api/local_raylet_healthz"):
            self._wait(self.head, url, lambda _: True)

    def add_worker(self) -> "Node":
        """Start one more worker node."""
        agent, *_ = free_ports(1)
        flags = [f"--address={_HOST}:{self._ports['port']}", f"--num-cpus={self._cpus}"]
        flags.append(f"--temp-dir={self._own_folder()}")
        nodes = f"{self.dashboard}/api/v0/nodes"
        before = self._alive(self._ask(nodes))
        node = self._start([*flags, f"--dashboard-agent-listen-port={agent}"])
        self.workers.append(node)
        self._wait(node, nodes, lambda answer: self._alive(answer) - before)
        return node

    def job_command(self, *arguments: str) -> list[str]:
        """`ray job` with these arguments, for this cluster; run it with `environment`."""
        verb, *rest = arguments
        return [RAY, "job", verb, "--address", self.dashboard, *rest]

    def close(self) -> None:
        """End every process of this cluster, and remove its files."""
        nodes = [*self.workers, *([self.head] if self.head else [])]
        with ThreadPoolExecutor() as pool:
            list(pool.map(Node.stop, nodes))
        self._files.cleanup()

    def _own_folder(self) -> Path:
        """A folder for one start of a node, as a pod has: nodes that share one unpack a job's upload under its feet."""
        self._starts += 1
        return self.folder / str(self._starts)

    def _start(self, flags: Sequence[str]) -> "Node":
        store = f"--object-store-memory={_OBJECT_STORE_BYTES}"
        command = [RAY, "start", "--block", f"--node-ip-address={_HOST}", store, "--disable-usage-stats", *flags]
        log = self.folder / f"node-{secrets.token_hex(4)}.log"
        return Node(command, self.environment, log)

    def _wait(self, node: "Node", url: str, done: Callable[[str], object]) -> None:
        """Ask Ray until its answer will do.

        Raises:
            ClusterError: the node ended, or it took too long.
        """
        deadline = time.monotonic() + _START_SECONDS
        problem = "Ray does not know it"
        while True:
            try:
                if done(self._ask(url)):
                    return
            except OSError as error:
                problem = str(error)
            if node.ended or time.monotonic() > deadline:
                raise ClusterError(f"a node did not start ({problem}): {shlex.join(node.command)}\n{node.output()}")
            time.sleep(0.3)

    def _ask(self, url: str) -> str:
        request = urllib.request.Request(url)  # noqa: S310 (http, to this machine)
        request.add_header("Authorization", f"Bearer {self.token_file.read_text()}")
        with urllib.request.urlopen(request, timeout=10) as answer:  # noqa: S310
            return answer.read().decode()

    @staticmethod
    def _alive(answer: str) -> set[str]:
        """Ids of the living nodes in the dashboard's list of nodes."""
        nodes = json.loads(answer)["data"]["result"]["result"]
        return {node["node_id"] for node in nodes if node["state"] == "ALIVE"}


class Node:
    """One node: `ray start --block` and all processes that came from it."""

    def __init__(self, command: Sequence[str], environment: Mapping[str, str], log: Path) -> None:
        self.command = command
        self._log = log
        with log.open("w") as file:
            self._process = subprocess.Popen(  # noqa: S603 (Ray's own program)
                command, env=environment, stdout=file, stderr=file, start_new_session=True
            )

    @property
    def ended(self) -> bool:
        """Whether the node is gone."""
        return self._process.poll() is not None

    def output(self) -> str:
        """What `ray start` said."""
        return self._log.read_text()

    def kill(self) -> None:
        """Take the node away without notice, as a lost machine does."""
        for process in self._family():
            _kill(process)
        self._process.wait()

    def stop(self) -> None:
        """End the node; what has not ended after a while is killed."""
        family = self._family()
        with suppress(psutil.NoSuchProcess):
            psutil.Process(self._process.pid).terminate()  # Ray ends its own processes in order
        _, alive = psutil.wait_procs(family, timeout=_END_SECONDS)
        for process in alive:
            _kill(process)
        self._process.wait()

    def _family(self) -> list[psutil.Process]:
        """The node's living processes, the first one first: its session, and whatever these started in a new one."""
        session = [process for process in psutil.process_iter() if _session_of(process.pid) == self._process.pid]
        session.sort(key=lambda process: process.pid != self._process.pid)
        found = {process.pid: process for process in session}
        for process in session:
            with suppress(psutil.NoSuchProcess):
                found |= {child.pid: child for child in process.children(recursive=True)}
        return list(found.values())


def free_ports(number: int) -> list[int]:
    """Ports of this machine that nobody listens on, all different."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket()) for _ in range(number)]
        for each in sockets:
            each.bind((_HOST, 0))
        return [each.getsockname()[1] for each in sockets]


def _session_of(pid: int) -> int | None:
    try:
        return os.getsid(pid)
    except ProcessLookupError:
        return None


def _kill(process: psutil.Process) -> None:
    with suppress(psutil.NoSuchProcess):
        process.kill()
