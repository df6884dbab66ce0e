// One vector type for every instruction set, by the compiler's vector extension: the width follows
// the flags this translation unit is compiled with. Everything lives in a namespace named after the
// instruction set (MVAE_FAST_ISA), so that no wide instruction can leak into another unit through a
// merged inline function.
#pragma once

#include <cstdint>
#include <cstring>

namespace mvae_fast {
namespace MVAE_FAST_ISA {

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
static inline Vec<T> load(const T* p) {
  return *reinterpret_cast<const typename Simd<T>::Unaligned*>(p);
}

template <class T>
static inline void store(T* p, Vec<T> v) {
  *reinterpret_cast<typename Simd<T>::Unaligned*>(p) = v;
}

template <class T>
static inline Vec<T> splat(T x) {
  return Vec<T>{} + x;
}

template <class T>
static inline T sum(Vec<T> v) {
  T total = 0;
  for (int64_t i = 0; i < kLanes<T>; ++i) total += v[i];
  return total;
}

static inline int64_t smaller(int64_t a, int64_t b) {
  return a < b ? a : b;
}
static inline int64_t larger(int64_t a, int64_t b) {
  return a > b ? a : b;
}
static inline int64_t round_up(int64_t n, int64_t multiple) {
  return (n + multiple - 1) / multiple * multiple;
}

// Features padded to whole vectors.
template <class T>
static inline int64_t padded(int64_t m) {
  return round_up(m, kLanes<T>);
}

// Row length of an activation tile: an odd number of vectors, so that rows spread over all sets of
// the L1 cache.
template <class T>
static inline int64_t leading(int64_t m) {
  return kLanes<T> * (padded<T>(m) / kLanes<T> | 1);
}

}  // namespace MVAE_FAST_ISA
}  // namespace mvae_fast
