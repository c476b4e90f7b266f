"""Put, read your write at any node, linearizable reads, repeats, conditions and errors.

usage: basics.py TARGET KEY
"""

import sys

import grpc
from client import Session, config_pb2, connect, reason


def main(target, key):
    session = Session(connect(target))
    config = session.config

    # A write with a name may be sent again, to any node, and is done once.
    put = config_pb2.PutRequest(key=key, text="blue", note="a first colour", **session.name())
    first = session.saw(config.Put(put))
    print(f"put: revision {first.header.revision}, version {first.version}, "
          f"by {first.header.node_id}")
    again = config.Put(put)
    print(f"the same put again: revision {again.header.revision}, version {again.version}")

    # Reads are local to the node that takes them; min_revision makes it wait for what we have seen.
    for _ in range(3):
        got = session.saw(config.Get(config_pb2.GetRequest(key=key, read=session.read())))
        print(f"our own write: {got.item.text}, by {got.header.node_id}, "
              f"at most {got.header.staleness.age.ToMilliseconds() + 1} ms old")

    # What others have written before this call, too: one round of messages to a majority.
    linearizable = session.read(consistency=config_pb2.CONSISTENCY_LINEARIZABLE)
    got = session.saw(config.Get(config_pb2.GetRequest(key=key, read=linearizable)))
    print(f"linearizable: {got.item.text}")

    # Only if nobody has changed it since: an error otherwise, with the current revision.
    try:
        config.Put(config_pb2.PutRequest(key=key, text="red", expected_revision=1,
                                         **session.name()))
    except grpc.RpcError as error:
        why, metadata = reason(error)
        print(f"not replaced: {error.code().name} {why}, "
              f"it is at revision {metadata['current_revision']}")

    # Several changes or none: a condition that does not hold is an answer, not an error.
    absent = config_pb2.Condition(key=key + "/owner", version=0,
                                  comparison=config_pb2.Condition.COMPARISON_EQUAL)
    take = config_pb2.TxnRequest(
        conditions=[absent],
        then=[config_pb2.TxnOperation(put=config_pb2.PutRequest(key=key + "/owner", text="me")),
              config_pb2.TxnOperation(put=config_pb2.PutRequest(key=key, text="green"))],
        **{"else": [config_pb2.TxnOperation(get=config_pb2.GetRequest(key=key + "/owner"))]},
        **session.name())
    print(f"taken: {session.saw(config.Txn(take)).succeeded}")
    take.MergeFrom(config_pb2.TxnRequest(**session.name()))
    refused = session.saw(config.Txn(take))
    print(f"taken again: {refused.succeeded}, it belongs to {refused.results[0].get.item.text}")

    page = config.List(config_pb2.ListRequest(prefix=key, read=session.read()))
    print("listed: " + ", ".join(f"{item.key} = {item.text}" for item in page.items))

    deleted = session.saw(config.Delete(config_pb2.DeleteRequest(prefix=key, **session.name())))
    print(f"deleted: {deleted.deleted}")
    try:
        config.Get(config_pb2.GetRequest(key=key, read=session.read()))
    except grpc.RpcError as error:
        print(f"gone: {error.code().name} {reason(error)[0]}")


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    main(*sys.argv[1:])
