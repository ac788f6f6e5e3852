"""A POST that comes again with its Idempotency-Key: one effect, and the first answer, also of a hulld that was killed in between.
Programs are in test_exec.py, and each instant of each call in test_hulld_crash.py."""
import contextlib
import sqlite3
import threading
import time

import pytest

from free_ports import free_port
from hulld_fixtures import Hulld, hulld, make_erofs, wait_until
from test_hulld import refused

DAY_MS = 24 * 3600 * 1000


@pytest.fixture
def post(hulld):
    """Whose machines go with the test."""
    yield lambda path, body=None, key="k": hulld.post(path, body, headers={"Idempotency-Key": key})
    for machine in hulld.get("/v1/machines").json["items"]:
        hulld.delete(f"/v1/machines/{machine['id']}?force=1")
    with database(hulld) as rows:
        rows.execute("DELETE FROM requests")


@contextlib.contextmanager
def database(hulld):
    with contextlib.closing(sqlite3.connect(hulld.state / "hull.db", isolation_level=None, timeout=60)) as connection:
        yield connection


def machines(hulld):
    return [machine["name"] for machine in hulld.get("/v1/machines").json["items"]]


def replayed(answer):
    return answer.headers["Idempotent-Replayed"] == "true"


@pytest.mark.parametrize("crash", [False, True])
def test_the_first_answer_comes_again_and_nothing_else_happens(hulld, post, crash):
    first = post("/v1/machines", {"name": "a", "image": "hello"})
    assert first.status == 201 and not replayed(first)
    if crash:
        hulld.restart()
    again = post("/v1/machines", {"name": "a", "image": "hello"})
    assert (again.status, again.body, again.headers["Content-Type"]) == (201, first.body, "application/json") and replayed(again)
    assert machines(hulld) == ["a"]


def test_a_name_that_was_made_up_is_made_up_once(hulld, post):
    names = {post("/v1/machines", {"image": "hello"}).json["name"] for _ in range(3)}
    assert sorted(names) == machines(hulld)
    assert post("/v1/machines", {"image": "hello"}, key="another").json["name"] not in names


def test_a_refusal_is_an_answer_too(hulld, post):
    assert post("/v1/machines", {"name": "a", "image": "hello"}, key="first").status == 201
    first = post("/v1/machines", {"name": "a", "image": "hello"})
    refused(first, 409, "name_taken", "name")
    assert hulld.delete("/v1/machines/a").status == 204
    again = post("/v1/machines", {"name": "a", "image": "hello"})
    assert again.body == first.body and replayed(again)
    refused(again, 409, "name_taken", "name")


def test_what_may_be_tried_again_is_no_answer(hulld, post):
    with database(hulld) as other:
        other.execute("BEGIN IMMEDIATE")
        refused(post("/v1/machines", {"name": "a", "image": "hello"}), 500, "internal")
        other.execute("ROLLBACK")
    answer = post("/v1/machines", {"name": "a", "image": "hello"})
    assert answer.status == 201 and not replayed(answer)


def test_what_failed_for_want_of_something_is_done_again(tmp_path):
    daemon = Hulld(tmp_path)
    daemon.options["--ingress"] = "/bin/false"
    daemon.start()
    try:
        daemon.image("hello", make_erofs(tmp_path), command=["/bin/true"])
        spec = {"name": "a", "image": "hello", "ports": [{"host": free_port(), "guest": 80}]}
        for _ in range(2):
            answer = daemon.post("/v1/machines", spec, headers={"Idempotency-Key": "k"})
            assert refused(answer, 500, "internal")["retryable"] is True and not replayed(answer)
    finally:
        daemon.stop()


def test_a_key_is_of_one_request(hulld, post):
    assert post("/v1/machines", {"name": "a", "image": "hello"}).status == 201
    for path, body in (("/v1/machines", {"name": "b", "image": "hello"}), ("/v1/machines/a/stop", {"name": "a", "image": "hello"})):
        problem = refused(post(path, body), 422, "idempotency_key_reused", "Idempotency-Key")
        assert problem["retryable"] is False
    assert machines(hulld) == ["a"]


@pytest.mark.parametrize("key", ["", "a b", "x" * 256, "caf\xe9", "\t"])
def test_a_key_that_is_none_is_refused(hulld, post, key):
    problem = refused(post("/v1/machines", {"name": "a", "image": "hello"}, key=key), 400, "invalid_field", "Idempotency-Key")
    assert problem["detail"] == "must be 1 to 255 visible characters of ASCII"
    assert machines(hulld) == []


def test_the_longest_key_is_one(hulld, post):
    for _ in range(2):
        assert post("/v1/machines", {"name": "a", "image": "hello"}, key='"' + "x" * 253 + '"').status == 201


def test_without_a_key_or_in_a_get_nothing_is_kept(hulld, post):
    for _ in range(2):
        assert hulld.request("GET", "/v1/machines", headers={"Idempotency-Key": "k"}).status == 200
    assert hulld.post("/v1/machines", {"name": "a", "image": "hello"}).status == 201
    refused(hulld.post("/v1/machines", {"name": "a", "image": "hello"}), 409, "name_taken", "name")
    with database(hulld) as rows:
        assert rows.execute("SELECT count(*) FROM requests").fetchone() == (0,)


def test_of_many_at_once_with_one_key_one_does_it(hulld, post):
    """With a port, a machine takes hull-ingress's time, too."""
    spec, answers = {"name": "a", "image": "hello", "ports": [{"host": free_port(), "guest": 80}]}, []
    threads = [threading.Thread(target=lambda: answers.append(post("/v1/machines", spec))) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    created = [answer for answer in answers if answer.status == 201]
    assert created and len({answer.body for answer in created}) == 1 and machines(hulld) == ["a"]
    for answer in answers:
        if answer.status != 201:
            assert refused(answer, 409, "request_in_progress", "Idempotency-Key")["retryable"] is True
    assert post("/v1/machines", spec).body == created[0].body


def test_a_request_that_was_cut_short_is_done_again(hulld, post):
    """As a hulld leaves it that was killed before it had done anything, and one that was killed before it had answered."""
    first = post("/v1/machines", {"name": "a", "image": "hello"})
    with database(hulld) as rows:
        rows.execute("UPDATE requests SET status = 0, type = '', body = ''")
    hulld.restart()
    again = post("/v1/machines", {"name": "a", "image": "hello"})
    assert (again.status, again.json["id"]) == (201, first.json["id"]) and not replayed(again)
    assert replayed(post("/v1/machines", {"name": "a", "image": "hello"}))
    hulld.delete("/v1/machines/a")
    with database(hulld) as rows:
        rows.execute("UPDATE requests SET status = 0, type = '', body = ''")
    other = post("/v1/machines", {"name": "a", "image": "hello"})
    assert other.status == 201 and other.json["id"] != first.json["id"], "what was deleted is not what a key names"


@pytest.fixture
def fails(tmp_path):
    """A hulld with one machine, `a`, each run of which ends at once."""
    daemon = Hulld(tmp_path)
    daemon.options["--vmm"] = "/bin/false"
    daemon.options["--kernel"] = daemon.options["--initrd"] = "/etc/hostname"
    daemon.start()
    try:
        daemon.image("hello", make_erofs(tmp_path), command=["/bin/true"])
        daemon.post("/v1/machines", {"name": "a", "image": "hello", "network": "none", "disk_mib": 16})
        yield daemon
    finally:
        daemon.stop()


@pytest.mark.parametrize("verb", ["start", "restart"])
def test_a_start_that_was_cut_short_is_one_start(fails, verb):
    """Whose machine has run, and ended, when it is asked for again."""
    def ask(key):
        return fails.post(f"/v1/machines/a/{verb}", headers={"Idempotency-Key": key})

    assert ask("k").status == 200
    ended = fails.wait("a", "failed")
    with database(fails) as rows:
        rows.execute("UPDATE requests SET status = 0, type = '', body = ''")
    fails.restart()
    again = ask("k")
    assert (again.status, again.json["state"], again.json["started_at"]) == (200, "failed", ended["started_at"])
    assert ask("another").json["state"] == "starting"
    assert fails.wait("a", "failed")["started_at"] > ended["started_at"]


@pytest.mark.parametrize("verb", ["start", "restart"])
def test_a_start_that_was_cut_short_before_anything_was_done_is_done(fails, verb):
    """Although the machine has run, by its times, since: the clock was set back when the request came."""
    assert fails.post(f"/v1/machines/a/{verb}", headers={"Idempotency-Key": "k"}).status == 200
    ended = fails.wait("a", "failed")
    with database(fails) as rows:
        rows.execute("UPDATE requests SET status = 0, type = '', body = '', begun_at = begun_at - 3600000")
        assert rows.execute("UPDATE operations SET request = 0").rowcount == 1
    fails.restart()
    again = fails.post(f"/v1/machines/a/{verb}", headers={"Idempotency-Key": "k"})
    assert (again.status, again.json["state"]) == (200, "starting") and again.headers["Operation"]
    assert fails.wait("a", "failed")["started_at"] > ended["started_at"]


@pytest.mark.parametrize("verb", ["stop", "kill"])
def test_an_end_that_was_cut_short_is_of_that_run_alone(tmp_path, verb):
    """One that was started since is not ended by its repetition."""
    daemon = Hulld(tmp_path).with_stand_in().start()
    try:
        daemon.image("hello", make_erofs(tmp_path), command=["/bin/true"])
        daemon.post("/v1/machines", {"name": "a", "image": "hello", "network": "none", "disk_mib": 16})

        def end():
            return daemon.post(f"/v1/machines/a/{verb}", headers={"Idempotency-Key": "k"})

        assert daemon.post("/v1/machines/a/start").status == 200
        first = end()
        assert first.status == 200
        daemon.wait("a", "stopped")
        assert daemon.post("/v1/machines/a/start").status == 200
        with database(daemon) as rows:
            rows.execute("UPDATE requests SET status = 0, type = '', body = ''")
        again = end()
        assert (again.status, again.json["state"], again.headers["Operation"]) == (200, "starting", first.headers["Operation"])
        assert daemon.machine("a")["state"] == "starting"
    finally:
        daemon.delete("/v1/machines/a?force=1")
        daemon.stop()


def test_answers_are_kept_for_a_day(hulld, post):
    """By the host's clock; and an old machine is not a new request's, although their keys are the same."""
    def age(by):
        with database(hulld) as rows:
            rows.execute("UPDATE requests SET begun_at = begun_at - ?", (by,))
        hulld.restart()

    old = post("/v1/machines", {"image": "hello"})
    age(DAY_MS - 60_000)
    assert replayed(post("/v1/machines", {"image": "hello"}))
    age(61_000)
    new = post("/v1/machines", {"image": "hello"})
    assert new.status == 201 and new.json["id"] != old.json["id"]
    with database(hulld) as rows:
        rows.execute("UPDATE requests SET status = 0, number = number + 1")  # as another request's, by the same key
    third = post("/v1/machines", {"image": "hello"})
    assert third.json["id"] not in (old.json["id"], new.json["id"])


def test_all_verbs_take_a_key_and_openapi_says_so(hulld, post):
    assert post("/v1/machines", {"name": "a", "image": "hello"}).status == 201
    for verb in ("stop", "kill"):
        bodies = {post(f"/v1/machines/a/{verb}", key=verb).body for _ in range(2)}
        assert len(bodies) == 1
    for path, methods in hulld.get("/v1/openapi.json").json["paths"].items():
        for method, operation in methods.items():
            headers = [one["name"] for one in operation["parameters"] if one["in"] == "header"]
            assert ("Idempotency-Key" in headers) == (method == "post"), (method, path)


def test_a_clock_that_is_set_back_doubles_nothing(hulld, post):
    """As if the request had been begun by a clock that is an hour ahead, and was cut short twice."""
    assert post("/v1/machines", {"image": "hello"}).status == 201
    assert hulld.delete(f"/v1/machines/{machines(hulld)[0]}").status == 204
    ahead = int(time.time() * 1000) + 3600_000
    for _ in range(2):
        with database(hulld) as rows:
            rows.execute("UPDATE requests SET status = 0, begun_at = ?", (ahead,))
        assert post("/v1/machines", {"image": "hello"}).status == 201
    assert len(machines(hulld)) == 1


def test_a_project_has_so_many_answers_kept_and_no_more(hulld, post):
    """The newest, and a few; and another's are nothing to it. What is too much goes a little with some requests, of which nobody knows which."""
    now = int(time.time() * 1000)
    with database(hulld) as rows:
        rows.execute("WITH RECURSIVE count(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM count WHERE n < 10100)"
                     " INSERT INTO requests SELECT 'default', printf('k%d', n), '', ? + n, 200, '', '', n FROM count", (now - 20000,))
        rows.execute("INSERT INTO requests VALUES ('other', 'k', '', ?, 200, '', '', 1)", (now - 30000,))

        def count(what):
            return rows.execute(f"SELECT count(*) FROM requests WHERE {what}").fetchone()[0]

        for n in range(5000):
            assert post("/v1/images", {"name": "no"}, key=f"new{n}").status == 400
            if count("project = 'default'") <= 10040:
                break
        assert count("project = 'default'") <= 10040 and count("project = 'other'") == 1
        assert count("key LIKE 'new%'") == n + 1 and count("key IN ('k10100', 'k5000')") == 2


def test_what_is_so_for_a_moment_only_is_no_answer(hulld, post):
    assert post("/v1/machines", {"name": "a", "image": "hello"}, key="a").status == 201
    for path, body in (("/v1/machines/a/freeze", None), ("/v1/machines/a/exec", {"command": ["true"]})):
        for _ in range(2):
            answer = post(path, body)
            refused(answer, 409, "wrong_state")
            assert not replayed(answer)
    with database(hulld) as rows:
        assert rows.execute("SELECT key FROM requests").fetchall() == [("a",)]


def test_a_client_that_goes_can_ask_again(hulld, post):
    """The machine is there; its answer was for nobody."""
    spec = {"name": "a", "image": "hello", "ports": [{"host": free_port(), "guest": 80}]}
    with contextlib.suppress(TimeoutError):
        hulld.post("/v1/machines", spec, headers={"Idempotency-Key": "k"}, timeout=0.001)
    wait_until(lambda: post("/v1/machines", spec).status == 201, "it is answered")
    assert machines(hulld) == ["a"]
