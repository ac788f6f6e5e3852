/* What programs that people deploy ask of a kernel: a static program for a guest's initramfs. A line for each facility:
 * "NAME yes", or "NAME no: ERROR". For a guest only: it mounts file systems and makes rules of netfilter's where it runs. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/bpf.h>
#include <linux/filter.h>
#include <linux/if_packet.h>
#include <linux/io_uring.h>
#include <linux/keyctl.h>
#include <linux/netfilter.h>
#include <linux/netfilter/nf_tables.h>
#include <linux/netfilter/nfnetlink.h>
#include <linux/netlink.h>
#include <linux/perf_event.h>
#include <linux/rtnetlink.h>
#include <linux/seccomp.h>
#include <linux/userfaultfd.h>
#include <linux/vm_sockets.h>
#include <sched.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/fanotify.h>
#include <sys/inotify.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

static bool is_fd(long fd)
{
	if (fd >= 0)
		close((int)fd);
	return fd >= 0;
}

/* What changes the caller is done by a child. */
static bool in_child(bool (*what)(void))
{
	int status;
	pid_t pid = fork();

	if (pid == 0)
		_exit(what() ? 0 : errno);
	if (pid < 0 || waitpid(pid, &status, 0) < 0)
		return false;
	errno = WIFEXITED(status) ? WEXITSTATUS(status) : EFAULT;
	return errno == 0;
}

/* ---- containers ---- */

static bool unshares(void)
{
	return unshare(CLONE_NEWUSER | CLONE_NEWNS | CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWPID | CLONE_NEWNET | CLONE_NEWCGROUP |
		       CLONE_NEWTIME) == 0;
}

static bool has_namespaces(void)
{
	return in_child(unshares);
}

static bool filters(void)
{
	struct sock_filter allow = BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
	struct sock_fprog program = {.len = 1, .filter = &allow};

	return prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 && syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &program) == 0;
}

static bool has_seccomp(void)
{
	return in_child(filters);
}

static bool has_landlock(void)
{
	return syscall(444, NULL, 0, 1) > 0; /* landlock_create_ruleset, the version */
}

static bool has_keys(void)
{
	return syscall(SYS_keyctl, KEYCTL_GET_KEYRING_ID, KEY_SPEC_PROCESS_KEYRING, 1) > 0;
}

static bool mounts(const char *type, const char *options)
{
	char folder[64];

	snprintf(folder, sizeof(folder), "/tmp/%s", type);
	mkdir(folder, 0755);
	return mount(type, folder, type, 0, options) == 0;
}

static bool has_overlay(void)
{
	mkdir("/tmp/lower", 0755);
	if (mount("none", "/tmp/lower", "tmpfs", 0, NULL) < 0)
		return false;
	mkdir("/tmp/lower/upper", 0755);
	mkdir("/tmp/lower/work", 0755);
	return mounts("overlay", "lowerdir=/bin,upperdir=/tmp/lower/upper,workdir=/tmp/lower/work");
}

static bool has_binderfs(void)
{
	return mounts("binder", NULL) && access("/tmp/binder/binder-control", F_OK) == 0;
}

static bool has_mqueue(void)
{
	return mounts("mqueue", NULL);
}

static bool has_bpffs(void)
{
	return mounts("bpf", NULL);
}

static bool has_fuse(void)
{
	return is_fd(open("/dev/fuse", O_RDWR));
}

static bool has_loop(void)
{
	return is_fd(open("/dev/loop-control", O_RDWR));
}

static bool has_tun(void)
{
	return is_fd(open("/dev/net/tun", O_RDWR));
}

/* ---- eBPF ---- */

static bool loads(uint32_t type, uint32_t attach_type)
{
	static char log[4096];
	struct bpf_insn program[] = {
		{.code = BPF_ALU64 | BPF_MOV | BPF_K, .dst_reg = 0, .imm = 1},
		{.code = BPF_JMP | BPF_EXIT},
	};
	union bpf_attr attr = {.prog_type = type,
		.insns = (uintptr_t)program,
		.insn_cnt = 2,
		.license = (uintptr_t)"GPL",
		.expected_attach_type = attach_type,
		.log_buf = (uintptr_t)log,
		.log_size = sizeof(log),
		.log_level = 1};

	return is_fd(syscall(SYS_bpf, BPF_PROG_LOAD, &attr, sizeof(attr)));
}

static bool has_bpf(void)
{
	return loads(BPF_PROG_TYPE_SOCKET_FILTER, 0) && loads(BPF_PROG_TYPE_CGROUP_DEVICE, 0) &&
	       loads(BPF_PROG_TYPE_SCHED_CLS, 0) && loads(BPF_PROG_TYPE_XDP, 0) &&
	       loads(BPF_PROG_TYPE_CGROUP_SOCK_ADDR, BPF_CGROUP_INET4_CONNECT);
}

static bool has_bpf_jit(void)
{
	char value = 0;
	int fd = open("/proc/sys/net/core/bpf_jit_enable", O_RDONLY);

	if (fd < 0 || read(fd, &value, 1) != 1)
		return false;
	close(fd);
	return value == '1';
}

static bool has_perf_events(void)
{
	struct perf_event_attr attr = {.type = PERF_TYPE_SOFTWARE, .size = sizeof(attr), .config = PERF_COUNT_SW_TASK_CLOCK};

	return is_fd(syscall(SYS_perf_event_open, &attr, 0, -1, -1, 0));
}

/* ---- calls ---- */

static bool has_io_uring(void)
{
	struct io_uring_params params = {0};

	return is_fd(syscall(SYS_io_uring_setup, 4, &params));
}

static bool has_userfaultfd(void)
{
	return is_fd(syscall(SYS_userfaultfd, O_CLOEXEC));
}

static bool has_memfd(void)
{
	return is_fd(syscall(SYS_memfd_create, "test", 0));
}

static bool has_inotify(void)
{
	return is_fd(inotify_init1(0)) && is_fd(fanotify_init(FAN_CLASS_NOTIF, O_RDONLY));
}

static bool has_pidfd(void)
{
	return is_fd(syscall(SYS_pidfd_open, getpid(), 0));
}

static bool has_ports(void)
{
	return syscall(SYS_ioperm, 0xb10, 4, 1) == 0;
}

/* ---- network ---- */

static bool has_sockets(void)
{
	return is_fd(socket(AF_INET, SOCK_STREAM, 0)) && is_fd(socket(AF_INET6, SOCK_DGRAM, 0)) &&
	       is_fd(socket(AF_PACKET, SOCK_RAW, 0)) && is_fd(socket(AF_VSOCK, SOCK_STREAM, 0)) && is_fd(socket(AF_UNIX, SOCK_SEQPACKET, 0)) &&
	       is_fd(socket(AF_NETLINK, SOCK_RAW, NETLINK_SOCK_DIAG));
}

struct request {
	struct nlmsghdr header;
	char body[512];
};

static void append(struct request *request, uint16_t type, const void *data, size_t len)
{
	struct nlattr *attribute = (void *)((char *)request + NLMSG_ALIGN(request->header.nlmsg_len));

	attribute->nla_type = type;
	attribute->nla_len = (uint16_t)(NLA_HDRLEN + len);
	memcpy((char *)attribute + NLA_HDRLEN, data, len);
	request->header.nlmsg_len = NLMSG_ALIGN(request->header.nlmsg_len) + NLA_ALIGN(attribute->nla_len);
}

/* The acknowledgement of one message; of a batch, of the one in its middle. */
static bool acknowledged(int protocol, const void *data, size_t len)
{
	union {
		struct nlmsghdr header;
		char bytes[1024];
	} answer;
	int fd = socket(AF_NETLINK, SOCK_RAW, protocol);
	bool done = fd >= 0 && send(fd, data, len, 0) == (ssize_t)len && recv(fd, &answer, sizeof(answer), 0) > 0;

	if (done && answer.header.nlmsg_type == NLMSG_ERROR) {
		errno = -((struct nlmsgerr *)NLMSG_DATA(&answer.header))->error;
		done = errno == 0;
	}
	if (fd >= 0)
		close(fd);
	return done;
}

static bool makes_link(const char *kind)
{
	struct request request = {.header = {.nlmsg_len = NLMSG_LENGTH(sizeof(struct ifinfomsg)),
					  .nlmsg_type = RTM_NEWLINK,
					  .nlmsg_flags = NLM_F_REQUEST | NLM_F_CREATE | NLM_F_EXCL | NLM_F_ACK}};
	struct {
		struct nlattr head;
		char kind[16];
	} info = {.head = {.nla_type = IFLA_INFO_KIND}};

	strncpy(info.kind, kind, sizeof(info.kind) - 1);
	info.head.nla_len = (uint16_t)(NLA_HDRLEN + strlen(kind) + 1);
	append(&request, IFLA_LINKINFO, &info, NLA_ALIGN(info.head.nla_len));
	return acknowledged(NETLINK_ROUTE, &request, request.header.nlmsg_len);
}

static bool has_links(void)
{
	return makes_link("veth") && makes_link("bridge") && makes_link("dummy") && makes_link("wireguard");
}

static bool makes_table(uint8_t family)
{
	struct {
		struct nlmsghdr begin;
		struct nfgenmsg begin_body;
		struct nlmsghdr table;
		struct nfgenmsg table_body;
		struct nlattr name;
		char name_text[4];
		struct nlmsghdr end;
		struct nfgenmsg end_body;
	} batch = {
		.begin = {.nlmsg_len = 20, .nlmsg_type = NFNL_MSG_BATCH_BEGIN, .nlmsg_flags = NLM_F_REQUEST},
		.begin_body = {.res_id = htons(NFNL_SUBSYS_NFTABLES)},
		.table = {.nlmsg_len = 28, .nlmsg_type = NFNL_SUBSYS_NFTABLES << 8 | NFT_MSG_NEWTABLE,
			.nlmsg_flags = NLM_F_REQUEST | NLM_F_CREATE | NLM_F_ACK},
		.table_body = {.nfgen_family = family},
		.name = {.nla_len = 8, .nla_type = NFTA_TABLE_NAME},
		.name_text = "own",
		.end = {.nlmsg_len = 20, .nlmsg_type = NFNL_MSG_BATCH_END, .nlmsg_flags = NLM_F_REQUEST},
		.end_body = {.res_id = htons(NFNL_SUBSYS_NFTABLES)},
	};

	return acknowledged(NETLINK_NETFILTER, &batch, sizeof(batch));
}

static bool has_nftables(void)
{
	return makes_table(NFPROTO_INET) && makes_table(NFPROTO_IPV4) && makes_table(NFPROTO_IPV6) && makes_table(NFPROTO_BRIDGE) &&
	       makes_table(NFPROTO_NETDEV);
}

static const struct {
	const char *name;
	bool (*has)(void);
} facilities[] = {
	{"namespaces", has_namespaces}, {"seccomp", has_seccomp}, {"landlock", has_landlock}, {"keys", has_keys},
	{"overlay", has_overlay}, {"binderfs", has_binderfs}, {"mqueue", has_mqueue}, {"bpffs", has_bpffs},
	{"fuse", has_fuse}, {"loop", has_loop}, {"tun", has_tun}, {"bpf", has_bpf}, {"bpf-jit", has_bpf_jit},
	{"perf-events", has_perf_events}, {"io_uring", has_io_uring}, {"userfaultfd", has_userfaultfd}, {"memfd", has_memfd},
	{"inotify", has_inotify}, {"pidfd", has_pidfd}, {"ports", has_ports}, {"sockets", has_sockets}, {"links", has_links},
	{"nftables", has_nftables},
};

int main(void)
{
	for (size_t i = 0; i < sizeof(facilities) / sizeof(facilities[0]); i++) {
		errno = 0;
		if (facilities[i].has())
			printf("%s yes\n", facilities[i].name);
		else
			printf("%s no: %s\n", facilities[i].name, strerror(errno));
	}
	return 0;
}
