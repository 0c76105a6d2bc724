"""The services that a team runs beside Rung, started for a test on this machine alone: PostgreSQL, S3, MLflow."""

import contextlib
import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

KEYS = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_DEFAULT_REGION": "us-east-1"}


def free_ports(number):
    """Ports that nobody listens on."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(number)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


def wait_for_port(port, process, log, seconds=180):
    """Return when somebody listens; fail when the process has ended instead."""
    deadline = time.monotonic() + seconds
    while True:
        with socket.socket() as connection:
            connection.settimeout(1)
            if connection.connect_ex(("127.0.0.1", port)) == 0:
                return
        assert process.poll() is None, log.read_text()
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.2)


@contextlib.contextmanager
def postgres():
    """Address of an empty PostgreSQL database; skips the test where PostgreSQL is not installed."""
    pytest.importorskip("psycopg2")
    programs = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    initdb = shutil.which("initdb") or (str(programs[-1]) if programs else None)
    if initdb is None:
        pytest.skip("PostgreSQL is not installed (Debian: apt-get install postgresql)")
    programs = Path(initdb).resolve().parent
    folder = Path(tempfile.mkdtemp(prefix="rung-pg-", dir="/tmp"))  # a socket's path is short, and not root's alone
    account = {}
    if os.geteuid() == 0:  # PostgreSQL refuses to run as root
        user = pwd.getpwnam("postgres") if "postgres" in {one.pw_name for one in pwd.getpwall()} else None
        if user is None:
            pytest.skip("PostgreSQL does not run as root, and there is no user postgres")
        os.chown(folder, user.pw_uid, user.pw_gid)
        account = {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}
    (port,) = free_ports(1)
    data, log = folder / "data", folder / "log"
    command = [programs / "initdb", "-D", data, "-U", "rung", "-A", "trust", "--no-sync", "-E", "UTF8"]
    subprocess.run(command, check=True, capture_output=True, cwd=folder, **account)
    with log.open("w") as output:
        process = subprocess.Popen(
            [programs / "postgres", "-D", data, "-p", str(port), "-k", folder, "-h", "127.0.0.1", "-F"],
            stdout=output, stderr=output, cwd=folder, **account,
        )  # fmt: skip
    try:
        wait_for_port(port, process, log)
        address = f"postgresql://rung@127.0.0.1:{port}"
        _create_database(f"{address}/postgres")
        yield f"postgresql+psycopg2://{address.partition('://')[2]}/mlflow"  # SQLAlchemy 2.1 takes psycopg 3 otherwise
    finally:
        process.send_signal(signal.SIGINT)  # "fast": its clients are gone, or will not mind
        process.wait(timeout=30)
        shutil.rmtree(folder, ignore_errors=True)


def _create_database(address):
    import psycopg2

    deadline = time.monotonic() + 30
    while True:
        try:
            connection = psycopg2.connect(address)
            break
        except psycopg2.OperationalError:  # it listens before it is ready
            assert time.monotonic() < deadline
            time.sleep(0.2)
    connection.autocommit = True
    connection.cursor().execute("CREATE DATABASE mlflow")
    connection.close()


@contextlib.contextmanager
def bucket():
    """An S3 bucket of moto's server: its s3:// address, and the environment of whoever uses it."""
    server_module = pytest.importorskip("moto.server")
    boto3 = pytest.importorskip("boto3")
    server = server_module.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        endpoint = f"http://{host}:{port}"
        keys = {"aws_access_key_id": "test", "aws_secret_access_key": "test", "region_name": "us-east-1"}
        boto3.client("s3", endpoint_url=endpoint, **keys).create_bucket(Bucket="models")
        yield "s3://models/mlflow", KEYS | {"MLFLOW_S3_ENDPOINT_URL": endpoint}
    finally:
        server.stop()


class MlflowServer:
    """An MLflow server that can be killed and started again at the same address.

    Args:
        folder: for its log.
        database: address of its backend store.
        artifacts: where it keeps artifacts.
        environment: more variables of its environment.
    """

    def __init__(self, folder, database, artifacts, environment=None):
        (self.port,) = free_ports(1)
        self.uri = f"http://127.0.0.1:{self.port}"
        self._log = folder / "mlflow-server.log"
        store = ["--backend-store-uri", database, "--artifacts-destination", str(artifacts)]
        self._command = [sys.executable, "-m", "mlflow", "server", *store, "--port", str(self.port), "--workers", "1"]
        self._environment = os.environ | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"} | (environment or {})
        self._process = None

    def start(self):
        """Start it, and wait until it answers."""
        with self._log.open("a") as log:
            self._process = subprocess.Popen(
                self._command, stdout=log, stderr=log, env=self._environment, start_new_session=True
            )
        wait_for_port(self.port, self._process, self._log)

    def kill(self):
        """End it at once, as a lost machine would."""
        if self._process is not None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            self._process = None

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *_):
        self.kill()


@contextlib.contextmanager
def served(package, folder):
    """Run `mlflow models serve` on a package, without Rung on its path; yields the address that takes requests."""
    (port,) = free_ports(1)
    command = [sys.executable, "-m", "mlflow", "models", "serve", "-m", str(package), "-p", str(port)]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    environment["PATH"] = f"{Path(sys.executable).parent}:{environment['PATH']}"
    log = folder / "serve.log"
    with log.open("w") as output:
        process = subprocess.Popen(
            [*command, "-h", "127.0.0.1", "--env-manager", "local"],
            stdout=output,
            stderr=output,
            env=environment,
            start_new_session=True,
        )
    try:
        wait_for_port(port, process, log)
        yield f"http://127.0.0.1:{port}/invocations"
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(timeout=30)
