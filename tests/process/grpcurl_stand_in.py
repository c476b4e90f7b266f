"""Stands in for grpcurl where it could not be had: `-plaintext [-d JSON|@] ADDRESS list|SERVICE/METHOD`,
by reflection, with grpcurl's output. @: JSON messages on stdin, one after the other.

usage: grpcurl_stand_in.py -plaintext [-d JSON|@] ADDRESS WHAT
"""

import json
import sys

import grpc
from google.protobuf import json_format, message_factory

from quorate_cluster import status_pb2
from tools_test import ReflectionClient


class Address:
    def __init__(self, address):
        self.connection = grpc.insecure_channel(address)

    def channel(self):
        return self.connection


def text_of(message, ordered=False):
    """Details need their types, which quorate_cluster has made known."""
    return json.dumps(json_format.MessageToDict(message, preserving_proto_field_name=True),
                      indent=2, ensure_ascii=False, sort_keys=ordered)


def complain(error):
    name = "".join(word.capitalize() for word in error.code().name.split("_"))
    print(f"ERROR:\n  Code: {name}\n  Message: {error.details()}", file=sys.stderr)
    for key, value in error.trailing_metadata() or ():
        if key == "grpc-status-details-bin":
            print("  Details:", file=sys.stderr)
            for number, detail in enumerate(status_pb2.Status.FromString(value).details, 1):
                print(f"  {number})\t{text_of(detail, True)}", file=sys.stderr)
    return 64 + error.code().value[0]


def messages(text):
    """The JSON values in a text."""
    decoder, at = json.JSONDecoder(), 0
    text = text.strip()
    while at < len(text):
        value, end = decoder.raw_decode(text, at)
        yield value
        at = end + len(text[end:]) - len(text[end:].lstrip())


def main():
    arguments = [a for a in sys.argv[1:] if a != "-plaintext"]
    requests = [{}]
    if arguments[:1] == ["-d"]:
        requests = list(messages(sys.stdin.read() if arguments[1] == "@" else arguments[1]))
        arguments = arguments[2:]
    if len(arguments) != 2:
        sys.exit(__doc__)
    client = ReflectionClient(Address(arguments[0]))
    if arguments[1] == "list":
        print("\n".join(sorted(client.list())))
        return 0
    service, method = arguments[1].split("/")
    found = client.load(service).methods_by_name[method]
    factory = message_factory.MessageFactory(client.pool)
    kind = factory.GetPrototype(found.input_type)
    call = client.node.channel().stream_stream(
        f"/{service}/{method}", request_serializer=lambda m: m.SerializeToString(),
        response_deserializer=factory.GetPrototype(found.output_type).FromString)
    try:
        for answer in call(iter([json_format.ParseDict(r, kind()) for r in requests]), timeout=30):
            print(text_of(answer))
    except grpc.RpcError as error:
        return complain(error)
    return 0


if __name__ == "__main__":
    sys.exit(main())
