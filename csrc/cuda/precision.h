// The operands of the products: how they are rounded, and how a packed matrix holds them. kRate:
// multiply-adds of mma.sync a clock and SM, which only have to rank launches: half precision
// reaches 60 % of Hopper's peak, and 3xTF32 is six mma where bfloat16 has one.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>

#include "qualifiers.h"

namespace mvae_fast::cuda {

MVAE_FAST_BOTH uint32_t bits_of(float x) {
  uint32_t bits;
  memcpy(&bits, &x, sizeof bits);
  return bits;
}

MVAE_FAST_BOTH float float_of(uint32_t bits) {
  float x;
  memcpy(&x, &bits, sizeof x);
  return x;
}

// float32 as the sum of two tf32 numbers, of which all products but the smallest count: 3 mma.
struct Full {
  static constexpr double kRate = 200;
  static constexpr int kBlocks = 1;
  template <class T>
  using Packed = T;
  template <class T>
  MVAE_FAST_BOTH static T pack(T x) {
    return x;
  }
};

// 10 bits of mantissa, rounded to nearest, ties away from zero, as cvt.rna does.
struct Tf32 {
  static constexpr double kRate = 600;
  static constexpr int kBlocks = 1;
  template <class T>
  using Packed = T;
  template <class T>
  MVAE_FAST_BOTH static T pack(T x) {
#if defined(__CUDA_ARCH__)
    uint32_t out;
    asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(out) : "f"(x));
    return float_of(out);
#else
    const uint32_t bits = bits_of(static_cast<float>(x));
    if ((bits & 0x7f800000u) == 0x7f800000u) return x;
    return static_cast<T>(float_of((bits + 0x1000u) & 0xffffe000u));
#endif
  }
};

struct Bf16 {
  static constexpr double kRate = 1200;
  static constexpr int kBlocks = 1;
  template <class T>
  using Packed = uint16_t;
  MVAE_FAST_BOTH static uint16_t pack(float x) {
#if defined(__CUDA_ARCH__)
    uint16_t out;
    asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(out) : "f"(x));
    return out;
#else
    const uint32_t bits = bits_of(x);
    if ((bits & 0x7fffffffu) > 0x7f800000u) return 0x7fff;
    return static_cast<uint16_t>((bits + 0x7fffu + ((bits >> 16) & 1)) >> 16);
#endif
  }
  MVAE_FAST_BOTH static float unpack(uint16_t x) { return float_of(uint32_t{x} << 16); }
};

struct Fp16 {
  static constexpr double kRate = 1200;
  static constexpr int kBlocks = 1;
  template <class T>
  using Packed = uint16_t;
  // Round to nearest even, with denormals and infinities.
  MVAE_FAST_BOTH static uint16_t pack(float x) {
#if defined(__CUDA_ARCH__)
    uint16_t out;
    asm("cvt.rn.f16.f32 %0, %1;" : "=h"(out) : "f"(x));
    return out;
#else
    const uint32_t bits = bits_of(x), magnitude = bits & 0x7fffffffu;
    const uint32_t sign = (bits >> 16) & 0x8000u;
    if (magnitude > 0x7f800000u) return 0x7fff;
    if (magnitude >= 0x477ff000u) return static_cast<uint16_t>(sign | 0x7c00u);
    if (magnitude < 0x38800000u) {  // below 2^-14: the sum's last bit is that of the denormals
      const float shifted = float_of(magnitude) + 0.5f;
      return static_cast<uint16_t>(sign | (bits_of(shifted) - bits_of(0.5f)));
    }
    const uint32_t rounded = magnitude - 0x38000000u + 0xfffu + ((magnitude >> 13) & 1);
    return static_cast<uint16_t>(sign | (rounded >> 13));
#endif
  }
  MVAE_FAST_BOTH static float unpack(uint16_t x) {
    const uint32_t sign = uint32_t{x & 0x8000u} << 16, rest = x & 0x7fffu;
    if (rest >= 0x7c00u) return float_of(sign | 0x7f800000u | (rest & 0x3ffu) << 13);
    if (rest < 0x400u) {
      const float value = static_cast<float>(rest) * 5.9604644775390625e-8f;  // 2^-24
      return sign ? -value : value;
    }
    return float_of(sign | ((rest << 13) + 0x38000000u));
  }
};

}  // namespace mvae_fast::cuda
