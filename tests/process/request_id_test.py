"""The same request id, sent to three nodes at once while they elect a leader, is one write: applied
once, answered three times alike. Also over a restart of all nodes, over an installed snapshot, and
never again once it may have been forgotten.
"""

import concurrent.futures
import os
import threading
import time
import unittest

import grpc

from quorate_cluster import (CALL_S, MULTIPLIER, PATIENCE_S, Cluster, cluster_pb2, config_pb2,
                             error_info, eventually, main, story)

ROUNDS = int(os.environ.get("QUORATE_KILL_ROUNDS", "12" if MULTIPLIER == 1 else "4"))
TIMEOUT_S = 30 * (3 if MULTIPLIER > 1 else 1)


def put(key, **fields):
    return "Put", config_pb2.PutRequest(key=key, text="x", **fields)


def put_if_absent(key, **fields):
    return "Put", config_pb2.PutRequest(key=key, text="x", expected_revision=0, **fields)


def txn(key, **fields):
    """Puts the key and reads it back, when it is not there; else reads it only."""
    get = config_pb2.TxnOperation(get=config_pb2.GetRequest(key=key))
    write = config_pb2.TxnOperation(put=config_pb2.PutRequest(key=key, text="x"))
    condition = config_pb2.Condition(key=key, version=0,
                                     comparison=config_pb2.Condition.COMPARISON_EQUAL)
    return "Txn", config_pb2.TxnRequest(conditions=[condition], then=[write, get],
                                        **{"else": [get]}, **fields)


def own_part_removed(answer):
    """An answer without what is the answering node's own: who it is and whom it follows."""
    copy = type(answer)()
    copy.CopyFrom(answer)
    copy.header.node_id = copy.header.leader_id = ""
    copy.header.term = 0
    return copy.SerializeToString(deterministic=True)


def refusal(node, method, request):
    """(code, message, reason) with which a node refuses."""
    try:
        answer = getattr(node.config, method)(request, timeout=TIMEOUT_S)
    except grpc.RpcError as error:
        return error.code().name, error.details(), error_info(error)[0]
    raise AssertionError(f"{node.name} did not refuse {method}, but answered {answer}")


class Noise:
    """Other people's writes, so that revisions go on between a write and its repeat."""

    def __init__(self, nodes):
        self.nodes, self.count = nodes, 0
        self.stopping = threading.Event()
        self.thread = threading.Thread(target=self.run, daemon=True)
        self.thread.start()

    def run(self):
        while not self.stopping.is_set():
            node = self.nodes[self.count % len(self.nodes)]
            self.count += 1
            try:
                node.put("noise", str(self.count), timeout=2)
            except grpc.RpcError:
                self.stopping.wait(0.01)

    def stop(self):
        self.stopping.set()
        self.thread.join(30)


class Writes:
    """The writes of a test, each with the one answer that it has."""

    KINDS = (put, put_if_absent, txn)

    def __init__(self, test):
        self.test, self.known = test, []
        self.pool = concurrent.futures.ThreadPoolExecutor(16)
        self.retried = 0

    def make(self, revision=None):
        number = len(self.known)
        fields = {"request_id": f"id-{number}", "note": f"write {number}"}
        if revision:
            fields["request_revision"] = revision
        method, request = self.KINDS[number % len(self.KINDS)](f"key/{number:03}", **fields)
        self.known.append([f"key/{number:03}", method, request, None])
        return self.known[-1]

    def send(self, node, write):
        """A future of the answer. As a client should: what was certainly not accepted goes again."""
        _, method, request, _ = write

        def ask():
            deadline = time.monotonic() + TIMEOUT_S
            while True:
                left = deadline - time.monotonic()
                try:
                    return getattr(node.config, method)(request, timeout=max(left, 0.1))
                except grpc.RpcError as error:
                    certain = error_info(error)[0] is not None
                    if error.code() != grpc.StatusCode.UNAVAILABLE or not certain or left < 0:
                        raise
                    self.retried += 1
        return self.pool.submit(ask)

    def settle(self, write, answers):
        """All answers are one, the first that there was; and it says that the write was new."""
        key, method, _, first = write
        for answer in answers:
            first = first or answer
            self.test.assertEqual(own_part_removed(answer), own_part_removed(first), key)
        write[3] = first
        done = first if method == "Put" else first.results[0].put
        self.test.assertEqual(done.version, 1, key)
        self.test.assertEqual(done.create_revision, first.header.revision)
        if method == "Txn":
            self.test.assertTrue(first.succeeded)
            self.test.assertEqual(first.results[1].get.item.version, 1)

    def check(self, nodes):
        """On each node: one version of each key, one row in its history, at the answer's revision."""
        for node in nodes:
            items = {i.key: i for i in node.list_all("key/")}
            self.test.assertEqual(sorted(items), [w[0] for w in self.known])
            for key, _, _, answer in self.known:
                self.test.assertEqual((items[key].version, items[key].mod_revision),
                                      (1, answer.header.revision), f"{key} on {node.name}")
                history = node.config.History(config_pb2.HistoryRequest(key=key), timeout=TIMEOUT_S)
                self.test.assertEqual([e.item.mod_revision for e in history.entries],
                                      [answer.header.revision], f"{key} on {node.name}")

    def repeat(self, nodes):
        """Each write once more to every node: its first answer again, and nothing is changed."""
        for write in self.known:
            self.settle(write, [f.result() for f in [self.send(n, write) for n in nodes]])

    def misuse(self, nodes):
        """Another write under a known id is refused everywhere in the same words."""
        for key, method, request, _ in self.known[:3]:
            other = type(request)()
            other.CopyFrom(request)
            if method == "Put":
                other.text = "another"
            else:
                other.then[0].put.text = "another"
            said = {refusal(node, method, other) for node in nodes}
            self.test.assertEqual(len(said), 1, said)
            code, message, reason = said.pop()
            self.test.assertEqual((code, reason), ("INVALID_ARGUMENT", "REQUEST_ID_REUSED"), key)
            self.test.assertIn("request_id", message)


class RequestIds(unittest.TestCase):
    def test_to_three_nodes_while_the_leader_is_killed(self):
        """Five nodes, so that three of the survivors can be asked."""
        with Cluster(5) as cluster:
            cluster.start().wait_ready()
            writes, noise = Writes(self), Noise(cluster.nodes)
            for number in range(ROUNDS):
                leader = cluster.leader()
                asked = [n for n in cluster.nodes if n is not leader][:3]
                seen = asked[0].get("noise").header.revision if number % 2 else None
                write = writes.make(seen)
                # How many are asked before the leader dies: all, none, some.
                before = (3, 0, 1, 2)[number % 4]
                futures = [writes.send(n, write) for n in asked[:before]]
                leader.kill()
                futures += [writes.send(n, write) for n in asked[before:]]
                writes.settle(write, [f.result() for f in futures])
                story(f"{write[0]}: {leader.name}, which led, was killed with {before} of 3 sent: "
                      f"revision {write[3].header.revision} thrice")
                leader.start()
                cluster.wait_ready([leader])
                eventually(leader.status, f"the client is connected to {leader.name} again")
            noise.stop()
            self.assertGreater(noise.count, ROUNDS)
            cluster.wait_equal()
            writes.check(cluster.nodes)
            writes.repeat(cluster.nodes)
            cluster.wait_equal()
            writes.check(cluster.nodes)
            writes.misuse(cluster.nodes)
            for node in cluster.nodes:
                node.kill()
            cluster.start().wait_ready()
            cluster.wait_equal()
            writes.repeat(cluster.nodes)
            writes.misuse(cluster.nodes)
            cluster.wait_equal()
            writes.check(cluster.nodes)
            story(f"{len(writes.known)} writes, each applied once, {writes.retried} sent again by "
                  "their clients; all nodes were killed and still know every answer")

    def test_to_three_nodes_while_the_leader_stands_still(self):
        """Three nodes, all of them asked: the leader answers when it has come to itself."""
        with Cluster(3) as cluster:
            cluster.start().wait_ready()
            writes, noise = Writes(self), Noise(cluster.nodes)
            for number in range(max(ROUNDS // 2, 2)):
                leader = cluster.leader()
                others = [n for n in cluster.nodes if n is not leader]
                term = others[0].status().header.term
                write = writes.make()
                futures = []
                if number % 2:
                    futures.append(writes.send(others[0], write))
                leader.pause()
                try:
                    futures += [writes.send(n, write) for n in cluster.nodes
                                if n is not others[0] or not number % 2]

                    def elected():
                        status = [n.status(timeout=2) for n in others]
                        return [s for s in status if s.role == cluster_pb2.NODE_ROLE_LEADER and
                                s.header.term > term]
                    eventually(elected, "another leader is elected")
                finally:
                    leader.resume()
                writes.settle(write, [f.result() for f in futures])
                story(f"{write[0]}: {leader.name}, which led, stood still and went on: revision "
                      f"{write[3].header.revision} thrice")
                cluster.wait_ready()
            noise.stop()
            cluster.wait_equal()
            writes.check(cluster.nodes)
            writes.repeat(cluster.nodes)
            cluster.wait_equal()
            writes.check(cluster.nodes)

    def test_over_an_installed_snapshot(self):
        with Cluster(3, extra_raft="    logTail: 64KiB\n") as cluster:
            cluster.start().wait_ready()
            writes = Writes(self)
            first = writes.make()
            writes.settle(first, [writes.send(cluster.nodes[0], first).result()])
            away = cluster.followers()[0]
            away.kill()
            others = [n for n in cluster.nodes if n is not away]
            for _ in range(6):
                write = writes.make()
                futures = [writes.send(n, write) for n in others]
                writes.settle(write, [f.result() for f in futures])
            # More than the window in memory, from which a follower is served without the disk.
            for i in range(22):
                others[i % 2].put(f"big/{i:02}", "x" * (900 << 10), timeout=TIMEOUT_S)

            def cut():
                return all(s.log_first_index + 5 > s.applied_index
                           for s in [n.status() for n in others])
            eventually(cut, "both logs are cut close to their ends", PATIENCE_S * 2)
            away.start()
            eventually(lambda: away.status().snapshot_generation == 2, "a snapshot is installed",
                       PATIENCE_S * 2)
            cluster.wait_ready()
            cluster.wait_equal()
            # The node that has its table from the snapshot decides: it leads.
            for _ in range(40):
                leader = cluster.leader()
                if leader is away:
                    break
                leader.kill()
                cluster.leader([n for n in cluster.nodes if n is not leader])
                leader.start()
                cluster.wait_ready()
                eventually(leader.status, f"the client is connected to {leader.name} again")
            self.assertIs(cluster.leader(), away, "the restored node never led")
            writes.repeat(cluster.nodes)
            writes.misuse(cluster.nodes)
            cluster.wait_equal()
            writes.check(cluster.nodes)
            story(f"{away.name} came back by a snapshot, leads, and knows every answer")


class Forgotten(unittest.TestCase):
    # What the table may hold (storage/state_requests.h), in answers of almost 2 MiB.
    TABLE_BYTES = 256 << 20
    READ_BYTES = (1 << 20) - (8 << 10)

    @unittest.skipIf(MULTIPLIER > 1, "too much memory for a sanitizer; storage_test has it small")
    def test_what_may_have_been_forgotten_is_refused(self):
        with Cluster(3) as cluster:
            cluster.start().wait_ready()
            leader, follower = cluster.leader(), cluster.followers()[0]
            seen = leader.put("before", "x").header.revision
            first = config_pb2.PutRequest(key="once", text="x", request_id="early",
                                          request_revision=seen)
            answer = follower.config.Put(first, timeout=CALL_S)
            self.assertEqual(own_part_removed(leader.config.Put(first, timeout=CALL_S)),
                             own_part_removed(answer))
            for i in range(2):
                leader.config.Put(config_pb2.PutRequest(key=f"big/{i}", data=b"x" * self.READ_BYTES),
                                  timeout=CALL_S)
            # Answers are kept whole: those with what a transaction has read fill the table.
            gets = [config_pb2.TxnOperation(get=config_pb2.GetRequest(key=f"big/{i}"))
                    for i in range(2)]
            fill = self.TABLE_BYTES // (2 * self.READ_BYTES) + 2
            started = time.monotonic()
            for i in range(fill):
                write = config_pb2.TxnOperation(put=config_pb2.PutRequest(key="fill", text=str(i)))
                leader.config.Txn(config_pb2.TxnRequest(then=gets + [write], request_id=f"fill-{i}"),
                                  timeout=TIMEOUT_S)
            story(f"{fill} answers of 2 MiB in {time.monotonic() - started:.1f} s")
            cluster.wait_equal()
            for node in cluster.nodes:
                self.assertGreater(node.metric("quorate_request_ids_expired_revision"), seen)
            said = {refusal(node, "Put", first) for node in (leader, follower)}
            self.assertEqual(len(said), 1, said)
            code, message, reason = said.pop()
            self.assertEqual((code, reason), ("FAILED_PRECONDITION", "REQUEST_ID_EXPIRED"))
            self.assertIn("request_revision", message)
            self.assertEqual(leader.get("once").item.version, 1)
            # Who has seen what is there now writes as before.
            now = leader.get("fill").header.revision
            fresh = config_pb2.PutRequest(key="once", text="y", request_id="late",
                                          request_revision=now)
            self.assertEqual(follower.config.Put(fresh, timeout=CALL_S).version, 2)
            cluster.wait_equal()
            story(f"a late repeat is refused at leader and follower: {message}")


if __name__ == "__main__":
    main()
