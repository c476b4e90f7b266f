"""Real quorate processes on loopback for the process tests.

A Cluster makes its own temporary directory, ports and configuration files, starts the binary
named by QUORATE_BINARY, and ends every process that it started, by process id. Nothing in here
sleeps for luck: `eventually` asks until the answer is there or the time is up.
"""

import contextlib
import fcntl
import http.client
import importlib
import json
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import unittest

# gRPC for Python moves a connection on while a call waits on its channel, and otherwise only this
# often (5 s by default): a call to a node that has just been started again fails at once, waits for
# nothing, and so would the next ones for five seconds. Read when the first channel is made.
os.environ.setdefault("GRPC_CLIENT_CHANNEL_BACKUP_POLL_INTERVAL_MS", "20")

import grpc  # noqa: E402

ROOT = pathlib.Path(__file__).resolve().parents[2]
BINARY = os.environ.get("QUORATE_BINARY", str(ROOT / "build/release/quorate"))
PRESET = os.environ.get("QUORATE_BUILD", "release")
# Sanitizers make a node ten times slower; so are its timeouts then. A test that is about something
# else than elections asks for slower ones by QUORATE_MULTIPLIER, so that a busy machine causes none.
MULTIPLIER = 10 if PRESET in ("asan", "tsan") else int(os.environ.get("QUORATE_MULTIPLIER", "1"))
PATIENCE_S = 30 * (6 if MULTIPLIER > 1 else 1)
# The deadline of a call that must succeed: an election may come between, on a machine that has
# other things to do.
CALL_S = 10 * (3 if MULTIPLIER > 1 else 1)


def _generate_stubs():
    """Compiles the protos for Python into a temporary directory and imports them."""
    out = tempfile.mkdtemp(prefix="quorate-stubs-")
    protos = [str(p) for p in sorted((ROOT / "proto").rglob("*.proto"))]
    # protoc itself: Debian's grpc_tools is of 2018 and knows no `optional` in proto3.
    subprocess.run(["/usr/bin/protoc", f"-I{ROOT / 'proto'}", "-I/usr/include",
                    f"--python_out={out}", f"--grpc_out={out}",
                    "--plugin=protoc-gen-grpc=/usr/bin/grpc_python_plugin"] + protos, check=True)
    # google/rpc of ours would hide the installed `google` package: put it beside.
    ours = pathlib.Path(out) / "google"
    if ours.is_dir():
        import google
        google.__path__.append(str(ours))
    sys.path.insert(0, out)
    modules = {name: importlib.import_module(f"quorate.v1.{name}")
               for name in ("config_pb2", "config_pb2_grpc", "cluster_pb2", "cluster_pb2_grpc",
                            "raft_pb2", "raft_pb2_grpc", "command_pb2")}
    modules["error_details_pb2"] = importlib.import_module("google.rpc.error_details_pb2")
    modules["status_pb2"] = importlib.import_module("google.rpc.status_pb2")
    shutil.rmtree(out, ignore_errors=True)
    return modules


_modules = _generate_stubs()
config_pb2 = _modules["config_pb2"]
config_pb2_grpc = _modules["config_pb2_grpc"]
cluster_pb2 = _modules["cluster_pb2"]
cluster_pb2_grpc = _modules["cluster_pb2_grpc"]
raft_pb2 = _modules["raft_pb2"]
raft_pb2_grpc = _modules["raft_pb2_grpc"]
error_details_pb2 = _modules["error_details_pb2"]
status_pb2 = _modules["status_pb2"]

# Tests run side by side: each process takes blocks of ports for itself, until it ends, by the same
# locks as tests/services/server_test.cc. Below the ephemeral range, so that no outgoing connection
# takes one meanwhile.
_PORTS_MIN, _PORT_BLOCKS, _PORTS_OF_A_BLOCK = 20000, 200, 60
_held_blocks = []
_free_ports = []


def _reserve_ports():
    for tried in range(_PORT_BLOCKS):
        block = (os.getpid() + tried) % _PORT_BLOCKS
        lock = open(os.path.join(tempfile.gettempdir(), f"quorate-ports-{block}"), "a+")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            lock.close()
            continue
        _held_blocks.append(lock)
        first = _PORTS_MIN + block * _PORTS_OF_A_BLOCK
        return list(range(first, first + _PORTS_OF_A_BLOCK))
    raise AssertionError("every block of ports is taken")


def free_port():
    """A port of this process's blocks that nobody listens on; never the same one twice."""
    while True:
        if not _free_ports:
            _free_ports.extend(_reserve_ports())
        port = _free_ports.pop(0)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        return port


def eventually(question, what, patience_s=None):
    """The first true answer of `question()`; fails with `what` when none comes in time."""
    deadline = time.monotonic() + (patience_s or PATIENCE_S)
    last = None
    while True:
        try:
            last = question()
            if last:
                return last
        except (grpc.RpcError, OSError, http.client.HTTPException) as error:
            last = error
        if time.monotonic() > deadline:
            raise AssertionError(f"did not happen in time: {what}; last answer: {last}")
        time.sleep(0.02)


def error_info(error):
    """(reason, metadata) of our ErrorInfo in an RpcError; (None, {}) without one."""
    for key, value in error.trailing_metadata() or ():
        if key == "grpc-status-details-bin":
            status = status_pb2.Status.FromString(value)
            for detail in status.details:
                if detail.type_url.endswith("google.rpc.ErrorInfo"):
                    info = error_details_pb2.ErrorInfo.FromString(detail.value)
                    return info.reason, dict(info.metadata)
    return None, {}


def http_get(host, port, path, timeout):
    """(status, body)."""
    connection = http.client.HTTPConnection(host, port, timeout=timeout)
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        return response.status, response.read().decode()
    finally:
        connection.close()


class Node:
    """One quorate process: its configuration, its data directory, its stubs."""

    def __init__(self, cluster, name, directory, ports):
        self.cluster = cluster
        self.name = name
        self.directory = pathlib.Path(directory)
        self.data = self.directory / "data"
        self.client_port, self.peer_port, self.ops_port = ports
        self.process = None
        self.log_path = self.directory / "log.txt"
        self.config_path = self.directory / "quorate.yaml"
        self._channel = None

    @property
    def address(self):
        return f"127.0.0.1:{self.client_port}"

    def write_config(self, peers, extra_raft="", extra=""):
        peer_lines = "".join(f'      - "{p.name}=127.0.0.1:{p.peer_port}"\n' for p in peers)
        multiplier = f"    performanceMultiplier: {MULTIPLIER}\n" if MULTIPLIER != 1 else ""
        self.config_path.write_text(
            'mode: "controlplane"\n'
            "controlPlane:\n"
            f'  address: "127.0.0.1:{self.client_port}"\n'
            f'  metricsAddress: "127.0.0.1:{self.ops_port}"\n'
            f'  storePath: "{self.data}"\n'
            f"{extra}"
            "  raft:\n"
            f'    nodeId: "{self.name}"\n'
            f'    bindAddress: "127.0.0.1:{self.peer_port}"\n'
            f"{multiplier}{extra_raft}"
            "    peers:\n" + peer_lines)

    def start(self):
        assert self.process is None or self.process.poll() is not None, f"{self.name} runs already"
        log = open(self.log_path, "ab")
        self.process = subprocess.Popen([BINARY, "serve", "--config", str(self.config_path)],
                                        stdout=log, stderr=log, stdin=subprocess.DEVNULL,
                                        cwd=self.directory)
        log.close()
        return self

    def running(self):
        return self.process is not None and self.process.poll() is None

    def kill(self):
        """SIGKILL, and wait until it is gone."""
        if self.running():
            self.process.send_signal(signal.SIGKILL)
            self.process.wait()

    def pause(self):
        """SIGSTOP, and wait until each of its threads stands still: on a busy machine that takes a while."""
        self.process.send_signal(signal.SIGSTOP)
        tasks = pathlib.Path(f"/proc/{self.process.pid}/task")
        eventually(lambda: all((task / "stat").read_text().rsplit(")", 1)[1].split()[0] == "T"
                               for task in tasks.iterdir()), f"{self.name} stands still")

    def resume(self):
        self.process.send_signal(signal.SIGCONT)

    def stop(self):
        """SIGTERM; returns the exit code."""
        if self.running():
            self.process.terminate()
            try:
                return self.process.wait(PATIENCE_S)
            except subprocess.TimeoutExpired:
                self.kill()
                raise AssertionError(f"{self.name} did not stop within {PATIENCE_S} s of SIGTERM")
        return self.process.returncode if self.process else None

    def wait_exit(self, patience_s=None):
        """The exit code of a process that is expected to end by itself."""
        return self.process.wait(patience_s or PATIENCE_S)

    def log_text(self):
        return self.log_path.read_text(errors="replace") if self.log_path.exists() else ""

    def channel(self):
        if self._channel is None:
            self._channel = grpc.insecure_channel(self.address, options=[
                ("grpc.initial_reconnect_backoff_ms", 50),
                # Despite its name: how long one attempt may take, the first frame included.
                ("grpc.min_reconnect_backoff_ms", 2000),
                ("grpc.max_reconnect_backoff_ms", 200),
                ("grpc.max_receive_message_length", 16 << 20),
                ("grpc.max_send_message_length", 16 << 20),
                ("grpc.use_local_subchannel_pool", 1)])
        return self._channel

    def close_channel(self):
        if self._channel is not None:
            self._channel.close()
            self._channel = None

    @property
    def config(self):
        return config_pb2_grpc.ConfigStub(self.channel())

    @property
    def control(self):
        return cluster_pb2_grpc.ClusterStub(self.channel())

    # --- Short forms for stories ---

    def put(self, key, text, timeout=CALL_S, **fields):
        return self.config.Put(config_pb2.PutRequest(key=key, text=text, **fields),
                               timeout=timeout)

    def get(self, key, timeout=CALL_S):
        return self.config.Get(config_pb2.GetRequest(key=key), timeout=timeout)

    def list_all(self, prefix="", timeout=PATIENCE_S):
        """Every item of the prefix, over all pages."""
        items, token = [], ""
        while True:
            page = self.config.List(config_pb2.ListRequest(prefix=prefix, page_token=token),
                                    timeout=timeout)
            items.extend(page.items)
            token = page.next_page_token
            if not token:
                return items

    def status(self, timeout=CALL_S / 2):
        return self.control.Status(cluster_pb2.StatusRequest(), timeout=timeout)

    def serves(self, service=""):
        """What grpc.health.v1 says of it."""
        call = self.channel().unary_unary("/grpc.health.v1.Health/Check",
                                          request_serializer=lambda b: b,
                                          response_deserializer=lambda b: b)
        name = service.encode()
        answer = call(b"\x0a" + bytes([len(name)]) + name if name else b"", timeout=CALL_S)
        return {b"\x08\x01": True, b"\x08\x02": False}[answer]

    def http(self, path, timeout=CALL_S / 2):
        """(status, body) of a request to the operations port."""
        return http_get("127.0.0.1", self.ops_port, path, timeout)

    def metric(self, name):
        """The sum over all label sets of one metric."""
        total, seen = 0.0, False
        for line in self.http("/metrics")[1].splitlines():
            if line.startswith(name) and line[len(name)] in " {":
                total += float(line.rsplit(" ", 1)[1])
                seen = True
        if not seen:
            raise AssertionError(f"{self.name} has no metric {name}")
        return total


class Cluster:
    """Nodes node-1 .. node-n in a temporary directory. A context manager: ends what it started."""

    def __init__(self, size=3, extra_raft="", extra=""):
        self.root = pathlib.Path(tempfile.mkdtemp(prefix="quorate-test-"))
        self.nodes = []
        self.failed = False
        for i in range(1, size + 1):
            directory = self.root / f"node-{i}"
            directory.mkdir()
            self.nodes.append(Node(self, f"node-{i}", directory,
                                   (free_port(), free_port(), free_port())))
        for node in self.nodes:
            node.write_config(self.nodes, extra_raft, extra)

    def __enter__(self):
        return self

    def __exit__(self, kind, value, trace):
        sanitizer = []
        for node in self.nodes:
            node.close_channel()
            with contextlib.suppress(AssertionError):
                node.stop()
            node.kill()
            text = node.log_text()
            if any(word in text for word in ("ERROR: AddressSanitizer", "ERROR: LeakSanitizer",
                                             "runtime error:", "WARNING: ThreadSanitizer",
                                             "CHECK failed")):
                sanitizer.append(node)
        if kind is not None or sanitizer:
            for node in sanitizer or self.nodes:
                lines = node.log_text().splitlines()
                print(f"--- {node.name}: the last of {len(lines)} log lines")
                print("\n".join(lines[-60:]), flush=True)
        shutil.rmtree(self.root, ignore_errors=True)
        if sanitizer and kind is None:
            raise AssertionError("a sanitizer or CHECK spoke in " +
                                 ", ".join(n.name for n in sanitizer))
        return False

    def start(self):
        for node in self.nodes:
            node.start()
        return self

    def node(self, name):
        return next(n for n in self.nodes if n.name == name)

    def leader(self, among=None):
        """The node that leads, as a majority's highest term sees it."""
        def ask():
            best = None
            for node in among or self.nodes:
                if not node.running():
                    continue
                with contextlib.suppress(grpc.RpcError):
                    status = node.status(timeout=2)
                    if status.role == cluster_pb2.NODE_ROLE_LEADER:
                        if best is None or status.header.term > best[0]:
                            best = (status.header.term, node)
            return best and best[1]
        return eventually(ask, "a leader")

    def make_leader(self, node):
        """The answer of the transfer. On a busy machine the node may not answer just then: a leader
        that has not heard of it lately refuses."""
        request = cluster_pb2.TransferLeadershipRequest(node_id=node.name)
        return eventually(lambda: self.leader().control.TransferLeadership(
            request, timeout=2 * CALL_S), f"{node.name} is made the leader")

    def followers(self):
        leader = self.leader()
        return [n for n in self.nodes if n is not leader and n.running()]

    def wait_ready(self, nodes=None):
        """Until every (running) node serves: born, caught up, leader known."""
        for node in nodes or [n for n in self.nodes if n.running()]:
            eventually(lambda: node.http("/readyz")[0] == 200, f"{node.name} ready")
        return self

    def wait_equal(self, nodes=None):
        """Until all nodes have applied the same index; returns their status by name.

        Asserts that equal applied index means equal state hash."""
        nodes = nodes or self.nodes

        def same():
            statuses = {n.name: n.status() for n in nodes}
            applied = {s.applied_index for s in statuses.values()}
            return statuses if len(applied) == 1 else None
        statuses = eventually(same, "equal applied index on all nodes", PATIENCE_S * 2)
        hashes = {s.state_hash for s in statuses.values()}
        assert len(hashes) == 1, f"equal applied index, different state hashes: {statuses}"
        return statuses


def story(text):
    """One line of the story that a test tells."""
    print(f"  {time.strftime('%H:%M:%S')} {text}", flush=True)


def main():
    unittest.main(verbosity=2)
