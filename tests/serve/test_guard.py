"""What a page, a stranger, a slow or a greedy client cannot do; each with what lets it."""

from __future__ import annotations

import json
import socket
import ssl
import time

import pytest
from tests.link.parts import certificates
from tests.serve.parts import Served, request, rows

from edgeloop.errors import ConfigError
from edgeloop.loop import Config
from edgeloop.serve import guard, run

INFER = "/v2/models/model/infer"
BODY = request(rows())


@pytest.fixture
def token(tmp_path):
    path = tmp_path / "serve.token"
    path.write_text("s" * 40)
    path.chmod(0o600)
    return path


def test_rebinding_a_name_to_this_server_gets_no_answer(learnt):
    with Served(learnt, hosts=["press.local"]) as served:
        port = served.port
        for host, status in (
            (f"127.0.0.1:{port}", 200), (f"localhost:{port}", 200), ("press.local", 200),
            (f"PRESS.local:{port}", 200), (f"[::1]:{port}", 200), (f"evil.example:{port}", 421),
            ("127.0.0.1.evil.example", 421), ("", 421),
        ):
            assert served.ask("POST", INFER, BODY, Host=host)[0] == status, host


def test_pages_of_other_origins_may_not_ask(learnt):
    with Served(learnt, origins=["https://panel.example"]) as served:
        own = f"http://127.0.0.1:{served.port}"
        for origin, status in (
            (own, 200), ("https://panel.example", 200), ("https://evil.example", 403),
            ("null", 403), (own.replace("http:", "https:"), 403), (f"{own}.evil.example", 403),
        ):
            assert served.ask("POST", INFER, BODY, Origin=origin)[0] == status, origin


@pytest.mark.parametrize("check", ["host", "origin"])
def test_without_the_check_they_get_in(learnt, monkeypatch, check):
    monkeypatch.setattr(guard.Guard, "_refusal", lambda *_: None)
    with Served(learnt) as served:
        headers = {"host": {"Host": "evil.example"}, "origin": {"Origin": "https://evil.example"}}
        assert served.ask("POST", INFER, BODY, **headers[check])[0] == 200


def test_a_browser_is_told_to_keep_to_itself(served):
    for path in ("/v2", "/nowhere"):
        headers = served.ask("GET", path)[2]
        assert "default-src 'none'" in headers["content-security-policy"]
        assert "frame-ancestors 'none'" in headers["content-security-policy"]
        assert headers["x-content-type-options"] == "nosniff"
        assert "set-cookie" not in headers
        assert "access-control-allow-origin" not in headers


def test_the_token_is_asked_for(learnt, token):
    with Served(learnt, token_file=str(token)) as served:
        for said, status in (
            ("Bearer " + "s" * 40, 200), ("bearer " + "s" * 40, 200), ("Bearer " + "s" * 39, 401),
            ("Bearer ", 401), ("Basic " + "s" * 40, 401), ("s" * 40, 401), ("Bearer é", 401),
        ):
            got = served.ask("POST", INFER, BODY, Authorization=said.encode("latin-1"))
            assert got[0] == status, said
        status, _, headers = served.ask("GET", "/v2/models/model")
        assert (status, headers["www-authenticate"]) == (401, "Bearer")
        assert served.ask("GET", "/v2/health/ready")[0] == 200  # for probes


def test_tokens_are_compared_in_equal_time(learnt, token, monkeypatch):
    """Hashes of equal length by a comparison that does not end early, whatever was sent."""
    seen = []
    compare = guard.hmac.compare_digest
    monkeypatch.setattr(guard.hmac, "compare_digest", lambda a, b: (
        seen.append((len(a), len(b))), compare(a, b))[1])
    with Served(learnt, token_file=str(token)) as served:
        for said in ("", "Bearer x", "Bearer " + "s" * 39 + "t", "Bearer " + "s" * 400):
            assert served.ask("GET", "/v2", Authorization=said)[0] == 401
    assert seen == [(32, 32)] * 4


def test_a_token_that_others_may_read_is_refused(learnt, token):
    token.chmod(0o644)
    with pytest.raises(ConfigError, match="may be read by others"):
        Served(learnt, token_file=str(token))


@pytest.mark.parametrize(("table", "says"), [
    ({"host": "0.0.0.0"}, "can be reached from other machines; set serve.token_file"),
    ({"host": "192.0.2.1", "token_file": "t"}, "can be reached from other machines"),
    ({"cert": "c"}, "serve.cert and serve.cert_key: set both"),
    ({"port": 65536}, "serve.port: is 65536"),
])
def test_what_is_open_needs_a_token_and_tls(table, says, tmp_path):
    with pytest.raises(ConfigError, match=says):
        Config.from_dict({"model": {"program": "p"}, "serve": table}, root=tmp_path)


def test_https(learnt, token, tmp_path):
    certificates(tmp_path)
    with Served(learnt, token_file=str(token), host="0.0.0.0", hosts=["127.0.0.1"],
                cert=str(tmp_path / "cert.pem"), cert_key=str(tmp_path / "cert.key")) as served:
        assert served.url.startswith("https://")
        context = ssl.create_default_context(cafile=tmp_path / "ca.pem")
        with socket.create_connection(("127.0.0.1", served.port)) as line, context.wrap_socket(
                line, server_hostname="127.0.0.1") as tls:
            tls.sendall(b"GET /v2 HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n"
                        b"Authorization: Bearer " + b"s" * 40 + b"\r\n\r\n")
            assert b" 200 " in tls.recv(100)


def raw(served, *pieces, wait=0.0):
    """Send pieces with pauses; what came back until the server closed, and after how long."""
    began = time.monotonic()
    with socket.create_connection(("127.0.0.1", served.port), timeout=20) as line:
        got = b""
        try:
            for piece in pieces:
                line.sendall(piece)
                time.sleep(wait)
            while more := line.recv(4096):
                got += more
        except ConnectionError:
            pass
    return got, time.monotonic() - began


HEAD = f"POST {INFER} HTTP/1.1\r\nHost: localhost\r\n".encode()


def test_bodies_are_bounded(learnt):
    with Served(learnt, max_body=4000) as served:
        assert served.ask("POST", INFER, b"x" * 4001)[0] == 413
        chunks = (b"400\r\n" + b"x" * 1024 + b"\r\n") * 4 + b"0\r\n\r\n"
        got, _ = raw(served, HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + chunks)
        assert b" 413 " in got
        assert served.ask("POST", INFER, BODY)[0] == 200


def test_headers_are_bounded(served):
    got, _ = raw(served, HEAD + b"X: " + b"x" * run.MAX_HEADERS + b"\r\n")
    assert b" 400 " in got
    assert served.ask("POST", INFER, BODY)[0] == 200


def test_a_slow_client_does_not_hold_a_connection(learnt):
    with Served(learnt, timeout="500 ms", connections=4) as served:
        lines = [socket.create_connection(("127.0.0.1", served.port)) for _ in range(4)]
        for line in lines:
            line.sendall(b"GET /v2 HTTP/1.1\r\n")
        asked = b"GET /v2 HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
        assert b" 503 " in raw(served, asked)[0]
        deadline = time.monotonic() + 20
        while b" 200 " not in raw(served, asked)[0]:
            assert time.monotonic() < deadline, "they are never let go"
            time.sleep(0.1)
        for line in lines:
            line.settimeout(20)
            assert line.recv(100) == b""
            line.close()


def test_slow_headers_of_a_later_request_end_too(learnt):
    with Served(learnt, timeout="500 ms") as served:
        whole = b"GET /v2 HTTP/1.1\r\nHost: localhost\r\n\r\n"
        got, _ = raw(served, whole, b"GET /v2 HT")
        assert got.count(b"HTTP/1.1 200") == 1


def test_a_slow_body_ends_in_an_error(learnt):
    with Served(learnt, timeout="500 ms") as served:
        got, _ = raw(served, HEAD + b"Content-Length: 100\r\n\r\n", b"x")
        assert b" 408 " in got
        body = json.dumps(BODY).encode()
        head = HEAD + f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n".encode()
        assert b" 200 " in raw(served, head, body[:20], body[20:], wait=0.1)[0]
