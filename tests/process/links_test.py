"""Who reaches whom: all six ways of three nodes, a firewall that refuses connections in one
direction only, and a cable that is out."""

import subprocess
import unittest

from quorate_cluster import BINARY, MULTIPLIER, PATIENCE_S, cluster_pb2, eventually, story
from quorate_network import PodCluster, main

# Of what was heard, so much later nothing is said any more (services/links.h), and as much again.
KNOWN_S = 12 + PATIENCE_S * MULTIPLIER


def links(pod):
    """{(from, to): whether it is reached}, as this node knows it."""
    response = pod.control.ListMembers(cluster_pb2.ListMembersRequest(links=True), timeout=5)
    return {(m.node_id, link.node_id): link.reached for m in response.members for link in m.links}


class Links(unittest.TestCase):
    def cli(self, pod):
        done = subprocess.run(pod.host.command(BINARY, "member", "list", "--links"),
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                              check=False, timeout=PATIENCE_S)
        self.assertEqual(done.returncode, 0, done.stdout)
        return done.stdout

    def test_all_one_way_and_none(self):
        with PodCluster(3) as cluster:
            cluster.show()
            cluster.start().wait_ready()
            names = [pod.name for pod in cluster.nodes]
            every = {(a, b): True for a in names for b in names if a != b}
            for pod in cluster.nodes:
                eventually(lambda: links(pod) == every, f"{pod.name} knows all six ways", KNOWN_S)
                self.assertIn("6 of 6 ways work\n", self.cli(pod))
                self.assertEqual(list(pod.status().warnings), [])
            story("six ways, known at each node:\n" + self.cli(cluster.nodes[0]))

            # One follower refuses connections from the other; started again, that has none left.
            leader = cluster.leader()
            refuses, refused = [pod for pod in cluster.nodes if pod is not leader]
            refuses.host.refuse_from(refused.host)
            self.assertEqual(refused.stop(), 0)
            refused.start()
            cluster.wait_ready()
            named = (f"one-way link: {refuses.name} reaches {refused.name}, {refused.name} does not "
                     f"reach {refuses.name}")
            for pod in cluster.nodes:
                eventually(lambda: any(named in w for w in pod.status().warnings),
                           f"{pod.name} names the one-way link", KNOWN_S)
                eventually(lambda: named in pod.log_text(), f"{pod.name} logs it", KNOWN_S)
                self.assertEqual(links(pod), {**every, (refused.name, refuses.name): False})
            self.assertIn(named, self.cli(refused))
            story(f"{refuses.name} refuses connections: named at every node\n" + self.cli(leader))

            for pod in cluster.nodes:
                pod.host.heal()
            for pod in cluster.nodes:
                eventually(lambda: links(pod) == every, f"{pod.name} sees it healed", KNOWN_S)
                eventually(lambda: not pod.status().warnings, f"{pod.name} warns no more", KNOWN_S)

            # Neither way is no one-way link.
            refuses.host.cut()
            leader = next(pod for pod in cluster.nodes if pod is not refuses)
            eventually(lambda: links(leader).get((leader.name, refuses.name)) is False,
                       "it is not reached", KNOWN_S)
            eventually(lambda: (refuses.name, leader.name) not in links(leader),
                       "and has said nothing lately", KNOWN_S)
            self.assertEqual(list(leader.status().warnings), [])
            story("its cable is out: not reached, and nothing is known of it\n" + self.cli(leader))


if __name__ == "__main__":
    main()
