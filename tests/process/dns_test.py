"""Peers are found in DNS, whatever it shows meanwhile, and wherever they have moved to."""

import shutil
import time
import unittest

from membership_test import Load
from quorate_cluster import PATIENCE_S, cluster_pb2, eventually, story
from quorate_network import PodCluster, main


def voters(node):
    members = node.control.ListMembers(cluster_pb2.ListMembersRequest(), timeout=5).members
    return {m.node_id: m.store_id for m in members if m.voter}


class Dns(unittest.TestCase):
    def test_one_cluster_is_born_when_dns_has_shown_every_founder(self):
        with PodCluster() as cluster:
            first, second, third = cluster.nodes
            for pod in cluster.nodes:
                pod.start()
            for pod in cluster.nodes:
                eventually(lambda: any("no such name" in lack for lack in pod.status().lacks),
                           f"{pod.name} says that DNS knows no such name")
            self.assertEqual([pod.http("/readyz")[0] for pod in cluster.nodes], [503] * 3)
            story("DNS shows nobody: " + "; ".join(first.status().lacks))

            for shown, missing in (([first], (second, third)), ([first, second], (third,))):
                cluster.show(shown)
                eventually(lambda: all(not any("no such name" in lack for lack in p.status().lacks)
                                       for p in cluster.nodes), "all look again")
                names = [pod.name for pod in missing]
                status = eventually(
                    lambda: (lambda s: s if [n for n in names if n in " ".join(s.lacks)] == names
                             and not any(p.name in " ".join(s.lacks) for p in shown) else None)
                    (first.status()), "it names who is missing")
                for pod in cluster.nodes:
                    self.assertEqual(pod.status().header.cluster_id, "")
                    self.assertEqual(pod.status().header.leader_id, "")
                    self.assertEqual(pod.http("/readyz")[0], 503)
                story(f"DNS shows {len(shown)}: " + "; ".join(status.lacks))

            cluster.show()
            began = time.monotonic()
            cluster.wait_ready()
            story(f"DNS shows 3: ready {time.monotonic() - began:.1f} s later")
            self.assertEqual(len({pod.status().header.cluster_id for pod in cluster.nodes}), 1)
            third.put("born", "from the third")
            cluster.wait_equal()
            self.assertEqual(first.get("born").item.text, "from the third")
            self.assertEqual(set(voters(second)), {pod.name for pod in cluster.nodes})

    def test_all_come_back_with_other_addresses_and_nobody_does_anything(self):
        with PodCluster() as cluster:
            cluster.show()
            cluster.start().wait_ready()
            cluster.nodes[0].put("kept", "value")
            before = voters(cluster.nodes[0])
            self.assertEqual(len(before), 3)

            slowest = []
            for pod in cluster.nodes:  # one after the other, under load through the other two
                others = [other for other in cluster.nodes if other is not pod]
                with Load() as load:
                    for other in others * 2:
                        load.through(other)
                    load.wait_for_more()
                    self.assertEqual(pod.stop(), 0)
                    cluster.move(pod)
                    cluster.show()
                    self.assertEqual(voters(others[0]), before)
                    pod.start()
                    cluster.wait_ready()
                    load.wait_for_more()
                self.assertEqual(load.failures, [])
                slowest.append(max(load.slowest.values()))
                pod.put(f"moved/{pod.name}", "one by one")
                self.assertEqual(voters(pod), before)
                cluster.wait_equal()
                there = {item.key for item in pod.list_all("load/")}
                self.assertEqual(set(load.acknowledged) - there, set())
            story("a rolling restart with new addresses under load: no call failed, the same three "
                  "stores vote; the slowest writes took " +
                  ", ".join(f"{1000 * each:.0f} ms" for each in slowest))

            for pod in cluster.nodes:
                self.assertEqual(pod.stop(), 0)
            for pod in cluster.nodes:
                cluster.move(pod)
            cluster.show()
            began = time.monotonic()
            for pod in cluster.nodes:
                pod.start()
            eventually(lambda: cluster.nodes[1].put("moved/all", "at once", timeout=2),
                       "a write behind the move")
            story(f"all at once with new addresses: writes {time.monotonic() - began:.1f} s later")
            cluster.wait_ready()

            # Everybody where somebody else was, and DNS shows the same as before.
            numbers = [int(pod.host.address.rsplit(".", 1)[1]) for pod in cluster.nodes]
            for pod in cluster.nodes:
                self.assertEqual(pod.stop(), 0)
            for pod, number in zip(cluster.nodes, numbers[1:] + numbers[:1]):
                pod.move(number)
            began = time.monotonic()
            for pod in cluster.nodes:
                pod.start()
            eventually(lambda: cluster.nodes[2].put("moved/round", "in turns", timeout=2),
                       "a write behind the change of places")
            story(f"all with each other's addresses: writes {time.monotonic() - began:.1f} s later")
            cluster.wait_ready()
            for pod in cluster.nodes:
                self.assertEqual(voters(pod), before)
                self.assertEqual(pod.get("kept").item.text, "value")
            cluster.wait_equal()

    def test_ipv6_both_families_at_once_and_from_one_to_the_other(self):
        with PodCluster() as cluster:
            for pod in cluster.nodes:
                pod.use_ipv6(True)
            cluster.show()
            cluster.start().wait_ready()
            cluster.nodes[1].put("six", "by AAAA alone")
            cluster.wait_equal()
            before = voters(cluster.nodes[0])
            members = cluster.nodes[2].control.ListMembers(cluster_pb2.ListMembersRequest(),
                                                           timeout=5).members
            self.assertEqual({m.address for m in members},
                             {f"[{pod.host.address6}]:7000" for pod in cluster.nodes})
            story("born by IPv6 alone: " + ", ".join(sorted(m.address for m in members)))

            # Each of them is seen at two addresses, and is one.
            cluster.network.show(cluster.DNS, [a for pod in cluster.nodes
                                               for a in (pod.host.address, pod.host.address6)])
            for pod in cluster.nodes:
                eventually(lambda: "count=6" in pod.log_text(), f"{pod.name} finds six addresses")
            for pod, ipv6 in zip(cluster.nodes, (False, True, False)):
                self.assertEqual(pod.stop(), 0)
                pod.use_ipv6(ipv6)
                pod.start()
                cluster.wait_ready()
                pod.put(f"two/{pod.name}", "seen twice")
                self.assertEqual(voters(pod), before)
            cluster.wait_equal()
            for pod in cluster.nodes:
                self.assertEqual(list(pod.status().warnings), [])
            story("two addresses each: three voters")

            for pod in cluster.nodes:
                self.assertEqual(pod.stop(), 0)
                pod.use_ipv6(False)
                cluster.move(pod)
            cluster.show()
            for pod in cluster.nodes:
                pod.start()
            cluster.wait_ready()
            cluster.nodes[0].put("four", "by A alone")
            cluster.wait_equal()
            self.assertEqual(voters(cluster.nodes[1]), before)
            self.assertEqual(cluster.nodes[2].get("six").item.text, "by AAAA alone")
            story("all at once to IPv4: the same three voters")

    def test_dns_goes_away_and_nobody_minds(self):
        with PodCluster() as cluster:
            cluster.show()
            cluster.start().wait_ready()
            cluster.network.stop_dns()
            pod = cluster.followers()[0]
            self.assertEqual(pod.stop(), 0)
            said = len(pod.log_text())
            pod.start()
            cluster.wait_ready()
            pod.put("without", "dns")
            eventually(lambda: "discovery fails" in pod.log_text()[said:], "it says that DNS is away")
            story("DNS is gone: a node restarts, and says so")
            said = len(pod.log_text())
            cluster.network.start_dns()
            eventually(lambda: "discovery works again" in pod.log_text()[said:], "DNS is back",
                       2 * PATIENCE_S)

    def test_a_copied_directory_that_dns_does_not_show_stops_with_its_original(self):
        for away in (False, True):
            with self.subTest(dns_away=away), PodCluster() as cluster:
                cluster.show()
                cluster.start().wait_ready()
                original = cluster.followers()[0]
                self.assertEqual(original.stop(), 0)
                copy = cluster.add_pod()
                shutil.copytree(original.data, copy.data)
                copy.name = original.name
                original.start()
                cluster.wait_ready()
                if away:
                    cluster.network.stop_dns()
                copy.start()
                for pod in (copy, original):
                    self.assertNotEqual(pod.wait_exit(), 0)
                    self.assertIn("another live process has this store's identity", pod.log_text())
                story("a copy and its original have stopped" + (", without DNS" if away else ""))
                left = [pod for pod in cluster.nodes if pod.running()]
                self.assertEqual(len(left), 2)
                cluster.leader(left).put("still", "a majority")


if __name__ == "__main__":
    main()
