/* Codes in the order in which tiles of dot products read them: panel[l / 4, column, l % 4] for
 * terms l of a sum. */
#ifndef EL_DOT_PACK_H
#define EL_DOT_PACK_H

#include "dots.h"
#include "quant_i8_job.h"

typedef int8_t bytes16 __attribute__((vector_size(16)));
typedef int16_t halves8 __attribute__((vector_size(16)));

/* A packed code, with what makes it unsigned. */
static int8_t code(int8_t w) { return (int8_t)(w ^ (int8_t)EL_FLIP); }

/* What is packed at once: `terms` terms from l on, of `cols` columns from j on, for panels of
 * `wide` columns. */
typedef struct block {
  size_t j, cols, wide, l, terms;
} block;

/* panel[l / 4, x, l % 4] = w[j + x, l] for x < cols. */
static void pack_rows(const job *q, const block *b, int8_t *panel) {
  const ivec4 flip = (ivec4){0} + EL_FLIP;
  size_t k = q->sum, wide = b->wide;
  const int8_t *from = q->w + b->j * k + b->l;
  for (size_t line = 0; line < b->terms; line += 64) { /* a cache line of each column */
    size_t to = b->terms - line < 64 ? b->terms : line + 64;
    for (size_t x = 0; x < b->cols; x += 4) {
      size_t l = line;
      for (; x + 4 <= b->cols && l + 16 <= to; l += 16) {
        vec4 r[4];
        for (size_t i = 0; i < 4; i++) {
          ivec4 w;
          memcpy(&w, from + (x + i) * k + l, sizeof w);
          r[i] = (vec4)(w ^ flip);
        }
        transpose4(r);
        for (size_t i = 0; i < 4; i++)
          memcpy(panel + (l + 4 * i) * wide + 4 * x, &r[i], sizeof r[i]);
      }
      for (; l < to; l++) {
        for (size_t i = 0; i < 4 && x + i < b->cols; i++)
          panel[(l - l % 4) * wide + 4 * (x + i) + l % 4] = code(from[(x + i) * k + l]);
      }
    }
  }
}

/* panel[l / 4, x, l % 4] = term l of column j + x for x < cols; k walks on. */
static void pack_columns(const job *q, const block *b, walk *k, int8_t *panel) {
  const ivec4 flip = (ivec4){0} + EL_FLIP;
  for (size_t l = 0; l < b->terms; l += 4, panel += 4 * b->wide) {
    const int8_t *w[4];
    size_t terms = b->terms - l < 4 ? b->terms - l : 4, x = 0;
    for (size_t i = 0; i < terms; i++) w[i] = next(q, k);
    for (; terms == 4 && x + 16 <= b->cols; x += 16) {
      bytes16 r[4];
      for (size_t i = 0; i < 4; i++) {
        memcpy(&r[i], w[i] + x, sizeof r[i]);
        r[i] = (bytes16)((ivec4)r[i] ^ flip);
      }
      for (size_t half = 0; half < 2; half++) {
        halves8 one = (halves8)(half ? EL_ZIP_HIGH(r[0], r[1]) : EL_ZIP_LOW(r[0], r[1]));
        halves8 two = (halves8)(half ? EL_ZIP_HIGH(r[2], r[3]) : EL_ZIP_LOW(r[2], r[3]));
        halves8 low = __builtin_shufflevector(one, two, 0, 8, 1, 9, 2, 10, 3, 11);
        halves8 high = __builtin_shufflevector(one, two, 4, 12, 5, 13, 6, 14, 7, 15);
        memcpy(panel + 4 * x + 32 * half, &low, sizeof low);
        memcpy(panel + 4 * x + 32 * half + 16, &high, sizeof high);
      }
    }
    for (; x < b->cols; x++) {
      for (size_t i = 0; i < terms; i++) panel[4 * x + i] = code(w[i][x]);
    }
  }
}

/* Asks for part `at` of `of` of the codes that will be packed next. */
static void ask(const job *q, const block *b, size_t at, size_t of) {
  if (q->back) {
    size_t end = b->terms * (at + 1) / of;
    for (size_t l = b->terms * at / of; l < end && q->image == NULL; l++)
      __builtin_prefetch(q->w + q->base + (b->l + l) * q->stride + b->j, 0, 2);
    return;
  }
  size_t end = b->cols * (at + 1) / of;
  for (size_t x = b->cols * at / of; x < end; x++) {
    for (size_t l = 0; l < b->terms; l += 64)
      __builtin_prefetch(q->w + (b->j + x) * q->sum + b->l + l, 0, 2);
  }
}

#endif
