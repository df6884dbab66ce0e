// The nonlinearities with their first two derivatives, on vectors: phi(a), phi'(a), phi''(a).
//
// float: polynomials (Chebyshev fits; the stated errors are those of the exact polynomial, rounding
// adds about one ulp). double: the C library, lane by lane; doubles serve as a check, floats are
// the fast path. NaN propagates through all of them, and +-inf gives the limits.
#pragma once

#include <cmath>

#include "simd.h"

namespace mvae_fast {
namespace MVAE_FAST_ISA {

using VecF = Vec<float>;
using VecD = Vec<double>;

// e^x for x <= 0; 0 below the smallest normal number. Relative error 1.1e-8 before rounding.
static inline VecF exp_nonpositive(VecF x) {
  const VecF shift = splat(12582912.0f);  // 1.5 * 2^23: adding it rounds to the nearest integer
  const VecF clamped = x < -87.3f ? splat(-87.3f) : x;
  const VecF n_shifted = clamped * 1.44269504f + shift;
  const VecF n = n_shifted - shift;
  const VecF r = (clamped - n * 0.693359375f) - n * -2.12194440e-4f;
  VecF p = splat(1.39336435e-3f);
  p = p * r + 8.36317557e-3f;
  p = p * r + 4.1666465e-2f;
  p = p * r + 0.16666577f;
  p = p * r + 0.5f;
  p = p * r * r + r + 1.0f;
  using I = Simd<float>::I;
  const I power = ((I)n_shifted - (I)shift + 127) << 23;
  return x < -87.3f ? splat(0.0f) : p * (VecF)power;
}

// 2 atanh(s) for 0 <= s <= 1/3. Relative error 4e-9 before rounding.
static inline VecF twice_atanh(VecF s) {
  const VecF u = s * s;
  VecF p = splat(0.281746573f);
  p = p * u + 0.279614188f;
  p = p * u + 0.400248537f;
  p = p * u + 0.666663159f;
  p = p * u + 2.0f;
  return s * p;
}

// e^a - 1 for a <= 0. Relative error 6.3e-9 before rounding.
static inline VecF expm1_nonpositive(VecF a, VecF exp_a) {
  VecF p = splat(1.16460679e-3f);
  p = p * a + 8.23854167e-3f;
  p = p * a + 4.16500303e-2f;
  p = p * a + 0.166665638f;
  p = p * a + 0.49999999f;
  return a > -0.5f ? p * a * a + a : exp_a - 1.0f;
}

static inline VecF absolute(VecF a) {
  return a < 0.0f ? -a : a;
}

// tanh. Relative error 1.8e-8 before rounding below 0.625, absolute one ulp of 1 above.
static inline VecF tanh_of(VecF a) {
  const VecF size = absolute(a);
  const VecF e = exp_nonpositive(-2.0f * size);
  const VecF far = (1.0f - e) / (1.0f + e);
  const VecF u = a * a;
  VecF p = splat(-6.10494801e-3f);
  p = p * u + 2.10036412e-2f;
  p = p * u - 5.38524975e-2f;
  p = p * u + 0.133327823f;
  p = p * u - 0.333333291f;
  const VecF near = a + a * u * p;
  return size < 0.625f ? near : (a < 0.0f ? -far : far);
}

template <class F>
static inline VecD each(VecD a, F f) {
  VecD out;
  for (int64_t i = 0; i < kLanes<double>; ++i) out[i] = f(a[i]);
  return out;
}

static inline VecD absolute(VecD a) {
  return a < 0.0 ? -a : a;
}
static inline VecD exp_nonpositive(VecD a) {
  return each(a, [](double x) { return std::exp(x); });
}
static inline VecD twice_atanh(VecD s) {
  return each(s, [](double x) { return 2.0 * std::atanh(x); });
}
static inline VecD expm1_nonpositive(VecD a, VecD) {
  return each(a, [](double x) { return std::expm1(x); });
}
static inline VecD tanh_of(VecD a) {
  return each(a, [](double x) { return std::tanh(x); });
}

// phi, phi' and phi'' of one vector of pre-activations. What a caller does not use, the compiler
// drops.
template <class T>
struct Phi {
  Vec<T> y, d1, d2;
};

// log(1 + e^a) = max(a, 0) + log1p(e) with e = e^-|a|, phi' = sigmoid: one exp and one division
// serve all three.
struct Softplus {
  template <class T>
  static inline Phi<T> at(Vec<T> a) {
    using V = Vec<T>;
    const V e = exp_nonpositive(-absolute(a));
    const V shared = T(1) / ((T(1) + e) * (T(2) + e));
    const V upper = shared * (T(2) + e);  // 1 / (1 + e)
    const V lower = e * upper;
    return {(a < T(0) ? V{} : a) + twice_atanh(e * shared * (T(1) + e)), a < T(0) ? lower : upper,
            lower * upper};
  }
};

struct Tanh {
  template <class T>
  static inline Phi<T> at(Vec<T> a) {
    const Vec<T> y = tanh_of(a);
    const Vec<T> d1 = T(1) - y * y;
    return {y, d1, T(-2) * y * d1};
  }
};

struct Relu {
  template <class T>
  static inline Phi<T> at(Vec<T> a) {
    return {a < T(0) ? Vec<T>{} : a, a > T(0) ? splat(T(1)) : Vec<T>{}, Vec<T>{}};
  }
};

struct Elu {
  template <class T>
  static inline Phi<T> at(Vec<T> a) {
    const Vec<T> negative = a < T(0) ? a : Vec<T>{};
    const Vec<T> e = exp_nonpositive(negative);
    return {a < T(0) ? expm1_nonpositive(negative, e) : a, a > T(0) ? splat(T(1)) : e,
            a > T(0) ? Vec<T>{} : e};
  }
};

// a sigmoid(a); a learned slope is folded into gates and biases before it gets here.
struct Swish {
  template <class T>
  static inline Phi<T> at(Vec<T> a) {
    using V = Vec<T>;
    const V e = exp_nonpositive(-absolute(a));
    const V upper = T(1) / (T(1) + e);
    const V lower = e * upper;
    const V s = a < T(0) ? lower : upper;           // sigmoid(a)
    const V complement = a < T(0) ? upper : lower;  // 1 - sigmoid(a), without cancellation
    return {a * s, s * (T(1) + a * complement), s * complement * (T(2) + a * (complement - s))};
  }
};

struct Square {
  template <class T>
  static inline Phi<T> at(Vec<T> a) {
    return {a * a, T(2) * a, splat(T(2))};
  }
};

struct Identity {
  template <class T>
  static inline Phi<T> at(Vec<T> a) {
    return {a, splat(T(1)), Vec<T>{}};
  }
};

}  // namespace MVAE_FAST_ISA
}  // namespace mvae_fast
