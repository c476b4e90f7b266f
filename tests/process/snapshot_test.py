"""A follower for whom the log is too short comes back by a snapshot.

Over SIGKILL of the one who sends it and of the one who receives it, at every step of the transfer:
nothing is lost, and in the end all three have the same state."""

import itertools
import threading
import time
import unittest

from quorate_cluster import CALL_S, PATIENCE_S, Cluster, cluster_pb2, eventually, main, story

# More than the window in memory (16 MiB), from which a follower is served whatever the disk has.
VALUE, COUNT = "x" * (1000 << 10), 18

STEPS = ("copying", "receiving", "placed")  # of a transfer, as the disks show them
SIDES = ("receiver", "sender")


def states(node):
    return sorted(p.name for p in node.data.glob("state-*"))


def installed(node):
    """The states that are in their place; while a transfer ends there are two."""
    return [name for name in states(node) if not name.endswith(".new")]


class Transfer:
    """A snapshot on its way to `away` from whoever leads: how far it is, and who dies of it."""

    def __init__(self, test, cluster, away):
        self.test, self.cluster, self.away = test, cluster, away
        self.before = installed(away) or ["state-1"]  # a store that is let in makes its first one
        self.sent_before = self.sent()

    def sent(self):
        return {n.name: n.log_text().count('"a snapshot is installed"') for n in self.cluster.nodes}

    def placed(self):
        return bool(set(installed(self.away)) - set(self.before))

    def reached(self, step):
        if step == "copying":
            return any((n.data / "snapshot" / "outgoing.db").exists() for n in self.cluster.nodes)
        if step == "receiving":
            return any(name.endswith(".new") for name in states(self.away))
        return self.placed()

    def passed(self, step, victim):
        """Whether this step was over before the victim was dead."""
        if step == "copying":
            return self.reached("receiving") or self.placed()
        if step == "receiving":
            return self.placed()
        if victim is self.away:
            return len(installed(victim)) < 2
        return self.sent()[victim.name] > self.sent_before[victim.name]

    def kill_at(self, step, victim):
        """Kills the victim at this step and starts it again; false when the step was over by then."""
        deadline = time.monotonic() + PATIENCE_S
        while not self.reached(step):
            self.test.assertLess(time.monotonic(), deadline, f"no transfer came to {step}")
            time.sleep(0.001)
        victim.kill()
        passed = self.passed(step, victim)
        victim.start()
        side = "receiver" if victim is self.away else "sender"
        story(f"the {side}, {victim.name}, is killed {'too late for' if passed else 'while'} {step}")
        return not passed


class Snapshot(unittest.TestCase):
    def leave_behind(self, cluster, away, written):
        """Kills `away`, and writes and cuts until the others' logs no longer reach back to it."""
        away.kill()
        others = [n for n in cluster.nodes if n is not away]
        cluster.leader(others)
        written[0] += 1
        # What was overwritten before is not kept, so that the state does not grow with each round.
        head = others[0].put("round", str(written[0]), timeout=60).header.revision
        others[0].control.Compact(cluster_pb2.CompactRequest(revision=head, force=True), timeout=60)
        for i in range(COUNT):
            others[i % 2].put(f"big/{i:04}", f"{written[0]} {VALUE}", timeout=60)

        def cut():
            first = [n.status() for n in others]
            return all(s.log_first_index + 5 > s.applied_index for s in first) and first
        statuses = eventually(cut, "both logs are cut close to their ends", PATIENCE_S * 2)
        story(f"{away.name} is away; the others' logs now begin at "
              f"{', '.join(str(s.log_first_index) for s in statuses)}")
        return others

    def check_all(self, cluster, away, written):
        cluster.wait_ready()
        statuses = cluster.wait_equal()
        items = away.list_all("big/", timeout=60)
        self.assertEqual([(i.key, i.text == f"{written[0]} {VALUE}") for i in items],
                         [(f"big/{i:04}", True) for i in range(COUNT)])
        return statuses[away.name]

    def test_comes_back_by_snapshot(self):
        """Three stories of one cluster: to start one takes longer than any of them does."""
        written = [0]
        with Cluster(3, extra_raft="    logTail: 64KiB\n") as cluster:
            cluster.start().wait_ready()
            self.far_behind_the_cut_log(cluster, written)
            for step, side in itertools.product(STEPS, SIDES):
                tries = (self.kill_at(step, side, cluster, written) for _ in range(4))
                self.assertTrue(any(tries), f"no kill of the {side} came in time for {step}")
            self.under_load(cluster, written)

    def far_behind_the_cut_log(self, cluster, written):
        away = cluster.followers()[0]
        before = away.status()
        self.assertEqual((before.snapshot_index, before.snapshot_generation), (0, 1))
        self.leave_behind(cluster, away, written)
        away.start()
        after = self.check_all(cluster, away, written)
        self.assertEqual(after.snapshot_generation, 2)
        self.assertGreater(after.snapshot_index, COUNT)
        self.assertGreater(after.log_first_index, COUNT)
        self.assertEqual(away.metric("quorate_snapshots_installed_total"), 1)
        self.assertGreater(away.metric("quorate_snapshot_received_bytes_total"),
                           COUNT * len(VALUE))
        eventually(lambda: states(away) == ["state-2"], "the old state is removed")
        story(f"{away.name} is back: state of {after.snapshot_index}, generation 2, its log from "
              f"{after.log_first_index} on")
        away.put("after", "the snapshot")
        away.kill()
        away.start()
        again = self.check_all(cluster, away, written)
        self.assertEqual(again.snapshot_generation, 2)
        self.assertEqual(again.snapshot_index, after.snapshot_index)
        self.assertEqual(away.get("after").item.text, "the snapshot")
        for node in cluster.nodes:
            node.kill()
        cluster.start()
        self.check_all(cluster, away, written)
        story("all three were killed at once and agree again")

    def kill_at(self, step, side, cluster, written):
        """Brings a follower back by a snapshot, and kills one of the two at that step."""
        away = cluster.followers()[0]
        others = self.leave_behind(cluster, away, written)
        victim = away if side == "receiver" else cluster.leader(others)
        transfer = Transfer(self, cluster, away)
        away.start()
        in_time = transfer.kill_at(step, victim)
        status = self.check_all(cluster, away, written)
        eventually(lambda: len(states(away)) == 1, "only one state is left")
        eventually(lambda: not any((n.data / "snapshot" / "outgoing.db").exists()
                                   for n in cluster.nodes), "no copy is left")
        story(f"{away.name} came back all the same, generation {status.snapshot_generation}")
        return in_time

    def under_load(self, cluster, written):
        """Writes go on, acknowledged ones are all there in the end."""
        away = cluster.followers()[0]
        generation = away.status().snapshot_generation
        others = self.leave_behind(cluster, away, written)
        stop, acknowledged, failures = threading.Event(), [], []

        def load():
            i = 0
            while not stop.is_set():
                try:
                    others[i % 2].put(f"load/{i:06}", "y" * 2000, timeout=CALL_S)
                    acknowledged.append(i)
                except Exception as error:  # pylint: disable=broad-except
                    failures.append(error)
                i += 1
        thread = threading.Thread(target=load)
        thread.start()
        try:
            away.start()
            eventually(lambda: away.status().snapshot_generation > generation, "it is installed",
                       PATIENCE_S * 2)
            cluster.wait_ready()
        finally:
            stop.set()
            thread.join()
        self.assertFalse(failures, f"writes failed: {failures[:3]}")
        self.check_all(cluster, away, written)
        self.assertEqual(len(away.list_all("load/", timeout=60)), len(acknowledged))
        story(f"{len(acknowledged)} writes went on meanwhile; {away.name} has them all")


if __name__ == "__main__":
    main()
