/* The registers' table. */
#include "vmm/gdb_registers.h"

#include "common/checked.h"
#include "vmm/gdb_packet.h"

#include <errno.h>
#include <stddef.h>
#include <string.h>

struct gdb_register {
	const char *name, *type;
	size_t offset, size_bytes;
};

/* Names, sizes and order up to gs_base are what GDB requires of these features. */
struct feature {
	const char *name;
	const char *types; /* that its registers have, beside those every debugger knows */
	const struct gdb_register *registers;
	size_t n_registers;
};

#define REGISTER(name, type)                                                                                 \
	{                                                                                                    \
		#name, type, offsetof(struct gdb_registers, name),                                           \
			sizeof(((struct gdb_registers *)0)->name)                                            \
	}
#define REGISTER_OF(array, i, type)                                                                          \
	{                                                                                                    \
		#array #i, type, offsetof(struct gdb_registers, array[i]),                                   \
			sizeof(((struct gdb_registers *)0)->array[i])                                        \
	}

static const struct gdb_register core[] = {
	REGISTER(rax, "int64"), REGISTER(rbx, "int64"), REGISTER(rcx, "int64"), REGISTER(rdx, "int64"),
	REGISTER(rsi, "int64"), REGISTER(rdi, "int64"), REGISTER(rbp, "data_ptr"), REGISTER(rsp, "data_ptr"),
	REGISTER(r8, "int64"), REGISTER(r9, "int64"), REGISTER(r10, "int64"), REGISTER(r11, "int64"),
	REGISTER(r12, "int64"), REGISTER(r13, "int64"), REGISTER(r14, "int64"), REGISTER(r15, "int64"),
	REGISTER(rip, "code_ptr"), REGISTER(eflags, "i386_eflags"),
	REGISTER(cs, "int32"), REGISTER(ss, "int32"), REGISTER(ds, "int32"),
	REGISTER(es, "int32"), REGISTER(fs, "int32"), REGISTER(gs, "int32"),
	REGISTER_OF(st, 0, "i387_ext"), REGISTER_OF(st, 1, "i387_ext"), REGISTER_OF(st, 2, "i387_ext"),
	REGISTER_OF(st, 3, "i387_ext"), REGISTER_OF(st, 4, "i387_ext"), REGISTER_OF(st, 5, "i387_ext"),
	REGISTER_OF(st, 6, "i387_ext"), REGISTER_OF(st, 7, "i387_ext"),
	REGISTER(fctrl, "int"), REGISTER(fstat, "int"), REGISTER(ftag, "int"), REGISTER(fiseg, "int"),
	REGISTER(fioff, "int"), REGISTER(foseg, "int"), REGISTER(fooff, "int"), REGISTER(fop, "int"),
};

static const struct gdb_register sse[] = {
	REGISTER_OF(xmm, 0, "vec128"), REGISTER_OF(xmm, 1, "vec128"), REGISTER_OF(xmm, 2, "vec128"),
	REGISTER_OF(xmm, 3, "vec128"), REGISTER_OF(xmm, 4, "vec128"), REGISTER_OF(xmm, 5, "vec128"),
	REGISTER_OF(xmm, 6, "vec128"), REGISTER_OF(xmm, 7, "vec128"), REGISTER_OF(xmm, 8, "vec128"),
	REGISTER_OF(xmm, 9, "vec128"), REGISTER_OF(xmm, 10, "vec128"), REGISTER_OF(xmm, 11, "vec128"),
	REGISTER_OF(xmm, 12, "vec128"), REGISTER_OF(xmm, 13, "vec128"), REGISTER_OF(xmm, 14, "vec128"),
	REGISTER_OF(xmm, 15, "vec128"), REGISTER(mxcsr, "int"),
};

static const struct gdb_register segments[] = {REGISTER(fs_base, "int"), REGISTER(gs_base, "int")};

static const struct gdb_register system_registers[] = {
	REGISTER(cr0, "int"), REGISTER(cr2, "int"), REGISTER(cr3, "int"),
	REGISTER(cr4, "int"), REGISTER(cr8, "int"), REGISTER(efer, "int"),
};

#define FLAG(name, bit) "<field name=\"" name "\" start=\"" #bit "\" end=\"" #bit "\"/>"
static const char eflags_type[] = "<flags id=\"i386_eflags\" size=\"4\">" FLAG("CF", 0) FLAG("", 1) FLAG("PF", 2) FLAG("AF", 4)
	FLAG("ZF", 6) FLAG("SF", 7) FLAG("TF", 8) FLAG("IF", 9) FLAG("DF", 10) FLAG("OF", 11) FLAG("NT", 14) FLAG("RF", 16)
	FLAG("VM", 17) FLAG("AC", 18) FLAG("VIF", 19) FLAG("VIP", 20) FLAG("ID", 21) "</flags>\n";
static const char vec128_type[] = "<vector id=\"v4f\" type=\"ieee_single\" count=\"4\"/>"
	"<vector id=\"v2d\" type=\"ieee_double\" count=\"2\"/><vector id=\"v16i8\" type=\"int8\" count=\"16\"/>"
	"<vector id=\"v8i16\" type=\"int16\" count=\"8\"/><vector id=\"v4i32\" type=\"int32\" count=\"4\"/>"
	"<vector id=\"v2i64\" type=\"int64\" count=\"2\"/>\n"
	"<union id=\"vec128\"><field name=\"v4_float\" type=\"v4f\"/><field name=\"v2_double\" type=\"v2d\"/>"
	"<field name=\"v16_int8\" type=\"v16i8\"/><field name=\"v8_int16\" type=\"v8i16\"/><field name=\"v4_int32\" type=\"v4i32\"/>"
	"<field name=\"v2_int64\" type=\"v2i64\"/><field name=\"uint128\" type=\"uint128\"/></union>\n";

static const struct feature features[] = {
	{"org.gnu.gdb.i386.core", eflags_type, core, ARRAY_SIZE(core)},
	{"org.gnu.gdb.i386.sse", vec128_type, sse, ARRAY_SIZE(sse)},
	{"org.gnu.gdb.i386.segments", "", segments, ARRAY_SIZE(segments)},
	{"hull.system", "", system_registers, ARRAY_SIZE(system_registers)},
};

static int describe_feature(const struct feature *feature, struct buf *out)
{
	int r = buf_printf(out, "<feature name=\"%s\">\n%s", feature->name, feature->types);

	for (size_t i = 0; i < feature->n_registers && r == 0; i++) {
		const struct gdb_register *reg = &feature->registers[i];

		r = buf_printf(out, "<reg name=\"%s\" bitsize=\"%zu\" type=\"%s\"/>\n", reg->name, reg->size_bytes * 8,
			reg->type);
	}
	return r == 0 ? buf_printf(out, "</feature>\n") : r;
}

int gdb_registers_describe(struct buf *out)
{
	int r = buf_printf(out, "<?xml version=\"1.0\"?>\n<!DOCTYPE target SYSTEM \"gdb-target.dtd\">\n"
				"<target version=\"1.0\"><architecture>i386:x86-64</architecture>\n");

	for (size_t i = 0; i < ARRAY_SIZE(features) && r == 0; i++)
		r = describe_feature(&features[i], out);
	return r == 0 ? buf_printf(out, "</target>\n") : r;
}

/* The one of that number, counted through all features; NULL: there is none. */
static const struct gdb_register *find(uint64_t number)
{
	for (size_t i = 0; i < ARRAY_SIZE(features); i++) {
		if (number < features[i].n_registers)
			return &features[i].registers[number];
		number -= features[i].n_registers;
	}
	return NULL;
}

int gdb_registers_put(const struct gdb_registers *registers, uint64_t number, struct buf *out)
{
	const struct gdb_register *reg = find(number);

	return reg ? gdb_hex_append(out, (const uint8_t *)registers + reg->offset, reg->size_bytes) : -ENOENT;
}

int gdb_registers_put_all(const struct gdb_registers *registers, struct buf *out)
{
	int r = 0;

	for (uint64_t number = 0; r == 0; number++)
		r = gdb_registers_put(registers, number, out);
	return r == -ENOENT ? 0 : r;
}

/* From the front of `digits`, which then moves on. */
static int take(struct gdb_registers *registers, const struct gdb_register *reg, const char **digits)
{
	if (!gdb_hex_parse(*digits, (uint8_t *)registers + reg->offset, reg->size_bytes))
		return -EINVAL;
	*digits += 2 * reg->size_bytes;
	return 0;
}

int gdb_registers_take(struct gdb_registers *registers, uint64_t number, const char *digits)
{
	const struct gdb_register *reg = find(number);
	int r = reg ? take(registers, reg, &digits) : -ENOENT;

	return r == 0 && *digits ? -EINVAL : r;
}

int gdb_registers_take_all(struct gdb_registers *registers, const char *digits)
{
	const struct gdb_register *reg;
	int r = 0;

	for (uint64_t number = 0; r == 0 && (reg = find(number)); number++)
		r = take(registers, reg, &digits);
	return r == 0 && *digits ? -EINVAL : r;
}
