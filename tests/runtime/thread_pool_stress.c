/* Launches loops from several threads, while pools are started and stopped, and checks that each
 * task has run once when the launch returns. test_thread_pool.py builds it together with the pool,
 * with and without the compiler's detection of data races. */

#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

typedef struct {
  void *sync_handle;
  int32_t num_task;
} TVMParallelGroupEnv;
typedef int (*TVMParallelLambda)(int task_id, TVMParallelGroupEnv *env, void *closure);

int mvlm_thread_pool_launch(TVMParallelLambda body, void *closure, int32_t tasks);
uint32_t mvlm_thread_pool_start(int32_t count, int64_t spin_nanoseconds, void (*move)(void **),
                                void (*set)(void *), int (*decrease)(void *));
void mvlm_thread_pool_stop(uint32_t of);
void mvlm_thread_pool_work(uint32_t of);

enum { LAUNCHERS = 3, MOST_TASKS = 70, RESTARTS = 24, LOOPS_EACH = 50 };

static int has_ended;

typedef struct {
  int ran[MOST_TASKS]; /* not atomic: the pool has to order the writes before the launch returns */
  int nested[MOST_TASKS];
} Counts;

static void *raised_here;
static void move_error(void **error) { *error = &raised_here; }
static void set_error(void *error) { (void)error; }
static int drop_error(void *error) {
  (void)error;
  return 0;
}

static void check(int holds, const char *what) {
  if (holds) return;
  fprintf(stderr, "failed: %s\n", what);
  _Exit(1);
}

static int count_nested(int task, TVMParallelGroupEnv *env, void *closure) {
  (void)env;
  __atomic_add_fetch(&((int *)closure)[task], 1, __ATOMIC_RELAXED);
  return 0;
}

static int count_task(int task, TVMParallelGroupEnv *env, void *closure) {
  Counts *counts = closure;
  counts->ran[task] += 1;
  if (task % 16 == 3) mvlm_thread_pool_launch(count_nested, counts->nested, env->num_task);
  return 0;
}

static void *launch(void *seed) {
  unsigned random = (unsigned)(uintptr_t)seed;
  while (!__atomic_load_n(&has_ended, __ATOMIC_ACQUIRE)) {
    Counts counts = {{0}, {0}};
    int tasks = 1 + rand_r(&random) % MOST_TASKS, nested = (tasks + 12) / 16;
    check(mvlm_thread_pool_launch(count_task, &counts, tasks) == 0, "no task failed");
    for (int task = 0; task < MOST_TASKS; ++task) {
      check(counts.ran[task] == (task < tasks), "each task ran once");
      check(counts.nested[task] == (task < tasks ? nested : 0), "each nested task ran once");
    }
  }
  return 0;
}

static void *work(void *of) {
  mvlm_thread_pool_work((uint32_t)(uintptr_t)of);
  return 0;
}

int main(int argc, char **argv) {
  int64_t spin = argc > 1 ? atoll(argv[1]) : 20000;
  pthread_t launchers[LAUNCHERS], workers[3];
  for (uintptr_t each = 0; each < LAUNCHERS; ++each)
    pthread_create(&launchers[each], 0, launch, (void *)(each + 1));
  for (int restart = 0; restart < RESTARTS; ++restart) {
    int count = 1 + restart % 4;
    uint32_t of = mvlm_thread_pool_start(count, spin, move_error, set_error, drop_error);
    for (int each = 0; each < count - 1; ++each)
      pthread_create(&workers[each], 0, work, (void *)(uintptr_t)of);
    for (int each = 0; each < LOOPS_EACH; ++each) {
      Counts counts = {{0}, {0}};
      mvlm_thread_pool_launch(count_task, &counts, 7);
      for (int task = 0; task < 7; ++task) check(counts.ran[task] == 1, "each task ran once");
    }
    mvlm_thread_pool_stop(of);
    for (int each = 0; each < count - 1; ++each) pthread_join(workers[each], 0);
  }
  __atomic_store_n(&has_ended, 1, __ATOMIC_RELEASE);
  for (int each = 0; each < LAUNCHERS; ++each) pthread_join(launchers[each], 0);
  puts("done");
  return 0;
}
