"""Nodes come and go while clients write: nothing is lost, and whoever stays fails no call.

3 to 5 to 3 nodes, the leader removes itself, leadership is handed over and back, a new
store takes the place of one that is gone, and what must not be done is refused with the reason.
"""

import concurrent.futures
import subprocess
import threading
import time
import unittest

import grpc

from quorate_cluster import (BINARY, CALL_S, MULTIPLIER, PATIENCE_S, Cluster, Node, cluster_pb2,
                             error_info, eventually, free_port, main, story)

def cli(nodes, *args, timeout="60s"):
    """(exit code, stdout, stderr) of the command at these nodes."""
    endpoints = ",".join(n.address for n in nodes)
    done = subprocess.run([BINARY, "--endpoints", endpoints, "--timeout", timeout, *args],
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, check=False,
                          timeout=PATIENCE_S * 4)
    return done.returncode, done.stdout, done.stderr


def peer_address(node):
    return f"127.0.0.1:{node.peer_port}"


def founded(size=5, extra_raft=""):
    """Three founders that know of each other only, and others that know of these three."""
    cluster = Cluster(size, extra_raft=extra_raft)
    for i, node in enumerate(cluster.nodes):
        node.write_config(cluster.nodes[:3] if i < 3 else cluster.nodes[:3] + [node],
                          extra_raft)
    return cluster


def another(cluster, name, directory, extra_raft=""):
    """One more node, under a name that may be in use."""
    path = cluster.root / directory
    path.mkdir()
    node = Node(cluster, name, path, (free_port(), free_port(), free_port()))
    cluster.nodes.append(node)
    founders = cluster.nodes[:3]
    peers = [n for n in founders if n.name != name] + [node]
    node.write_config(peers, extra_raft)
    return node


class Load:
    """Writes through each node, one after the other, until it is told to stop."""

    def __init__(self):
        self.stop = threading.Event()
        self.acknowledged, self.failures, self.slowest = [], [], {}
        self.threads = []

    def through(self, node):
        thread = threading.Thread(target=self.run, args=(node,))
        self.threads.append(thread)
        thread.start()

    def run(self, node):
        i = 0
        while not self.stop.is_set():
            key = f"load/{node.name}/{i:06}"
            began = time.monotonic()
            try:
                node.put(key, "x" * 100, timeout=2 * CALL_S)
                self.acknowledged.append(key)
            except grpc.RpcError as error:
                self.failures.append((node.name, key, error.code(), error.details()))
            took = time.monotonic() - began
            self.slowest[node.name] = max(took, self.slowest.get(node.name, 0))
            i += 1
            time.sleep(0.002)

    def wait_for_more(self, count=50):
        """So many writes from now on: the change before is followed by work."""
        goal = len(self.acknowledged) + count
        eventually(lambda: len(self.acknowledged) >= goal, f"{count} more writes")

    def end(self):
        self.stop.set()
        for thread in self.threads:
            thread.join()

    def __enter__(self):
        return self

    def __exit__(self, *args):
        self.end()


class Membership(unittest.TestCase):
    def run_cli(self, nodes, *args, timeout="60s"):
        code, out, err = cli(nodes, *args, timeout=timeout)
        self.assertEqual(code, 0, f"quorate {' '.join(args)}: {out} {err}")
        return out

    def let_in(self, at, node):
        """Adds and promotes."""
        self.run_cli(at, "member", "add", peer_address(node))
        eventually(lambda: node.http("/readyz")[0] == 200, f"{node.name} has caught up")
        self.run_cli(at, "member", "promote", "--wait", node.name)

    def members(self, node):
        response = node.control.ListMembers(cluster_pb2.ListMembersRequest(), timeout=CALL_S)
        return {m.node_id: m for m in response.members}, response.failures_tolerated

    def check_load(self, load, nodes):
        self.assertFalse(load.failures, f"calls failed: {load.failures[:3]}")
        for node in nodes:
            there = {item.key for item in node.list_all("load/")}
            lost = set(load.acknowledged) - there
            self.assertFalse(lost, f"{node.name} lost {len(lost)}: {sorted(lost)[:3]}")
        gaps = ", ".join(f"{name} {1000 * took:.0f} ms" for name, took in load.slowest.items())
        story(f"{len(load.acknowledged)} writes, none failed, none lost; the slowest through {gaps}")

    def test_three_to_five_to_three(self):
        with founded() as cluster:
            founders, others = cluster.nodes[:3], cluster.nodes[3:]
            for node in founders:
                node.start()
            cluster.wait_ready(founders)
            for node in others:
                node.start()
                eventually(lambda: node.status().birth == cluster_pb2.BIRTH_STATE_WAITING_TO_JOIN,
                           f"{node.name} waits")
                eventually(lambda: "member add " + peer_address(node)
                           in " ".join(node.status().lacks), f"{node.name} says what to do")
                code, body = node.http("/readyz")
                self.assertEqual(code, 503)
                self.assertIn("waiting_to_join", body)
                with self.assertRaises(grpc.RpcError) as refused:
                    node.put("k", "v")
                self.assertEqual(error_info(refused.exception)[0], "NOT_BORN")
            story("node-4 and node-5 wait, and say for what")

            leader = cluster.leader(founders)
            stays = next(n for n in founders if n is not leader)
            leaves = next(n for n in founders if n not in (leader, stays))
            survivors = [stays] + others
            with Load() as load:
                load.through(stays)
                for node in others:
                    self.let_in([stays, leader], node)
                    load.through(node)
                    load.wait_for_more()
                members, tolerated = self.members(stays)
                self.assertEqual((len(members), tolerated), (5, 2))
                story("five vote")
                self.run_cli([stays], "member", "demote", leaves.name)
                self.assertFalse(self.members(stays)[0][leaves.name].voter)
                self.run_cli([others[0]], "member", "remove", leaves.name)
                load.wait_for_more()
                leader = cluster.leader(founders + others)
                gone = leader if leader not in survivors else None
                if gone is None:  # it has moved meanwhile: bring it to who leaves
                    gone = next(n for n in founders if n not in (stays, leaves))
                    self.run_cli([stays], "leader", "transfer", gone.name)
                story(f"{gone.name} leads, and removes itself")
                began = time.monotonic()
                self.run_cli([gone], "member", "remove", gone.name)
                after = cluster.leader(survivors)
                story(f"{after.name} leads {1000 * (time.monotonic() - began):.0f} ms later")
                load.wait_for_more()
            members, tolerated = self.members(stays)
            self.assertEqual((sorted(members), tolerated), (sorted(n.name for n in survivors), 1))
            cluster.wait_ready(survivors)
            cluster.wait_equal(survivors)
            self.check_load(load, survivors)
            for node in (leaves, gone):
                eventually(lambda: node.http("/readyz")[0] == 503, f"{node.name} is not ready")
                eventually(lambda: "removed" in node.http("/readyz")[1], f"{node.name} says why")
            for node in survivors:
                node.kill()
            for node in survivors:
                node.start()
            cluster.wait_ready(survivors)
            cluster.wait_equal(survivors)
            story("the three that stay agree after a SIGKILL of all of them")

    def test_transfer_under_load(self):
        with Cluster(3) as cluster:
            cluster.start().wait_ready()
            with Load() as load:
                for node in cluster.nodes:
                    load.through(node)
                load.wait_for_more()
                for _ in range(4):
                    leader = cluster.leader()
                    target = cluster.followers()[0]
                    self.run_cli([n for n in cluster.nodes if n is not leader], "leader",
                                 "transfer", target.name)
                    self.assertEqual(target.status().role, cluster_pb2.NODE_ROLE_LEADER)
                    load.wait_for_more()
                leader = cluster.leader()
                out = self.run_cli([leader], "-o", "raw", "leader", "transfer").strip()
                self.assertNotEqual(out, leader.name)
                self.assertEqual(cluster.leader().name, out)
                load.wait_for_more()
            cluster.wait_equal()
            self.check_load(load, cluster.nodes)

    def refused(self, nodes, code, reason, *args, timeout="60s"):
        exit_code, out, err = cli(nodes, *args, timeout=timeout)
        self.assertEqual(exit_code, code, f"quorate {' '.join(args)}: {out} {err}")
        self.assertIn(reason, err)
        return err

    def test_what_is_refused(self):
        with founded(4) as cluster:
            founders = cluster.nodes[:3]
            for node in founders:
                node.start()
            cluster.wait_ready(founders)
            leader = cluster.leader(founders)
            followers = [n for n in founders if n is not leader]
            one, two = followers

            err = self.refused([one], 5, "NODE_SILENT", "member", "add",
                               f"127.0.0.1:{free_port()}", timeout="5s")
            self.assertIn("nobody answers at", err)
            self.refused([one], 3, "MEMBER_NOT_FOUND", "leader", "transfer", "node-4")
            self.refused([one], 3, "MEMBER_NOT_FOUND", "member", "remove", "node-9")

            with Cluster(1) as other:
                other.start().wait_ready()
                err = self.refused([one], 1, "OTHER_CLUSTER", "member", "add",
                                   peer_address(other.nodes[0]))
                self.assertIn(other.nodes[0].status().header.cluster_id, err)
            story("a node of another cluster is not taken")

            # A second node with the name of one that lives.
            old_store = two.status().store_id
            double = another(cluster, two.name, "double").start()
            eventually(lambda: double.status().birth == cluster_pb2.BIRTH_STATE_WAITING_TO_JOIN,
                       "the double waits")
            err = self.refused([one], 1, "NAME_TAKEN", "member", "add", peer_address(double))
            self.assertIn(old_store, err)
            self.assertIn(double.status().store_id, err)
            story("a second node of one name is refused while the first one answers; both named")

            # With one of three down nobody else can leave.
            two.kill()
            err = self.refused([one], 1, "WOULD_LOSE_QUORUM", "member", "remove", one.name)
            self.assertIn("of the 2 voters that there would be, 2 must answer and 1 does", err)
            err = self.refused([one], 1, "WOULD_LOSE_QUORUM", "member", "demote", leader.name)
            self.assertIn("2 must answer", err)
            story("with one of three silent no other one leaves: " + err.splitlines()[0])

            # Now that it is silent the new store takes its name, and its place once it is caught up.
            eventually(lambda: cli([one], "member", "add", peer_address(double))[0] == 0,
                       "the new store is let in")
            code, _, err = cli([one], "member", "remove", two.name)
            self.assertEqual(code, 1, err)
            self.assertIn("MEMBER_AMBIGUOUS", err)
            self.run_cli([one], "member", "promote", "--wait", two.name)
            members = one.control.ListMembers(cluster_pb2.ListMembersRequest(),
                                              timeout=CALL_S).members
            self.assertEqual(sorted((m.node_id, m.voter) for m in members),
                             [(f"node-{i}", True) for i in (1, 2, 3)])
            self.assertNotIn(old_store, [m.store_id for m in members])
            cluster.wait_ready([leader, one, double])
            cluster.wait_equal([leader, one, double])
            double.put("taken", "over")
            story("the new store has replaced the old one in one change")

            # The old disk comes back: it is nobody, and says so.
            two.start()
            eventually(lambda: two.http("/readyz")[0] == 503 and "removed" in two.http("/readyz")[1],
                       "the old store knows that it is out")
            self.assertEqual(cluster.leader([leader, one, double]).status().header.revision,
                             double.status().header.revision)

    def test_force(self):
        """What --force does, and what it cannot do."""
        timeout = "4s" if MULTIPLIER == 1 else "20s"  # longer than a node waits for a leader
        with Cluster(3) as cluster:
            cluster.start().wait_ready()
            leader = cluster.leader()
            follower, gone = cluster.followers()

            # Two of three are gone: nobody is there to change anything, however much it is wanted.
            for node in (leader, gone):
                node.kill()
            eventually(lambda: not follower.status().header.leader_id, "it has lost its leader")
            changes = (("remove", gone.name), ("demote", gone.name),
                       ("remove", leader.name, "--store", store_of(follower, leader)))
            with concurrent.futures.ThreadPoolExecutor() as pool:
                for refused in [pool.submit(self.refused, [follower], 5, "NO_LEADER", "member",
                                            *change, "--force", timeout=timeout)
                                for change in changes]:
                    refused.result()
            self.assertEqual({name: m.voter for name, m in self.members(follower)[0].items()},
                             {n.name: True for n in cluster.nodes})
            story("without a majority --force changes nothing: there is no leader")

            # One of three is gone. Without force the others stay.
            leader.start()
            nodes = [leader, follower]
            cluster.wait_ready(nodes)
            follower = next(n for n in nodes if n is not cluster.leader(nodes))
            for change in ("remove", "demote"):
                err = self.refused(nodes, 1, "WOULD_LOSE_QUORUM", "member", change, follower.name)
                self.assertIn("of the 2 voters that there would be, 2 must answer and 1 does", err)
                self.assertIn("nothing was changed", err)
                self.assertIn("--force does it all the same", err)
            nodes[0].put("before", "x")

            # With force it is entered, and cannot be done before the one that is gone is back.
            code, out, err = cli(nodes, "member", "remove", follower.name, "--force",
                                 timeout="2s" if MULTIPLIER == 1 else "20s")
            self.assertEqual((code, out), (5, ""), err)
            self.assertIn("it may or may not have been done", err)
            eventually(lambda: not any(n.status().header.leader_id for n in nodes), "nobody leads")
            # Longer than a node waits for a leader: with less, client and node may end it at one time.
            code, _, err = cli(nodes, "put", "between", "x",
                               timeout="10s" if MULTIPLIER == 1 else "20s")
            self.assertEqual(code, 5, err)
            self.assertIn("NO_LEADER", err)
            stays = next(n for n in nodes if n is not follower)
            gone.start()
            cluster.wait_ready([stays, gone])
            eventually(lambda: {name: m.voter for name, m in self.members(stays)[0].items()} ==
                       {n.name: True for n in (stays, gone)}, "two members are left")
            self.assertEqual(self.run_cli([gone], "get", "before", "--consistency",
                                          "linearizable").strip(), "x")
            eventually(lambda: "removed" in follower.http("/readyz")[1], "who is out knows it")
            story("--force: entered at once, done when enough of those who stay answered")


def store_of(asked, node):
    members = asked.control.ListMembers(cluster_pb2.ListMembersRequest(), timeout=CALL_S).members
    return next(m.store_id for m in members if m.node_id == node.name)


if __name__ == "__main__":
    main()
