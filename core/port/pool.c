/* Worker threads. The state of a step is one 64-bit ticket: generation (32 bits), number of
 * chunks (16) and next chunk (16). A worker takes a chunk by compare-and-swap on the whole ticket,
 * so a worker that wakes up late can never take part in a step other than the one it looked at. */
#define _POSIX_C_SOURCE 200809L
#include "pool.h"

#include "fetch.h"

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

/* Looks at the ticket before a worker sleeps: steps follow each other within microseconds, and
 * waking a thread costs more than that. */
#define SPINS 4000

struct el_pool {
  _Atomic uint64_t ticket;
  _Atomic uint32_t done; /* chunks of the current step that are finished */
  _Atomic int stop;
  const el_step *step; /* valid while chunks of the current generation are left */
  el_span *spans;      /* of the current step's chunks, or NULL; written before the ticket */
  pthread_mutex_t lock;
  pthread_cond_t wake;
  uint32_t sleepers; /* under lock */
  uint32_t workers;  /* threads besides the caller */
  el_reader *reader; /* or NULL */
  pid_t owner;
  struct worker {
    pthread_t thread;
    el_pool *pool;
    uint32_t index;
  } worker[EL_MAX_THREADS];
};

static inline void relax(void) {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  __asm__ volatile("yield");
#endif
}

static uint64_t clock_ns(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static void run_chunk(const el_step *step, uint32_t chunk, uint32_t worker, el_span *spans) {
  uint64_t begin = spans != NULL ? clock_ns() : 0;
  el_call call = step->call;
  call.chunk = chunk;
  if (call.scratch != NULL) call.scratch = (char *)call.scratch + step->scratch_step * worker;
  step->kernel(&call);
  if (spans != NULL) spans[chunk] = (el_span){begin, clock_ns(), worker};
}

/* Runs chunks of the current step until none is left. */
static void drain(el_pool *p, uint32_t worker) {
  uint64_t t = atomic_load_explicit(&p->ticket, memory_order_acquire);
  while ((t & 0xFFFF) < (t >> 16 & 0xFFFF)) {
    if (!atomic_compare_exchange_weak_explicit(&p->ticket, &t, t + 1, memory_order_acq_rel,
                                               memory_order_acquire)) {
      continue;
    }
    run_chunk(p->step, (uint32_t)(t & 0xFFFF), worker, p->spans);
    atomic_fetch_add_explicit(&p->done, 1, memory_order_release);
    t = atomic_load_explicit(&p->ticket, memory_order_acquire);
  }
}

static void *work(void *arg) {
  const struct worker *self = arg;
  el_pool *p = self->pool;
  uint32_t seen = 0;
  for (;;) {
    uint32_t now = (uint32_t)(atomic_load_explicit(&p->ticket, memory_order_acquire) >> 32);
    for (int i = 0; now == seen && i < SPINS && !atomic_load(&p->stop); i++) {
      relax();
      now = (uint32_t)(atomic_load_explicit(&p->ticket, memory_order_acquire) >> 32);
    }
    if (now == seen) {
      pthread_mutex_lock(&p->lock);
      p->sleepers++;
      while ((uint32_t)(atomic_load(&p->ticket) >> 32) == seen && !atomic_load(&p->stop)) {
        pthread_cond_wait(&p->wake, &p->lock);
      }
      p->sleepers--;
      pthread_mutex_unlock(&p->lock);
      now = (uint32_t)(atomic_load(&p->ticket) >> 32);
    }
    if (atomic_load(&p->stop)) return NULL;
    seen = now;
    drain(p, self->index);
  }
}

el_pool *el_pool_new(uint32_t threads) {
  el_pool *p = calloc(1, sizeof *p);
  if (p == NULL) return NULL;
  p->owner = getpid();
  pthread_mutex_init(&p->lock, NULL);
  pthread_cond_init(&p->wake, NULL);
  for (uint32_t i = 1; i < threads && i < EL_MAX_THREADS; i++) {
    struct worker *w = &p->worker[p->workers];
    w->pool = p;
    w->index = p->workers + 1;
    if (pthread_create(&w->thread, NULL, work, w) != 0) break;
    p->workers++;
  }
  return p;
}

void el_pool_free(el_pool *p) {
  if (p == NULL) return;
  if (p->owner == getpid()) {
    pthread_mutex_lock(&p->lock);
    atomic_store(&p->stop, 1);
    pthread_cond_broadcast(&p->wake);
    pthread_mutex_unlock(&p->lock);
    for (uint32_t i = 0; i < p->workers; i++) pthread_join(p->worker[i].thread, NULL);
    pthread_mutex_destroy(&p->lock);
    pthread_cond_destroy(&p->wake);
  }
  free(p);
}

static void run_step(el_pool *p, const el_step *step) {
  uint32_t chunks = step->call.chunks;
  uint32_t generation =
      (uint32_t)(atomic_load_explicit(&p->ticket, memory_order_relaxed) >> 32) + 1;
  p->step = step;
  atomic_store_explicit(&p->done, 0, memory_order_relaxed);
  pthread_mutex_lock(&p->lock); /* a worker between its last look and its sleep must see this */
  atomic_store_explicit(&p->ticket, (uint64_t)generation << 32 | (uint64_t)chunks << 16,
                        memory_order_release);
  if (p->sleepers > 0) pthread_cond_broadcast(&p->wake);
  pthread_mutex_unlock(&p->lock);
  drain(p, 0);
  for (int i = 0; atomic_load_explicit(&p->done, memory_order_acquire) < chunks; i++) {
    if (i < SPINS) {
      relax();
    } else {
      sched_yield();
    }
  }
}

static int has_workers(const el_pool *p) {
  return p != NULL && p->workers > 0 && p->owner == getpid();
}

void el_pool_read_with(el_pool *p, el_reader *reader) { p->reader = reader; }

/* One step: a fetch that is only asked for, or a kernel once its operands are there. */
static el_status take_step(el_pool *p, const el_program *program, const el_memory *memory,
                           const el_step *step) {
  el_reader *reader = p->reader;
  int shared = has_workers(p);
  if (reader != NULL) {
    el_status status = el_reader_wait(reader, step, p->workers + 1);
    if (status != EL_OK) return status;
    uintptr_t from = (uintptr_t)step->t[0].data, base = (uintptr_t)memory->base[EL_WEIGHTS];
    int weight = from >= base && from - base < program->size[EL_WEIGHTS]; /* what else: a copy */
    if (step->op->opcode == EL_FETCH && weight) {
      el_reader_ask(reader, from - base + el_fetch_offset(&step->call), step->t[1].data,
                    el_fetch_bytes(&step->call));
      return EL_OK;
    }
  }
  if (step->call.chunks > 1 && shared) {
    run_step(p, step);
  } else {
    for (uint32_t k = 0; k < step->call.chunks; k++) run_chunk(step, k, 0, p->spans);
  }
  return EL_OK;
}

/* The steps of a run, after which no read is under way. */
static el_status take_steps(el_pool *p, const el_program *program, const el_memory *memory,
                            el_isa isa, uint32_t first, uint32_t count, el_span *steps,
                            el_span *chunks) {
  el_status status = EL_OK;
  for (uint32_t i = 0; status == EL_OK && i < count; i++) {
    el_step step;
    uint64_t begin = steps != NULL ? clock_ns() : 0;
    status = el_bind(program, memory, isa, first + i, &step);
    if (status != EL_OK) break;
    p->spans = chunks;
    status = take_step(p, program, memory, &step);
    p->spans = NULL;
    if (steps != NULL) {
      steps[i] = (el_span){begin, clock_ns(), 0};
      if (p->reader != NULL && step.op->opcode == EL_FETCH) chunks[0] = steps[i];
      chunks += step.call.chunks;
    }
  }
  return status;
}

el_status el_pool_run(el_pool *p, const el_program *program, const el_memory *memory, el_isa isa,
                      uint32_t entry, uint32_t first, uint32_t last) {
  if (!has_workers(p) && p->reader == NULL) {
    return el_run(program, memory, isa, entry, first, last);
  }
  el_status status = el_check_memory(program, memory);
  if (status != EL_OK) return status;
  el_entry e;
  status = el_get_entry(program, entry, &e);
  if (status != EL_OK) return status;
  if (last > e.count) last = e.count;
  if (first > last) first = last;
  return take_steps(p, program, memory, isa, e.first + first, last - first, NULL, NULL);
}

el_status el_pool_profile(el_pool *p, const el_program *program, const el_memory *memory,
                          el_isa isa, uint32_t entry, el_span *steps, el_span *chunks) {
  el_status status = el_check_memory(program, memory);
  if (status != EL_OK) return status;
  el_entry e;
  status = el_get_entry(program, entry, &e);
  if (status != EL_OK) return status;
  return take_steps(p, program, memory, isa, e.first, e.count, steps, chunks);
}
