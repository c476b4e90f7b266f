"""A network of our own for process tests: each node has its own address, and there is real DNS.

The test process runs in a network namespace that it made (`main` below starts it again in one), with
a bridge and dnsmasq on it; each host is a namespace of its own behind a pair of veth. Nothing of it
is seen from outside, and everything is removed again. Needs root, `ip`, `iptables` and `dnsmasq`.
"""

import os
import pathlib
import shutil
import signal
import socket
import struct
import subprocess
import sys
import unittest

import quorate_cluster
from quorate_cluster import BINARY, MULTIPLIER, Cluster, Node, eventually

HUB, HUB6 = "10.77.0.1", "fd77::1"
TOOLS = ("ip", "iptables", "dnsmasq", "unshare")
PATH = os.environ.get("PATH", "") + ":/usr/sbin:/sbin"


def remove_leftovers():
    """Of tests that were killed: the namespaces of processes that are no more."""
    for line in run("ip", "netns", "list", check=False).splitlines():
        name = line.split()[0] if line else ""
        words = name.split("-", 2)
        if words[0] == "quorate" and len(words) == 3 and not os.path.exists(f"/proc/{words[1]}"):
            run("ip", "netns", "delete", name, check=False)
            shutil.rmtree(pathlib.Path("/etc/netns") / name, ignore_errors=True)


def run(*words, check=True):
    done = subprocess.run(words, check=False, text=True, stdin=subprocess.DEVNULL,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    if check and done.returncode != 0:
        raise AssertionError(f"{' '.join(words)}: exit code {done.returncode}: {done.stdout}")
    return done.stdout


class Host:
    """A namespace with one address of each family."""

    def __init__(self, network, name):
        self.network, self.name = network, name
        self.namespace = f"quorate-{os.getpid()}-{name}"
        self.address = self.address6 = None
        self.link = f"v{len(network.hosts)}"
        self.files = pathlib.Path("/etc/netns") / self.namespace  # `ip netns exec` shows them in /etc
        run("ip", "netns", "add", self.namespace)
        self.files.mkdir(parents=True)
        (self.files / "resolv.conf").write_text(
            f"nameserver {HUB}\noptions timeout:1 attempts:2\n")
        run("ip", "link", "add", self.link, "type", "veth", "peer", "name", "eth0", "netns",
            self.namespace)
        run("ip", "link", "set", self.link, "master", "bridge", "up")
        self.ip("link", "set", "lo", "up")
        self.ip("link", "set", "eth0", "up")

    def ip(self, *words):
        run("ip", "-n", self.namespace, *words)

    def command(self, *words):
        return ["ip", "netns", "exec", self.namespace, *words]

    def move(self, number):
        """Gives it the addresses 10.77.0.NUMBER and fd77::NUMBER, in place of those that it has."""
        self.ip("address", "flush", "dev", "eth0", "scope", "global")
        self.address, self.address6 = f"10.77.0.{number}", f"fd77::{number}"
        self.ip("address", "add", f"{self.address}/24", "dev", "eth0")
        self.ip("address", "add", f"{self.address6}/64", "dev", "eth0", "nodad")

    def cut(self):
        """Nobody reaches it and it reaches nobody; its own processes still do."""
        run("ip", "link", "set", self.link, "down")

    def drop_from(self, *others):
        """What those hosts send is lost; what this one sends them arrives."""
        for other in others:
            run(*self.command("iptables", "-w", "-A", "INPUT", "-s", other.address, "-j", "DROP"))

    def refuse_from(self, other):
        """Connections that it begins are refused; those that there are go on, and this one may begin
        some."""
        run(*self.command("iptables", "-w", "-A", "INPUT", "-p", "tcp", "--syn", "-s",
                          other.address, "-j", "REJECT"))

    def heal(self):
        run("ip", "link", "set", self.link, "up")
        run(*self.command("iptables", "-w", "-F", "INPUT"))

    def remove(self):
        run("ip", "link", "delete", self.link, check=False)  # at once; with its namespace some time
        run("ip", "netns", "delete", self.namespace, check=False)
        shutil.rmtree(self.files, ignore_errors=True)


class Network:
    """The bridge, its hosts, and DNS; remove() takes everything away again."""

    def __init__(self, directory):
        self.hosts = []
        self.records = pathlib.Path(directory) / "dns"
        self.records.write_text("")
        run("ip", "link", "set", "lo", "up")
        run("ip", "link", "add", "bridge", "type", "bridge")
        run("ip", "address", "add", f"{HUB}/24", "dev", "bridge")
        run("ip", "address", "add", f"{HUB6}/64", "dev", "bridge", "nodad")
        run("ip", "link", "set", "bridge", "up")
        self.dns = None
        try:
            self.start_dns()
        except BaseException:
            self.remove()
            raise

    def start_dns(self):
        # Only what the test shows exists; nothing is asked of anybody else.
        self.dns = subprocess.Popen(
            ["dnsmasq", "--keep-in-foreground", "--user=root", "--conf-file=/dev/null", "--no-hosts",
             "--no-resolv", f"--addn-hosts={self.records}", "--local=/#/", "--local-ttl=2",
             f"--listen-address={HUB}", "--bind-interfaces", "--port=53", "--pid-file="],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        eventually(lambda: self.count_of("a.name") is not None, "DNS answers")

    def count_of(self, name, kind=1):
        """How many addresses DNS shows, of A records (28: AAAA); None: it does not answer."""
        labels = b"".join(bytes([len(word)]) + word.encode() for word in name.split("."))
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asker:
            asker.settimeout(0.2)
            try:
                asker.sendto(struct.pack("!6H", 1, 0x0100, 1, 0, 0, 0) + labels +
                             struct.pack("!BHH", 0, kind, 1), (HUB, 53))
                return struct.unpack("!6H", asker.recv(4096)[:12])[3]
            except OSError:
                return None

    def stop_dns(self):
        if self.dns is not None:
            self.dns.kill()
            self.dns.wait()
            self.dns = None

    def show(self, name, addresses):
        """From now on DNS shows these addresses of that name; none: there is no such name."""
        self.records.write_text("".join(f"{address} {name}\n" for address in addresses))
        if self.dns is not None:
            self.dns.send_signal(signal.SIGHUP)
            of_six = sum(":" in address for address in addresses)
            shown = (len(addresses) - of_six, of_six)
            eventually(lambda: (self.count_of(name), self.count_of(name, 28)) == shown,
                       f"DNS shows {addresses}")

    def add_host(self, name):
        self.hosts.append(Host(self, name))
        return self.hosts[-1]

    def remove(self):
        self.stop_dns()
        for host in self.hosts:
            host.remove()
        run("ip", "link", "delete", "bridge", check=False)


class Pod(Node):
    """A node on a host of its own, with the usual ports."""

    def __init__(self, cluster, name, directory, host):
        super().__init__(cluster, name, directory, (8080, 7000, 8081))
        self.host = host
        self.ipv6 = False  # which of its host's two addresses is its own

    @property
    def pod_ip(self):
        return self.host.address6 if self.ipv6 else self.host.address

    @property
    def address(self):
        return f"[{self.pod_ip}]:{self.client_port}" if self.ipv6 else f"{self.pod_ip}:{self.client_port}"

    def move(self, number):
        self.close_channel()
        self.host.move(number)

    def use_ipv6(self, ipv6):
        """From its next start on."""
        self.close_channel()
        self.ipv6 = ipv6

    def write_pod_config(self, dns, extra_raft=""):
        """The configuration of a pod as README has it, but for the folder."""
        multiplier = self.cluster.multiplier
        slower = f"    performanceMultiplier: {multiplier}\n" if multiplier != 1 else ""
        self.config_path.write_text(
            'mode: "controlplane"\n'
            "controlPlane:\n"
            '  address: ":8080"\n'
            f'  storePath: "{self.data}"\n'
            "  raft:\n"
            '    nodeId: "${POD_NAME}"\n'
            '    bindAddress: ":7000"\n'
            '    advertiseAddress: "${POD_IP}:7000"\n'
            f"{slower}"
            f"{extra_raft}"
            "    discovery:\n"
            f'      dns: "{dns}"\n')

    def start(self):
        assert self.process is None or self.process.poll() is not None, f"{self.name} runs already"
        with open(self.log_path, "ab") as log:
            self.process = subprocess.Popen(
                self.host.command(BINARY, "serve", "--config", str(self.config_path)),
                stdout=log, stderr=log, stdin=subprocess.DEVNULL, cwd=self.directory,
                env={**os.environ, "POD_NAME": self.name, "POD_IP": self.pod_ip})
        return self

    def http(self, path, timeout=5):
        return quorate_cluster.http_get(self.pod_ip, self.ops_port, path, timeout)


class PodCluster(Cluster):
    """Pods quorate-0 .. behind one DNS name."""

    DNS = "quorate-headless.quorate.svc.cluster.local"

    def __init__(self, size=3, multiplier=MULTIPLIER, extra_raft=""):
        super().__init__(0)
        self.multiplier, self.extra_raft = multiplier, extra_raft
        self.last_number = 10
        self.network = Network(self.root)
        try:
            for _ in range(size):
                self.add_pod()
        except BaseException:
            self.__exit__(*sys.exc_info())
            raise

    def add_pod(self):
        name = f"quorate-{len(self.nodes)}"
        directory = self.root / name
        directory.mkdir()
        pod = Pod(self, name, directory, self.network.add_host(name))
        self.nodes.append(pod)
        self.move(pod)
        pod.write_pod_config(self.DNS, self.extra_raft)
        return pod

    def move(self, pod):
        """An address that nobody has had before."""
        self.last_number += 1
        pod.move(self.last_number)

    def show(self, pods=None):
        pods = self.nodes if pods is None else pods
        self.network.show(self.DNS, [pod.pod_ip for pod in pods])

    def __exit__(self, kind, value, trace):
        try:
            return super().__exit__(kind, value, trace)
        finally:
            self.network.remove()


def why_not():
    """What keeps this machine (a container, say) from having networks of our own; empty: nothing."""
    missing = [tool for tool in TOOLS if shutil.which(tool, path=PATH) is None]
    if missing:
        return f"{', '.join(missing)} not here: run tools/setup"
    if os.geteuid() != 0:
        return "only root can make network namespaces"
    name = f"quorate-{os.getpid()}-probe"
    # A veth, too: some kernels have namespaces and nothing to connect them with.
    script = (f"ip netns add {name} && ip link add v0 type veth peer name v1 netns {name} && "
              f"ip link add bridge type bridge && ip netns exec {name} iptables -w -F INPUT")
    try:
        done = subprocess.run(["unshare", "--net", "sh", "-c", script], check=False, text=True,
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        return f"no network namespaces here: {done.stdout.strip()}" if done.returncode else ""
    finally:
        run("ip", "netns", "delete", name, check=False)


def main():
    """Runs the tests in a network namespace of their own; skipped where there can be none."""
    os.environ["PATH"] = PATH
    if os.environ.get("QUORATE_NETWORK") != "own":
        reason = why_not()
        if reason:
            print(f"skipped: {reason}")
            sys.exit(77)
        os.environ["QUORATE_NETWORK"] = "own"
        os.execvp("unshare", ["unshare", "--net", sys.executable, "-u", *sys.argv])
    remove_leftovers()
    unittest.main(verbosity=2)
