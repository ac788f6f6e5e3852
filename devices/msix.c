/* The MSI-X table, and which vectors are connected by it. */
#include "devices/msix.h"

#include "common/checked.h"
#include "common/cleanup.h"
#include "common/log.h"

#include <assert.h>
#include <errno.h>
#include <linux/pci_regs.h>
#include <poll.h>
#include <string.h>
#include <sys/eventfd.h>

int msix_init(struct msix *msix, unsigned n, const struct msix_ops *ops, void *ctx)
{
	assert(n <= MSIX_VECTORS_MAX);
	*msix = (struct msix){.ops = ops, .ctx = ctx, .n = n};
	pthread_mutex_init(&msix->lock, NULL);
	for (unsigned v = 0; v < MSIX_VECTORS_MAX; v++)
		msix->vectors[v] = (struct msix_vector){.fd = -1, .control = PCI_MSIX_ENTRY_CTRL_MASKBIT};
	for (unsigned v = 0; v < n; v++) {
		msix->vectors[v].fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
		if (msix->vectors[v].fd < 0)
			return -errno;
	}
	return 0;
}

static void disconnect(struct msix *msix, unsigned v)
{
	struct msix_vector *vector = &msix->vectors[v];

	if (vector->connected)
		msix->ops->disconnect(msix->ctx, v, vector->fd);
	vector->connected = false;
}

void msix_done(struct msix *msix)
{
	for (unsigned v = 0; v < msix->n; v++) {
		disconnect(msix, v);
		close_fd(msix->vectors[v].fd);
	}
	pthread_mutex_destroy(&msix->lock);
	*msix = (struct msix){0};
}

static bool is_pending(const struct msix_vector *vector)
{
	struct pollfd pollfd = {.fd = vector->fd, .events = POLLIN};

	return poll(&pollfd, 1, 0) == 1;
}

/* Connects the vector to its message. What has become pending is written once more: only a write makes the other end look. */
static void connect_vector(struct msix *msix, unsigned v)
{
	struct msix_vector *vector = &msix->vectors[v];
	uint64_t count;
	bool pending = read(vector->fd, &count, sizeof(count)) == sizeof(count);
	int r = msix->ops->connect(msix->ctx, v, vector->fd, vector->address, vector->data);
	ssize_t n;

	vector->connected = r == 0;
	if (r < 0)
		log_debug("MSI-X: vector %u cannot be connected: %s", v, strerror(-r));
	count = 1;
	if (pending) {
		n = write(vector->fd, &count, sizeof(count));
		(void)n; /* an eventfd that has just been read takes it */
	}
}

/* With the lock held: `changed` when the message is another than before. */
static void settle(struct msix *msix, unsigned v, bool changed)
{
	struct msix_vector *vector = &msix->vectors[v];
	bool wanted = msix->enabled && !msix->masked && !(vector->control & PCI_MSIX_ENTRY_CTRL_MASKBIT);

	if (vector->connected && (!wanted || changed))
		disconnect(msix, v);
	if (wanted && !vector->connected)
		connect_vector(msix, v);
}

void msix_set_control(struct msix *msix, uint16_t control)
{
	pthread_mutex_lock(&msix->lock);
	__atomic_store_n(&msix->enabled, control & PCI_MSIX_FLAGS_ENABLE, __ATOMIC_RELEASE);
	msix->masked = control & PCI_MSIX_FLAGS_MASKALL;
	for (unsigned v = 0; v < msix->n; v++)
		settle(msix, v, false);
	pthread_mutex_unlock(&msix->lock);
}

/* 6.8.2: dwords and quadwords only. */
static bool is_access(uint64_t offset, uint32_t len, uint64_t size)
{
	return (len == 4 || len == 8) && offset % len == 0 && range_fits(offset, len, size);
}

static uint32_t *entry_dword(struct msix_vector *vector, unsigned offset)
{
	switch (offset) {
	case PCI_MSIX_ENTRY_LOWER_ADDR:
		return (uint32_t *)&vector->address;
	case PCI_MSIX_ENTRY_UPPER_ADDR:
		return (uint32_t *)&vector->address + 1;
	case PCI_MSIX_ENTRY_DATA:
		return &vector->data;
	default:
		return &vector->control;
	}
}

void msix_table_read(struct msix *msix, uint64_t offset, void *data, uint32_t len)
{
	memset(data, 0, len);
	if (!is_access(offset, len, (uint64_t)msix->n * MSIX_ENTRY_BYTES))
		return;
	pthread_mutex_lock(&msix->lock);
	for (uint32_t i = 0; i < len; i += 4) {
		struct msix_vector *vector = &msix->vectors[(offset + i) / MSIX_ENTRY_BYTES];

		memcpy((uint8_t *)data + i, entry_dword(vector, (offset + i) % MSIX_ENTRY_BYTES), 4);
	}
	pthread_mutex_unlock(&msix->lock);
}

void msix_table_write(struct msix *msix, uint64_t offset, const void *data, uint32_t len)
{
	unsigned v = (unsigned)(offset / MSIX_ENTRY_BYTES);
	struct msix_vector before;

	if (!is_access(offset, len, (uint64_t)msix->n * MSIX_ENTRY_BYTES))
		return;
	pthread_mutex_lock(&msix->lock);
	before = msix->vectors[v];
	for (uint32_t i = 0; i < len; i += 4)
		memcpy(entry_dword(&msix->vectors[v], (offset + i) % MSIX_ENTRY_BYTES), (const uint8_t *)data + i, 4);
	settle(msix, v, before.address != msix->vectors[v].address || before.data != msix->vectors[v].data);
	pthread_mutex_unlock(&msix->lock);
}

void msix_pending_read(struct msix *msix, uint64_t offset, void *data, uint32_t len)
{
	uint64_t pending = 0;

	memset(data, 0, len);
	if (!is_access(offset, len, MSIX_PENDING_BYTES))
		return;
	pthread_mutex_lock(&msix->lock);
	for (unsigned v = 0; v < msix->n; v++)
		if (!msix->vectors[v].connected && is_pending(&msix->vectors[v]))
			pending |= UINT64_C(1) << v;
	pthread_mutex_unlock(&msix->lock);
	memcpy(data, (uint8_t *)&pending + offset, len);
}

void msix_save(struct msix *msix, struct state_writer *w)
{
	for (unsigned v = 0; v < msix->n; v++) {
		const struct msix_vector *vector = &msix->vectors[v];

		state_put_u64(w, vector->address);
		state_put_u32(w, vector->data);
		state_put_u32(w, vector->control);
		state_put_u8(w, is_pending(vector));
	}
}

void msix_load(struct msix *msix, struct state_reader *r)
{
	const uint64_t one = 1;
	ssize_t n;

	for (unsigned v = 0; v < msix->n; v++) {
		struct msix_vector *vector = &msix->vectors[v];

		disconnect(msix, v);
		vector->address = state_get_u64(r);
		vector->data = state_get_u32(r);
		vector->control = state_get_u32(r);
		if (state_get_u8(r)) {
			n = write(vector->fd, &one, sizeof(one));
			(void)n; /* full: pending it is */
		}
	}
}
