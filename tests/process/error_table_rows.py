"""What the table of errors is made of: requests, and how each of them is refused.

Requests are raw bytes, so that malformed ones can be sent too. From an answer only what is a node's
own is set aside: node id and staleness, in a header or in an error's details.
"""

import grpc
from google.protobuf import text_format

from quorate_cluster import (CALL_S, cluster_pb2, config_pb2, error_details_pb2, error_info,
                             status_pb2)

CONFIG = "/quorate.v1.Config/"
CLUSTER = "/quorate.v1.Cluster/"
KEY_BYTES_MAX = 1024
VALUE_BYTES_MAX = 1 << 20
REVISION_MAX = (1 << 64) - 1  # what a client may write, and no store ever has


SEEN = set()  # every reason that was shown to be told alike


def call(node, method, request, timeout=CALL_S, deadline=None):
    """(code name, message, details bytes, reason, metadata, response bytes).

    `deadline` ("2S") is told to the node only: the answer is the node's, not gRPC's own here."""
    raw = node.channel().unary_unary(method, request_serializer=lambda b: b,
                                     response_deserializer=lambda b: b)
    told = {"metadata": (("grpc-timeout", deadline),)} if deadline else {"timeout": timeout}
    try:
        return ("OK", "", b"", None, {}, raw(request, **told))
    except grpc.RpcError as error:
        return refusal(error)


def refusal(error):
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


def agree(test, answers, code, reason, field=None):
    """One refusal, told alike by all: code, message, details byte for byte. Returns its message."""
    first = answers[0]
    test.assertEqual((first[0], first[3]), (code, reason), first)
    for other in answers[1:]:
        test.assertEqual(first, other)
    if field:
        test.assertIn(field, first[1], "the message does not name the field")
    test.assertEqual(status_pb2.Status.FromString(first[2]).code, grpc.StatusCode[code].value[0])
    SEEN.add(reason)
    return first[1]


def alike(test, nodes, path, request, code, reason, field=None):
    """A refusal, which every one of `nodes` tells alike; its message."""
    message = agree(test, [call(n, path, request) for n in nodes], code, reason, field)
    print(f"  {path.rsplit('/', 1)[1]}: {code} {reason}: {message[:150]}", flush=True)
    return message


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


# name, method, request, code, reason, what the message names (None: not looked at)
ERRORS = [
    ("an empty key", "Put", put(key="", text="x"), "INVALID_ARGUMENT", "KEY_EMPTY", "key"),
    ("a key of 1,025 bytes", "Put", put(key="k" * (KEY_BYTES_MAX + 1), text="x"),
     "RESOURCE_EXHAUSTED", "KEY_TOO_LARGE", "key"),
    ("a key with a control character", "Put", put(key="a\nb", text="x"),
     "INVALID_ARGUMENT", "KEY_CONTROL_CHARACTER", "key"),
    ("a key with DEL", "Put", put(key="a\x7f", text="x"),
     "INVALID_ARGUMENT", "KEY_CONTROL_CHARACTER", "key"),
    ("a key that is not UTF-8", "Put", length_delimited(1, b"\xff\xfe") + length_delimited(2, b"x"),
     "INVALID_ARGUMENT", "INVALID_UTF8", "key"),
    ("a text that is not UTF-8", "Put",
     length_delimited(1, b"k") + length_delimited(2, b"\xc3\x28"),
     "INVALID_ARGUMENT", "INVALID_UTF8", "text"),
    ("neither text nor data", "Put", put(key="k"), "INVALID_ARGUMENT", "VALUE_MISSING", "value"),
    ("a value of 1 MiB and a byte", "Put", put(key="k", text="x" * (VALUE_BYTES_MAX + 1)),
     "RESOURCE_EXHAUSTED", "VALUE_TOO_LARGE", "text"),
    ("data of 7 MiB", "Put", put(key="k", data=b"x" * (7 << 20)),
     "RESOURCE_EXHAUSTED", "VALUE_TOO_LARGE", "data"),
    ("a note of 1,025 bytes", "Put", put(key="k", text="x", note="n" * 1025),
     "RESOURCE_EXHAUSTED", "NOTE_TOO_LARGE", "note"),
    ("an unknown field", "Put", put(key="k", text="x") + length_delimited(15, b"new"),
     "INVALID_ARGUMENT", "UNKNOWN_FIELD", "15"),
    ("a key that is a number", "Put", b"\x08\x01" + length_delimited(2, b"x"),
     "INVALID_ARGUMENT", "WRONG_TYPE", "key"),
    ("a truncated request", "Put", length_delimited(1, b"key")[:-1],
     "INVALID_ARGUMENT", "INVALID_REQUEST", None),
    ("garbage", "Put", b"\xff\xff\xff\xff", "INVALID_ARGUMENT", "INVALID_REQUEST", None),
    ("a request id of 129 bytes", "Put", put(key="k", text="x", request_id="r" * 129),
     "RESOURCE_EXHAUSTED", "REQUEST_ID_TOO_LARGE", "request_id"),
    ("a request revision without an id", "Put", put(key="k", text="x", request_revision=3),
     "INVALID_ARGUMENT", "INVALID_VALUE", "request_revision"),
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
    ("a ttl_id that is none", "Put", put(key="k", text="x", ttl_id="t"),
     "INVALID_ARGUMENT", "INVALID_VALUE", "ttl_id"),
    ("a time-to-live that is not there", "Put", put(key="k", text="x", ttl_id=NO_TTL), "NOT_FOUND",
     "TTL_NOT_FOUND", "ttl_id"),
    ("a transaction whose second put's time-to-live is not there", "Txn",
     txn("then { put { key: 'k' text: 'x' } }"
         f"then {{ put {{ key: 'l' text: 'x' ttl_id: '{NO_TTL}' }} }}"), "NOT_FOUND",
     "TTL_NOT_FOUND", "ttl_id"),
    ("a grant without a ttl", "GrantTtl", b"", "INVALID_ARGUMENT", "INVALID_VALUE", "ttl"),
    ("a grant of half a second", "GrantTtl", grant(0, 500_000_000),
     "INVALID_ARGUMENT", "INVALID_VALUE", "ttl"),
    ("a grant of 367 days", "GrantTtl", grant(367 * 24 * 3600),
     "INVALID_ARGUMENT", "INVALID_VALUE", "ttl"),
    ("a grant with an unknown field", "GrantTtl", grant(1) + length_delimited(15, b"new"),
     "INVALID_ARGUMENT", "UNKNOWN_FIELD", "15"),
    ("a grant whose request id was used for another write", "GrantTtl", grant(1, id="taken"),
     "INVALID_ARGUMENT", "REQUEST_ID_REUSED", "request_id"),
    ("a revocation of nothing", "RevokeTtl", b"", "INVALID_ARGUMENT", "INVALID_VALUE", "ttl_id"),
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
    ("delete without a target", "Delete", b"", "INVALID_ARGUMENT", "TARGET_MISSING", "key"),
    ("delete of an empty prefix", "Delete",
     config_pb2.DeleteRequest(prefix="").SerializeToString(),
     "INVALID_ARGUMENT", "PREFIX_EMPTY", "prefix"),
    ("delete of a prefix with an expected revision", "Delete",
     config_pb2.DeleteRequest(prefix="a", expected_revision=1).SerializeToString(),
     "INVALID_ARGUMENT", "INVALID_VALUE", "expected_revision"),
    ("delete with an expected revision not met", "Delete",
     config_pb2.DeleteRequest(key="there", expected_revision=999).SerializeToString(),
     "ABORTED", "REVISION_MISMATCH", None),
    ("get of an absent key", "Get", get(key="absent"), "NOT_FOUND", "KEY_NOT_FOUND", None),
    ("get of an empty key", "Get", get(key=""), "INVALID_ARGUMENT", "KEY_EMPTY", "key"),
    ("get with an unknown field", "Get", get(key="there") + length_delimited(15, b"new"),
     "INVALID_ARGUMENT", "UNKNOWN_FIELD", "15"),
    ("a linearizable read of an absent key", "Get",
     get(key="absent", read=config_pb2.ReadOptions(consistency=3)),
     "NOT_FOUND", "KEY_NOT_FOUND", None),
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
     get(key="there", read=config_pb2.ReadOptions(consistency=77)),
     "INVALID_ARGUMENT", "INVALID_VALUE", "read.consistency"),
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
     .SerializeToString(), "INVALID_ARGUMENT", "INVALID_VALUE", "read.at_revision"),
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
     "INVALID_ARGUMENT", "INVALID_VALUE", "page_size"),
    ("rollback without a target", "Rollback",
     config_pb2.RollbackRequest(to_revision=1).SerializeToString(), "INVALID_ARGUMENT",
     "TARGET_MISSING", "key"),
    ("rollback to no revision", "Rollback",
     config_pb2.RollbackRequest(key="there").SerializeToString(),
     "INVALID_ARGUMENT", "INVALID_VALUE", "to_revision"),
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
     txn("then { put { key: 'a' text: '' expected_revision: 0 } }"),
     "INVALID_ARGUMENT", "INVALID_VALUE", "then[0].put.expected_revision"),
    ("a transaction with an empty operation", "Txn", txn("then { }"), "INVALID_ARGUMENT",
     "OPERATION_MISSING", "then[0]"),
    ("a condition without a comparison", "Txn", txn("conditions { key: 'a' version: 0 }"),
     "INVALID_ARGUMENT", "INVALID_VALUE", "conditions[0].comparison"),
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
     config_pb2.ListRequest(page_token="nonsense").SerializeToString(),
     "INVALID_ARGUMENT", "PAGE_TOKEN_INVALID", "page_token"),
    ("a page of 1,001 items", "List", config_pb2.ListRequest(page_size=1001).SerializeToString(),
     "INVALID_ARGUMENT", "INVALID_VALUE", "page_size"),
    ("count together with a page size", "List",
     config_pb2.ListRequest(page_size=3, count_only=True).SerializeToString(), "INVALID_ARGUMENT",
     "INVALID_VALUE", None),
    ("a prefix with a control character", "List",
     config_pb2.ListRequest(prefix="a\x00").SerializeToString(),
     "INVALID_ARGUMENT", "KEY_CONTROL_CHARACTER", "prefix"),
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
    ("garbage", "TransferLeadership", b"\xff\xff", "INVALID_ARGUMENT", "INVALID_REQUEST", None),
    ("no revision", "Compact", b"", "INVALID_ARGUMENT", "REQUIRED", "revision"),
    ("a revision in the future", "Compact",
     cluster_pb2.CompactRequest(revision=1 << 40).SerializeToString(), "OUT_OF_RANGE",
     "REVISION_IN_FUTURE", None),
    ("an unknown field", "Drain", length_delimited(15, b"x"), "INVALID_ARGUMENT", "UNKNOWN_FIELD",
     "15"),
    ("no setting", "SetSettings", b"", "INVALID_ARGUMENT", "REQUIRED", "leases"),
    ("a setting of a newer build", "SetSettings", length_delimited(15, b"x"), "INVALID_ARGUMENT",
     "UNKNOWN_FIELD", "15"),
    ("an unknown field", "GetSettings", length_delimited(15, b"x"), "INVALID_ARGUMENT",
     "UNKNOWN_FIELD", "15"),
]
