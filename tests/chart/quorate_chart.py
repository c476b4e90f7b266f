"""Renders the chart with Helm, and runs what it rendered: pods in network namespaces of their own,
with the environment, the files, the user and the probes that Kubernetes would give them."""

import http.client
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile

import yaml

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(ROOT / "tests" / "process"))

import quorate_network  # noqa: E402
from quorate_cluster import BINARY, http_get  # noqa: E402

CHART = ROOT / "charts" / "quorate"
# Helm 3.6 takes itself for a Kubernetes of 2020.
KUBERNETES = "1.29.0"


def find_helm():
    for place in (ROOT / "build" / "tools" / "helm", shutil.which("helm")):
        if place and os.access(place, os.X_OK):
            return str(place)
    return None


def helm(*words):
    """(exit code, stdout, stderr)"""
    done = subprocess.run([find_helm(), *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                          text=True, check=False, timeout=60)
    return done.returncode, done.stdout, done.stderr


def template_command(values, release, namespace, chart, path):
    path.write_text(yaml.safe_dump(values))
    return ["template", release, str(chart), "--namespace", namespace, "--values", str(path),
            "--kube-version", KUBERNETES]


def render(values, release="quorate", namespace="quorate", chart=CHART):
    """What `helm install` would send to Kubernetes: {(kind, name): object}. AssertionError: Helm's
    words."""
    with tempfile.TemporaryDirectory() as folder:
        code, out, err = helm(*template_command(values, release, namespace, chart,
                                                pathlib.Path(folder) / "values.yaml"))
    if code != 0:
        raise AssertionError(err)
    objects = [each for each in yaml.safe_load_all(out) if each]
    named = {(each["kind"], each["metadata"]["name"]): each for each in objects}
    assert len(named) == len(objects), "two objects of one name"
    return named


def render_notes(values, release="quorate", namespace="quorate"):
    """What is said after an installation; `helm template` leaves it out."""
    with tempfile.TemporaryDirectory() as folder:
        chart = pathlib.Path(folder) / "quorate"
        shutil.copytree(CHART, chart)
        text = (chart / "templates" / "NOTES.txt").read_text()
        for path in (chart / "templates").glob("*.yaml"):
            path.unlink()
        (chart / "templates" / "_notes.tpl").write_text(
            '{{- define "notes" -}}\n' + text + "\n{{- end -}}\n")
        (chart / "templates" / "notes.yaml").write_text(
            'kind: Notes\nmetadata: {name: notes}\ntext: {{ include "notes" . | quote }}\n')
        return render(values, release, namespace, chart)[("Notes", "notes")]["text"]


def only(objects, kind):
    found = [each for (its_kind, _), each in objects.items() if its_kind == kind]
    assert len(found) == 1, f"{len(found)} of {kind}"
    return found[0]


# Sets up what a container sees, then becomes it. Everything is this process's own mount namespace.
CONTAINER = """
root=$1 user=$2; shift 2
mount -t tmpfs tmpfs "$root"
for folder in bin sbin lib lib64; do cp -a "/$folder" "$root/$folder" 2>/dev/null || true; done
for folder in usr proc dev sys; do mkdir "$root/$folder"; mount --rbind "/$folder" "$root/$folder"; done
mkdir -m 1777 "$root/tmp"; mkdir -p "$root/etc" "$root/opt"
cp -L /etc/resolv.conf /etc/nsswitch.conf "$root/etc/"
touch "$root/opt/quorate"; mount --bind "$1" "$root/opt/quorate"; shift
while [ "$1" != -- ]; do mkdir -p "$root$2"; mount --bind "$1" "$root$2"; shift 2; done
shift
mount -o remount,ro "$root"
exec chroot "$root" setpriv --reuid "$user" --regid "$user" --clear-groups --no-new-privs \\
  --bounding-set -all "$@"
"""


class ChartPod(quorate_network.Pod):
    """One pod of a rendered StatefulSet."""

    def configure(self, objects):
        """What Kubernetes takes from the objects when it makes the pod; at its next start."""
        stateful = only(objects, "StatefulSet")
        spec = stateful["spec"]["template"]["spec"]
        self.container = spec["containers"][0]
        self.user = spec["securityContext"]["runAsUser"]
        self.data.mkdir(exist_ok=True)
        os.chown(self.data, self.user, spec["securityContext"]["fsGroup"])
        os.chmod(self.directory, 0o755)
        self.mounts = []
        for mount in self.container["volumeMounts"]:
            claim = any(c["metadata"]["name"] == mount["name"]
                        for c in stateful["spec"]["volumeClaimTemplates"])
            folder = self.data
            if not claim:
                volume = next(v for v in spec["volumes"] if v["name"] == mount["name"])
                folder = self.directory / mount["name"]
                shutil.rmtree(folder, ignore_errors=True)
                folder.mkdir()
                for name, text in objects[("ConfigMap", volume["configMap"]["name"])][
                        "data"].items():
                    (folder / name).write_text(text)
            self.mounts += [str(folder), mount["mountPath"]]
        self.environment = {"PATH": "/opt:/usr/bin:/bin"}
        for variable in self.container["env"]:
            source = variable.get("valueFrom", {})
            if "fieldRef" in source:
                field = source["fieldRef"]["fieldPath"]
                value = {"metadata.name": lambda: self.name,
                         "status.podIP": lambda: self.host.address}[field]
            elif "configMapKeyRef" in source:
                key = source["configMapKeyRef"]
                text = objects[("ConfigMap", key["name"])]["data"][key["key"]]
                value = text.__str__
            else:
                value = variable["value"].__str__
            self.environment[variable["name"]] = value
        ports = {port["name"]: port["containerPort"] for port in self.container["ports"]}
        self.client_port, self.peer_port, self.ops_port = (
            ports["clients"], ports["peers"], ports["metrics"])
        self.ports = ports
        self.grace_s = spec["terminationGracePeriodSeconds"]

    def variables(self):
        return {name: value if isinstance(value, str) else value()
                for name, value in self.environment.items()}

    def start(self):
        assert not self.running(), f"{self.name} runs already"
        folder = self.directory / "root"
        folder.mkdir(exist_ok=True)
        command = self.container["command"] + self.container.get("args", [])
        with open(self.log_path, "ab") as log:
            self.process = subprocess.Popen(
                self.host.command("unshare", "--mount", "sh", "-euc", CONTAINER, "container",
                                  str(folder), str(self.user), BINARY, *self.mounts, "--",
                                  *command),
                stdout=log, stderr=log, stdin=subprocess.DEVNULL, cwd=self.directory,
                env={**self.variables(), "PATH": quorate_network.PATH + ":/opt"})
        return self

    def execute(self, command):
        """(exit code, output) as of `kubectl exec`."""
        done = subprocess.run(
            ["nsenter", "--target", str(self.process.pid), "--mount", "--net", "--root", "--wd",
             "--", "setpriv", "--reuid", str(self.user), "--regid", str(self.user),
             "--clear-groups", "env", "-i", *[f"{k}={v}" for k, v in self.variables().items()],
             *command],
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False,
            timeout=self.grace_s + 60)
        return done.returncode, done.stdout

    def probe(self, which):
        """Whether Kubernetes would take the answer for a success."""
        probe = self.container[which]["httpGet"]
        try:
            status, _ = http_get(self.host.address, self.ports[probe["port"]], probe["path"],
                                 self.container[which].get("timeoutSeconds", 1))
        except (OSError, http.client.HTTPException):
            return False
        return 200 <= status < 400

    def end(self):
        """As Kubernetes ends a pod: its preStop hook, then SIGTERM, and the grace period for both."""
        hook = self.container.get("lifecycle", {}).get("preStop")
        said = self.execute(hook["exec"]["command"]) if hook else None
        return said, self.stop()


class ChartCluster(quorate_network.PodCluster):
    """The pods of a rendering, behind the headless name that it rendered."""

    def __init__(self, objects):
        self.use(objects)
        self.namespace = "quorate"
        self.DNS = f"{self.stateful['spec']['serviceName']}.{self.namespace}.svc.cluster.local"
        super().__init__(self.stateful["spec"]["replicas"])

    def use(self, objects):
        """What Kubernetes has been given; running pods stay as they are."""
        self.objects = objects
        self.stateful = only(objects, "StatefulSet")

    def add_pod(self):
        name = f"{self.stateful['metadata']['name']}-{len(self.nodes)}"
        directory = self.root / name
        directory.mkdir()
        pod = ChartPod(self, name, directory, self.network.add_host(name))
        pod.configure(self.objects)
        self.nodes.append(pod)
        self.move(pod)
        os.chmod(self.root, 0o755)
        return pod

    def endpoints(self):
        """host:port of each pod that the client service sends calls to."""
        service = next(each for (kind, _), each in self.objects.items()
                       if kind == "Service" and each["spec"].get("clusterIP") != "None")
        port = service["spec"]["ports"][0]["targetPort"]
        return [f"{pod.host.address}:{pod.ports[port]}" for pod in self.nodes
                if pod.running() and pod.probe("readinessProbe")]
