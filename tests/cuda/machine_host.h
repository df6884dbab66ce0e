// The machine of the kernels, on the host: thread blocks run one after the other, and in each the
// warps. Operands are rounded as on the device; sums are taken in T, in another order.
#pragma once

#include <cstring>

#include "cuda/plan.h"
#include "cuda/precision.h"

namespace mvae_fast::cuda {

inline uint32_t bits_of(float x) {
  uint32_t bits;
  memcpy(&bits, &x, sizeof bits);
  return bits;
}

inline float float_of(uint32_t bits) {
  float x;
  memcpy(&x, &bits, sizeof x);
  return x;
}

template <class Op, class T>
struct HostOperand;

template <class T>
struct HostOperand<Bf16, T> : Bf16 {
  static uint16_t pack(T x) {
    const uint32_t bits = bits_of(static_cast<float>(x));
    if ((bits & 0x7fffffffu) > 0x7f800000u) return 0x7fff;
    return static_cast<uint16_t>((bits + 0x7fffu + ((bits >> 16) & 1)) >> 16);
  }
  static T of(uint16_t x) { return float_of(uint32_t{x} << 16); }
  static T multiply(T a, T b) { return of(pack(a)) * b; }
};

template <class T>
struct HostOperand<Fp16, T> : Fp16 {
  // Round to nearest even, with denormals and infinities.
  static uint16_t pack(T x) {
    const uint32_t bits = bits_of(static_cast<float>(x)), magnitude = bits & 0x7fffffffu;
    const uint32_t sign = (bits >> 16) & 0x8000u;
    if (magnitude > 0x7f800000u) return 0x7fff;
    if (magnitude >= 0x477ff000u) return static_cast<uint16_t>(sign | 0x7c00u);
    if (magnitude < 0x38800000u) {  // below 2^-14: the sum's last bit is that of the denormals
      const float shifted = float_of(magnitude) + 0.5f;
      return static_cast<uint16_t>(sign | (bits_of(shifted) - bits_of(0.5f)));
    }
    const uint32_t rounded = magnitude - 0x38000000u + 0xfffu + ((magnitude >> 13) & 1);
    return static_cast<uint16_t>(sign | (rounded >> 13));
  }
  static T of(uint16_t x) {
    const uint32_t sign = uint32_t{x & 0x8000u} << 16, rest = x & 0x7fffu;
    if (rest >= 0x7c00u) return float_of(sign | 0x7f800000u | (rest & 0x3ffu) << 13);
    if (rest < 0x400u) {
      const float value = static_cast<float>(rest) * 5.9604644775390625e-8f;  // 2^-24
      return sign ? -value : value;
    }
    return float_of(sign | ((rest << 13) + 0x38000000u));
  }
  static T multiply(T a, T b) { return of(pack(a)) * b; }
};

template <class T>
struct HostOperand<Tf32, T> : Tf32 {
  static T pack(T x) {
    const uint32_t bits = bits_of(static_cast<float>(x));
    if ((bits & 0x7f800000u) == 0x7f800000u) return x;
    return static_cast<T>(float_of((bits + 0x1000u) & 0xffffe000u));
  }
  static T of(T x) { return x; }
  static T multiply(T a, T b) { return pack(a) * pack(b); }
};

template <class T>
struct HostOperand<Full, T> : Full {
  static T pack(T x) { return x; }
  static T of(T x) { return x; }
  static T multiply(T a, T b) {
    if (sizeof(T) == sizeof(double)) return a * b;
    const auto round = HostOperand<Tf32, T>::pack;
    const T a_high = round(a), b_high = round(b);
    return round(a - a_high) * b_high + a_high * round(b - b_high) + a_high * b_high;
  }
};

struct HostWarp {
  int index, lane;
};

// The lanes that share a row. A lane's sum is that of all of them.
struct HostLanes {
  template <class F>
  void each(int width, F f) const {
    for (int c = 0; c < width; ++c) f(c);
  }
  template <class T>
  T sum(T x) const {
    return x;
  }
  bool first() const { return true; }
};

struct HostCta {
  int own, blocks;

  int index() const { return own; }
  int count() const { return blocks; }
  template <class F>
  static void each_warp(F f) {
    for (int warp = 0; warp < kWarps; ++warp) f(HostWarp{warp, 0});
  }
  template <class F>
  void each_row(int rows, F f) const {
    for (int row = 0; row < rows; ++row) f(row, HostLanes{});
  }
  template <class F>
  void each(int n, F f) const {
    for (int i = 0; i < n; ++i) f(i);
  }
};

// One warp's sums of products: kM x kN tiles of 16 x 8.
template <class Op, class Scalar, int kM, int kN>
struct HostAccumulators {
  using Packed = typename Op::template Packed<Scalar>;
  using Operand = HostOperand<Op, Scalar>;
  Scalar c[16 * kM][8 * kN] = {};

  // x: 16 kM rows, 16 columns of them; w: a block of 16 x 8 at w[n] for every n.
  void multiply_add(HostWarp, const Scalar* x, int64_t ldx, const Packed* const (&w)[kN]) {
    for (int row = 0; row < 16 * kM; ++row)
      for (int n = 0; n < 8 * kN; ++n)
        for (int k = 0; k < 16; ++k) {
          const Packed b = w[n / 8][4 * (n % 8 * 4 + k / 4) + k % 4];
          c[row][n] += Operand::multiply(x[row * ldx + k], Operand::of(b));
        }
  }
  // Adds delta' y of 16 rows, or of `count` if those are fewer; row r = (i, half, g) of the sum is
  // column 4 g + 2 i + half of delta, column n = (j, g) is column 4 g + j of y.
  void multiply_add_rows(HostWarp, const Packed* delta, int64_t ld, const Packed* y, int64_t ldy,
                         int64_t count) {
    for (int row = 0; row < 16 * kM; ++row)
      for (int n = 0; n < 8 * kN; ++n)
        for (int64_t k = 0; k < 16 && k < count; ++k)
          c[row][n] += Operand::multiply(Operand::of(delta[k * ld + column_of_delta(row)]),
                                         Operand::of(y[k * ldy + column_of_y(n)]));
  }
  static int column_of_delta(int row) { return 4 * (row % 8) + row / 8; }
  static int column_of_y(int n) { return 4 * (n % 8) + n / 8; }

  template <class F>
  void for_each(HostWarp, F f) const {
    for (int row = 0; row < 16 * kM; ++row)
      for (int n = 0; n < 8 * kN; ++n) f(row, n, c[row][n]);
  }
};

template <class Op, class Scalar>
struct HostMachine {
  static constexpr bool kProbes = true;
  using Operand = HostOperand<Op, Scalar>;
  using T = Scalar;
  using Packed = typename Op::template Packed<T>;
  using Cta = HostCta;
  using Warp = HostWarp;
  template <int kM, int kN>
  using Accumulators = HostAccumulators<Op, T, kM, kN>;
};

}  // namespace mvae_fast::cuda
