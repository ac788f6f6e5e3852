/* A driver of virtio-mem with bad manners: it plugs, unplugs what it goes on using, has another device write there, and at last
 * touches it itself. The machine has two devices, virtio-mem and virtio-rng. */
#include "guest-kernel/payloads/payload.h"
#include "guest-kernel/payloads/virtio.h"

#define BLOCK UINT64_C(0x200000)
#define UNPLUGGED_INACCESSIBLE 2

enum { PLUG, UNPLUG };
/* Of the device's configuration, virtio 1.2, 5.15.4. */
enum { CONFIG_ADDR = 16, CONFIG_REQUESTED = 48 };

static struct virtio mem, rng;

static uint64_t config(unsigned offset)
{
	return virtio_get(&mem, REG_CONFIG + offset) | (uint64_t)virtio_get(&mem, REG_CONFIG + offset + 4) << 32;
}

static void set_desc(struct virtio *v, unsigned i, uint64_t addr, uint32_t len, uint16_t flags)
{
	v->queues[0].desc[i].addr = addr;
	v->queues[0].desc[i].len = len;
	v->queues[0].desc[i].flags = flags;
	v->queues[0].desc[i].next = (uint16_t)(i + 1);
}

/* The answer's type; 9 where there is none. */
static uint16_t ask(uint16_t type, uint64_t addr, uint16_t n, volatile uint16_t *response)
{
	static struct {
		uint16_t type, padding[3];
		uint64_t addr;
		uint16_t n, padding2[3];
	} request;

	request.type = type;
	request.addr = addr;
	request.n = n;
	set_desc(&mem, 0, (uintptr_t)&request, sizeof(request), DESC_NEXT);
	set_desc(&mem, 1, (uintptr_t)response, 10, DESC_WRITE);
	return virtio_submit(&mem, 0, 0) ? response[0] : 9;
}

/* Whether the entropy device writes there. */
static bool fill(uint64_t addr)
{
	virtio_start(&rng, 0);
	set_desc(&rng, 0, addr, 64, DESC_WRITE);
	return virtio_submit(&rng, 0, 0);
}

void run(void)
{
	static volatile uint16_t response[5];
	volatile uint64_t *first;
	uint64_t addr;

	FAIL_UNLESS(virtio_probe(&mem, 0) && virtio_probe(&rng, 1));
	virtio_start(&mem, UNPLUGGED_INACCESSIBLE);
	addr = config(CONFIG_ADDR);
	first = (volatile uint64_t *)addr;
	say("reads what is not there: %u", *first == UINT64_MAX);
	say("ready");
	while (config(CONFIG_REQUESTED) < 2 * BLOCK)
		;
	say("plug %u", ask(PLUG, addr, 1, response));
	say("plug too much %u", ask(PLUG, addr + BLOCK, 2, response));
	for (unsigned i = 0; i < BLOCK / 8; i += 512)
		first[i] = i;
	say("entropy %u", fill(addr + 4096));
	say("unplug under the answer %u", ask(UNPLUG, addr, 1, (volatile uint16_t *)(addr + 64)));
	say("it is all there: %u", first[1024] == 1024);
	say("plug the next %u", ask(PLUG, addr + BLOCK, 1, response));
	say("unplug %u", ask(UNPLUG, addr, 1, response));
	say("entropy %u", fill(addr + 4096)); /* KVM's slot is there, for the next block */
	say("touches it");
	say("it lives, and reads 0x%lx", *first);
}
