"""Three nodes are born, take a write anywhere, show it everywhere, and stop when told to."""

import unittest

import grpc

from quorate_cluster import CALL_S, Cluster, cluster_pb2, config_pb2, eventually, main, story


class Smoke(unittest.TestCase):
    def test_a_write_through_every_node_is_on_every_node(self):
        with Cluster(3) as cluster:
            cluster.start().wait_ready()
            leader = cluster.leader()
            story(f"born; {leader.name} leads")
            for node in cluster.nodes:
                answer = node.put(f"app/{node.name}", f"written through {node.name}")
                self.assertEqual(answer.version, 1)
                self.assertEqual(answer.create_revision, answer.header.revision)
                self.assertEqual(answer.header.node_id, node.name)
                self.assertEqual(answer.header.leader_id, leader.name)
            cluster.wait_equal()
            for node in cluster.nodes:
                items = node.list_all("app/")
                self.assertEqual([i.key for i in items],
                                 ["app/node-1", "app/node-2", "app/node-3"])
                self.assertEqual([i.text for i in items],
                                 [f"written through {n.name}" for n in cluster.nodes])
                got = node.get("app/node-2")
                self.assertFalse(got.header.staleness.unknown)
                self.assertLess(got.header.staleness.age.ToMilliseconds(), 60_000)
            story("three writes through three nodes are on all three, with equal state hashes")

            changed = cluster.nodes[0].put("app/node-1", "again")
            self.assertEqual(changed.version, 2)
            deleted = cluster.nodes[1].config.Delete(config_pb2.DeleteRequest(key="app/node-2"),
                                                     timeout=CALL_S)
            self.assertEqual(deleted.deleted, 1)
            self.assertEqual(deleted.header.revision, changed.header.revision + 1)
            with self.assertRaises(grpc.RpcError) as gone:
                eventually_gone = cluster.nodes[1]
                cluster.wait_equal()
                eventually_gone.get("app/node-2")
            self.assertEqual(gone.exception.code(), grpc.StatusCode.NOT_FOUND)
            nothing = cluster.nodes[2].config.Delete(config_pb2.DeleteRequest(prefix="none/"),
                                                     timeout=CALL_S)
            self.assertEqual(nothing.deleted, 0)
            self.assertEqual(nothing.header.revision, deleted.header.revision)

            members = cluster.nodes[2].control.ListMembers(cluster_pb2.ListMembersRequest(),
                                                           timeout=5)
            self.assertEqual(sorted(m.node_id for m in members.members),
                             ["node-1", "node-2", "node-3"])
            self.assertEqual(members.failures_tolerated, 1)
            for node in cluster.nodes:
                self.assertEqual(node.stop(), 0, f"{node.name} ends cleanly on SIGTERM")
            story("all three ended cleanly on SIGTERM")

    def test_one_node_without_a_raft_section_serves_alone(self):
        with Cluster(1) as cluster:
            node = cluster.nodes[0]
            node.config_path.write_text(
                'mode: "controlplane"\ncontrolPlane:\n'
                f'  address: "127.0.0.1:{node.client_port}"\n'
                f'  metricsAddress: "127.0.0.1:{node.ops_port}"\n'
                f'  storePath: "{node.data}"\n')
            node.start()
            cluster.wait_ready()
            self.assertEqual(node.put("a", "b").version, 1)
            node.kill()
            node.start()
            cluster.wait_ready()
            self.assertEqual(eventually(lambda: node.get("a"), "a read").item.text, "b")
            story("one node: its write outlives SIGKILL")


if __name__ == "__main__":
    main()
