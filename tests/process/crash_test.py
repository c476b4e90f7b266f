"""Crashes and damage: what a process leaves behind at any instant, and what a disk may do to it.

The log is read here by a few lines of its own, written from storage/LOG_FORMAT.md and not from the
code, so that the format on disk is what the document says.
"""

import random
import struct
import threading
import unittest

import grpc

from quorate_cluster import CALL_S, Cluster, eventually, main, story

RECORD = struct.Struct("<4sIIIIIQ")
ENTRY, HARD_STATE, MARK = 1, 2, 4


def newest_segment(node):
    return sorted(node.data.glob("log/*.log"))[-1]


def records(path):
    """(offset, type, body) of every record of a segment, from its header to the first gap."""
    data = path.read_bytes()
    assert data[:8] == b"QUORALOG", path
    offset = struct.unpack_from("<I", data, 12)[0]
    found = []
    while offset + RECORD.size <= len(data):
        magic, _, length, kind, _, _, _ = RECORD.unpack_from(data, offset)
        if magic != b"QREC":
            break
        found.append((offset, kind, data[offset + RECORD.size:offset + RECORD.size + length]))
        offset += RECORD.size + (length + 7) // 8 * 8
    return found, offset


def flip(path, offset):
    with open(path, "r+b") as file:
        file.seek(offset)
        byte = file.read(1)[0]
        file.seek(offset)
        file.write(bytes([byte ^ 0x40]))


def wait_idle(node):
    """Until the log's last record is a mark that vouches for everything before it."""
    def marked():
        found, _ = records(newest_segment(node))
        return found and found[-1][1] == MARK
    eventually(marked, f"{node.name}: a mark at the end of the idle log")


class AllAtOnce(unittest.TestCase):
    def test_all_three_are_killed_at_once_under_load(self):
        with Cluster(3) as cluster:
            cluster.start().wait_ready()
            acknowledged, lock, stop = {}, threading.Lock(), threading.Event()

            def write(node, number):
                version = 0
                while not stop.is_set():
                    key = f"all/{node.name}/{number}"
                    try:
                        version = node.put(key, f"{version}", timeout=CALL_S).version
                    except grpc.RpcError:
                        return
                    with lock:
                        acknowledged[key] = version
            threads = [threading.Thread(target=write, args=(node, i), daemon=True)
                       for node in cluster.nodes for i in range(2)]
            for thread in threads:
                thread.start()
            for round_number in range(3):
                eventually(lambda: sum(acknowledged.values()) > 200 * (round_number + 1) or
                           not any(t.is_alive() for t in threads), "acknowledged writes")
            stop_now = dict(acknowledged)
            for node in cluster.nodes:
                node.process.kill()
            for node in cluster.nodes:
                node.process.wait()
            stop.set()
            for thread in threads:
                thread.join(30)
            self.assertGreaterEqual(sum(stop_now.values()), 200)
            cluster.start().wait_ready()
            cluster.wait_equal()
            for node in cluster.nodes:
                items = {i.key: i.version for i in node.list_all("all/")}
                for key, version in acknowledged.items():
                    self.assertIn(items.get(key, 0), (version, version + 1), f"{key}, {node.name}")
            story(f"{sum(acknowledged.values())} acknowledged writes outlived SIGKILL of all three")


class Damage(unittest.TestCase):
    """One node's log is damaged while it is down; the other two go on."""

    def prepared(self, cluster):
        cluster.start().wait_ready()
        for i in range(40):
            cluster.nodes[i % 3].put(f"damage/{i:02}", f"value {i}")
        cluster.wait_equal()
        victim = cluster.followers()[0]
        wait_idle(victim)
        victim.kill()
        return victim

    def refused(self, node, path, offset):
        node.start()
        self.assertNotEqual(node.wait_exit(), 0)
        text = node.log_text()
        self.assertIn(path.name, text)
        self.assertIn(str(offset), text)
        story("refused: " + text.strip().splitlines()[-1][:200])

    def comes_back(self, cluster, node):
        node.start()
        cluster.wait_ready([node])
        statuses = cluster.wait_equal()
        self.assertEqual(len(node.list_all("damage/")), 40)
        return statuses

    def test_a_torn_tail_is_cut(self):
        with Cluster(3) as cluster:
            victim = self.prepared(cluster)
            path = newest_segment(victim)
            found, end = records(path)
            offset, _, body = next(r for r in reversed(found) if r[1] == ENTRY)
            torn = path.read_bytes()[offset:offset + RECORD.size + len(body) // 2]
            with open(path, "r+b") as file:
                file.seek(end)
                file.write(torn)
            self.comes_back(cluster, victim)
            story(f"half a record at {path.name}:{end} was cut, and the node caught up")

    def test_a_flipped_byte_in_mid_log_is_refused(self):
        with Cluster(3) as cluster:
            victim = self.prepared(cluster)
            path = newest_segment(victim)
            found, _ = records(path)
            entries = [r for r in found if r[1] == ENTRY and b"damage/" in r[2]]
            offset, _, body = entries[len(entries) // 2]
            flip(path, offset + RECORD.size + len(body) - 1)
            self.refused(victim, path, offset)
            flip(path, offset + RECORD.size + len(body) - 1)
            self.comes_back(cluster, victim)
            story("flipped back it starts: the refusal changed nothing")

    def test_a_flipped_byte_in_the_last_acknowledged_entry_is_refused(self):
        with Cluster(3) as cluster:
            victim = self.prepared(cluster)
            path = newest_segment(victim)
            found, _ = records(path)
            offset, _, body = [r for r in found if r[1] == ENTRY][-1]
            self.assertIn(b"damage/39", body)
            flip(path, offset + RECORD.size + len(body) - 1)
            self.refused(victim, path, offset)

    def test_the_last_vote_is_cured_from_its_other_copy(self):
        for copy in (0, 1):
            with self.subTest(copy=copy), Cluster(3) as cluster:
                victim = self.prepared(cluster)
                path = newest_segment(victim)
                pair = [r for r in records(path)[0] if r[1] == HARD_STATE][-2:]
                self.assertNotEqual(pair[0][0] // 4096, pair[1][0] // 4096,
                                    "the two copies share a block")
                offset, _, body = pair[copy]
                flip(path, offset + RECORD.size)
                self.comes_back(cluster, victim)
                term = victim.status().header.term
                self.assertGreaterEqual(term, struct.unpack_from("<Q", body)[0])
                story(f"a flipped byte in copy {copy + 1} of the vote, {path.name}:{offset}, was "
                      f"cured; term {term}")

    def test_both_copies_of_the_last_vote_are_refused(self):
        with Cluster(3) as cluster:
            victim = self.prepared(cluster)
            path = newest_segment(victim)
            pairs = [r for r in records(path)[0] if r[1] == HARD_STATE]
            for offset, _, _ in pairs[-2:]:
                flip(path, offset + RECORD.size)
            self.refused(victim, path, pairs[-2][0])


class AnyInstant(unittest.TestCase):
    def test_killed_at_any_instant_it_restarts_without_help(self):
        seed = random.randrange(1 << 32)
        story(f"seed {seed}")
        moments = random.Random(seed)
        with Cluster(3) as cluster:
            cluster.start().wait_ready()
            written = {}
            for round_number in range(8):
                victim = moments.choice(cluster.nodes)
                others = [n for n in cluster.nodes if n is not victim]
                instant = moments.randrange(1, 60)
                for i in range(60):
                    if i == instant:
                        victim.kill()
                        victim.start()  # in the middle of everything
                    key = f"any/{i % 7}"
                    written[key] = moments.choice(others).put(key, f"{round_number}.{i}").version
                cluster.wait_ready()
            cluster.wait_equal()
            for node in cluster.nodes:
                items = {i.key: i.version for i in node.list_all("any/")}
                self.assertEqual(items, written)
            story("eight kills at random instants; every version is exactly the writes made")


if __name__ == "__main__":
    main()
