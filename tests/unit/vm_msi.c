/* The routing of messages, with a kernel that may refuse. */
#include "tests/unit/test.h"

#include "vmm/layout.h"
#include "vmm/vm.h"

#include <errno.h>
#include <linux/kvm.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>

#define PINS 40 /* 24 of the IOAPIC's, 16 of the 8259s' */

static struct {
	int routing_errno, irqfd_errno; /* refused by that; 0: taken */
	uint32_t n_set;
	struct kvm_irq_routing_entry last; /* of the table that was taken last */
	unsigned connected;
} kernel;

static int set_routing(const struct kvm_irq_routing *table)
{
	if (kernel.routing_errno) {
		errno = kernel.routing_errno;
		return -1;
	}
	kernel.n_set = table->nr;
	kernel.last = table->entries[table->nr - 1];
	return 0;
}

static int set_irqfd(const struct kvm_irqfd *irqfd)
{
	if (irqfd->flags & KVM_IRQFD_FLAG_DEASSIGN) {
		kernel.connected--;
		return 0;
	}
	if (kernel.irqfd_errno) {
		errno = kernel.irqfd_errno;
		return -1;
	}
	kernel.connected++;
	return 0;
}

int __wrap_ioctl(int fd, unsigned long request, void *argument);

int __wrap_ioctl(int fd, unsigned long request, void *argument)
{
	(void)fd;
	assert_true(request == KVM_SET_GSI_ROUTING || request == KVM_IRQFD);
	return request == KVM_SET_GSI_ROUTING ? set_routing(argument) : set_irqfd(argument);
}

static int setup(void **state)
{
	struct vm *vm = calloc(1, sizeof(*vm));

	pthread_mutex_init(&vm->routing_lock, NULL);
	memset(&kernel, 0, sizeof(kernel));
	*state = vm;
	return 0;
}

static int teardown(void **state)
{
	struct vm *vm = *state;

	free(vm->routing);
	free(vm);
	return 0;
}

static void a_message_has_a_line_of_its_own(void **state)
{
	struct vm *vm = *state;

	assert_int_equal(vm_connect_message(vm, LAYOUT_GSI_MSI, 3, 0xfee00000, 0x31), 0);
	assert_int_equal(vm_connect_message(vm, LAYOUT_GSI_MSI + 1, 4, 0x100000000ull | 0xfee01000, 0x32), 0);
	assert_int_equal(kernel.n_set, PINS + 2);
	assert_int_equal(kernel.last.gsi, LAYOUT_GSI_MSI + 1);
	assert_int_equal(kernel.last.u.msi.address_hi, 1);
	assert_int_equal(kernel.last.u.msi.data, 0x32);
	assert_int_equal(kernel.connected, 2);
	/* Another message on the same line needs no more room. */
	vm_disconnect_message(vm, LAYOUT_GSI_MSI + 1, 4);
	assert_int_equal(vm_connect_message(vm, LAYOUT_GSI_MSI + 1, 4, 0xfee02000, 0x33), 0);
	assert_int_equal(kernel.n_set, PINS + 2);
	assert_int_equal(kernel.last.u.msi.address_lo, 0xfee02000);
}

/* A table that was not taken is not the one that holds: the same message is set again, others are not held up by it. */
static void what_the_kernel_refuses_is_not_remembered(void **state)
{
	struct vm *vm = *state;

	kernel.routing_errno = ENOMEM;
	assert_int_equal(vm_connect_message(vm, LAYOUT_GSI_MSI, 3, 0xfee00000, 0x31), -ENOMEM);
	kernel.routing_errno = 0;
	assert_int_equal(vm_connect_message(vm, LAYOUT_GSI_MSI + 1, 4, 0xfee00000, 0x32), 0);
	assert_int_equal(kernel.n_set, PINS + 1);
	assert_int_equal(vm_connect_message(vm, LAYOUT_GSI_MSI, 3, 0xfee00000, 0x31), 0);
	assert_int_equal(kernel.n_set, PINS + 2);
	assert_int_equal(kernel.last.u.msi.data, 0x31);

	vm_disconnect_message(vm, LAYOUT_GSI_MSI, 3);
	kernel.routing_errno = ENOMEM;
	assert_int_equal(vm_connect_message(vm, LAYOUT_GSI_MSI, 3, 0xfee00000, 0x41), -ENOMEM);
	kernel.routing_errno = 0;
	kernel.n_set = 0;
	assert_int_equal(vm_connect_message(vm, LAYOUT_GSI_MSI, 3, 0xfee00000, 0x41), 0);
	assert_int_equal(kernel.n_set, PINS + 2);
	assert_int_equal(kernel.last.u.msi.data, 0x41);
}

static void a_line_that_cannot_be_connected_is_told(void **state)
{
	struct vm *vm = *state;

	kernel.irqfd_errno = EBUSY;
	assert_int_equal(vm_connect_message(vm, LAYOUT_GSI_MSI, 3, 0xfee00000, 0x31), -EBUSY);
	kernel.irqfd_errno = 0;
	assert_int_equal(vm_connect_message(vm, LAYOUT_GSI_MSI, 3, 0xfee00000, 0x31), 0);
	assert_int_equal(kernel.n_set, PINS + 1);
	assert_int_equal(kernel.connected, 1);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(a_message_has_a_line_of_its_own),
		TEST(what_the_kernel_refuses_is_not_remembered),
		TEST(a_line_that_cannot_be_connected_is_told),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
