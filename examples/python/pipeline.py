"""Writes many items as fast as the cluster takes them: one stream, many writes on their way, each with
an answer of its own. When the stream breaks, what was not answered is sent again under the same
names, and nothing is done twice.

usage: pipeline.py TARGET PREFIX COUNT
"""

import collections
import sys
import threading
import time

import grpc
from client import Session, config_pb2, connect, reason_in

WINDOW = 256  # unanswered at a time; the server reads ahead up to 1,024
STREAM_S = 60

# Of one write: not accepted for now, or not known. Its name makes sending it again safe.
AGAIN = {code.value[0] for code in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED)}
TOO_MUCH_NOW = ("QUEUE_FULL", "REQUEST_IDS_FULL")


class Pipeline:
    def __init__(self, session, writes):
        self.session = session
        self.unanswered = collections.deque(writes)
        self.failed = []
        self.revision = 0
        self.streams = 0

    def run(self):
        while self.unanswered:
            self.streams += 1
            try:
                self.one_stream()
            except grpc.RpcError as error:
                print(f"pipeline: {error.code().name}: {error.details()}; "
                      f"{len(self.unanswered)} to go", file=sys.stderr)
                time.sleep(0.1)

    def one_stream(self):
        slots, over = threading.Semaphore(WINDOW), threading.Event()

        def outgoing(writes):  # on a thread of gRPC's
            for write in writes:
                slots.acquire()
                if over.is_set():
                    return
                yield write

        again = []
        try:
            # Answers come in the order of the writes.
            for answer in self.session.config.Write(outgoing(list(self.unanswered)),
                                                    timeout=STREAM_S):
                write = self.unanswered.popleft()
                slots.release()
                if answer.code == 0:
                    self.revision = self.session.saw(answer.put).header.revision
                elif answer.code in AGAIN or reason_in(answer.status)[0] in TOO_MUCH_NOW:
                    again.append(write)
                else:
                    self.failed.append((write, answer.message))
        finally:
            over.set()
            slots.release()
            self.unanswered.extendleft(reversed(again))


def main(target, prefix, count):
    session = Session(connect(target))
    pipeline = Pipeline(session, [
        config_pb2.WriteRequest(put=config_pb2.PutRequest(
            key=f"{prefix}{number:06}", text=f"value {number}", **session.name()))
        for number in range(int(count))])
    started = time.monotonic()
    pipeline.run()
    print(f"wrote {int(count) - len(pipeline.failed)} items, the last at revision "
          f"{pipeline.revision}, over {pipeline.streams} streams")
    print(f"pipeline: {time.monotonic() - started:.1f} s", file=sys.stderr)
    for write, message in pipeline.failed:
        print(f"{write.put.key}: {message}")
    return 1 if pipeline.failed else 0


if __name__ == "__main__":
    if len(sys.argv) != 4:
        sys.exit(__doc__)
    sys.exit(main(*sys.argv[1:]))
