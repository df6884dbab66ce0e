// The machine of the kernels, on the GPU: warps, and mma.sync on tensor cores (sm_80 and later).
#pragma once

#include <type_traits>

#include "plan.h"
#include "precision.h"

namespace mvae_fast::cuda {

struct Warp {
  int index, lane;
};

struct Lanes {
  int lane;
  template <class F>
  __device__ __forceinline__ void each(int width, F f) const {
    for (int c = lane; c < width; c += kLanes) f(c);
  }
  // The sum over the lanes, in a fixed order, to each of them.
  __device__ __forceinline__ float sum(float x) const {
    MVAE_FAST_UNROLL
    for (int distance = 16; distance; distance /= 2) x += __shfl_xor_sync(0xffffffffu, x, distance);
    return x;
  }
  __device__ __forceinline__ bool first() const { return lane == 0; }
};

// Every function is a phase: it ends with a barrier, and between phases all state is in memory.
struct DeviceCta {
  static __device__ __forceinline__ int index() { return static_cast<int>(blockIdx.x); }
  static __device__ __forceinline__ int count() { return static_cast<int>(gridDim.x); }

  template <class F>
  static __device__ __forceinline__ void each_warp(F f) {
    const int thread = here(static_cast<int>(threadIdx.x));
    f(Warp{thread / kLanes, thread % kLanes});
    __syncthreads();
  }
  template <class F>
  __device__ __forceinline__ void each_row(int rows, F f) const {
    const int thread = here(static_cast<int>(threadIdx.x));
    const Lanes lanes{thread % kLanes};
    for (int row = thread / kLanes; row < rows; row += kWarps) f(row, lanes);
    __syncthreads();
  }
  template <class F>
  __device__ __forceinline__ void each(int n, F f) const {
    for (int i = here(static_cast<int>(threadIdx.x)); i < n; i += kThreads) f(i);
    __syncthreads();
  }
};

// A lane holds elements k = 4 t .. 4 t + 3 (t = lane % 4) of both operands: a step of 16 permutes k
// alike for x and w, so that one 16-byte load of x and one of w bring a lane's share.

template <int n>
struct Registers {
  uint32_t r[n];
};

__device__ __forceinline__ uint32_t tf32_of(float x) {
  uint32_t out;
  asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(out) : "f"(x));
  return out;
}

template <class Op>
__device__ __forceinline__ uint32_t pair_of(float low, float high) {
  uint32_t out;
  if constexpr (std::is_same_v<Op, Bf16>)
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(out) : "f"(high), "f"(low));
  else
    asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(out) : "f"(high), "f"(low));
  return out;
}

template <class Op>
struct DeviceOperand : Op {
  static __device__ __forceinline__ typename Op::template Packed<float> pack(float x) {
    if constexpr (std::is_base_of_v<Half, Op>) return static_cast<uint16_t>(pair_of<Op>(x, 0.0f));
    return std::is_same_v<Op, Tf32> ? __uint_as_float(tf32_of(x)) : x;
  }
};

// volatile: all lanes of a warp have to arrive together, so that it must not move into a branch.
#define MVAE_FAST_MMA(kind)                                                                      \
  asm volatile("mma.sync.aligned." kind " {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};" \
               : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])                                  \
               : "r"(x[0]), "r"(x[1]), "r"(x[2]), "r"(x[3]), "r"(w[0]), "r"(w[1]))

template <class Op>
__device__ __forceinline__ void mma_of(float (&c)[4], const uint32_t* x, const uint32_t* w) {
  if constexpr (std::is_same_v<Op, Bf16>)
    MVAE_FAST_MMA("m16n8k16.row.col.f32.bf16.bf16.f32");
  else if constexpr (std::is_same_v<Op, Fp16>)
    MVAE_FAST_MMA("m16n8k16.row.col.f32.f16.f16.f32");
  else
    MVAE_FAST_MMA("m16n8k8.row.col.f32.tf32.tf32.f32");
}

// x: rows g and g + 8 (g = lane / 4), w: column g; `low` and `high` those rows, 4 of k.
template <class Op>
struct Fragments {  // of 16 bits
  using X = Registers<4>;
  using W = Registers<2>;
  static __device__ __forceinline__ X x_of(const float4& low, const float4& high) {
    return {{pair_of<Op>(low.x, low.y), pair_of<Op>(high.x, high.y), pair_of<Op>(low.z, low.w),
             pair_of<Op>(high.z, high.w)}};
  }
  static __device__ __forceinline__ W w_at(const uint16_t* w) {
    const uint2 v = *reinterpret_cast<const uint2*>(w);
    return {{v.x, v.y}};
  }
  static __device__ __forceinline__ void mma(float (&c)[4], const X& x, const W& w) {
    mma_of<Op>(c, x.r, w.r);
  }
};

// Two mma of 8 k each: k = 4 t, 4 t + 1 of every lane, then 4 t + 2, 4 t + 3.
template <>
struct Fragments<Tf32> {
  using X = Registers<8>;
  using W = Registers<4>;
  static __device__ __forceinline__ X x_of(const float4& low, const float4& high) {
    return {{tf32_of(low.x), tf32_of(high.x), tf32_of(low.y), tf32_of(high.y), tf32_of(low.z),
             tf32_of(high.z), tf32_of(low.w), tf32_of(high.w)}};
  }
  static __device__ __forceinline__ W w_of(const float4& w) {
    return {
        {__float_as_uint(w.x), __float_as_uint(w.y), __float_as_uint(w.z), __float_as_uint(w.w)}};
  }
  static __device__ __forceinline__ W w_at(const float* w) {
    return w_of(*reinterpret_cast<const float4*>(w));
  }
  static __device__ __forceinline__ void mma(float (&c)[4], const X& x, const W& w) {
    mma_of<Tf32>(c, x.r, w.r);
    mma_of<Tf32>(c, x.r + 4, w.r + 2);
  }
};

template <>
struct Fragments<Full> {
  template <int n>
  struct Split {
    Registers<n> high, low;
  };
  using X = Split<8>;
  using W = Split<4>;
  template <int n>
  static __device__ __forceinline__ Split<n> split(const float (&v)[n]) {
    Split<n> x;
    MVAE_FAST_UNROLL
    for (int i = 0; i < n; ++i) {
      x.high.r[i] = tf32_of(v[i]);
      x.low.r[i] = tf32_of(v[i] - __uint_as_float(x.high.r[i]));
    }
    return x;
  }
  static __device__ __forceinline__ X x_of(const float4& low, const float4& high) {
    return split({low.x, high.x, low.y, high.y, low.z, high.z, low.w, high.w});
  }
  static __device__ __forceinline__ W w_of(const float4& w) { return split({w.x, w.y, w.z, w.w}); }
  static __device__ __forceinline__ W w_at(const float* w) {
    return w_of(*reinterpret_cast<const float4*>(w));
  }
  static __device__ __forceinline__ void mma(float (&c)[4], const X& x, const W& w) {
    Fragments<Tf32>::mma(c, x.low, w.high);
    Fragments<Tf32>::mma(c, x.high, w.low);
    Fragments<Tf32>::mma(c, x.high, w.high);
  }
};

// Four neighbours of a row of the tape.
__device__ __forceinline__ float4 quad_at(const float* x) {
  return *reinterpret_cast<const float4*>(x);
}
__device__ __forceinline__ uint2 quad_at(const uint16_t* x) {
  return *reinterpret_cast<const uint2*>(x);
}
__device__ __forceinline__ float element(const float4& v, int i) {
  return i == 0 ? v.x : i == 1 ? v.y : i == 2 ? v.z : v.w;
}
// Element i of two quads, one k after the other, as the half of a register each.
__device__ __forceinline__ uint32_t halves(const uint2& first, const uint2& second, int i) {
  const uint32_t a = i < 2 ? first.x : first.y, b = i < 2 ? second.x : second.y;
  return __byte_perm(a, b, i % 2 ? 0x7632 : 0x5410);
}

template <class Op, int kM, int kN>
struct DeviceAccumulators {
  using Packed = typename Op::template Packed<float>;
  using F = Fragments<Op>;
  float c[kM][kN][4] = {};

  __device__ __forceinline__ void multiply_add(const Warp& warp, const float* x, int64_t ldx,
                                               const Packed* const (&w)[kN]) {
    const float* at = x + (warp.lane / 4) * ldx + warp.lane % 4 * 4;
    typename F::X rows[kM];
    MVAE_FAST_UNROLL
    for (int i = 0; i < kM; ++i)
      rows[i] = F::x_of(*reinterpret_cast<const float4*>(at + 16 * i * ldx),
                        *reinterpret_cast<const float4*>(at + (16 * i + 8) * ldx));
    MVAE_FAST_UNROLL
    for (int j = 0; j < kN; ++j) {
      const typename F::W column = F::w_at(w[j] + 4 * warp.lane);
      MVAE_FAST_UNROLL
      for (int i = 0; i < kM; ++i) F::mma(c[i][j], rows[i], column);
    }
  }

  // delta' y over 16 rows: a lane reads columns 4 g .. 4 g + 3 of 4 rows of each, which are its
  // share of both 16-row tiles of the one operand and of all four 8-column tiles of the other.
  __device__ __forceinline__ void multiply_add_rows(const Warp& warp, const Packed* delta,
                                                    int64_t ld, const Packed* y, int64_t ldy,
                                                    int64_t count) {
    static_assert(kM == 2 && kN == 4, "a quad is the share of 2 x 4 tiles");
    const int group = warp.lane / 4 * 4, k0 = warp.lane % 4 * 4;
    using Quad = decltype(quad_at(delta));
    Quad d[4], v[4];
    MVAE_FAST_UNROLL
    for (int e = 0; e < 4; ++e) {
      const bool inside = k0 + e < count;
      d[e] = inside ? quad_at(delta + (k0 + e) * ld + group) : Quad{};
      v[e] = inside ? quad_at(y + (k0 + e) * ldy + group) : Quad{};
    }
    typename F::X rows[kM];
    MVAE_FAST_UNROLL
    for (int i = 0; i < kM; ++i) rows[i] = x_of(d, 2 * i);
    MVAE_FAST_UNROLL
    for (int j = 0; j < kN; ++j) {
      const typename F::W column = w_of(v, j);
      MVAE_FAST_UNROLL
      for (int i = 0; i < kM; ++i) F::mma(c[i][j], rows[i], column);
    }
  }
  static __device__ __forceinline__ int column_of_delta(int row) { return 4 * (row % 8) + row / 8; }
  static __device__ __forceinline__ int column_of_y(int n) { return 4 * (n % 8) + n / 8; }

  template <class Use>
  __device__ __forceinline__ void for_each(const Warp& warp, Use use) const {
    const int row = warp.lane / 4, column = warp.lane % 4 * 2;
    MVAE_FAST_UNROLL
    for (int i = 0; i < kM; ++i) MVAE_FAST_UNROLL
    for (int j = 0; j < kN; ++j) MVAE_FAST_UNROLL
    for (int e = 0; e < 4; ++e) use(16 * i + row + e / 2 * 8, 8 * j + column + e % 2, c[i][j][e]);
  }

 private:
  static __device__ __forceinline__ typename F::X x_of(const float4 (&d)[4], int i) {
    return F::x_of(
        {element(d[0], i), element(d[1], i), element(d[2], i), element(d[3], i)},
        {element(d[0], i + 1), element(d[1], i + 1), element(d[2], i + 1), element(d[3], i + 1)});
  }
  static __device__ __forceinline__ Registers<4> x_of(const uint2 (&d)[4], int i) {
    return {{halves(d[0], d[1], i), halves(d[0], d[1], i + 1), halves(d[2], d[3], i),
             halves(d[2], d[3], i + 1)}};
  }
  static __device__ __forceinline__ typename F::W w_of(const float4 (&v)[4], int j) {
    return F::w_of({element(v[0], j), element(v[1], j), element(v[2], j), element(v[3], j)});
  }
  static __device__ __forceinline__ Registers<2> w_of(const uint2 (&v)[4], int j) {
    return {{halves(v[0], v[1], j), halves(v[2], v[3], j)}};
  }
};

// kProbes: whether the sweeps have code for trace probes. Those without it are half as long, and
// need fewer registers.
template <class Op, bool probes>
struct DeviceMachine {
  static constexpr bool kProbes = probes;
  using Operand = DeviceOperand<Op>;
  using T = float;
  using Packed = typename Op::template Packed<float>;
  using Cta = DeviceCta;
  using Warp = cuda::Warp;
  template <int kM, int kN>
  using Accumulators = DeviceAccumulators<Op, kM, kN>;
};

}  // namespace mvae_fast::cuda
