"""docs/api.md says what is so: every example in it is run, in order, against three fresh nodes, and its
lists of calls and of errors are compared with the protos and with the code.

In the page the nodes are 10.0.0.1 to 10.0.0.3, node-1 to node-3; node-4 waits to be let in. In the
output that it shows <word> stands for anything without a space, the same thing within one block (in
later commands, too); a line of three dots stands for any lines; runs of spaces count as one.
"""

import os
import pathlib
import re
import shutil
import stat
import subprocess
import tempfile
import unittest

import grpc

from quorate_cluster import (BINARY, PRESET, ROOT, Cluster, cluster_pb2, config_pb2, eventually,
                             main, story)
from tools_test import find_tool

PAGE = ROOT / "docs/api.md"
REASON = re.compile(r"[A-Z]+(_[A-Z]+)+|BEHIND|DRAINING|REQUIRED")

# Where reasons are made that no client of Config or Cluster ever sees: the peer port's, and the log's
# own answers to nodes.
PEERS_ONLY = ("services/raft_service.cc", "services/peer_codec.cc", "services/snapshot_receiver.cc",
              "services/snapshot_sender.cc", "services/forward_streams.cc")
NOT_FOR_CLIENTS = {
    "SESSION_UNKNOWN", "SEQUENCE_GAP", "TOO_MANY_UNANSWERED", "STORE_NOT_MEMBER",
    "SESSION_BOOT_OLDER", "SESSION_NONCE_DIFFERS",  # between a node and the leader's state machine
    "MALFORMED_COMMAND",  # the leader refuses such a write before it is in the log (WRITE_MALFORMED)
}


def page():
    return PAGE.read_text(encoding="utf-8")


def blocks():
    """[(line, language, [text lines])] of the page's fenced blocks."""
    found, language, lines, start = [], None, [], 0
    for number, line in enumerate(page().splitlines(), 1):
        if not line.startswith("```"):
            if language is not None:
                lines.append(line)
        elif language is None:
            language, lines, start = line[3:], [], number
        else:
            found.append((start, language, lines))
            language = None
    assert language is None, "a block is not closed"
    return found


def examples(lines):
    """[(command, [expected lines])] of one block."""
    found = []
    for line in lines:
        if line.startswith("$ "):
            found.append((line[2:], []))
        elif line.startswith("> ") or line == ">":
            command, expected = found[-1]
            assert not expected, f"a continued line after output: {line}"
            found[-1] = (command + "\n" + line[2:], expected)
        else:
            found[-1][1].append(line)
    return found


def normal(line):
    return re.sub(r"\s+", " ", line).strip()


class Matcher:
    """Compares output with what the page shows; remembers what its <words> stand for."""

    def __init__(self):
        self.words = {}

    def line(self, expected, actual):
        pattern, last, fresh = "", 0, {}
        for found in re.finditer(r"<([a-z][a-z-]*)>", expected):
            pattern += re.escape(expected[last:found.start()])
            name = found.group(1)
            if name in self.words:
                pattern += re.escape(self.words[name])
            elif name in fresh:
                pattern += f"(?P={fresh[name]})"
            else:
                fresh[name] = f"w{len(fresh)}"
                pattern += f"(?P<{fresh[name]}>[^\\s\",]+)"
            last = found.end()
        match = re.fullmatch(pattern + re.escape(expected[last:]), actual)
        if match:
            self.words.update({name: match.group(group) for name, group in fresh.items()})
        return match is not None

    def lines(self, expected, actual):
        if not expected:
            return not actual
        if expected[0] == "...":
            return any(self.lines(expected[1:], actual[skip:]) for skip in range(len(actual) + 1))
        return bool(actual) and self.line(expected[0], actual[0]) and \
            self.lines(expected[1:], actual[1:])


class Shell:
    """One bash for the whole page: what an example exports the next one has."""

    END = "@@the command has ended@@"

    def __init__(self, folder, nodes, tools):
        self.nodes = nodes
        environment = {"PATH": f"{tools}:/usr/bin:/bin", "HOME": str(folder), "LC_ALL": "C.UTF-8",
                       "NO_COLOR": "1", "PYTHONDONTWRITEBYTECODE": "1",
                       "QUORATE_BINARY": BINARY}
        # What a sanitizer is to ignore, and how it speaks.
        environment.update({name: value for name, value in os.environ.items()
                            if name.endswith("SAN_OPTIONS")})
        self.bash = subprocess.Popen(["/bin/bash", "--norc"], cwd=folder, env=environment,
                                     stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                     stderr=subprocess.STDOUT, text=True)

    def run(self, command):
        """The lines that it prints, with the page's addresses."""
        for number, node in enumerate(self.nodes, 1):
            command = command.replace(f"10.0.0.{number}:8080", node.address)
            command = command.replace(f"10.0.0.{number}:7000", f"127.0.0.1:{node.peer_port}")
        # The one before is the one whose exit code `$?` shows.
        self.bash.stdin.write(f"(exit ${{code:-0}})\n{command}\ncode=$?\n"
                              f"printf '\\n%s\\n' '{self.END}'\n")
        self.bash.stdin.flush()
        lines = []
        for line in self.bash.stdout:
            if line == self.END + "\n":
                break
            lines.append(line.rstrip("\n"))
        else:
            raise AssertionError(f"the shell has ended in: {command}")
        if lines and not lines[-1]:
            lines.pop()  # of our own printf, when the output ended its last line
        text = "\n".join(lines)
        for number, node in enumerate(self.nodes, 1):
            text = text.replace(node.address, f"10.0.0.{number}:8080")
            text = text.replace(f"127.0.0.1:{node.peer_port}", f"10.0.0.{number}:7000")
        return text.splitlines()

    def close(self):
        self.bash.stdin.close()
        self.bash.wait(30)
        self.bash.stdout.close()


def make_tools(folder):
    """quorate and grpcurl as the page calls them; says which grpcurl."""
    folder.mkdir()
    (folder / "quorate").symlink_to(BINARY)
    real = find_tool("grpcurl")
    if real:
        (folder / "grpcurl").symlink_to(real)
        return "grpcurl"
    script = folder / "grpcurl"
    stand_in = ROOT / "tests/process/grpcurl_stand_in.py"
    script.write_text(f"#!/bin/sh\nexec /usr/bin/python3 '{stand_in}' \"$@\"\n")
    script.chmod(script.stat().st_mode | stat.S_IXUSR)
    return "a stand-in for grpcurl, which is not here"


class Page(unittest.TestCase):
    # The page asks for many symbols by gRPC's reflection. Protobuf's pool ends those calls with a tail
    # call of unlock, which the thread sanitizer takes for one by the reflection library and does not
    # see; to silence what follows would silence protobuf as a whole.
    @unittest.skipIf(PRESET == "tsan", "the thread sanitizer does not see protobuf's unlock")
    def test_every_example(self):
        folder = pathlib.Path(tempfile.mkdtemp(prefix="quorate-page-"))
        self.addCleanup(shutil.rmtree, folder, ignore_errors=True)
        which = make_tools(folder / "tools")
        # Three founders, and one that knows of them and waits to be let in.
        with Cluster(4) as cluster:
            founders = cluster.nodes[:3]
            for node in founders:
                node.write_config(founders)
            cluster.start().wait_ready(founders)
            shell = Shell(folder, cluster.nodes, folder / "tools")
            count = 0
            try:
                for start, language, lines in blocks():
                    if language != "console":
                        continue
                    matcher = Matcher()
                    for command, expected in examples(lines):
                        # What the last one wrote is there on all nodes: the page is read slowly.
                        cluster.wait_ready(founders).wait_equal(founders)
                        self.example(shell, matcher, start, command, expected)
                        count += 1
            finally:
                shell.close()
        story(f"{count} commands, with {which}: all say what the page says")

    def example(self, shell, matcher, start, command, expected):
        for word, text in matcher.words.items():
            command = command.replace(f"<{word}>", text)
        actual = shell.run(command)
        good = matcher.lines([normal(e) for e in expected], [normal(a) for a in actual])
        with self.subTest(line=start, command=command):
            self.assertTrue(good, "\n--- the page says\n" + "\n".join(expected) +
                            "\n--- it is\n" + "\n".join(actual) + f"\n--- with {matcher.words}")

    def test_nothing_is_shown_that_is_not_run(self):
        for start, language, lines in blocks():
            self.assertEqual(language, "console", f"line {start}: not an example that is run")
            self.assertTrue(lines[0].startswith("$ "), f"line {start}: no command")

    def test_every_call_has_its_section(self):
        sections, service = {}, None
        for line in page().splitlines():
            heading = re.match(r"(##+) (?:quorate\.v1\.)?(\S+)$", line)
            if heading and heading.group(1) == "##":
                service = heading.group(2)
            elif heading and heading.group(1) == "###" and service in ("Config", "Cluster"):
                sections.setdefault(service, []).append(heading.group(2))
            elif re.match(r"## ", line):
                service = None
        for module, name in ((config_pb2, "Config"), (cluster_pb2, "Cluster")):
            calls = [m.name for m in module.DESCRIPTOR.services_by_name[name].methods]
            self.assertEqual(sections.get(name), calls, f"the sections of {name}, in order")

    def test_every_reason_is_there_and_no_other(self):
        told = {}
        for line in page().splitlines():
            row = re.match(r"\| `([A-Z_]+)` \| ([A-Z_]+) \|", line)
            if row:
                self.assertNotIn(row.group(1), told, "twice")
                self.assertIn(row.group(2), grpc.StatusCode.__members__)
                told[row.group(1)] = row.group(2)
        made = reasons_in_code()
        self.assertGreater(len(made), 40)
        self.assertEqual(made - set(told), set(), "reasons that docs/api.md does not explain")
        self.assertEqual(set(told) - made, set(), "reasons that the code does not make")
        codes = codes_in_code()
        self.assertGreater(len(codes), 20)
        for reason, code in codes:
            if reason in told:
                self.assertEqual(told[reason], code, reason)


def sources():
    for folder in ("services", "ingress", "storage"):
        for file in sorted((ROOT / folder).glob("*.[ch]*")):
            if f"{folder}/{file.name}" not in PEERS_ONLY:
                yield re.sub(r"//.*", "", file.read_text(encoding="utf-8"))


def reasons_in_code():
    """Every reason that a client may see. All texts in capitals of the code that makes errors, without
    the names of status codes and what is not for clients: a new one is found wherever it is made."""
    found = set()
    for text in sources():
        found |= {word for word in re.findall(r'"([A-Z_]+)"', text) if REASON.fullmatch(word)}
    found |= {reason for reason, _ in codes_in_code()}
    return found - NOT_FOR_CLIENTS - set(grpc.StatusCode.__members__)


def codes_in_code():
    """{(reason, code)} where both are told by one call."""
    found = set()
    for text in sources():
        found |= {(reason, code) for code, reason in re.findall(
            r'MakeError\(\s*(?:grpc::)?StatusCode::(\w+),\s*"([A-Z_]+)"', text)}
        found |= {(reason, "INVALID_ARGUMENT")
                  for reason in re.findall(r'MakeFieldError\(\s*"([A-Z_]+)"', text)}
    return found


class TheTestItself(unittest.TestCase):
    def test_the_matcher(self):
        def same(expected, actual):
            return Matcher().lines(expected.splitlines(), actual.splitlines())
        self.assertTrue(same("a <b> c", "a 7 c"))
        self.assertFalse(same("a <b> c", "a 7 8 c"))
        self.assertTrue(same("a <b>\n<b>", "a 7\n7"))
        self.assertFalse(same("a <b>\n<b>", "a 7\n8"))
        self.assertTrue(same("a\n...\nd", "a\nb\nc\nd"))
        self.assertTrue(same("a\n...", "a"))
        self.assertFalse(same("a\n...\nd", "a\nb"))
        self.assertFalse(same("", "a"))
        self.assertFalse(same("a", ""))
        self.assertFalse(same("a.c", "abc"))


if __name__ == "__main__":
    main()
