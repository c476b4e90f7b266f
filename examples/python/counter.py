"""Adds to a number that many change at the same time: read, compute, write if it is still the same.

usage: counter.py TARGET KEY TIMES
"""

import sys

from client import Session, config_pb2, connect

EQUAL = config_pb2.Condition.COMPARISON_EQUAL


def add_one(session, key):
    """Returns how many tries it took."""
    read = config_pb2.TxnRequest(
        then=[config_pb2.TxnOperation(get=config_pb2.GetRequest(key=key))], **session.name())
    item = session.certainly(session.config.Txn, read).results[0].get.item
    tries = 0
    while True:
        tries += 1
        # An absent item has mod_revision 0, so this also says "if it still does not exist". When
        # somebody was quicker the answer brings what is there now: no read is needed in between.
        change = config_pb2.TxnRequest(
            conditions=[config_pb2.Condition(key=key, comparison=EQUAL,
                                             mod_revision=item.mod_revision)],
            then=[config_pb2.TxnOperation(put=config_pb2.PutRequest(
                key=key, text=str(int(item.text or "0") + 1)))],
            **{"else": [config_pb2.TxnOperation(get=config_pb2.GetRequest(key=key))]},
            **session.name())
        # A repeat after a lost answer gets the first answer: it neither adds twice nor takes its own
        # change for somebody else's.
        answer = session.certainly(session.config.Txn, change)
        if answer.succeeded:
            return tries
        item = answer.results[0].get.item


def main(target, key, times):
    session = Session(connect(target))
    tries = sum(add_one(session, key) for _ in range(int(times)))
    print(f"added {times} in {tries} tries")


if __name__ == "__main__":
    if len(sys.argv) != 4:
        sys.exit(__doc__)
    main(*sys.argv[1:])
