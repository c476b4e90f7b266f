"""A disk is lost, its node waits and is added again under its old name; the log no longer reaches
back to its beginning, so it comes back by a snapshot: over SIGKILL of either side at every step."""

import itertools
import shutil
import threading
import unittest

import membership_test
from quorate_cluster import PATIENCE_S, eventually, main, story
from snapshot_test import COUNT, SIDES, STEPS, VALUE, Transfer, installed


class Rejoin(unittest.TestCase):
    def run_cli(self, nodes, *args):
        code, out, err = membership_test.cli(nodes, *args)
        self.assertEqual(code, 0, f"quorate {' '.join(args)}: {out} {err}")

    def wipe(self, cluster, away, others):
        """An empty disk under the same name: it waits, and says what to do. Its old store's id."""
        old_store = away.status().store_id
        away.kill()
        shutil.rmtree(away.data)
        away.start()
        eventually(lambda: "member add" in " ".join(away.status().lacks), "the wiped node waits")
        self.assertNotEqual(away.status().store_id, old_store)
        return old_store

    def add(self, at, away):
        """`member add`, beside what happens to the nodes meanwhile: the thread, and what was said."""
        said = []

        def refused_no_more():
            said.append(membership_test.cli(at, "member", "add", membership_test.peer_address(away)))
            # The old store is gone only when it was not heard for an election timeout.
            return "NAME_TAKEN" not in said[-1][2]
        thread = threading.Thread(target=eventually, args=(refused_no_more, "the name is free"))
        thread.start()
        return thread, said

    def lose_and_add_again(self, step, side, cluster, round_number):
        """One round; whether the kill came while the transfer was at that step."""
        away = cluster.followers()[0]
        others = [n for n in cluster.nodes if n is not away]
        old_store = self.wipe(cluster, away, others)
        leader = cluster.leader(others)
        leader.put(f"round/{round_number}", step, timeout=60)
        for node in others:
            self.assertGreater(node.status().log_first_index, COUNT, "the log reaches back far")
        transfer = Transfer(self, cluster, away)
        thread, said = self.add(others, away)
        try:
            in_time = transfer.kill_at(step, away if side == "receiver" else leader)
        finally:
            thread.join()
        self.assertEqual(said[-1][0], 0, said)
        # It could serve, and says that it is not ready as long as it does not vote.
        eventually(lambda: "does not vote yet" in str(away.http("/readyz")) or
                   away.http("/readyz")[0] == 200, "it has caught up", PATIENCE_S * 2)
        self.run_cli(others, "member", "promote", "--wait", away.name)
        cluster.wait_ready()
        status = cluster.wait_equal()[away.name]
        self.assertGreater(status.snapshot_index, COUNT)
        self.assertEqual(len(away.list_all("round/")), round_number)
        stores = [m.store_id for m in status.members]
        self.assertEqual(len(stores), 3)
        self.assertNotIn(old_store, stores)
        eventually(lambda: len(installed(away)) == 1, "only one state is left")
        story(f"{away.name} is back with another store, by a snapshot of {status.snapshot_index}")
        return in_time

    def test_wiped_and_added_again(self):
        with membership_test.founded(3, extra_raft="    logTail: 64KiB\n") as cluster:
            cluster.start().wait_ready()
            for i in range(COUNT):
                cluster.nodes[i % 3].put(f"big/{i:04}", VALUE, timeout=60)
            eventually(lambda: all(n.status().log_first_index > COUNT for n in cluster.nodes),
                       "the logs are cut", PATIENCE_S * 2)
            numbers = itertools.count(1)
            for step, side in itertools.product(STEPS, SIDES):
                tries = (self.lose_and_add_again(step, side, cluster, next(numbers))
                         for _ in range(4))
                self.assertTrue(any(tries), f"no kill of the {side} came in time for {step}")
            for node in cluster.nodes:
                self.assertEqual({i.key for i in node.list_all("big/", timeout=60)},
                                 {f"big/{i:04}" for i in range(COUNT)})


if __name__ == "__main__":
    main()
