/* Saving and loading a machine's devices: the fixed ones, memory that is plugged, then those on the virtio bus. */
#include "devices/acpi_pm.h"
#include "devices/exit_port.h"
#include "devices/i8042.h"
#include "devices/uart16550.h"
#include "devices/virtio_mem.h"
#include "vmm/devices.h"
#include "vmm/memory_file.h"

#include <errno.h>

/* What another process, or the kernel, knows of a device is not ours to save. */
static int check_vhost(const struct config *config, struct error *err)
{
	for (size_t i = 0; i < config->drives.len; i++)
		if (config_drive(config, i)->socket) {
			error_set_field(err, ENOTSUP, "socket", "a vhost-user back-end keeps state that cannot be saved");
			return error_in_field(err, "drives[%zu]", i);
		}
	for (size_t i = 0; i < config->nets.len; i++)
		if (config_net_is_vhost(config_net(config, i))) {
			error_set_field(err, ENOTSUP, config_net(config, i)->vhost ? "vhost" : "vhost_user_socket",
				"a vhost back-end keeps state that cannot be saved");
			return error_in_field(err, "network-interfaces[%zu]", i);
		}
	if (config->filesystems.len)
		return error_set_field(err, ENOTSUP, "filesystems[0]", "virtiofsd keeps open files, which cannot be saved");
	return 0;
}

int devices_check_savable(const struct devices *devices, struct error *err)
{
	int r = check_vhost(devices->config.config, err);

	for (unsigned i = 0; i < VIRTIO_BUS_MAX && r == 0; i++) {
		const struct virtio_slot *slot = &devices->virtio.slots[i];

		if (slot->dev && virtio_bus_is_leaving(&devices->virtio, slot->dev))
			r = error_set_field(err, EBUSY, slot->id ? slot->id : slot->dev->ops->name,
				"the device is being taken away: resume the machine until the guest has let go of it");
	}
	return r;
}

void devices_quiesce(struct devices *devices)
{
	virtio_bus_quiesce(&devices->virtio);
}

int devices_sync(struct devices *devices, struct error *err)
{
	return virtio_bus_sync(&devices->virtio, err);
}

void devices_resume(struct devices *devices)
{
	virtio_bus_resume(&devices->virtio);
}

void devices_save_places(const struct devices *devices, struct state_writer *w)
{
	virtio_bus_save_places(&devices->virtio, w);
}

void devices_save(struct devices *devices, struct state_writer *w)
{
	uart16550_save(devices->uart, w);
	i8042_save(devices->i8042, w);
	acpi_pm_save(devices->acpi_pm, w);
	exit_port_save(devices->exit_port, w);
	if (devices->memory.mem_dev)
		virtio_mem_save_blocks(devices->memory.mem_dev, w);
	virtio_bus_save(&devices->virtio, w);
}

static int load_fixed(struct devices *devices, struct state_reader *r, struct error *err)
{
	int result = uart16550_load(devices->uart, r, err);

	if (result == 0)
		result = i8042_load(devices->i8042, r, err);
	if (result == 0)
		result = acpi_pm_load(devices->acpi_pm, r, err);
	return result == 0 ? exit_port_load(devices->exit_port, r, err) : result;
}

/* All devices may have their rings there. */
static int load_plugged(struct devices *devices, int memory_fd, struct state_reader *r, struct error *err)
{
	int result = virtio_mem_load_blocks(devices->memory.mem_dev, r, err);

	return result == 0 ? memory_file_copy_plugged(memory_fd, devices->config.ram, err) : result;
}

int devices_load(struct devices *devices, int memory_fd, struct state_reader *r, struct error *err)
{
	int result = load_fixed(devices, r, err);

	if (result == 0 && devices->memory.mem_dev)
		result = load_plugged(devices, memory_fd, r, err);
	return result == 0 ? virtio_bus_load(&devices->virtio, r, err) : result;
}
