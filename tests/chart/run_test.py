"""The chart's pods run: rendered by Helm from the seed's values, each with a network address, a root
file system and a user of its own, behind the rendered headless name in real DNS."""

import sys
import threading
import time
import unittest

import grpc

from quorate_chart import ChartCluster, find_helm, only, quorate_network, render
from quorate_cluster import (PATIENCE_S, cluster_pb2, config_pb2, config_pb2_grpc, eventually,
                             story)
from render_test import SEED


class ServiceClient:
    """Writes through the client service: one endpoint after the other of those that are ready, as
    often as Kubernetes looks. A call that was refused goes to the next one."""

    def __init__(self, cluster):
        self.cluster, self.stop = cluster, threading.Event()
        self.written, self.failures, self.slowest = 0, [], 0.0
        self.endpoints, self.channels = cluster.endpoints(), {}
        self.threads = [threading.Thread(target=run) for run in (self.look, self.write)]
        for thread in self.threads:
            thread.start()

    def look(self):
        while not self.stop.wait(0.5):
            self.endpoints = self.cluster.endpoints() or self.endpoints

    def put(self, number):
        request = config_pb2.PutRequest(key="service/count", text=str(number),
                                        request_id=f"count-{number}")
        for attempt in range(4):
            endpoint = self.endpoints[(number + attempt) % len(self.endpoints)]
            if endpoint not in self.channels:
                self.channels[endpoint] = grpc.insecure_channel(endpoint)
            try:
                return config_pb2_grpc.ConfigStub(self.channels[endpoint]).Put(request, timeout=10)
            except grpc.RpcError as error:
                last = error
                if error.code() != grpc.StatusCode.UNAVAILABLE:
                    break
        raise last

    def write(self):
        while not self.stop.is_set():
            began = time.monotonic()
            try:
                self.put(self.written + 1)
                self.written += 1
            except grpc.RpcError as error:
                self.failures.append((self.written + 1, error.code(), error.details()))
            self.slowest = max(self.slowest, time.monotonic() - began)
            time.sleep(0.005)

    def wait_for_more(self, count=50):
        goal = self.written + count
        eventually(lambda: self.written >= goal, f"{count} more writes")

    def end(self):
        self.stop.set()
        for thread in self.threads:
            thread.join()
        for channel in self.channels.values():
            channel.close()


def stores(pod):
    members = pod.control.ListMembers(cluster_pb2.ListMembersRequest(), timeout=5).members
    return {m.node_id: m.store_id for m in members if m.voter}


class Run(unittest.TestCase):
    def test_install_use_and_a_rolling_restart(self):
        objects = render(SEED)
        with ChartCluster(objects) as cluster:
            self.assertIn("quorate-control-plane-headless.quorate.svc", cluster.DNS)
            for pod in cluster.nodes:
                pod.start()
            for pod in cluster.nodes:
                eventually(lambda: pod.probe("livenessProbe"), f"{pod.name} is alive")
                self.assertTrue(pod.probe("startupProbe"))
                self.assertFalse(pod.probe("readinessProbe"))
            self.assertEqual(cluster.endpoints(), [])
            story("three pods are alive and not ready: DNS shows nobody yet")
            cluster.show()
            for pod in cluster.nodes:
                eventually(lambda: pod.probe("readinessProbe"), f"{pod.name} is ready")
            self.assertEqual(len(cluster.endpoints()), 3)
            before = stores(cluster.nodes[0])
            self.assertEqual(len(before), 3)
            code, out = cluster.nodes[2].execute(["quorate", "put", "app/color", "blue"])
            self.assertEqual(code, 0, out)
            cluster.wait_equal()
            self.assertEqual(cluster.nodes[0].execute(["quorate", "get", "app/color"]),
                             (0, "blue"))
            story("the cluster is born; `kubectl exec` writes at one pod and reads at another")

            # Another configuration: another template, and Kubernetes replaces pod after pod.
            values = {"controlPlane": {**SEED["controlPlane"], "config": {"controlPlane": {
                **SEED["controlPlane"]["config"]["controlPlane"],
                "metricsAddress": ":8181"}}}, "drainSeconds": 2}
            changed = render(values)
            self.assertNotEqual(only(changed, "StatefulSet")["spec"]["template"],
                                only(objects, "StatefulSet")["spec"]["template"])
            client = ServiceClient(cluster)
            try:
                client.wait_for_more()
                for pod in reversed(cluster.nodes):
                    led = pod.status().role == cluster_pb2.NODE_ROLE_LEADER
                    began = time.monotonic()
                    hook, code = pod.end()
                    took = time.monotonic() - began
                    self.assertEqual(hook[0], 0, hook)
                    self.assertEqual(code, 0)
                    self.assertLess(took, pod.grace_s)
                    pod.configure(changed)
                    cluster.move(pod)
                    pod.start()
                    cluster.show()
                    eventually(lambda: pod.probe("readinessProbe"), f"{pod.name} is ready again")
                    client.wait_for_more()
                    story(f"{pod.name}{', which led,' if led else ''} ended in {took:.1f} s and came "
                          "back elsewhere")
            finally:
                client.end()
            self.assertEqual(client.failures, [])
            cluster.wait_equal()
            self.assertEqual(stores(cluster.nodes[0]), before)
            self.assertEqual(cluster.nodes[1].get("service/count").item.text, str(client.written))
            self.assertEqual(cluster.nodes[1].get("service/count").item.version, client.written)
            story(f"{client.written} writes through the service meanwhile, none failed; the slowest "
                  f"took {1000 * client.slowest:.0f} ms")
            self.scale_to_five(cluster, values, changed)

    def scale_to_five(self, cluster, values, changed):
        grown = render({**values, "controlPlane": {**values["controlPlane"], "replicas": 5}})
        self.assertEqual(only(grown, "StatefulSet")["spec"]["template"],
                         only(changed, "StatefulSet")["spec"]["template"], "nobody is restarted")
        boots = [pod.process.pid for pod in cluster.nodes]
        cluster.use(grown)
        client = ServiceClient(cluster)
        try:
            client.wait_for_more()
            began = time.monotonic()
            more = [cluster.add_pod().start() for _ in range(2)]
            cluster.show()
            for pod in more:
                eventually(lambda: pod.probe("readinessProbe"), f"{pod.name} is ready")
            eventually(lambda: len(stores(cluster.nodes[0])) == 5, "five vote", 3 * PATIENCE_S)
            story(f"scaled to five: all of them vote {time.monotonic() - began:.0f} s later")
            client.wait_for_more()
        finally:
            client.end()
        self.assertEqual(client.failures, [])
        self.assertEqual([pod.process.pid for pod in cluster.nodes[:3]], boots)
        cluster.wait_equal()
        self.assertEqual(len(cluster.endpoints()), 5)

    def test_one_node_is_born_alone(self):
        with ChartCluster(render({"controlPlane": {"replicas": 1}})) as cluster:
            cluster.show()
            pod = cluster.nodes[0].start()
            eventually(lambda: pod.probe("readinessProbe"), "it is ready")
            self.assertEqual(pod.execute(["quorate", "put", "a", "b"])[0], 0)
            # Read-only but for its volume, and nobody's root.
            code, out = pod.execute(["sh", "-c", "id -u; touch /x 2>&1; touch /data/x && rm /data/x"])
            self.assertEqual(code, 0, out)
            self.assertEqual(out.splitlines()[0], str(pod.user))
            self.assertIn("Read-only file system", out)
            story("one pod: born alone, not root, nothing to write on but its volume")


if __name__ == "__main__":
    if find_helm() is None:
        print("skipped: helm is not here: run tools/setup where npm is")
        sys.exit(77)
    quorate_network.main()
