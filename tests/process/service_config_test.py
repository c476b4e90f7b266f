"""The published service configs: gRPC takes them, and does with each call what they promise.

A server that only ever says no counts how often it is asked.
"""

import concurrent.futures
import json
import threading
import unittest

import grpc
from google.protobuf import descriptor_pb2

from quorate_cluster import ROOT, cluster_pb2, config_pb2, free_port, main, story

FOLDER = ROOT / "examples/service_config"
CONFIG = config_pb2.DESCRIPTOR.services_by_name["Config"]
CLUSTER = cluster_pb2.DESCRIPTOR.services_by_name["Cluster"]
READS = {"Get", "List", "History", "Status", "ListMembers"}
ATTEMPTS = 5


def load(name):
    with open(FOLDER / f"{name}.json", encoding="utf-8") as file:
        return file.read()


def methods(text):
    """{(service, method): its method config}; each may be there once."""
    found = {}
    for config in json.loads(text)["methodConfig"]:
        for name in config["name"]:
            key = (name["service"], name["method"])
            assert key not in found, f"{key} twice"
            found[key] = config
    return found


def streams(method):
    """Python's descriptors of this version do not say it."""
    file = descriptor_pb2.FileDescriptorProto.FromString(
        method.containing_service.file.serialized_pb)
    service = next(s for s in file.service if s.name == method.containing_service.name)
    found = next(m for m in service.method if m.name == method.name)
    return found.client_streaming or found.server_streaming


class NoSayer(grpc.GenericRpcHandler):
    """Answers every call with one code, and counts."""

    def __init__(self, code):
        self.code = code
        self.lock = threading.Lock()
        self.calls = {}

    def service(self, details):
        def refuse(_, context):
            with self.lock:
                self.calls[details.method] = self.calls.get(details.method, 0) + 1
            context.abort(self.code, "no")
        return grpc.unary_unary_rpc_method_handler(refuse)


class ServiceConfig(unittest.TestCase):
    def test_they_name_methods_that_exist(self):
        for name in ("reads", "writes_with_request_id"):
            named = methods(load(name))
            for service, method in named:
                found = {s.full_name: s for s in (CONFIG, CLUSTER)}[service]
                self.assertIn(method, found.methods_by_name)
            # A call that is new here has to be put in its place; streams are resumed by callers.
            unary = {m.name for m in CONFIG.methods if not streams(m)}
            self.assertEqual({m for s, m in named if s == CONFIG.full_name}, unary)

    def test_what_is_sent_again_is_a_read_or_has_a_request_id(self):
        for name, config in (("reads", load("reads")),
                             ("writes_with_request_id", load("writes_with_request_id"))):
            for (service, method), each in methods(config).items():
                found = {s.full_name: s for s in (CONFIG, CLUSTER)}[service].methods_by_name[method]
                named = "request_id" in found.input_type.fields_by_name
                self.assertNotEqual(named, method in READS)
                again = "retryPolicy" in each
                self.assertEqual(again, method in READS or name != "reads", f"{name}: {method}")
                if again:
                    self.assertEqual(each["retryPolicy"]["retryableStatusCodes"], ["UNAVAILABLE"])

    def test_grpc_does_as_they_say(self):
        self.refuse("reads", grpc.StatusCode.UNAVAILABLE, lambda m: ATTEMPTS if m in READS else 1)
        story("reads.json: reads are asked for five times, writes once")
        self.refuse("writes_with_request_id", grpc.StatusCode.UNAVAILABLE, lambda m: ATTEMPTS)
        story("writes_with_request_id.json: all are sent five times")
        for code in (grpc.StatusCode.ABORTED, grpc.StatusCode.DEADLINE_EXCEEDED,
                     grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.FAILED_PRECONDITION):
            self.refuse("writes_with_request_id", code, lambda m: 1)
        story("and nothing is sent again after an answer")

    def refuse(self, name, code, expected):
        handler = NoSayer(code)
        server = grpc.server(concurrent.futures.ThreadPoolExecutor(max_workers=16))
        server.add_generic_rpc_handlers((handler,))
        port = free_port()
        self.assertEqual(server.add_insecure_port(f"127.0.0.1:{port}"), port)
        server.start()
        try:
            with grpc.insecure_channel(f"ipv4:127.0.0.1:{port}", options=[
                    ("grpc.service_config", load(name)),
                    ("grpc.use_local_subchannel_pool", 1)]) as channel:
                calls = {}
                for service, method in methods(load(name)):
                    raw = channel.unary_unary(f"/{service}/{method}",
                                              request_serializer=lambda b: b,
                                              response_deserializer=lambda b: b)
                    calls[(service, method)] = raw.future(b"")
                for (service, method), call in calls.items():
                    self.assertEqual(call.exception(60).code(), code)
                    path = f"/{service}/{method}"
                    self.assertEqual(handler.calls[path], expected(method), f"{name}: {path}")
        finally:
            server.stop(None).wait()

    def test_a_damaged_one_is_refused(self):
        """So that the tests above do not pass for want of being read."""
        with grpc.insecure_channel("ipv4:127.0.0.1:1", options=[
                ("grpc.service_config", '{"methodConfig": 7}')]) as channel:
            call = channel.unary_unary("/quorate.v1.Config/Get", request_serializer=lambda b: b,
                                       response_deserializer=lambda b: b)
            with self.assertRaises(grpc.RpcError) as refused:
                call(b"", timeout=10)
        self.assertIn("Failed to create", refused.exception.details())


if __name__ == "__main__":
    main()
