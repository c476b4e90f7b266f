"""What every caller of Quorate needs: a channel that fails over and retries, names for writes, reads
that never go back, and the reasons of errors.

The other programs here use this module; it is meant to be read, and copied.
"""

import os
import pathlib
import threading
import uuid

import google
import grpc
from quorate.v1 import cluster_pb2, cluster_pb2_grpc, config_pb2, config_pb2_grpc

# Debian packages no google.rpc for Python: examples/python/generate makes it next to ours.
google.__path__.append(str(pathlib.Path(config_pb2.__file__).parents[2] / "google"))
from google.rpc import error_details_pb2, status_pb2  # noqa: E402

SERVICE_CONFIG = os.environ.get("QUORATE_SERVICE_CONFIG") or (
    pathlib.Path(__file__).resolve().parents[1] / "service_config/writes_with_request_id.json")
SEND_AGAIN = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED,
              grpc.StatusCode.CANCELLED, grpc.StatusCode.UNKNOWN, grpc.StatusCode.INTERNAL)


def connect(target):
    """A channel to every node that `target` names: `ipv4:10.0.0.1:8080,10.0.0.2:8080`, or a DNS name
    with an address for each, `dns:///quorate.example:8080`.

    The service config spreads calls over the nodes, gives them ten seconds and sends them again after
    UNAVAILABLE, writes too: so every write here has a request id."""
    return grpc.insecure_channel(target, options=[
        ("grpc.service_config", pathlib.Path(SERVICE_CONFIG).read_text()),
        # A node that vanished without a word is noticed after 15 s, also under a watch.
        ("grpc.keepalive_time_ms", 10_000), ("grpc.keepalive_timeout_ms", 5_000),
        ("grpc.http2.max_pings_without_data", 0),
        ("grpc.max_reconnect_backoff_ms", 1_000),
        # A node is dialled directly: proxy variables mean the web.
        ("grpc.enable_http_proxy", 0)])


class Session:
    """One caller's view of the store: what it has seen or written it sees from then on, whichever
    node answers. Any thread."""

    def __init__(self, channel):
        self.config = config_pb2_grpc.ConfigStub(channel)
        self.cluster = cluster_pb2_grpc.ClusterStub(channel)
        self._lock = threading.Lock()
        self._seen = 0  # the highest revision that an answer has shown

    def saw(self, response):
        """Notes the revision of an answer and returns the answer."""
        with self._lock:
            self._seen = max(self._seen, response.header.revision)
        return response

    @property
    def seen(self):
        if self._seen == 0:
            self.saw(self.cluster.Status(cluster_pb2.StatusRequest()))
        return self._seen

    def name(self):
        """The fields that name a write, once for all times that it is sent: it is done once."""
        return {"request_id": uuid.uuid4().hex, "request_revision": self.seen}

    def read(self, **options):
        """ReadOptions: the node that answers waits until it shows what this session has seen."""
        return config_pb2.ReadOptions(min_revision=self._seen, **options)

    def certainly(self, method, request, attempts=10):
        """Sends a named write until its outcome is known: an answer, or an error that is one.

        The channel has retried already. What is left is an outage longer than that, and a deadline
        that passed: neither says whether the write was done, and its name makes asking again safe."""
        for attempt in range(1, attempts + 1):
            try:
                return self.saw(method(request))
            except grpc.RpcError as error:
                if error.code() not in SEND_AGAIN or attempt == attempts:
                    raise


def reason(error):
    """(reason, metadata) of our ErrorInfo in an RpcError; (None, {}): it is not ours but gRPC's."""
    for key, value in error.trailing_metadata() or ():
        if key == "grpc-status-details-bin":
            return reason_in(value)
    return None, {}


def reason_in(details):
    """The same of a serialized google.rpc.Status, as WriteResponse.status is."""
    for detail in status_pb2.Status.FromString(details).details:
        info = error_details_pb2.ErrorInfo()
        if detail.Unpack(info) and info.domain == "quorate":
            return info.reason, dict(info.metadata)
    return None, {}
