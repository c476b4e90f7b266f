"""Without a majority: writes are refused, local reads go on and say how old they are.

And a follower that was away for longer than the memory window comes back from the log on disk."""

import time
import unittest

import grpc

from quorate_cluster import (MULTIPLIER, PATIENCE_S, Cluster, config_pb2, error_info, eventually,
                             main, story)


class QuorumLoss(unittest.TestCase):
    def test_the_survivor_refuses_writes_and_still_reads(self):
        with Cluster(3) as cluster:
            cluster.start().wait_ready()
            cluster.nodes[0].put("kept", "value")
            cluster.wait_equal()
            survivor = cluster.followers()[0]
            for node in cluster.nodes:
                if node is not survivor:
                    node.kill()
            # Until it has noticed, a write may be under way to the leader that is gone: its outcome
            # would be unknown. From then on it is certainly not accepted.
            eventually(lambda: survivor.status().header.leader_id == "", "the survivor has noticed")
            story(f"only {survivor.name} is left, and knows it")
            # Longer than the wait for a leader, which grows with the multiplier.
            deadline_s = 10 if MULTIPLIER == 1 else 30
            begin = time.monotonic()
            with self.assertRaises(grpc.RpcError) as refused:
                survivor.put("lost", "value", timeout=deadline_s)
            took = time.monotonic() - begin
            self.assertEqual(refused.exception.code(), grpc.StatusCode.UNAVAILABLE)
            self.assertEqual(error_info(refused.exception)[0], "NO_LEADER")
            self.assertLess(took, deadline_s)
            story(f"a write: UNAVAILABLE NO_LEADER after {took:.1f} s of its {deadline_s} s deadline")
            with self.assertRaises(grpc.RpcError) as quick:
                survivor.put("lost", "value", timeout=1)
            self.assertEqual(quick.exception.code(), grpc.StatusCode.UNAVAILABLE)
            self.assertEqual(error_info(quick.exception)[0], "NO_LEADER")

            first = survivor.get("kept")
            self.assertEqual(first.item.text, "value")
            self.assertFalse(first.header.staleness.unknown)
            age = first.header.staleness.age.ToMilliseconds()
            later = eventually(
                lambda: (lambda r: r if r.header.staleness.age.ToMilliseconds() > age else None)(
                    survivor.get("kept")), "staleness grows")
            self.assertEqual(later.item.text, "value")
            story(f"a local read still answers, {later.header.staleness.age.ToMilliseconds()} ms "
                  "stale, and says so")
            request = config_pb2.GetRequest(key="kept")
            request.read.max_staleness.FromMilliseconds(1)
            with self.assertRaises(grpc.RpcError) as stale:
                survivor.config.Get(request, timeout=5)
            self.assertEqual(stale.exception.code(), grpc.StatusCode.UNAVAILABLE)
            self.assertEqual(error_info(stale.exception)[0], "TOO_STALE")
            self.assertNotEqual(survivor.http("/readyz")[0], 200)
            self.assertEqual(survivor.http("/livez")[0], 200)
            status = survivor.status()
            self.assertEqual(status.header.leader_id, "")

            survivor.kill()
            survivor.start()
            again = eventually(lambda: survivor.get("kept", timeout=5), "a read after a restart")
            self.assertEqual(again.item.text, "value")
            self.assertTrue(again.header.staleness.unknown)
            story("restarted alone: the read answers from the durable state, staleness unknown")

            for node in cluster.nodes:
                if node is not survivor:
                    node.start()
            cluster.wait_ready()
            self.assertEqual(survivor.put("found", "again").version, 1)
            story("the others are back: writes go again")

    def test_a_follower_beyond_the_memory_window_catches_up_from_disk(self):
        with Cluster(3) as cluster:
            cluster.start().wait_ready()
            away = cluster.followers()[0]
            away.stop()
            others = [n for n in cluster.nodes if n is not away]
            value, count = "x" * (900 << 10), 30  # 26 MiB: well beyond the 16 MiB window
            for i in range(count):
                others[i % 2].put(f"big/{i:03}", value, timeout=30)
            story(f"{away.name} was away for {count * len(value) >> 20} MiB of log")
            away.start()
            cluster.wait_ready([away])
            statuses = cluster.wait_equal()
            self.assertGreater(statuses[away.name].applied_index, count)
            items = away.list_all("big/", timeout=60)
            self.assertEqual(len(items), count)
            self.assertTrue(all(i.text == value for i in items))
            story(f"{away.name} caught up from the leader's log on disk; equal state hash")


if __name__ == "__main__":
    main()
