"""The network breaks around the leader, in every way, and heals: one leader serves at any time.

Full (its cable is out), asymmetric (it is not heard, or does not hear) and partial (one follower and
it do not reach each other). Clients stay on both sides all the while: what each was told is compared
with one order of writes.
"""

import bisect
import json
import subprocess
import sys
import threading
import time
import unittest

import grpc

from quorate_cluster import (CALL_S, MULTIPLIER, cluster_pb2, config_pb2, config_pb2_grpc,
                             error_info, eventually, story)
from quorate_network import PodCluster, main

COUNTER = "partition/counter"
PAUSE_S = 0.01  # between two calls of one client


def call_s(multiplier):
    """How long a probe waits: longer than a node waits for a leader before it says that there is
    none."""
    return 3.5 + 1.5 * multiplier


class Counter:
    """Counts a key up through one node after the other of those given, and keeps when it was told."""

    def __init__(self, *pods):
        self.pods, self.stop = pods, threading.Event()
        self.told = []  # (when, number), acknowledged
        self.failures, self.slowest = [], 0.0
        self.thread = threading.Thread(target=self.run)
        self.thread.start()

    def run(self):
        number = 0
        while not self.stop.is_set():
            number += 1
            began = time.monotonic()
            try:
                self.pods[number % len(self.pods)].put(COUNTER, str(number), timeout=2 * CALL_S)
                self.told.append((time.monotonic(), number))
            except grpc.RpcError as error:
                self.failures.append((number, error.code(), error.details()))
            self.slowest = max(self.slowest, time.monotonic() - began)
            time.sleep(PAUSE_S)

    def wait_for_more(self, count=50):
        goal = len(self.told) + count
        eventually(lambda: len(self.told) >= goal, f"{count} more writes")

    def end(self):
        self.stop.set()
        self.thread.join()


class Probe:
    """Writes and linearizable reads at one node, from where it is, by a process of its own."""

    def __init__(self, pod, timeout_s):
        self.path = pod.directory / "probe.jsonl"
        with open(self.path, "wb") as lines:  # not a pipe, which would fill and stop it
            self.process = subprocess.Popen(
                pod.host.command(sys.executable, "-u", __file__, "--probe", "127.0.0.1:8080",
                                 pod.name, str(timeout_s)),
                stdout=lines, stdin=subprocess.PIPE)

    def end(self):
        self.process.stdin.close()
        self.process.wait()
        return [json.loads(line) for line in self.path.read_text().splitlines()]


def probe(address, name, timeout_s):
    """What Probe runs: until its input ends, a line for each call. Reads and writes by themselves."""
    ended = threading.Event()
    config = config_pb2_grpc.ConfigStub(grpc.insecure_channel(address))

    def put(number):
        config.Put(config_pb2.PutRequest(key=f"probe/{name}/{number}", text="x"),
                   timeout=timeout_s)
        return number

    def get(_):
        read = config_pb2.ReadOptions(consistency=config_pb2.CONSISTENCY_LINEARIZABLE)
        return int(config.Get(config_pb2.GetRequest(key=COUNTER, read=read),
                              timeout=timeout_s).item.text)

    def run(call):
        number = 0
        while not ended.wait(PAUSE_S):
            number += 1
            began, result, reason = time.monotonic(), None, None
            try:
                result = call(number)
            except grpc.RpcError as error:
                reason = error_info(error)[0] or error.code().name
            print(json.dumps({"kind": call.__name__, "began": began, "ended": time.monotonic(),
                              "result": result, "reason": reason}) + "\n", end="")
    threads = [threading.Thread(target=run, args=(call,)) for call in (put, get)]
    for thread in threads:
        thread.start()
    sys.stdin.read()
    ended.set()
    for thread in threads:
        thread.join()


class Partition(unittest.TestCase):
    def run_story(self, what, cut, expects_new_leader=True, multiplier=MULTIPLIER):
        """`cut(leader, followers)` breaks the network; returns who is alone."""
        timeout_s = call_s(multiplier)
        with PodCluster(multiplier=multiplier) as cluster:
            cluster.show()
            cluster.start().wait_ready()
            leader = cluster.leader()
            followers = [pod for pod in cluster.nodes if pod is not leader]
            leader.put(COUNTER, "0")
            term = leader.status().header.term
            said = len(leader.log_text())
            probes = {pod.name: Probe(pod, timeout_s) for pod in cluster.nodes}
            counter = None
            try:
                began = time.monotonic()
                alone = cut(leader, followers)
                majority = [pod for pod in cluster.nodes if pod is not alone]
                serving = [pod for pod in majority if pod is not leader] or majority
                counter = Counter(*serving)
                counter.wait_for_more()
                now = eventually(lambda: self.leader_of(majority), "the majority has a leader")
                self.assertEqual(now is not leader, expects_new_leader)
                story(f"{what}: {now.name} leads and takes writes; {alone.name} is alone")
                eventually(lambda: time.monotonic() > began + 3 * timeout_s, "it has been alone for long",
                           4 * timeout_s)
                counter.wait_for_more()
                healed = time.monotonic()
                for pod in cluster.nodes:
                    pod.host.heal()
                cluster.wait_ready()
                counter.wait_for_more()
            finally:
                told = {name: one.end() for name, one in probes.items()}
                if counter is not None:
                    counter.end()
            cluster.wait_equal()
            self.assertEqual(counter.failures, [], "calls through the majority failed")
            self.check_probes(cluster, counter, told)
            for pod in cluster.nodes:
                if pod is alone:
                    self.check_alone(told[pod.name], began + timeout_s / 2, healed)
                    continue
                # Where calls go on all the while, they do.
                self.assertTrue([c for c in told[pod.name] if c["result"] is not None and
                                 began + timeout_s < c["began"] and c["ended"] < healed], pod.name)
            if expects_new_leader:
                self.assertIn('msg="became follower"', leader.log_text()[said:])
            else:
                self.assertEqual(cluster.leader().status().header.term, term,
                                 "who heard the leader let itself be disturbed")
            story(f"{what}: healed. {len(counter.told)} writes through the majority, none failed; "
                  f"the slowest took {1000 * counter.slowest:.0f} ms")

    @staticmethod
    def leader_of(pods):
        for pod in pods:
            try:
                status = pod.status(timeout=1)
            except grpc.RpcError:
                continue
            if status.role == cluster_pb2.NODE_ROLE_LEADER:
                return pod
        return None

    def check_probes(self, cluster, counter, told):
        """One order for all: who was told of a write has it, and no read shows less than what had
        been acknowledged, anywhere, before it began."""
        reads = 0
        for name, calls in told.items():
            written = {item.key for item in cluster.leader().list_all(f"probe/{name}/")}
            for call in calls:
                if call["result"] is None:
                    continue
                if call["kind"] == "put":
                    self.assertIn(f"probe/{name}/{call['result']}", written)
                    continue
                reads += 1
                before = bisect.bisect_left(counter.told, (call["began"], 0))
                acknowledged = counter.told[before - 1][1] if before else 0
                self.assertGreaterEqual(call["result"], acknowledged,
                                        f"{name} served a read of the past")
        story(f"{reads} linearizable reads at three nodes: none shows less than was acknowledged")

    def check_alone(self, calls, settled, healed):
        """Once it has noticed, everything is refused, with the reason; and soon after the healing
        it serves again."""
        there = [c for c in calls if c["began"] > settled and c["ended"] < healed]
        self.assertTrue(there, "nothing was asked of who was alone")
        self.assertEqual([c for c in there if c["result"] is not None], [])
        reasons = sorted({c["reason"] for c in there})
        self.assertLessEqual(set(reasons), {"NO_LEADER", "OUTCOME_UNKNOWN", "READ_DEADLINE",
                                            "DEADLINE_EXCEEDED"})
        self.assertIn("NO_LEADER", [c["reason"] for c in there if c["kind"] == "put"])
        self.assertIn("get", [c["kind"] for c in there])
        after = [c["ended"] for c in calls if c["began"] > healed and c["result"] is not None]
        self.assertTrue(after, "it does not serve after the healing")
        story(f"alone it refused {len(there)} calls ({', '.join(reasons)}), and served "
              f"{min(after) - healed:.1f} s after the healing")

    # Under a sanitizer, where timeouts are ten times longer, the other two are enough.
    @unittest.skipIf(MULTIPLIER > 1, "takes a minute")
    def test_the_leaders_cable_is_out(self):
        def cut(leader, _):
            leader.host.cut()
            return leader
        self.run_story("cable out", cut)

    @unittest.skipIf(MULTIPLIER > 1, "takes a minute")
    def test_the_leader_is_not_heard(self):
        def cut(leader, followers):
            for pod in followers:
                pod.host.drop_from(leader.host)
            return leader
        self.run_story("not heard", cut)

    def test_the_leader_does_not_hear(self):
        def cut(leader, followers):
            leader.host.drop_from(*[pod.host for pod in followers])
            return leader
        self.run_story("deaf", cut)

    def test_one_follower_and_the_leader_do_not_reach_each_other(self):
        def cut(leader, followers):
            leader.host.drop_from(followers[0].host)
            followers[0].host.drop_from(leader.host)
            return followers[0]
        # Slower, so that the other follower does not miss the leader on a busy machine.
        self.run_story("partial", cut, expects_new_leader=False, multiplier=max(3, MULTIPLIER))


if __name__ == "__main__":
    if sys.argv[1:2] == ["--probe"]:
        probe(sys.argv[2], sys.argv[3], float(sys.argv[4]))
    else:
        main()
