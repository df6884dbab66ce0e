// The products of gemm.h with operands as they are, or rounded to bfloat16.
//
// Only instruction sets that multiply bfloat16 (AVX512_BF16: pairs, twice the multiply-adds an
// instruction, with sums in float32) round to it: elsewhere it would cost time beside the same
// products. An operand is then stored as words of two neighbours along the summed index.
#pragma once

#include <type_traits>

#include "elementwise.h"
#include "gemm.h"
#include "tiles.h"

namespace mvae_fast::MVAE_FAST_ISA {

#if defined(__AVX512BF16__)

constexpr bool kMultipliesBf16 = true;

typedef uint32_t Word __attribute__((may_alias));

// Lane i: (low[i], high[i]) as bfloat16, the first in the lower half.
MVAE_FAST_INLINE __m512i pair_words(__m512 low, __m512 high) {
  alignas(64) static constexpr uint16_t kInTurn[32] = {0,  16, 1,  17, 2,  18, 3,  19, 4,  20, 5,
                                                       21, 6,  22, 7,  23, 8,  24, 9,  25, 10, 26,
                                                       11, 27, 12, 28, 13, 29, 14, 30, 15, 31};
  return _mm512_permutexvar_epi16(_mm512_load_si512(kInTurn),
                                  (__m512i)_mm512_cvtne2ps_pbh(high, low));
}

// The operands of a register tile: words of pairs.
struct Pairs {
  using Sum = float;
  using Operand = Word;
  using Row = __m512bh;
  MVAE_FAST_INLINE Row row(const Word* b) { return (Row)_mm512_loadu_si512(b); }
  MVAE_FAST_INLINE Row splat_of(Word a) { return (Row)_mm512_set1_epi32(static_cast<int>(a)); }
  MVAE_FAST_INLINE Vec<float> multiply_add(Vec<float> sum, Row a, Row b) {
    return (Vec<float>)_mm512_dpbf16_ps((__m512)sum, b, a);
  }
};

// to[r, t] = (a[r, 2 t], a[r, 2 t + 1]), up to a whole vector of words.
static inline void pair_columns(int64_t rows, int64_t k, const float* a, int64_t lda, Word* to,
                                int64_t ld) {
  for (int64_t r = 0; r < rows; ++r)
    for (int64_t t = 0; t < k; t += 32) {
      const float* from = a + r * lda + t;
      const __m512 first = _mm512_loadu_ps(from);
      const __m512 second = t + 16 < k ? _mm512_loadu_ps(from + 16) : _mm512_setzero_ps();
      _mm512_storeu_si512(to + r * ld + t / 2, (__m512i)_mm512_cvtne2ps_pbh(second, first));
    }
}

// to[t, j] = (a[2 t, j], a[2 t + 1, j]), a row of zeros after the last one.
static inline void pair_rows(int64_t rows, int64_t width, const float* a, int64_t lda, Word* to,
                             int64_t ld) {
  for (int64_t r = 0; r < rows; r += 2)
    for (int64_t j = 0; j < width; j += 16) {
      const float* from = a + r * lda + j;
      const __m512 second = r + 1 < rows ? _mm512_loadu_ps(from + lda) : _mm512_setzero_ps();
      _mm512_storeu_si512(to + r / 2 * ld + j, pair_words(_mm512_loadu_ps(from), second));
    }
}

#else

constexpr bool kMultipliesBf16 = false;

#endif  // __AVX512BF16__

template <class T>
class Products {
 public:
  // `bf16`: only where kMultipliesBf16, here and below. `widest`: the longest tile row that occurs.
  // A worker's scratch, for up to kTile rows.
  static Products take(bool bf16, int64_t widest, Arena& arena) {
    Products x;
    x.bf16_ = bf16;
    x.ld_ = widest;
    x.left_ = arena.take<T>(bf16 ? kTile * widest : 0);
    x.right_ = arena.take<T>(bf16 ? kTile * widest : 0);
    return x;
  }

  // Elements of a packed (k, n) operand: panels of two vectors of columns, the last one of one
  // vector where that suffices.
  static int64_t packed_size(bool bf16, int64_t k, int64_t n) {
    return (bf16 ? (k + 1) / 2 : k) * padded<T>(n);
  }

  // Packs rows t_begin .. t_end (t_begin even) of the panel at column j of the (k, n) operand B(t,
  // j) = source[t * row_stride + j * column_stride].
  static void pack([[maybe_unused]] bool bf16, T* to, int64_t k, int64_t n, int64_t j,
                   const T* source, int64_t row_stride, int64_t column_stride, int64_t t_begin,
                   int64_t t_end) {
    const int64_t width = panel_width<T>(n, j);
#if defined(__AVX512BF16__)
    if constexpr (std::is_same_v<T, float>) {
      if (bf16) {
        constexpr int64_t kRows = 32;
        alignas(64) float panel[kRows * 2 * kLanes<float>];
        for (int64_t t = t_begin; t < t_end; t += kRows) {
          const int64_t rows = smaller(kRows, t_end - t);
          pack_panel<T>(panel, n, j, source, row_stride, column_stride, t, t + rows);
          pair_rows(rows, width, panel, width,
                    reinterpret_cast<Word*>(to) + j * ((k + 1) / 2) + t / 2 * width, width);
        }
        return;
      }
    }
#endif
    pack_panel<T>(to + j * k + t_begin * width, n, j, source, row_stride, column_stride, t_begin,
                  t_end);
  }

  // The panels of `worker`'s share of the columns.
  static void pack(bool bf16, T* to, int64_t k, int64_t n, const T* source, int64_t row_stride,
                   int64_t column_stride, int64_t workers, int64_t worker) {
    for_each_panel<T>(n, workers, worker, [&](int64_t j) {
      pack(bf16, to, k, n, j, source, row_stride, column_stride, 0, k);
    });
  }

  // C (rows, n) (+)= A (rows, k) B, with B packed. C's columns are written up to the padded width.
  void rows_times(int64_t rows, int64_t n, int64_t k, const T* a, int64_t lda, const T* packed,
                  T* c, int64_t ldc, bool accumulate) const {
#if defined(__AVX512BF16__)
    if constexpr (std::is_same_v<T, float>) {
      if (bf16_) {
        Word* words = reinterpret_cast<Word*>(left_);
        const int64_t ld = ld_, pairs = (k + 1) / 2;
        pair_columns(rows, k, a, lda, words, ld);
        for (int64_t j = 0; j < padded<T>(n); j += 2 * kLanes<T>) {
          const int64_t width = panel_width<T>(n, j);
          const Word* panel = reinterpret_cast<const Word*>(packed) + j * pairs;
          for_each_block(rows, [&](int64_t i, int64_t count) {
            run_tile<Pairs, false>(count, width, pairs, words + i * ld, ld, panel, width,
                                   c + i * ldc + j, ldc, accumulate);
          });
        }
        return;
      }
    }
#endif
    MVAE_FAST_ISA::rows_times<T>(rows, n, k, a, lda, packed, c, ldc, accumulate);
  }

  // C (m, n) += A (rows, m)' B (rows, n). B and C have rows padded to whole vectors.
  void outer_product(int64_t m, int64_t n, int64_t rows, const T* a, int64_t lda, const T* b,
                     int64_t ldb, T* c, int64_t ldc) const {
    outer_tiles(m, n, rows, a, lda, b, ldb,
                [&](int64_t i, int64_t j, int64_t, int64_t, const auto& tile) {
                  tile(c + i * ldc + j, ldc, true);
                });
  }

  // The gated last layer: with P = A' B, C += scale * diag(gate) P and gate_gradient[i] += scale *
  // sum_j W[i, j] P[i, j]. The gate's gradient comes out of the weight's, so that the layer's own
  // product need not be computed again. `packed` is W (m, n) packed as a (k = m, n) operand.
  void gated_outer_product(int64_t m, int64_t n, int64_t rows, const T* a, int64_t lda, const T* b,
                           int64_t ldb, T scale, const T* gate, const T* packed, T* gate_gradient,
                           T* c, int64_t ldc) const {
    constexpr int64_t lanes = kLanes<T>;
    T product[kTileRows * 2 * lanes];
    Vec<T> dots[kTileRows];
    outer_tiles(m, n, rows, a, lda, b, ldb,
                [&](int64_t i, int64_t j, int64_t count, int64_t width, const auto& tile) {
                  tile(product, width, false);
                  if (j == 0)
                    for (int64_t r = 0; r < count; ++r) dots[r] = Vec<T>{};
                  for (int64_t r = 0; r < count; ++r) {
                    const T gated = scale * gate[i + r];
                    for (int64_t v = 0; v < width; v += lanes) {
                      const Vec<T> p = load(product + r * width + v);
                      T* to = c + (i + r) * ldc + j + v;
                      dots[r] += p * unpacked(packed, m, i + r, j, width, v);
                      store(to, load(to) + gated * p);
                    }
                  }
                  if (j + width >= n)  // the last tile of these rows
                    for (int64_t r = 0; r < count; ++r)
                      gate_gradient[i + r] += scale * sum<T>(dots[r]);
                });
  }

 private:
  // f(i, j, rows, columns, tile) for every tile of A' B, row by row, where tile(c, ldc, accumulate)
  // computes it.
  template <class F>
  void outer_tiles(int64_t m, int64_t n, int64_t rows, const T* a, int64_t lda, const T* b,
                   int64_t ldb, const F& f) const {
#if defined(__AVX512BF16__)
    if constexpr (std::is_same_v<T, float>) {
      if (bf16_) {
        Word *left = reinterpret_cast<Word*>(left_), *right = reinterpret_cast<Word*>(right_);
        pair_rows(rows, padded<T>(m), a, lda, left, ld_);
        pair_rows(rows, padded<T>(n), b, ldb, right, ld_);
        for_each_block(m, [&](int64_t i, int64_t count) {
          for (int64_t j = 0; j < padded<T>(n); j += 2 * kLanes<T>) {
            const int64_t width = panel_width<T>(n, j);
            f(i, j, count, width, [&](T* c, int64_t ldc, bool accumulate) {
              run_tile<Pairs, true>(count, width, (rows + 1) / 2, left + i, ld_, right + j, ld_, c,
                                    ldc, accumulate);
            });
          }
        });
        return;
      }
    }
#endif
    for_each_block(m, [&](int64_t i, int64_t count) {
      for (int64_t j = 0; j < padded<T>(n); j += 2 * kLanes<T>) {
        const int64_t width = panel_width<T>(n, j);
        f(i, j, count, width, [&](T* c, int64_t ldc, bool accumulate) {
          run_tile<Numbers<T>, true>(count, width, rows, a + i, lda, b + j, ldb, c, ldc,
                                     accumulate);
        });
      }
    });
  }

  // One vector, v columns into the panel at column j, of row i of a packed (m, n) operand.
  Vec<T> unpacked(const T* packed, int64_t m, int64_t i, int64_t j, int64_t width,
                  int64_t v) const {
#if defined(__AVX512BF16__)
    if constexpr (std::is_same_v<T, float>) {
      if (bf16_) {
        const Word* words = reinterpret_cast<const Word*>(packed) + j * ((m + 1) / 2);
        const __m512i word = _mm512_loadu_si512(words + i / 2 * width + v);
        return (Vec<T>)(i % 2 ? _mm512_and_si512(word, _mm512_set1_epi32(-65536))
                              : _mm512_slli_epi32(word, 16));
      }
    }
#endif
    return load(packed + j * m + i * width + v);
  }

  bool bf16_;
  int64_t ld_;
  T *left_, *right_;
};

}  // namespace mvae_fast::MVAE_FAST_ISA
