/* What a program reads and writes: three pipes, or a terminal. */
#ifndef HULL_GUEST_EXEC_STDIO_H
#define HULL_GUEST_EXEC_STDIO_H

#include "common/error.h"

#include <stdbool.h>
#include <stdint.h>

/* All owned; -1: none. Ours do not block. */
struct exec_stdio {
	int input, output, error; /* our ends; of a terminal there is no `error` */
	int inside[3];		  /* the program's */
};
#define EXEC_STDIO_NONE {-1, -1, -1, {-1, -1, -1}}

/* 0, or -errno with `err` set; exec_stdio_close() either way. */
int exec_stdio_open(struct exec_stdio *stdio, bool terminal, uint16_t rows, uint16_t columns, struct error *err);
/* Closes what was not taken. */
void exec_stdio_close(struct exec_stdio *stdio);

/* The terminal has another size; its programs get SIGWINCH. */
void exec_stdio_resize(int fd, uint16_t rows, uint16_t columns);

#endif
