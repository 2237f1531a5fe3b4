/* The reads that are under way stand in a ring; `asked` and `done` count all of them so far. The
 * caller alone asks, the thread alone reads. */
#define _POSIX_C_SOURCE 200809L
#include "reader.h"

#include "kernel.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#define RING 64u
/* Bytes of one pread: the most that is waited for in vain when a session ends early. */
#define PIECE (8u << 20)

typedef struct el_read {
  uint64_t offset; /* in the file */
  uint8_t *to;
  size_t bytes;
} el_read;

struct el_reader {
  el_reader_options options;
  pthread_t thread;
  pthread_mutex_t lock;
  pthread_cond_t work, ready;
  el_read ring[RING];
  uint64_t asked, done; /* under lock */
  int failed, error;    /* under lock */
  int stop;             /* under lock */
  pid_t owner;
};

/* 0, or -1 with *error: errno, or 0 when the file ends too early. */
static int read_all(const el_reader *r, const el_read *job, int *error) {
  size_t at = 0;
  while (at < job->bytes) {
    size_t want = job->bytes - at < PIECE ? job->bytes - at : PIECE;
    ssize_t n = pread(r->options.fd, job->to + at, want, (off_t)(job->offset + at));
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) {
      *error = n < 0 ? errno : 0;
      return -1;
    }
    at += (size_t)n;
  }
  return 0;
}

static void *work(void *arg) {
  el_reader *r = arg;
  const struct timespec hold = {(time_t)(r->options.hold_ns / 1000000000u),
                                (long)(r->options.hold_ns % 1000000000u)};
  pthread_mutex_lock(&r->lock);
  for (;;) {
    while (r->done == r->asked && !r->stop) pthread_cond_wait(&r->work, &r->lock);
    if (r->done == r->asked) break;
    el_read job = r->ring[r->done % RING];
    int skip = r->failed || r->stop, error = 0, failed = 0;
    pthread_mutex_unlock(&r->lock);
    if (r->options.hold_ns > 0) nanosleep(&hold, NULL);
    if (!skip) failed = read_all(r, &job, &error) < 0;
    pthread_mutex_lock(&r->lock);
    if (failed) {
      r->failed = 1;
      r->error = error;
    }
    r->done++;
    pthread_cond_broadcast(&r->ready);
  }
  pthread_mutex_unlock(&r->lock);
  return NULL;
}

el_reader *el_reader_new(const el_reader_options *options) {
  el_reader *r = calloc(1, sizeof *r);
  if (r == NULL) return NULL;
  r->options = *options;
  r->owner = getpid();
  r->options.fd = fcntl(options->fd, F_DUPFD_CLOEXEC, 0);
  if (r->options.fd < 0) {
    free(r);
    return NULL;
  }
  pthread_mutex_init(&r->lock, NULL);
  pthread_cond_init(&r->work, NULL);
  pthread_cond_init(&r->ready, NULL);
  if (pthread_create(&r->thread, NULL, work, r) != 0) {
    close(r->options.fd);
    free(r);
    return NULL;
  }
  return r;
}

void el_reader_free(el_reader *r) {
  if (r == NULL) return;
  if (r->owner == getpid()) {
    pthread_mutex_lock(&r->lock);
    r->stop = 1;
    pthread_cond_broadcast(&r->work);
    pthread_mutex_unlock(&r->lock);
    pthread_join(r->thread, NULL);
    pthread_cond_destroy(&r->work);
    pthread_cond_destroy(&r->ready);
    pthread_mutex_destroy(&r->lock);
  }
  close(r->options.fd);
  free(r);
}

void el_reader_ask(el_reader *r, uint64_t offset, void *to, size_t bytes) {
  el_read job = {r->options.start + offset, to, bytes};
  if (r->owner != getpid()) {
    if (!r->failed && read_all(r, &job, &r->error) < 0) r->failed = 1;
    return;
  }
  pthread_mutex_lock(&r->lock);
  while (r->asked - r->done == RING) pthread_cond_wait(&r->ready, &r->lock);
  r->ring[r->asked++ % RING] = job;
  pthread_cond_signal(&r->work);
  pthread_mutex_unlock(&r->lock);
}

static int meet(const uint8_t *a, size_t n, const el_read *job) {
  return a < job->to + job->bytes && job->to < a + n;
}

/* Bytes from the first to the last element. */
static size_t extent(const el_tensor *t) {
  size_t last = 0;
  for (int32_t i = 0; i < t->rank; i++) last += (size_t)(t->dims[i] - 1) * (size_t)t->strides[i];
  return (last + 1) * el_item_bytes(t->dtype);
}

static int touches(const el_step *s, uint32_t workers, const el_read *job) {
  for (uint32_t i = 0; i < s->call.n; i++) {
    const el_tensor *t = &s->t[i];
    if (t->dtype != EL_ABSENT && meet(t->data, extent(t), job)) return 1;
  }
  return s->call.scratch != NULL && meet(s->call.scratch, s->scratch_step * workers, job);
}

el_status el_reader_wait(el_reader *r, const el_step *step, uint32_t workers) {
  if (r->owner != getpid()) return r->failed ? EL_E_IO : EL_OK;
  pthread_mutex_lock(&r->lock);
  uint64_t until = r->done; /* reads below this have to be done */
  for (uint64_t i = r->done; i < r->asked; i++) {
    if (touches(step, workers, &r->ring[i % RING])) until = i + 1;
  }
  while (r->done < until && !r->options.unordered) pthread_cond_wait(&r->ready, &r->lock);
  int failed = r->failed;
  pthread_mutex_unlock(&r->lock);
  return failed ? EL_E_IO : EL_OK;
}

el_status el_reader_finish(el_reader *r, int *error) {
  int mine = r->owner == getpid();
  if (mine) {
    pthread_mutex_lock(&r->lock);
    while (r->done < r->asked) pthread_cond_wait(&r->ready, &r->lock);
  }
  int failed = r->failed;
  if (error != NULL) *error = r->error;
  r->failed = r->error = 0;
  if (mine) pthread_mutex_unlock(&r->lock);
  return failed ? EL_E_IO : EL_OK;
}
