"""The programs in examples/, in each language, against real nodes that are killed one after the other:
what they write is done once, and what they watch is told once.

Python is always here. The C++ ones are built by the release preset only, and Go's are in
examples_go_test.py.
"""

import json
import os
import pathlib
import re
import shutil
import signal
import subprocess
import tempfile
import threading
import unittest

from quorate_cluster import MULTIPLIER, ROOT, Cluster, config_pb2, eventually, main, story

BUILD = pathlib.Path(os.environ.get("QUORATE_BUILD_DIR", str(ROOT / "build/release")))
PIPELINED, ADDED, WRITES = (8000, 200, 300) if MULTIPLIER == 1 else (2500, 60, 90)


class Programs:
    """How the programs of one language are started."""

    def __init__(self, language, command, environment=None):
        self.language, self.command = language, command
        self.environment = {**os.environ, **(environment or {})}
        self.processes = []

    def start(self, name, *arguments):
        # Without the file of the service config in the environment: they find their own.
        process = subprocess.Popen([*self.command(name), *map(str, arguments)], cwd=ROOT, text=True,
                                   env=self.environment, stdin=subprocess.DEVNULL,
                                   stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        self.processes.append(process)
        return process

    def end(self):
        """Whatever still runs, after a failure."""
        for process in self.processes:
            if process.poll() is None:
                process.kill()
                process.wait()

    def run(self, name, *arguments):
        return finish(self.start(name, *arguments))


def finish(process, patience_s=120):
    out, err = process.communicate(timeout=patience_s)
    if process.returncode != 0:
        raise AssertionError(f"{process.args}: exit {process.returncode}\n{out}{err}")
    return out


def python_programs(folder):
    subprocess.run([ROOT / "examples/python/generate", folder], check=True)
    return Programs("python", lambda name: ["/usr/bin/python3", "-u",
                                            str(ROOT / f"examples/python/{name}.py")],
                    {"PYTHONPATH": str(folder), "PYTHONDONTWRITEBYTECODE": "1"})


def cpp_programs():
    """None where this build has none."""
    folder = BUILD / "examples/cpp"
    if not (folder / "example_basics").exists():
        return None
    return Programs("cpp", lambda name: [str(folder / f"example_{name}")])


class Watch:
    """A watch program, and what it has said so far over all its starts."""

    def __init__(self, programs, target, prefix, file):
        self.programs, self.arguments = programs, (target, prefix, file)
        self.lines, self.notes = [], []
        self.process = None

    def start(self):
        self.process = self.programs.start("watch", *self.arguments)
        self.readers = [threading.Thread(target=self.read, args=(stream, into), daemon=True)
                        for stream, into in ((self.process.stdout, self.lines),
                                             (self.process.stderr, self.notes))]
        for reader in self.readers:
            reader.start()
        return self

    @staticmethod
    def read(stream, into):
        for line in stream:
            into.append(line.rstrip("\n"))

    def stop(self):
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()
        for reader in self.readers:
            reader.join(10)
        self.process.stdout.close()
        self.process.stderr.close()

    def events(self):
        return [line for line in self.lines if re.match(r"\d+ (create|put|delete) ", line)]

    def heard(self, count, what):
        eventually(lambda: len(self.events()) >= count, f"{self.programs.language}: {what}", 60)

    def mirror(self):
        with open(self.arguments[2], encoding="utf-8") as file:
            saved = json.load(file)
        return {item["key"]: item.get("text", "") for item in saved.get("items", [])}


class Writer:
    """Puts and deletions below watched/ through nodes that live, and what the watches must say."""

    def __init__(self, cluster):
        self.cluster = cluster
        self.expected = []
        self.items = {}
        self.number = 0

    def write(self, nodes, count):
        for _ in range(count):
            node = nodes[self.number % len(nodes)]
            key, text = f"watched/{self.number % 7}", f"v{self.number}"
            # A deletion in between, never of the key that comes next.
            if self.number % 10 == 9:
                gone = f"watched/{(self.number - 3) % 7}"
                deleted = node.config.Delete(config_pb2.DeleteRequest(key=gone), timeout=20)
                if deleted.deleted:
                    self.expected.append(f"{deleted.header.revision} delete {gone}")
                    self.items.pop(gone, None)
            put = node.put(key, text, timeout=20)
            word = "create" if put.version == 1 else "put"
            self.expected.append(f"{put.header.revision} {word} {key} {text}")
            self.items[key] = text
            self.number += 1


class Examples(unittest.TestCase):
    """Runs all languages that are here at the same time, so that they get into each other's way."""

    def languages(self, folder):
        found = [python_programs(folder), cpp_programs()]
        if found[1] is None:
            print("  SKIPPED the C++ examples: this preset does not build them", flush=True)
        return [programs for programs in found if programs]

    def setUp(self):
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="quorate-examples-"))
        self.addCleanup(shutil.rmtree, self.folder, ignore_errors=True)
        self.programs = self.languages(self.folder / "stubs")
        for programs in self.programs:
            self.addCleanup(programs.end)

    def test_examples(self):
        with Cluster(3) as cluster:
            cluster.start().wait_ready()
            self.target = "ipv4:" + ",".join(node.address for node in cluster.nodes)
            for programs in self.programs:
                self.basics(programs)
            self.while_nodes_are_killed(cluster)
            cluster.wait_equal()

    # --- One call after the other ---

    def basics(self, programs):
        nodes = set()
        for attempt in range(5):
            out = programs.run("basics", self.target, f"color/{programs.language}")
            lines = out.replace("True", "true").replace("False", "false").splitlines()
            self.assertRegex(lines[0], r"^put: revision (\d+), version 1, by node-\d$")
            revision = re.search(r"revision (\d+)", lines[0]).group(1)
            self.assertEqual(lines[1], f"the same put again: revision {revision}, version 1")
            for line in lines[2:5]:
                self.assertRegex(line, r"^our own write: blue, by node-\d, at most \d+ ms old$")
            nodes = set(re.findall(r"by (node-\d)", out))
            key = f"color/{programs.language}"
            self.assertEqual(lines[5:], [
                "linearizable: blue",
                f"not replaced: ABORTED REVISION_MISMATCH, it is at revision {revision}",
                "taken: true",
                "taken again: false, it belongs to me",
                f"listed: {key} = green, {key}/owner = me",
                "deleted: 2",
                "gone: NOT_FOUND KEY_NOT_FOUND"])
            if len(nodes) > 1:
                break
        self.assertGreater(len(nodes), 1, "the service config spreads calls over the nodes")
        story(f"{programs.language}: basics, with its own write read at {len(nodes)} nodes")

    # --- Under fire ---

    def while_nodes_are_killed(self, cluster):
        writer = Writer(cluster)
        writer.write(cluster.nodes, 5)
        cluster.wait_equal()  # so that all of it is in the first state, whichever node tells it
        watches = [Watch(programs, self.target, "watched/",
                         self.folder / f"{programs.language}.json").start()
                   for programs in self.programs]
        for watch in watches:
            eventually(lambda: any(line.startswith("synced ") for line in watch.lines),
                       f"{watch.programs.language}: the first state")
            self.assertEqual(watch.mirror(), writer.items)
        told = len(writer.expected)

        working, leader = {}, cluster.leader()
        for programs in self.programs:
            name = programs.language
            working[f"pipeline {name}"] = programs.start("pipeline", self.target,
                                                         f"pipeline/{name}/", PIPELINED)
            working[f"counter {name}"] = programs.start("counter", self.target, "counter", ADDED)
        eventually(lambda: self.count(cluster.nodes[0], "pipeline/") > 300, "pipelines run")
        leader.kill()
        self.assertTrue(any(process.poll() is None for process in working.values()))
        story(f"{leader.name} leads and is killed; the programs work on")
        writer.write([n for n in cluster.nodes if n is not leader], WRITES // 3)
        for name, process in working.items():
            out = finish(process)
            if name.startswith("pipeline"):
                self.assertRegex(out, rf"^wrote {PIPELINED} items, ")
            else:
                self.assertRegex(out, rf"^added {ADDED} in \d+ tries\n")
        self.done_once(next(n for n in cluster.nodes if n is not leader))
        leader.start()
        cluster.wait_ready()
        # Each other node too, so that each watch loses its stream at least once.
        for node in [n for n in cluster.nodes if n is not leader]:
            node.kill()
            writer.write([n for n in cluster.nodes if n is not node], WRITES // 3)
            node.start()
            cluster.wait_ready()
        self.judge(watches, writer, told)
        self.restart(cluster, watches, writer, told)

    def count(self, node, prefix):
        return node.config.List(config_pb2.ListRequest(prefix=prefix, count_only=True),
                                timeout=10).count

    def done_once(self, node):
        read = config_pb2.ReadOptions(consistency=config_pb2.CONSISTENCY_LINEARIZABLE)
        counter = node.config.Get(config_pb2.GetRequest(key="counter", read=read), timeout=20).item
        total = ADDED * len(self.programs)
        self.assertEqual((counter.text, counter.version), (str(total), total))
        story(f"{len(self.programs)} counters have added {total}, no more and no less")
        for programs in self.programs:
            items = node.list_all(f"pipeline/{programs.language}/")
            self.assertEqual([(i.text, i.version) for i in items],
                             [(f"value {n}", 1) for n in range(PIPELINED)])
        story(f"{PIPELINED} pipelined writes of each are there, each written once")

    def judge(self, watches, writer, told):
        for watch in watches:
            watch.heard(len(writer.expected) - told, "every change")
            self.assertEqual(watch.events(), writer.expected[told:], watch.programs.language)
            eventually(lambda: watch.mirror() == writer.items,
                       f"{watch.programs.language}: its copy is the store's")
            self.assertTrue(any("going on at revision" in note for note in watch.notes),
                            f"{watch.programs.language} lost no stream: {watch.notes}")
            story(f"{watch.programs.language}: {len(watch.events())} changes over three killed "
                  "nodes, nothing lost, nothing twice")

    def restart(self, cluster, watches, writer, told):
        """Changes that come while the program is down are told when it is back."""
        for watch in watches:
            watch.stop()
        writer.write(cluster.nodes, 20)
        for watch in watches:
            watch.start()
            watch.heard(len(writer.expected) - told, "what came while it was down")
            self.assertEqual(watch.events(), writer.expected[told:], watch.programs.language)
            eventually(lambda: watch.mirror() == writer.items, "its copy is the store's")
            watch.stop()
        story("killed and started again they go on where they were")

    # --- Errors ---

    def test_a_program_says_why_it_ends(self):
        for programs in self.programs:
            for arguments in ((), ("ipv4:127.0.0.1:1",)):
                process = programs.start("basics", *arguments)
                out, err = process.communicate(timeout=60)
                self.assertNotEqual(process.returncode, 0)
                self.assertEqual(out, "")
                self.assertIn("TARGET KEY", err)

    def test_a_watch_that_is_refused_ends(self):
        with Cluster(1) as cluster:
            cluster.start().wait_ready()
            target = f"ipv4:{cluster.nodes[0].address}"
            for programs in self.programs:
                # A key prefix with a control character is refused for good: no loop.
                process = programs.start("watch", target, "a\x01", self.folder / "none.json")
                out, err = process.communicate(timeout=60)
                self.assertNotEqual(process.returncode, 0, programs.language)
                self.assertIn("control character", err)
                self.assertEqual(out, "")


if __name__ == "__main__":
    main()
