"""tools/kvmhost, black box: a command, or a host that stays, where there is a /dev/kvm. Runs on the machine itself."""
import contextlib
import json
import os
import pty
import select
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path

import pytest

from free_ports import free_port

TOP = Path(__file__).resolve().parent.parent.parent
KVMHOST = TOP / "tools" / "kvmhost"
DEADLINE_S = 600  # of one command, on a busy machine

CREATE_A_VM = """
import fcntl, os
kvm = os.open("/dev/kvm", os.O_RDWR)
print("api", fcntl.ioctl(kvm, 0xAE00, 0))
vm = fcntl.ioctl(kvm, 0xAE01, 0)
print("vcpu", fcntl.ioctl(vm, 0xAE41, 0) > 0)
"""


def environment(**more):
    # Also where /dev/kvm is usable, it is the emulated host that is tested.
    return dict(os.environ, KVMHOST_EMULATE="1", **more)


def kvmhost(*arguments, cwd, env=None, stdin=None, timeout=DEADLINE_S):
    return subprocess.run([KVMHOST, *map(str, arguments)], cwd=cwd, env=env or environment(), text=True, timeout=timeout,
                          capture_output=True, **({"input": stdin} if stdin is not None else {"stdin": subprocess.DEVNULL}))


@pytest.fixture(scope="module", autouse=True)
def boot_files(tmp_path_factory):
    """The first run makes the boot files, and says so."""
    assert kvmhost("run", "--", "true", cwd=tmp_path_factory.mktemp("first")).returncode == 0


# ---- the command line


@pytest.mark.parametrize("arguments, message", [
    ((), "no command"),
    (("frobnicate",), "frobnicate: no such command"),
    (("run",), "run: no command"),
    (("run", "-x", "--", "true"), "-x: no such option"),
    (("run", "--bare", "--", "true"), "--bare: no such option"),
    (("run", "-c"), "-c needs a value"),
    (("run", "-c", "0", "--", "true"), "-c: '0' is not a number"),
    (("run", "-c", "65", "--", "true"), "-c: 65 is not from 1 to 64"),
    (("run", "-m", "4G", "--", "true"), "-m: '4G' is not a number"),
    (("run", "-t", "1;id", "--", "true"), "-t: '1;id' is not a number"),
    (("run", "--share", "/does/not/exist", "--", "true"), "--share: '/does/not/exist' is no folder"),
    (("up", "now"), "up takes no command"),
    (("up", "-i"), "-i: no such option"),
    (("up", "--http", "0.0.0.0:80"), "--http: '0.0.0.0:80' is not a number"),
    (("up", "--https", "65536"), "--https: 65536 is not from 1 to 65535"),
    (("up", "--bare", "--http", "80"), "--bare: without hulld nothing is served"),
    (("up", "--bare", "--", "--log-keep", "8"), "--bare: without hulld there is nothing to take '--log-keep'"),
    (("up", "--", "now"), "up takes no command"),
    (("up", "--", "--webhok-allow", "10.0.2.2"), "hulld takes no such options: unrecognized option '--webhok-allow'"),
])
def test_a_wrong_command_line_is_refused_with_the_usage(tmp_path, arguments, message):
    result = kvmhost(*arguments, cwd=tmp_path)
    assert result.returncode == 2
    assert message in result.stderr.splitlines()[0]
    assert "usage: kvmhost run" in result.stderr
    assert result.stdout == ""


def test_help_is_no_error(tmp_path):
    result = kvmhost("--help", cwd=tmp_path)
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout.startswith("usage: kvmhost run")


def test_a_missing_package_is_named(tmp_path):
    programs = tmp_path / "bin"
    programs.mkdir()
    for folder in ("/usr/bin", "/usr/sbin"):
        for program in Path(folder).iterdir():
            if not program.name.startswith("qemu-system") and not (programs / program.name).exists():
                (programs / program.name).symlink_to(program)
    shutil.copytree(TOP / "guest-kernel", tmp_path / "guest-kernel")
    tools = shutil.copytree(TOP / "tools", tmp_path / "tools")
    # The script looks into /usr/sbin by itself; the test's folder takes its place.
    script = tools / "kvmhost"
    script.write_text(script.read_text().replace("PATH=$PATH:/usr/sbin:/sbin", "PATH=$PATH"))
    result = subprocess.run([script, "run", "--", "true"], cwd=tmp_path, capture_output=True, text=True,
                            env=environment(PATH=str(programs)), timeout=DEADLINE_S)
    assert result.returncode == 125
    assert result.stderr == "kvmhost: qemu-system-x86_64 is missing: apt-get install qemu-system-x86\n"


def test_a_kernel_package_that_apt_does_not_know_is_named(tmp_path):
    result = kvmhost("run", "--", "true", cwd=tmp_path, env=environment(KVMHOST_KERNEL="linux-image-nobody-amd64"))
    assert result.returncode == 125
    assert "linux-image-nobody-amd64 is not in apt's lists: apt-get update" in result.stderr


# ---- run


def test_output_and_exit_status_pass_through_clean_and_arguments_arrive_as_they_are(tmp_path):
    arguments = ["", " ", "two words", "it's", '"', "$HOME `id` \\", "line\nbreak", "ends in a newline\n", "-n", "--", "ü"]
    script = 'python3 -c "import json, sys; print(json.dumps(sys.argv[1:]))" "$@"; echo to stderr >/dev/stderr; exit 7'
    result = kvmhost("run", "--", "sh", "-c", script, "sh", *arguments, cwd=tmp_path)
    assert json.loads(result.stdout) == arguments and result.stdout.count("\n") == 1
    assert (result.stderr, result.returncode) == ("to stderr\n", 7)


def test_there_is_a_dev_kvm_and_what_tests_need(tmp_path):
    wanted = f"""
python3 -c '{CREATE_A_VM}'
modprobe -a tun bridge loop ext4 erofs nf_tables vhost_vsock && echo modules
for t in /run /dev/shm; do stat -f -c %T $t; done
stat -f -c %T /sys/fs/cgroup
ip -brief address show lo | tr -s ' '
test -c /dev/net/tun && test -c /dev/loop-control && test -c /dev/vhost-vsock && echo nodes
echo $KVMHOST $KVMHOST_OUT $HULL_FOR_TEST
"""
    result = kvmhost("run", "--", "sh", "-c", wanted, cwd=tmp_path, env=environment(HULL_FOR_TEST="it's passed on"))
    assert result.stdout.splitlines() == [
        "api 12", "vcpu True", "modules", "tmpfs", "tmpfs", "cgroup2fs", "lo UNKNOWN 127.0.0.1/8 ::1/128 ", "nodes",
        "1 /out it's passed on"], result.stderr


def test_writes_stay_inside_but_for_out_and_shares(tmp_path):
    share, kept = tmp_path / "share", tmp_path / "kept"
    share.mkdir()
    kept.write_text("as it was")
    script = f"""
cat {kept} && echo changed >{kept} && cat {kept}
touch /etc/kvmhost-test /usr/kvmhost-test {tmp_path}/new && echo touched
echo out >/out/file && echo shared >{share}/file
"""
    result = kvmhost("run", "--share", share, "--", "sh", "-c", script, cwd=tmp_path)
    assert result.stdout == "as it waschanged\ntouched\n", result.stderr
    assert kept.read_text() == "as it was"
    assert not Path("/etc/kvmhost-test").exists() and not Path("/usr/kvmhost-test").exists()
    assert not (tmp_path / "new").exists()
    assert (tmp_path / "kvmhost-out" / "file").read_text() == "out\n"
    assert (share / "file").read_text() == "shared\n"


def test_counted_instructions_are_the_same_time_whatever_else_runs(tmp_path):
    """Each run is an emulated host of its own, whose kernel has just booted and may have something to do of its own: hence the best of
    a few."""
    work = """import time
def once():
    begun = time.monotonic_ns()
    sum(range(1000000))
    return time.monotonic_ns() - begun
print(min(once() for _ in range(4)))"""
    times = []
    for _ in range(2):
        result = kvmhost("run", "-i", "-t", 200, "--", "/usr/bin/python3", "-c", work, cwd=tmp_path)
        assert result.returncode == 0, result.stderr
        times.append(int(result.stdout))
    assert max(times) < 1.05 * min(times), times


def test_past_the_limit_it_gives_up_with_124(tmp_path):
    result = kvmhost("run", "-t", 4, "--", "sleep", "1000", cwd=tmp_path)
    assert result.returncode == 124
    assert "gave up after 4 seconds" in result.stderr


def test_a_large_output_is_whole_and_what_stays_behind_does_not_hold_it_up(tmp_path):
    result = kvmhost("run", "-t", 120, "--", "sh", "-c", "sleep 1000 & seq 200000; exit 3", cwd=tmp_path)
    assert result.returncode == 3, result.stderr[-500:]
    assert result.stdout == "".join(f"{i}\n" for i in range(1, 200001))


def test_two_first_runs_at_once_in_one_folder(tmp_path):
    env = environment(XDG_CACHE_HOME=str(tmp_path / "cache"))
    runs = [subprocess.Popen([KVMHOST, "run", "--", "sh", "-c", f"echo {i} >/out/{i}; exit {i}"], cwd=tmp_path, env=env,
                             stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) for i in (11, 12)]
    for i, run in zip((11, 12), runs):
        _, stderr = run.communicate(timeout=DEADLINE_S)
        assert run.returncode == i, stderr
        assert (tmp_path / "kvmhost-out" / str(i)).read_text() == f"{i}\n"
    made = [path for path in (tmp_path / "cache" / "hull" / "kvmhost").iterdir() if path.is_dir()]
    assert len(made) == 1 and not made[0].name.startswith("making"), made


def processes_with(text):
    found = []
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and text.encode() in (entry / "cmdline").read_bytes():
                found.append(int(entry.name))
        except OSError:
            pass
    return found


def parent(pid):
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[1])
    except OSError:
        return None


def children(pid):
    return [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit() and parent(entry.name) == pid]


def alive(pid):
    return Path(f"/proc/{pid}").exists()


def wait_until(condition, what, seconds=60):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, what
        select.select([], [], [], 0.05)


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
def test_no_emulated_host_outlives_its_script(tmp_path, how):
    mark = str(tmp_path / "kvmhost-")  # what it makes and names on QEMU's command line
    run = subprocess.Popen([KVMHOST, "run", "--", "sleep", "1000"], cwd=tmp_path, env=environment(TMPDIR=str(tmp_path)),
                           stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        wait_until(lambda: len(processes_with(mark)) > 1, "QEMU does not start", seconds=DEADLINE_S)
        readers = children(run.pid)
        assert len(readers) == 3, "timeout, which is QEMU's parent, and two readers"
        run.send_signal(how)
        run.wait(timeout=60)
    finally:
        run.kill()
    wait_until(lambda: not processes_with(mark) and not any(map(alive, readers)), "something is still there")


HASTY_QEMU = """#!/bin/sh
echo $PPID >"$HULL_TEST_DEAF.new"
mv "$HULL_TEST_DEAF.new" "$HULL_TEST_DEAF"
exit 3
"""
# It begins to read once the script has seen the end of QEMU, and sleeps: it waits for this.
SLOW_CAT = """#!/bin/sh
if [ -p "${1:-/dev/stdin}" ]; then
	until [ -s "$HULL_TEST_DEAF" ] && read -r qemu <"$HULL_TEST_DEAF" && [ ! -d /proc/$qemu ] && grep -q '^State:.S' /proc/$PPID/status; do :; done
fi
exec /bin/cat "$@"
"""


def test_a_reader_that_is_later_than_all_else_comes_to_its_end(tmp_path):
    run, mark, _ = run_with(tmp_path, {"qemu-system-x86_64": HASTY_QEMU, "cat": SLOW_CAT})
    ends(run, mark)
    assert run.returncode == 125


DEAF_QEMU = """#!/usr/bin/python3
import os, signal
signal.signal(signal.SIGTERM, signal.SIG_IGN)
open(os.environ["HULL_TEST_DEAF"], "w")
signal.pause()
"""
# As timeout(1) that is told to end when it has forked, and does not know its child's number yet.
HASTY_TIMEOUT = """#!/bin/sh
while [ "$1" != setpriv ]; do shift; done
(while [ -d /proc/$$ ]; do :; done; exec "$@") &
exit 143
"""


def run_with(tmp_path, programs):
    """kvmhost run, with these in the place of others; the mark of what it starts; and the file that a deaf QEMU makes."""
    fakes = tmp_path / "fakes"
    fakes.mkdir()
    for name, text in programs.items():
        (fakes / name).write_text(text)
        (fakes / name).chmod(0o755)
    deaf = tmp_path / "deaf"
    env = environment(TMPDIR=str(tmp_path), PATH=f"{fakes}:{os.environ['PATH']}", HULL_TEST_DEAF=str(deaf))
    run = subprocess.Popen([KVMHOST, "run", "--", "true"], cwd=tmp_path, env=env, stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return run, str(tmp_path / "kvmhost-"), deaf


def ends(run, mark):
    try:
        run.wait(timeout=60)
        wait_until(lambda: not processes_with(mark), "something is still there")
    finally:
        run.kill()
        for pid in processes_with(mark):
            os.kill(pid, signal.SIGKILL)


def test_an_emulated_host_that_does_not_listen_is_ended(tmp_path):
    run, mark, deaf = run_with(tmp_path, {"qemu-system-x86_64": DEAF_QEMU})
    wait_until(deaf.exists, "QEMU does not start", seconds=DEADLINE_S)
    run.send_signal(signal.SIGTERM)
    ends(run, mark)


def test_an_emulated_host_that_was_left_alone_is_not_begun(tmp_path):
    run, mark, deaf = run_with(tmp_path, {"qemu-system-x86_64": DEAF_QEMU, "timeout": HASTY_TIMEOUT})
    ends(run, mark)
    assert run.returncode == 143 and not deaf.exists()


# ---- up, shell, down, status


class Host:
    def __init__(self, folder):
        self.state = folder / "state"
        self.folder = folder
        self.env = environment(XDG_CONFIG_HOME=str(folder / "config"), HULL_BUILD=os.environ.get("HULL_BUILD", str(TOP / "build")))

    def __call__(self, verb, *arguments, **more):
        return kvmhost(verb, "--state", self.state, *arguments, cwd=self.folder, env=self.env, **more)

    def up(self):
        result = self("up", "--bare")
        assert result.returncode == 0, result.stderr
        return result

    def run(self, *command, **more):
        return self("shell", "--", *command, **more)

    def qemu(self):
        return [pid for pid in processes_with(f"file={self.state}/disk.img") if Path(f"/proc/{pid}/comm").read_text().startswith("qemu")]


@pytest.fixture(scope="module")
def host(tmp_path_factory):
    host = Host(tmp_path_factory.mktemp("host"))
    try:
        host.up()
        yield host
    finally:
        host("down")
    assert not host.qemu()


def test_status_and_a_second_up_say_that_it_is_up(host):
    assert host("status").returncode == 0
    again = host("up", "--bare")
    assert again.returncode == 0
    assert "already up" in again.stderr
    for other in ("-m", "700"), ("-c", "2"), ("--share", host.folder):
        refused = host("up", "--bare", *other)
        assert (refused.returncode, refused.stderr) == (1, f"kvmhost: already up, without {other[0]} {other[1]}: 'kvmhost down' first\n")
    assert host("up", "--bare", "-m", 3072, "-c", 1).returncode == 0
    assert len(host.qemu()) == 1


def test_a_command_in_it_has_its_own_status_output_and_input(host):
    result = host.run("sh", "-c", 'cat; echo "$1"; echo error >&2; exit 9', "sh", "two  words", stdin="given\n")
    assert (result.stdout, result.stderr, result.returncode) == ("given\ntwo  words\n", "error\n", 9)
    assert host.run("no-such-program").returncode == 127
    large = "".join(f"{i}\n" for i in range(100000))
    assert host.run("cat", stdin=large).stdout == large


def test_who_comes_while_another_session_is_being_ended_is_served(host):
    """What has no ear for the hang-up is ended after two seconds; until then its port is the next session's already."""
    stays = subprocess.Popen([KVMHOST, "shell", "--state", host.state, "--", "sh", "-c", "trap '' HUP; echo on; exec sleep 1000"], env=host.env,
                             cwd=host.folder, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True)
    assert stays.stdout.readline() == "on\n"
    stays.kill()
    stays.wait()
    stays.stdout.close()
    following = host.run("echo", "there")
    assert (following.stdout, following.stderr, following.returncode) == ("there\n", "", 0)


def test_a_login_shell_in_it_has_a_terminal(host):
    master, slave = pty.openpty()
    shell = subprocess.Popen([KVMHOST, "shell", "--state", host.state], env=host.env, cwd=host.folder, stdin=slave, stdout=slave,
                             stderr=slave, start_new_session=True)
    os.close(slave)
    os.write(master, b"tty; stty size; exit 5\n")
    seen = b""
    end = time.monotonic() + DEADLINE_S
    while shell.poll() is None and time.monotonic() < end:
        if select.select([master], [], [], 0.2)[0]:
            with contextlib.suppress(OSError): # EIO: the shell has let go of its terminal, and ends
                seen += os.read(master, 4096)
    os.close(master)
    assert shell.wait(timeout=1) == 5, seen
    assert b"/dev/pts/" in seen


def test_it_has_dev_kvm_usr_and_nothing_of_this_machine_else(host):
    secret = host.folder / "secret"
    secret.write_text("mine")
    assert host.run("python3", "-c", CREATE_A_VM).stdout == "api 12\nvcpu True\n"
    assert host.run("cat", secret).returncode != 0
    assert host.run("touch", "/usr/bin/kvmhost-test").returncode != 0
    assert not Path("/usr/bin/kvmhost-test").exists()
    listed = host.run("ls", "/home", "/root")
    assert (set(listed.stdout.split()), listed.stderr) == ({"/home:", "/root:"}, "")
    assert host.run("findmnt", "-n", "-o", "FSTYPE", "/var/lib/hull").stdout == "ext4\n"


def ask_forwarder(host, *lines):
    text = "".join(f"{line}\\n" for line in lines)
    script = f"exec 3<>/dev/virtio-ports/hull.forward; printf '{text}' >&3; head -n {len(lines)} <&3"
    return host.run("timeout", "60", "sh", "-c", script).stdout.splitlines()


def test_a_port_published_inside_is_reached_outside(host):
    port = free_port()
    server = f"""import socket
s = socket.create_server(('0.0.0.0', {port}))
u = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
u.bind(('0.0.0.0', {port}))
print('up', flush=True)
s.accept()[0].send(b'hello')
data, client = u.recvfrom(100)
u.sendto(data, client)"""
    inside = subprocess.Popen([KVMHOST, "shell", "--state", host.state, "--", "python3", "-c", server], env=host.env, cwd=host.folder,
                              stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
    assert inside.stdout.readline() == b"up\n"
    assert ask_forwarder(host, *[f"add 127.0.0.1 {port}"] * 2, f"add 127.0.0.1 {port} udp") == ["ok"] * 3
    with socket.create_connection(("127.0.0.1", port), timeout=60) as s:
        assert s.recv(5) == b"hello"
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        s.settimeout(60)
        s.connect(("127.0.0.1", port))
        s.send(b"asked")
        assert s.recv(100) == b"asked"
    assert inside.wait(timeout=60) == 0
    assert ask_forwarder(host, f"remove 127.0.0.1 {port}", f"remove 127.0.0.1 {port} udp") == ["ok"] * 2
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        s.bind(("127.0.0.1", port))
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port), timeout=5)


def test_a_port_that_is_taken_here_is_refused(host):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert ask_forwarder(host, f"add 127.0.0.1 {port}") == [f"error 127.0.0.1:{port}: Address already in use"]
    assert ask_forwarder(host, f"add 127.0.0.1 {port}", f"remove 127.0.0.1 {port}") == ["ok", "ok"]


def test_the_forwarder_takes_nothing_else(host):
    answers = ask_forwarder(host, "add 192.168.1.1 8080", "add 127.0.0.1 0", "add 127.0.0.1 80 quit", "quit", "x" * 5000,
                            "add 127.0.0.1 99999")
    assert len(answers) == 6 and all(answer.startswith("error ") for answer in answers), answers
    assert host("status").returncode == 0


def test_its_state_outlives_down(host):
    assert host.run("sh", "-c", "echo kept >/var/lib/hull/kept").returncode == 0
    assert host("down").returncode == 0
    assert host("status").returncode == 3
    assert not host.qemu()
    assert host.run("true").returncode == 3
    assert host("down").returncode == 0  # nothing to do
    host.up()
    assert host.run("cat", "/var/lib/hull/kept").stdout == "kept\n"


def test_its_flushed_state_outlives_a_crash_and_status_tells(host):
    assert host.run("sh", "-c", "echo flushed >/var/lib/hull/flushed; sync").returncode == 0
    os.kill(host.qemu()[0], signal.SIGKILL)
    wait_until(lambda: host("status").returncode == 3, "status says it is up")
    assert "QEMU ended unexpectedly (signal 9)" in host("status").stderr
    host.up()
    assert host.run("cat", "/var/lib/hull/flushed").stdout == "flushed\n"


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_an_up_that_is_interrupted_leaves_no_host(host, how):
    """Ctrl-C reaches all of the foreground; SIGKILL the script and whom it waits for."""
    assert host("down").returncode == 0
    up = subprocess.Popen([KVMHOST, "up", "--bare", "--state", host.state], cwd=host.folder, env=host.env, stdin=subprocess.DEVNULL,
                          stderr=subprocess.DEVNULL, start_new_session=True)
    wait_until(host.qemu, "QEMU is not started", seconds=DEADLINE_S)
    os.killpg(up.pid, how)
    assert up.wait(timeout=60) != 0
    wait_until(lambda: not host.qemu(), "QEMU goes on for nobody")
    wait_until(lambda: "down" in host("status").stderr, "its relay goes on")
    host.up()
    assert not list((host.state / "run").glob("starting-*"))
    assert host.run("true").returncode == 0


def test_its_relay_can_crash_too(host):
    relay = processes_with(f"{host.state}/relay.log")
    for pid in relay:
        if b"kvmhost-relay" in Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")[0]:
            os.kill(pid, signal.SIGKILL)
    wait_until(lambda: not host.qemu(), "QEMU outlives its relay")
    assert host("status").returncode == 3
    host.up()
    assert host.run("cat", "/var/lib/hull/kept").stdout == "kept\n"
