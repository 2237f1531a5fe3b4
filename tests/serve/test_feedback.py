"""Labels for predictions: whose, for what, how many; and that the loop learns from them."""

from __future__ import annotations

import numpy as np
import pytest
from tests.conftest import CLASSES
from tests.serve.parts import Served, request, rows

from edgeloop.data.inbox import Inbox
from edgeloop.data.item import Labels
from edgeloop.errors import ConfigError, InputError, StateError
from edgeloop.loop import Config
from edgeloop.serve.feedback import Desk, Limits, TooManyError
from edgeloop.serve.run import tokens_of


@pytest.fixture
def inbox():
    return Inbox(16)


@pytest.fixture
def desk(inbox, clock):
    return Desk(inbox, Labels(CLASSES), Limits(8, 6, 20), clock)


def ask(desk, *ids, sender="ann"):
    for i in ids:
        desk.remember(sender, i, np.full(4, ord(i[0]), np.float32))


def test_a_label_makes_an_item_of_what_was_asked(desk, inbox):
    ask(desk, "a", "b")
    desk.label("ann", "b", "mill")
    ((origin, item),) = inbox.take()
    assert origin == "feedback/ann"
    assert (item.y, item.key, item.x[0]) == (2, "feedback:ann:b", ord("b"))


def test_each_takes_one_label_from_who_asked(desk):
    ask(desk, "a")
    with pytest.raises(LookupError):
        desk.label("bob", "a", 1)
    desk.label("ann", "a", 1)
    for i in ("a", "z"):
        with pytest.raises(LookupError):
            desk.label("ann", i, 1)


@pytest.mark.parametrize("said", ["cat", 4, -1, None, "", [1, 2]])
def test_a_label_that_means_nothing_uses_nothing_up(desk, inbox, said):
    ask(desk, "a")
    with pytest.raises(InputError, match="label"):
        desk.label("ann", "a", said)
    desk.label("ann", "a", 0)
    assert len(inbox.take()) == 1


def test_the_oldest_is_not_remembered_for_ever(desk):
    ask(desk, *"abcdefghi")
    with pytest.raises(LookupError):
        desk.label("ann", "a", 0)
    desk.label("ann", "b", 0)


def test_a_sender_gives_so_many_a_minute(desk, clock):
    ask(desk, *"abcdefgh")
    for i in "abcdef":
        desk.label("ann", i, 0)
    with pytest.raises(TooManyError, match="6 labels a minute") as told:
        desk.label("ann", "g", 0)
    assert told.value.wait == pytest.approx(10)
    ask(desk, "a", sender="bob")
    desk.label("bob", "a", 0)  # nobody else is kept from it
    clock.now = 10.0
    desk.label("ann", "g", 0)
    with pytest.raises(TooManyError):
        desk.label("ann", "h", 0)


def test_a_sender_gives_so_many_between_two_updates(inbox, clock):
    desk = Desk(inbox, Labels(CLASSES), Limits(8, 1000, 3), clock)
    ask(desk, *"abcde")
    for i in "abc":
        desk.label("ann", i, 0)
    with pytest.raises(TooManyError, match="3 labels wait to be learnt from"):
        desk.label("ann", "d", 0)
    desk.update_ended()
    desk.label("ann", "d", 0)


def test_a_busy_loop_is_told_and_the_label_may_come_again(inbox, clock):
    desk = Desk(inbox, Labels(CLASSES), Limits(40, 1000, 100), clock)
    names = [chr(97 + i) for i in range(17)]
    ask(desk, *names)
    for i in names[:16]:
        desk.label("ann", i, 0)
    with pytest.raises(TooManyError, match="the loop is busy"):
        desk.label("ann", names[16], 0)
    inbox.take()
    desk.label("ann", names[16], 0)


def test_where_nobody_learns_no_label_is_taken(desk, inbox):
    ask(desk, "a")
    desk.closed = "the loop has ended"
    with pytest.raises(StateError, match="no feedback is taken: the loop has ended"):
        desk.label("ann", "a", 0)
    assert inbox.take() == []


@pytest.fixture
def tokens(tmp_path):
    path = tmp_path / "serve.token"
    path.write_text("ann:secret-of-ann\nbob:secret-of-bob\n")
    path.chmod(0o600)
    return path


def bearer(who):
    return {"Authorization": f"Bearer secret-of-{who}"}


def test_over_http(learnt, tokens):
    with Served(learnt, token_file=str(tokens), feedback=10, feedback_per_minute=3) as served:
        infer, feedback = "/v2/models/model/infer", "/v2/models/model/feedback"

        def label(id_, who="ann", y="mill"):
            return served.ask("POST", feedback, {"id": id_, "label": y}, **bearer(who))

        body = request(rows(1))
        named = served.ask("POST", infer, {**body, "id": "q1"}, **bearer("ann"))[1]
        given = served.ask("POST", infer, body, **bearer("ann"))[1]
        assert named["id"] == "q1"
        assert len(given["id"]) == 32  # whoever gave none is told one
        assert label("q1", "bob")[0] == 404
        assert served.ask("POST", feedback, {"id": "q1", "label": 1})[0] == 401
        status, answer, _ = label("q1", y="cat")
        assert (status, "not a class" in answer["error"]) == (400, True)
        assert label(3)[0] == 400
        assert label("q1")[0] == 202
        assert label("q1")[0] == 404
        assert label(given["id"])[0] == 202
        ((origin, item), _) = served.inbox.take()
        assert (origin, item.y) == ("feedback/ann", 2)
        np.testing.assert_array_equal(item.x, rows(1)[0])
        for i in range(3):
            served.ask("POST", infer, {**body, "id": f"n{i}"}, **bearer("ann"))
        assert label("n0")[0] == 202
        status, answer, headers = label("n1")
        assert status == 429
        assert 1 <= int(headers["retry-after"]) <= 20
        served.ask("POST", infer, {**request(rows(2)), "id": "two"}, **bearer("bob"))
        assert label("two", "bob")[0] == 404  # of several rows none is remembered


def test_a_server_that_takes_none_says_so(served):
    status, answer, _ = served.ask("POST", "/v2/models/model/feedback", {"id": "a", "label": 1})
    assert (status, "takes no feedback" in answer["error"]) == (404, True)


def test_feedback_needs_known_senders(tmp_path):
    with pytest.raises(ConfigError, match=r"serve\.feedback: needs serve\.token_file"):
        Config.from_dict({"model": {"program": "p"}, "serve": {"feedback": 5}}, root=tmp_path)


@pytest.mark.parametrize(("text", "found"), [
    ("secret\n", {"default": "secret"}),
    ("a:x\n\nb.c-d_e:y:z\n", {"a": "x", "b.c-d_e": "y:z"}),
    ("a:x\nsecret\n", None), ("a:" + "x" * 20000, None), ("a:x\na:y\n", None),
    ("a b:x\n", None), ("a:\n", None), ("\n", None),
])
def test_token_files(tmp_path, text, found):
    path = tmp_path / "t"
    path.write_text(text)
    path.chmod(0o600)
    if found is not None:
        assert tokens_of(path) == found
        return
    with pytest.raises(ConfigError, match=r"line|no token"):
        tokens_of(path)
