// Products and sums of sizes that cannot wrap around. What would, or a negative one, is kTooMany,
// and so is whatever is made of that: a caller checks the last result only.
#pragma once

#include <cstdint>

namespace mvae_fast {

constexpr int64_t kTooMany = INT64_MAX;

// Static, like all that the kernels use: see cpu/kernels.cpp.
static inline int64_t checked_size(bool wraps, int64_t a, int64_t b, int64_t result) {
  const bool good = !wraps && a >= 0 && b >= 0 && a < kTooMany && b < kTooMany;
  return good ? result : kTooMany;
}

static inline int64_t size_product(int64_t a, int64_t b) {
  int64_t result = 0;
  const bool wraps = __builtin_mul_overflow(a, b, &result);
  return checked_size(wraps, a, b, result);
}

static inline int64_t size_sum(int64_t a, int64_t b) {
  int64_t result = 0;
  const bool wraps = __builtin_add_overflow(a, b, &result);
  return checked_size(wraps, a, b, result);
}

// Row length of an activation tile of m numbers of `bytes` each: an odd number of cache lines, so
// that rows spread over all sets of the L1 cache.
static inline int64_t row_length(int64_t m, int64_t bytes) {
  const int64_t line = 64 / bytes;
  return line * ((m + line - 1) / line | 1);
}

}  // namespace mvae_fast
