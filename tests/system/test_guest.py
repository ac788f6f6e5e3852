"""hull-init in a machine of hull-vmm: the stock kernel and initramfs of `make guest`, an EROFS image made of busybox."""
import json
import os
import signal
import socket
import struct
import subprocess
import threading
import time

import pytest

from conftest import BOOT_ARGS, Cpio, DEADLINE, GUEST, TOP
from free_ports import free_port
from test_ingress import Ingress

pytestmark = pytest.mark.kvm

PING, STREAM, STOP = 1, 2, 3
ECONNREFUSED, EPROTONOSUPPORT = 111, 93
APPLETS = "sh ls cat id env mount ps sleep pwd echo httpd seq kill touch trap stat true".split()


@pytest.fixture(scope="session")
def image(tmp_path_factory):
    """Read-only for all tests. /etc/resolv.conf dangles, as in many images."""
    folder = tmp_path_factory.mktemp("image")
    root = folder / "root"
    for name in ("bin", "etc", "srv"):
        (root / name).mkdir(parents=True)
    (root / "bin/busybox").write_bytes(open("/bin/busybox", "rb").read())
    (root / "bin/busybox").chmod(0o755)
    for applet in APPLETS:
        (root / "bin" / applet).symlink_to("busybox")
    (root / "bin/noloader").write_text("#!/no/such/interpreter\n")
    (root / "bin/noloader").chmod(0o755)
    (root / "etc/passwd").write_text("root:x:0:0::/root:/bin/sh\napp:x:1000:1000::/home/app:/bin/sh\n")
    (root / "etc/group").write_text("root:x:0:\napp:x:1000:\nvideo:x:44:app\n")
    (root / "etc/resolv.conf").symlink_to("/run/nowhere")
    path = folder / "image.erofs"
    subprocess.run(["cc", "-static", "-O2", "-pthread", "-o", root / "bin/probe", TOP / "tests/system/probe.c"], check=True)
    subprocess.run(["mkfs.erofs", path, root], check=True, capture_output=True)
    return path


class Machine:
    """A machine with an image, a scratch disk, vsock, and its output in `output`."""

    def __init__(self, vmm, kernel, image, folder, guest, vsock=True):
        self.socket_path = folder / "vsock.sock"
        archive = Cpio()
        archive.folder("hull")
        archive.file("hull/config.json", guest if isinstance(guest, bytes) else json.dumps(guest).encode(), 0o600)
        (folder / "guest.cpio").write_bytes(archive.finish())
        self.scratch = folder / "scratch.ext4"
        if not self.scratch.exists():
            subprocess.run(["mkfs.ext4", "-q", "-F", self.scratch, "64M"], check=True)
        config = {
            "boot-source": {"kernel_image_path": str(kernel), "initrd_path": str(GUEST / "initramfs.cpio"),
                            "initrd_append_path": str(folder / "guest.cpio"),
                            "boot_args": BOOT_ARGS},
            "machine-config": {"vcpu_count": 1, "mem_size_mib": 192},
            "drives": [{"drive_id": "image", "path_on_host": str(image), "is_root_device": False, "is_read_only": True},
                       {"drive_id": "scratch", "path_on_host": str(self.scratch), "is_root_device": False}],
        }
        if vsock:
            config["vsock"] = {"guest_cid": 3, "uds_path": str(self.socket_path)}
        self.output, self.progress = b"", threading.Condition()
        read, write = os.pipe()
        self.vmm = vmm(config, "--log-fd", str(write), pass_fds=[write])
        os.close(write)
        self.console = threading.Thread(target=self._read_output, args=(read,), daemon=True)
        self.console.start()

    def _read_output(self, fd):
        while data := os.read(fd, 65536):
            with self.progress:
                self.output += data
                self.progress.notify_all()
        os.close(fd)

    def wait_for_output(self, text):
        with self.progress:
            assert self.progress.wait_for(lambda: text in self.output, DEADLINE), self.vmm._describe(repr(self.output))

    def wait(self):
        status = self.vmm.wait()
        self.console.join(DEADLINE)
        assert self.vmm.status["cause"] == "poweroff", self.vmm.status
        return status

    def request(self, verb, arg=0):
        """(the connection, the reply's status); waits for the agent to be there."""
        end = time.monotonic() + DEADLINE
        while True:
            connection = socket.socket(socket.AF_UNIX)
            connection.settimeout(DEADLINE)
            try:
                connection.connect(str(self.socket_path))
                connection.sendall(b"CONNECT 1024\n")
                line = b""
                while not line.endswith(b"\n"):
                    byte = connection.recv(1)
                    if not byte:
                        raise ConnectionError("the machine has no agent yet")
                    line += byte
                assert line.startswith(b"OK "), line
                connection.sendall(struct.pack("<IHHI", 0x4c4c5548, 1, verb, arg))
                magic, status = struct.unpack("<II", connection.recv(8, socket.MSG_WAITALL))
                assert magic == 0x4c4c5548
                return connection, status
            except OSError:
                connection.close()
                assert time.monotonic() < end and self.vmm.process.poll() is None, self.vmm._describe("no agent")
                time.sleep(0.05)

    def ask(self, verb, arg=0):
        connection, status = self.request(verb, arg)
        connection.close()
        return status


def read_all(connection):
    data = b""
    while more := connection.recv(65536):
        data += more
    return data


@pytest.fixture
def machine(vmm, kernel, image, tmp_path):
    def start(command, vsock=True, **guest):
        config = {"hostname": "web", "command": command, "root": {"image": "image", "scratch": "scratch"}, **guest}
        return Machine(vmm, kernel, image, tmp_path, config, vsock)

    return start


def shell(script):
    return ["sh", "-c", script]


def file_system_state(path):
    header = subprocess.run(["dumpe2fs", "-h", path], capture_output=True, text=True, check=True).stdout
    return "clean" if "needs_recovery" not in header and "state:         clean" in " ".join(header.splitlines()) else header


def test_a_workload_has_what_it_was_promised(machine):
    script = """id; pwd; echo "$PORT $HOME $HOSTNAME"; cat /etc/hosts /etc/hostname /proc/self/oom_score_adj /proc/1/oom_score_adj
        echo opened >/dev/stdout; cat; echo mark >/srv/mark 2>&1; touch mine; stat -c '%U %a' . /tmp
        httpd -p 80 && echo bound; ls /hull /image 2>&1
        for i in 1 2 3; do (sleep 0.1 &); done; sleep 1; for s in $(ps -o stat); do case $s in Z*) echo a zombie;; esac; done; exit 7"""
    first = machine(shell(script), user="app", workdir="/home/app/work", env={"PORT": "80"})
    assert first.wait() == 7
    text = first.output.decode()
    for expected in ("uid=1000(app) gid=1000(app) groups=44(video)", "\n/home/app/work\n", "80 /home/app web\n",
                     "127.0.0.1\tlocalhost", "127.0.1.1\tweb", "\nweb\n0\n-1000\n", "\nopened\n",
                     "/srv/mark: Permission denied", "app 755\nroot 1777", "\nbound\n", "/hull: No such", "/image: No such"):
        assert expected in text, text
    assert "a zombie" not in text, "orphans are reaped"
    assert first.vmm.status["exit_status"] == 7
    assert file_system_state(first.scratch) == "clean"
    second = machine(shell("ls; exit 3"), user="app", workdir="/home/app/work")
    assert second.wait() == 3 and second.output.startswith(b"mine\n"), second.output


def test_all_output_arrives_also_the_last_of_a_process_left_behind(machine):
    script = """(trap 'echo last words; exit' TERM; while :; do sleep 1; done) 2>/dev/null &
        (trap '' TERM; while :; do sleep 1; done) & seq 1 30000; kill -9 $$"""
    m = machine(shell(script))
    assert m.wait() == 128 + 9
    assert m.output == b"".join(b"%d\n" % i for i in range(1, 30001)) + b"last words\n"
    assert file_system_state(m.scratch) == "clean"


def test_the_agent_answers_streams_and_stops(machine):
    """Before that, its clock is the host's."""
    script = "probe ptp; trap 'echo stopped; exit 9' TERM; httpd -p 127.0.0.1:80 -h /etc; echo up; while :; do sleep 1; done"
    m = machine(shell(script))
    assert m.ask(PING) == 0
    m.wait_for_output(b"up\n")
    clock = m.output.decode().splitlines()[0]
    assert abs(int(clock.removeprefix("ahead "))) < 1_000_000  # nanoseconds; a boot loses a second
    assert m.ask(STREAM, 81) == ECONNREFUSED
    assert m.ask(99) == EPROTONOSUPPORT
    streams = [m.request(STREAM, 80) for _ in range(30)]
    for connection, status in streams:
        assert status == 0
        connection.sendall(b"GET /hostname HTTP/1.0\r\n\r\n")
    for connection, _ in streams:
        assert read_all(connection).endswith(b"\r\n\r\nweb\n")
        connection.close()
    assert m.ask(STOP, 20000) == 0
    assert m.wait() == 9
    assert m.output.decode() == f"{clock}\nup\nstopped\n"


def test_the_power_button_stops_it_without_an_agent(machine):
    m = machine(shell("trap 'echo stopped; exit 9' INT; echo up; while :; do sleep 1; done"), stop_signal="SIGINT", vsock=False)
    m.vmm.wait_for_log("running")
    m.vmm.terminate()  # as early as that: it is pressed again until somebody listens
    assert m.wait() in (9, 128 + signal.SIGINT)  # the shell may not have come to its trap
    assert m.vmm.status["message"] == "the guest powered off"


def test_busybox_powers_off(machine):
    """Its poweroff asks PID 1 for it by a signal of its own."""
    m = machine(shell("trap 'echo stopped; exit 9' TERM; echo up; busybox poweroff; while :; do sleep 1; done"))
    assert m.wait() == 9
    assert m.output == b"up\nstopped\n"


def test_a_workload_that_ignores_its_stop_signal_is_killed(machine):
    m = machine(shell("trap 'echo ignored' INT; echo up; while :; do sleep 1; done"), stop_signal="SIGINT")
    m.wait_for_output(b"up\n")
    assert m.ask(STOP, 60000) == 0
    m.wait_for_output(b"ignored\n")
    assert m.ask(STOP, 1) == 0  # no more patience
    assert m.wait() == 128 + 9


def ask_for_hostname(port):
    """The answer, or None when the connection was given up."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=DEADLINE) as client:
            client.sendall(b"GET /hostname HTTP/1.0\r\n\r\n")
            client.shutdown(socket.SHUT_WR)
            return read_all(client)
    except ConnectionResetError:
        return None


def test_a_published_port_reaches_the_program(machine, tmp_path_factory):
    port = free_port()
    ingress = Ingress(tmp_path_factory.mktemp("ingress"))
    try:
        m = machine(shell("httpd -p 80 -h /etc; while :; do sleep 1; done"), user="app")
        end = time.monotonic() + DEADLINE
        assert ingress.ask("publish", machine="m", host=port, guest=80, vsock=str(m.socket_path)) == {"ok": True}
        # The machine boots meanwhile: the first connection waits for it, as long as the ingress waits; on a busy
        # emulated host a boot can take longer.
        while (answer := ask_for_hostname(port)) is None:
            assert time.monotonic() < end
        assert answer.endswith(b"web\n")
        assert m.ask(STOP, 0) == 0
        assert m.wait() in (128 + 15, 128 + 9) # the stop signal, and at once SIGKILL: whichever is seen first
    finally:
        ingress.end()


@pytest.mark.parametrize("change, status, line", [
    ({"command": ["nosuch"]}, 127, "workload: command: nosuch: not found in PATH"),
    ({"command": ["/bin/nosuch"]}, 127, "workload: command: /bin/nosuch: not found"),
    ({"command": ["noloader"]}, 127, "its interpreter or loader is missing"),
    ({"command": ["/etc/passwd"]}, 126, "workload: command: /etc/passwd: Permission denied"),
    ({"user": "nobody"}, 125, 'workload: user: no user "nobody" in the image'),
    ({"workdir": "/etc/passwd"}, 125, "workload: workdir: /etc/passwd is no folder"),
    ({"colour": 1}, 125, "configuration: colour: unknown field"),
    ({"network": {"address": "10.0.0.2", "prefix": 24}}, 125, "network: give eth0 the address 10.0.0.2"),
    ({"root": {"image": "imag"}}, 125, 'root file system: drive "imag": no disk with the serial "imag"'),
    ({"root": {"image": "scratch"}}, 125, 'root file system: drive "scratch": mount erofs'),
])
def test_what_cannot_be_set_up_ends_the_machine_with_one_line(machine, change, status, line):
    m = machine(**{"command": ["true"], **change})
    assert m.wait() == status
    said = [text for text in m.vmm.console.splitlines() if text.startswith("hull-init: ")]
    assert len(said) == 1 and line in said[0], m.vmm.console
    assert "panic" not in m.vmm.console
    logged = said[0].replace("workload: ", "", 1) + "\n" if "workload: " in said[0] else ""
    assert m.output.decode() == logged # what the workload has said, and why it could not


def test_without_vsock_the_output_is_on_the_console(machine):
    m = machine(shell("echo out; echo err >&2; exit 4"), vsock=False, root={"image": "image"})
    assert m.wait() == 4
    assert "out\r\nerr\r\n" in m.vmm.console
