"""Keeps a copy of a prefix in a file and prints every change of it, once, over broken connections,
lost nodes and its own restarts.

usage: watch.py TARGET PREFIX FILE
"""

import os
import sys
import threading
import time

import grpc
from client import Session, config_pb2, connect, reason
from google.protobuf import duration_pb2, json_format

PROGRESS_S = 5
SILENCE_S = 15  # a stream that says nothing for so long is dead: it would bring progress marks
FOR_GOOD = (grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.OUT_OF_RANGE,
            grpc.StatusCode.PERMISSION_DENIED, grpc.StatusCode.UNAUTHENTICATED,
            grpc.StatusCode.UNIMPLEMENTED)


class Mirror:
    """The items, and the revision that goes on after them. They are changed together and saved as
    one file, so that a crash leaves neither a gap nor a change to be told twice."""

    def __init__(self, path):
        self.path = path
        self.cluster, self.resume, self.items = "", 0, {}
        if os.path.exists(path):
            with open(path, encoding="utf-8") as file:
                saved = json_format.Parse(file.read(), config_pb2.ListResponse())
            self.cluster, self.resume = saved.header.cluster_id, saved.header.revision + 1
            self.items = {item.key: item for item in saved.items}

    def save(self, message):
        self.cluster, self.resume = message.header.cluster_id, message.resume_revision
        saved = config_pb2.ListResponse(items=[self.items[key] for key in sorted(self.items)])
        saved.header.cluster_id, saved.header.revision = self.cluster, self.resume - 1
        with open(self.path + ".new", "w", encoding="utf-8") as file:
            file.write(json_format.MessageToJson(saved))
        os.replace(self.path + ".new", self.path)

    def apply(self, events):
        for event in events:
            item, deleted = event.item, event.type == config_pb2.WatchEvent.TYPE_DELETE
            if deleted:
                self.items.pop(item.key, None)
            else:
                self.items[item.key] = item
            word = "delete" if deleted else "create" if event.created else "put"
            print(f"{item.mod_revision} {word} {item.key} {item.text}".rstrip(), flush=True)


def note(text):
    print(f"watch: {text}", file=sys.stderr, flush=True)


def watch_once(stub, prefix, mirror):
    """One stream, to its end. Acts on whole revisions only: when the stream breaks within one, the
    next stream brings all of it."""
    request = config_pb2.WatchRequest(prefix=prefix, start_revision=mirror.resume,
                                      with_initial_state=mirror.resume == 0,
                                      progress_interval=duration_pb2.Duration(seconds=PROGRESS_S))
    call = stub.Watch(request)
    state = {} if request.with_initial_state else None  # of a state that is being told
    events = []                                         # of a revision that is being told
    watchdog = threading.Timer(SILENCE_S, call.cancel)
    try:
        for message in call:
            watchdog.cancel()
            watchdog = threading.Timer(SILENCE_S, call.cancel)
            watchdog.start()
            header = message.header
            if mirror.cluster not in ("", header.cluster_id):
                # Recovered from a lost quorum, or another one behind the same names.
                note(f"this is another cluster, {header.cluster_id}: beginning anew")
                mirror.resume, mirror.cluster = 0, ""
                return
            if message.reset:
                note("the history that was asked for is gone: the whole state follows")
                state = {}
            elif message.synced:
                mirror.items, state = state, None
                mirror.save(message)
                print(f"synced {len(mirror.items)} items at revision {header.revision}", flush=True)
            elif state is not None:
                state.update((event.item.key, event.item) for event in message.events)
            elif message.events or events:
                events.extend(message.events)
                if not message.partial:
                    mirror.apply(events)
                    mirror.save(message)
                    events = []
            elif message.leader_lost and message.progress:
                note(f"{header.node_id} has had no leader for a while: asking another node")
                return
            elif message.leader_lost:
                note(f"{header.node_id} has lost its leader: changes may be late")
            elif message.leader_found:
                note(f"{header.node_id} has a leader again")
            elif message.progress:
                mirror.save(message)
    finally:
        watchdog.cancel()
        call.cancel()


def main(target, prefix, path):
    stub = Session(connect(target)).config
    mirror = Mirror(path)
    while True:
        try:
            watch_once(stub, prefix, mirror)
        except grpc.RpcError as error:
            if error.code() in FOR_GOOD:
                raise
            note(f"{error.code().name} {reason(error)[0] or ''}: {error.details()}; "
                 f"going on at revision {mirror.resume}")
        time.sleep(0.1)


if __name__ == "__main__":
    if len(sys.argv) != 4:
        sys.exit(__doc__)
    try:
        main(*sys.argv[1:])
    except KeyboardInterrupt:
        pass
