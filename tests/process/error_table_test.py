"""Every call and every error is the same at the leader and at a follower, byte for byte.

The rows that need a request only are in error_table_rows.py, those that need members that come and
go or a cluster in trouble in error_table_members.py. The last test compares the reasons that were
shown with those of docs/api.md.
"""

import os
import queue
import re
import unittest

import grpc

os.environ.setdefault("QUORATE_MULTIPLIER", "3")  # it needs leaders that stay

import membership_test  # noqa: E402
from error_table_members import Members, Trouble
from error_table_rows import (CLUSTER, CLUSTER_ERRORS, CONFIG, ERRORS, NO_TTL, REVISION_MAX,
                              SEEN, VALUE_BYTES_MAX, agree, alike, call, get, grant,
                              length_delimited, member, put, refusal, txn)
from quorate_cluster import (CALL_S, ROOT, Cluster, cluster_pb2, config_pb2, eventually, main,
                             status_pb2, story)


class ErrorTable(unittest.TestCase):
    def test_leader_and_follower_answer_alike(self):
        with Cluster(3) as cluster:
            cluster.start().wait_ready()
            leader = cluster.leader()
            follower = cluster.followers()[0]
            leader.config.Put(config_pb2.PutRequest(key="there", text="value", request_id="taken"),
                              timeout=CALL_S)
            for i in range(3):
                leader.config.Put(config_pb2.PutRequest(key=f"big/{i + 1}",
                                                        data=b"x" * VALUE_BYTES_MAX), timeout=CALL_S)
            cluster.wait_equal()
            self.errors(leader, follower)
            self.repeats(leader, follower)
            self.streamed(leader, follower)
            self.streamed_errors(leader, follower)
            self.time_to_live(leader, follower)
            self.successes(cluster, leader, follower)
            for node in cluster.nodes:
                items = [(i.key, i.text) for i in node.list_all()
                         if not i.key.startswith(("ok/", "big/"))]
                self.assertEqual(items, [("there", "value")], "a refused write left traces")
            story("no refused write left anything behind on any node")

    def errors(self, leader, follower):
        rows = [(CONFIG,) + row for row in ERRORS] + [(CLUSTER,) + row for row in CLUSTER_ERRORS]
        for service, name, method, request, code, reason, field in rows:
            with self.subTest(name, method=method):
                alike(self, (leader, follower), service + method, request, code, reason, field)

    def repeats(self, leader, follower):
        """A write with a request id, sent again to either node, is answered as the first time."""
        first = config_pb2.PutRequest(key="ok/repeat", text="x", request_id="once",
                                      expected_revision=0)
        kind = config_pb2.PutResponse
        answers = [kind.FromString(call(node, CONFIG + "Put", first.SerializeToString())[5])
                   for node in (leader, follower, leader)]
        for answer in answers:
            answer.header.ClearField("node_id")
        self.assertEqual(answers[0].version, 1)
        self.assertEqual(answers[0], answers[1])
        self.assertEqual(answers[0], answers[2])
        refused = config_pb2.PutRequest(key="ok/repeat", text="y", request_id="refused",
                                        expected_revision=0)
        errors = []
        for node in (follower, leader):
            errors.append(call(node, CONFIG + "Put", refused.SerializeToString()))
            leader.config.Delete(config_pb2.DeleteRequest(key="ok/repeat"), timeout=CALL_S)
        self.assertEqual(errors[0][0], "ABORTED")
        self.assertEqual(errors[0], errors[1], "what was refused once stays refused")
        story("a repeat of a request id gets the first answer at either node")

    def streamed(self, leader, follower):
        """A refused write in the middle of a stream fails alone, and order is the stream's."""
        def put_of(key, text, **fields):
            return config_pb2.WriteRequest(put=config_pb2.PutRequest(key=key, text=text, **fields))
        answers = []
        for node, key in ((leader, "ok/s1"), (follower, "ok/s2")):
            writes = [put_of(key, "1"), put_of(key, "", expected_revision=999),
                      put_of("", "no key"), config_pb2.WriteRequest(), put_of(key, "2"),
                      config_pb2.WriteRequest(txn=config_pb2.TxnRequest(then=[
                          config_pb2.TxnOperation(get=config_pb2.GetRequest(key=key))])),
                      config_pb2.WriteRequest(rollback=config_pb2.RollbackRequest(
                          key=key, to_revision=1)),
                      config_pb2.WriteRequest(delete=config_pb2.DeleteRequest(key=key))]
            got = list(node.config.Write(iter(writes), timeout=2 * CALL_S))
            self.assertEqual(len(got), len(writes))
            self.assertEqual([g.put.version for g in (got[0], got[4])], [1, 2])
            item = got[5].txn.results[0].get.item
            self.assertEqual((item.text, item.version), ("2", 2))
            self.assertEqual(got[6].rollback.deleted, 1)
            self.assertEqual(got[7].delete.deleted, 0)
            answers.append([(g.code, status_pb2.Status.FromString(g.status).code,
                             g.WhichOneof("result")) for g in got])
        aborted, invalid = (grpc.StatusCode[c].value[0] for c in ("ABORTED", "INVALID_ARGUMENT"))
        self.assertEqual([a[0] for a in answers[0]], [0, aborted, invalid, invalid, 0, 0, 0, 0])
        self.assertEqual(answers[0], answers[1])
        count = 2000
        pipelined = list(follower.config.Write(
            (put_of("ok/many", str(i)) for i in range(count)), timeout=60))
        self.assertEqual([p.put.version for p in pipelined], list(range(1, count + 1)))
        story(f"{count} pipelined writes through a follower, each answered in its order")

    def streamed_errors(self, leader, follower):
        """Every refused write of the table once more, in one stream between good ones: it alone is
        refused, as it is by itself."""
        fields = {"Put": 1, "Delete": 2, "Txn": 3, "Rollback": 4}
        rows = [row for row in ERRORS if row[1] in fields]
        answers = []
        for node, key in ((leader, "ok/t1"), (follower, "ok/t2")):
            messages = []
            for row in rows:
                messages.append(length_delimited(fields["Put"], put(key=key, text="between")))
                messages.append(length_delimited(fields[row[1]], row[2]))
            stream = node.channel().stream_stream(CONFIG + "Write", request_serializer=lambda b: b,
                                                  response_deserializer=lambda b: b)
            got = [config_pb2.WriteResponse.FromString(raw)
                   for raw in stream(iter(messages), timeout=60)]
            self.assertEqual(len(got), len(messages))
            self.assertEqual([g.put.version for g in got[::2]], list(range(1, len(rows) + 1)),
                             "a refused write's neighbour was refused too, or came twice")
            answers.append(got[1::2])
        for row, at_leader, at_follower in zip(rows, *answers):
            with self.subTest(f"{row[0]}, streamed"):
                alone = call(leader, CONFIG + row[1], row[2])
                said = status_pb2.Status.FromString(at_leader.status)
                self.assertEqual(at_leader.code, grpc.StatusCode[alone[0]].value[0])
                self.assertEqual((said.code, said.message), (at_leader.code, at_leader.message))
                self.assertIsNone(at_leader.WhichOneof("result"))
                if "REVISION" not in alone[3] or alone[3] == "REVISION_MISMATCH":
                    # (A message about the store's revision is another one a write later.)
                    self.assertEqual(at_leader, at_follower)
                if row[2] and status_pb2.Status.FromString(alone[2]).message == said.message:
                    self.assertEqual(alone[2], at_leader.status)
                else:
                    # Its fields are named from the stream's message on.
                    self.assertIn(alone[3], at_leader.status.decode(errors="replace"))
        story(f"{len(rows)} bad writes in one stream failed alone, at the leader and at a follower")

    def time_to_live(self, leader, follower):
        """The three calls answer alike; on the stream a bad message fails alone."""
        told = []
        for node in (leader, follower):
            granted = config_pb2.GrantTtlResponse.FromString(
                call(node, CONFIG + "GrantTtl", grant(100, 500_000_001))[5])
            self.assertEqual((granted.ttl.seconds, granted.ttl.nanos), (100, 501_000_000))
            ids = [granted.ttl_id, NO_TTL, "nonsense", granted.ttl_id]
            answers = list(node.config.KeepAliveTtl(
                iter([config_pb2.KeepAliveTtlRequest(ttl_id=i) for i in ids]), timeout=2 * CALL_S))
            self.assertEqual([(a.ttl_id, a.remaining.seconds) for a in (answers[0], answers[3])],
                             [(granted.ttl_id, 100)] * 2)
            self.assertEqual(answers[1].ttl_id, NO_TTL)
            told.append([(a.code, a.message, a.status) for a in answers[1:3]])
            revoked = config_pb2.RevokeTtlResponse.FromString(call(
                node, CONFIG + "RevokeTtl",
                config_pb2.RevokeTtlRequest(ttl_id=granted.ttl_id).SerializeToString())[5])
            self.assertEqual((revoked.deleted, revoked.header.leader_id), (0, leader.name))
        self.assertEqual(told[0], told[1])
        self.assertEqual([t[0] for t in told[0]],
                         [grpc.StatusCode[c].value[0] for c in ("NOT_FOUND", "INVALID_ARGUMENT")])
        story("time-to-lives answer alike, and a renewal that fails fails alone")

    def successes(self, cluster, leader, follower):
        """The same write at both, on keys of their own, differs in nothing but its revision."""
        def normal(kind, raw):
            message = kind.FromString(raw)
            message.header.ClearField("node_id")
            message.header.ClearField("staleness")
            return message
        rows = [("Put", config_pb2.PutResponse, lambda k: put(key=k, text="t", note="why")),
                ("Put", config_pb2.PutResponse, lambda k: put(key=k, data=b"\xff\x00")),
                ("Put", config_pb2.PutResponse, lambda k: put(key=k, text="")),
                ("Put", config_pb2.PutResponse, lambda k: put(key=k, text="\u00e9" * 1000)),
                ("Delete", config_pb2.DeleteResponse,
                 lambda k: config_pb2.DeleteRequest(key=k).SerializeToString()),
                ("Delete", config_pb2.DeleteResponse,
                 lambda k: config_pb2.DeleteRequest(key=k).SerializeToString()),
                ("Txn", config_pb2.TxnResponse,
                 lambda k: txn(f"conditions {{ key: '{k}' comparison: 1 version: 0 }}"
                               f"then {{ put {{ key: '{k}' text: 'mine' }} }}"
                               f"then {{ list {{ prefix: '{k}' count_only: true }} }}")),
                ("Txn", config_pb2.TxnResponse,
                 lambda k: txn(f"conditions {{ key: '{k}' comparison: 1 version: 0 }}"
                               "else { get { key: 'there' } }")),
                ("Txn", config_pb2.TxnResponse,
                 # Revisions that no store ever had are numbers like any other.
                 lambda k: txn(f"conditions {{ key: '{k}' comparison: 1"
                               f" mod_revision: {REVISION_MAX} }}"
                               "then { delete { key: 'there' } } else { get { key: 'there' } }")),
                ("Txn", config_pb2.TxnResponse,
                 lambda k: txn("conditions { key: 'there' comparison: 4"
                               f" create_revision: {REVISION_MAX} }}"
                               "then { get { key: 'there' } } else { delete { key: 'there' } }")),
                ("Rollback", config_pb2.RollbackResponse,
                 lambda k: config_pb2.RollbackRequest(key=k, to_revision=1).SerializeToString())]
        revisions = []
        for number, (method, kind, request) in enumerate(rows):
            answers = []
            for node, key in ((leader, "ok/l"), (follower, "ok/f")):
                answer = call(node, CONFIG + method, request(key))
                self.assertEqual(answer[0], "OK", answer)
                message = normal(kind, answer[5])
                revisions.append(message.header.revision)
                message.header.ClearField("revision")
                if method == "Put":
                    message.ClearField("create_revision")
                if method == "Txn":
                    self.assertEqual(message.succeeded, number in (6, 9))
                    for result in message.results:
                        result.put.ClearField("create_revision")
                answers.append(message.SerializeToString(deterministic=True))
            self.assertEqual(answers[0], answers[1], f"row {number}")
        self.assertEqual(revisions, sorted(revisions), "revisions go forward")
        cluster.wait_equal()
        linearizable = config_pb2.ReadOptions(consistency=3, min_revision=1)
        reads = [(CONFIG + "History",
                  config_pb2.HistoryRequest(key="ok/l", page_size=3).SerializeToString(),
                  config_pb2.HistoryResponse),
                 (CONFIG + "Get", get(key="there", read=config_pb2.ReadOptions(at_revision=2)),
                  config_pb2.GetResponse),
                 (CONFIG + "Get", get(key="there"), config_pb2.GetResponse),
                 (CONFIG + "Get", get(key="there", read=linearizable), config_pb2.GetResponse),
                 (CONFIG + "List", config_pb2.ListRequest(read=linearizable).SerializeToString(),
                  config_pb2.ListResponse),
                 (CONFIG + "List", b"", config_pb2.ListResponse),
                 (CONFIG + "List", config_pb2.ListRequest(keys_only=True).SerializeToString(),
                  config_pb2.ListResponse),
                 (CONFIG + "List", config_pb2.ListRequest(count_only=True).SerializeToString(),
                  config_pb2.ListResponse)]
        for path, request, kind in reads:
            at_leader, at_follower = call(leader, path, request), call(follower, path, request)
            self.assertEqual(normal(kind, at_leader[5]), normal(kind, at_follower[5]), path)
        at_leader = call(leader, CLUSTER + "ListMembers", b"")
        at_follower = call(follower, CLUSTER + "ListMembers", b"")
        # What is as asked already is done, and says so alike.
        done = [("PromoteMember", member("Promote", node_id="node-1"),
                 cluster_pb2.PromoteMemberResponse),
                ("AddMember", member("Add", address=f"127.0.0.1:{follower.peer_port}"),
                 cluster_pb2.AddMemberResponse),
                ("TransferLeadership",
                 cluster_pb2.TransferLeadershipRequest(node_id=leader.name).SerializeToString(),
                 cluster_pb2.TransferLeadershipResponse),
                ("Compact", cluster_pb2.CompactRequest(revision=2).SerializeToString(),
                 cluster_pb2.CompactResponse),
                ("SetSettings", cluster_pb2.SetSettingsRequest(leases=False).SerializeToString(),
                 cluster_pb2.SetSettingsResponse),
                ("GetSettings", b"", cluster_pb2.GetSettingsResponse)]
        for method, request, kind in done:
            answers = []
            for node in (leader, follower):
                answer = call(node, CLUSTER + method, request)
                self.assertEqual(answer[0], "OK", answer)
                message = kind.FromString(answer[5])
                self.assertEqual(message.header.node_id, node.name)
                message.header.ClearField("node_id")
                if method == "AddMember":
                    self.assertEqual(message.member.node_id, follower.name)
                    message.member.ClearField("last_contact")
                    message.member.ClearField("match_index")
                answers.append(message)
            self.assertEqual(answers[0], answers[1])
        names = [sorted((m.node_id, m.store_id, m.voter, m.is_leader)
                        for m in cluster_pb2.ListMembersResponse.FromString(a[5]).members)
                 for a in (at_leader, at_follower)]
        self.assertEqual(names[0], names[1])
        story("successful calls answer alike too")

    def test_what_was_compacted(self):
        with Cluster(3) as cluster:
            cluster.start().wait_ready()
            leader, follower = cluster.leader(), cluster.followers()[0]
            first = leader.put("there", "1").header.revision
            leader.put("gone", "1")
            leader.config.Delete(config_pb2.DeleteRequest(key="gone"), timeout=CALL_S)
            compacted = leader.put("there", "2").header.revision
            leader.put("there", "3")
            leader.control.Compact(cluster_pb2.CompactRequest(revision=compacted), timeout=30)
            cluster.wait_equal()
            rows = []
            for revision in (1, first, compacted):
                read = config_pb2.ReadOptions(at_revision=revision)
                rows += [("Get", get(key="there", read=read)),
                         ("Get", get(key="gone", read=read)),
                         ("List", config_pb2.ListRequest(read=read).SerializeToString()),
                         ("List", config_pb2.ListRequest(read=read, count_only=True)
                          .SerializeToString()),
                         ("History", config_pb2.HistoryRequest(key="there", read=read)
                          .SerializeToString())]
                for target in ({"key": "there"}, {"key": "gone"}, {"prefix": "t"}):
                    rows.append(("Rollback", config_pb2.RollbackRequest(
                        to_revision=revision, **target).SerializeToString()))
            for number, (method, request) in enumerate(rows):
                with self.subTest(f"{method}, row {number}"):
                    alike(self, (leader, follower), CONFIG + method, request, "OUT_OF_RANGE",
                          "REVISION_COMPACTED")
            for node in (leader, follower):
                self.assertEqual([i.text for i in node.list_all()], ["3"])
                # A watch of what is gone is no error: it begins anew, with what is there.
                stream = node.config.Watch(
                    config_pb2.WatchRequest(key="there", start_revision=first))
                told = [next(stream) for _ in range(4)]
                stream.cancel()
                self.assertEqual([(m.started, m.reset, m.synced) for m in told],
                                 [(True, False, False), (False, True, False),
                                  (False, False, False), (False, False, True)])
                self.assertEqual([e.item.text for e in told[2].events], ["3"])
            self.assertEqual(call(leader, CONFIG + "History", config_pb2.HistoryRequest(
                key="gone").SerializeToString())[3], "KEY_NOT_FOUND")
            story(f"{len(rows)} questions about what was compacted are refused alike")

    def test_a_stop_answers_what_a_stream_was_told_and_ends_it(self):
        with Cluster(1) as cluster:
            cluster.start().wait_ready()
            node = cluster.nodes[0]
            messages = queue.Queue()
            stream = node.config.Write(iter(messages.get, None))

            def write(i):
                messages.put(config_pb2.WriteRequest(
                    put=config_pb2.PutRequest(key="s", text=str(i))))
            for i in range(1, 4):
                write(i)
                self.assertEqual(next(stream).put.version, i)
            self.assertEqual(node.stop(), 0)
            with self.assertRaises(grpc.RpcError) as raised:
                next(stream)
            messages.put(None)
            agree(self, [refusal(raised.exception)], "UNAVAILABLE", "SHUTTING_DOWN")
            node.start()
            cluster.wait_ready()
            self.assertEqual(eventually(lambda: node.get("s"), "it serves").item.version, 3)
            story("a stream was told that its node stops: what had no answer was not done")

    def test_a_drained_node_ends_streams_and_answers_on(self):
        with Cluster(3) as cluster:
            cluster.start().wait_ready()
            leader = cluster.leader()
            asked = [leader, next(n for n in cluster.nodes if n is not leader)]
            messages, streams, ends = [queue.Queue() for _ in asked], [], []
            for node, lines in zip(asked, messages):
                streams.append(node.config.Write(iter(lines.get, None)))
                lines.put(config_pb2.WriteRequest(put=config_pb2.PutRequest(key="d", text="x")))
                next(streams[-1])
            cluster.wait_equal()
            for node, stream in zip(asked, streams):
                watch = node.config.Watch(config_pb2.WatchRequest(prefix="none"))
                next(watch)
                # On a busy machine nobody may take over in time; asked again it goes on trying.
                eventually(lambda: not node.control.Drain(cluster_pb2.DrainRequest(),
                                                          timeout=2 * CALL_S).leads, "it does not lead")
                for one in (stream, watch):
                    with self.assertRaises(grpc.RpcError) as raised:
                        for _ in one:  # a watch may hear first that the leader is another one
                            pass
                    ends.append(refusal(raised.exception))
                self.assertEqual(node.get("d").item.text, "x")
                node.control.Drain(cluster_pb2.DrainRequest(undo=True), timeout=2 * CALL_S)
                eventually(lambda: node.http("/readyz")[0] == 200, f"{node.name} is in service")
            for lines in messages:
                lines.put(None)
            for kind in (ends[0::2], ends[1::2]):
                agree(self, kind, "UNAVAILABLE", "DRAINING")
            story("leader and follower end streams alike when they are drained")

    def test_a_client_that_vanishes_leaves_nothing_behind(self):
        with Cluster(3) as cluster:
            cluster.start().wait_ready()
            follower = cluster.followers()[0]
            survivors = [n for n in cluster.nodes if n is not follower]
            for node in survivors:
                node.kill()
            futures = [follower.config.Put.future(config_pb2.PutRequest(key="gone", text="x"),
                                                  timeout=CALL_S) for _ in range(50)]
            for future in futures:
                future.cancel()
            follower.close_channel()
            for node in survivors:
                node.start()
            cluster.wait_ready()
            eventually(lambda: follower.put("after", "x"), "a write after the clients vanished")
            cluster.wait_equal()
            story("fifty callers vanished in mid-call; the node serves on")

    def test_a_node_that_is_in_no_cluster(self):
        with membership_test.founded(4) as cluster:
            for node in cluster.nodes:
                node.start()
            cluster.wait_ready(cluster.nodes[:3])
            waits = cluster.nodes[3]
            eventually(lambda: waits.status().lacks, "it serves")
            for path, request in ((CONFIG + "Put", put(key="k", text="x")),
                                  (CLUSTER + "Compact", cluster_pb2.CompactRequest(
                                      revision=1).SerializeToString()),
                                  (CLUSTER + "GetSettings", b"")):
                agree(self, [call(waits, path, request)], "UNAVAILABLE", "NOT_BORN")


# What no process test provokes at a leader and at a follower, and why. Each is shown by a test of
# the library that makes it.
ELSEWHERE = {
    "CHANGE_DEADLINE": "comes just before gRPC ends the call by itself: on a loaded machine too late",
    "CHANGE_IN_PROGRESS": "needs a leader that cannot commit for five seconds and still leads",
    "CONNECTION_AGE": "takes 25 minutes",
    "DEADLINE_TOO_SHORT": "needs a deadline that ends between two steps of one node",
    "NOT_CAUGHT_UP": "lasts some milliseconds after a store is let in",
    "NOT_IN_THIS_BUILD": "every declared call is in this build",
    "QUEUE_FULL": "needs more writes than a client's connection carries",
    "READERS_BUSY": "needs every reader of the database in one long read",
    "READ_DEADLINE": "needs a read that runs over its deadline, and began in time",
    "READ_FAILED": "needs a disk that fails",
    "REQUEST_ID_EXPIRED": "takes ten minutes",
    "REQUEST_IDS_FULL": "takes a million writes or 256 MiB",
    "TOO_MANY_CALLS": "needs more calls than a client's connection carries",
    "TOO_MANY_CHANGES": "takes a million keys",
    "TOO_MANY_ROWS": "takes two thousand keys, counted five hundred times",
    "TOO_MANY_READS": "needs more reads than a client's connection carries",
    "TOO_MANY_TTLS": "takes a hundred thousand grants",
    "TOO_MANY_WATCHES": "takes ten thousand watches",
    "WATCH_TOO_SLOW": "takes a minute",
    "WRITE_MALFORMED": "a fault of ours",
    "WRITE_NOT_UNDERSTOOD": "needs an older build",
}


class TheTableItself(unittest.TestCase):
    """Runs last. By itself it fails: it looks at what the others have shown."""

    def test_every_reason_of_the_api_is_shown(self):
        page = (ROOT / "docs/api.md").read_text(encoding="utf-8")
        told = set(re.findall(r"^\| `([A-Z_0-9]+)` \| [A-Z_]+ \|", page, re.MULTILINE))
        self.assertGreater(len(told), 60)
        self.assertEqual(told - SEEN - set(ELSEWHERE), set(), "no row shows these")
        self.assertEqual(SEEN & set(ELSEWHERE), set(), "a row does show these")
        self.assertEqual(SEEN - told, set(), "rows show these, docs/api.md does not tell of them")
        tests = "".join(file.read_text(encoding="utf-8")
                        for folder in ("services", "storage", "ingress")
                        for file in (ROOT / "tests" / folder).rglob("*.cc"))
        for reason in ELSEWHERE:
            self.assertTrue(re.search(rf"\b{reason}\b", tests), f"no unit test shows {reason}")
        story(f"{len(SEEN)} reasons shown alike, {len(ELSEWHERE)} by unit tests: all there are")


def load_tests(loader, _tests, _pattern):
    return unittest.TestSuite(loader.loadTestsFromTestCase(case)
                              for case in (ErrorTable, Members, Trouble, TheTableItself))


if __name__ == "__main__":
    main()
