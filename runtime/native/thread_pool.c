/* The threads that run the parallel loops of compiled kernels.
 *
 * TVM makes a function of a parallel loop's body and calls TVMBackendParallelLaunch(body, closure,
 * tasks) through a pointer in the compiled library. This file is linked into that library, and
 * runtime/threads.py points it to `mvlm_thread_pool_launch`, which takes the place of TVM's
 * thread pool. It differs in three ways:
 *
 * - A worker without a task watches for the next loop for some microseconds before it sleeps.
 *   TVM's workers sleep at once, and waking one takes longer than many loops of a decode step; or
 *   they yield to the system, which gives another program a whole time slice.
 * - Tasks are claimed from a counter, by the launching thread as well: the others do the work of a
 *   worker that is still asleep, or whose core another program occupies.
 * - A loop has ended when its tasks are done: a worker that has not joined it is not waited for.
 *
 * One loop runs at a time. A launch by another thread meanwhile, or from within a task, runs all of
 * its tasks on the calling thread.
 *
 * The workers are the caller's threads, so that no thread library is linked: each calls
 * `mvlm_thread_pool_work`. No header of the system's C library is read either, so that a compiler
 * without one for the device will do. Taken from that library: syscall(2) for futex(2), and
 * clock_gettime(2).
 */

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#define EXPORTED __attribute__((visibility("default")))

/* By default clang has atomic operations call functions of its own library, which is not there when
 * it links for Android without an NDK. */
#if defined(__clang__) && defined(__aarch64__)
#pragma clang attribute push(__attribute__((target("no-outline-atomics"))), apply_to = function)
#endif

/* tvm/runtime/c_backend_api.h */
typedef struct {
  void *sync_handle;
  int32_t num_task;
} TVMParallelGroupEnv;
typedef int (*TVMParallelLambda)(int task_id, TVMParallelGroupEnv *env, void *closure);

/* tvm/ffi/c_api.h: an error that a function has raised lies in a slot of its thread. */
typedef void (*TVMFFIErrorMoveFromRaised)(void **error);
typedef void (*TVMFFIErrorSetRaised)(void *error);
typedef int (*TVMFFIObjectDecRef)(void *object);

/* Linux */
struct timespec {
  long tv_sec;
  long tv_nsec;
};
extern long syscall(long number, ...);
extern int clock_gettime(int clock, struct timespec *time);
enum { CLOCK_MONOTONIC = 1, FUTEX_WAIT_PRIVATE = 128, FUTEX_WAKE_PRIVATE = 129, ALL = INT32_MAX };
#if defined(__x86_64__)
enum { SYS_FUTEX = 202 };
#elif defined(__aarch64__)
enum { SYS_FUTEX = 98 };
#else
#error "the number of futex(2) is not known for this architecture"
#endif

/* Words that different threads write lie in different cache lines. */
#define CACHE_LINE _Alignas(128)

/* The loop that runs. Its launcher writes it before it opens the loop, and `raised` after. */
static struct {
  TVMParallelLambda body;
  void *closure;
  int32_t tasks;
  void *raised; /* the error of the first task that failed */
} loop;

/* The loop's number, whether workers may join it, and how many have joined and not left. */
static CACHE_LINE _Atomic uint64_t state;
static const int NUMBER_SHIFT = 32;
static const uint64_t IS_OPEN = UINT64_C(1) << 31;
static const uint64_t WORKERS = (UINT64_C(1) << 31) - 1;

static CACHE_LINE _Atomic uint32_t number; /* once more: what workers watch, and sleep on */
static CACHE_LINE _Atomic uint32_t sleeping_workers;
static CACHE_LINE _Atomic int32_t next_task;
static _Atomic bool has_failed;
static CACHE_LINE _Atomic uint32_t is_launcher_asleep;
static CACHE_LINE atomic_flag is_busy = ATOMIC_FLAG_INIT;

static _Atomic uint32_t pool; /* its number; workers of an earlier one return */
static _Atomic int32_t threads = 1;
static _Atomic int64_t spin_ns;
static TVMFFIErrorMoveFromRaised move_from_raised;
static TVMFFIErrorSetRaised set_raised;
static TVMFFIObjectDecRef decrease_references;

static void pause_core(void) {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#else
  __asm__ volatile("isb" ::: "memory"); /* most cores ignore `yield` */
#endif
}

static void sleep_while(_Atomic uint32_t *word, uint32_t value) {
  syscall(SYS_FUTEX, word, FUTEX_WAIT_PRIVATE, value, 0, 0, 0);
}

static void wake(_Atomic uint32_t *word, int count) {
  syscall(SYS_FUTEX, word, FUTEX_WAKE_PRIVATE, count, 0, 0, 0);
}

static int64_t clock_ns(void) {
  struct timespec time;
  clock_gettime(CLOCK_MONOTONIC, &time);
  return time.tv_sec * INT64_C(1000000000) + time.tv_nsec;
}

/* A wait of `spin_ns`, from its first pause on. The clock is read now and then only. */
typedef struct {
  int64_t end;
  uint32_t pauses;
} Spin;

static bool spin(Spin *wait) {
  pause_core();
  if (wait->pauses++ % 16) return true;
  int64_t now = clock_ns();
  if (wait->end == 0) wait->end = now + atomic_load_explicit(&spin_ns, memory_order_relaxed);
  return now < wait->end;
}

static void run_tasks(int32_t task) {
  TVMParallelGroupEnv env = {0, loop.tasks};
  for (; task < loop.tasks; task = atomic_fetch_add_explicit(&next_task, 1, memory_order_relaxed))
    if (loop.body(task, &env, loop.closure) && !atomic_exchange(&has_failed, true))
      move_from_raised(&loop.raised);
}

static int run_serially(TVMParallelLambda body, void *closure, int32_t tasks) {
  TVMParallelGroupEnv env = {0, tasks};
  for (int32_t task = 0; task < tasks; ++task)
    if (body(task, &env, closure)) return -1; /* the error lies in this thread's slot */
  return 0;
}

static void open_loop(TVMParallelLambda body, void *closure, int32_t tasks) {
  loop.body = body;
  loop.closure = closure;
  loop.tasks = tasks;
  atomic_store_explicit(&next_task, 1, memory_order_relaxed); /* the launcher begins with task 0 */
  atomic_store_explicit(&has_failed, false, memory_order_relaxed);
  uint32_t next = atomic_load_explicit(&number, memory_order_relaxed) + 1;
  atomic_store_explicit(&state, (uint64_t)next << NUMBER_SHIFT | IS_OPEN, memory_order_release);
  /* Either this thread sees that a worker sleeps, or the worker that it sleeps on an old number:
   * hence sequentially consistent. */
  atomic_store(&number, next);
  if (atomic_load(&sleeping_workers)) wake(&number, ALL);
}

static void close_loop(void) {
  atomic_fetch_and_explicit(&state, ~IS_OPEN, memory_order_relaxed);
  Spin wait = {0, 0};
  while (atomic_load_explicit(&state, memory_order_acquire) & WORKERS) {
    if (spin(&wait)) continue;
    atomic_store(&is_launcher_asleep, 1);
    if (atomic_load(&state) & WORKERS) sleep_while(&is_launcher_asleep, 1);
    atomic_store(&is_launcher_asleep, 0);
  }
}

/* Joins the loop of a number, unless it has been closed. */
static bool join_loop(uint32_t of) {
  uint64_t seen = atomic_load_explicit(&state, memory_order_acquire);
  while (seen >> NUMBER_SHIFT == of && seen & IS_OPEN)
    if (atomic_compare_exchange_weak_explicit(&state, &seen, seen + 1, memory_order_acquire,
                                              memory_order_acquire))
      return true;
  return false;
}

static void leave_loop(void) {
  uint64_t left = atomic_fetch_sub(&state, 1) - 1;
  if ((left & (IS_OPEN | WORKERS)) == 0 && atomic_exchange(&is_launcher_asleep, 0))
    wake(&is_launcher_asleep, 1);
}

static uint32_t wait_for_loop_after(uint32_t last) {
  Spin wait = {0, 0};
  uint32_t now;
  while ((now = atomic_load_explicit(&number, memory_order_acquire)) == last) {
    if (spin(&wait)) continue;
    atomic_fetch_add(&sleeping_workers, 1);
    sleep_while(&number, last);
    atomic_fetch_sub(&sleeping_workers, 1);
  }
  return now;
}

/* Takes the place of TVMBackendParallelLaunch: runs `tasks` tasks, or as many as there are threads
 * where it is 0. Returns 0, or -1 with an error raised. */
EXPORTED int mvlm_thread_pool_launch(TVMParallelLambda body, void *closure, int32_t tasks) {
  int32_t count = atomic_load_explicit(&threads, memory_order_relaxed);
  if (tasks == 0) tasks = count;
  if (count == 1 || atomic_flag_test_and_set_explicit(&is_busy, memory_order_acquire))
    return run_serially(body, closure, tasks);
  open_loop(body, closure, tasks);
  run_tasks(0);
  close_loop();
  bool failed = atomic_load_explicit(&has_failed, memory_order_relaxed);
  if (failed) {
    set_raised(loop.raised);
    decrease_references(loop.raised);
  }
  atomic_flag_clear_explicit(&is_busy, memory_order_release);
  return failed ? -1 : 0;
}

static void wait_for_end_of_loop(void) {
  while (atomic_flag_test_and_set_explicit(&is_busy, memory_order_acquire)) pause_core();
}

/* Has the workers look up: the number is of a loop that is never opened. */
static uint32_t begin_pool(void) {
  uint32_t begun = atomic_fetch_add(&pool, 1) + 1;
  atomic_fetch_add(&number, 1);
  wake(&number, ALL);
  return begun;
}

/* Begins a pool of `count` threads, the launching one among them; an earlier pool's workers return.
 * The caller then has `count - 1` threads call `mvlm_thread_pool_work`; fewer only take longer.
 *
 * Returns the pool's number, for the two calls below. */
EXPORTED uint32_t mvlm_thread_pool_start(int32_t count, int64_t spin_nanoseconds,
                                         TVMFFIErrorMoveFromRaised move, TVMFFIErrorSetRaised set,
                                         TVMFFIObjectDecRef decrease) {
  wait_for_end_of_loop();
  atomic_store_explicit(&threads, count, memory_order_relaxed);
  atomic_store_explicit(&spin_ns, spin_nanoseconds, memory_order_relaxed);
  move_from_raised = move;
  set_raised = set;
  decrease_references = decrease;
  uint32_t started = begin_pool();
  atomic_flag_clear_explicit(&is_busy, memory_order_release);
  return started;
}

/* Has a pool's workers return, unless a later pool has begun. */
EXPORTED void mvlm_thread_pool_stop(uint32_t of) {
  wait_for_end_of_loop();
  if (atomic_load(&pool) == of) begin_pool();
  atomic_flag_clear_explicit(&is_busy, memory_order_release);
}

/* Works for a pool until it is stopped, or the next one begins. */
EXPORTED void mvlm_thread_pool_work(uint32_t of) {
  uint32_t last = atomic_load(&number);
  while (atomic_load(&pool) == of) {
    if (join_loop(last)) {
      run_tasks(atomic_fetch_add_explicit(&next_task, 1, memory_order_relaxed));
      leave_loop();
    }
    last = wait_for_loop_after(last);
  }
}

#if defined(__clang__) && defined(__aarch64__)
#pragma clang attribute pop
#endif
