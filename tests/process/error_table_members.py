"""The table of errors where it takes more than a request: members that come, go and are silent, and
a cluster without a majority. Part of error_table_test.py."""

import contextlib
import threading
import unittest

import membership_test
from error_table_rows import (CLUSTER, CONFIG, SEEN, agree, alike, call, get, grant, member, put,
                              txn)
from quorate_cluster import (CALL_S, Cluster, Node, cluster_pb2, config_pb2, eventually, free_port,
                             story)


def transfer(name):
    return cluster_pb2.TransferLeadershipRequest(node_id=name).SerializeToString()


@contextlib.contextmanager
def paused(*nodes):
    """Their processes stand still, and go on afterwards."""
    for node in nodes:
        node.pause()
    try:
        yield
    finally:
        for node in nodes:
            node.resume()


def waits(node):
    eventually(lambda: node.status().birth == cluster_pb2.BIRTH_STATE_WAITING_TO_JOIN,
               f"{node.name} waits")


class Members(unittest.TestCase):
    def refused(self, nodes, method, request, code, reason, field=None):
        return alike(self, nodes, CLUSTER + method, request, code, reason, field)

    def precondition(self, nodes, method, request, reason, field=None):
        return self.refused(nodes, method, request, "FAILED_PRECONDITION", reason, field)

    def test_members(self):
        with membership_test.founded(4) as cluster:
            founders, newcomer = cluster.nodes[:3], cluster.nodes[3]
            for node in founders:
                node.start()
            cluster.wait_ready(founders)
            leader = cluster.leader(founders)
            follower, third = [n for n in founders if n is not leader]
            follower.put("there", "1")  # its session is open: nothing else writes
            double = membership_test.another(cluster, third.name, "double").start()
            self.strangers(cluster, (leader, follower))
            self.elsewhere(cluster, (leader, follower))
            self.learner(newcomer, (leader, follower))
            self.name(third, double, (leader, follower))
            self.silent(third, double, leader, follower)
            self.forced(cluster, founders, third)
            self.last_voter(cluster, founders)
            self.pins(cluster, founders)

    def strangers(self, cluster, nodes):
        """Who answers and cannot be let in."""
        directory = cluster.root / "stranger"
        directory.mkdir()
        stranger = Node(cluster, "stranger", directory, (free_port(), free_port(), free_port()))
        cluster.nodes.append(stranger)
        nobody = Node(cluster, "nobody", directory, (free_port(), free_port(), free_port()))
        stranger.write_config([stranger, nobody])
        stranger.start()
        eventually(lambda: "msg=serving" in stranger.log_text(), "the stranger serves")
        address = membership_test.peer_address(stranger)
        self.precondition(nodes, "AddMember", member("Add", address=address), "NODE_NOT_WAITING",
                          "founder by its configuration")
        stranger.kill()
        with Cluster(1) as other:
            other.start().wait_ready()
            address = membership_test.peer_address(other.nodes[0])
            self.precondition(nodes, "AddMember", member("Add", address=address), "OTHER_CLUSTER",
                              other.nodes[0].status().header.cluster_id)

    def elsewhere(self, cluster, nodes):
        """Who answers where it was asked, and says that it is where somebody else is."""
        wrong = membership_test.peer_address(nodes[0])
        lost = membership_test.another(cluster, "elsewhere", "elsewhere",
                                       f'    advertiseAddress: "{wrong}"\n').start()
        waits(lost)
        address = membership_test.peer_address(lost)
        self.precondition(nodes, "AddMember", member("Add", address=address),
                          "ADVERTISED_ADDRESS_WRONG", wrong)
        lost.kill()

    def learner(self, newcomer, nodes):
        newcomer.start()
        waits(newcomer)
        address = membership_test.peer_address(newcomer)
        added = call(nodes[1], CLUSTER + "AddMember", member("Add", address=address))
        self.assertEqual(added[0], "OK", added)
        eventually(lambda: newcomer.http("/readyz")[0] == 200, "the learner has caught up")
        self.precondition(nodes, "TransferLeadership", transfer(newcomer.name), "NOT_A_VOTER",
                          newcomer.name)
        with paused(newcomer):
            for i in range(3):
                nodes[0].put("there", str(i))
            self.precondition(nodes, "PromoteMember", member("Promote", node_id=newcomer.name),
                              "LEARNER_NOT_CAUGHT_UP", "it lacks 3 entries")
        self.assertEqual(call(nodes[0], CLUSTER + "RemoveMember",
                              member("Remove", node_id=newcomer.name))[0], "OK")
        newcomer.kill()

    def name(self, third, double, nodes):
        waits(double)
        said = self.precondition(nodes, "AddMember",
                                 member("Add", address=membership_test.peer_address(double)),
                                 "NAME_TAKEN", third.status().store_id)
        self.assertIn(double.status().store_id, said)

    def silent(self, third, double, leader, follower):
        """One of three is gone: nobody else may leave. Another store learns under its name."""
        nodes = (leader, follower)
        third.kill()
        eventually(lambda: call(leader, CLUSTER + "TransferLeadership", transfer(third.name))[3] ==
                   "TARGET_SILENT", "it is silent")
        self.precondition(nodes, "TransferLeadership", transfer(third.name), "TARGET_SILENT",
                          third.name)
        arithmetic = "of the 2 voters that there would be, 2 must answer and 1 does"
        for kind, name in (("Remove", follower.name), ("Demote", leader.name),
                           ("Demote", follower.name)):
            self.precondition(nodes, kind + "Member", member(kind, node_id=name),
                              "WOULD_LOSE_QUORUM", arithmetic)
        self.assertEqual(call(follower, CLUSTER + "AddMember", member(
            "Add", address=membership_test.peer_address(double)))[0], "OK")
        self.precondition(nodes, "RemoveMember", member("Remove", node_id=third.name),
                          "MEMBER_AMBIGUOUS", double.status().store_id)
        self.precondition(nodes, "DemoteMember", member("Demote", node_id=third.name),
                          "CHANGE_INVALID")
        self.assertEqual(call(follower, CLUSTER + "RemoveMember", member(
            "Remove", node_id=third.name, store_id=double.status().store_id))[0], "OK")
        double.kill()

    def forced(self, cluster, founders, third):
        """What would lose the quorum goes ahead by force: done when the silent one is back."""
        for through in ("leader", "follower"):
            leader = cluster.leader([n for n in founders if n.running()])
            follower = next(n for n in founders if n not in (leader, third))
            asked = leader if through == "leader" else follower
            answers = []
            thread = threading.Thread(target=lambda: answers.append(call(
                asked, CLUSTER + "DemoteMember",
                member("Demote", node_id=follower.name, force=True), timeout=60)))
            entered = "joint=yes"
            before = leader.log_text().count(entered)
            thread.start()
            eventually(lambda: leader.log_text().count(entered) > before, "it is entered")
            self.assertEqual(answers, [])
            third.start()
            thread.join()
            self.assertEqual(answers[0][0], "OK", answers)
            eventually(lambda: cluster.leader(founders).status().healthy, "a leader")
            self.assertEqual(voters(asked), sorted(n.name for n in founders if n is not follower))
            cluster.wait_ready(founders)
            promote = member("Promote", node_id=follower.name)
            eventually(lambda: call(asked, CLUSTER + "PromoteMember", promote)[0] == "OK",
                       "it votes")
            if through == "leader":
                third.kill()
        story("force goes ahead: the change is done when enough of its voters are back")

    def last_voter(self, cluster, founders):
        leader = cluster.leader(founders)
        others = [n for n in founders if n is not leader]
        for node in others:
            self.assertEqual(call(others[0], CLUSTER + "DemoteMember",
                                  member("Demote", node_id=node.name))[0], "OK")
        for kind in ("Demote", "Remove"):
            self.precondition((leader, others[0]), kind + "Member",
                              member(kind, node_id=leader.name), "NO_VOTERS")
        for node in others:
            eventually(lambda: call(node, CLUSTER + "PromoteMember",
                                    member("Promote", node_id=node.name))[0] == "OK", "it votes")

    def pins(self, cluster, founders):
        leader = cluster.leader(founders)
        for key in ("a", "b"):
            leader.put(key, "x")
        cluster.wait_equal(founders)
        follower = next(n for n in founders if n is not leader)
        page = follower.config.List(config_pb2.ListRequest(page_size=1), timeout=CALL_S)
        leader.put("a", "y")
        compact = cluster_pb2.CompactRequest(revision=page.header.revision).SerializeToString()
        self.precondition((leader, follower), "Compact", compact, "PAGE_TOKEN_PINS", follower.name)
        again = follower.config.List(config_pb2.ListRequest(page_token=page.next_page_token),
                                     timeout=CALL_S)
        self.assertEqual(again.header.revision, page.header.revision)


def voters(node):
    members = node.control.ListMembers(cluster_pb2.ListMembersRequest(), timeout=CALL_S).members
    return sorted(m.node_id for m in members if m.voter)


class Trouble(unittest.TestCase):
    def test_without_a_majority(self):
        """Who led and who followed say the same when the others stand still."""
        with Cluster(3) as cluster:
            cluster.start().wait_ready()
            told = []
            for role in ("leader", "follower"):
                leader = cluster.leader()
                asked = leader if role == "leader" else cluster.followers()[0]
                eventually(lambda: asked.put("warm", "x"), "its session is open")
                cluster.wait_equal()
                with paused(*[n for n in cluster.nodes if n is not asked]):
                    told.append(self.alone(asked))
                cluster.wait_ready()
            for (code, reason), *answers in zip([row[0] for row in self.ROWS], *told):
                with self.subTest(reason):
                    if reason == "TOO_STALE":  # by how much is a node's own
                        answers = [a[:1] + ("", b"", a[3], {}, b"") for a in answers]
                        self.assertEqual([(a[0], a[3]) for a in answers], [(code, reason)] * 2)
                        SEEN.add(reason)
                        continue
                    agree(self, answers, code, reason)
            story("without a majority who led and who followed refuse alike")

    LINEARIZABLE = config_pb2.ReadOptions(consistency=3)
    BOUNDED = config_pb2.ReadOptions(max_staleness={"nanos": 1_000_000})
    # (code, reason), path, request, deadline. The first one is sent while there is a leader yet.
    ROWS = [
        (("DEADLINE_EXCEEDED", "OUTCOME_UNKNOWN"), CONFIG + "Put", put(key="a", text="x"), "2S"),
        (("UNAVAILABLE", "NO_LEADER"), CONFIG + "Put", put(key="a", text="x"), "99S"),
        (("UNAVAILABLE", "NO_LEADER"), CONFIG + "Txn", txn("then { get { key: 'a' } }"), "99S"),
        (("UNAVAILABLE", "NO_LEADER"), CONFIG + "GrantTtl", grant(1), "99S"),
        (("UNAVAILABLE", "NO_LEADER"), CONFIG + "Get", get(key="a", read=LINEARIZABLE), "2S"),
        (("UNAVAILABLE", "NO_LEADER"), CLUSTER + "RemoveMember", member("Remove", node_id="node-1"),
         "99S"),
        (("UNAVAILABLE", "NO_LEADER"), CLUSTER + "TransferLeadership", transfer(""), "99S"),
        (("UNAVAILABLE", "TOO_STALE"), CONFIG + "Get", get(key="a", read=BOUNDED), "9S"),
    ]

    def alone(self, node):
        answers = [call(node, *self.ROWS[0][1:3], deadline=self.ROWS[0][3])]
        eventually(lambda: not node.status().header.leader_id, "it knows no leader")
        slots = [None] * len(self.ROWS)

        def ask(i):
            slots[i] = call(node, *self.ROWS[i][1:3], deadline=self.ROWS[i][3])
        threads = [threading.Thread(target=ask, args=(i,)) for i in range(1, len(slots))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return answers + slots[1:]

    def test_a_target_that_does_not_take_over(self):
        with Cluster(3) as cluster:
            cluster.start().wait_ready()
            answers = []
            for role in ("leader", "follower"):
                def tried():
                    cluster.wait_ready()
                    leader = cluster.leader()
                    asked, target = cluster.followers()
                    asked = leader if role == "leader" else asked
                    with paused(target):
                        return call(asked, CLUSTER + "TransferLeadership", transfer(target.name))
                answer = tried()
                while answer[3] == "TARGET_SILENT":  # it was asked too late to begin
                    answer = tried()
                answers.append(answer)
            agree(self, answers, "UNAVAILABLE", "TRANSFER_FAILED")

    def test_bounds_that_are_not_met(self):
        with Cluster(3) as cluster:
            cluster.start().wait_ready()
            nodes = leader, _ = cluster.leader(), cluster.followers()[0]
            granted = config_pb2.GrantTtlResponse.FromString(
                call(leader, CONFIG + "GrantTtl", grant(3600))[5])
            for i in range(0, 10_000, 500):
                leader.config.Txn(config_pb2.TxnRequest(then=[config_pb2.TxnOperation(
                    put=config_pb2.PutRequest(key=f"{i + j:05}", text="", ttl_id=granted.ttl_id))
                    for j in range(500)]), timeout=30)
            cluster.wait_equal()
            alike(self, nodes, CONFIG + "Put", put(key="x", text="", ttl_id=granted.ttl_id),
                  "RESOURCE_EXHAUSTED", "TTL_TOO_MANY_KEYS", "10")
            behind = get(key="00000", read=config_pb2.ReadOptions(min_revision=1 << 40))

            def late(node):
                # On a busy machine gRPC's own end of the deadline may come before the node's word.
                answer = call(node, CONFIG + "Get", behind, deadline="1S")
                return answer if answer[3] is not None else None
            agree(self, [eventually(lambda: late(n), f"{n.name} says why") for n in nodes],
                  "UNAVAILABLE", "BEHIND")
