"""The hull command, against a real hulld: its words, its exit statuses, what it leaves behind."""
import contextlib
import fcntl
import json
import os
import pty
import re
import signal
import socket
import struct
import subprocess
import termios
import threading
from pathlib import Path

import pytest

from free_ports import free_port
from hulld_fixtures import BUILD, Hulld, make_erofs, wait_until

BOOT = 180  # seconds: an emulated host boots slowly
HULL = BUILD / "hull"

COUNT = "#!/bin/sh\nn=0\nwhile true; do echo line $n; n=$((n+1)); sleep 0.1; done\n"
POLITE = "#!/bin/sh\ntrap 'echo bye; exit 3' INT\necho ready\nwhile true; do sleep 0.1; done\n"
DEAF = "#!/bin/sh\ntrap '' TERM\necho deaf\nwhile true; do sleep 1; done\n"


class Cli:
    """hull as one user calls it."""

    def __init__(self, home, socket_path=None):
        self.home = home
        self.env = {"PATH": os.environ["PATH"], "HOME": str(home), "LC_ALL": "C.UTF-8"}
        if socket_path:
            self.env["HULL_HOST"] = f"unix://{socket_path}"

    def popen(self, *words, stdin=subprocess.DEVNULL, **options):
        return subprocess.Popen([HULL, *map(str, words)], env=self.env, stdin=stdin, stdout=subprocess.PIPE,
                                stderr=subprocess.PIPE, text=True, **options)

    def __call__(self, *words, status=0, timeout=BOOT, text=None, **options):
        """`text` is what it can read."""
        process = self.popen(*words, stdin=subprocess.PIPE if text else subprocess.DEVNULL, **options)
        try:
            out, err = process.communicate(text, timeout=timeout)
        except subprocess.TimeoutExpired:
            process.kill()
            raise AssertionError((words, process.communicate())) from None
        assert process.returncode == status, (words, process.returncode, out, err)
        return subprocess.CompletedProcess(words, status, out, err)

    def refused(self, *words, status=1, **options):
        """The refusal's line and, where there is one, its hint."""
        lines = self(*words, status=status, **options).stderr.splitlines()
        assert lines and lines[0].startswith("hull: ") and len(lines) <= 2, lines
        assert len(lines) == 1 or lines[1].startswith("      "), lines
        return lines[0].removeprefix("hull: "), (lines[1:] or [""])[0].strip()


@pytest.fixture(scope="module")
def hulld(tmp_path_factory):
    folder = tmp_path_factory.mktemp("hulld")
    daemon = Hulld(folder, env={"HULL_START_TIMEOUT_S": str(BOOT)}).start()
    daemon.image("busybox", make_erofs(folder, {"srv/count": COUNT, "srv/polite": POLITE, "srv/deaf": DEAF}))
    yield daemon
    daemon.stop()


@pytest.fixture
def hull(hulld, tmp_path):
    yield Cli(tmp_path, hulld.socket)
    for machine in hulld.get("/v1/machines").json["items"]:
        hulld.delete(f"/v1/machines/{machine['id']}?force=1")


@pytest.fixture
def alone(tmp_path):
    """hull where nothing says where an API is."""
    return Cli(tmp_path)


def machines(hulld):
    return [machine["name"] for machine in hulld.get("/v1/machines").json["items"]]


# Words.

def test_without_a_command_it_shows_them_all_and_fails(alone):
    shown = alone(status=2)
    assert shown.stdout == "" and "machine run" in shown.stderr
    assert alone("--help").stdout == shown.stderr


@pytest.mark.parametrize("words", [("token", "create", "--scope"), ("webhook", "create", "https://a.example/", "--event"),
                                   ("image", "build", "a", "--package"), ("image", "build", "a", "--package", "b", "--copy"),
                                   ("image", "build", "a", "--package", "b", "--command"), ("image", "build", "a", "--package", "b", "--user"),
                                   ("apply", "--file", "/dev/null", "--label"), ("project", "create", "a", "--hostname")])
def test_what_is_no_text_is_refused_and_not_left_out(tmp_path, words):
    value = {"--label": "a=", "--copy": "b:/"}.get(words[-1], "") + "\udcff"
    assert Cli(tmp_path).refused(*words, value, status=2)[0] == f"{words[-1]}: is not UTF-8"


def test_every_command_explains_itself(alone):
    names = [line[2:20].strip() for line in alone("--help").stdout.splitlines() if line[:2] == "  " and line[2:3].isalpha()]
    assert len(names) >= 63
    for name in names:
        assert alone(*name.split(), "--help").stdout.startswith(f"Usage: hull {name} [OPTION]...")


def complete(cli, *words):
    """What bash offers, by its script."""
    script = f'eval "$("{BUILD}/hull" completion bash)"; hull() {{ "{BUILD}/hull" "$@"; }}; compopt() {{ :; }}; COMP_WORDS=(hull "$@"); COMP_CWORD=$#; ' \
             '_hull hull "${@: -1}"; printf "%s\\n" "${COMPREPLY[@]}"'
    done = subprocess.run(["bash", "-c", script, "bash", *words], env=cli.env, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0 and done.stderr == "", done.stderr
    return done.stdout.split()


@pytest.mark.parametrize("words, offers", [
    (["mach"], ["machine"]), (["machine", "l"], ["list", "logs"]), (["st"], ["start", "stats", "stop"]), (["run", "--mem"], ["--memory"]),
    (["run", "--ho"], ["--host", "--hostname"]), (["run", "-e", ""], []), (["--host", "unix:///x", "p"], ["project", "ps"]), (["machine", "--host", "x", "rm", "--f"], ["--force"]),
    (["exec", "x", "l"], []), (["run", "x", "--", "l"], []), (["nonsense", ""], []), (["completion", "b"], ["bash"]), (["logs", ""], []),
    (["machine", "nonsense", ""], []), (["--context", ""], ["default"]), (["context", "use", "d"], ["default"]), (["image", "build", "--file", ""], []), (["rm", "-"], ["--context", "--force", "--help", "--host", "--project", "--timeout", "--token"])])
def test_a_shell_completes_commands_and_options(alone, words, offers):
    assert sorted(complete(alone, *words)) == offers


def test_a_shell_completes_names(hull, hulld):
    for name in ("web-1", "web-2", "other"):
        assert hulld.post("/v1/machines", {"name": name, "image": "busybox", "command": ["true"]}).status == 201
    assert sorted(complete(hull, "rm", "web")) == ["web-1", "web-2"] and sorted(complete(hull, "start", "web-1", "o")) == ["other"]
    assert complete(hull, "cp", "web-1") == ["web-1:"] and complete(hull, "run", "") == ["busybox"] and complete(hull, "wait", "other", "w") == []


@pytest.mark.parametrize("words, line, hint", [
    (["rnu"], "rnu: there is no such command", "did you mean `hull run`?"),
    (["machine", "lsit"], "lsit: there is no such command", "did you mean `hull machine list`?"),
    (["run", "x", "--memroy", "1g"], "--memroy: there is no such option", "did you mean --memory?"),
    (["run", "x", "--port", "80:80"], "--port: there is no such option", "`hull machine run --help` lists the options"),
    (["ls"], "ls: there is no such command", "did you mean `hull ps`?"),
    (["up"], "up: there is no such command", "did you mean `hull apply`?"),
    (["rename", "a", "b"], "rename: there is no such command", "did you mean `hull update MACHINE --name NAME`?"),
    (["image", "delete", "x"], "delete: there is no such command", "did you mean `hull image rm`?"),
    (["xy"], "xy: there is no such command", "`hull --help` lists the commands"),
    (["apply", "m.yaml"], "m.yaml: one argument too many", "usage: hull apply -f FILE..."),
    (["token", "create"], "--scope: is missing: what does it let do?", "for example --scope read --scope write"),
    (["ps", "--host", "127.0.0.1:7070"], "127.0.0.1:7070: is no URL of an API", "did you mean http://127.0.0.1:7070?"),
    (["ps", "--host", "/run/x"], "/run/x: is no URL of an API", "did you mean unix:///run/x?"),
    (["ps", "--host", "unix:/run/x"], "unix:/run/x: is no URL of an API", "did you mean unix:///run/x?"),
    (["ps", "--host", "unix://run/x"], "unix://run/x: is no URL of an API", "did you mean unix:///run/x?"),
    (["ps", "--host", "unix:"], "unix:: is no URL of an API", "write http://ADDRESS:PORT, https://ADDRESS:PORT or unix:///PATH"),
    (["image"], "image: what about it?", "`hull image --help` lists the commands"),
    (["run"], "machine run: an argument is missing", "usage: hull run IMAGE [COMMAND...]"),
    (["exec", "x", "--tyt", "sh"], "--tyt: there is no such option", "did you mean --tty?"),
    (["exec", "x"], "COMMAND: is missing", "for example `hull exec x ps`"),
    (["run", "x", "-p", "80"], '--publish: "80" is not [ADDRESS:]HOST:GUEST[/PROTOCOL] with ports from 1 to 65535', "for example -p 8080:80, or -p 53:53/udp"),
    (["run", "x", "-m", "much"], '--memory: "much" is no size in MiB; write 512, 512m or 2g', ""),
    (["run", "x", "-e", "HULL_TEST_UNSET"], "--env: HULL_TEST_UNSET is not set here; write HULL_TEST_UNSET=VALUE", ""),
    (["run", "x", "-d", "--rm"], "--rm: not together with --detach: nobody would wait for the end", ""),
    (["run", "x", "-d", "-i"], "--interactive: not together with --detach: nobody would give it input", ""),
    (["run", "x", "-d", "-t"], "--tty: not together with --detach: its output is for the log", ""),
    (["run", "x", "-t"], "--tty: this command's input is no terminal", ""),
    (["run", "x", "--restart", "always"], "--restart: only with --detach: this command is with the workload once", ""),
    (["logs", "x", "--tail"], "--tail: needs a value: --tail N", ""),
    (["ps", "-o", "xml"], '--output: "xml" is none of table, json, yaml', ""),
    (["top", "-o", "xml"], '--output: "xml" is none of table, json, yaml', ""),
    (["context", "set", "example.org"], "example.org: is no URL of an API",
     "did you mean http://example.org?"),
    (["image", "build", "x"], "image build: of what?", "give a recipe with --file, or name packages with --package"),
    (["image", "build", "-f", "x", "-u", "app"], "--file: not together with --user: that stands in the recipe", ""),
])
def test_a_wrong_command_line_is_refused(alone, words, line, hint):
    assert alone.refused(*words, status=2) == (line, hint)


# Where the API is.

def test_a_context_is_kept_and_comes_after_the_environment(alone):
    shown = alone("context", "show").stdout
    assert shown == "unix:///run/hull/hulld.sock\n  from the default, without a token\n"
    alone("context", "set", "http://127.0.0.1:1", "--token", "secret")
    path = alone.home / ".config" / "hull" / "context.json"
    assert path.stat().st_mode & 0o777 == 0o600
    assert alone("context", "show").stdout == f"http://127.0.0.1:1\n  from {path}, with a token\n"
    alone.env["HULL_HOST"] = "http://127.0.0.1:2"
    assert alone("context", "show").stdout == "http://127.0.0.1:2\n  from $HULL_HOST, without a token\n"
    assert alone("context", "show", "--host", "http://[::1]:3").stdout.startswith("http://[::1]:3\n  from --host,")
    del alone.env["HULL_HOST"]
    path.write_text('{"urll": "x"}')
    line, hint = alone.refused("ps")
    assert str(path) in line and "urll" in line and hint == "write it anew with `hull context set URL`"


def test_where_nothing_listens_it_says_where_it_looked(alone):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{probe.getsockname()[1]}"
        line, hint = alone.refused("--host", url, "ps")
    assert line == f"cannot reach the API at {url} (--host): Connection refused"
    assert "hull context set" in hint and "./quickstart" in hint and "systemctl start hulld" in hint
    line, _ = alone.refused("run", "--host", "unix:///nonexistent/hulld.sock", "busybox", status=125)
    assert "/nonexistent/hulld.sock" in line


def test_a_missing_token_is_asked_for(tmp_path):
    address = f"127.0.0.1:{free_port()}"
    (tmp_path / "token").write_text("0123456789abcdef-test\n")
    (tmp_path / "token").chmod(0o600)
    daemon = Hulld(tmp_path, "--listen", address, "--token-file", tmp_path / "token").start()
    try:
        cli = Cli(tmp_path)
        line, hint = cli.refused("--host", f"http://{address}", "ps")
        assert "token" in line and "hull context set" in hint
        cli("context", "set", f"http://{address}", "--token", "0123456789abcdef-test")
        assert cli("ps").stdout.startswith("NAME")
        assert f"API v1, at http://{address}\n" in cli("version").stdout
    finally:
        daemon.stop()


# What there is, without a machine running.

def test_lists(hull, hulld):
    spec = {"name": "made", "image": "busybox", "command": ["/bin/true"], "memory_mib": 2048, "disk_mib": 64}
    assert hulld.post("/v1/machines", spec).status == 201
    assert hull("ps").stdout.splitlines() == ["NAME  IMAGE  STATE  PORTS  CPUS  MEMORY  CREATED"]
    head, row = hull("ps", "-a").stdout.splitlines()
    assert row.split()[:5] == ["made", "busybox", "created", "1", "2"] and row.index("2 GiB") == head.index("MEMORY")
    assert [machine["name"] for machine in json.loads(hull("ps", "-a", "-o", "json").stdout)] == ["made"]
    assert json.loads(hull("ps", "-o", "json").stdout) == []
    machine_id = hull("ps", "-aq").stdout.strip()
    assert json.loads(hull("inspect", "made").stdout)["id"] == machine_id
    assert hull("images", "-q").stdout == "busybox\n"
    assert json.loads(hull("images", "-o", "json").stdout)[0]["name"] == "busybox"
    digest = json.loads(hull("image", "inspect", "busybox").stdout)["rootfs"]
    assert digest.startswith(hull("images").stdout.splitlines()[1].split()[3])
    line, hint = hull.refused("rmi", "busybox")
    assert "made" in line and hint == "`hull image rm -f` takes the name away; machines keep their content"
    assert hull("rm", "made").stdout == "made\n"
    assert machines(hulld) == []


@pytest.mark.parametrize("key", [b"q", b"\x03"])
def test_top_gives_the_terminal_back_as_it_was(hull, key):
    ours, theirs = pty.openpty()
    before = termios.tcgetattr(ours)
    fcntl.ioctl(ours, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    process = subprocess.Popen([HULL, "top", "-i", "3600"], stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True,
                               env=hull.env, preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0))
    os.close(theirs)
    shown = b""
    with killed_late(process):
        while b"SENT/s  TASKS\x1b[K" not in shown:
            shown += os.read(ours, 4096)
        fcntl.ioctl(ours, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 10, 0, 0))
        while not shown.endswith(b"\x1b[HNAME  CPU \x1b[K\x1b[J"):  # drawn again, narrower
            shown += os.read(ours, 4096)
        os.write(ours, key)
        while b"\x1b[?25h\x1b[?1049l" not in shown:
            shown += os.read(ours, 4096)
        assert process.wait() == 0
    assert shown.startswith(b"\x1b[?1049h\x1b[?25l") and termios.tcgetattr(ours) == before
    os.close(ours)


def test_top_prints_once_where_nobody_watches(hull):
    assert hull("top").stdout.split()[:4] == ["NAME", "CPU", "%", "MEMORY"] and json.loads(hull("stats", "--no-stream", "-o", "json").stdout) == []
    assert hull("top", "--no-stream").stdout == hull("stats", "--once").stdout == hull("top", "--once").stdout


def test_what_does_not_exist_is_said_with_where_to_look(hull):
    assert "nobody" in hull.refused("top", "nobody")[0]
    line, hint = hull.refused("logs", "nobody")
    assert "nobody" in line and hint == "`hull ps -a` lists what there is"
    line, hint = hull.refused("image", "inspect", "nothing")
    assert "nothing" in line and hint == "`hull images` lists what there is"
    line, hint = hull.refused("run", "nothing", status=125)
    assert "nothing" in line and hint == "`hull images` lists what there is, `hull image build` makes one"
    shown = hull("rm", "nobody", "..", status=1).stderr
    assert shown.count("hull: ") == 2 and "nobody: " in shown and "..: " in shown


def test_a_refusal_says_what_to_do_next(hull, hulld, alone):
    assert hulld.post("/v1/machines", {"name": "made", "image": "busybox", "command": ["true"], "network": "none"}).status == 201
    for words, status, said, hint in (
            (["run", "bsybox"], 125, 'image: there is no image "bsybox"', "did you mean busybox? `hull images` lists what there is"),
            (["logs", "mdae"], 1, 'there is no machine "mdae"', "did you mean made? `hull ps -a` lists what there is"),
            (["exec", "made", "ls"], 125, "machine made is created", "`hull start made` first"),
            (["run", "busybox", "--name", "made", "true"], 125, 'name: a machine "made" exists already', "choose another name, or take that one away first"),
            (["run", "busybox", "--secret", "NONE", "true"], 125, 'secrets[0]: there is no secret "NONE"', "`hull secret list` lists what there is, `hull secret set` makes one"),
            (["update", "made", "--image", "none"], 1, 'image: there is no image "none"', "`hull images` lists what there is, `hull image build` makes one"),
            (["--project", "none", "ps"], 1, 'project: there is no project "none"', "`hull project list` lists what there is")):
        assert hull.refused(*words, status=status) == (said, hint)
    assert hull("kill", "mdae", "nobody", status=1).stderr == (
        'hull: mdae: there is no machine "mdae"\n      did you mean made? `hull ps -a` lists what there is\n'
        'hull: nobody: there is no machine "nobody"\n      `hull ps -a` lists what there is\n')
    assert machines(hulld) == ["made"] and alone("help", "run").stdout == alone("run", "--help").stdout and alone("help").stdout == alone("--help").stdout


def test_a_refused_machine_leaves_none(hull, hulld):
    for words, field in ((["--name", "Big"], "name"), (["-m", "1"], "memory_mib"), (["--network", "lan"], "network"),
                         (["-d", "--restart", "sometimes"], "restart.policy"), (["--cpus", "99"], "cpus")):
        line, _ = hull.refused("run", *words, "busybox", "--", "true", status=125)
        assert line.startswith(field + ": "), line
    assert machines(hulld) == []


def test_a_name_or_port_that_is_taken_is_said(hull, hulld):
    spec = {"name": "made", "image": "busybox", "command": ["/bin/true"], "disk_mib": 64}
    assert hulld.post("/v1/machines", spec).status == 201
    assert hull.refused("run", "--name", "made", "busybox", "--", "true", status=125)[0] == 'name: a machine "made" exists already'
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        line, hint = hull.refused("run", "-p", f"{port}:80", "busybox", "--", "true", status=125)
    assert line.startswith(f"ports[0].host: 127.0.0.1:{port} cannot be published: ") and hint == "choose another host port"
    assert machines(hulld) == ["made"]


def test_a_command_that_ends_at_once_is_told_of(tmp_path):
    """No guest: a script in the monitor's place says what a monitor does when the command has ended before the agent was heard."""
    hulld = Hulld(tmp_path).with_stand_in("""#!/bin/sh\nprintf '{"cause":"poweroff","exit_status":7,"message":"m"}\\n' >&4\n""").start()
    try:
        hulld.image("any", make_erofs(tmp_path), command=["any"])
        hull = Cli(tmp_path, hulld.socket)
        run = hull("run", "-d", "--name", "web", "--network", "none", "any")
        assert run.stdout == "web\n" and run.stderr == "hull: web: its command has ended, with status 7\n      `hull logs web` shows what it said\n"
        again = hull("run", "-d", "--name", "on", "--restart", "on-failure:1", "--network", "none", "any").stderr
        assert again.startswith("hull: on: its command has ended, with status 7")
        for words in (["-q"], ["-o", "json"]):
            assert hull("run", "-d", *words, "--network", "none", "any").stderr == ""
    finally:
        hulld.stop()


def test_who_wants_too_much_memory_is_told_so(tmp_path):
    """A script says what a monitor does then."""
    hulld = Hulld(tmp_path).with_stand_in("""#!/bin/sh\nprintf '{"cause":"poweroff","exit_status":137,"message":"the workload was killed: out of memory"}\\n' >&4\n""").start()
    try:
        hulld.image("any", make_erofs(tmp_path), command=["any"])
        hull = Cli(tmp_path, hulld.socket)
        hull("run", "-d", "--name", "web", "-m", "128", "--network", "none", "any")
        assert hull.refused("wait", "--healthy", "web") == ("web: the machine has stopped: its command was killed, as its 128 MiB of memory were used up",
                                                            "`hull update web -m MIB --restart-now` gives it more")
        assert "stopped (137, out of memory)" in hull("ps", "-a").stdout
    finally:
        hulld.stop()


def test_a_secret_of_nothing_is_refused_where_its_source_has_failed(hull, hulld, tmp_path):
    assert hull.refused("secret", "set", "KEY") == ("the input: is empty", "for example `hull secret set KEY <FILE`")
    assert hulld.get("/v1/secrets").json["items"] == []
    hull("secret", "set", "KEY", text="\n") # nothing, and meant
    (tmp_path / "empty").touch()
    hull("secret", "set", "KEY", "--file", tmp_path / "empty")
    hull("secret", "rm", "KEY")


def test_a_start_that_fails_leaves_nothing(tmp_path, hulld):
    """A kernel that is none, and one that is not there: the first fails in the monitor, the second before it."""
    (tmp_path / "kernel").write_bytes(b"no kernel" * 1000)
    daemon = Hulld(tmp_path)
    daemon.options["--kernel"] = tmp_path / "kernel"
    daemon.start()
    try:
        daemon.image("busybox", (hulld.folder / "image.erofs").read_bytes())
        cli = Cli(tmp_path, daemon.socket)
        for options in ([], ["-d"], ["--rm"]):
            line, _ = cli.refused("run", *options, "--name", "broken", "busybox", "--", "true", status=125)
            assert "broken" in line
            assert machines(daemon) == [] and list((daemon.state / "machines").iterdir()) == []
        (tmp_path / "kernel").unlink()
        line, _ = cli.refused("run", "--name", "broken", "busybox", "--", "true", status=125)
        assert str(tmp_path / "kernel") in line
        assert machines(daemon) == []
    finally:
        daemon.stop()


# Recipes.

@pytest.fixture
def recipe(tmp_path):
    """recipe(**fields): refused by `hull image build`, with nothing left behind. The line."""
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    cli = Cli(tmp_path)
    cli.env["TMPDIR"] = str(temporary)

    def build(status=1, **fields):
        path = tmp_path / "IMAGE.json"
        path.write_text(json.dumps({"name": "test", **fields}))
        done = cli("image", "build", "--file", path, "--output", tmp_path / "out", status=status, timeout=600)
        assert not (tmp_path / "out").exists() and list(temporary.iterdir()) == []
        lines = [line for line in done.stderr.splitlines() if ": installing " not in line]
        assert 1 <= len(lines) <= 2 and len(lines[0]) < 300, done.stderr
        build.hint = (lines[1:] or [""])[0]
        return lines[0]

    build.cli = cli
    return build


@pytest.mark.parametrize("fields, why", [
    ({"pakages": []}, "pakages: "),
    ({"packages": ["-o=x"]}, 'packages[0]: "-o=x" is no name of a Debian package'),
    ({"copy": [{"from": "missing", "to": "/srv/a"}]}, 'copy[0].from: cannot open "missing": No such file or directory'),
    ({"copy": [{"from": "../a", "to": "/srv/a"}]}, 'copy[0].from: "../a" is outside the recipe\'s folder'),
    ({"copy": [{"from": "link", "to": "/srv/a"}]}, 'copy[0].from: "link" is outside the recipe\'s folder'),
    ({"copy": [{"from": "/etc/passwd", "to": "/srv/a"}]}, "must be relative to the recipe's folder"),
    ({"copy": [{"from": "IMAGE.json", "to": "/srv/../a"}]}, 'copy[0].to: "/srv/../a": neither ".", ".." nor control characters'),
    ({"copy": [{"from": "pipe", "to": "/srv/a"}]}, "is neither a file nor a folder"),
    ({"config": {"user": "a b"}}, 'config.user: "a b" is no USER or USER:GROUP'),
    ({"config": {"env": {"A=B": "c"}}}, "config.env.A=B: is no name of an environment variable"),
    ({"config": {"ports": [0]}}, "config.ports[0]: must be a number from 1 to 65535"),
])
def test_a_wrong_recipe_is_refused_before_anything_is_installed(recipe, tmp_path, fields, why):
    (tmp_path / "link").symlink_to("/etc/passwd")
    os.mkfifo(tmp_path / "pipe")
    line = recipe(**fields)
    assert line.startswith("hull: " + why) or line.endswith(why), line


@pytest.mark.skipif(os.geteuid() != 0, reason="a network namespace of its own needs root")
def test_without_a_network_it_says_which_mirror_it_cannot_reach(recipe):
    done = subprocess.run(["unshare", "--net", HULL, "image", "build", "x", "--package", "busybox", "--output", recipe.cli.home / "out"],
                          env=recipe.cli.env, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 1
    line, hint = done.stderr.splitlines()[-2:]
    assert line.startswith("hull: packages: apt: Failed to fetch http") and len(line) < 300
    assert "has to reach its Debian mirror" in hint
    assert not (recipe.cli.home / "out").exists()


def test_a_package_that_apt_does_not_know_is_named(recipe):
    assert recipe(packages=["hull-no-such-package"]) == "hull: packages: apt: Unable to locate package hull-no-such-package"


def test_what_is_open_here_is_not_open_in_mmdebstrap(recipe):
    """mmdebstrap hands a descriptor to a shell that knows only single digits: a few of ours before it, and it fails."""
    fake = recipe.cli.home / "mmdebstrap"
    fake.write_text("#!/bin/sh\necho \"E: open:\" $(ls /proc/$$/fd) >&2\nexit 1\n")
    fake.chmod(0o755)
    recipe.cli.env["PATH"] = f"{fake.parent}:{recipe.cli.env['PATH']}"
    inherited = os.dup2(0, 77)
    try:
        done = subprocess.run([HULL, "image", "build", "x", "--package", "busybox", "--output", recipe.cli.home / "out"],
                              env=recipe.cli.env, pass_fds=[inherited], stdin=subprocess.DEVNULL,
                              capture_output=True, text=True, timeout=300, check=False)
    finally:
        os.close(inherited)
    assert done.returncode == 1
    opened = re.search(r"open: (.*)", done.stderr)
    assert opened and "77" not in opened.group(1).split(), done.stderr


@pytest.mark.parametrize("said, line, hint", [
    ("cp: error writing x: No space left on device\\nE: special hook failed with exit code 6400", "no space is left there", "TMPDIR=FOLDER names another place"),
    ("E: unable to pick chroot mode automatically (use --mode for manual selection)", "unable to pick chroot mode", "/etc/subuid")])
def test_what_this_machine_lacks_for_an_image_is_said(recipe, said, line, hint):
    fake = recipe.cli.home / "mmdebstrap"
    fake.write_text(f"#!/bin/sh\nprintf '{said}\\n' >&2\nexit 25\n")
    fake.chmod(0o755)
    recipe.cli.env["PATH"] = f"{fake.parent}:{recipe.cli.env['PATH']}"
    assert line in recipe(packages=["busybox"]) and hint in recipe.hint


@pytest.mark.skipif(os.geteuid() != 0, reason="mounts")
def test_what_mmdebstrap_leaves_mounted_goes_with_it(recipe):
    """As when it cannot unmount what is busy; and what is mounted is not walked into when the folder is removed."""
    kept = recipe.cli.home / "kept"
    kept.mkdir()
    (kept / "file").write_text("kept")
    fake = recipe.cli.home / "mmdebstrap"
    fake.write_text(f"#!/bin/sh\nmkdir $TMPDIR/new && mount --bind {kept} $TMPDIR/new && cat $TMPDIR/new/file >{recipe.cli.home}/seen\nexit 1\n")
    fake.chmod(0o755)
    recipe.cli.env["PATH"] = f"{fake.parent}:{recipe.cli.env['PATH']}"
    assert "mmdebstrap gave up with status 1" in recipe(packages=["busybox"])
    assert (recipe.cli.home / "seen").read_text() == (kept / "file").read_text() == "kept"
    assert str(recipe.cli.home) not in Path("/proc/mounts").read_text()


# Machines.

@pytest.mark.kvm
def test_run_passes_output_and_status_on_and_removes(hull, hulld):
    """And input, as all that a shell joins by pipes."""
    script = "wc -c; seq 2000; echo oops >&2; exit 7"
    done = hull("run", "--rm", "--network", "none", "busybox", "sh", "-c", script, text="hi\n", status=7)
    assert done.stdout == "3\n" + "".join(f"{n}\n" for n in range(1, 2001)) and done.stderr == "oops\n"
    assert machines(hulld) == []


@pytest.mark.kvm
def test_run_has_the_terminal_it_is_called_at(hull, hulld):
    ours, theirs = pty.openpty()
    fcntl.ioctl(ours, termios.TIOCSWINSZ, struct.pack("HHHH", 33, 101, 0, 0))
    before = termios.tcgetattr(ours)
    process = subprocess.Popen([HULL, "run", "--rm", "--network", "none", "busybox", "sh", "-c", "tty; stty size; exec cat"],
                               stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True, env=hull.env,
                               preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0))
    os.close(theirs)
    shown = b""
    with killed_late(process):
        while b"33 101\r\n" not in shown:
            shown += os.read(ours, 4096)  # fails once nobody is at the other end
        assert b"/dev/pts/" in shown
        os.write(ours, b"\x03")
        while b"^C" not in shown:
            shown += os.read(ours, 4096)
        assert process.wait() == 130
    assert termios.tcgetattr(ours) == before
    os.close(ours)
    assert machines(hulld) == []


@pytest.mark.kvm
def test_a_workload_outlives_who_ran_it(hull):
    process = hull.popen("run", "--network", "none", "--name", "orphan", "busybox", "--", "/srv/count")
    reading(process, "line 1\n")
    process.kill()
    rest(process)
    follower = hull.popen("logs", "-f", "orphan")
    for n in range(5):
        reading(follower, f"line {n}\n")
    assert hull("stop", "orphan").stdout == "orphan\n"
    rest(follower)
    assert "stopped (143)" in hull("ps", "-a").stdout


@pytest.mark.kvm
def test_what_cannot_be_run_leaves_no_machine(hull, hulld):
    line, _ = hull.refused("run", "--network", "none", "--user", "nobody", "busybox", "true", status=125)
    assert line == 'user: no user "nobody" in the image\'s /etc/passwd'
    assert machines(hulld) == []


@contextlib.contextmanager
def killed_late(process):
    """Nothing below lasts longer than a boot."""
    killer = threading.Timer(BOOT, process.kill)
    killer.start()
    try:
        yield
    finally:
        killer.cancel()


def reading(process, line):
    """Until the process printed `line`."""
    with killed_late(process):
        for seen in process.stdout:
            if seen == line:
                return
        raise AssertionError(f"no {line!r}: {process.stderr.read()}")


def rest(process):
    """What else it prints, and its exit status."""
    with killed_late(process), process:
        return process.stdout.read(), process.stderr.read(), process.wait()


@pytest.mark.kvm
def test_ctrl_c_reaches_the_program(hull, hulld):
    process = hull.popen("run", "--rm", "--network", "none", "--name", "polite", "busybox", "--", "/srv/polite")
    reading(process, "ready\n")
    process.send_signal(signal.SIGINT)
    assert rest(process) == ("bye\n", "", 3)
    assert machines(hulld) == []


@pytest.mark.kvm
def test_a_kill_is_a_status_and_a_reader_gone_removes(hull, hulld):
    process = hull.popen("run", "--rm", "--network", "none", "--name", "deaf", "busybox", "--", "/srv/deaf")
    piped = hull.popen("run", "--rm", "--network", "none", "--name", "piped", "busybox", "--", "/srv/count")
    reading(process, "deaf\n")
    process.send_signal(signal.SIGTERM)
    assert hull("kill", "deaf").stdout == "deaf\n"
    assert rest(process) == ("", "", 137)
    reading(piped, "line 0\n")
    piped.stdout.close()
    assert piped.wait(BOOT) == 125
    assert "cannot write the output" in piped.stderr.read()
    piped.stderr.close()
    assert machines(hulld) == []


@pytest.mark.kvm
def test_the_life_of_a_detached_machine(hull):
    run = hull("run", "-d", "--name", "web", "--network", "none", "-e", "A=b", "--label", "x=y", "busybox", "--", "/srv/count")
    assert run.stdout == "web\n" and run.stderr == ""
    assert hull("ps").stdout.splitlines()[1].split()[:3] == ["web", "busybox", "running"]
    machine = json.loads(hull("inspect", "web").stdout)
    assert (machine["env"], machine["labels"]) == ({"A": "b"}, {"x": "y"})
    assert hull.refused("rm", "web")[1] == "stop it first, or `hull rm -f web`"
    follower, waiter = hull.popen("logs", "-f", "web"), hull.popen("wait", "web")
    reading(follower, "line 3\n")
    assert hull("stop", "-t", "60", "web").stdout == "web\n"
    out, err, status = rest(follower)
    assert out.startswith("line 4\n") and (err, status) == ("", 0)
    assert rest(waiter) == ("143\n", "", 0)
    assert hull("ps").stdout.count("\n") == 1 and "stopped (143)" in hull("ps", "-a").stdout
    (hull.home / "web.yaml").write_text("name: web\nimage: busybox\nenv: {A: d}\n")
    assert hull("apply", "-f", hull.home / "web.yaml", "-y").stdout.endswith("web: changed, stopped, as it was: `hull start web`\n")
    assert hull("restart", "web").stdout == "web\n"
    assert hull("ps", "-q").stdout.strip() == machine["id"]
    assert hull("update", "web", "-e", "A=c", "--restart-now", "--", "sh", "-c", "echo A is $A; exec sleep 1000").stdout == "web\n"
    wait_until(lambda: "A is c\n" in hull("logs", "web").stdout, "the program runs with what it was given")
    assert json.loads(hull("inspect", "web").stdout)["pending"] == []
    (hull.home / "web.yaml").write_text("name: web\nimage: busybox\nenv: {A: e}\nhealth: {exec: {command: [test, -e, /srv/count]}}\n")
    applied = hull("apply", "-f", hull.home / "web.yaml", "-y", "--restart", "--wait").stdout
    assert applied.splitlines()[0] == "~ machine web" and applied.endswith("web: changed, started again\nweb: healthy\n")
    assert json.loads(hull("inspect", "web").stdout)["pending"] == [] and hull("exec", "web", "sh", "-c", "echo $A").stdout == "e\n"
    assert hull("kill", "web").stdout == "web\n"
    assert hull("wait", "web").stdout == "137\n"
    assert len(hull("logs", "-n", "2", "web").stdout.splitlines()) == 2
    assert "Linux version" in hull("logs", "--console", "web").stdout or hull("logs", "--monitor", "web").returncode == 0
    assert hull("rm", "web").stdout == "web\n"
