/* In a guest, in the place of a driver of a virtio device on PCI: begins as a driver should, and as it should not, and looks whether
 * the device answers as virtio 1.2 says. Of tests/system/test_pci.py; the section of each check stands beside it.
 *
 *	hostile_virtio /sys/bus/pci/devices/0000:00:01.0
 *
 * It says what is wrong, and ends with 1; or nothing, and 0. */
#include <fcntl.h>
#include <linux/virtio_config.h>
#include <linux/virtio_pci.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define CONFIG_BYTES 256
#define BAR_BYTES    0x8000
#define ROUNDS	     100
#define DOORBELLS    4000

#define CHECK(section, what)                                                  \
	do {                                                                  \
		if (!(what)) {                                                \
			printf("%s: not so: %s\n", section, #what);           \
			exit(1);                                              \
		}                                                             \
	} while (0)

static int config_fd;
static uint8_t config[CONFIG_BYTES];
static volatile uint8_t *bar;
static volatile struct virtio_pci_common_cfg *common;
static volatile uint8_t *notify;
static uint32_t notify_multiplier;

static void open_device(const char *device)
{
	char path[256];
	int fd;

	snprintf(path, sizeof(path), "%s/enable", device);
	fd = open(path, O_WRONLY);
	CHECK("enable", fd >= 0 && write(fd, "1", 1) == 1);
	close(fd);
	snprintf(path, sizeof(path), "%s/config", device);
	config_fd = open(path, O_RDWR);
	CHECK("config", pread(config_fd, config, CONFIG_BYTES, 0) == CONFIG_BYTES);
	snprintf(path, sizeof(path), "%s/resource0", device);
	fd = open(path, O_RDWR);
	bar = mmap(NULL, BAR_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	CHECK("resource0", bar != MAP_FAILED);
	close(fd);
}

static void find_structures(void)
{
	unsigned hops = 0;

	for (uint8_t at = config[0x34]; at && hops < 48; at = config[at + 1], hops++) {
		const struct virtio_pci_cap *cap = (const void *)(config + at);

		if (cap->cap_vndr != 9)
			continue;
		CHECK("4.1.4", cap->bar == 0 || cap->cfg_type == VIRTIO_PCI_CAP_PCI_CFG);
		CHECK("4.1.4", cap->offset % 4 == 0 && cap->offset + cap->length <= BAR_BYTES);
		if (cap->cfg_type == VIRTIO_PCI_CAP_COMMON_CFG)
			common = (volatile void *)(bar + cap->offset);
		if (cap->cfg_type == VIRTIO_PCI_CAP_NOTIFY_CFG) {
			notify = bar + cap->offset;
			notify_multiplier = ((const struct virtio_pci_notify_cap *)cap)->notify_off_multiplier;
		}
	}
	CHECK("4.1.4", hops < 48 && common && notify);
}

static void set_status(uint8_t status)
{
	common->device_status = status;
}

static void reset(void)
{
	set_status(0);
	for (unsigned i = 0; i < ROUNDS && common->device_status; i++)
		;
	CHECK("4.1.4.3.1", common->device_status == 0);
}

/* Ids are what they were, however often they are read, and cannot be written (PCI 3.0, 6.2.1). */
static void read_ids_again(void)
{
	uint8_t now[CONFIG_BYTES];

	for (unsigned i = 0; i < ROUNDS; i++) {
		CHECK("config", pread(config_fd, now, 64, 0) == 64);
		CHECK("4.1.2", memcmp(now, config, 4) == 0 && memcmp(now + 8, config + 8, 8) == 0 && memcmp(now + 44, config + 44, 4) == 0);
	}
	CHECK("config", pwrite(config_fd, "\xff\xff\xff\xff", 4, 0) == 4 && pwrite(config_fd, "\xff\xff\xff\xff", 4, 44) == 4);
	CHECK("config", pread(config_fd, now, 64, 0) == 64);
	CHECK("4.1.2", memcmp(now, config, 4) == 0 && memcmp(now + 44, config + 44, 4) == 0);
	CHECK("4.1.2", config[0] == 0xf4 && config[1] == 0x1a && config[3] == 0x10 && config[2] >= 0x40);
}

static uint32_t offered(uint32_t half)
{
	common->device_feature_select = half;
	return common->device_feature;
}

static void accept(uint32_t half, uint32_t features)
{
	common->guest_feature_select = half;
	common->guest_feature = features;
}

static void negotiate(void)
{
	uint32_t low, high;

	reset();
	low = offered(0);
	high = offered(1);
	CHECK("6", high & 1u << (VIRTIO_F_VERSION_1 - 32));
	CHECK("4.1.4.3", offered(2) == 0 && offered(0xffffffff) == 0);
	/* 3.1.1, steps 5 and 6: what was not offered cannot be had, nor can it be done without VERSION_1. */
	set_status(VIRTIO_CONFIG_S_ACKNOWLEDGE | VIRTIO_CONFIG_S_DRIVER);
	accept(0, ~low);
	accept(1, high);
	set_status(VIRTIO_CONFIG_S_ACKNOWLEDGE | VIRTIO_CONFIG_S_DRIVER | VIRTIO_CONFIG_S_FEATURES_OK);
	CHECK("2.2.2", !(common->device_status & VIRTIO_CONFIG_S_FEATURES_OK));
	accept(0, low);
	accept(1, 0);
	set_status(VIRTIO_CONFIG_S_ACKNOWLEDGE | VIRTIO_CONFIG_S_DRIVER | VIRTIO_CONFIG_S_FEATURES_OK);
	CHECK("6.1", !(common->device_status & VIRTIO_CONFIG_S_FEATURES_OK));
	reset();
	set_status(VIRTIO_CONFIG_S_ACKNOWLEDGE | VIRTIO_CONFIG_S_DRIVER);
	accept(0, 0);
	accept(1, 1u << (VIRTIO_F_VERSION_1 - 32));
	set_status(VIRTIO_CONFIG_S_ACKNOWLEDGE | VIRTIO_CONFIG_S_DRIVER | VIRTIO_CONFIG_S_FEATURES_OK);
	CHECK("3.1.1", common->device_status == (VIRTIO_CONFIG_S_ACKNOWLEDGE | VIRTIO_CONFIG_S_DRIVER | VIRTIO_CONFIG_S_FEATURES_OK));
}

/* Queues that are none, of impossible sizes, and in memory that is none. */
static void set_queues_up_wrong(void)
{
	uint16_t n = common->num_queues, size;

	CHECK("4.1.4.3", n > 0);
	common->queue_select = n;
	CHECK("4.1.4.3.1", common->queue_size == 0);
	common->queue_select = 0xffff;
	CHECK("4.1.4.3.1", common->queue_size == 0);
	common->queue_enable = 1;
	common->queue_select = 0;
	size = common->queue_size;
	CHECK("2.6", size > 0 && (size & (size - 1)) == 0 && common->queue_enable == 0);
	common->queue_desc_lo = 0xfffff000;
	common->queue_desc_hi = 0xffffffff;
	common->queue_enable = 1;
	CHECK("2.1.2", common->queue_enable == 0 || common->device_status & VIRTIO_CONFIG_S_NEEDS_RESET);
	reset();
	common->queue_select = 0;
	CHECK("2.1.1", common->queue_enable == 0 && common->queue_size == size && common->queue_desc_lo == 0);
}

/* Before the driver is ready, of queues that are not set up, and of such as do not exist (4.1.5.2). */
static void ring_doorbells(void)
{
	uint8_t status = common->device_status;

	for (unsigned i = 0; i < DOORBELLS; i++) {
		uint32_t at = i % 16 * notify_multiplier;

		*(volatile uint16_t *)(notify + at) = (uint16_t)(i % 7 ? i % 16 : 0xffff);
	}
	CHECK("2.1.2", common->device_status == status);
}

/* Up to DRIVER_OK without a single queue, and back. */
static void reset_again_and_again(void)
{
	for (unsigned i = 0; i < ROUNDS; i++) {
		set_status(VIRTIO_CONFIG_S_ACKNOWLEDGE | VIRTIO_CONFIG_S_DRIVER);
		accept(1, 1u << (VIRTIO_F_VERSION_1 - 32));
		set_status(VIRTIO_CONFIG_S_ACKNOWLEDGE | VIRTIO_CONFIG_S_DRIVER | VIRTIO_CONFIG_S_FEATURES_OK);
		set_status(VIRTIO_CONFIG_S_ACKNOWLEDGE | VIRTIO_CONFIG_S_DRIVER | VIRTIO_CONFIG_S_FEATURES_OK | VIRTIO_CONFIG_S_DRIVER_OK);
		*(volatile uint16_t *)notify = 0;
		if (i % 50 == 0)
			ring_doorbells();
		reset();
	}
}

/* Registers at widths that the section does not allow a driver to use: nothing comes of it. */
static void read_at_odd_widths(void)
{
	for (uint32_t at = 0; at + 8 <= BAR_BYTES; at += 61) {
		(void)*(volatile uint8_t *)(bar + at);
		(void)*(volatile uint64_t *)(bar + at);
		*(volatile uint8_t *)(bar + 0x100 + at % 0x100) = 0xff;
	}
	reset();
}

int main(int argc, char **argv)
{
	if (argc != 2)
		return 2;
	open_device(argv[1]);
	find_structures();
	read_ids_again();
	negotiate();
	set_queues_up_wrong();
	ring_doorbells();
	reset_again_and_again();
	read_at_odd_widths();
	ring_doorbells();
	return 0;
}
