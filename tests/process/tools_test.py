"""The tools that operators use: grpcurl through reflection, promtool over /metrics, the CLI.

Where grpcurl could not be had, its part says so by name as skipped, and the same script runs through
a reflection client of our own.
"""

import json
import os
import pathlib
import shutil
import subprocess
import unittest

import grpc
from google.protobuf import descriptor_pb2, descriptor_pool, json_format, message_factory

from quorate_cluster import BINARY, CALL_S, ROOT, Cluster, config_pb2, eventually, main, story


def find_tool(name):
    """Where tools/setup puts it, or the PATH."""
    candidate = ROOT / "build/tools" / name
    for path in (candidate, ROOT / "build/tools/bin" / name):
        if path.exists():
            return str(path)
    return shutil.which(name)


class ReflectionClient:
    """What grpcurl does, in a few lines: asks the server for its descriptors, speaks JSON."""

    def __init__(self, node):
        self.node = node
        self.pool = descriptor_pool.DescriptorPool()
        self.files = {}
        self.known = set()
        text = descriptor_pb2.FileDescriptorProto()
        text.name = "reflection.proto"
        text.package = "grpc.reflection.v1alpha"
        request = text.message_type.add(name="ServerReflectionRequest")
        for number, name in ((1, "host"), (3, "file_by_filename"), (4, "file_containing_symbol"),
                             (7, "list_services")):
            request.field.add(name=name, number=number, type=9, label=1)
        files = text.message_type.add(name="FileDescriptorResponse")
        files.field.add(name="file_descriptor_proto", number=1, type=12, label=3)
        service = text.message_type.add(name="ServiceResponse")
        service.field.add(name="name", number=1, type=9, label=1)
        services = text.message_type.add(name="ListServiceResponse")
        services.field.add(name="service", number=1, type=11, label=3,
                           type_name=".grpc.reflection.v1alpha.ServiceResponse")
        response = text.message_type.add(name="ServerReflectionResponse")
        response.field.add(name="file_descriptor_response", number=4, type=11, label=1,
                           type_name=".grpc.reflection.v1alpha.FileDescriptorResponse")
        response.field.add(name="list_services_response", number=6, type=11, label=1,
                           type_name=".grpc.reflection.v1alpha.ListServiceResponse")
        own = descriptor_pool.DescriptorPool()
        own.Add(text)
        factory = message_factory.MessageFactory(own)
        self.request = factory.GetPrototype(own.FindMessageTypeByName(
            "grpc.reflection.v1alpha.ServerReflectionRequest"))
        self.response = factory.GetPrototype(own.FindMessageTypeByName(
            "grpc.reflection.v1alpha.ServerReflectionResponse"))

    def ask(self, **fields):
        stream = self.node.channel().stream_stream(
            "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
            request_serializer=lambda m: m.SerializeToString(),
            response_deserializer=self.response.FromString)
        return next(iter(stream(iter([self.request(**fields)]), timeout=CALL_S)))

    def list(self):
        return [s.name for s in self.ask(list_services="*").list_services_response.service]

    def load(self, symbol):
        """Asks for the file of a symbol and adds it with all it imports."""
        def add(raw):
            proto = descriptor_pb2.FileDescriptorProto.FromString(raw)
            if proto.name in self.known:
                return
            self.known.add(proto.name)
            for dependency in proto.dependency:
                if dependency not in self.known:
                    answer = self.ask(file_by_filename=dependency)
                    for more in answer.file_descriptor_response.file_descriptor_proto:
                        add(more)
            self.pool.Add(proto)
        for raw in self.ask(file_containing_symbol=symbol
                            ).file_descriptor_response.file_descriptor_proto:
            add(raw)
        return self.pool.FindServiceByName(symbol)

    def call(self, service, method, request):
        found = self.load(service).methods_by_name[method]
        factory = message_factory.MessageFactory(self.pool)
        message = json_format.ParseDict(request, factory.GetPrototype(found.input_type)())
        unary = self.node.channel().unary_unary(
            f"/{service}/{method}", request_serializer=lambda m: m.SerializeToString(),
            response_deserializer=factory.GetPrototype(found.output_type).FromString)
        return json_format.MessageToDict(unary(message, timeout=CALL_S))


class Grpcurl:
    """The real one, with the same verbs."""

    def __init__(self, path, node):
        self.path, self.node = path, node

    def run(self, *arguments):
        done = subprocess.run([self.path, "-plaintext", *arguments], capture_output=True,
                              text=True, timeout=60)
        if done.returncode != 0:
            raise AssertionError(f"grpcurl {arguments}: {done.stderr}")
        return done.stdout

    def list(self):
        return self.run(self.node.address, "list").split()

    def describe(self, symbol):
        return self.run(self.node.address, "describe", symbol)

    def call(self, service, method, request):
        return json.loads(self.run("-d", json.dumps(request), self.node.address,
                                   f"{service}/{method}"))


class Tools(unittest.TestCase):
    def script(self, client, prefix):
        """The same for both clients: list the services, then put, get and list as JSON."""
        services = client.list()
        for name in ("quorate.v1.Config", "quorate.v1.Cluster", "grpc.health.v1.Health"):
            self.assertIn(name, services)
        put = client.call("quorate.v1.Config", "Put", {"key": f"{prefix}/a", "text": "b"})
        self.assertEqual(put["version"], "1")
        got = eventually(lambda: client.call("quorate.v1.Config", "Get", {"key": f"{prefix}/a"}),
                         "the item")
        self.assertEqual(got["item"]["text"], "b")
        self.assertEqual(got["item"]["key"], f"{prefix}/a")
        listed = client.call("quorate.v1.Config", "List", {"prefix": f"{prefix}/"})
        self.assertEqual([i["key"] for i in listed["items"]], [f"{prefix}/a"])
        status = client.call("quorate.v1.Cluster", "Status", {})
        self.assertEqual(len(status["members"]), 3)

    def wait_for(self, cluster, key):
        cluster.wait_equal()

    def test_reflection_client(self):
        with Cluster(3) as cluster:
            cluster.start().wait_ready()
            self.script(ReflectionClient(cluster.followers()[0]), "reflection")
            story("put, get and list as JSON through a follower, by reflection alone")

    def test_grpcurl(self):
        path = find_tool("grpcurl")
        if not path:
            print("  SKIPPED grpcurl: it could not be had here (Go or its module proxy is not "
                  "there); the reflection client ran the same script", flush=True)
            self.skipTest("grpcurl is not here")
        with Cluster(3) as cluster:
            cluster.start().wait_ready()
            client = Grpcurl(path, cluster.followers()[0])
            self.script(client, "grpcurl")
            described = client.describe("quorate.v1.Config")
            for name in ("Get", "List", "Put", "Delete", "Txn", "Watch"):
                self.assertIn(f"rpc {name} ", described)
            self.assertIn("service Cluster", client.describe("quorate.v1.Cluster"))
            story("grpcurl lists, describes, puts, gets and lists through a follower")

    def test_promtool_and_the_seeds_metrics(self):
        with Cluster(3) as cluster:
            cluster.start().wait_ready()
            leader = cluster.leader()
            leader.put("a", "b")
            text = leader.http("/metrics")[1]
            for name in ("raft_current_term", "raft_election_timeout_seconds", "raft_commit_index",
                         "raft_applied_index"):
                self.assertGreater(leader.metric(name), 0, name)
            self.assertIn(f'raft_state{{node="{leader.name}",state="leader"}} 1', text)
            self.assertIn(f'raft_state{{node="{leader.name}",state="follower"}} 0', text)
            promtool = find_tool("promtool")
            self.assertIsNotNone(promtool, "tools/setup takes promtool out of Debian's package")
            for node in cluster.nodes:
                checked = subprocess.run([promtool, "check", "metrics"],
                                         input=node.http("/metrics")[1], capture_output=True,
                                         text=True, timeout=30)
                self.assertEqual((checked.returncode, checked.stdout, checked.stderr), (0, "", ""))
            story("promtool finds nothing to say about /metrics")

    def test_health_services(self):
        with Cluster(3) as cluster:
            cluster.start().wait_ready()
            leader = cluster.leader()
            for node in cluster.nodes:
                self.assertTrue(node.serves())
                self.assertTrue(node.serves("quorate.v1.Config"))
                self.assertEqual(node.serves("quorate.leader"), node is leader)
            story("health: all serve, one of them as the leader")

    def test_command_line(self):
        with Cluster(3) as cluster:
            cluster.start().wait_ready()
            endpoints = ",".join(n.address for n in cluster.nodes)

            def run(*arguments, code=0, stdin=""):
                done = subprocess.run([BINARY, "--endpoints", endpoints, *arguments],
                                      capture_output=True, text=True, input=stdin, timeout=120)
                self.assertEqual(done.returncode, code, f"{arguments}: {done.stderr}")
                return done
            run("put", "cli/a", "one")
            run("put", "cli/b", "-", stdin="two")
            cluster.wait_equal()
            self.assertEqual(run("get", "cli/a", "-o", "raw").stdout.rstrip("\n"), "one")
            self.assertEqual(json.loads(run("get", "cli/b", "-o", "json").stdout)["item"]["text"],
                             "two")
            run("get", "cli/none", code=3)
            run("put", "cli/a", "x", "--if-absent", code=4)
            run("put", "--no-such-flag", code=2)
            self.assertIn("node-3", run("status").stdout)
            self.assertIn("tolerates 1", run("status").stdout)
            self.assertIn("node-2", run("member", "list").stdout)
            run("delete", "--prefix", "cli/")
            source, out = cluster.root / "source", cluster.root / "out"
            (source / "deep").mkdir(parents=True)
            (source / "text").write_text("caf\u00e9\n")
            (source / "deep" / "data").write_bytes(bytes(range(256)))
            (source / "empty").write_bytes(b"")
            run("import", str(source), "--prefix", "tree/")
            cluster.wait_equal()
            for node in cluster.nodes:
                target = pathlib.Path(f"{out}-{node.name}")
                done = subprocess.run([BINARY, "--endpoints", node.address, "export", str(target),
                                       "--prefix", "tree/"], capture_output=True, text=True,
                                      timeout=60)
                self.assertEqual(done.returncode, 0, done.stderr)
                for file in ("text", "deep/data", "empty"):
                    self.assertEqual((target / file).read_bytes(), (source / file).read_bytes())
            self.time_to_lives_and_bounds(cluster)
            dead = subprocess.run([BINARY, "--endpoints", "127.0.0.1:1", "--timeout", "1s", "get",
                                   "a"], capture_output=True, text=True, timeout=60)
            self.assertEqual(dead.returncode, 5, dead.stderr)
            story("the command line does its part, with its exit codes")

    def time_to_lives_and_bounds(self, cluster):
        """The flags of reads and writes, and `quorate ttl`, at the leader and at a follower."""
        for node in (cluster.leader(), cluster.followers()[0]):
            def run(*arguments, code=0, timeout="20s", stdin=""):
                done = subprocess.run([BINARY, "--endpoints", node.address, "--timeout", timeout,
                                       *arguments], capture_output=True, text=True, input=stdin,
                                      timeout=120)
                self.assertEqual(done.returncode, code, f"{node.name} {arguments}: {done.stderr}")
                return done.stdout
            head = node.config.List(config_pb2.ListRequest(count_only=True),
                                    timeout=2 * CALL_S).header.revision
            key = f"flags/{node.name}"
            named = ("put", key, "one", "-o", "raw", "--request-id", f"of {node.name}",
                     "--request-revision", str(head))
            first = run(*named)
            self.assertEqual(run(*named), first, "the same write")
            second = run("put", key, "two", "--data", "-o", "raw").strip()
            first = first.strip()
            self.assertEqual(run("get", key, "--min-revision", second), "two")
            self.assertEqual(run("get", key, "--min-revision", second, "--at-revision", first),
                             "one")
            self.assertEqual(run("get", key, "--max-staleness", "10m"), "two")
            run("get", key, "--max-staleness", "0s", code=5, timeout="500ms")
            run("get", key, "--min-revision", "1000000", code=5, timeout="500ms")
            run("get", key, "--at-revision", "1000000", code=1)
            listed = json.loads(run("list", "flags/", "--limit", "1", "-o", "json",
                                    "--at-revision", second))
            self.assertEqual(len(listed["items"]), 1)
            if listed["nextPageToken"]:
                run("list", "flags/", "--page-token", listed["nextPageToken"])
            self.assertEqual(run("list", key, "--count", "--at-revision", first), "1\n")
            self.assertEqual(run("history", key, "--limit", "1", "-o", "raw"), second + "\n")
            self.assertIn("values differ", run("diff", key, f"{first}..", "--min-revision",
                                                second))

            answers = run("write", code=4, stdin="".join(json.dumps(w) + "\n" for w in (
                {"put": {"key": key + "/w", "text": "1"}},
                {"put": {"key": key + "/w", "text": "2", "expectedRevision": "1"}},
                {"txn": {"then": [{"put": {"key": key + "/w", "text": "3"}}]}},
                {"delete": {"key": key + "/w"}})))
            self.assertEqual([a.split(":")[0] for a in answers.splitlines()], ["1", "3", "4"])
            self.assertIn("4: deleted 1, ", answers)

            ttl = run("ttl", "grant", "1h").strip()
            bound = run("put", key + "/bound", "x", "--ttl-id", ttl, "-o", "raw").strip()
            item = json.loads(run("get", key + "/bound", "--min-revision", bound, "-o", "json"))
            self.assertEqual(item["item"]["ttlId"], ttl)
            self.assertEqual(run("ttl", "keep-alive", "--once", ttl),
                             f"{ttl}: kept alive for 1h00m\n")
            self.assertIn("deleted 1", run("ttl", "revoke", ttl))
            run("ttl", "revoke", ttl, code=3)
            run("ttl", "keep-alive", ttl, code=3)
            run("put", key + "/bound", "x", "--ttl-id", ttl, code=3)
            run("ttl", "keep-alive", "--once", "nonsense", code=1)
            run("ttl", "grant", "1ms", code=2)
        story("bounds of reads, named writes and time-to-lives by the command line, at the leader "
              "and at a follower")


if __name__ == "__main__":
    main()
