/* Where things are in a guest's physical address space and I/O port space. Every address is chosen here.
 *
 *	0x0000_0500  GDT (64-bit boot)            RAM: [0, LOW_RAM_END) and, when there is more, [4 GiB, …)
 *	0x0000_6000  PVH start info               0xc000_0000  hole: nothing but devices, the boot timer first
 *	0x0000_7000  zero page (boot_params)      0xd000_0000  virtio-mmio, one 4 KiB page a device
 *	0x0000_9000  boot page tables             0xd800_0000  PCI: window of 32-bit memory
 *	0x0002_0000  kernel command line          0xe000_0000  PCI: configuration space (ECAM), bus 0
 *	0x0009_fc00  end of low memory            0xfec0_0000  IOAPIC (in KVM)
 *	0x000e_0000  ACPI tables, RSDP first      0xfee0_0000  LAPIC (in KVM)
 *	0x000f_f000  the machine's generation     0xfffb_c000  KVM's identity map page and TSS (Intel)
 *	0x0010_0000  kernel; the initrd ends at the top of low RAM
 *
 * Above the end of RAM, each at the next multiple of LAYOUT_DEVICE_MEMORY_ALIGN that is free: what devices give the guest as
 * memory (vm_place()). Addresses end where the host's processor says. */
#ifndef HULL_VMM_LAYOUT_H
#define HULL_VMM_LAYOUT_H

#define LAYOUT_GDT	       0x500ul
#define LAYOUT_PVH_INFO	       0x6000ul
#define LAYOUT_ZERO_PAGE       0x7000ul
#define LAYOUT_PAGE_TABLES     0x9000ul
#define LAYOUT_CMDLINE	       0x20000ul
#define LAYOUT_CMDLINE_MAX     2048ul /* bytes with the NUL: x86's COMMAND_LINE_SIZE */
#define LAYOUT_LOW_MEMORY_END  0x9fc00ul
#define LAYOUT_ACPI	       0xe0000ul
#define LAYOUT_ACPI_END	       0xff000ul
#define LAYOUT_VM_GENERATION   0xff000ul /* 16 bytes, in a page of their own */
#define LAYOUT_KERNEL	       0x100000ul

#define LAYOUT_LOW_RAM_END     0xc0000000ul
#define LAYOUT_BOOT_TIMER      0xc0000000ul /* where Firecracker has it */
#define LAYOUT_VIRTIO_MMIO     0xd0000000ul
#define LAYOUT_PCI_MEMORY      0xd8000000ul
#define LAYOUT_PCI_MEMORY_BYTES 0x8000000ul
#define LAYOUT_PCI_ECAM	       0xe0000000ul
#define LAYOUT_IOAPIC	       0xfec00000ul
#define LAYOUT_LAPIC	       0xfee00000ul
#define LAYOUT_IDENTITY_MAP    0xfffbc000ul
#define LAYOUT_TSS	       0xfffbd000ul
#define LAYOUT_HIGH_RAM	       0x100000000ul
/* The largest unit in which Linux plugs memory on x86; so two devices' memory never shares one. */
#define LAYOUT_DEVICE_MEMORY_ALIGN 0x80000000ul

#define LAYOUT_GSI_UART	       4
#define LAYOUT_GSI_VIRTIO      5 /* first; device N has GSI 5 + N */
#define LAYOUT_VIRTIO_MAX      18 /* GSI 5–22; 23 is the GED's */
#define LAYOUT_GSI_GED	       23
#define LAYOUT_GSI_MSI	       24 /* first of those that are messages, beyond the IOAPIC's */

/* I/O ports. HULL_EXIT_PORT (0xb10) is in guest-kernel/hull_guest.h. */
#define LAYOUT_PORT_I8042      0x60  /* data; command and status at 0x64 */
#define LAYOUT_PORT_UART       0x3f8 /* 8 ports */
#define LAYOUT_PORT_PVPANIC    0x505
#define LAYOUT_PORT_ACPI_SLEEP 0x600 /* SLEEP_CONTROL; SLEEP_STATUS at +1; RESET_REG at +2 */
#define LAYOUT_PORT_GED	       0x610 /* 32-bit: pending events, cleared by reading */
#define LAYOUT_PORT_PCI_HOTPLUG 0x620 /* devices/pci_hotplug.h */
#define LAYOUT_PORT_PCI	       0xcf8 /* CONFIG_ADDRESS, CONFIG_DATA */

#endif
