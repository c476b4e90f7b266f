"""What `charts/quorate` renders: by Helm itself, from the values of the README and others."""

import json
import re
import sys
import unittest

import yaml

from quorate_chart import CHART, find_helm, helm, only, render, render_notes

SEED = {"controlPlane": {"replicas": 3, "config": {"controlPlane": {
    "address": ":8080", "storePath": "/data",
    "raft": {"nodeId": "${POD_NAME}", "bindAddress": ":7000", "advertiseAddress": "${POD_IP}:7000",
             "discovery": {"dns": "quorate-control-plane-headless.quorate.svc.cluster.local"}}}}}}


def configuration(objects, name="quorate"):
    return yaml.safe_load(objects[("ConfigMap", name)]["data"]["quorate.yaml"])


class Render(unittest.TestCase):
    def test_lint(self):
        code, out, err = helm("lint", "--strict", str(CHART))
        self.assertEqual(code, 0, out + err)

    def test_the_seeds_values_are_passed_through(self):
        objects = render(SEED)
        got = configuration(objects)
        self.assertEqual(got["mode"], "controlplane")
        for key, value in SEED["controlPlane"]["config"]["controlPlane"].items():
            if key != "raft":
                self.assertEqual(got["controlPlane"][key], value)
        for key, value in SEED["controlPlane"]["config"]["controlPlane"]["raft"].items():
            self.assertEqual(got["controlPlane"]["raft"][key], value)
        # The name that they give is that of a service, which is there.
        headless = objects[("Service", "quorate-control-plane-headless")]
        self.assertEqual(only(objects, "StatefulSet")["spec"]["serviceName"],
                         headless["metadata"]["name"])

    def test_without_values_everything_is_filled_in(self):
        objects = render({}, release="prod", namespace="infra")
        raft = configuration(objects, "prod-quorate")["controlPlane"]["raft"]
        self.assertEqual(raft["discovery"]["dns"],
                         "prod-quorate-headless.infra.svc.cluster.local.")
        self.assertIn(("Service", "prod-quorate-headless"), objects)
        self.assertEqual(raft["nodeId"], "${POD_NAME}")
        self.assertEqual(raft["advertiseAddress"], "${POD_IP}:7000")

    def test_what_the_pods_are(self):
        objects = render({})
        spec = only(objects, "StatefulSet")["spec"]
        self.assertEqual((spec["replicas"], spec["podManagementPolicy"]), (3, "Parallel"))
        pod = spec["template"]["spec"]
        container = pod["containers"][0]
        self.assertTrue(pod["securityContext"]["runAsNonRoot"])
        self.assertTrue(container["securityContext"]["readOnlyRootFilesystem"])
        self.assertEqual(container["startupProbe"]["httpGet"]["path"], "/livez")
        self.assertEqual(container["livenessProbe"]["httpGet"]["path"], "/livez")
        self.assertEqual(container["readinessProbe"]["httpGet"]["path"], "/readyz")
        self.assertEqual(len(spec["volumeClaimTemplates"]), 1)
        self.assertIn("podAntiAffinity", pod["affinity"])
        self.assertEqual(only(objects, "PodDisruptionBudget")["spec"]["maxUnavailable"], 1)
        headless = objects[("Service", "quorate-headless")]["spec"]
        self.assertEqual((headless["clusterIP"], headless["publishNotReadyAddresses"]),
                         ("None", True))
        clients = objects[("Service", "quorate")]["spec"]
        self.assertNotIn("publishNotReadyAddresses", clients)
        # Everything selects the same pods.
        labels = spec["template"]["metadata"]["labels"]
        for selector in (spec["selector"]["matchLabels"], headless["selector"],
                         clients["selector"],
                         only(objects, "PodDisruptionBudget")["spec"]["selector"]["matchLabels"]):
            self.assertLessEqual(selector.items(), labels.items())
        # No hook of Helm's, and none of a pod's that changes the members.
        self.assertNotIn("helm.sh/hook", json.dumps(list(objects.values())))
        self.assertNotIn("member", json.dumps(container["lifecycle"]))

    def test_scaling_restarts_nobody_and_a_new_configuration_does(self):
        def template(values):
            return only(render(values), "StatefulSet")["spec"]["template"]
        three = {"controlPlane": {"replicas": 3}}
        five = {"controlPlane": {"replicas": 5}}
        self.assertEqual(template(three), template(five))
        self.assertEqual(render(five)[("ConfigMap", "quorate-replicas")]["data"],
                         {"bootstrapExpect": "5"})
        # No more are waited for than vote.
        self.assertEqual(render({"controlPlane": {"replicas": 8}})[
            ("ConfigMap", "quorate-replicas")]["data"], {"bootstrapExpect": "5"})
        other = {"controlPlane": {"config": {"controlPlane": {"storePath": "/elsewhere"}}}}
        self.assertNotEqual(template(three), template(other))

    def test_what_is_given_is_not_filled_in(self):
        peers = {"controlPlane": {"config": {"controlPlane": {
            "address": ":9090", "raft": {"bindAddress": "0.0.0.0:7100", "peers": ["a=h:1"]}}}}}
        objects = render(peers)
        raft = configuration(objects)["controlPlane"]["raft"]
        self.assertNotIn("discovery", raft)
        self.assertNotIn("bootstrapExpect", raft)
        self.assertNotIn("advertiseAddress", raft)  # the own entry in peers
        ports = {port["name"]: port["containerPort"] for port in only(
            objects, "StatefulSet")["spec"]["template"]["spec"]["containers"][0]["ports"]}
        self.assertEqual(ports, {"clients": 9090, "peers": 7100, "metrics": 8081})
        founders = {"controlPlane": {"config": {"controlPlane": {"raft": {"founders": ["a"]}}}}}
        self.assertNotIn("bootstrapExpect",
                         configuration(render(founders))["controlPlane"]["raft"])

    def test_what_is_wrong_is_named(self):
        wrong = [
            ({"controlPlane": {"replicas": 0}}, "controlPlane.replicas"),
            ({"controlPlane": {"replicas": "three"}}, "controlPlane.replicas"),
            ({"controlPlane": {"replica": 3}}, "replica"),
            ({"controlPlane": {"config": {"raft": {}}}}, "raft"),
            ({"controlPlane": {"config": {"controlPlane": {"raft": {
                "discovery": {"dns": "a"}, "peers": ["a=h:1"]}}}}}, "controlPlane.raft"),
            ({"controlPlane": {"config": {"controlPlane": {"raft": {"zone": "a"}}}}}, "zone"),
            ({"controlPlane": {"config": {"controlPlane": {"tls": {}}}}}, "tls"),
            ({"antiAffinity": "maybe"}, "antiAffinity"),
            ({"persistence": {"size": "much"}}, "persistence.size"),
            ({"drainSeconds": 60}, "drainSeconds"),
            ({"drainSeconds": 20}, "terminationGracePeriodSeconds"),
            ({"controlPlane": {"config": {"controlPlane": {"metricsAddress": "127.0.0.1:1"}}}},
             "metricsAddress"),
            ({"controlPlane": {"config": {"controlPlane": {"storePath": "/data/${POD_NAME}"}}}},
             "storePath"),
            ({"controlPlane": {"config": {"controlPlane": {"raft": {
                "discovery": {"dns": "quorate.quorate.svc"}}}}}}, "discovery.dns"),
            ({"controlPlane": {"config": {"controlPlane": {"raft": {"heartbeatInterval": 50}}}}},
             "heartbeatInterval"),
            ({"controlPlane": {"config": {"controlPlane": {"raft": {
                "autopilot": {"contact": 10}}}}}}, "autopilot.contact"),
            ({"controlPlane": {"config": {"controlPlane": {"raft": {"bootstrapExpect": 9}}}}},
             "bootstrapExpect"),
            ({"typo": 1}, "typo"),
        ]
        for values, name in wrong:
            with self.subTest(values=values), self.assertRaises(AssertionError) as raised:
                render(values)
            self.assertIn(name, str(raised.exception))

    def test_the_schema_takes_what_the_server_takes(self):
        """Key by key: else Helm installs what no node starts with, or refuses what all would take."""
        schema = json.loads((CHART / "values.schema.json").read_text())

        def paths(node, prefix):
            for name, below in node.get("properties", {}).items():
                self.assertFalse(node.get("additionalProperties", True), prefix)
                yield prefix + name
                yield from paths(below, prefix + name + ".")
        accepted = set(paths(schema["properties"]["controlPlane"]["properties"]["config"], ""))
        source = (CHART.parent.parent / "services/configuration.cc").read_text()
        listed = re.search(r"kPaths\[\] = \{(.*?)\};", source, re.S).group(1)
        self.assertEqual(accepted, set(re.findall(r'"([\w.]+)"', listed)))

    def test_a_variable_may_stand_for_a_whole_address(self):
        given = {"controlPlane": {"config": {"controlPlane": {"raft": {
            "advertiseAddress": "${ADVERTISED}", "bootstrapExpect": "${FOUNDERS}"}}}}}
        raft = configuration(render(given))["controlPlane"]["raft"]
        self.assertEqual((raft["advertiseAddress"], raft["bootstrapExpect"]),
                         ("${ADVERTISED}", "${FOUNDERS}"))

    def test_who_runs_it_may_be_chosen(self):
        pod = only(render({"podSecurityContext": {"runAsUser": None, "fsGroup": None}}),
                   "StatefulSet")["spec"]["template"]["spec"]
        self.assertNotIn("runAsUser", pod["securityContext"])
        self.assertTrue(pod["securityContext"]["runAsNonRoot"])

    def test_a_node_drains_itself(self):
        container = only(render({"controlPlane": {"config": {"controlPlane": {"address": ":9090"}}},
                                 "drainSeconds": 3}),
                         "StatefulSet")["spec"]["template"]["spec"]["containers"][0]
        self.assertEqual(container["lifecycle"]["preStop"]["exec"]["command"],
                         ["quorate", "--endpoints", "127.0.0.1:9090", "drain", "--linger", "3s"])

    def test_a_service_record_names_the_service_too(self):
        dns = "_peers._tcp.found.quorate.svc.cluster.local"
        objects = render({"controlPlane": {"config": {"controlPlane": {"raft": {
            "discovery": {"dns": dns}}}}}})
        self.assertIn(("Service", "found"), objects)
        self.assertEqual([port["name"] for port in objects[("Service", "found")]["spec"]["ports"]],
                         ["peers", "metrics"])

    def test_storage(self):
        def claim(**persistence):
            return only(render({"persistence": persistence}), "StatefulSet")["spec"][
                "volumeClaimTemplates"][0]["spec"]
        self.assertNotIn("storageClassName", claim())
        self.assertEqual(claim(storageClass="fast")["storageClassName"], "fast")
        self.assertEqual(claim(storageClass="-")["storageClassName"], "")
        self.assertEqual(claim(size="1Ti")["resources"]["requests"]["storage"], "1Ti")

    def test_anti_affinity(self):
        def affinity(value):
            pod = only(render({"antiAffinity": value}), "StatefulSet")["spec"]["template"]["spec"]
            return sorted(pod.get("affinity", {}).get("podAntiAffinity", {}))
        self.assertEqual(affinity("hard"), ["requiredDuringSchedulingIgnoredDuringExecution"])
        self.assertEqual(affinity("soft"), ["preferredDuringSchedulingIgnoredDuringExecution"])
        self.assertEqual(affinity("off"), [])

    def test_notes(self):
        three = render_notes({})
        self.assertIn("quorate.quorate.svc.cluster.local:8080", three)
        self.assertIn("tolerate 1 of them failing", three)
        self.assertNotIn("even number", three)
        self.assertNotIn("discovery.dns is", three)
        self.assertIn("tolerate 2 of them", render_notes({"controlPlane": {"replicas": 5}}))
        self.assertIn("even number", render_notes({"controlPlane": {"replicas": 4}}))
        self.assertIn("tolerate no failure", render_notes({"controlPlane": {"replicas": 1}}))
        self.assertNotIn("discovery.dns is", render_notes(SEED))
        self.assertIn("discovery.dns is", render_notes(SEED, namespace="other"))

        def warns(dns):
            return "discovery.dns is" in render_notes({"controlPlane": {"config": {
                "controlPlane": {"raft": {"discovery": {"dns": dns}}}}}})
        for own in ("quorate-headless", "quorate-headless.quorate",
                    "_peers._tcp.found.quorate.svc.cluster.local."):
            self.assertFalse(warns(own), own)
        for other in ("quorate-headless.staging.svc.cluster.local", "quorate-headless-2",
                      "quorate.example", "quorate-headless.quorate.example"):
            self.assertTrue(warns(other), other)


if __name__ == "__main__":
    if find_helm() is None:
        print("skipped: helm is not here: run tools/setup where npm is")
        sys.exit(77)
    unittest.main(verbosity=2)
