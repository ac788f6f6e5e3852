"""What hull prints for programs: JSON and YAML, which read back as what the API has, and ids or names alone."""
import contextlib
import http.server
import json
import random
import re
import threading

import pytest
import yaml

from hulld_fixtures import Hulld, make_erofs
from test_cli import Cli

PLACES = ["no", "NO", "n", "y", "On", "off", "true", "~", "null", "Null", "", " ", "1e3", "0777", "0o7", "0x1F", "1_000", "1:20", "190:20:30", "12e03", ".5", "5.", "-1",
          "+1", "-.inf", ".NaN", "1e+20", "2026-11-26", "2026-11-26T03:00:00Z", "=", "<<", "!", "!!str x", "&a", "*a", "?", "? x", "-", "- x", "--- x", "---", "...", "%",
          "%YAML 1.1", "@x", "`x", "'", "\"", "''", "a: b", "a:", ":a", "a #b", "#b", "[", "]", "{", "}", ",", "a, b", "|", ">", "a\nb", "a\n", "\na", "\n", "a\n\n",
          "a\n\nb\n", " a\nb", "a\n b", "a \nb", "a\tb", "\ta", "a\n\tb", "a\r\nb", "\r", "x\x00y", "\x01", "\x1b[31m", "\x7f", "\x85", "\xa0", "\ufeff", "\u2028",
          "\ufffe", "é", "日本", "😀", "a\\b", "\\n", "a" * 300, "long " * 100, "line\n" * 50, "sha256:abc", "/path", "web-1", "e5", "_", "a\n# b\n", "a\n--- b\n"]


def any_value(rng, depth=0):
    kind = rng.randrange(9 if depth < 4 else 6)
    if kind == 0:
        return rng.choice([True, False, None])
    if kind == 1:
        return rng.choice([0, 1, -1, 2**63 - 1, -2**63, rng.randrange(10**6)])
    if kind == 2:
        return rng.choice([0.5, 1e20, 1e-9, -2.5e300, 1.0, 0.1 + 0.2, rng.random()])
    if kind == 3:
        return rng.choice(PLACES)
    if kind in (4, 5):
        letters = "\n\n  \t:#-?,[]{}'\"|>&*!%@`~=0123456789.eabcnoyes\\\x01\x7f\x85\u2028é日😀\ufeff"
        return "".join(rng.choice(letters) for _ in range(rng.randrange(12)))
    if kind == 6:
        return [any_value(rng, depth + 1) for _ in range(rng.randrange(4))]
    return {rng.choice(PLACES + ["key"]) + str(i) * rng.randrange(2): any_value(rng, depth + 1) for i in range(rng.randrange(4))}


@contextlib.contextmanager
def api_that_says(answers):
    """An API that has an answer for each (method, path without query), or (status, answer), whatever is asked beside."""
    answers.setdefault(("GET", "/v1/events"), {"items": [], "cursor": 0, "more": False})

    class Handler(http.server.BaseHTTPRequestHandler):
        def answer(self):
            self.rfile.read(int(self.headers.get("Content-Length") or 0))
            answer = answers[self.command, self.path.split("?")[0]]
            status, answer = answer if isinstance(answer, tuple) else (200, answer)
            body = json.dumps(answer).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_GET = do_POST = do_PATCH = answer

        def log_message(self, *words):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture
def alone(tmp_path):
    return Cli(tmp_path)


def without_nul(value):
    if isinstance(value, str):
        return value.replace("\0", "")
    if isinstance(value, list):
        return [without_nul(item) for item in value]
    if isinstance(value, dict):
        return {without_nul(key): without_nul(item) for key, item in value.items()}
    return value


@pytest.mark.parametrize("seed", range(4))
def test_yaml_reads_back_as_what_the_json_is(alone, seed):
    rng = random.Random(seed)
    value = without_nul({"places": {place: place for place in PLACES}, "list": PLACES, "any": [any_value(rng) for _ in range(1500)]})
    with api_that_says({("GET", "/v1/machines/x"): value}) as url:
        assert json.loads(alone("--host", url, "inspect", "x").stdout) == value
        written = alone("--host", url, "inspect", "x", "-o", "yaml").stdout
    for mine, theirs in zip(yaml.safe_load(written)["any"], value["any"]):
        assert mine == theirs and type(mine) is type(theirs)
    assert yaml.safe_load(written) == value


def test_yaml_is_what_a_person_would_write(alone):
    machine = {"name": "web", "cpus": 1, "command": ["sh", "-c", "echo hi\nexec app\n"], "env": {"DEBUG": "no", "PATH": "/bin"}, "ports": [], "labels": {},
               "cause": None, "frozen": False}
    with api_that_says({("GET", "/v1/machines/x"): machine}) as url:
        assert alone("--host", url, "inspect", "-o", "yaml", "x").stdout == \
            'name: web\ncpus: 1\ncommand:\n- sh\n- "-c"\n- |\n  echo hi\n  exec app\nenv:\n  DEBUG: "no"\n  PATH: /bin\nports: []\nlabels: {}\ncause: null\nfrozen: false\n'


def test_a_verb_answers_with_machines(alone):
    machine = {"id": "m1", "name": "web", "state": "running"}
    answers = {("POST", "/v1/machines/web/start"): machine, ("GET", "/v1/machines/web/wait"): machine, ("POST", "/v1/machines/web/freeze"): machine}
    with api_that_says(answers) as url:
        alone.env["HULL_HOST"] = url
        assert alone("start", "web").stdout == "web\n" and alone("start", "-q", "web", "web").stdout == "m1\nm1\n"
        assert json.loads(alone("start", "-o", "json", "web", "web").stdout) == [machine, machine]
        assert yaml.safe_load(alone("freeze", "-o", "yaml", "web").stdout) == [machine]


# Against a hulld, whose machines are not started.

@pytest.fixture(scope="module")
def hulld(tmp_path_factory):
    folder = tmp_path_factory.mktemp("hulld")
    daemon = Hulld(folder).with_stand_in().start()
    daemon.image("busybox", make_erofs(folder, {}), ports=[80])
    assert daemon.post("/v1/machines", {"name": "made", "image": "busybox", "command": ["true"], "labels": {"a": "no"}}).status == 201
    yield daemon
    daemon.stop()


@pytest.fixture
def hull(hulld, tmp_path):
    return Cli(tmp_path, hulld.socket)


LISTS = [["ps", "-a"], ["images"], ["secret", "list"], ["project", "list"], ["token", "list"], ["machine", "top"]]
SHOWN = [["inspect", "made"], ["image", "inspect", "busybox"], ["project", "inspect", "default"], ["version"], ["context", "show"], ["update", "made", "--label", "b=yes"],
         ["project", "set", "default", "--ports", "9"]]


@pytest.mark.parametrize("words", LISTS + SHOWN)
def test_what_is_shown_is_json_and_yaml_too(hull, words):
    as_json = json.loads(hull(*words, "-o", "json").stdout)
    assert as_json == yaml.safe_load(hull(*words, "-o", "yaml").stdout) and isinstance(as_json, list if words in LISTS else dict)
    # Both tables, but for ages, which go on between them.
    first, second = (re.sub(r"\d+ [a-z]+ ago|just now", "", hull(*words, *option).stdout) for option in (["-o", "table"], [] if "inspect" not in words else ["-o", "table"]))
    assert first == second
    line, hint = hull.refused(*words, "-o", "xml", status=2)
    assert (line, hint) == ('--output: "xml" is none of table, json, yaml', "")


def test_what_is_inspected_may_be_a_row(hull):
    assert hull("inspect", "-o", "table", "made").stdout.split()[:8] == ["NAME", "IMAGE", "STATE", "PORTS", "CPUS", "MEMORY", "CREATED", "made"]
    assert hull("image", "inspect", "busybox", "-o", "table").stdout.splitlines()[1].startswith("busybox ")


def test_what_is_made_is_shown(hull, hulld):
    made = json.loads(hull("project", "create", "shop", "--machines", "3", "-o", "json").stdout)
    assert made["name"] == "shop" and made["quotas"]["machines"] == 3
    assert yaml.safe_load(hull("token", "create", "--scope", "read", "-o", "yaml").stdout)["scopes"] == ["read"]
    assert hull("token", "create", "--scope", "read").stdout.count("\n") == 1
    assert json.loads(hull("secret", "set", "KEY", "-o", "json", text="x\n").stdout)["name"] == "KEY"
    assert hull("project", "create", "no", "--machines", "none", status=2).stderr.startswith("hull: --machines: ")
    ended = json.loads(hull("stop", "made", "-o", "json").stdout)
    assert [machine["name"] for machine in ended] == ["made"] and hull("stop", "-q", "made").stdout == f"{ended[0]['id']}\n"
    assert hull("update", "-q", "made", "--label", "c=d").stdout == f"{ended[0]['id']}\n"
    hull("project", "rm", "shop")


def test_events_are_documents(hull):
    lines = hull("events", "-o", "json").stdout.splitlines()
    assert [json.loads(line) for line in lines] == list(yaml.safe_load_all(hull("events", "-o", "yaml").stdout)) and len(lines) > 2


def test_changes_of_quotas_at_one_time_are_all_kept(hull):
    hull("project", "create", "busy")
    words = [["--machines", "3"], ["--vcpus", "4"], ["--memory-mib", "500"], ["--ports", "6"]]
    processes = [hull.popen("project", "set", "busy", *option) for option in words]
    assert [process.wait(60) for process in processes] == [0] * 4 and [process.communicate()[1] for process in processes] == [""] * 4
    quotas = json.loads(hull("project", "inspect", "busy").stdout)["quotas"]
    assert [quotas[name] for name in ("machines", "vcpus", "memory_mib", "ports")] == [3, 4, 500, 6]
    hull("project", "rm", "busy")


def test_a_run_in_front_has_no_machine_to_show(hull):
    assert hull.refused("run", "busybox", "-o", "json", status=2)[0] == "--output: only with --detach: else it is the workload's output that is shown"
