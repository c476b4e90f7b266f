"""Every call and every error is the same at the leader and at a follower, byte for byte.

Requests are sent as raw bytes, so that malformed ones can be sent too. From an answer only what is
a node's own is set aside: node id and staleness, in a header or in an error's details.
"""

import queue
import unittest

import grpc
from google.protobuf import text_format

from quorate_cluster import (Cluster, cluster_pb2, config_pb2, error_details_pb2, error_info,
                             eventually, main, status_pb2, story)

CONFIG = "/quorate.v1.Config/"
CLUSTER = "/quorate.v1.Cluster/"
KEY_BYTES_MAX = 1024
VALUE_BYTES_MAX = 1 << 20
REVISION_MAX = (1 << 64) - 1  # what a client may write, and no store ever has


def call(node, method, request, timeout=10):
    """(code name, message, details bytes, reason, metadata, response bytes)."""
    raw = node.channel().unary_unary(method, request_serializer=lambda b: b,
                                     response_deserializer=lambda b: b)
    try:
        return ("OK", "", b"", None, {}, raw(request, timeout=timeout))
    except grpc.RpcError as error:
        details = b""
        for key, value in error.trailing_metadata() or ():
            if key == "grpc-status-details-bin":
                details = value
        reason, metadata = error_info(error)
        details, staleness = without_staleness(details)
        metadata.pop("staleness_ms", None)
        if reason == "KEY_NOT_FOUND" and (staleness is None or "revision" not in metadata):
            reason = "KEY_NOT_FOUND that does not say how fresh it is"
        return (error.code().name, error.details(), details, reason, metadata, b"")


def without_staleness(details):
    """(details bytes without ErrorInfo's staleness, that staleness or None)."""
    status = status_pb2.Status.FromString(details)
    staleness = None
    for detail in status.details:
        if not detail.type_url.endswith("google.rpc.ErrorInfo"):
            continue
        info = error_details_pb2.ErrorInfo.FromString(detail.value)
        if "staleness_ms" in info.metadata:
            staleness = info.metadata.pop("staleness_ms")
            detail.value = info.SerializeToString(deterministic=True)
    if staleness is None:
        return details, None
    return status.SerializeToString(deterministic=True), staleness


def put(**fields):
    return config_pb2.PutRequest(**fields).SerializeToString()


def length_delimited(number, payload):
    """One field on the wire, whatever the payload's bytes."""
    out = bytearray([number << 3 | 2])
    size = len(payload)
    while size >= 0x80:
        out.append(size & 0x7F | 0x80)
        size >>= 7
    out.append(size)
    return bytes(out) + payload


def grant(seconds, nanos=0, id=""):
    request = config_pb2.GrantTtlRequest(request_id=id)
    request.ttl.seconds, request.ttl.nanos = seconds, nanos
    return request.SerializeToString()


NO_TTL = "00000000000000aa"


def get(**fields):
    return config_pb2.GetRequest(**fields).SerializeToString()


def txn(text):
    return text_format.Parse(text, config_pb2.TxnRequest()).SerializeToString()


# name, method, request, code, reason, field named in the error (None: not looked at)
ERRORS = [
    ("an empty key", "Put", put(key="", text="x"), "INVALID_ARGUMENT", None, "key"),
    ("a key of 1,025 bytes", "Put", put(key="k" * (KEY_BYTES_MAX + 1), text="x"),
     None, None, "key"),
    ("a key with a control character", "Put", put(key="a\nb", text="x"), "INVALID_ARGUMENT", None,
     "key"),
    ("a key with DEL", "Put", put(key="a\x7f", text="x"), "INVALID_ARGUMENT", None, "key"),
    ("a key that is not UTF-8", "Put", length_delimited(1, b"\xff\xfe") + length_delimited(2, b"x"),
     "INVALID_ARGUMENT", None, "key"),
    ("a text that is not UTF-8", "Put", length_delimited(1, b"k") + length_delimited(2, b"\xc3\x28"),
     "INVALID_ARGUMENT", None, "text"),
    ("neither text nor data", "Put", put(key="k"), "INVALID_ARGUMENT", None, "value"),
    ("a value of 1 MiB and a byte", "Put", put(key="k", text="x" * (VALUE_BYTES_MAX + 1)),
     "RESOURCE_EXHAUSTED", "VALUE_TOO_LARGE", "text"),
    ("data of 7 MiB", "Put", put(key="k", data=b"x" * (7 << 20)),
     "RESOURCE_EXHAUSTED", "VALUE_TOO_LARGE", "data"),
    ("a note of 1,025 bytes", "Put", put(key="k", text="x", note="n" * 1025), None, None, "note"),
    ("an unknown field", "Put", put(key="k", text="x") + length_delimited(15, b"new"),
     "INVALID_ARGUMENT", None, "15"),
    ("a truncated request", "Put", length_delimited(1, b"key")[:-1], "INVALID_ARGUMENT", None,
     None),
    ("garbage", "Put", b"\xff\xff\xff\xff", "INVALID_ARGUMENT", None, None),
    ("a request id of 129 bytes", "Put", put(key="k", text="x", request_id="r" * 129),
     "RESOURCE_EXHAUSTED", "REQUEST_ID_TOO_LARGE", "request_id"),
    ("a request revision without an id", "Put", put(key="k", text="x", request_revision=3),
     "INVALID_ARGUMENT", None, "request_revision"),
    ("a request revision in the future", "Put",
     put(key="k", text="x", request_id="ahead", request_revision=1 << 40), "OUT_OF_RANGE",
     "REVISION_IN_FUTURE", "request_revision"),
    ("a request id that was used for another write", "Put",
     put(key="there", text="another", request_id="taken"), "INVALID_ARGUMENT", "REQUEST_ID_REUSED",
     "request_id"),
    ("a request id that was used, with another note", "Put",
     put(key="there", text="value", note="why", request_id="taken"), "INVALID_ARGUMENT",
     "REQUEST_ID_REUSED", "request_id"),
    ("a request id that was used for another call", "Delete",
     config_pb2.DeleteRequest(key="there", request_id="taken").SerializeToString(),
     "INVALID_ARGUMENT", "REQUEST_ID_REUSED", "request_id"),
    ("a transaction with a request id that was used", "Txn",
     txn("then { get { key: 'there' } } request_id: 'taken'"), "INVALID_ARGUMENT",
     "REQUEST_ID_REUSED", "request_id"),
    ("a rollback with a request id that was used", "Rollback",
     config_pb2.RollbackRequest(key="there", to_revision=1, request_id="taken").SerializeToString(),
     "INVALID_ARGUMENT", "REQUEST_ID_REUSED", "request_id"),
    ("a deletion's request id of 129 bytes", "Delete",
     config_pb2.DeleteRequest(key="there", request_id="r" * 129).SerializeToString(),
     "RESOURCE_EXHAUSTED", "REQUEST_ID_TOO_LARGE", "request_id"),
    ("a transaction's request revision without an id", "Txn",
     txn("then { get { key: 'there' } } request_revision: 2"), "INVALID_ARGUMENT", "INVALID_VALUE",
     "request_revision"),
    ("a rollback's request revision in the future", "Rollback",
     config_pb2.RollbackRequest(key="there", to_revision=1, request_id="ahead",
                                request_revision=REVISION_MAX).SerializeToString(),
     "OUT_OF_RANGE", "REVISION_IN_FUTURE", "request_revision"),
    ("a ttl_id that is none", "Put", put(key="k", text="x", ttl_id="t"), "INVALID_ARGUMENT", None,
     "ttl_id"),
    ("a time-to-live that is not there", "Put", put(key="k", text="x", ttl_id=NO_TTL), "NOT_FOUND",
     "TTL_NOT_FOUND", "ttl_id"),
    ("a transaction whose second put's time-to-live is not there", "Txn",
     txn("then { put { key: 'k' text: 'x' } }"
         f"then {{ put {{ key: 'l' text: 'x' ttl_id: '{NO_TTL}' }} }}"), "NOT_FOUND",
     "TTL_NOT_FOUND", "ttl_id"),
    ("a grant without a ttl", "GrantTtl", b"", "INVALID_ARGUMENT", None, "ttl"),
    ("a grant of half a second", "GrantTtl", grant(0, 500_000_000), "INVALID_ARGUMENT", None, "ttl"),
    ("a grant of 367 days", "GrantTtl", grant(367 * 24 * 3600), "INVALID_ARGUMENT", None, "ttl"),
    ("a grant with an unknown field", "GrantTtl", grant(1) + length_delimited(15, b"new"),
     "INVALID_ARGUMENT", None, "15"),
    ("a grant whose request id was used for another write", "GrantTtl", grant(1, id="taken"),
     "INVALID_ARGUMENT", "REQUEST_ID_REUSED", "request_id"),
    ("a revocation of nothing", "RevokeTtl", b"", "INVALID_ARGUMENT", None, "ttl_id"),
    ("a revocation of what is not there", "RevokeTtl",
     config_pb2.RevokeTtlRequest(ttl_id=NO_TTL).SerializeToString(), "NOT_FOUND", "TTL_NOT_FOUND",
     "ttl_id"),
    ("an expected revision not met", "Put", put(key="there", text="x", expected_revision=999),
     "ABORTED", "REVISION_MISMATCH", None),
    ("a key expected absent that is there", "Put", put(key="there", text="x", expected_revision=0),
     "ABORTED", "REVISION_MISMATCH", None),
    ("a key expected that is absent", "Put", put(key="absent", text="x", expected_revision=2),
     "ABORTED", "REVISION_MISMATCH", None),
    ("an impossible expected revision", "Put",
     put(key="there", text="x", expected_revision=REVISION_MAX), "ABORTED", "REVISION_MISMATCH",
     None),
    ("delete without a target", "Delete", b"", "INVALID_ARGUMENT", None, "key"),
    ("delete of an empty prefix", "Delete",
     config_pb2.DeleteRequest(prefix="").SerializeToString(), "INVALID_ARGUMENT", None, "prefix"),
    ("delete of a prefix with an expected revision", "Delete",
     config_pb2.DeleteRequest(prefix="a", expected_revision=1).SerializeToString(),
     "INVALID_ARGUMENT", None, "expected_revision"),
    ("delete with an expected revision not met", "Delete",
     config_pb2.DeleteRequest(key="there", expected_revision=999).SerializeToString(),
     "ABORTED", "REVISION_MISMATCH", None),
    ("get of an absent key", "Get", get(key="absent"), "NOT_FOUND", "KEY_NOT_FOUND", None),
    ("get of an empty key", "Get", get(key=""), "INVALID_ARGUMENT", None, "key"),
    ("get with an unknown field", "Get", get(key="there") + length_delimited(15, b"new"),
     "INVALID_ARGUMENT", None, "15"),
    ("a linearizable read of an absent key", "Get",
     get(key="absent", read=config_pb2.ReadOptions(consistency=3)), "NOT_FOUND", None, None),
    ("a lease read", "Get", get(key="there", read=config_pb2.ReadOptions(consistency=2)),
     "FAILED_PRECONDITION", "LEASES_OFF", "read.consistency"),
    ("a listing by lease", "List",
     config_pb2.ListRequest(read=config_pb2.ReadOptions(consistency=2)).SerializeToString(),
     "FAILED_PRECONDITION", "LEASES_OFF", "read.consistency"),
    ("a history by lease", "History",
     config_pb2.HistoryRequest(key="there", read=config_pb2.ReadOptions(consistency=2))
     .SerializeToString(), "FAILED_PRECONDITION", "LEASES_OFF", "read.consistency"),
    ("a lease read that is wrong otherwise too", "Get",
     get(key="", read=config_pb2.ReadOptions(consistency=2)), "INVALID_ARGUMENT", "KEY_EMPTY",
     "key"),
    ("a negative staleness", "Get",
     get(key="there", read=config_pb2.ReadOptions(max_staleness={"seconds": -1})),
     "INVALID_ARGUMENT", "INVALID_VALUE", "read.max_staleness"),
    ("a consistency that does not exist", "Get",
     get(key="there", read=config_pb2.ReadOptions(consistency=77)), "INVALID_ARGUMENT", None,
     "read.consistency"),
    ("before it was there", "Get", get(key="there", read=config_pb2.ReadOptions(at_revision=1)),
     "NOT_FOUND", "KEY_NOT_FOUND", None),
    ("an impossible revision", "Get",
     get(key="there", read=config_pb2.ReadOptions(at_revision=REVISION_MAX)), "OUT_OF_RANGE",
     "REVISION_IN_FUTURE", "read.at_revision"),
    ("a future revision", "Get", get(key="there", read=config_pb2.ReadOptions(at_revision=1 << 40)),
     "OUT_OF_RANGE", "REVISION_IN_FUTURE", "read.at_revision"),
    ("a listing of the future", "List",
     config_pb2.ListRequest(read=config_pb2.ReadOptions(at_revision=1 << 40)).SerializeToString(),
     "OUT_OF_RANGE", "REVISION_IN_FUTURE", "read.at_revision"),
    ("a page token with a revision", "List",
     config_pb2.ListRequest(page_token="x", read=config_pb2.ReadOptions(at_revision=1))
     .SerializeToString(), "INVALID_ARGUMENT", None, "read.at_revision"),
    ("history of an absent key", "History",
     config_pb2.HistoryRequest(key="absent").SerializeToString(), "NOT_FOUND", "KEY_NOT_FOUND",
     None),
    ("history with a damaged page token", "History",
     config_pb2.HistoryRequest(key="there", page_token="nonsense").SerializeToString(),
     "INVALID_ARGUMENT", "PAGE_TOKEN_INVALID", "page_token"),
    ("history of an empty key", "History", b"", "INVALID_ARGUMENT", "KEY_EMPTY", "key"),
    ("history of the future", "History",
     config_pb2.HistoryRequest(key="there", read=config_pb2.ReadOptions(at_revision=1 << 40))
     .SerializeToString(), "OUT_OF_RANGE", "REVISION_IN_FUTURE", "read.at_revision"),
    ("history before there was any", "History",
     config_pb2.HistoryRequest(key="there", read=config_pb2.ReadOptions(at_revision=1))
     .SerializeToString(), "NOT_FOUND", "KEY_NOT_FOUND", None),
    ("history with a page token and a revision", "History",
     config_pb2.HistoryRequest(key="there", page_token="x",
                               read=config_pb2.ReadOptions(at_revision=1)).SerializeToString(),
     "INVALID_ARGUMENT", "INVALID_VALUE", "read.at_revision"),
    ("history with a page token of 2,049 bytes", "History",
     config_pb2.HistoryRequest(key="there", page_token="x" * 2049).SerializeToString(),
     "RESOURCE_EXHAUSTED", "PAGE_TOKEN_TOO_LARGE", "page_token"),
    ("history with a page of 1,001", "History",
     config_pb2.HistoryRequest(key="there", page_size=1001).SerializeToString(),
     "INVALID_ARGUMENT", None, "page_size"),
    ("rollback without a target", "Rollback",
     config_pb2.RollbackRequest(to_revision=1).SerializeToString(), "INVALID_ARGUMENT",
     "TARGET_MISSING", "key"),
    ("rollback to no revision", "Rollback",
     config_pb2.RollbackRequest(key="there").SerializeToString(), "INVALID_ARGUMENT", None,
     "to_revision"),
    ("rollback to the future", "Rollback",
     config_pb2.RollbackRequest(key="there", to_revision=1 << 40).SerializeToString(),
     "OUT_OF_RANGE", "REVISION_IN_FUTURE", "to_revision"),
    ("rollback of an empty prefix", "Rollback",
     config_pb2.RollbackRequest(prefix="", to_revision=1).SerializeToString(), "INVALID_ARGUMENT",
     "PREFIX_EMPTY", "prefix"),
    ("rollback to an impossible revision", "Rollback",
     config_pb2.RollbackRequest(prefix="t", to_revision=REVISION_MAX).SerializeToString(),
     "OUT_OF_RANGE", "REVISION_IN_FUTURE", "to_revision"),
    ("rollback with a note of 1,025 bytes", "Rollback",
     config_pb2.RollbackRequest(key="there", to_revision=1, note="n" * 1025).SerializeToString(),
     "RESOURCE_EXHAUSTED", "NOTE_TOO_LARGE", "note"),
    ("a transaction with a key twice", "Txn", txn("then { put { key: 'a' text: '' } }"
                                                  "then { delete { prefix: 'a' } }"),
     "INVALID_ARGUMENT", "DUPLICATE_KEY", "then[1]"),
    ("an expected revision in a transaction", "Txn",
     txn("then { put { key: 'a' text: '' expected_revision: 0 } }"), "INVALID_ARGUMENT", None,
     "then[0].put.expected_revision"),
    ("a transaction with an empty operation", "Txn", txn("then { }"), "INVALID_ARGUMENT",
     "OPERATION_MISSING", "then[0]"),
    ("a condition without a comparison", "Txn", txn("conditions { key: 'a' version: 0 }"),
     "INVALID_ARGUMENT", None, "conditions[0].comparison"),
    ("a condition without a target", "Txn", txn("conditions { key: 'a' comparison: 1 }"),
     "INVALID_ARGUMENT", "TARGET_MISSING", "conditions[0].target"),
    ("a condition on an empty key", "Txn", txn("conditions { comparison: 1 version: 0 }"),
     "INVALID_ARGUMENT", "KEY_EMPTY", "conditions[0].key"),
    ("a condition's value of 1 MiB and a byte", "Txn",
     txn(f"conditions {{ key: 'a' comparison: 1 text: '{'x' * (VALUE_BYTES_MAX + 1)}' }}"),
     "RESOURCE_EXHAUSTED", "VALUE_TOO_LARGE", "conditions[0].text"),
    ("a value of 1 MiB and a byte in a transaction", "Txn",
     txn(f"else {{ put {{ key: 'a' text: '{'x' * (VALUE_BYTES_MAX + 1)}' }} }}"),
     "RESOURCE_EXHAUSTED", "VALUE_TOO_LARGE", "else[0].put.text"),
    ("a request id within a transaction", "Txn",
     txn("then { put { key: 'a' text: '' request_id: 'r' } }"), "INVALID_ARGUMENT",
     "INVALID_VALUE", "then[0].put.request_id"),
    ("a consistency within a transaction", "Txn",
     txn("then { get { key: 'a' read { consistency: CONSISTENCY_LEASE } } }"), "INVALID_ARGUMENT",
     "INVALID_VALUE", "then[0].get.read"),
    ("a page within a transaction", "Txn", txn("then { list { prefix: 'a' page_size: 3 } }"),
     "INVALID_ARGUMENT", "INVALID_VALUE", "then[0].list.page_size"),
    ("a transaction with a note of 1,025 bytes", "Txn",
     txn(f"then {{ get {{ key: 'a' }} }} note: '{'n' * 1025}'"), "RESOURCE_EXHAUSTED",
     "NOTE_TOO_LARGE", "note"),
    ("513 conditions", "Txn", txn("conditions { key: 'a' comparison: 1 version: 0 }" * 513),
     "RESOURCE_EXHAUSTED", "TXN_TOO_MANY_OPERATIONS", "conditions"),
    ("513 operations of the other branch", "Txn", txn("else { get { key: 'a' } }" * 513),
     "RESOURCE_EXHAUSTED", "TXN_TOO_MANY_OPERATIONS", "else"),
    ("513 operations", "Txn", txn("then { get { key: 'a' } }" * 513), "RESOURCE_EXHAUSTED",
     "TXN_TOO_MANY_OPERATIONS", "then"),
    ("a transaction of over 4 MiB", "Txn",
     txn("".join(f"then {{ put {{ key: '{i}' text: '{'x' * (1 << 20)}' }} }}" for i in range(4))),
     "RESOURCE_EXHAUSTED", "TXN_TOO_LARGE", "request"),
    ("a transaction that reads 3 MiB", "Txn",
     txn("then { get { key: 'big/1' } } then { get { key: 'big/2' } }"
         "then { get { key: 'big/3' } } then { put { key: 'there' text: 'lost' } }"),
     "RESOURCE_EXHAUSTED", "TXN_RESULT_TOO_LARGE", None),
    ("a damaged page token", "List",
     config_pb2.ListRequest(page_token="nonsense").SerializeToString(), "INVALID_ARGUMENT", None,
     "page_token"),
    ("a page of 1,001 items", "List", config_pb2.ListRequest(page_size=1001).SerializeToString(),
     "INVALID_ARGUMENT", None, "page_size"),
    ("count together with a page size", "List",
     config_pb2.ListRequest(page_size=3, count_only=True).SerializeToString(), "INVALID_ARGUMENT",
     None, None),
    ("a prefix with a control character", "List",
     config_pb2.ListRequest(prefix="a\x00").SerializeToString(), "INVALID_ARGUMENT", None,
     "prefix"),
    ("a watch of nothing", "Watch", b"", "INVALID_ARGUMENT", "TARGET_MISSING", "key"),
    ("a watch of an empty key", "Watch", config_pb2.WatchRequest(key="").SerializeToString(),
     "INVALID_ARGUMENT", "KEY_EMPTY", "key"),
    ("a watch from a revision and with the state", "Watch",
     config_pb2.WatchRequest(prefix="", start_revision=1,
                             with_initial_state=True).SerializeToString(),
     "INVALID_ARGUMENT", "INVALID_VALUE", "with_initial_state"),
    ("a watch with an unknown field", "Watch",
     config_pb2.WatchRequest(prefix="").SerializeToString() + length_delimited(15, b"new"),
     "INVALID_ARGUMENT", "UNKNOWN_FIELD", "15"),
    ("a watch with marks every minute", "Watch",
     config_pb2.WatchRequest(prefix="", progress_interval={"seconds": 60}).SerializeToString(),
     "INVALID_ARGUMENT", "INVALID_VALUE", "progress_interval"),
    ("a watch on an impossible revision", "Watch",
     config_pb2.WatchRequest(key="there", start_revision=REVISION_MAX).SerializeToString(),
     "OUT_OF_RANGE", "REVISION_IN_FUTURE", "start_revision"),
    ("a watch on the future", "Watch",
     config_pb2.WatchRequest(prefix="", start_revision=10**9).SerializeToString(),
     "OUT_OF_RANGE", "REVISION_IN_FUTURE", "start_revision"),
]

NOT_BUILT = []  # calls that are declared and not in this build


def member(kind, **fields):
    return getattr(cluster_pb2, kind + "MemberRequest")(**fields).SerializeToString()


# The same of quorate.v1.Cluster. Nothing answers at port 9 of loopback.
CLUSTER_ERRORS = [
    ("no address", "AddMember", b"", "INVALID_ARGUMENT", "REQUIRED", "address"),
    ("an address without a port", "AddMember", member("Add", address="host"), "INVALID_ARGUMENT",
     "ADDRESS_INVALID", "address"),
    ("an address of no host", "AddMember", member("Add", address="0.0.0.0:7000"),
     "INVALID_ARGUMENT", "ADDRESS_INVALID", "address"),
    ("an unknown field", "AddMember", member("Add", address="h:1") + length_delimited(15, b"x"),
     "INVALID_ARGUMENT", "UNKNOWN_FIELD", "15"),
    ("an address where nobody answers", "AddMember", member("Add", address="127.0.0.1:9"),
     "UNAVAILABLE", "NODE_SILENT", "127.0.0.1:9"),
    ("no name", "RemoveMember", b"", "INVALID_ARGUMENT", "REQUIRED", "node_id"),
    ("a store id that is none", "RemoveMember", member("Remove", node_id="node-1", store_id="x"),
     "INVALID_ARGUMENT", "STORE_ID_INVALID", "store_id"),
    ("nobody's name", "RemoveMember", member("Remove", node_id="node-9"), "NOT_FOUND",
     "MEMBER_NOT_FOUND", "node-9"),
    ("another store of a member's name", "RemoveMember",
     member("Remove", node_id="node-1", store_id="0123456789abcdef"), "NOT_FOUND",
     "MEMBER_NOT_FOUND", "node-1"),
    ("no name", "PromoteMember", b"", "INVALID_ARGUMENT", "REQUIRED", "node_id"),
    ("nobody's name", "PromoteMember", member("Promote", node_id="node-9"), "NOT_FOUND",
     "MEMBER_NOT_FOUND", "node-9"),
    ("a name of 256 bytes", "DemoteMember", member("Demote", node_id="n" * 256),
     "INVALID_ARGUMENT", "NODE_ID_TOO_LARGE", "node_id"),
    ("nobody's name", "DemoteMember", member("Demote", node_id="node-9"), "NOT_FOUND",
     "MEMBER_NOT_FOUND", "node-9"),
    ("nobody's name", "TransferLeadership",
     cluster_pb2.TransferLeadershipRequest(node_id="node-9").SerializeToString(), "NOT_FOUND",
     "MEMBER_NOT_FOUND", "node-9"),
    ("garbage", "TransferLeadership", b"\xff\xff", "INVALID_ARGUMENT", None, None),
    ("no revision", "Compact", b"", "INVALID_ARGUMENT", "REQUIRED", "revision"),
    ("a revision in the future", "Compact",
     cluster_pb2.CompactRequest(revision=1 << 40).SerializeToString(), "OUT_OF_RANGE",
     "REVISION_IN_FUTURE", None),
]


class ErrorTable(unittest.TestCase):
    def test_leader_and_follower_answer_alike(self):
        with Cluster(3) as cluster:
            cluster.start().wait_ready()
            leader = cluster.leader()
            follower = cluster.followers()[0]
            leader.config.Put(config_pb2.PutRequest(key="there", text="value", request_id="taken"),
                              timeout=10)
            for i in range(3):
                leader.config.Put(config_pb2.PutRequest(key=f"big/{i + 1}",
                                                        data=b"x" * VALUE_BYTES_MAX), timeout=10)
            cluster.wait_equal()
            self.errors(leader, follower)
            self.not_built(leader, follower)
            self.repeats(leader, follower)
            self.streamed(leader, follower)
            self.streamed_errors(leader, follower)
            self.time_to_live(leader, follower)
            self.successes(cluster, leader, follower)
            for node in cluster.nodes:
                items = node.list_all()
                self.assertEqual([(i.key, i.text) for i in items if not i.key.startswith(("ok/", "big/"))],
                                 [("there", "value")], "a refused write left something behind")
            story("no refused write left anything behind on any node")

    def errors(self, leader, follower):
        rows = [(CONFIG,) + row for row in ERRORS] + [(CLUSTER,) + row for row in CLUSTER_ERRORS]
        for service, name, method, request, code, reason, field in rows:
            with self.subTest(name, method=method):
                at_leader = call(leader, service + method, request)
                at_follower = call(follower, service + method, request)
                self.assertEqual(at_leader, at_follower)
                if code:
                    self.assertEqual(at_leader[0], code, at_leader)
                else:
                    self.assertIn(at_leader[0], ("INVALID_ARGUMENT", "RESOURCE_EXHAUSTED"))
                self.assertIsNotNone(at_leader[3], f"no ErrorInfo: {at_leader}")
                if reason:
                    self.assertEqual(at_leader[3], reason)
                if field:
                    self.assertIn(field, at_leader[1], "the message does not name the field")
                self.assertTrue(status_pb2.Status.FromString(at_leader[2]).code)
                print(f"  {method:7} {name}: {at_leader[0]} {at_leader[3]}: {at_leader[1][:100]}")

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
            leader.config.Delete(config_pb2.DeleteRequest(key="ok/repeat"), timeout=10)
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
            got = list(node.config.Write(iter(writes), timeout=20))
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
                iter([config_pb2.KeepAliveTtlRequest(ttl_id=i) for i in ids]), timeout=20))
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

    def not_built(self, leader, follower):
        for method in NOT_BUILT:
            with self.subTest(method):
                path = "/quorate.v1." + method
                at_leader, at_follower = call(leader, path, b""), call(follower, path, b"")
                self.assertEqual(at_leader, at_follower)
                self.assertEqual(at_leader[0], "UNIMPLEMENTED")
                self.assertIn(method.split("/")[1], at_leader[1])

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
                 lambda k: txn(f"conditions {{ key: '{k}' comparison: 1 mod_revision: {REVISION_MAX} }}"
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
                 cluster_pb2.CompactResponse)]
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
            leader.config.Delete(config_pb2.DeleteRequest(key="gone"), timeout=10)
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
                    at_leader, at_follower = [call(n, CONFIG + method, request)
                                              for n in (leader, follower)]
                    self.assertEqual(at_leader, at_follower)
                    self.assertEqual((at_leader[0], at_leader[3]),
                                     ("OUT_OF_RANGE", "REVISION_COMPACTED"), at_leader)
            for node in (leader, follower):
                self.assertEqual([i.text for i in node.list_all()], ["3"])
                # A watch of what is gone is no error: it begins anew, with what is there.
                stream = node.config.Watch(config_pb2.WatchRequest(key="there", start_revision=first))
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
                messages.put(config_pb2.WriteRequest(put=config_pb2.PutRequest(key="s", text=str(i))))
            for i in range(1, 4):
                write(i)
                self.assertEqual(next(stream).put.version, i)
            self.assertEqual(node.stop(), 0)
            with self.assertRaises(grpc.RpcError) as raised:
                next(stream)
            messages.put(None)
            self.assertEqual((raised.exception.code(), error_info(raised.exception)[0]),
                             (grpc.StatusCode.UNAVAILABLE, "SHUTTING_DOWN"))
            node.start()
            cluster.wait_ready()
            self.assertEqual(eventually(lambda: node.get("s"), "it serves").item.version, 3)
            story("a stream was told that its node stops: what had no answer was not done")

    def test_a_client_that_vanishes_leaves_nothing_behind(self):
        with Cluster(3) as cluster:
            cluster.start().wait_ready()
            follower = cluster.followers()[0]
            survivors = [n for n in cluster.nodes if n is not follower]
            for node in survivors:
                node.kill()
            futures = [follower.config.Put.future(config_pb2.PutRequest(key="gone", text="x"),
                                                  timeout=10) for _ in range(50)]
            for future in futures:
                future.cancel()
            follower.close_channel()
            for node in survivors:
                node.start()
            cluster.wait_ready()
            eventually(lambda: follower.put("after", "x"), "a write after the clients vanished")
            cluster.wait_equal()
            story("fifty callers vanished in mid-call; the node serves on")


if __name__ == "__main__":
    main()
