"""The leader is killed twenty times under load, and nothing that was acknowledged is lost.

Writers never pause. Each has a key of its own for each node, so that an item's version must equal
its acknowledged writes plus at most those whose outcome the client could not know. Calls through
surviving followers must not fail: the node retries them over the change of leaders.
"""

import os
import threading
import time
import unittest

import grpc

from quorate_cluster import MULTIPLIER, Cluster, eventually, main, story

ROUNDS = int(os.environ.get("QUORATE_KILL_ROUNDS", "20" if MULTIPLIER == 1 else "6"))
ACKNOWLEDGED_A_ROUND = 100
WRITERS_A_NODE = 3


class Writer(threading.Thread):
    """Writes its key through one node, one call after the other, until told to stop."""

    def __init__(self, node, number, board):
        super().__init__(daemon=True)
        self.node, self.board = node, board
        self.key = f"kill/{node.name}/{number}"
        self.acknowledged = 0
        self.unknown = 0
        self.last_version = 0
        self.in_flight_since = None

    def run(self):
        sequence = 0
        while not self.board.stop.is_set():
            if not self.node.running():
                time.sleep(0.01)  # its node is dead: nothing to write through
                continue
            sequence += 1
            self.in_flight_since = time.monotonic()
            try:
                answer = self.node.put(self.key, f"{sequence}", timeout=10)
                self.acknowledged += 1
                if answer.version <= self.last_version:
                    self.board.wrong.append(f"{self.key}: version {answer.version} after "
                                            f"{self.last_version}")
                self.last_version = answer.version
                self.board.success(self.node)
            except grpc.RpcError as error:
                self.board.failure(self, error)
            self.in_flight_since = None


class Board:
    """What the writers saw."""

    def __init__(self):
        self.stop = threading.Event()
        self.lock = threading.Lock()
        self.wrong = []
        self.acknowledged = 0
        self.last_success = 0.0
        self.first_success_after = None
        self.killed = None
        self.kill_time = None
        self.survivor_failures = []

    def success(self, node):
        now = time.monotonic()
        with self.lock:
            self.acknowledged += 1
            if self.kill_time is None:
                self.last_success = now
            elif self.first_success_after is None and node is not self.killed:
                self.first_success_after = now

    def failure(self, writer, error):
        from quorate_cluster import error_info
        reason, _ = error_info(error)
        certain = error.code() == grpc.StatusCode.UNAVAILABLE and reason is not None
        with self.lock:
            if not certain:
                writer.unknown += 1
            # A node that was killed, or is just coming up again, may fail its own callers.
            if writer.node is not self.killed:
                self.survivor_failures.append(
                    f"{writer.node.name}: {error.code().name} {reason} {error.details()}")


class LeaderKill(unittest.TestCase):
    def test_twenty_leaders_killed(self):
        with Cluster(3) as cluster:
            cluster.start().wait_ready()
            board = Board()
            writers = [Writer(node, i, board) for node in cluster.nodes
                       for i in range(WRITERS_A_NODE)]
            for writer in writers:
                writer.start()
            gaps, retried = [], 0.0
            before = {}
            for round_number in range(1, ROUNDS + 1):
                gap, found = self.one_round(cluster, board, writers, round_number)
                gaps.append(gap)
                retried += found
            board.stop.set()
            for writer in writers:
                writer.join(30)
                self.assertFalse(writer.is_alive(), "a call hung beyond its deadline")
            print("  gaps in ms, last success before to first success after each kill: " +
                  " ".join(f"{gap * 1000:.0f}" for gap in gaps), flush=True)
            self.assertEqual(board.wrong, [])
            self.assertEqual(board.survivor_failures, [],
                             "calls through surviving followers must not fail")
            self.check_items(cluster, writers)
            self.assertGreater(retried, 0, "no write of a dead leader's log was retried and found "
                               "applied: the run did not test exactly-once")

    def one_round(self, cluster, board, writers, number):
        leader = cluster.leader()
        start = board.acknowledged
        eventually(lambda: board.acknowledged >= start + ACKNOWLEDGED_A_ROUND,
                   f"{ACKNOWLEDGED_A_ROUND} acknowledged writes in round {number}")
        survivors = [n for n in cluster.nodes if n is not leader]
        eventually(lambda: any(w.in_flight_since for w in writers), "a write in flight")
        found_before = sum(n.metric("quorate_duplicate_commands_total") for n in survivors)
        with board.lock:
            board.killed = leader
            board.first_success_after = None
            board.kill_time = time.monotonic()
        leader.kill()
        eventually(lambda: board.first_success_after, "a write after the kill")
        gap = board.first_success_after - board.last_success
        new_leader = cluster.leader(survivors)
        found = sum(n.metric("quorate_duplicate_commands_total") for n in survivors) - found_before
        story(f"round {number}: {leader.name} killed after "
              f"{board.acknowledged - start} writes; {new_leader.name} leads; gap "
              f"{gap * 1000:.0f} ms; {found:.0f} retried writes found applied")
        leader.start()
        cluster.wait_ready([leader])
        eventually(lambda: leader.get(f"kill/{survivors[0].name}/0"), "the restarted node serves")
        with board.lock:
            board.killed = None
            board.kill_time = None
        return gap, found

    def check_items(self, cluster, writers):
        statuses = cluster.wait_equal()
        acknowledged = unknown = 0
        for node in cluster.nodes:
            items = {i.key: i for i in node.list_all("kill/")}
            for writer in writers:
                version = items[writer.key].version
                self.assertGreaterEqual(version, writer.acknowledged,
                                        f"{writer.key} on {node.name}: acknowledged writes lost")
                self.assertLessEqual(version, writer.acknowledged + writer.unknown,
                                     f"{writer.key} on {node.name}: a write was applied twice")
        for writer in writers:
            acknowledged += writer.acknowledged
            unknown += writer.unknown
        story(f"{acknowledged} acknowledged writes are on all three nodes, {unknown} unknown; "
              f"state hash {next(iter(statuses.values())).state_hash} on all")


if __name__ == "__main__":
    main()
