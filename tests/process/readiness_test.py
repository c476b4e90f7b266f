"""When a node is ready, for which rollouts wait; what it says when it is not; and that it makes way
and ends when nobody new can reach it."""

import contextlib
import os
import resource
import socket
import subprocess
import threading
import time
import unittest

# Who is to have led until it ends must not lose that to a busy machine.
os.environ.setdefault("QUORATE_MULTIPLIER", "3")

import membership_test  # noqa: E402
from quorate_cluster import (BINARY, PATIENCE_S, PRESET, Cluster, cluster_pb2, eventually, main,
                             story)

BIG = "x" * 1_000_000


def probe(node, path):
    """The status and the text; 0 where nobody answers in time."""
    try:
        return node.http(path, timeout=2)
    except OSError as error:
        return 0, str(error)


class Watcher:
    """What /readyz says from one moment to the next, as long as this is open."""

    def __init__(self, node):
        self.node = node
        self.asked = 0
        self.said = []  # (status, first line), each once in a row
        self.end = threading.Event()
        self.thread = threading.Thread(target=self.watch)

    def watch(self):
        while not self.end.wait(0.005):
            status, text = probe(self.node, "/readyz")
            now = (status, text.splitlines()[0] if text and status else "")
            if not self.said or self.said[-1] != now:
                self.said.append(now)
            self.asked += 1

    def saw_ready(self):
        return any(status == 200 for status, _ in self.said)

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.end.set()
        self.thread.join()


def start_with_limit(node, soft, hard):
    """Starts the node with these limits of open files."""
    with open(node.log_path, "ab") as log:
        node.process = subprocess.Popen(
            [BINARY, "serve", "--config", str(node.config_path)], stdout=log, stderr=log,
            stdin=subprocess.DEVNULL, cwd=node.directory,
            preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard)))


def connect(node, count, held):
    """That many more connections to its port for clients."""
    for _ in range(count):
        held.append(socket.create_connection(("127.0.0.1", node.client_port), timeout=5))


class Readiness(unittest.TestCase):
    def test_who_was_away_is_ready_when_it_has_caught_up(self):
        with Cluster(3, extra_raft="    logTail: 1MiB\n") as cluster:
            cluster.start().wait_ready()
            away = cluster.followers()[0]
            away.stop()
            leader = cluster.leader()
            for i in range(100):
                leader.put(f"big/{i:03}", BIG, timeout=60)
            target = leader.status().applied_index
            with Watcher(away) as watcher:
                away.start()
                eventually(watcher.saw_ready, "it is ready", 2 * PATIENCE_S)
                applied = away.status().applied_index
                seen = watcher.asked
                eventually(lambda: watcher.asked >= seen + 50, "it is asked for a while")
            self.assertGreaterEqual(applied, target, watcher.said)
            first_ready = next(i for i, (status, _) in enumerate(watcher.said) if status == 200)
            behind = [text for _, text in watcher.said[:first_ready]
                      if "has not caught up since" in text]
            self.assertTrue(behind, watcher.said)
            later = " ".join(text for _, text in watcher.said[first_ready:])
            self.assertNotIn("caught up", later, "who was ready is not behind")
            story(f"{away.name} was 100 MB behind, said '{behind[0]}' and so on {len(behind)} "
                  f"times, and was ready at entry {applied}")

    def three_and_one_that_has_stopped(self, cluster):
        """A fourth node was let in, has caught up as a learner, and ended."""
        founders, fourth = cluster.nodes[:3], cluster.nodes[3]
        for node in founders:
            node.start()
        cluster.wait_ready(founders)
        fourth.start()
        eventually(lambda: fourth.status().lacks, "it waits")
        self.assertEqual(membership_test.cli(
            founders, "member", "add", membership_test.peer_address(fourth))[0], 0)
        eventually(lambda: probe(fourth, "/readyz")[0] == 200, "it has caught up")
        fourth.stop()
        return founders, fourth

    def test_a_removed_store_says_so_when_it_is_started_again(self):
        with membership_test.founded(4) as cluster:
            founders, fourth = self.three_and_one_that_has_stopped(cluster)
            code, out, err = membership_test.cli(founders, "member", "remove", fourth.name)
            self.assertEqual(code, 0, out + err)
            # The first time a leader may still tell it; the second time nobody has anything for it.
            for _ in range(2):
                fourth.start()
                eventually(lambda: "removed" in probe(fourth, "/readyz")[1],
                           "it says that it was removed")
                self.assertIn("quorate member add", probe(fourth, "/readyz")[1])
                story(f"/readyz of {fourth.name}: {probe(fourth, '/readyz')[1].strip()}")
                eventually(lambda: "it was removed" in membership_test.cli([fourth], "status")[1],
                           "its status says so")
                fourth.stop()

    def test_a_store_that_was_removed_while_it_was_away_says_so(self):
        with membership_test.founded(4) as cluster:
            founders, fourth = self.three_and_one_that_has_stopped(cluster)
            self.assertEqual(
                membership_test.cli(founders, "member", "remove", fourth.name)[0], 0)
            # Leaders of other processes know nothing of it: its own log has it as a member for ever.
            for node in founders:
                node.stop()
            for node in founders:
                node.start()
            cluster.wait_ready(founders)
            fourth.start()
            said = eventually(lambda: (lambda text: text if "it was removed" in text else None)
                              (probe(fourth, "/readyz")[1]), "it says that it was removed")
            self.assertNotIn(f"{fourth.name} say", said)
            self.assertIn("it was removed", membership_test.cli([fourth], "status")[1])
            story(f"/readyz of {fourth.name}: {said.strip()}")

    def test_many_connections_with_a_low_soft_limit(self):
        with Cluster(1) as cluster, contextlib.ExitStack() as stack:
            node = cluster.nodes[0]
            hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
            if 0 <= hard < 8192:
                self.skipTest(f"only {hard} open files are allowed here")
            start_with_limit(node, 64, 8192)
            cluster.wait_ready()
            self.assertNotIn("few open files", node.log_text())
            held = []
            stack.callback(lambda: [each.close() for each in held])
            connect(node, 200, held)
            node.put("a", "1")
            self.assertEqual(probe(node, "/livez")[0], 200)
            story("200 connections although the soft limit was 64")

    @unittest.skipIf(PRESET == "asan", "the undefined-behaviour sanitizer opens a pipe to look at an "
                     "object's type; without descriptors it takes each for wrong, and ends the node")
    def test_a_leader_whom_nobody_new_can_reach_makes_way_and_ends(self):
        with Cluster(3) as cluster, contextlib.ExitStack() as stack:
            for node in cluster.nodes[1:]:
                node.start()
            start_with_limit(cluster.nodes[0], 160, 160)
            cluster.wait_ready()
            starved, other = cluster.nodes[:2]
            self.assertIn("few open files", starved.log_text())
            cluster.make_leader(starved)
            eventually(lambda: starved.status().role == cluster_pb2.NODE_ROLE_LEADER, "it leads")
            starved.put("a", "1")
            held = []
            stack.callback(lambda: [each.close() for each in held])
            began = time.monotonic()
            with contextlib.suppress(OSError):  # it may have ended
                connect(starved, 200, held)
            self.assertEqual(starved.wait_exit(), 1)
            text = starved.log_text()
            self.assertIn("gRPC takes no more connections", text)
            self.assertIn("LimitNOFILE=", text)
            self.assertIn("handed leadership over before its end", text)
            story(f"it has made way and ended {time.monotonic() - began:.1f} s after 200 "
                  "connections where 160 files may be open")
            other.put("b", "2")
            for each in held:
                each.close()
            held.clear()
            starved.close_channel()
            starved.start()
            cluster.wait_ready()
            self.assertEqual((starved.get("a").item.text, starved.get("b").item.text), ("1", "2"))
            story("started again, it serves")


if __name__ == "__main__":
    main()
