// The machine of the kernels, on the host: thread blocks run one after the other, and in each the
// warps. Operands are rounded as on the device; sums are taken in T, in another order.
#pragma once

#include "cuda/plan.h"
#include "cuda/precision.h"

namespace mvae_fast::cuda {

template <class Op, class T>
struct HostOperand {  // Bf16 and Fp16
  static T of(uint16_t x) { return static_cast<T>(Op::unpack(x)); }
  static T multiply(T a, T b) { return of(Op::pack(static_cast<float>(a))) * b; }
};

template <class T>
struct HostOperand<Tf32, T> {
  static T of(T x) { return x; }
  static T multiply(T a, T b) { return Tf32::pack(a) * Tf32::pack(b); }
};

template <class T>
struct HostOperand<Full, T> {
  static T of(T x) { return x; }
  static T multiply(T a, T b) {
    if (sizeof(T) == sizeof(double)) return a * b;
    const T a_high = Tf32::pack(a), b_high = Tf32::pack(b);
    return Tf32::pack(a - a_high) * b_high + a_high * Tf32::pack(b - b_high) + a_high * b_high;
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
  using Operand = Op;
  using T = Scalar;
  using Packed = typename Op::template Packed<T>;
  using Cta = HostCta;
  using Warp = HostWarp;
  template <int kM, int kN>
  using Accumulators = HostAccumulators<Op, T, kM, kN>;
};

}  // namespace mvae_fast::cuda
