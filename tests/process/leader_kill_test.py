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

from quorate_cluster import (CALL_S, MULTIPLIER, Cluster, config_pb2, error_info, eventually, main,
                             story)

# Sanitizers, whose elections take seconds, look for other things and need fewer.
ROUNDS = int(os.environ.get("QUORATE_KILL_ROUNDS", "20" if MULTIPLIER == 1 else "8"))
ACKNOWLEDGED_A_ROUND = 100
WRITERS_A_NODE = 16
VALUE = "v" * 2000  # so that a kill meets writes on their way


class Writer:
    """Writes its key through one node, one call after the other, without a pause.

    When its own node was killed it goes on as soon as the node serves again."""

    def __init__(self, node, number, board):
        self.node, self.board = node, board
        self.key = f"kill/{node.name}/{number:02}"
        self.acknowledged = 0
        self.unknown = 0
        self.last_version = 0
        self.in_flight = False
        self.waiting = False  # for its own node to come back
        self.ended = threading.Event()

    def issue(self):
        self.waiting = False
        if self.board.stop.is_set():
            self.ended.set()
            return
        self.in_flight = True
        request = config_pb2.PutRequest(key=self.key, text=VALUE)
        self.node.config.Put.future(request, timeout=CALL_S).add_done_callback(self.done)

    def done(self, future):
        self.in_flight = False
        error = future.exception()
        if error is None:
            answer = future.result()
            self.acknowledged += 1
            if answer.version <= self.last_version:
                self.board.wrong.append(f"{self.key}: version {answer.version} after "
                                        f"{self.last_version}")
            self.last_version = answer.version
            self.board.success(self.node)
        elif self.board.failure(self, error):
            return
        self.issue()


class Board:
    """What the writers saw."""

    def __init__(self):
        self.stop = threading.Event()
        self.lock = threading.Lock()
        self.wrong = []
        self.acknowledged = 0
        self.last_success = 0.0
        self.after_kill = []  # when survivors' calls succeeded
        self.killed = None
        self.kill_time = None
        self.survivor_failures = []

    def success(self, node):
        now = time.monotonic()
        with self.lock:
            self.acknowledged += 1
            if self.kill_time is None:
                self.last_success = now
            elif node is not self.killed:
                self.after_kill.append(now)

    def gap(self):
        """The longest pause around the kill. (Answers that the dead leader had sent still arrive
        after it: the first success after a kill says little.)"""
        with self.lock:
            times = [self.last_success] + self.after_kill
            return max(b - a for a, b in zip(times, times[1:]))

    def failure(self, writer, error):
        """True when the writer is to wait until its node is back."""
        reason, _ = error_info(error)
        certain = error.code() == grpc.StatusCode.UNAVAILABLE and reason is not None
        with self.lock:
            if not certain:
                writer.unknown += 1
            if writer.node is self.killed:
                writer.waiting = True
                return True
            self.survivor_failures.append(
                f"{writer.node.name}: {error.code().name} {reason} {error.details()}")
            return False

    def revive(self, writers):
        """The killed node serves again: its writers go on."""
        with self.lock:
            back = [w for w in writers if w.node is self.killed]
            self.killed = None
            self.kill_time = None
        for writer in back:
            eventually(lambda: writer.waiting, f"the call of {writer.key} has ended")
            writer.issue()


class LeaderKill(unittest.TestCase):
    def test_leaders_killed(self):
        with Cluster(3) as cluster:
            cluster.start().wait_ready()
            board = Board()
            writers = [Writer(node, i, board) for node in cluster.nodes
                       for i in range(WRITERS_A_NODE)]
            for writer in writers:
                writer.issue()
            gaps, retried = [], 0.0
            for round_number in range(1, ROUNDS + 1):
                gap, found = self.one_round(cluster, board, writers, round_number)
                gaps.append(gap)
                retried += found
            board.stop.set()
            for writer in writers:
                self.assertTrue(writer.ended.wait(30), "a call hung beyond its deadline")
            print("  gaps in ms that callers of the survivors saw, last success to next, at each kill: " +
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
        eventually(lambda: any(w.in_flight for w in writers), "a write in flight")
        found_before = sum(n.metric("quorate_writes_found_applied_total") for n in survivors)
        with board.lock:
            board.killed = leader
            board.after_kill = []
            board.kill_time = time.monotonic()
        leader.kill()
        new_leader = cluster.leader(survivors)
        so_far = len(board.after_kill)
        eventually(lambda: len(board.after_kill) >= so_far + ACKNOWLEDGED_A_ROUND,
                   "writes under the new leader")
        gap = board.gap()
        found = sum(n.metric("quorate_writes_found_applied_total") for n in survivors) - found_before
        story(f"round {number}: {leader.name} killed after "
              f"{board.acknowledged - start} writes; {new_leader.name} leads; gap "
              f"{gap * 1000:.0f} ms; {found:.0f} retried writes found applied")
        leader.start()
        cluster.wait_ready([leader])
        eventually(lambda: leader.get(f"kill/{survivors[0].name}/00"), "the restarted node serves")
        board.revive(writers)
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
