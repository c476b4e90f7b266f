"""Who is who: wiped disks, directories of others, copied directories, and what start refuses.

Every refusal says what to do; none of them damages anything.
"""

import datetime
import os
import re
import shutil
import socket
import subprocess
import threading
import unittest

import grpc

from quorate_cluster import (BINARY, PATIENCE_S, Cluster, Node, cluster_pb2, error_info, eventually,
                             free_port, main, story)


class Asking:
    """Adds the node at a port again and again, until the node that is asked has gone."""

    def __init__(self, node, port):
        self.node, self.address = node, f"127.0.0.1:{port}"
        self.answers = []
        self.thread = threading.Thread(target=self.run)
        self.thread.start()

    def run(self):
        request = cluster_pb2.AddMemberRequest(address=self.address)
        while not self.answers or self.answers[-1][1] not in ("SHUTTING_DOWN", None):
            began = datetime.datetime.utcnow()
            try:
                self.node.control.AddMember(request, timeout=PATIENCE_S)
            except grpc.RpcError as error:
                self.answers.append((began, error_info(error)[0]))

    def ends(self):
        """When each call began, and its reason."""
        self.thread.join()
        return self.answers


class Identity(unittest.TestCase):
    def test_a_wiped_node_neither_votes_nor_serves_and_says_why(self):
        with Cluster(3) as cluster:
            cluster.start().wait_ready()
            cluster.nodes[0].put("kept", "value")
            cluster.wait_equal()
            wiped = cluster.followers()[0]
            others = [n for n in cluster.nodes if n is not wiped]
            old_store = wiped.status().store_id
            wiped.stop()
            shutil.rmtree(wiped.data)
            wiped.start()

            # First it lacks the answers of the others, until one of them knows the store it was.
            status = eventually(
                lambda: (lambda s: s if wiped.name in " ".join(s.lacks) else None)(wiped.status()),
                "a node of the cluster tells the wiped one where it stands")
            self.assertNotEqual(status.store_id, old_store)
            self.assertEqual(status.role, cluster_pb2.NODE_ROLE_WAITING)
            text = " ".join(status.lacks)
            self.assertTrue("wiped" in text or "replaced" in text, text)
            story(f"{wiped.name} with a wiped disk says: {text}")
            with self.assertRaises(grpc.RpcError) as refused:
                wiped.get("kept")
            self.assertEqual(refused.exception.code(), grpc.StatusCode.UNAVAILABLE)
            self.assertIsNotNone(error_info(refused.exception)[0])
            with self.assertRaises(grpc.RpcError) as write:
                wiped.put("kept", "other", timeout=5)
            self.assertEqual(write.exception.code(), grpc.StatusCode.UNAVAILABLE)
            self.assertNotEqual(wiped.http("/readyz")[0], 200)

            leader = cluster.leader(others)
            leader.kill()
            survivor = next(n for n in others if n is not leader)
            with self.assertRaises(grpc.RpcError):
                survivor.put("kept", "by a minority", timeout=5)
            self.assertEqual(survivor.status().header.leader_id, "")
            story("with one old store dead, the wiped one does not make up a majority")
            leader.start()
            cluster.wait_ready(others)
            self.assertEqual(survivor.get("kept").item.text, "value")

    def test_an_unborn_node_says_what_it_lacks(self):
        with Cluster(3) as cluster:
            first = cluster.nodes[0]
            first.start()
            status = eventually(lambda: (lambda s: s if s.lacks else None)(first.status()),
                                "an unborn node answers Status and says what it lacks")
            text = " ".join(status.lacks)
            self.assertIn("node-2", text)
            self.assertIn("node-3", text)
            self.assertEqual(status.header.cluster_id, "")
            members = first.control.ListMembers(cluster_pb2.ListMembersRequest(), timeout=5)
            self.assertEqual(len(members.header.cluster_id), 0)
            with self.assertRaises(grpc.RpcError) as refused:
                first.put("early", "x", timeout=5)
            self.assertEqual(refused.exception.code(), grpc.StatusCode.UNAVAILABLE)
            story(f"alone and unborn: {text}")
            cluster.nodes[1].start()
            cluster.nodes[2].start()
            cluster.wait_ready()
            ids = {n.status().header.cluster_id for n in cluster.nodes}
            self.assertEqual(len(ids), 1)
            story(f"all there: one cluster, {ids.pop()}")

    def test_birth_over_crashes_makes_one_cluster(self):
        with Cluster(3) as cluster:
            for round_number in range(6):
                cluster.start()
                victim = cluster.nodes[round_number % 3]
                eventually(lambda: victim.http("/livez")[0] == 200, "alive")
                for node in cluster.nodes:
                    node.kill()
            cluster.start().wait_ready()
            ids = {n.status().header.cluster_id for n in cluster.nodes}
            self.assertEqual(len(ids), 1)
            cluster.nodes[2].put("born", "once")
            cluster.wait_equal()
            story("six starts ended by SIGKILL, one cluster")

    def test_a_copied_directory_stops_both(self):
        with Cluster(3) as cluster:
            cluster.start().wait_ready()
            original = cluster.followers()[0]
            others = [n for n in cluster.nodes if n is not original]
            directory = cluster.root / "copy"
            directory.mkdir()
            copy = Node(cluster, original.name, directory, (free_port(), free_port(), free_port()))
            original.stop()
            shutil.copytree(original.data, copy.data)
            original.start()
            cluster.wait_ready()
            # It leads, and asks somebody who never answers.
            cluster.make_leader(original)
            silent = socket.create_server(("127.0.0.1", 0))
            self.addCleanup(silent.close)
            asking = [Asking(original, silent.getsockname()[1]) for _ in range(2)]
            # The copy has its own address, as a restored machine image would.
            copy.write_config([copy if n is original else n for n in cluster.nodes])
            copy.start()
            try:
                self.assertNotEqual(original.wait_exit(), 0)
                self.assertNotEqual(copy.wait_exit(), 0)
                halted = re.search(r'time="([^"]+)Z" [^\n]*stops voting and serving',
                                   original.log_text())
                halted = datetime.datetime.fromisoformat(halted[1])
                ends = [end for each in asking for end in each.ends()]
                self.assertTrue([reason for began, reason in ends
                                 if began < halted and reason == "SHUTTING_DOWN"], (halted, ends))
                story("a question under way did not hold it up: its call was ended")
                for node in (original, copy):
                    self.assertIn("store", node.log_text())
                story("both processes of one store id have stopped")
                cluster.wait_ready(others)
                others[0].put("after", "x")
                self.assertEqual(original.process.poll() is None, False)
                shutil.rmtree(copy.data)
                original.start()
                cluster.wait_ready()
                story("with the copy gone the original serves again")
            finally:
                copy.kill()


class Refusals(unittest.TestCase):
    """What `quorate serve` refuses at start: exit code 1, one clear message, nothing touched."""

    def refused(self, node, *words, env=None):
        done = subprocess.run([BINARY, "serve", "--config", str(node.config_path)],
                              capture_output=True, text=True, timeout=PATIENCE_S, env=env)
        output = done.stdout + done.stderr
        self.assertNotIn(done.returncode, (0, -6, -11), output)
        for word in words:
            self.assertIn(word, output)
        print("  refused: " + output.strip().splitlines()[-1][:200], flush=True)
        return output

    def test_a_directory_of_another_node(self):
        with Cluster(3) as cluster:
            cluster.start().wait_ready()
            first, second = cluster.nodes[0], cluster.nodes[1]
            first.stop()
            second.stop()
            shutil.rmtree(second.data)
            shutil.copytree(first.data, second.data)
            self.refused(second, "node-1", "node-2")

    def test_a_directory_in_use(self):
        with Cluster(1) as cluster:
            node = cluster.nodes[0]
            cluster.start().wait_ready()
            text = node.config_path.read_text()
            for port in (node.client_port, node.ops_port):
                text = text.replace(str(port), str(free_port()))
            other = cluster.root / "other.yaml"
            other.write_text(text)
            node.config_path = other
            self.refused(node, str(node.process.pid))

    def test_a_port_in_use(self):
        with Cluster(1) as cluster:
            node = cluster.nodes[0]
            for port in (node.client_port, node.peer_port, node.ops_port):
                with socket.socket() as taken:
                    taken.bind(("127.0.0.1", port))
                    taken.listen()
                    self.refused(node, str(port))
            node.start()
            cluster.wait_ready()

    def test_an_unwritable_path(self):
        with Cluster(1) as cluster:
            node = cluster.nodes[0]
            blocker = cluster.root / "file"
            blocker.write_text("not a directory")
            node.data = blocker / "data"
            node.write_config(cluster.nodes)
            self.refused(node, str(blocker))

    def test_configurations_with_line_and_column(self):
        with Cluster(1) as cluster:
            node = cluster.nodes[0]
            good = node.config_path.read_text()
            peers = good[good.index("    peers:"):]
            rows = [
                ("an unknown key", good.replace("storePath", "storagePath"), ":5:3:", "storePath"),
                ("another mode", good.replace('"controlplane"', '"proxy"'), ":1:7:",
                 "controlplane"),
                ("no nodeId", good.replace('    nodeId: "node-1"\n', ""), "nodeId"),
                ("an unset variable", good.replace('"node-1"\n', '"${QUORATE_NOT_SET}"\n', 1),
                 "QUORATE_NOT_SET"),
                ("neither dns nor peers", good.replace(peers, ""), "peers", "discovery.dns"),
                ("both dns and peers", good + '    discovery:\n      dns: "a.b.svc"\n',
                 "controlPlane.raft.discovery", "peers"),
                ("a bad address", good.replace(f'bindAddress: "127.0.0.1:{node.peer_port}"',
                                               'bindAddress: "127.0.0.1"'), "bindAddress"),
                ("not YAML", good + "  : : :\n  - x", ":"),
            ]
            for name, text, *words in rows:
                with self.subTest(name):
                    node.config_path.write_text(text)
                    self.refused(node, *words, str(node.config_path))
            self.assertFalse(node.data.exists(), "a refused configuration made a directory")
            validated = subprocess.run([BINARY, "validate-config", str(node.config_path)],
                                       capture_output=True, text=True, timeout=PATIENCE_S)
            self.assertNotEqual(validated.returncode, 0)
            node.config_path.write_text(good)
            validated = subprocess.run([BINARY, "validate-config", str(node.config_path)],
                                       capture_output=True, text=True, timeout=PATIENCE_S)
            self.assertEqual(validated.returncode, 0, validated.stderr)


if __name__ == "__main__":
    main()
