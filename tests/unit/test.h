/* cmocka, with the headers it wants before it. */
#ifndef HULL_TESTS_UNIT_TEST_H
#define HULL_TESTS_UNIT_TEST_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#endif
