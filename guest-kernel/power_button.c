/* ACPI events by generic netlink. A message is a struct nlmsghdr, a struct genlmsghdr, and attributes, some of which hold
 * attributes themselves; each attribute is a struct nlattr with its length, and its content, padded to four bytes. */
#include "guest-kernel/power_button.h"

#include "common/checked.h"
#include "common/cleanup.h"
#include "common/loop.h"

#include <linux/genetlink.h>
#include <string.h>
#include <sys/socket.h>

#define FAMILY "acpi_event"
#define GROUP  "acpi_mc_group"

/* drivers/acpi/event.c; no header of the kernel's tells user space. */
#define ACPI_CMD_EVENT	1
#define ACPI_ATTR_EVENT 1
struct acpi_event {
	char device_class[20];
	char bus_id[15];
	uint32_t type, data;
};
#define BUTTON_CLASS "button/power"

struct power_button {
	int fd;
	struct loop_source *source;
	uint16_t family;
	void (*pressed)(void *ctx);
	void *ctx;
};

struct span {
	const uint8_t *data; /* NULL: none */
	size_t len;
};

static struct span skip(struct span span, size_t n)
{
	return n < span.len ? (struct span){span.data + n, span.len - n} : (struct span){NULL, 0};
}

/* Takes the first attribute from `rest`: its type, and its content in `content`. False at the end, or what cannot be one. */
static bool next_attribute(struct span *rest, uint16_t *ret_type, struct span *content)
{
	struct nlattr head;

	if (rest->len < sizeof(head))
		return false;
	memcpy(&head, rest->data, sizeof(head));
	if (head.nla_len < NLA_HDRLEN || head.nla_len > rest->len)
		return false;
	*ret_type = head.nla_type & NLA_TYPE_MASK;
	*content = (struct span){rest->data + NLA_HDRLEN, head.nla_len - NLA_HDRLEN};
	*rest = skip(*rest, NLA_ALIGN(head.nla_len));
	return true;
}

static struct span find_attribute(struct span rest, uint16_t type)
{
	struct span content;
	uint16_t found;

	while (next_attribute(&rest, &found, &content))
		if (found == type)
			return content;
	return (struct span){NULL, 0};
}

static bool is_text(struct span span, const char *text)
{
	return span.len == strlen(text) + 1 && memcmp(span.data, text, span.len) == 0;
}

/* The attributes of a message of that family and command; none when it is another. */
static struct span message_attributes(const void *message, size_t len, uint16_t family, uint8_t command)
{
	struct nlmsghdr head;
	struct genlmsghdr generic;

	if (len < NLMSG_HDRLEN + GENL_HDRLEN)
		return (struct span){NULL, 0};
	memcpy(&head, message, sizeof(head));
	memcpy(&generic, (const uint8_t *)message + NLMSG_HDRLEN, sizeof(generic));
	if (head.nlmsg_len > len || head.nlmsg_type != family || generic.cmd != command)
		return (struct span){NULL, 0};
	return skip((struct span){message, head.nlmsg_len}, NLMSG_HDRLEN + GENL_HDRLEN);
}

bool power_button_parse_family(const void *message, size_t len, uint16_t *ret_family, uint32_t *ret_group)
{
	struct span all = message_attributes(message, len, GENL_ID_CTRL, CTRL_CMD_NEWFAMILY);
	struct span family = find_attribute(all, CTRL_ATTR_FAMILY_ID);
	struct span groups = find_attribute(all, CTRL_ATTR_MCAST_GROUPS), group;
	uint16_t ignored;

	while (next_attribute(&groups, &ignored, &group)) {
		struct span id = find_attribute(group, CTRL_ATTR_MCAST_GRP_ID);

		if (!is_text(find_attribute(group, CTRL_ATTR_MCAST_GRP_NAME), GROUP) || id.len != sizeof(*ret_group) ||
			family.len != sizeof(*ret_family))
			continue;
		memcpy(ret_family, family.data, sizeof(*ret_family));
		memcpy(ret_group, id.data, sizeof(*ret_group));
		return true;
	}
	return false;
}

bool power_button_parse_event(const void *message, size_t len, uint16_t family)
{
	struct span content =
		find_attribute(message_attributes(message, len, family, ACPI_CMD_EVENT), ACPI_ATTR_EVENT);
	struct acpi_event event;

	if (content.len != sizeof(event))
		return false;
	memcpy(&event, content.data, sizeof(event));
	return strncmp(event.device_class, BUTTON_CLASS, sizeof(event.device_class)) == 0;
}

static int ask_for_family(int fd)
{
	struct {
		struct nlmsghdr head;
		struct genlmsghdr generic;
		struct nlattr name;
		char text[NLA_ALIGN(sizeof(FAMILY))];
	} request = {
		.head = {.nlmsg_len = sizeof(request), .nlmsg_type = GENL_ID_CTRL, .nlmsg_flags = NLM_F_REQUEST},
		.generic = {.cmd = CTRL_CMD_GETFAMILY, .version = 1},
		.name = {.nla_len = NLA_HDRLEN + sizeof(FAMILY), .nla_type = CTRL_ATTR_FAMILY_NAME},
		.text = FAMILY,
	};
	struct sockaddr_nl kernel = {.nl_family = AF_NETLINK};

	return sendto(fd, &request, sizeof(request), 0, (struct sockaddr *)&kernel, sizeof(kernel)) < 0 ? -errno : 0;
}

/* One message, from the kernel alone. Its length, or -errno: -EAGAIN when there is none. */
static ssize_t receive(int fd, void *message, size_t size)
{
	struct sockaddr_nl from = {0};
	socklen_t from_len = sizeof(from);
	ssize_t n = recvfrom(fd, message, size, 0, (struct sockaddr *)&from, &from_len);

	if (n < 0)
		return -errno;
	return from.nl_pid == 0 ? n : 0;
}

/* The kernel answers before the question's system call returns. */
static int join(struct power_button *button, struct error *err)
{
	uint8_t message[4096];
	uint32_t group;
	ssize_t n;
	int r = ask_for_family(button->fd);

	n = r < 0 ? r : receive(button->fd, message, sizeof(message));
	if (n < 0)
		return error_set_errno(err, (int)-n, "ask the kernel for " FAMILY);
	if (!power_button_parse_family(message, (size_t)n, &button->family, &group))
		return error_set(err, ENOENT, "the kernel has no " FAMILY);
	if (setsockopt(button->fd, SOL_NETLINK, NETLINK_ADD_MEMBERSHIP, &group, sizeof(group)) < 0)
		return error_set_errno(err, errno, "join " GROUP);
	return 0;
}

static void on_message(void *ctx, uint32_t events)
{
	struct power_button *button = ctx;
	uint8_t message[4096];
	ssize_t n = receive(button->fd, message, sizeof(message));

	(void)events;
	if (n > 0 && power_button_parse_event(message, (size_t)n, button->family))
		button->pressed(button->ctx);
}

static int open_button(struct power_button *button, struct loop *loop, struct error *err)
{
	struct sockaddr_nl self = {.nl_family = AF_NETLINK};
	int r;

	button->fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC | SOCK_NONBLOCK, NETLINK_GENERIC);
	if (button->fd < 0 || bind(button->fd, (struct sockaddr *)&self, sizeof(self)) < 0)
		return error_set_errno(err, errno, "open generic netlink");
	r = join(button, err);
	if (r < 0)
		return r;
	button->source = loop_add_fd(loop, button->fd, EPOLLIN, on_message, button);
	return button->source ? 0 : error_set_errno(err, errno, "watch generic netlink");
}

struct power_button *power_button_new(struct loop *loop, void (*pressed)(void *ctx), void *ctx, struct error *err)
{
	struct power_button *button = calloc(1, sizeof(*button));

	if (!button) {
		error_set(err, ENOMEM, "out of memory");
		return NULL;
	}
	*button = (struct power_button){.fd = -1, .pressed = pressed, .ctx = ctx};
	if (open_button(button, loop, err) == 0)
		return button;
	power_button_free(button);
	return NULL;
}

void power_button_free(struct power_button *button)
{
	if (!button)
		return;
	loop_remove(button->source);
	close_fd(button->fd);
	free(button);
}
