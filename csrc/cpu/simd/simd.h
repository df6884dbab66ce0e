// One vector type for every instruction set, by the compiler's vector extension: the width follows
// the flags this translation unit is compiled with. Everything lives in a namespace named after the
// instruction set (MVAE_FAST_ISA), so that no wide instruction can leak into another unit through a
// merged inline function.
#pragma once

#include <cstdint>
#include <cstring>

#include "../../sizes.h"

#if defined(__AVX__)
#include <immintrin.h>
#endif

// A multiply and an add become one instruction also across inlined functions, as gcc has it by
// default: exp_nonpositive (activation.h) needs its product exact, and the polynomials the speed.
#if defined(__clang__)
#pragma clang fp contract(fast)
#endif

// For what must not leave registers.
#define MVAE_FAST_INLINE static inline __attribute__((always_inline))

namespace mvae_fast::MVAE_FAST_ISA {

#if defined(__AVX512F__)
constexpr int kVectorBytes = 64;
constexpr int kTileRows =
    12;  // 12 x 2 accumulators of 32 registers: at the FMA peak on Zen 4 (117 GFLOP/s a core)
#elif defined(__AVX__)
constexpr int kVectorBytes = 32;
constexpr int kTileRows = 6;  // 6 x 2 accumulators of 16 registers
#else
constexpr int kVectorBytes = 16;
#if defined(__aarch64__)
constexpr int kTileRows = 12;  // 32 registers
#else
constexpr int kTileRows = 6;
#endif
#endif

template <class T>
struct Simd;

template <>
struct Simd<float> {
  typedef float V __attribute__((vector_size(kVectorBytes)));
  typedef float Unaligned __attribute__((vector_size(kVectorBytes), aligned(4), may_alias));
  typedef int32_t I __attribute__((vector_size(kVectorBytes)));
};

template <>
struct Simd<double> {
  typedef double V __attribute__((vector_size(kVectorBytes)));
  typedef double Unaligned __attribute__((vector_size(kVectorBytes), aligned(8), may_alias));
  typedef int64_t I __attribute__((vector_size(kVectorBytes)));
};

template <class T>
using Vec = typename Simd<T>::V;

template <class T>
constexpr int64_t kLanes = kVectorBytes / sizeof(T);

template <class T>
MVAE_FAST_INLINE Vec<T> load(const T* p) {
  return *reinterpret_cast<const typename Simd<T>::Unaligned*>(p);
}

template <class T>
MVAE_FAST_INLINE void store(T* p, Vec<T> v) {
  *reinterpret_cast<typename Simd<T>::Unaligned*>(p) = v;
}

template <class T>
MVAE_FAST_INLINE Vec<T> splat(T x) {
  return Vec<T>{} + x;
}

// Sum of all lanes, as a tree: a chain of scalar adds cost 8 % of an activation pass.
template <class T>
MVAE_FAST_INLINE T sum(Vec<T> v) {
  T lanes[kLanes<T>];
  memcpy(lanes, &v, sizeof(v));
#pragma GCC unroll 8
  for (int64_t half = kLanes<T> / 2; half > 0; half /= 2)
#pragma GCC unroll 16
    for (int64_t i = 0; i < half; ++i) lanes[i] += lanes[i + half];
  return lanes[0];
}

// a > b ? a : b, so that a NaN in b comes through. One instruction where the compiler would compare
// and blend.
MVAE_FAST_INLINE Vec<float> maximum(Vec<float> a, Vec<float> b) {
#if defined(__AVX512F__)
  return (Vec<float>)_mm512_max_ps((__m512)a, (__m512)b);
#elif defined(__AVX__)
  return (Vec<float>)_mm256_max_ps((__m256)a, (__m256)b);
#else
  return a > b ? a : b;
#endif
}

MVAE_FAST_INLINE Vec<double> maximum(Vec<double> a, Vec<double> b) {
  return a > b ? a : b;
}

// -|a|, by setting the sign bit.
MVAE_FAST_INLINE Vec<float> minus_magnitude(Vec<float> a) {
  using I = Simd<float>::I;
  return (Vec<float>)((I)a | (I{} + INT32_MIN));
}

MVAE_FAST_INLINE Vec<double> minus_magnitude(Vec<double> a) {
  using I = Simd<double>::I;
  return (Vec<double>)((I)a | (I{} + INT64_MIN));
}

// Vectors that go through the same arithmetic side by side. A nonlinearity is one long chain of
// dependent operations, and the processor's scheduler holds too few of them to find the next
// vector's chain by itself: four at a time run at the throughput of the multiply-adds (measured:
// softplus with trace 0.73 -> 0.50 ns an element on Zen 4).
template <class T>
struct Pack {
  static constexpr int n = 4;
  Vec<T> v[n];
};

#define MVAE_FAST_LANES _Pragma("GCC unroll 4") for (int i = 0; i < Pack<T>::n; ++i)

template <class T, class F>
MVAE_FAST_INLINE Pack<T> map(const Pack<T>& a, F f) {
  Pack<T> out;
  MVAE_FAST_LANES out.v[i] = f(a.v[i]);
  return out;
}

template <class T>
MVAE_FAST_INLINE Pack<T> operator+(const Pack<T>& a, const Pack<T>& b) {
  Pack<T> out;
  MVAE_FAST_LANES out.v[i] = a.v[i] + b.v[i];
  return out;
}

template <class T>
MVAE_FAST_INLINE Pack<T> operator*(const Pack<T>& a, const Pack<T>& b) {
  Pack<T> out;
  MVAE_FAST_LANES out.v[i] = a.v[i] * b.v[i];
  return out;
}

template <class T>
MVAE_FAST_INLINE Pack<T> operator-(const Pack<T>& a, const Pack<T>& b) {
  Pack<T> out;
  MVAE_FAST_LANES out.v[i] = a.v[i] - b.v[i];
  return out;
}

template <class T>
MVAE_FAST_INLINE Pack<T> operator+(const Pack<T>& a, T b) {
  return map(a, [b](Vec<T> x) __attribute__((always_inline)) { return x + b; });
}

template <class T>
MVAE_FAST_INLINE Pack<T> operator+(T b, const Pack<T>& a) {
  return a + b;
}

template <class T>
MVAE_FAST_INLINE Pack<T> operator-(const Pack<T>& a, T b) {
  return map(a, [b](Vec<T> x) __attribute__((always_inline)) { return x - b; });
}

template <class T>
MVAE_FAST_INLINE Pack<T> operator-(T b, const Pack<T>& a) {
  return map(a, [b](Vec<T> x) __attribute__((always_inline)) { return b - x; });
}

template <class T>
MVAE_FAST_INLINE Pack<T> operator*(T b, const Pack<T>& a) {
  return map(a, [b](Vec<T> x) __attribute__((always_inline)) { return b * x; });
}

template <class T>
MVAE_FAST_INLINE Pack<T> constant(T x) {
  Pack<T> out;
  MVAE_FAST_LANES out.v[i] = splat(x);
  return out;
}

// a < 0 ? x : y, lane by lane.
template <class T>
MVAE_FAST_INLINE Pack<T> where_negative(const Pack<T>& a, const Pack<T>& x, const Pack<T>& y) {
  Pack<T> out;
  MVAE_FAST_LANES out.v[i] = a.v[i] < T(0) ? x.v[i] : y.v[i];
  return out;
}

// max(a, 0), NaN for NaN.
template <class T>
MVAE_FAST_INLINE Pack<T> positive_part(const Pack<T>& a) {
  return map(a, [](Vec<T> x) { return maximum(Vec<T>{}, x); });
}

template <class T>
MVAE_FAST_INLINE Pack<T> minus_magnitude(const Pack<T>& a) {
  return map(a, [](Vec<T> x) { return minus_magnitude(x); });
}

MVAE_FAST_INLINE int64_t smaller(int64_t a, int64_t b) {
  return a < b ? a : b;
}
MVAE_FAST_INLINE int64_t larger(int64_t a, int64_t b) {
  return a > b ? a : b;
}
MVAE_FAST_INLINE int64_t round_up(int64_t n, int64_t multiple) {
  return (n + multiple - 1) / multiple * multiple;
}

// Two vectors to one with their lanes in turn: the first halves to a, the second halves to b.
template <class T>
MVAE_FAST_INLINE void interleave(Vec<T>& a, Vec<T>& b) {
  constexpr int n = kLanes<T>;
  Vec<T> low, high;
#if defined(__clang__)
  for (int i = 0; i < n; ++i) {
    low[i] = i % 2 ? b[i / 2] : a[i / 2];
    high[i] = i % 2 ? b[(n + i) / 2] : a[(n + i) / 2];
  }
#else
  typename Simd<T>::I low_of, high_of;
  for (int i = 0; i < n; ++i) {
    low_of[i] = i / 2 + i % 2 * n;
    high_of[i] = (n + i) / 2 + i % 2 * n;
  }
  low = __builtin_shuffle(a, b, low_of);
  high = __builtin_shuffle(a, b, high_of);
#endif
  a = low;
  b = high;
}

// to (n, n) = from (n, n) transposed, n = kLanes, of which `rows` rows are read and the others
// zero. Element by element, reading down a column whose stride is a power of two missed the cache
// each time: packing was a quarter of a one-step solve.
template <class T>
__attribute__((noinline)) static void transpose(const T* from, int64_t ld_from, int64_t rows, T* to,
                                                int64_t ld) {
  constexpr int n = kLanes<T>;
  Vec<T> x[n];
#pragma GCC unroll 16
  for (int i = 0; i < n; ++i) x[i] = i < rows ? load(from + i * ld_from) : Vec<T>{};
#pragma GCC unroll 4
  for (int stage = 1; stage < n; stage *= 2) {
    Vec<T> y[n];
#pragma GCC unroll 16
    for (int i = 0; i < n / 2; ++i) {
      y[2 * i] = x[i];
      y[2 * i + 1] = x[i + n / 2];
      interleave<T>(y[2 * i], y[2 * i + 1]);
    }
#pragma GCC unroll 16
    for (int i = 0; i < n; ++i) x[i] = y[i];
  }
#pragma GCC unroll 16
  for (int i = 0; i < n; ++i) store(to + i * ld, x[i]);
}

// Features padded to whole vectors.
template <class T>
MVAE_FAST_INLINE int64_t padded(int64_t m) {
  return round_up(m, kLanes<T>);
}

template <class T>
MVAE_FAST_INLINE int64_t leading(int64_t m) {
  return row_length(m, sizeof(T));
}

}  // namespace mvae_fast::MVAE_FAST_ISA
