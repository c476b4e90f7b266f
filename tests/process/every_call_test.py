"""Every call that the nodes declare, by grpcurl and by the command line, at leader and follower.

Which calls there are is asked by reflection: one that neither table has fails the test. That a call
was taken by the node that was asked is looked up in its metrics.
"""

import json
import os
import pathlib
import re
import subprocess
import sys
import unittest

os.environ.setdefault("QUORATE_MULTIPLIER", "3")  # it needs leaders that stay

import membership_test  # noqa: E402
from grpcurl_stand_in import messages
from quorate_cluster import (BINARY, CALL_S, PATIENCE_S, cluster_pb2, config_pb2, eventually, main,
                             story)
from tools_test import ReflectionClient, find_tool

SERVICES = {"Config": config_pb2, "Cluster": cluster_pb2}
STAND_IN = [sys.executable, "-u", str(pathlib.Path(__file__).with_name("grpcurl_stand_in.py"))]


def declared(node):
    """Every call of our services, as the node's reflection has it."""
    client = ReflectionClient(node)
    ours = [name for name in client.list() if name.startswith("quorate.v1.")]
    return {f"{service.rsplit('.', 1)[1]}/{method}" for service in ours
            for method in client.load(service).methods_by_name}


def taken(node):
    """{call: how often} of the calls that the node has finished."""
    counts = {}
    for call, count in re.findall(
            r'^quorate_requests_total\{.*method="quorate\.v1\.(\w+/\w+)".*\} (\d+)',
            node.http("/metrics")[1], re.MULTILINE):
        counts[call] = counts.get(call, 0) + int(count)
    return counts


class EveryCall(unittest.TestCase):
    def setUp(self):
        self.called = {}  # by role

    def check_taken(self, role, node, before, *calls):
        """These have reached the node since `before`."""
        for call in calls:
            eventually(lambda: taken(node).get(call, 0) > before.get(call, 0),
                       f"{node.name} has taken {call}")
            self.called.setdefault(role, set()).add(call)

    def run_at_both(self, script):
        """The script at the leader, then at a follower; each of them lets another node in."""
        with membership_test.founded(5) as cluster:
            founders = cluster.nodes[:3]
            for node in founders:
                node.start()
            cluster.wait_ready(founders)
            for role, newcomer in zip(("leader", "follower"), cluster.nodes[3:]):
                newcomer.start()
                eventually(lambda: newcomer.status().birth ==
                           cluster_pb2.BIRTH_STATE_WAITING_TO_JOIN, f"{newcomer.name} waits")
                leader = cluster.leader(founders)
                node = leader if role == "leader" else next(n for n in founders if n is not leader)
                script(role, node, newcomer)
                newcomer.kill()
            calls = declared(founders[0])
        self.assertEqual(calls, {f"{name}/{method.name}" for name, module in SERVICES.items()
                                 for method in module.DESCRIPTOR.services_by_name[name].methods})
        return calls

    # --- grpcurl ---

    def curl(self, role, node, call, *requests, until=None):
        """The answers to these requests as dictionaries; of a stream without an end those up to the
        one that has the field `until`."""
        tool = find_tool("grpcurl")
        before = taken(node)
        process = subprocess.Popen(
            ([tool] if tool else STAND_IN) + ["-plaintext", "-d", "@", node.address,
                                              f"quorate.v1.{call}"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        try:
            if until is None:
                text, err = process.communicate("\n".join(map(json.dumps, requests)), PATIENCE_S)
                self.assertEqual(process.returncode, 0, f"{call}: {err}")
            else:
                process.stdin.write("\n".join(map(json.dumps, requests)))
                process.stdin.close()
                text = ""
                for line in process.stdout:
                    text += line
                    if line == "}\n" and until in list(messages(text))[-1]:
                        break
        finally:
            process.kill()
            process.wait()
            for pipe in (process.stdin, process.stdout, process.stderr):
                pipe.close()
        self.check_taken(role, node, before, call)
        return list(messages(text))

    def by_grpcurl(self, role, node, newcomer):
        def curl(call, *requests, **more):
            answers = self.curl(role, node, call, *requests, **more)
            for answer in answers:
                header = next((v for v in [answer, *answer.values()]
                               if isinstance(v, dict) and "header" in v), {}).get("header")
                if header:
                    self.assertEqual(header["node_id"], node.name, call)
            return answers

        def one(call, **request):
            answers = curl(call, request)
            self.assertEqual(len(answers), 1)
            return answers[0]
        p = f"{role}/"
        first = one("Config/Put", key=p + "a", text="1")["header"]["revision"]
        self.assertEqual(one("Config/Put", key=p + "a", text="2", note="why")["version"], "2")
        fresh = {"consistency": "CONSISTENCY_LINEARIZABLE"}
        self.assertEqual(one("Config/Get", key=p + "a", read=fresh)["item"]["text"], "2")
        listed = one("Config/List", prefix=p, keys_only=True, read=fresh)
        self.assertEqual([i["key"] for i in listed["items"]], [p + "a"])
        changes = one("Config/History", key=p + "a", read=fresh)["entries"]
        self.assertEqual([c["item"]["text"] for c in changes], ["2", "1"])
        self.assertEqual(changes[0]["note"], "why")
        done = one("Config/Txn", conditions=[{"key": p + "a", "comparison": "COMPARISON_EQUAL",
                                              "version": 2}],
                   then=[{"put": {"key": p + "b", "data": "/wA="}}, {"get": {"key": p + "a"}}])
        self.assertTrue(done["succeeded"])
        self.assertEqual(done["results"][1]["get"]["item"]["text"], "2")
        self.assertEqual(one("Config/Rollback", key=p + "a", to_revision=first)["changed"], "1")
        self.assertEqual(one("Config/Delete", key=p + "b")["deleted"], "1")
        told = curl("Config/Watch", {"prefix": p, "start_revision": first,
                                     "progress_interval": "0.1s"}, until="progress")
        self.assertTrue(told[0]["started"])
        events = [e for answer in told for e in answer.get("events", ())]
        self.assertEqual([(e["item"]["key"], e["item"].get("text")) for e in events],
                         [(p + "a", "1"), (p + "a", "2"), (p + "b", None), (p + "a", "1"),
                          (p + "b", None)])
        written = curl("Config/Write", {"put": {"key": p + "c", "text": "1"}},
                       {"put": {"key": p + "c", "text": "2", "expected_revision": 1}},
                       {"delete": {"key": p + "c"}})
        self.assertEqual([sorted(set(w) & {"put", "delete", "code"}) for w in written],
                         [["put"], ["code"], ["delete"]])
        ttl = one("Config/GrantTtl", ttl="600s")["ttl_id"]
        renewed = curl("Config/KeepAliveTtl", {"ttl_id": ttl}, {"ttl_id": "00000000000000aa"})
        self.assertEqual([r.get("code", 0) for r in renewed], [0, 5])
        self.assertEqual(renewed[0]["remaining"], "600s")
        one("Config/Put", key=p + "ttl", text="x", ttl_id=ttl)
        self.assertEqual(one("Config/RevokeTtl", ttl_id=ttl)["deleted"], "1")
        self.cluster_by_grpcurl(one, node, newcomer, first)

    def cluster_by_grpcurl(self, one, node, newcomer, revision):
        self.assertTrue(one("Cluster/Status")["healthy"])
        self.assertEqual(len(one("Cluster/ListMembers")["members"]), 3)
        added = one("Cluster/AddMember", address=membership_test.peer_address(newcomer))
        self.assertEqual(added["member"]["node_id"], newcomer.name)
        self.let_learn(newcomer)
        self.when_caught_up(lambda: one("Cluster/PromoteMember", node_id=newcomer.name))
        self.assertEqual(len(voters(node)), 4)
        one("Cluster/DemoteMember", node_id=newcomer.name)
        self.assertEqual(len(voters(node)), 3)
        one("Cluster/RemoveMember", node_id=newcomer.name)
        self.assertNotIn(newcomer.name,
                         [m["node_id"] for m in one("Cluster/ListMembers")["members"]])
        self.assertTrue(one("Cluster/SetSettings", leases=True)["settings"]["leases"])
        self.assertTrue(one("Cluster/GetSettings")["settings"]["leases"])
        one("Cluster/SetSettings", leases=False)
        compacted = one("Cluster/Compact", revision=revision)
        self.assertGreaterEqual(int(compacted["compacted_revision"]), int(revision))
        eventually(lambda: "leads" not in one("Cluster/Drain"), "another one leads")
        self.assertTrue(one("Cluster/Status")["draining"])
        one("Cluster/Drain", undo=True)
        leader = one("Cluster/Status")["header"]["leader_id"]
        now = one("Cluster/TransferLeadership")["header"]["leader_id"]
        self.assertNotEqual(now, leader, "the response is of before it was done")
        self.another_leads(node, leader)

    def let_learn(self, newcomer):
        eventually(lambda: newcomer.http("/readyz")[0] == 200, f"{newcomer.name} has caught up")

    def another_leads(self, node, before):
        eventually(lambda: node.status().header.leader_id not in ("", before), "another one leads")

    def when_caught_up(self, promote):
        """Once the leader has seen that too: for a moment it may still be refused."""
        def promoted():
            try:
                promote()
                return True
            except AssertionError as error:
                if "LEARNER_NOT_CAUGHT_UP" not in str(error):
                    raise
                return False
        eventually(promoted, "it is promoted")

    def test_by_grpcurl(self):
        calls = self.run_at_both(self.by_grpcurl)
        for role in ("leader", "follower"):
            self.assertEqual(calls - self.called[role], set(), f"not called at the {role}")
        which = "grpcurl" if find_tool("grpcurl") else "a stand-in for grpcurl, which is not here"
        story(f"{len(calls)} calls at the leader and at a follower, with {which}")

    # --- The command line ---

    def by_command(self, role, node, newcomer):
        def run(*command, calls, stdin=""):
            before = taken(node)
            done = subprocess.run(
                [BINARY, "--endpoints", node.address, "--timeout", "60s", *command],
                capture_output=True, text=True, input=stdin, check=False, timeout=PATIENCE_S * 3)
            self.assertEqual(done.returncode, 0, f"quorate {' '.join(command)}: {done.stderr}")
            self.check_taken(role, node, before, *calls)
            return done.stdout
        p = f"{role}/"
        put = run("put", p + "a", "1", "-o", "json", calls=["Config/Put"])
        first = json.loads(put)["header"]["revision"]
        put = run("put", p + "a", "-", "--note", "why", "-o", "json", stdin="2",
                  calls=["Config/Put"])
        second = json.loads(put)["header"]["revision"]
        self.assertEqual(run("get", p + "a", calls=["Config/Get"]).strip(), "2")
        self.assertIn(p + "a", run("list", p, calls=["Config/List"]))
        self.assertIn("why", run("history", p + "a", calls=["Config/History"]))
        self.assertIn("+2", run("diff", p + "a", f"{first}..{second}", calls=["Config/Get"]))
        self.assertIn("succeeded: true", run(
            "txn", "-f", "-", calls=["Config/Txn"],
            stdin=f"conditions: [{{key: {p}a, version: 2}}]\n"
                  f"then: [{{put: {{key: {p}b, text: x}}}}]\n"))
        run("apply", "-f", "-", stdin=f"key: {p}c\ntext: y\n", calls=["Config/Txn"])
        self.assertIn("changed 1", run("rollback", p + "a", "--to", first,
                                       calls=["Config/Rollback"]))
        self.assertIn("deleted 1", run("delete", p + "b", calls=["Config/Delete"]))
        self.assertIn(f"create {p}a 1", run("watch", p, "--from-revision", first, "--count", "5",
                                            calls=["Config/Watch"]))
        self.assertIn("2: deleted 1", run(
            "write", calls=["Config/Write"],
            stdin=f'{{"put": {{"key": "{p}d", "text": "z"}}}}\n{{"delete": {{"key": "{p}d"}}}}\n'))
        # It is renewed after a third of its time.
        run("lock", p + "lock", "--ttl", "4s", "--", "sleep", "1.8",
            calls=["Config/GrantTtl", "Config/KeepAliveTtl", "Config/RevokeTtl"])
        self.cluster_by_command(run, node, newcomer, first)

    def cluster_by_command(self, run, node, newcomer, revision):
        self.assertIn(node.name, run("status", calls=["Cluster/Status"]))
        self.assertIn("tolerates 1", run("member", "list", calls=["Cluster/ListMembers"]))
        run("member", "add", membership_test.peer_address(newcomer), calls=["Cluster/AddMember"])
        self.let_learn(newcomer)
        run("member", "promote", "--wait", newcomer.name, calls=["Cluster/PromoteMember"])
        run("member", "demote", newcomer.name, calls=["Cluster/DemoteMember"])
        self.assertEqual(len(voters(node)), 3)
        run("member", "remove", newcomer.name, calls=["Cluster/RemoveMember"])
        self.assertNotIn(newcomer.name, run("member", "list", calls=["Cluster/ListMembers"]))
        for value in ("on", "off"):
            run("settings", "--leases", value, calls=["Cluster/SetSettings"])
            self.assertEqual(run("settings", calls=["Cluster/GetSettings"]), f"leases {value}\n")
        self.assertIn("is gone", run("compact", "--to", revision, "--force",
                                     calls=["Cluster/Compact"]))
        self.assertEqual(run("drain", "--linger", "10ms", calls=["Cluster/Drain"]),
                         f"{node.name} is drained\n")
        run("drain", "--undo", calls=["Cluster/Drain"])
        before = node.status().header.leader_id
        run("leader", "transfer", calls=["Cluster/TransferLeadership"])
        self.another_leads(node, before)

    def test_by_command(self):
        calls = self.run_at_both(self.by_command)
        for role in ("leader", "follower"):
            self.assertEqual(calls - self.called[role], set(), f"not called at the {role}")
        story(f"{len(calls)} calls at the leader and at a follower by the command line")


def voters(node):
    members = node.control.ListMembers(cluster_pb2.ListMembersRequest(), timeout=CALL_S).members
    return [m.node_id for m in members if m.voter]


if __name__ == "__main__":
    main()
