/* Threads beside the loop. See worker.h. */
#include "api/worker.h"

#include <pthread.h>
#include <stdlib.h>

struct worker {
	struct worker **list, *next;
	struct loop *loop;
	loop_fn work, done;
	void *ctx;
	pthread_t thread;
};

/* Waits for its thread, and frees it. Its context. */
static void *take(struct worker *worker)
{
	struct worker **link = worker->list;
	void *ctx = worker->ctx;

	pthread_join(worker->thread, NULL);
	while (*link != worker)
		link = &(*link)->next;
	*link = worker->next;
	free(worker);
	return ctx;
}

static void on_done(void *ctx)
{
	struct worker *worker = ctx;
	loop_fn done = worker->done;

	done(take(worker));
}

static void *run(void *ctx)
{
	struct worker *worker = ctx;

	worker->work(worker->ctx);
	loop_post(worker->loop, on_done, worker);
	return NULL;
}

int worker_begin(struct worker **list, struct loop *loop, loop_fn work, loop_fn done, void *ctx)
{
	struct worker *worker = malloc(sizeof(*worker));
	int r;

	if (!worker)
		abort();
	*worker = (struct worker){.list = list, .next = *list, .loop = loop, .work = work, .done = done, .ctx = ctx};
	r = pthread_create(&worker->thread, NULL, run, worker);
	if (r) {
		free(worker);
		return -r;
	}
	*list = worker;
	return 0;
}

void workers_end(struct worker **list, loop_fn fn)
{
	while (*list) {
		void *ctx = take(*list);

		if (fn)
			fn(ctx);
	}
}
