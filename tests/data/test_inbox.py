import threading

import numpy as np

from edgeloop.data.inbox import Inbox
from edgeloop.data.item import Item


def item(i):
    return Item(np.full(2, i, np.float32), 1, f"k{i}")


def test_items_wait_in_order_and_no_more_than_there_is_room_for():
    inbox = Inbox(2)
    assert [inbox.put("a", item(i)) for i in range(3)] == [True, True, False]
    assert [(origin, i.key) for origin, i in inbox.take()] == [("a", "k0"), ("a", "k1")]
    assert inbox.take() == []
    assert inbox.put("b", item(3))


def test_threads_may_put_while_another_takes():
    inbox, found = Inbox(100_000), []
    threads = [threading.Thread(target=lambda: [inbox.put("a", item(i)) for i in range(500)])
               for _ in range(4)]
    for thread in threads:
        thread.start()
    while any(t.is_alive() for t in threads):
        found += inbox.take()
    assert len(found + inbox.take()) == 2000
