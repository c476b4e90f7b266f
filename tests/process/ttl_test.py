"""Time-to-lives of real nodes: they end not before their time, over killed leaders too, and do not live on
for ever; locks and elections that are made of them.

Times are measured by the test's own clock from before a call: so `not before` is exact. How much later than
its time something may end is not: a loaded machine may take long. It has to end in the test's patience.
"""

import contextlib
import os
import pathlib
import queue
import subprocess
import sys
import threading
import time
import unittest

import grpc

from quorate_cluster import (BINARY, CALL_S, MULTIPLIER, PATIENCE_S, Cluster, config_pb2,
                             error_info, eventually, main, story)

SLOW = MULTIPLIER > 1
TTL_S = 9 if SLOW else 2


def grant(node, seconds, **fields):
    request = config_pb2.GrantTtlRequest(**fields)
    request.ttl.seconds = seconds
    return node.config.GrantTtl(request, timeout=2 * CALL_S).ttl_id


def exists(node, key):
    try:
        node.get(key)
        return True
    except grpc.RpcError as error:
        assert error.code() == grpc.StatusCode.NOT_FOUND, error
        return False


class Deletions:
    """A watch that notes when each key went, as it hears of it."""

    def __init__(self, node, prefix):
        self.gone = {}
        self.revisions = {}
        started = threading.Event()
        self.call = node.config.Watch(config_pb2.WatchRequest(prefix=prefix))

        def run():
            with contextlib.suppress(grpc.RpcError):
                for message in self.call:
                    started.set()
                    for event in message.events:
                        if event.type == config_pb2.WatchEvent.TYPE_DELETE:
                            self.gone[event.item.key] = time.monotonic()
                            self.revisions[event.item.key] = message.header.revision
        self.thread = threading.Thread(target=run, daemon=True)
        self.thread.start()
        assert started.wait(PATIENCE_S)

    def stop(self):
        self.call.cancel()
        self.thread.join(30)


class KeptAlive:
    """Renews time-to-lives over one stream, at one node after the other, until stopped."""

    def __init__(self, nodes, ids, interval_s):
        self.nodes, self.ids, self.interval_s = nodes, ids, interval_s
        self.stopping = threading.Event()
        self.renewed = {i: 0 for i in ids}
        self.refused = []
        self.streams = 0
        self.thread = threading.Thread(target=self.run, daemon=True)
        self.thread.start()

    def run(self):
        at = 0
        while not self.stopping.is_set():
            ended = threading.Event()

            def requests():
                while not self.stopping.is_set() and not ended.is_set():
                    for ttl_id in self.ids:
                        yield config_pb2.KeepAliveTtlRequest(ttl_id=ttl_id)
                    self.stopping.wait(self.interval_s)
            self.streams += 1
            try:
                for answer in self.nodes[at % len(self.nodes)].config.KeepAliveTtl(requests()):
                    if answer.code == 0:
                        self.renewed[answer.ttl_id] += 1
                    elif answer.code == grpc.StatusCode.NOT_FOUND.value[0]:
                        self.refused.append(answer.ttl_id)
            except grpc.RpcError:
                pass
            ended.set()
            at += 1
            self.stopping.wait(0.02)

    def stop(self):
        self.stopping.set()
        self.thread.join(60)
        assert not self.thread.is_alive()


class Command:
    """`quorate lock` or `elect` with its output, line by line."""

    def __init__(self, cluster, *arguments):
        endpoints = ",".join(n.address for n in cluster.nodes)
        self.process = subprocess.Popen(
            [BINARY, "--endpoints", endpoints, "--timeout", "30s", *arguments],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL, text=True)
        self.lines, self.errors, self.readers = queue.Queue(), [], []
        for stream, take in ((self.process.stdout, self.lines.put),
                             (self.process.stderr, self.errors.append)):
            self.readers.append(threading.Thread(target=self.read, args=(stream, take),
                                                 daemon=True))
            self.readers[-1].start()

    @staticmethod
    def read(stream, take):
        with stream:
            for line in stream:
                take(line.rstrip("\n"))

    def line(self):
        return self.lines.get(timeout=PATIENCE_S)

    def silent(self):
        return self.lines.empty()

    def exit(self):
        code = self.process.wait(PATIENCE_S)
        for reader in self.readers:
            reader.join(PATIENCE_S)  # what it said is complete
        return code

    def end(self):
        if self.process.poll() is None:
            self.process.kill()
        self.exit()


class TimeToLive(unittest.TestCase):
    def test_items_expire_and_are_revoked_at_every_node(self):
        with Cluster(3) as cluster:
            cluster.start().wait_ready()
            leader, followers = cluster.leader(), cluster.followers()
            watches = [Deletions(n, "ttl/") for n in cluster.nodes]
            began, ids = {}, {}
            for node in (leader, followers[0]):
                began[node.name] = time.monotonic()
                ids[node.name] = grant(node, TTL_S)
                for i in range(3):
                    node.put(f"ttl/{node.name}/{i}", "x", ttl_id=ids[node.name])
                self.assertEqual(node.get(f"ttl/{node.name}/0").item.ttl_id, ids[node.name])
            leader.put("ttl/stays", "x", ttl_id=ids[leader.name])
            leader.put("ttl/stays", "y")
            eventually(lambda: all(len(w.gone) >= 6 for w in watches), "six keys gone everywhere")
            for watch in watches:
                for name, start in began.items():
                    for i in range(3):
                        lived = watch.gone[f"ttl/{name}/{i}"] - start
                        self.assertGreaterEqual(lived, TTL_S, f"{name} expired early")
                    self.assertEqual(
                        len({watch.revisions[f"ttl/{name}/{i}"] for i in range(3)}), 1,
                        "one revision for all items of one")
                self.assertNotIn("ttl/stays", watch.gone)
            story(f"six items with {TTL_S} s expired after "
                  + ", ".join(f"{watches[0].gone[f'ttl/{n}/0'] - s:.2f} s" for n, s in began.items()))
            history = followers[0].config.History(
                config_pb2.HistoryRequest(key=f"ttl/{leader.name}/0"), timeout=CALL_S)
            self.assertTrue(history.entries[0].deleted)
            self.assertEqual(history.entries[0].note, "time-to-live expired")
            for name, ttl_id in ids.items():
                with self.assertRaises(grpc.RpcError) as caught:
                    followers[1].put("ttl/late", "x", ttl_id=ttl_id)
                self.assertEqual(error_info(caught.exception)[0], "TTL_NOT_FOUND")

            # Revoked through a follower: gone at once.
            long = grant(followers[1], 3600, request_id="one")
            self.assertEqual(grant(leader, 3600, request_id="one"), long, "a repeat is the same")
            followers[0].put("ttl/long", "x", ttl_id=long)
            self.assertEqual(leader.metric("quorate_ttl_grants"), 1)
            revoked = followers[0].config.RevokeTtl(config_pb2.RevokeTtlRequest(ttl_id=long),
                                                    timeout=2 * CALL_S)
            self.assertEqual(revoked.deleted, 1)
            eventually(lambda: all("ttl/long" in w.gone for w in watches), "the revoked key gone")
            for node in cluster.nodes:
                eventually(lambda: node.metric("quorate_ttl_grants") == 0, "nothing is left")
                self.assertEqual(node.metric("quorate_ttl_expired_total"), 2)
            cluster.wait_equal()
            for watch in watches:
                watch.stop()

    def test_over_killed_leaders(self):
        """Kept alive: they stay. Not kept alive: they go, and not before their time."""
        with Cluster(3) as cluster:
            cluster.start().wait_ready()
            leader = cluster.leader()
            survivors = cluster.followers()
            ttl_s = (2 if SLOW else 3) * TTL_S
            began = time.monotonic()
            left = grant(survivors[0], ttl_s)
            survivors[0].put("kill/left", "x", ttl_id=left)
            kept = [grant(survivors[1], ttl_s) for _ in range(5)]
            for i, ttl_id in enumerate(kept):
                survivors[1].put(f"kill/kept/{i}", "x", ttl_id=ttl_id)
            # One client is connected to the leader that dies, one is not.
            renewals = [KeptAlive([leader] + survivors, kept[:3], ttl_s / 6),
                        KeptAlive(survivors, kept[3:], ttl_s / 6)]
            watch = Deletions(survivors[0], "kill/")
            eventually(lambda: all(all(r.renewed.values()) for r in renewals), "each was renewed")
            eventually(lambda: time.monotonic() > began + ttl_s / 2, "half of its time")
            # Nothing of the killed leader's clock is left: the new one goes on from the log.
            leader.kill()
            killed = time.monotonic()
            second = cluster.leader(among=survivors)
            story(f"{leader.name} killed after {killed - began:.1f} s of {ttl_s} s, "
                  f"{second.name} leads")
            eventually(lambda: "kill/left" in watch.gone, "what nobody renews goes",
                       PATIENCE_S + ttl_s)
            self.assertGreaterEqual(watch.gone["kill/left"] - began, ttl_s, "expired early")
            story(f"what nobody renewed lived {watch.gone['kill/left'] - began:.2f} s of {ttl_s} s")
            # Longer than their time after the kill, and through another election.
            leader.start()
            cluster.wait_ready()
            before = [dict(r.renewed) for r in renewals]
            second.kill()
            cluster.leader(among=[n for n in cluster.nodes if n is not second])
            second.start()
            cluster.wait_ready()
            eventually(lambda: time.monotonic() > killed + 1.25 * ttl_s and
                       all(r.renewed[i] > b[i] for r, b in zip(renewals, before) for i in r.ids),
                       "each was renewed after the second kill", PATIENCE_S + 3 * ttl_s)
            for i in range(5):
                self.assertTrue(exists(survivors[0], f"kill/kept/{i}"), f"{i} expired")
            self.assertEqual([r.refused for r in renewals], [[], []])
            self.assertGreater(renewals[0].streams, 1, "the one at the leader moved on")
            story(f"five that were kept alive over two kills live on after "
                  f"{time.monotonic() - began:.1f} s")
            for renewal in renewals:
                renewal.stop()
            stopped = time.monotonic()
            eventually(lambda: not any(exists(survivors[0], f"kill/kept/{i}") for i in range(5)),
                       "what is not renewed any more goes", PATIENCE_S + ttl_s)
            story(f"no longer renewed, they were gone {time.monotonic() - stopped:.2f} s later")
            watch.stop()
            cluster.wait_equal()

    def test_over_transfers(self):
        """Leadership is handed over twice: none ends early, all end, what is kept alive stays."""
        with Cluster(3) as cluster:
            cluster.start().wait_ready()
            asked = cluster.nodes[0]
            began, lives = {}, {}
            for i in range(4):
                key = f"transfer/{i}"
                began[key], lives[key] = time.monotonic(), TTL_S + 0.5 * i
                request = config_pb2.GrantTtlRequest()
                request.ttl.FromMilliseconds(round(1000 * lives[key]))
                ttl_id = asked.config.GrantTtl(request, timeout=2 * CALL_S).ttl_id
                asked.put(key, "x", ttl_id=ttl_id)
            kept = grant(asked, TTL_S)
            asked.put("transfer/kept", "x", ttl_id=kept)
            renewal = KeptAlive(cluster.nodes, [kept], TTL_S / 6)
            watch = Deletions(asked, "transfer/")
            leaders = [cluster.leader().name]
            for _ in range(2):
                response = cluster.make_leader(
                    next(n for n in cluster.nodes if n.name != leaders[-1]))
                self.assertNotEqual(response.header.leader_id, leaders[-1])
                leaders.append(response.header.leader_id)
                eventually(lambda: time.monotonic() > began["transfer/0"] + TTL_S / 2,
                           "half of the first one's time")
            handed_over = time.monotonic() - began["transfer/0"]
            eventually(lambda: len(watch.gone) >= 4, "what nobody renews goes")
            for key, start in began.items():
                self.assertGreaterEqual(watch.gone[key] - start, lives[key], f"{key} ended early")
            eventually(lambda: time.monotonic() > began["transfer/0"] + 1.5 * TTL_S, "time passes")
            self.assertEqual((sorted(watch.gone), renewal.refused), (sorted(began), []))
            self.assertTrue(exists(asked, "transfer/kept"))
            renewal.stop()
            eventually(lambda: "transfer/kept" in watch.gone, "not renewed any more, it goes")
            watch.stop()
            story(f"{' to '.join(leaders)} within {handed_over:.1f} s: four lives of {TTL_S} s and "
                  "more ended after " + ", ".join(
                      f"{watch.gone[k] - began[k]:.2f} of {lives[k]:.1f} s" for k in sorted(began)))
            cluster.wait_equal()

    def test_locks_exclude_each_other(self):
        with Cluster(3) as cluster:
            cluster.start().wait_ready()
            ttl_s = TTL_S + 1
            script = ("import os, sys; print('held', os.environ['QUORATE_LOCK_TOKEN'], "
                      "os.environ['QUORATE_LOCK_KEY'], flush=True); sys.stdin.read(); "
                      "import time; time.sleep({}); sys.exit(7)")

            def lock(seconds, *flags):
                return Command(cluster, "lock", "locks/job", "--ttl", f"{ttl_s}s", *flags, "--",
                               sys.executable, "-u", "-c", script.format(seconds))
            commands = []
            try:
                first = lock(600)
                commands.append(first)
                held, token, key = first.line().split()
                self.assertTrue(key.startswith("locks/job/"))
                waiting = []
                for i in range(2):  # in this order
                    waiting.append(lock(0.5))
                    commands.append(waiting[-1])
                    eventually(lambda: len(cluster.nodes[0].list_all("locks/job/")) == i + 2,
                               "the next waits")
                impatient = lock(0, "--wait", "500ms")
                commands.append(impatient)
                self.assertEqual(impatient.exit(), 5)
                self.assertIn("not obtained within 500ms", " ".join(impatient.errors))
                # Held for longer than its time, because it is kept alive.
                time.sleep(1.5 * ttl_s)
                self.assertTrue(all(w.silent() for w in waiting), "two hold it")
                self.assertEqual(len(cluster.nodes[0].list_all("locks/job/")), 3)

                # The holder is killed: not before its time is over the next one gets it. Its last
                # renewal was at most a third of its time (and an attempt) ago.
                killed = time.monotonic()
                first.process.kill()
                held, second_token, _ = waiting[0].line().split()
                took = time.monotonic() - killed
                story(f"the holder was killed, the next held it {took:.2f} s later (ttl {ttl_s} s)")
                self.assertGreaterEqual(took, ttl_s / 3)
                self.assertGreater(int(second_token), int(token), "the token grows")
                self.assertTrue(waiting[1].silent())
                held, third_token, _ = waiting[1].line().split()
                self.assertEqual([w.exit() for w in waiting], [7, 7], "the command's exit status")
                self.assertGreater(int(third_token), int(second_token))
                self.assertEqual(cluster.nodes[0].list_all("locks/job/"), [], "released")
                story("in the order in which they came, released at their end")
            finally:
                for command in commands:
                    command.end()

    def test_a_lock_that_is_lost_ends_its_command(self):
        with Cluster(3) as cluster:
            cluster.start().wait_ready()
            command = Command(cluster, "lock", "lost", "--ttl", f"{TTL_S}s", "--",
                              "/bin/sh", "-c", "echo $$; exec sleep 600")
            try:
                pid = int(command.line())
                # A whole cluster that does not answer.
                for node in cluster.nodes:
                    node.kill()
                self.assertEqual(command.exit(), 5)
                with self.assertRaises(ProcessLookupError):
                    os.kill(pid, 0)
                self.assertIn("lost", " ".join(command.errors))
                for node in cluster.nodes:
                    node.start()
                cluster.wait_ready()
                eventually(lambda: cluster.nodes[0].list_all("lost/") == [], "it expired meanwhile")
                story("no node answers: the command is ended, the lock expires later")

                command = Command(cluster, "lock", "lost", "--ttl", f"{TTL_S}s", "--",
                                  "/bin/sh", "-c", "echo $$; exec sleep 600")
                pid = int(command.line())
                deleted = cluster.nodes[1].config.Delete(config_pb2.DeleteRequest(prefix="lost/"),
                                                         timeout=2 * CALL_S)
                self.assertEqual(deleted.deleted, 1)
                self.assertEqual(command.exit(), 5)
                with self.assertRaises(ProcessLookupError):
                    os.kill(pid, 0)
                story("an operator deletes its key: the command is ended, too")

                # In the middle of its work: the thread sanitizer has lost signals (their handlers never
                # ran, though the kernel had called for them) that came while a process was started.
                command = Command(cluster, "lock", "lost", "--", "/bin/sh", "-c",
                                  "trap 'echo told; exit 0' TERM; sleep 1; echo at work; "
                                  "while :; do sleep 0.1; done")
                self.assertEqual(command.line(), "at work")
                command.process.terminate()
                self.assertEqual(command.line(), "told")
                self.assertEqual(command.exit(), 130)
                self.assertEqual(cluster.nodes[0].list_all("lost/"), [], "released")
                story("interrupted: the command is told, the lock released")
            finally:
                command.end()

    def test_elections(self):
        with Cluster(3) as cluster:
            cluster.start().wait_ready()
            # Below the name, and nobody's: it neither leads nor holds anybody up.
            cluster.nodes[0].put("boss/plain", "nobody")
            listener = Command(cluster, "elect", "boss", "--listen")
            commands = [listener]
            try:
                self.assertEqual(listener.line(), "-")
                first = Command(cluster, "elect", "boss", "--value", "alice", "--ttl", f"{TTL_S}s")
                commands.append(first)
                key = first.line()
                self.assertEqual(listener.line(), f"{key} alice")
                second = Command(cluster, "elect", "boss", "--value", "bob", "--ttl", f"{TTL_S}s",
                                 "--", "/bin/sh", "-c", "echo $QUORATE_LOCK_KEY; exit 3")
                commands.append(second)
                eventually(lambda: len(cluster.nodes[0].list_all("boss/")) == 3, "two candidates")
                # The nodes' own leader dies meanwhile.
                cluster.leader().kill()
                self.assertTrue(second.silent())
                first.process.terminate()
                self.assertEqual(first.exit(), 130)
                key = second.line()
                self.assertEqual(second.exit(), 3)
                said = [listener.line(), listener.line()]
                self.assertEqual(said, [f"{key} bob", "-"])
                story("alice, then bob, then nobody, over a killed node")
            finally:
                for command in commands:
                    command.end()


if __name__ == "__main__":
    main()
