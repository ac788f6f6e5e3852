/* Interrupts as messages: KVM's routing table, which must be set whole.
 *
 * Theory of operation. An irqfd names a line, and the table says what becomes of the line: the first 24 are pins of the
 * interrupt controllers, as KVM had them when it made these; those from LAYOUT_GSI_MSI on are messages, one entry each, added
 * when its line is first connected. */
#include "vmm/vm.h"

#include "common/cleanup.h"
#include "vmm/layout.h"

#include <assert.h>
#include <errno.h>
#include <linux/kvm.h>
#include <string.h>
#include <sys/ioctl.h>

#define PIC_PINS 8

static struct kvm_irq_routing_entry pin(uint32_t gsi, uint32_t chip, uint32_t number)
{
	return (struct kvm_irq_routing_entry){
		.gsi = gsi, .type = KVM_IRQ_ROUTING_IRQCHIP, .u.irqchip = {.irqchip = chip, .pin = number}};
}

/* Room for one more entry. */
static int grow(struct vm *vm)
{
	unsigned n = vm->routing ? vm->routing->nr : 0;
	struct kvm_irq_routing *grown =
		realloc(vm->routing, sizeof(*grown) + (n + 1) * sizeof(grown->entries[0]));

	if (!grown)
		return -ENOMEM;
	if (!vm->routing)
		*grown = (struct kvm_irq_routing){0};
	vm->routing = grown;
	return 0;
}

static int append(struct vm *vm, struct kvm_irq_routing_entry entry)
{
	int r = grow(vm);

	if (r == 0)
		vm->routing->entries[vm->routing->nr++] = entry;
	return r;
}

/* What KVM has set up itself: ISA lines at the 8259s and the IOAPIC, the others at the IOAPIC only. */
static int append_pins(struct vm *vm)
{
	int r = 0;

	for (uint32_t gsi = 0; gsi < LAYOUT_GSI_MSI && r == 0; gsi++) {
		if (gsi < 2 * PIC_PINS)
			r = append(vm, pin(gsi, gsi < PIC_PINS ? KVM_IRQCHIP_PIC_MASTER : KVM_IRQCHIP_PIC_SLAVE,
					       gsi % PIC_PINS));
		if (r == 0)
			r = append(vm, pin(gsi, KVM_IRQCHIP_IOAPIC, gsi));
	}
	if (r < 0) { /* some of them would take the others away */
		free(vm->routing);
		vm->routing = NULL;
	}
	return r;
}

static struct kvm_irq_routing_entry *find(struct vm *vm, uint32_t gsi)
{
	for (uint32_t i = 0; i < vm->routing->nr; i++)
		if (vm->routing->entries[i].gsi == gsi)
			return &vm->routing->entries[i];
	return NULL;
}

static int set_table(struct vm *vm)
{
	return ioctl(vm->fd, KVM_SET_GSI_ROUTING, vm->routing) < 0 ? -errno : 0;
}

/* With the lock held. What KVM does not take is not in the table afterwards either. */
static int route(struct vm *vm, uint32_t gsi, uint64_t address, uint32_t data)
{
	const struct kvm_irq_routing_entry wanted = {
		.gsi = gsi,
		.type = KVM_IRQ_ROUTING_MSI,
		.u.msi = {.address_lo = (uint32_t)address, .address_hi = (uint32_t)(address >> 32), .data = data},
	};
	struct kvm_irq_routing_entry *entry, before;
	int r = vm->routing ? 0 : append_pins(vm);

	if (r < 0)
		return r;
	entry = find(vm, gsi);
	if (entry && memcmp(entry, &wanted, sizeof(wanted)) == 0)
		return 0;
	if (!entry) {
		r = append(vm, wanted);
		if (r < 0)
			return r;
		r = set_table(vm);
		vm->routing->nr -= r < 0;
		return r;
	}
	before = *entry;
	*entry = wanted;
	r = set_table(vm);
	if (r < 0)
		*entry = before;
	return r;
}

int vm_connect_message(struct vm *vm, uint32_t gsi, int fd, uint64_t address, uint32_t data)
{
	struct kvm_irqfd irqfd = {.fd = (uint32_t)fd, .gsi = gsi};
	int r;

	assert(gsi >= LAYOUT_GSI_MSI);
	pthread_mutex_lock(&vm->routing_lock);
	r = route(vm, gsi, address, data);
	if (r == 0 && ioctl(vm->fd, KVM_IRQFD, &irqfd) < 0)
		r = -errno;
	pthread_mutex_unlock(&vm->routing_lock);
	return r;
}

void vm_disconnect_message(struct vm *vm, uint32_t gsi, int fd)
{
	struct kvm_irqfd irqfd = {.fd = (uint32_t)fd, .gsi = gsi, .flags = KVM_IRQFD_FLAG_DEASSIGN};

	ioctl(vm->fd, KVM_IRQFD, &irqfd); /* fails only for what was not connected */
}
