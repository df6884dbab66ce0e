// The operands of the products: how a packed matrix holds them; a machine says how it rounds them.
// kRate: multiply-adds of mma.sync a clock and SM, which only have to rank launches: half precision
// reaches 60 % of Hopper's peak, and 3xTF32 is six mma where bfloat16 has one.
#pragma once

#include <cstdint>

namespace mvae_fast::cuda {

// float32 as the sum of two tf32 numbers, of which all products but the smallest count: 3 mma.
struct Full {
  static constexpr double kRate = 200;
  template <class T>
  using Packed = T;
};

// 10 bits of mantissa, rounded to nearest, ties away from zero, as cvt.rna does.
struct Tf32 {
  static constexpr double kRate = 600;
  template <class T>
  using Packed = T;
};

struct Half {
  static constexpr double kRate = 1200;
  template <class T>
  using Packed = uint16_t;
};
struct Bf16 : Half {};
struct Fp16 : Half {};

}  // namespace mvae_fast::cuda
