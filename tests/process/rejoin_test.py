"""A disk is lost, its node waits and is added again under its old name; the log no longer reaches
back to its beginning, so it comes back by a snapshot: over SIGKILL of either side on the way."""

import shutil
import time
import unittest

import membership_test
from quorate_cluster import PATIENCE_S, eventually, main, story


def run_cli(test, nodes, *args):
    code, out, err = membership_test.cli(nodes, *args)
    test.assertEqual(code, 0, f"quorate {' '.join(args)}: {out} {err}")


class Rejoin(unittest.TestCase):
    def test_wiped_and_added_again(self):
        value = "x" * (900 << 10)
        with membership_test.founded(3, extra_raft="    logTail: 64KiB\n") as cluster:
            cluster.start().wait_ready()
            for step, victim_is in (("copying", "receiver"), ("receiving", "sender"),
                                    ("placed", "receiver")):
                away = cluster.followers()[0]
                away.kill()
                old_store = None
                others = [n for n in cluster.nodes if n is not away]
                leader = cluster.leader(others)
                for member in leader.status().members:
                    if member.node_id == away.name:
                        old_store = member.store_id
                for i in range(22):
                    others[i % 2].put(f"big/{step}/{i:04}", value, timeout=60)
                eventually(lambda: all(n.status().log_first_index > 1 and
                                       n.status().log_first_index + 5 > n.status().applied_index
                                       for n in others), "the logs are cut", PATIENCE_S * 2)
                shutil.rmtree(away.data)
                away.start()
                eventually(lambda: "member add" in " ".join(away.status().lacks),
                           "the wiped node waits")
                self.assertNotEqual(away.status().store_id, old_store)
                run_cli(self, others, "member", "add", membership_test.peer_address(away))
                victim = away if victim_is == "receiver" else cluster.leader(others)
                self.reach(step, cluster, away)
                victim.kill()
                story(f"the {victim_is}, {victim.name}, is killed while {step}")
                victim.start()
                eventually(lambda: away.http("/readyz")[0] == 200, "it has caught up",
                           PATIENCE_S * 2)
                run_cli(self, others, "member", "promote", "--wait", away.name)
                cluster.wait_ready()
                cluster.wait_equal()
                self.assertEqual(len(away.list_all("big/" + step, timeout=60)), 22)
                stores = [m.store_id for m in away.status().members]
                self.assertEqual(len(stores), 3)
                self.assertNotIn(old_store, stores)
                story(f"{away.name} is back with another store")

    def reach(self, step, cluster, away):
        def reached():
            states = [p.name for p in away.data.glob("state-*")]
            if step == "copying":
                return any((n.data / "snapshot" / "outgoing.db").exists() for n in cluster.nodes)
            if step == "receiving":
                return any(s.endswith(".new") for s in states)
            return "state-2" in states
        deadline = time.monotonic() + PATIENCE_S
        while not reached():
            self.assertLess(time.monotonic(), deadline, f"no transfer came to {step}")
            time.sleep(0.001)


if __name__ == "__main__":
    main()
