/* A rule of the kernel's routing policy, added by rtnetlink: the host inside has no program for it. */
#include "tools/barrier.h"

#include "common/cleanup.h"

#include <arpa/inet.h>
#include <errno.h>
#include <linux/fib_rules.h>
#include <linux/rtnetlink.h>
#include <string.h>
#include <sys/socket.h>

#define NOBODY	 65534
#define OUTSIDE	 "10.0.2.2"
#define PRIORITY 100 /* before the tables that have routes */

struct request {
	struct nlmsghdr head;
	struct fib_rule_hdr rule;
	char attributes[64];
};

static void add_attribute(struct request *request, unsigned short type, const void *data, size_t len)
{
	struct rtattr *attribute = (struct rtattr *)((char *)request + NLMSG_ALIGN(request->head.nlmsg_len));

	attribute->rta_type = type;
	attribute->rta_len = (unsigned short)RTA_LENGTH(len);
	memcpy(RTA_DATA(attribute), data, len);
	request->head.nlmsg_len = NLMSG_ALIGN(request->head.nlmsg_len) + RTA_SPACE(len);
}

int barrier_raise(void)
{
	struct request request = {
		.head = {.nlmsg_len = NLMSG_LENGTH(sizeof(request.rule)), .nlmsg_type = RTM_NEWRULE,
			.nlmsg_flags = NLM_F_REQUEST | NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL},
		.rule = {.family = AF_INET, .dst_len = 32, .action = FR_ACT_PROHIBIT},
	};
	const struct fib_rule_uid_range users = {NOBODY, NOBODY};
	const uint32_t priority = PRIORITY;
	struct {
		struct nlmsghdr head;
		struct nlmsgerr error;
		char rest[256]; /* of the request, repeated */
	} answer;
	cleanup_close int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE);
	struct in_addr outside;

	inet_pton(AF_INET, OUTSIDE, &outside);
	add_attribute(&request, FRA_DST, &outside, sizeof(outside));
	add_attribute(&request, FRA_UID_RANGE, &users, sizeof(users));
	add_attribute(&request, FRA_PRIORITY, &priority, sizeof(priority));
	if (fd < 0 || send(fd, &request, request.head.nlmsg_len, 0) < 0)
		return -errno;
	if (recv(fd, &answer, sizeof(answer), 0) < (ssize_t)(sizeof(answer.head) + sizeof(answer.error)) ||
		answer.head.nlmsg_type != NLMSG_ERROR)
		return -EPROTO;
	return answer.error.error;
}
