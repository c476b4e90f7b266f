"""Whoever has been told that a write is done, and says so to somebody else, who asks another node:
with LINEARIZABLE, and with LEASE where leases are on, that one sees the write, at once, also while
leaders are killed. And bounds of reads: min_revision, at_revision, no majority.
"""

import os
import re
import subprocess
import threading
import unittest

import grpc

from quorate_cluster import (BINARY, CALL_S, MULTIPLIER, PATIENCE_S, Cluster, cluster_pb2,
                             config_pb2, error_info, eventually, main, story)

ROUNDS = int(os.environ.get("QUORATE_KILL_ROUNDS", "10" if MULTIPLIER == 1 else "4"))
READS_A_ROUND = 30
LINEARIZABLE = config_pb2.ReadOptions(consistency=config_pb2.CONSISTENCY_LINEARIZABLE)
LEASE = config_pb2.ReadOptions(consistency=config_pb2.CONSISTENCY_LEASE)


def settings(node, *args):
    """What `quorate settings` prints at this node."""
    done = subprocess.run([BINARY, "--endpoints", node.address, "--timeout", "30s", "settings", *args],
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False,
                          timeout=PATIENCE_S * 2)
    return done.stdout


def leases_are(node, on):
    return lambda: node.control.GetSettings(cluster_pb2.GetSettingsRequest(),
                                            timeout=5).settings.leases == on


def lease_answers(cluster):
    return sum(node.metric("quorate_lease_answers_total") for node in cluster.nodes)


def goes_by_leases(node, on):
    """Whether its Raft core has heard of the setting: without that every LEASE read is a round."""
    return lambda: node.metric("quorate_leases") == (1 if on else 0)


def promised_ms(node):
    """What its identity file says that it may have promised to leaders."""
    return int(re.search(r"^promised_ms (\d+)$", (node.data / "identity").read_text(),
                         re.MULTILINE).group(1))


class Pair:
    """Writes through one node, then reads through another, for as long as both are there."""

    def __init__(self, writer, reader, board):
        self.writer, self.reader, self.board = writer, reader, board
        self.done = 0
        self.key = f"pair/{writer.name}/{reader.name}"
        self.thread = threading.Thread(target=self.run, daemon=True)

    def run(self):
        number = 0
        while not self.board.stop.is_set():
            number += 1
            try:
                put = self.writer.config.Put(
                    config_pb2.PutRequest(key=self.key, text=str(number)), timeout=CALL_S)
                got = self.reader.config.Get(
                    config_pb2.GetRequest(key=self.key, read=LEASE if number % 2 else LINEARIZABLE),
                    timeout=CALL_S)
                self.board.read(self, number, put, got)
                self.done += 1
            except grpc.RpcError as error:
                self.board.failed(self, error)
                self.board.stop.wait(0.05)


class Board:
    def __init__(self):
        self.stop = threading.Event()
        self.lock = threading.Lock()
        self.reads = 0
        self.stale = []
        self.killed = None
        self.failures = []

    def read(self, pair, number, put, got):
        with self.lock:
            self.reads += 1
            if got.item.text != str(number) or got.header.revision < put.header.revision:
                self.stale.append(f"{pair.key}: put {number} at revision {put.header.revision}, "
                                  f"got {got.item.text} at {got.header.revision}")

    def failed(self, pair, error):
        with self.lock:
            if self.killed in (pair.writer, pair.reader):
                return
            reason, _ = error_info(error)
            self.failures.append(f"{pair.key}: {error.code().name} {reason} {error.details()}")


class LinearizableRead(unittest.TestCase):
    def test_what_was_acknowledged_is_seen_everywhere_over_leader_kills(self):
        with Cluster(3) as cluster:
            cluster.start().wait_ready()
            cluster.nodes[0].control.SetSettings(cluster_pb2.SetSettingsRequest(leases=True),
                                                 timeout=CALL_S)
            for node in cluster.nodes:
                eventually(leases_are(node, True), "the setting is everywhere")
            board = Board()
            pairs = [Pair(a, b, board) for a in cluster.nodes for b in cluster.nodes]
            for pair in pairs:
                pair.thread.start()
            for _ in range(ROUNDS):
                self.wait_reads(board)
                leader = cluster.leader()
                with board.lock:
                    board.killed = leader
                leader.kill()
                self.wait_reads(board)
                leader.start()
                cluster.wait_ready()
                # A channel to the dead node looks for it now and then only.
                marks = [(pair, pair.done) for pair in pairs]
                eventually(lambda: all(pair.done > mark for pair, mark in marks),
                           "every pair reads again")
                with board.lock:
                    board.killed = None
            board.stop.set()
            for pair in pairs:
                pair.thread.join(30)
                self.assertFalse(pair.thread.is_alive(), "a call hung beyond its deadline")
            self.assertEqual(board.stale, [])
            self.assertEqual(board.failures, [], "calls between survivors must not fail")
            story(f"{board.reads} linearizable reads, half of them by lease, through every pair of "
                  f"nodes, {ROUNDS} leaders killed: none was stale, none between survivors failed")

    def wait_reads(self, board):
        start = board.reads
        eventually(lambda: board.reads >= start + READS_A_ROUND, f"{READS_A_ROUND} more reads")

    def refused_by_lease(self, node):
        with self.assertRaises(grpc.RpcError) as caught:
            node.config.Get(config_pb2.GetRequest(key="k", read=LEASE), timeout=CALL_S)
        self.assertEqual(caught.exception.code(), grpc.StatusCode.FAILED_PRECONDITION)
        self.assertEqual(error_info(caught.exception)[0], "LEASES_OFF")

    def switch_leases(self, cluster, leader, follower, other):
        """On and off again, and meanwhile a node that is started with other election timeouts."""
        for node in (leader, follower):
            self.refused_by_lease(node)
            self.assertEqual(settings(node), "leases off\n")
        self.assertEqual(lease_answers(cluster), 0)
        self.assertEqual(settings(follower, "--leases", "on"), "leases on\n")
        for node in cluster.nodes:
            eventually(leases_are(node, True), "the setting is everywhere")
            self.assertEqual(settings(node), "leases on\n")
            eventually(goes_by_leases(node, True), f"{node.name} goes by it")
        for number, node in enumerate(cluster.nodes):
            follower.put("k", str(number))
            got = node.config.Get(config_pb2.GetRequest(key="k", read=LEASE), timeout=CALL_S)
            self.assertEqual(got.item.text, str(number), f"through {node.name}")
            before = lease_answers(cluster)

            def by_lease(node=node, before=before):
                node.config.Get(config_pb2.GetRequest(key="k", read=LEASE), timeout=CALL_S)
                return lease_answers(cluster) > before
            # Not each one: on a slow machine the leader has no lease for a moment.
            eventually(by_lease, f"a read through {node.name} is answered by the leader's lease")
        story("leases on, by the command line at a follower: every node reads by lease what was just "
              "written")

        usual = promised_ms(other)
        other.stop()
        other.write_config(cluster.nodes, "    electionTimeout: 1s-2s\n")
        other.start()
        cluster.wait_ready()
        longer = promised_ms(other)
        self.assertEqual(longer, 1000 * MULTIPLIER)
        self.assertLess(usual, longer)
        other.kill()
        other.write_config(cluster.nodes)
        other.start()
        cluster.wait_ready()
        self.assertTrue(goes_by_leases(other, True)(), "from its start")
        got = other.config.Get(config_pb2.GetRequest(key="k", read=LEASE), timeout=CALL_S)
        self.assertEqual(got.item.text, "2", "the setting has outlived the restarts")
        # Said once the longer promise is over; a process that is started before has to know it.
        eventually(lambda: f"before_ms={longer} now_ms={usual}" in other.log_text(),
                   "the longer promise is over")
        self.assertEqual(promised_ms(other), usual)
        story(f"a node that promised {longer} ms, started again with {usual} ms, keeps {longer} ms "
              "first")

        leader.control.SetSettings(cluster_pb2.SetSettingsRequest(leases=False), timeout=CALL_S)
        self.refused_by_lease(leader)
        for node in cluster.nodes:
            eventually(leases_are(node, False), "the setting is everywhere")
            self.refused_by_lease(node)
            eventually(goes_by_leases(node, False), f"{node.name} goes by it")
        before = lease_answers(cluster)
        for node in cluster.nodes:
            node.config.Get(config_pb2.GetRequest(key="k", read=LINEARIZABLE), timeout=CALL_S)
        self.assertEqual(lease_answers(cluster), before, "nobody has one any more")
        story("leases off again: LEASES_OFF at every node, and no leader answers by a lease")
        follower.put("k", "two")

    def test_bounds_of_reads(self):
        with Cluster(3) as cluster:
            cluster.start().wait_ready()
            leader, (follower, other) = cluster.leader(), cluster.followers()
            first = leader.put("k", "one").header.revision
            second = leader.put("k", "two").header.revision

            def get(node, timeout=CALL_S, **options):
                return node.config.Get(config_pb2.GetRequest(
                    key="k", read=config_pb2.ReadOptions(**options)), timeout=timeout)
            for node in cluster.nodes:
                self.assertEqual(get(node, min_revision=second).item.text, "two")
                past = get(node, min_revision=second, at_revision=first)
                self.assertEqual((past.item.text, past.header.revision), ("one", first))
                self.assertFalse(past.header.HasField("staleness"))
            story("min_revision is waited for, at_revision shows the past, at every node")

            for code, reason, options in (
                    ("OUT_OF_RANGE", "REVISION_IN_FUTURE", {"at_revision": second + 1000}),
                    ("UNAVAILABLE", "BEHIND", {"min_revision": second + 1000})):
                with self.assertRaises(grpc.RpcError) as caught:
                    get(follower, timeout=0.5, **options)
                self.assertEqual(caught.exception.code().name, code)
                self.assertEqual(error_info(caught.exception)[0], reason)

            self.switch_leases(cluster, leader, follower, other)

            cluster.wait_equal()  # or the one that is left may not know that the last write is done
            leader.kill()
            other.kill()
            # First while its question may still be under way, then longer than an election.
            for timeout in (0.5, 2) if MULTIPLIER == 1 else (2, 5):
                with self.assertRaises(grpc.RpcError) as caught:
                    get(follower, timeout=timeout,
                        consistency=config_pb2.CONSISTENCY_LINEARIZABLE)
                self.assertEqual(caught.exception.code(), grpc.StatusCode.UNAVAILABLE, timeout)
                self.assertEqual(error_info(caught.exception)[0], "NO_LEADER")
            self.assertEqual(get(follower).item.text, "two", "a local read needs no majority")
            story("without a majority a linearizable read says NO_LEADER before its deadline")


if __name__ == "__main__":
    main()
