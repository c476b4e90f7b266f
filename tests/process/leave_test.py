"""A node that leaves on purpose costs its clients nothing: SIGTERM, and `quorate drain`.

Each node has a network address of its own, as pods have.
"""

import subprocess
import threading
import time
import unittest

import grpc

from membership_test import Load
from quorate_cluster import (BINARY, MULTIPLIER, cluster_pb2, config_pb2, error_info, eventually,
                             story)
from quorate_network import PodCluster, main

ROUNDS = 4 if MULTIPLIER == 1 else 2


def cli(pod, *args):
    """(exit code, stdout, stderr) of the command, run where the pod is, as `kubectl exec` does."""
    done = subprocess.run(pod.host.command(BINARY, *args), stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE, text=True, check=False, timeout=90)
    return done.returncode, done.stdout, done.stderr


def drain(pod):
    """Until it does not lead: on a busy machine nobody may take over within five seconds."""
    def drained():
        code, out, err = cli(pod, "drain")
        assert out == f"{pod.name} is drained\n", err
        assert code == 0 or (code == 7 and "leads on" in err), err
        return code == 0
    eventually(drained, f"{pod.name} does not lead")


class Watcher:
    """Follows everything at one node; how its stream ended."""

    def __init__(self, pod):
        self.revisions, self.end = [], None
        self.stream = pod.config.Watch(config_pb2.WatchRequest(prefix=""))
        self.thread = threading.Thread(target=self.run)
        self.thread.start()

    def run(self):
        try:
            for message in self.stream:
                self.revisions += [event.item.mod_revision for event in message.events]
        except grpc.RpcError as error:
            reason, metadata = error_info(error)
            self.end = (reason, int((metadata or {}).get("resume_revision", 0)))

    def wait_end(self):
        self.thread.join(30)
        return self.end


class Leave(unittest.TestCase):
    def started(self):
        cluster = PodCluster()
        cluster.show()
        cluster.start().wait_ready()
        return cluster

    def check_all_there(self, load, pods):
        self.assertEqual(load.failures, [])
        for pod in pods:
            there = {item.key for item in pod.list_all("load/")}
            self.assertEqual(set(load.acknowledged) - there, set(), f"{pod.name} lost writes")

    def test_sigterm_of_the_leader_fails_no_call_through_followers(self):
        with self.started() as cluster:
            gaps = []
            for _ in range(ROUNDS):
                leader = cluster.leader()
                followers = [pod for pod in cluster.nodes if pod is not leader]
                watcher = Watcher(leader)
                with Load() as load:
                    for pod in followers * 4:
                        load.through(pod)
                    load.wait_for_more(200)
                    said = len(leader.log_text())
                    began = time.monotonic()
                    self.assertEqual(leader.stop(), 0)
                    took = time.monotonic() - began
                    load.wait_for_more(200)
                    text = leader.log_text()[said:]
                self.assertIn("handed leadership over before its end", text)
                self.assertLess(took, 10)
                reason, resume = watcher.wait_end()
                self.assertEqual(reason, "SHUTTING_DOWN")
                self.assertEqual(resume, max(watcher.revisions) + 1)
                gaps.append(max(load.slowest.values()))
                leader.start()
                cluster.wait_ready()
                cluster.wait_equal()
                self.check_all_there(load, cluster.nodes)
            story(f"the leader was ended {ROUNDS} times under load: no call failed; the slowest " +
                  ", ".join(f"{1000 * gap:.0f} ms" for gap in gaps))

    def test_calls_at_the_leader_that_ends_are_answered_or_go_elsewhere(self):
        with self.started() as cluster:
            leader = cluster.leader()
            endpoints = ",".join(pod.address for pod in [leader] + cluster.followers())
            stop, failures, done = threading.Event(), [], []

            def put(number):
                i = 0
                while not stop.is_set():
                    i += 1
                    code, _, err = cli(leader, "--endpoints", endpoints, "put",
                                       f"own/{number}/{i}", "v")
                    (done if code == 0 else failures).append(err)
            threads = [threading.Thread(target=put, args=(number,)) for number in range(2)]
            for thread in threads:
                thread.start()
            eventually(lambda: len(done) >= 10, "writes at the leader")
            self.assertEqual(leader.stop(), 0)
            goal = len(done) + 10
            eventually(lambda: len(done) >= goal, "writes go on elsewhere")
            stop.set()
            for thread in threads:
                thread.join()
            self.assertEqual(failures, [])
            written = len(cluster.leader([p for p in cluster.nodes if p is not leader])
                          .list_all("own/"))
            self.assertEqual(written, len(done))
            story(f"{len(done)} commands that asked the leader first, over its end: none failed")

    def test_a_drained_node_serves_on_and_does_not_lead(self):
        with self.started() as cluster:
            leader = cluster.leader()
            watcher = Watcher(leader)
            with Load() as load:
                for pod in cluster.nodes:
                    load.through(pod)
                load.wait_for_more()
                drain(leader)
                self.assertNotEqual(leader.status().role, cluster_pb2.NODE_ROLE_LEADER)
                load.wait_for_more()
            self.assertEqual(watcher.wait_end()[0], "DRAINING")
            code, body = leader.http("/readyz")
            self.assertEqual(code, 503)
            self.assertIn("quorate drain --undo", body)
            self.assertEqual(cli(leader, "health")[0], 7)
            self.assertTrue(leader.status().draining)
            self.assertIn("drained", cli(leader, "status")[1])
            self.assertEqual(leader.http("/livez")[0], 200)
            self.check_all_there(load, cluster.nodes)
            story("drained under load: no call failed, and it answers on")

            # Given leadership all the same it gives it up again.
            said = len(leader.log_text())
            cli(cluster.leader(), "leader", "transfer", leader.name)
            eventually(lambda: 'msg="became leader"' in leader.log_text()[said:], "it was given it")
            eventually(lambda: leader.status().role != cluster_pb2.NODE_ROLE_LEADER and
                       cluster.leader() is not leader, "it does not keep what it is given")
            # Two are drained: the third one leads, soon, whoever of them is given it.
            third = next(p for p in cluster.nodes if p not in (leader, cluster.leader()))
            drain(third)
            last = next(p for p in cluster.nodes if p not in (leader, third))
            for pod in (leader, third):
                cli(last, "leader", "transfer", pod.name)
                eventually(lambda: last.status().role == cluster_pb2.NODE_ROLE_LEADER,
                           "the one that is not drained leads", 15 * MULTIPLIER)
            # Alone with one more it leads, rather than nobody.
            last.kill()
            left = [leader, third]
            eventually(lambda: third.put("still", "written", timeout=5), "drained nodes lead if nobody else can")
            story("two drained nodes are left: one of them leads, and takes writes")
            last.start()
            for pod in left:
                code, out, err = cli(pod, "drain", "--undo")
                self.assertEqual((code, out), (0, f"{pod.name} is in service\n"), err)
            cluster.wait_ready()
            code, out, err = cli(last, "health", "--cluster", "--wait", "60s")
            self.assertEqual(code, 0, err)
            self.assertIn("healthy: a majority follows", out)

    def test_who_leads_alone_ends_all_the_same(self):
        with self.started() as cluster:
            leader = cluster.leader()
            for pod in cluster.followers():
                pod.kill()
            began = time.monotonic()
            self.assertEqual(leader.stop(), 0)
            self.assertLess(time.monotonic() - began, 15)
            story(f"without anybody else it ends in {time.monotonic() - began:.1f} s")


if __name__ == "__main__":
    main()
