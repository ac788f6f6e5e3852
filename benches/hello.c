/* PID 1 of the guest that benches/boot starts, and the command of the machine that benches/run starts: says at a port how far it has
 * come, prints, and powers off, or ends where it is not PID 1. Without a C library, as what that does before main() is nobody's boot.
 *
 * Its arguments (what follows " -- " on the kernel's command line): "reboot" instead, where a reset is how a monitor ends;
 * "log" prints the kernel's log, too; "stay", of a command, ends nothing.
 *
 * cc -static -nostdlib -nostartfiles -ffreestanding -fno-stack-protector -O2 hello.c */
#include <asm/unistd.h>
#include <linux/reboot.h>
#include <stddef.h>

#define MARK_PORT 0x4b4d

#define LOG_READ_ALL 3 /* syslog(2) */

static long call(long number, long a, long b, long c, long d)
{
	register long r10 __asm__("r10") = d;
	long result;

	__asm__ volatile("syscall" : "=a"(result) : "a"(number), "D"(a), "S"(b), "d"(c), "r"(r10) : "rcx", "r11", "memory");
	return result;
}

static void mark(unsigned char what)
{
	__asm__ volatile("outb %0, %1" : : "a"(what), "Nd"((unsigned short)MARK_PORT));
}

static int is(const char *word, const char *other)
{
	while (*word && *word == *other)
		word++, other++;
	return *word == *other;
}

static char kernel_log[1 << 20];

static void print_log(void)
{
	long n = call(__NR_syslog, LOG_READ_ALL, (long)kernel_log, sizeof(kernel_log), 0);

	for (long at = 0, done; at < n; at += done) {
		done = call(__NR_write, 1, (long)kernel_log + at, n - at, 0);
		if (done <= 0)
			return;
	}
}

static void run(int argc, const char **argv)
{
	static const char line[] = "guest: up\n";
	long command = LINUX_REBOOT_CMD_POWER_OFF;

	call(__NR_iopl, 3, 0, 0, 0);
	mark('1');
	call(__NR_write, 1, (long)line, sizeof(line) - 1, 0);
	mark('2');
	while (argc > 1 && is(argv[1], "stay"))
		call(__NR_pause, 0, 0, 0, 0);
	if (call(__NR_getpid, 0, 0, 0, 0) != 1)
		call(__NR_exit, 0, 0, 0, 0);
	for (int i = 1; i < argc; i++) {
		if (is(argv[i], "reboot"))
			command = LINUX_REBOOT_CMD_RESTART;
		if (is(argv[i], "log"))
			print_log();
	}
	mark('3');
	call(__NR_reboot, LINUX_REBOOT_MAGIC1, LINUX_REBOOT_MAGIC2, command, 0);
	for (;;)
		call(__NR_pause, 0, 0, 0, 0);
}

/* The kernel starts a program with argc at the top of the stack, and argv behind it. */
__attribute__((noreturn, used)) static void start(long *stack)
{
	run((int)stack[0], (const char **)(stack + 1));
	__builtin_unreachable();
}

__asm__(".globl _start\n_start:\n\tmov %rsp, %rdi\n\tand $-16, %rsp\n\tcall start\n");
