/* A keyboard controller (Intel 8042) with a keyboard that nobody types on: it answers the driver's probing at
 * once, carries the CPU reset pulse (command 0xfe), and can be made to press Ctrl-Alt-Del. No mouse port.
 *
 * It has a lock of its own. The callbacks are called with it held and must not call back. */
#ifndef HULL_DEVICES_I8042_H
#define HULL_DEVICES_I8042_H

#include "common/cleanup.h"
#include "devices/state.h"

#define I8042_OFFSET_DATA    0 /* port 0x60 */
#define I8042_OFFSET_COMMAND 4 /* port 0x64; reading it gives the status */

struct i8042_ops {
	void (*interrupt)(void *ctx); /* IRQ 1 rose: one edge */
	void (*reset)(void *ctx);     /* the guest pulsed the processor's reset line */
};

struct i8042;

struct i8042_metrics {
	uint64_t read_count, write_count;	       /* of bytes, at one of the two ports */
	uint64_t missed_read_count, missed_write_count; /* at the ports between */
	uint64_t reset_count;			       /* the reset line was pulsed */
};

/* `ops` and `ctx` are borrowed. Never NULL (allocation failure aborts). */
struct i8042 *i8042_new(const struct i8042_ops *ops, void *ctx);
void i8042_free(struct i8042 *dev); /* NULL is fine */
DEFINE_CLEANUP(struct i8042 *, i8042_free)

/* Access at port 0x60 + `offset`, any length; other offsets than the two read as 0xff. Any thread. */
void i8042_read(struct i8042 *dev, uint64_t offset, void *data, uint32_t len);
void i8042_write(struct i8042 *dev, uint64_t offset, const void *data, uint32_t len);

/* Types Ctrl-Alt-Del. 0, or -EBUSY when the guest has not taken earlier keys, or has the keyboard disabled.
 * Any thread. */
int i8042_press_ctrl_alt_del(struct i8042 *dev);

/* vCPUs stopped. Section "i8042". */
void i8042_save(struct i8042 *dev, struct state_writer *w);
int i8042_load(struct i8042 *dev, struct state_reader *r, struct error *err);

const struct i8042_metrics *i8042_metrics(const struct i8042 *dev);

#endif
