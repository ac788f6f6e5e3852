"""What is shown once, a token or the secret of a webhook, is shown again to who comes with the Idempotency-Key that it was made with, for a
day, and to nobody else: not to who has the database, nor to who has the host's key, too."""
import base64
import contextlib
import os
import sqlite3
import time

import pytest

from hulld_fixtures import Hulld, wait_until
from test_hulld import refused
from test_tenants import By, In, project, token, unauthorized

KEY = "the-key-of-a-client-0123456789"
DAY_MS = 24 * 3600 * 1000
TOKEN = ("/v1/tokens", {"scopes": ["read"], "label": "ci"}, "token")
WEBHOOK = ("/v1/webhooks", {"url": "https://example.org/", "enabled": False}, "secret")


@pytest.fixture(scope="module")
def daemon(tmp_path_factory):
    daemon = Hulld(tmp_path_factory.mktemp("hulld")).with_clocks()
    daemon.sleep(3600)  # it believes its clock
    daemon.start()
    yield daemon
    daemon.stop()


@pytest.fixture
def hulld(daemon):
    """Whose projects go with the test."""
    yield daemon
    for one in daemon.get("/v1/projects").json["items"]:
        if one["name"] != "default":
            assert daemon.delete(f"/v1/projects/{one['name']}").status == 204


def keyed(acting, path, body, key=KEY):
    return acting.post(path, body, **{"Idempotency-Key": key})


def replayed(answer):
    return answer.headers["Idempotent-Replayed"] == "true"


@contextlib.contextmanager
def database(hulld):
    with contextlib.closing(sqlite3.connect(hulld.state / "hull.db", isolation_level=None, timeout=60)) as connection:
        yield connection


def test_the_first_answer_comes_again(hulld):
    """Also of a hulld that has been killed since."""
    a = project(hulld, "a")
    firsts = {secret: keyed(a, path, body, secret) for path, body, secret in (TOKEN, WEBHOOK)}
    for end in (False, True):
        if end:
            hulld.restart()
        for path, body, secret in (TOKEN, WEBHOOK):
            first, again = firsts[secret], keyed(a, path, body, secret)
            assert first.status == 201 and first.json[secret] and not replayed(first) and not first.headers["ETag"]
            assert (again.status, again.body) == (201, first.body) and replayed(again) and not again.headers["ETag"]
            assert len(a.get(path).json["items"]) == 1
    assert By(hulld, firsts["token"].json["token"]).get("/v1/projects").json["items"][0]["name"] == "a"
    for path, body, secret in (TOKEN, WEBHOOK):
        other = keyed(a, path, body, "another-" + secret)
        assert other.json["id"] != firsts[secret].json["id"] and other.json[secret] != firsts[secret].json[secret]


def test_neither_secret_nor_key_is_in_the_state(hulld):
    """Nor in what is undone of it in a few ways; the row is text that only the client's key opens (tests/unit/secrets.c)."""
    a, needles = project(hulld, "a"), []
    for path, body, secret in (TOKEN, WEBHOOK):
        text = keyed(a, path, body, f"{KEY}-{secret}").json[secret]
        needles += [text.encode(), text[-40:].encode(), base64.b64encode(text.encode()), text.encode().hex().encode(), KEY.encode()]
    for again in (False, True):
        for file in (file for file in hulld.state.rglob("*") if file.is_file()):
            content = file.read_bytes()
            assert not [needle for needle in needles if needle in content], file
        with database(hulld) as rows:
            for name, status, kept in rows.execute("SELECT key, status, body FROM requests WHERE project = 'a'").fetchall():
                assert len(name) == 65 and name[0] == " " and status == 201 and b"created_at" not in base64.b64decode(kept, validate=True)
        if not again:
            hulld.restart()


def test_it_is_for_who_has_asked_first(hulld):
    """By their token: the same key of another's, or of the host's administrator, is one that has come with another request."""
    a, b = project(hulld, "a"), project(hulld, "b")
    admin, admin_id = token(a, "admin", "read")
    other = token(a, "admin", "read")[0]
    path, body, secret = "/v1/tokens", {"scopes": ["read"], "expires_in_s": 1000}, "token"
    first = keyed(admin, path, body)
    assert first.status == 201
    for who in (other, a):
        answer = keyed(who, path, body)
        refused(answer, 422, "idempotency_key_reused", "Idempotency-Key")
        assert first.json["id"] not in str(answer.body)
    assert keyed(admin, path, body).body == first.body
    elsewhere = keyed(b, path, body)
    assert elsewhere.status == 201 and elsewhere.json["project"] == "b" and elsewhere.json[secret] != first.json[secret]
    assert a.delete(f"/v1/tokens/{admin_id}").status == 204
    unauthorized(keyed(admin, path, body), "invalid_token")
    refused(keyed(a, path, body), 422, "idempotency_key_reused", "Idempotency-Key")


def test_a_key_is_of_one_request_whichever_is_the_first(hulld):
    a = project(hulld, "a")
    path, body, _ = TOKEN
    assert keyed(a, path, body).status == 201
    for other in ((path, {**body, "label": "cd"}), WEBHOOK[:2], ("/v1/images", body)):
        refused(keyed(a, *other), 422, "idempotency_key_reused", "Idempotency-Key")
    refused(keyed(a, "/v1/images", {"name": "no"}, "plain"), 400, "missing_field", "rootfs")
    refused(keyed(a, path, body, "plain"), 422, "idempotency_key_reused", "Idempotency-Key")
    assert len(a.get(path).json["items"]) == 1 and a.get("/v1/webhooks").json["items"] == []


def test_what_was_taken_away_stays_away(hulld):
    """The answer is the first one; what it shows is good for nothing."""
    a = project(hulld, "a")
    for path, body, secret in (TOKEN, WEBHOOK):
        first = keyed(a, path, body, secret)
        assert a.delete(f"{path}/{first.json['id']}").status == 204
        assert keyed(a, path, body, secret).body == first.body and a.get(path).json["items"] == []
    unauthorized(By(hulld, keyed(a, *TOKEN[:2], "token").json["token"]).get("/v1/projects"), "invalid_token")


def test_a_refusal_is_an_answer_and_what_is_too_long_for_one_is_not_done(hulld):
    a = project(hulld, "a")
    admin = token(a, "admin", "read")[0]
    for _ in range(2):
        answer = keyed(admin, "/v1/tokens", {"scopes": ["write"]})
        refused(answer, 403, "forbidden", "scopes")
    assert replayed(answer)
    long = {**WEBHOOK[1], "labels": {f"k{n}": "x" * 1000 for n in range(70)}}
    refused(keyed(a, "/v1/webhooks", long, "long"), 400, "invalid_field", "Idempotency-Key")
    assert a.get("/v1/webhooks").json["items"] == [] and a.post("/v1/webhooks", long).status == 201


def test_it_is_gone_after_a_day(hulld):
    """Also before it is pruned, which is each hour's."""
    a = project(hulld, "a")
    path, body, secret = TOKEN
    first = keyed(a, path, body)
    with database(hulld) as rows:
        rows.execute("UPDATE requests SET begun_at = begun_at - ? WHERE project = 'a'", (DAY_MS - 60_000,))
        assert keyed(a, path, body).body == first.body
        rows.execute("UPDATE requests SET begun_at = begun_at - 61000 WHERE project = 'a'")
        new = keyed(a, path, body)
        assert new.status == 201 and new.json["id"] != first.json["id"] and not replayed(new)
        rows.execute("UPDATE requests SET begun_at = begun_at - ? WHERE project = 'a'", (DAY_MS + 1,))
        hulld.restart()
        wait_until(lambda: rows.execute("SELECT count(*) FROM requests WHERE project = 'a'").fetchone() == (0,), "it is forgotten")


def test_a_clock_that_was_ahead_does_not_keep_it_for_longer(hulld):
    """From when it is seen that the clock has been set back, it is a day."""
    a = project(hulld, "a")
    path, body, _ = TOKEN
    first = keyed(a, path, body)
    with database(hulld) as rows:
        rows.execute("UPDATE requests SET begun_at = begun_at + 365 * ? WHERE project = 'a'", (DAY_MS,))
        assert keyed(a, path, body).body == first.body
        hulld.restart()
        wait_until(lambda: rows.execute("SELECT begun_at FROM requests WHERE project = 'a'").fetchone()[0] <= time.time() * 1000, "it is seen")
        assert keyed(a, path, body).body == first.body and len(a.get(path).json["items"]) == 1


@pytest.mark.parametrize("what", ["host key", "row", "place"])
def test_what_does_not_open_is_not_made_twice(hulld, what):
    a, b = project(hulld, "a"), project(hulld, "b")
    path, body, _ = TOKEN
    assert keyed(a, path, body).status == keyed(b, path, body).status == 201
    key_file = hulld.state / "secrets.key"
    good = key_file.read_bytes()
    if what == "host key":
        key_file.write_bytes(os.urandom(len(good)))
    with database(hulld) as rows:
        if what == "row":
            rows.execute("UPDATE requests SET body = substr(body, 5) WHERE project = 'a'")
        elif what == "place":
            rows.execute("UPDATE requests SET body = (SELECT body FROM requests WHERE project = 'b') WHERE project = 'a'")
    hulld.restart()
    try:
        refused(keyed(a, path, body), 409, "outcome_unknown", "Idempotency-Key")
        assert len(a.get(path).json["items"]) == 1
    finally:
        key_file.write_bytes(good)
        hulld.restart()
