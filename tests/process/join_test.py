"""Nodes join by themselves: new ones, many at once, and one whose disk is gone.

Each has a network address of its own, and all are found behind one name in real DNS.
"""

import shutil
import threading
import time
import unittest

import grpc

from membership_test import Load
from quorate_cluster import CALL_S, MULTIPLIER, PATIENCE_S, cluster_pb2, eventually, story
from quorate_network import PodCluster, main

STABILISATION_S = 2 if MULTIPLIER == 1 else 6
AUTOPILOT = (f"    autopilot:\n      stabilisation: {STABILISATION_S}s\n"
             f"      contact: {STABILISATION_S}s\n")


def members(pod):
    """{store id: (name, votes)}"""
    listed = pod.control.ListMembers(cluster_pb2.ListMembersRequest(), timeout=5).members
    return {m.store_id: (m.node_id, m.voter) for m in listed}


def voters(pod):
    return sorted(name for name, votes in members(pod).values() if votes)


class Census:
    """Looks at the members all the while: how many vote, and which clusters there are."""

    def __init__(self, pod):
        self.pod, self.stop = pod, threading.Event()
        self.voter_counts, self.clusters = set(), set()
        self.thread = threading.Thread(target=self.run)
        self.thread.start()

    def run(self):
        while not self.stop.wait(0.1):
            try:
                response = self.pod.control.ListMembers(cluster_pb2.ListMembersRequest(), timeout=5)
            except grpc.RpcError:
                continue
            self.voter_counts.add(sum(m.voter for m in response.members))
            self.clusters.add(response.header.cluster_id)

    def end(self):
        self.stop.set()
        self.thread.join()


class Join(unittest.TestCase):
    def cluster(self, size=3):
        return PodCluster(size, extra_raft=AUTOPILOT)

    def started(self):
        cluster = self.cluster()
        cluster.show()
        cluster.start().wait_ready()
        return cluster

    def add(self, cluster, count):
        pods = [cluster.add_pod() for _ in range(count)]
        cluster.show()
        for pod in pods:
            pod.start()
        return pods

    def test_three_to_five_then_three_more_at_once(self):
        with self.started() as cluster:
            founders = list(cluster.nodes)
            for i in range(200):  # much, for a test: more than one message of a snapshot's
                founders[0].put(f"bulk/{i:03}", "x" * 20000)
            census = Census(founders[1])
            try:
                with Load() as load:
                    for pod in founders:
                        load.through(pod)
                    load.wait_for_more()
                    began = time.monotonic()
                    self.add(cluster, 2)
                    eventually(lambda: len(voters(founders[0])) == 5, "five vote", 3 * PATIENCE_S)
                    story(f"two more in DNS: five vote {time.monotonic() - began:.1f} s later "
                          f"(stabilisation {STABILISATION_S} s each)")
                    cluster.wait_ready()
                    began = time.monotonic()
                    more = self.add(cluster, 3)
                    cluster.wait_ready()
                    story(f"three more at once: all ready {time.monotonic() - began:.1f} s later")
                    eventually(lambda: len(members(founders[0])) == 8, "eight are members")
                    # They stay learners: no more than five vote.
                    until = time.monotonic() + 2 * STABILISATION_S
                    eventually(lambda: time.monotonic() > until, "they had the time to get a vote",
                               3 * STABILISATION_S + 5)
                    self.assertEqual(len(voters(founders[0])), 5)
                    load.wait_for_more()
            finally:
                census.end()
            self.assertEqual(load.failures, [], "the quorum was lost on the way")
            self.assertEqual(census.voter_counts, {3, 4, 5})
            self.assertEqual(len(census.clusters), 1)
            cluster.wait_equal()
            for pod in more:
                self.assertEqual(len(pod.list_all("bulk/")), 200)
            story(f"{len(load.acknowledged)} writes meanwhile, none failed; the slowest took "
                  f"{1000 * max(load.slowest.values()):.0f} ms")

    def test_a_wiped_disk_under_its_old_name(self):
        with self.started() as cluster:
            for leads in (False, True):
                wiped = cluster.leader() if leads else cluster.followers()[0]
                others = [pod for pod in cluster.nodes if pod is not wiped]
                before = members(others[0])
                old = next(store for store, (name, _) in before.items() if name == wiped.name)
                self.assertEqual(wiped.stop(), 0)
                shutil.rmtree(wiped.data)
                with Load() as load:
                    for pod in others:
                        load.through(pod)
                    began = time.monotonic()
                    wiped.start()
                    said, served = [], []

                    def replaced():
                        """Whoever empties one disk after the other waits until this is ready."""
                        status, text = wiped.http("/readyz")
                        votes = status == 200 and members(wiped)[wiped.status().store_id][1]
                        said.append("" if votes else f"{status} {text}")
                        if "takes the place of store" in text:
                            served.append(wiped.serves())
                        return old not in members(others[0]) and \
                            voters(others[0]) == sorted(p.name for p in cluster.nodes)
                    eventually(replaced, "its new store votes in place of the old one",
                               3 * PATIENCE_S)
                    self.assertTrue(any("takes the place of store" in text for text in said), said)
                    self.assertTrue(any(served), "it answers clients, though a rollout waits")
                    self.assertEqual([text for text in said if text.startswith("200")], [])
                    took = time.monotonic() - began
                self.assertEqual(load.failures, [])
                cluster.wait_ready()
                cluster.wait_equal()
                after = members(wiped)
                self.assertEqual(len(after), 3)
                self.assertEqual(len(set(after) & set(before)), 2)
                story(f"{wiped.name}{', which had led,' if leads else ''} came back with an empty "
                      f"disk: a new store votes in its place {took:.1f} s later")

    def test_two_clusters_behind_one_name_refuse_each_other(self):
        with self.cluster(6) as cluster:
            one, two = cluster.nodes[:3], cluster.nodes[3:]
            for pod in two:  # founders of a cluster of their own
                pod.write_pod_config(cluster.DNS, AUTOPILOT +
                                     "    founders: [" + ", ".join(p.name for p in two) + "]\n")
            for half in (one, two):
                cluster.show(half)
                for pod in half:
                    pod.start()
                cluster.wait_ready(half)
            ids = {half[0].status().header.cluster_id for half in (one, two)}
            self.assertEqual(len(ids), 2)
            for half in (one, two):
                half[0].put("whose", half[0].name)
            before = [members(half[0]) for half in (one, two)]
            cluster.show()
            stray = self.add(cluster, 1)[0]
            lacks = eventually(lambda: (lambda text: text if all(i in text for i in ids) else None)
                               (" ".join(stray.status().lacks)), "it names both clusters")
            story(f"an empty node sees both: {lacks}")
            until = time.monotonic() + 3 * STABILISATION_S
            eventually(lambda: time.monotonic() > until, "time passes", 4 * STABILISATION_S + 5)
            self.assertEqual(stray.status().header.cluster_id, "")
            for half, then in zip((one, two), before):
                for pod in half:
                    self.assertEqual(members(pod), then)
                    self.assertEqual(pod.get("whose").item.text, half[0].name)
                half[0].put("still", "written")
            story("neither has taken anybody; both serve")
            cluster.show(one + [stray])
            for pod in two:
                self.assertEqual(pod.stop(), 0)
            eventually(lambda: stray.name in voters(one[0]), "with one of them gone it joins",
                       3 * PATIENCE_S)

    def test_who_was_removed_stays_out_and_that_is_said(self):
        with self.started() as cluster:
            removed = self.add(cluster, 1)[0]
            eventually(lambda: removed.name in voters(cluster.nodes[0]), "it votes", 3 * PATIENCE_S)
            cluster.wait_ready()
            founders = cluster.nodes[:3]
            cluster.leader(founders).control.RemoveMember(
                cluster_pb2.RemoveMemberRequest(node_id=removed.name), timeout=2 * CALL_S)
            # By who took it out, and by a leader that only knows what the store says itself.
            for _ in range(2):
                removed.stop()
                removed.start()
                eventually(lambda: any("it was removed" in lack for lack in removed.status().lacks),
                           "it says that it was removed")
                said = eventually(lambda: next((w for w in cluster.leader(founders).status().warnings
                                                if "it was removed: to bring it back" in w), None),
                                  "the leader says so")
                story(f"the leader's status: {said}")
                for pod in founders:
                    pod.stop()
                for pod in founders:
                    pod.start()
                cluster.wait_ready(founders)
            self.assertEqual(len(members(founders[0])), 3)
            cluster.leader(founders).control.AddMember(
                cluster_pb2.AddMemberRequest(address=f"{removed.pod_ip}:7000"), timeout=2 * CALL_S)
            eventually(lambda: removed.name in voters(founders[0]), "it votes again", 3 * PATIENCE_S)

    def test_two_of_one_name_and_a_demoted_one(self):
        with self.started() as cluster:
            demoted = cluster.followers()[0]
            cluster.leader().control.DemoteMember(
                cluster_pb2.DemoteMemberRequest(node_id=demoted.name), timeout=2 * CALL_S)
            twins = [cluster.add_pod(), cluster.add_pod()]
            twins[1].name = twins[0].name
            for pod in twins:
                pod.start()
            # Both answer before either is seen: who is alone with a name is let in at once, rightly.
            for pod in twins:
                eventually(lambda: pod.http("/livez")[0] == 200, "it answers")
            cluster.show()
            until = time.monotonic() + 3 * STABILISATION_S
            eventually(lambda: time.monotonic() > until, "time passes", 4 * STABILISATION_S + 5)
            self.assertEqual(len(members(cluster.nodes[0])), 3)
            self.assertNotIn(demoted.name, voters(cluster.nodes[0]))
            said = eventually(lambda: next((w for w in cluster.leader().status().warnings
                                            if "waits and is not let in" in w), None),
                              "the leader says who is not let in")
            self.assertIn(f"calls itself {twins[0].name}, too", said)
            for pod in twins:
                self.assertIn(f"calls itself {pod.name}, too", " ".join(pod.status().lacks))
            story(f"a demoted member stays a learner, and neither of two with one name is let in: {said}")
            twins[1].kill()
            eventually(lambda: twins[0].name in voters(cluster.nodes[0]), "the one that is left joins",
                       3 * PATIENCE_S)


if __name__ == "__main__":
    main()
