/* One operand after the other. See operands.h. */
#include "cli/operands.h"

#include "cli/suggest.h"

#include <errno.h>
#include <string.h>

int operands_each(const struct args *args, operand_fn act, void *ctx, struct failure *fail)
{
	int status = 0;

	for (size_t i = 0; i < args->n_operands; i++) {
		int r = act(ctx, args->operands[i], fail);

		if (r < 0 && (args->n_operands == 1 || r == -EINTR))
			return r;
		if (r < 0) {
			suggest(args, fail);
			error_prefix(&fail->error, "%s: ", args->operands[i]);
			failure_print(fail);
			memset(fail, 0, sizeof(*fail));
			status = 1;
		}
	}
	return status;
}
