"""Watches of real nodes: over a killed leader, a restarted node and a client that does not read, each
watch tells every change once.

A Follower is what a client should be: it keeps the last resume_revision and, when its stream ends, opens
another one there, at the next node. At the end its whole story is judged by the nine guarantees, each by
itself, against what the writers know and what the store holds.
"""

import contextlib
import json
import subprocess
import threading
import time
import unittest

import grpc

from quorate_cluster import (BINARY, CALL_S, MULTIPLIER, PATIENCE_S, Cluster, cluster_pb2,
                             config_pb2, error_info, eventually, main, story)
from tools_test import ReflectionClient

PUT = config_pb2.WatchEvent.TYPE_PUT
DELETE = config_pb2.WatchEvent.TYPE_DELETE


class Follower:
    """One watch over all its streams, on a thread of its own."""

    def __init__(self, nodes, first=0, prefix=None, key=None, **fields):
        self.nodes, self.at = nodes, first
        self.prefix, self.key = prefix, key
        self.target = {"key": key} if key is not None else {"prefix": prefix}
        # How far a watch is that has nothing to tell is known by its marks: often, for the test's sake.
        self.fields = {"progress_interval": {"nanos": 300_000_000}, **fields}
        self.with_previous = fields.get("with_previous", False)
        self.state = {}         # by key, while a state is told and after it
        self.state_revision = None
        self.revisions = {}     # revision -> events, whole ones
        self.order = []
        self.begin = None       # nothing up to it has to be told
        self.through = 0        # nothing up to it is missing
        self.streams = 0
        self.ends = []          # (code, reason)
        self.lost = self.found = self.resets = 0
        self.wrong = []
        self.stopped = threading.Event()
        self.call = None
        self.thread = threading.Thread(target=self.run, daemon=True)

    def start(self):
        self.thread.start()
        eventually(lambda: self.streams > 0, "a watch stands")
        return self

    def stop(self):
        self.stopped.set()
        if self.call is not None:
            self.call.cancel()
        self.thread.join(30)
        assert not self.thread.is_alive()

    def run(self):
        while not self.stopped.is_set():
            node = self.nodes[self.at % len(self.nodes)]
            self.call = node.config.Watch(config_pb2.WatchRequest(**self.target, **self.fields))
            part, in_state = [], False
            try:
                for message in self.call:
                    part, in_state = self.hear(message, part, in_state)
            except grpc.RpcError as error:
                self.ends.append((error.code().name, error_info(error)[0]))
            self.at += 1
            if not self.stopped.is_set():
                time.sleep(0.02)

    def hear(self, message, part, in_state):
        revision = message.header.revision
        if message.started:
            self.streams += 1
            in_state = message.resume_revision == 0
            if self.begin is None and not in_state:
                self.begin = self.through = revision
            asked = self.fields.get("start_revision", 0)
            if asked and revision != asked - 1:
                self.wrong.append(f"asked for {asked}, begun after {revision}")
        if message.started and in_state or message.reset:
            in_state = True
            self.state = {}
            if message.reset:
                # A story of its own begins; what was told before it stays true.
                self.resets += 1
                self.revisions, self.order = {}, []
        elif message.synced:
            in_state = False
            self.state_revision = self.begin = self.through = revision
        elif message.leader_lost and not message.progress:
            self.lost += 1
        elif message.leader_found:
            self.found += 1
        elif message.progress:
            self.through = max(self.through, revision)
        elif in_state:
            for event in message.events:
                self.state[event.item.key] = event.item
        elif not message.started:
            part.extend(message.events)
            if not message.partial:
                if revision in self.revisions:
                    self.wrong.append(f"revision {revision} twice")
                self.revisions[revision] = part
                self.order.append(revision)
                self.through = max(self.through, revision)
                part = []
        self.fields["start_revision"] = message.resume_revision
        self.fields["with_initial_state"] = message.resume_revision == 0
        return part, in_state

    def wait(self, revision):
        eventually(lambda: self.through >= revision, f"told through {revision}", 60)

    def matches(self, key):
        return key == self.key if self.key is not None else key.startswith(self.prefix)


class Writers:
    """Puts, deletions of keys and of prefixes, through every node; knows what was acknowledged."""

    def __init__(self, nodes, threads=3):
        self.nodes = nodes
        self.acknowledged = {}  # revision -> (kind, key or prefix, text)
        self.lock = threading.Lock()
        self.stopping = threading.Event()
        self.threads = [threading.Thread(target=self.run, args=(i,), daemon=True)
                        for i in range(threads)]

    def start(self):
        for thread in self.threads:
            thread.start()
        return self

    def stop(self):
        self.stopping.set()
        for thread in self.threads:
            thread.join(60)

    def count(self):
        with self.lock:
            return len(self.acknowledged)

    def run(self, number):
        i = 0
        while not self.stopping.is_set():
            i += 1
            node = self.nodes[(number + i) % len(self.nodes)]
            key, text = f"w/{number}/{i % 7}", f"{number}-{i}"
            with contextlib.suppress(grpc.RpcError):
                if i % 11 == 0:
                    prefix = f"w/{number}/"
                    answer = node.config.Delete(config_pb2.DeleteRequest(prefix=prefix),
                                                timeout=CALL_S)
                    done = ("delete", prefix, answer.deleted)
                    if answer.deleted == 0:
                        continue
                elif i % 5 == 0:
                    answer = node.config.Delete(config_pb2.DeleteRequest(key=key), timeout=CALL_S)
                    done = ("delete", key, answer.deleted)
                    if answer.deleted == 0:
                        continue
                else:
                    answer = node.put(key, text)
                    done = ("put", key, text)
                with self.lock:
                    self.acknowledged[answer.header.revision] = done


class Judge:
    """The nine guarantees; `compacted` is up to where the test has had the history dropped."""

    compacted = 0

    def judge(self, cluster, follower, writers, everything):
        """`everything`: a follower of all keys from the beginning, read from one node's history."""
        self.assertEqual(follower.wrong, [])
        last = everything.through
        self.assertGreaterEqual(follower.through, last)
        self.ordered(follower)
        self.unique(follower)
        self.atomic(follower, everything)
        self.reliable(follower, writers)
        self.resumable(follower, everything)
        self.bookmarkable(follower)
        self.with_previous(follower)
        self.creation_flag(follower)
        self.filter(follower)

    def ordered(self, follower):
        self.assertEqual(follower.order, sorted(follower.order))

    def unique(self, follower):
        self.assertEqual(len(follower.order), len(set(follower.order)))

    def atomic(self, follower, everything):
        for revision, events in follower.revisions.items():
            self.assertEqual({e.item.mod_revision for e in events}, {revision})
            wanted = [e.item.key for e in everything.revisions[revision]
                      if follower.matches(e.item.key)]
            self.assertEqual([e.item.key for e in events], wanted, f"revision {revision}")

    def reliable(self, follower, writers):
        for revision, (kind, key, value) in writers.acknowledged.items():
            if revision <= follower.begin:
                continue
            told = follower.revisions.get(revision, [])
            if kind == "put" and follower.matches(key):
                self.assertEqual([(e.type, e.item.key, e.item.text) for e in told],
                                 [(PUT, key, value)], f"revision {revision}")
            elif kind == "delete" and follower.key is None and follower.prefix in ("", "w/"):
                self.assertEqual(len(told), value, f"revision {revision}")
                for event in told:
                    self.assertEqual(event.type, DELETE)
                    self.assertTrue(event.item.key.startswith(key))

    def resumable(self, follower, everything):
        """Over all its streams it was told exactly what one stream tells from the past."""
        wanted = {}
        for revision, events in everything.revisions.items():
            mine = [e for e in events if follower.matches(e.item.key)]
            if mine and revision > follower.begin:
                wanted[revision] = [(e.type, e.item.key, e.item.text) for e in mine]
        told = {r: [(e.type, e.item.key, e.item.text) for e in events]
                for r, events in follower.revisions.items() if r <= everything.through}
        self.assertEqual(told, wanted)

    def bookmarkable(self, follower):
        """A watch that begins in the middle tells the second half."""
        there = [r for r in follower.order if r > self.compacted]
        if not there:
            return
        middle = there[len(there) // 2]
        half = Follower(follower.nodes, 1, follower.prefix, follower.key, start_revision=middle)
        half.start()
        half.wait(follower.order[-1])
        half.stop()
        self.assertEqual(half.order, [r for r in follower.order if r >= middle])

    def with_previous(self, follower):
        before = dict(follower.state) if follower.state_revision is not None else {}
        known = follower.state_revision is not None or follower.begin <= 1
        for revision in follower.order:
            for event in follower.revisions[revision]:
                key = event.item.key
                if not follower.with_previous:
                    self.assertFalse(event.HasField("previous"))
                elif key in before:
                    self.assertEqual(event.previous, before[key], f"revision {revision}")
                elif known:
                    self.assertFalse(event.HasField("previous"), f"revision {revision}")
                if event.type == PUT:
                    before[key] = event.item
                else:
                    before.pop(key, None)

    def creation_flag(self, follower):
        for events in follower.revisions.values():
            for event in events:
                self.assertEqual(event.created, event.type == PUT and event.item.version == 1)
                if follower.with_previous and event.type == PUT:
                    self.assertEqual(event.created, not event.HasField("previous"))

    def filter(self, follower):
        for events in follower.revisions.values():
            for event in events:
                self.assertTrue(follower.matches(event.item.key))

    def replayed(self, follower):
        """The items that the story ends with."""
        items = dict(follower.state)
        for revision in follower.order:
            for event in follower.revisions[revision]:
                if event.type == PUT:
                    items[event.item.key] = event.item
                else:
                    items.pop(event.item.key, None)
        return items

    def more(self, writers, count):
        """That many further writes are acknowledged."""
        goal = writers.count() + count
        eventually(lambda: writers.count() >= goal, f"{count} more writes", 120)


class NineGuarantees(Judge, unittest.TestCase):
    def test_over_leader_kill_and_node_restart(self):
        with Cluster(3) as cluster:
            cluster.start().wait_ready()
            cluster.nodes[0].put("before", "x")
            followers = [
                Follower(cluster.nodes, 0, prefix="", with_previous=True).start(),
                Follower(cluster.nodes, 1, prefix="w/1/").start(),
                Follower(cluster.nodes, 2, key="w/2/3", with_previous=True).start(),
                Follower(cluster.nodes, 1, prefix="w/", with_previous=True,
                         with_initial_state=True).start(),
                Follower(cluster.nodes, 2, prefix="", start_revision=1).start(),
            ]
            writers = Writers(cluster.nodes).start()

            def more(count):
                self.more(writers, count)
            more(100)
            for round_number in range(2):
                leader = cluster.leader()
                leader.kill()
                story(f"round {round_number + 1}: {leader.name}, which led, is killed")
                more(50)
                leader.start()
                cluster.wait_ready()
                more(50)
            # Where the first watch is now, so that it is ended in order.
            stopped = cluster.nodes[followers[0].at % 3]
            self.assertEqual(stopped.stop(), 0)
            more(50)
            stopped.start()
            cluster.wait_ready()
            story(f"{stopped.name} was stopped and started")
            more(50)
            writers.stop()
            last = cluster.leader().put("last", "x").header.revision
            cluster.wait_equal()
            for each in followers:
                each.wait(last)
                each.stop()
            everything = Follower([cluster.nodes[0]], 0, prefix="", start_revision=1).start()
            everything.wait(last)
            everything.stop()
            for each in followers:
                self.judge(cluster, each, writers, everything)
            items = {i.key: i for i in cluster.nodes[1].list_all()}
            self.assertEqual(self.replayed(everything), items)
            self.assertEqual(self.replayed(followers[4]), items)
            self.assertEqual(self.replayed(followers[3]),
                             {k: i for k, i in items.items() if k.startswith("w/")})
            streams = sum(f.streams for f in followers)
            self.assertGreater(streams, len(followers), "no stream ever broke")
            ends = {end for f in followers for end in f.ends}
            self.assertIn(("UNAVAILABLE", "SHUTTING_DOWN"), ends)
            story(f"{len(everything.order)} revisions, {streams} streams of {len(followers)} "
                  f"watches, ends {sorted(ends, key=str)}: nothing lost, nothing twice")

    def test_initial_state_without_a_gap_under_load(self):
        with Cluster(3) as cluster:
            cluster.start().wait_ready()
            for i in range(200):
                cluster.nodes[i % 3].put(f"w/9/{i:03}", "x" * 5000)
            writers = Writers(cluster.nodes).start()
            eventually(lambda: writers.count() > 20, "writes")
            followers = [Follower(cluster.nodes, i, prefix="w/", with_initial_state=True).start()
                         for i in range(3)]
            goal = writers.count() + 50
            eventually(lambda: writers.count() > goal, "more writes", 120)
            writers.stop()
            last = cluster.leader().put("w/last", "x").header.revision
            for each in followers:
                each.wait(last)
                each.stop()
                self.assertEqual(each.wrong, [])
                self.assertGreaterEqual(len(each.state), 200)
            items = {i.key: i for i in cluster.leader().list_all("w/")}
            for each in followers:
                self.assertEqual(self.replayed(each), items)
            story("state and changes together are the items, at every node")


class OverSnapshotAndCompaction(Judge, unittest.TestCase):
    def everything_of(self, node):
        """All changes of all keys, from the first, told by a node that the test leaves alone."""
        return Follower([node], 0, prefix="", start_revision=1, with_previous=True).start()

    def fall_behind(self, cluster, away, others, meanwhile=lambda: None):
        """`away` stands still until the others' logs begin behind its own, and then gets the state."""
        before = away.status()
        away.pause()
        try:
            for i in range(22):  # more than the window in memory
                others[i % 2].put(f"big/{i % 5}", "x" * (900 << 10), timeout=60)
            meanwhile()

            def cut():
                # It may have received a little more than it had applied.
                return all(s.log_first_index > before.applied_index + 25
                           for s in [n.status() for n in others])
            eventually(cut, "both logs begin behind the end of its own", PATIENCE_S * 2)
        finally:
            away.resume()
        eventually(lambda: away.status().snapshot_generation > before.snapshot_generation,
                   "a snapshot is installed", PATIENCE_S * 2)
        cluster.wait_ready()

    def finish(self, cluster, everything, followers):
        last = cluster.leader().put("w/last", "x").header.revision
        cluster.wait_equal()
        for each in followers + [everything]:
            each.wait(last)
            each.stop()
        self.assertEqual((everything.streams, everything.resets), (1, 0))
        return {i.key: i for i in cluster.leader().list_all("w/", timeout=60)}

    def test_a_snapshot_is_installed_under_open_watches(self):
        """Their node jumps over what they have not been told yet: it is told from history."""
        with Cluster(3, extra_raft="    logTail: 64KiB\n") as cluster:
            cluster.start().wait_ready()
            away = cluster.followers()[0]
            others = [n for n in cluster.nodes if n is not away]
            everything = self.everything_of(others[0])
            writers = Writers(others).start()
            self.more(writers, 50)
            followers = [
                Follower([away], 0, prefix="", with_previous=True, start_revision=1).start(),
                Follower([away], 0, prefix="w/", with_initial_state=True).start(),
                Follower([away], 0, key="w/1/2", with_previous=True).start(),
            ]
            self.more(writers, 50)
            self.fall_behind(cluster, away, others, lambda: self.more(writers, 30))
            self.more(writers, 30)
            writers.stop()
            items = self.finish(cluster, everything, followers)
            for each in followers:
                self.assertEqual((each.streams, each.resets, each.ends), (1, 0, [("CANCELLED", None)]))
                self.judge(cluster, each, writers, everything)
            self.assertEqual(self.replayed(followers[1]), items)
            story(f"{away.name} got the state of {away.status().snapshot_index} under three open "
                  f"watches: {len(everything.order)} revisions, none lost, none twice")


    def compact(self, node):
        """Drops the history up to what is there now."""
        self.compacted = node.put("compact", "x").header.revision
        answer = node.control.Compact(cluster_pb2.CompactRequest(revision=self.compacted),
                                      timeout=60)
        self.assertEqual(answer.compacted_revision, self.compacted)

    def test_a_snapshot_without_the_history_is_installed_under_open_watches(self):
        """What they have not been told is compacted in it: they are told to begin anew, and go on."""
        with Cluster(3, extra_raft="    logTail: 64KiB\n") as cluster:
            cluster.start().wait_ready()
            away = cluster.followers()[0]
            others = [n for n in cluster.nodes if n is not away]
            everything = self.everything_of(others[0])
            writers = Writers(others).start()
            self.more(writers, 50)
            followers = [Follower([away], 0, prefix="", with_previous=True).start(),
                         Follower([away], 0, prefix="w/", with_initial_state=True).start()]
            self.more(writers, 50)

            def meanwhile():
                self.more(writers, 30)
                self.compact(others[1])
            self.fall_behind(cluster, away, others, meanwhile)
            self.more(writers, 30)
            writers.stop()
            items = self.finish(cluster, everything, followers)
            for each in followers:
                self.assertEqual((each.streams, each.resets, each.ends), (1, 1, [("CANCELLED", None)]))
                self.assertGreaterEqual(each.state_revision, self.compacted)
                self.judge(cluster, each, writers, everything)
            self.assertEqual(self.replayed(followers[1]), items)
            self.assertEqual({k: i for k, i in self.replayed(followers[0]).items()
                              if k.startswith("w/")}, items)
            story(f"history up to {self.compacted} was dropped while {away.name} stood still: both "
                  f"watches began anew at {followers[0].state_revision} and go on")

    def test_over_compaction(self):
        with Cluster(3) as cluster:
            cluster.start().wait_ready()
            everything = self.everything_of(cluster.nodes[0])
            writers = Writers(cluster.nodes).start()
            live = [Follower(cluster.nodes, 1, prefix="", with_previous=True, start_revision=1),
                    Follower(cluster.nodes, 2, key="w/1/3", with_previous=True),
                    Follower(cluster.nodes, 1, prefix="w/2/", with_initial_state=True)]
            away = Follower(cluster.nodes, 2, prefix="w/", with_previous=True)
            recent = Follower(cluster.nodes, 1, prefix="w/", with_previous=True)
            for each in live + [away, recent]:
                each.start()
            self.more(writers, 100)
            away.stop()
            self.more(writers, 50)
            self.compact(cluster.nodes[1])
            self.more(writers, 50)
            # One that goes on behind what was dropped, one before it, one that wants all there was.
            recent.wait(self.compacted + 5)
            recent.stop()
            bookmark = recent.fields["start_revision"]
            again = [Follower(cluster.nodes, 0, prefix="w/", with_previous=True,
                              start_revision=bookmark),
                     Follower(cluster.nodes, 2, prefix="w/", with_previous=True,
                              start_revision=away.fields["start_revision"]),
                     Follower(cluster.nodes, 1, prefix="", start_revision=1)]
            for each in again:
                each.start()
            self.more(writers, 50)
            self.compact(cluster.nodes[2])
            self.more(writers, 50)
            writers.stop()
            items = self.finish(cluster, everything, live + again)
            self.assertEqual([f.resets for f in live + again], [0, 0, 0, 0, 1, 1])
            self.assertEqual({f.streams for f in live + again}, {1})
            for each in live + again:
                self.judge(cluster, each, writers, everything)
            for each in again[1:]:
                replayed = self.replayed(each)
                self.assertEqual({k: i for k, i in replayed.items() if k.startswith("w/")}, items)
            story(f"history was dropped twice, up to {self.compacted}: {len(live)} watches that were "
                  "at the head never noticed; two that wanted more were told the state instead")


class Trouble(unittest.TestCase):
    def test_a_client_that_never_reads(self):
        with Cluster(1) as cluster:
            cluster.start().wait_ready()
            node = cluster.nodes[0]
            channel = grpc.insecure_channel(node.address, options=[
                ("grpc.use_local_subchannel_pool", 1)])
            from quorate_cluster import config_pb2_grpc
            lazy = config_pb2_grpc.ConfigStub(channel).Watch(
                config_pb2.WatchRequest(prefix="big/"))
            self.assertTrue(next(iter(lazy)).started)
            value = "x" * (200 << 10)
            first = None
            for i in range(150):  # 30 MB
                revision = node.put(f"big/{i % 4}", value).header.revision
                first = first or revision
            self.assertLess(node.metric("quorate_watch_queued_bytes"), 8 << 20)
            quick = Follower([node], 0, prefix="big/").start()
            node.put("big/last", "x")
            quick.wait(revision + 1)
            quick.stop()
            told = []
            for message in lazy:
                told.extend(e.item.mod_revision for e in message.events)
                if told and told[-1] == revision + 1:
                    break
            lazy.cancel()
            self.assertEqual(told, list(range(first, revision + 2)))
            eventually(lambda: node.metric("quorate_watches") == 0, "the watches are gone")
            channel.close()
            story(f"{len(told)} large changes waited for their reader in the database")

    def test_the_leader_is_lost_and_found(self):
        with Cluster(3) as cluster:
            cluster.start().wait_ready()
            survivor = cluster.followers()[0]
            follower = Follower([survivor], 0, prefix="a", progress_interval={"nanos": 200000000})
            follower.start()
            others = [n for n in cluster.nodes if n is not survivor]
            for node in others:
                node.kill()
            eventually(lambda: follower.lost > 0, "the loss is told")
            # Marks go on, and so does a watch that begins now, with what is there.
            late = Follower([survivor], 0, prefix="", start_revision=1).start()
            eventually(lambda: late.lost > 0, "the loss is told to who comes later")
            for node in others:
                node.start()
            eventually(lambda: follower.found > 0 and late.found > 0, "the recovery is told")
            cluster.wait_ready()
            last = survivor.put("a", "x").header.revision
            follower.wait(last)
            late.wait(last)
            follower.stop()
            late.stop()
            self.assertEqual(follower.streams, 1, "the stream outlived the leader")
            story("a watch at a node without a leader is told so, and goes on")

    def test_refusals_and_a_stop(self):
        with Cluster(1) as cluster:
            cluster.start().wait_ready()
            node = cluster.nodes[0]
            revision = node.put("a", "x").header.revision

            def refusal(**fields):
                with self.assertRaises(grpc.RpcError) as raised:
                    for _ in node.config.Watch(config_pb2.WatchRequest(**fields),
                                               timeout=2 * CALL_S):
                        pass
                return raised.exception.code().name, error_info(raised.exception)
            self.assertEqual(refusal()[1][0], "TARGET_MISSING")
            code, (reason, metadata) = refusal(prefix="", start_revision=revision + 1000)
            self.assertEqual((code, reason), ("OUT_OF_RANGE", "REVISION_IN_FUTURE"))
            self.assertEqual(metadata["revision"], str(revision))
            # A deadline of the caller's own is obeyed.
            with self.assertRaises(grpc.RpcError) as raised:
                for _ in node.config.Watch(config_pb2.WatchRequest(prefix=""), timeout=0.5):
                    pass
            self.assertEqual(raised.exception.code(), grpc.StatusCode.DEADLINE_EXCEEDED)
            stream = node.config.Watch(config_pb2.WatchRequest(prefix=""))
            self.assertTrue(next(stream).started)
            node.put("a", "y")
            self.assertEqual(next(stream).resume_revision, revision + 2)
            self.assertEqual(node.stop(), 0)
            with self.assertRaises(grpc.RpcError) as raised:
                next(stream)
            self.assertEqual(raised.exception.code(), grpc.StatusCode.UNAVAILABLE)
            reason, metadata = error_info(raised.exception)
            self.assertEqual((reason, metadata["resume_revision"]),
                             ("SHUTTING_DOWN", str(revision + 2)))
            story("refused by name, and ended at a resume revision")

    def test_by_reflection(self):
        with Cluster(1) as cluster:
            cluster.start().wait_ready()
            node = cluster.nodes[0]
            node.put("a", "x")
            client = ReflectionClient(node)
            method = client.load("quorate.v1.Config").methods_by_name["Watch"]
            from google.protobuf import json_format, message_factory
            factory = message_factory.MessageFactory(client.pool)
            request = json_format.ParseDict({"prefix": "", "withInitialState": True},
                                            factory.GetPrototype(method.input_type)())
            stream = node.channel().unary_stream(
                "/quorate.v1.Config/Watch", request_serializer=lambda m: m.SerializeToString(),
                response_deserializer=factory.GetPrototype(method.output_type).FromString)(request)
            got = [json_format.MessageToDict(next(stream)) for _ in range(3)]
            stream.cancel()
            self.assertTrue(got[0]["started"])
            self.assertEqual(got[1]["events"][0]["item"]["text"], "x")
            self.assertTrue(got[2]["synced"])
            story("a client that knows nothing but reflection watches as JSON")


class CommandLine(unittest.TestCase):
    def test_quorate_watch_over_a_killed_node(self):
        with Cluster(3) as cluster:
            cluster.start().wait_ready()
            endpoints = ",".join(n.address for n in cluster.nodes)
            out = cluster.root / "out.txt"
            ran = cluster.root / "ran.txt"
            command = f'echo "$QUORATE_WATCH_EVENT $QUORATE_WATCH_KEY $(cat)" >> {ran}'
            count = 30
            first = cluster.nodes[0].put("app/first", "x").header.revision
            with open(out, "wb") as sink:
                watch = subprocess.Popen(
                    [BINARY, "watch", "app/", "--endpoints", endpoints, "--from-revision",
                     str(first), "-o", "json", "--count", str(count), "--exec", command],
                    stdout=sink, stderr=subprocess.PIPE, text=True)
                try:
                    eventually(lambda: out.read_text().count("\n") >= 1, "the first event")
                    for i in range(1, count):
                        if i == 10:
                            cluster.nodes[0].kill()  # where the watch is
                            cluster.leader()
                        if i == 20:
                            cluster.nodes[0].start()
                            cluster.wait_ready()
                        cluster.nodes[1].put(f"app/{i:02}", f"value {i}")
                    _, err = watch.communicate(timeout=60 * MULTIPLIER)
                finally:
                    if watch.poll() is None:
                        watch.kill()
                        watch.wait()
            self.assertEqual(watch.returncode, 0, err)
            self.assertIn("going on at revision", err)
            events = [event["item"] for line in out.read_text().splitlines()
                      for event in json.loads(line)["events"]]
            self.assertEqual([e["key"] for e in events],
                             ["app/first"] + [f"app/{i:02}" for i in range(1, count)])
            self.assertEqual(ran.read_text().splitlines(),
                             ["create app/first x"] +
                             [f"create app/{i:02} value {i}" for i in range(1, count)])
            story("quorate watch went on at another node, and ran its command once for each event")


if __name__ == "__main__":
    main()
