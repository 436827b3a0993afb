"""Real engines and stores on loopback: a SLURM controller with two nodes, a Ray cluster of two, PostgreSQL, MLflow."""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).parents[2]
PATIENCE = 300  # seconds; a busy machine takes a minute to start a scheduler


class NotThere(Exception):  # noqa: N818
    """What is needed is not installed; says what to install."""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_for(condition: Callable[[], bool], what: str, seconds: float = PATIENCE) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"waited {seconds} s for {what}"
        time.sleep(0.1)


def need(*programs: str, package: str) -> None:
    missing = [name for name in programs if shutil.which(name) is None]
    if missing:
        raise NotThere(f"{', '.join(missing)} not installed: apt-get install {package}")


def children_of(pid: int) -> list[int]:
    """All descendants of a process."""
    found = []
    for path in Path("/proc").glob(f"{pid}/task/*/children"):
        with contextlib.suppress(OSError):
            for child in path.read_text().split():
                found += [int(child), *children_of(int(child))]
    return found


def _is_stopped(pid: int) -> bool:
    """Whether a process stands still, or is over."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in "TtZX"
    except OSError:
        return True


class Slurm:
    """A controller and two nodes of two processors each, with keys, sockets and state in a folder of their own."""

    NODES = ("n1", "n2")

    def __init__(self, folder: Path) -> None:
        need("slurmctld", "slurmd", "munged", "sbatch", package="slurmctld slurmd slurm-client munge")
        if os.geteuid() != 0:
            raise NotThere("a SLURM node is started by root alone")
        self._folder = folder
        self._daemons: dict[str, subprocess.Popen[bytes]] = {}
        folder.mkdir(parents=True, exist_ok=True)
        key = folder / "munge.key"
        key.write_bytes(os.urandom(128))
        key.chmod(0o600)
        self.socket = folder / "munge.sock"
        self.config = folder / "slurm.conf"
        self._ports = {name: free_port() for name in ("control", *self.NODES)}
        nodes = "\n".join(
            f"NodeName={name} NodeHostname={socket.gethostname()} NodeAddr=127.0.0.1 Port={self._ports[name]} CPUs=2"
            for name in self.NODES
        )
        self.config.write_text(
            f"""
ClusterName=loopback
SlurmctldHost={socket.gethostname()}(127.0.0.1)
SlurmctldPort={self._ports["control"]}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
CredType=cred/munge
AuthInfo=socket={self.socket},cred_expire=5
CommunicationParameters=NoInAddrAny,NoCtldInAddrAny
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd-%n.log
JobRequeue=1
ReturnToService=2
SlurmdTimeout=10
SlurmctldTimeout=10
KillWait=5
OverTimeLimit=0
MinJobAge=300
SchedulerType=sched/backfill
SchedulerParameters=sched_interval=1,sched_min_interval=0,bf_interval=2,batch_sched_delay=0
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
{nodes}
PartitionName=short Nodes=ALL Default=YES MaxTime=INFINITE State=UP PriorityTier=1
PartitionName=urgent Nodes=ALL MaxTime=INFINITE State=UP PriorityTier=2
"""
        )
        (folder / "state").mkdir()

    def start(self) -> None:
        folder = self._folder
        self._spawn("munged", "munged", "--foreground", "--force", f"--socket={self.socket}",
                    f"--key-file={folder / 'munge.key'}", f"--log-file={folder / 'munge.log'}",
                    f"--pid-file={folder / 'munge.pid'}", f"--seed-file={folder / 'munge.seed'}")  # fmt: skip
        wait_for(self.socket.exists, "munged")
        self._spawn("control", "slurmctld", "-D", "-f", str(self.config))
        for name in self.NODES:
            self.start_node(name)
        wait_for(lambda: self.states() == dict.fromkeys(self.NODES, "idle"), "two idle nodes")

    def start_node(self, name: str) -> None:
        self._spawn(name, "slurmd", "-D", "-N", name, "-f", str(self.config))

    def _spawn(self, name: str, *command: str) -> None:
        with (self._folder / f"{name}.out").open("ab") as out:
            self._daemons[name] = subprocess.Popen(
                command, stdout=out, stderr=out, env={**os.environ, **self.variables}, start_new_session=True
            )

    @property
    def variables(self) -> dict[str, str]:
        """What a client of this cluster needs in its environment."""
        return {"SLURM_CONF": str(self.config)}

    def __call__(self, *command: str) -> str:
        env = {**os.environ, **self.variables}
        return subprocess.run(command, env=env, check=True, capture_output=True, text=True).stdout

    def states(self) -> dict[str, str]:
        """Of the nodes."""
        try:
            lines = self("sinfo", "-h", "-N", "-p", "short", "-o", "%N %t").split("\n")
        except subprocess.CalledProcessError:
            return {}
        return dict(line.split() for line in lines if line)

    def jobs(self) -> dict[str, str]:
        """State of each job that waits or runs."""
        lines = self("squeue", "-h", "-r", "-o", "%i %T").split("\n")
        return dict(line.split() for line in lines if line)

    def suspend(self) -> None:
        """Have the running jobs stand still. SLURM says so some seconds before their processes are stopped."""
        self._until_none("RUNNING", "suspend")
        wait_for(lambda: all(map(_is_stopped, self._processes())), "the jobs' processes to be stopped")

    def resume(self) -> None:
        self._until_none("SUSPENDED", "resume")

    def _until_none(self, state: str, command: str) -> None:
        """One by one, and those that end meanwhile are no mistake: a job can end before its processes are stopped."""

        def done() -> bool:
            left = [job for job, now in self.jobs().items() if now == state]
            for job in left:
                with contextlib.suppress(subprocess.CalledProcessError):
                    self("scontrol", command, job)
            return not left

        wait_for(done, f"no job to be {state}")

    def _processes(self) -> list[int]:
        keepers = [pid for name in self.NODES for pid in self._keepers(name, str(self._folder / f"spool-{name}"))]
        return [child for keeper in keepers for child in children_of(keeper)]

    def lose(self, name: str) -> None:
        """A node's power is cut: its daemon goes, and all that runs on it."""
        daemon = self._daemons.pop(name)
        # A step's keeper is no child of the daemon; both carry the node's name or spool folder.
        spool = str(self._folder / f"spool-{name}")
        keepers = self._keepers(name, spool)
        for pid in [*(child for keeper in keepers for child in children_of(keeper)), *keepers]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        daemon.kill()
        daemon.wait()

    def _keepers(self, name: str, spool: str) -> list[int]:
        found = []
        for path in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                if (path / "comm").read_text().strip() == "slurmstepd":
                    held = {str(link.readlink()) for link in (path / "fd").iterdir() if link.exists()}
                    if any(spool in target or f"slurmd-{name}.log" in target for target in held):
                        found.append(int(path.name))
        return found

    def stop(self) -> None:
        with contextlib.suppress(subprocess.CalledProcessError):
            self("scancel", "--user=root")
        for daemon in reversed(list(self._daemons.values())):
            for pid in children_of(daemon.pid):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGTERM)
            daemon.terminate()
        for daemon in self._daemons.values():
            with contextlib.suppress(subprocess.TimeoutExpired):
                daemon.wait(10)
            daemon.kill()


def _is_fork_server(pid: int) -> bool:
    """Or a process that it forked, which has its command line."""
    try:
        return b"forkserver" in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False


class RayCluster:
    """A head and a second node on this machine, two processors and one GPU each, by their own word; and more."""

    def __init__(self) -> None:
        self._port = free_port()
        self._nodes: dict[str, subprocess.Popen[bytes]] = {}
        # Ray takes 127.0.0.1 for the address of the network interface; others of the loopback range it leaves alone.
        self._hosts = {"head": "127.0.0.2", "second": "127.0.0.3", "third": "127.0.0.4"}
        self.address = f"127.0.0.2:{self._port}"

    def start(self) -> None:
        self._nodes["head"] = self._node("head", "--head", f"--port={self._port}", "--include-dashboard=false")
        self.start_node("second")

    @property
    def names(self) -> list[str]:
        """Of its nodes."""
        return list(self._nodes)

    def start_node(self, name: str, gpus: int = 1) -> None:
        self._nodes[name] = self._node(name, f"--address={self.address}", gpus=gpus)

    def _node(self, name: str, *words: str, gpus: int = 1) -> subprocess.Popen[bytes]:
        command = [
            str(Path(sys.executable).with_name("ray")), "start", "--block", "--num-cpus=2", f"--num-gpus={gpus}",
            f"--node-ip-address={self._hosts[name]}", "--disable-usage-stats", "--object-store-memory=100000000",
        ]  # fmt: skip
        env = {**os.environ, "PYTHONPATH": str(ROOT), "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0"}
        node = subprocess.Popen(
            [*command, *words], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, cwd=ROOT, env=env,
            start_new_session=True,
        )  # fmt: skip
        assert node.stdout is not None
        told = b""
        while b"Ray runtime started" not in told:
            line = node.stdout.readline()
            assert line, f"ray start ended: {told.decode()}"
            told += line
        return node

    def pause(self, number: signal.Signals) -> None:
        """Have every run on the cluster stand still, or go on."""
        for name in self._nodes:
            for pid in self.runs(name):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, number)

    def runs(self, name: str) -> list[int]:
        """The processes of a node's runs: what its fork servers have forked."""
        tree = children_of(self._nodes[name].pid)
        servers = [pid for pid in tree if _is_fork_server(pid)]
        return [child for pid in servers for child in children_of(pid) if _is_fork_server(child)]

    def lose(self, name: str) -> None:
        """A node's power is cut."""
        node = self._nodes.pop(name)
        for pid in [*children_of(node.pid), node.pid]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        node.wait()

    def stop(self) -> None:
        for name in list(self._nodes):
            self.lose(name)


class Postgres:
    """A PostgreSQL server with a password, and empty databases."""

    PASSWORD = "secret-of-the-test"

    def __init__(self) -> None:
        found = sorted(Path("/usr/lib/postgresql").glob("*/bin"))
        if not found:
            raise NotThere("PostgreSQL's server is not installed: apt-get install postgresql")
        self._bin, self._port = found[-1], free_port()
        self._user = "postgres" if os.geteuid() == 0 else None  # the server refuses to run as root
        self._folder = Path(tempfile.mkdtemp(prefix="postgres-"))

    def start(self) -> None:
        password = self._folder / "password"
        password.write_text(self.PASSWORD)
        if self._user:
            for path in (self._folder, password):
                shutil.chown(path, self._user)
        data = self._folder / "data"
        subprocess.run(
            [self._bin / "initdb", "-D", data, "-U", "lab", "--auth=scram-sha-256", f"--pwfile={password}"],
            check=True, capture_output=True, user=self._user, cwd="/",
        )  # fmt: skip
        command = [self._bin / "postgres", "-D", data, "-p", str(self._port), "-h", "127.0.0.1", "-k", self._folder,
                   "-c", "fsync=off"]  # fmt: skip
        with (self._folder / "log").open("ab") as log:
            self._server = subprocess.Popen(command, user=self._user, cwd="/", stdout=log, stderr=log)
        wait_for(lambda: self._ask("SELECT 1") == 0, "PostgreSQL")

    def _ask(self, command: str) -> int:
        env = {**os.environ, "PGPASSWORD": self.PASSWORD}
        where = ["-h", "127.0.0.1", "-p", str(self._port), "-U", "lab", "postgres"]
        words = [str(self._bin / "psql"), *where, "-c", command]
        return subprocess.run(words, env=env, capture_output=True, check=False).returncode

    def database(self, name: str) -> str:
        """The address of a new database, with the password."""
        assert self._ask(f"CREATE DATABASE {name}") == 0
        return f"postgresql://lab:{self.PASSWORD}@127.0.0.1:{self._port}/{name}"

    def stop(self) -> None:
        self._server.send_signal(signal.SIGINT)
        self._server.wait(20)
        shutil.rmtree(self._folder)


class MlflowServer:
    """MLflow's server, that can be away for a while."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._port = folder, free_port()
        self.uri = f"http://127.0.0.1:{self._port}"

    def start(self) -> None:
        env = {**os.environ, "MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
        store = f"sqlite:///{self._folder / 'server.db'}"
        places = ["--backend-store-uri", store, "--artifacts-destination", str(self._folder / "artifacts")]
        address = ["--host", "127.0.0.1", "--port", str(self._port), "--workers", "1"]
        command = [sys.executable, "-m", "mlflow", "server", *places, *address]
        with (self._folder / "server.log").open("ab") as log:
            self._server = subprocess.Popen(
                command, stdout=log, stderr=log, env=env, cwd=self._folder, start_new_session=True
            )
        wait_for(self._answers, "MLflow's server")

    def _answers(self) -> bool:
        with contextlib.suppress(OSError), urllib.request.urlopen(f"{self.uri}/health", timeout=5) as answer:
            return bool(answer.status == 200)
        return False

    def stop(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._server.pid, signal.SIGKILL)
        self._server.wait()
