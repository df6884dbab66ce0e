// The nonlinearities with their first two derivatives: phi(a), phi'(a), phi''(a).
//
// float: polynomials (minimax fits). Largest errors over the whole range of float32, as tested:
// softplus 3.5 ulp, its slope 4.5; tanh 2, elu 1.3, swish 5.5; the slopes of tanh and swish 2.4e-7
// absolute. double: the C library, lane by lane; doubles serve as a check, floats are the fast
// path. NaN propagates through all of them, and +-inf gives the limits.
#pragma once

#include <cmath>

#include "../../problem.h"
#include "simd.h"

namespace mvae_fast {
namespace MVAE_FAST_ISA {

// p[0] x^(n-1) + ... + p[n-1]
template <int n>
MVAE_FAST_INLINE Pack<float> polynomial(const float (&p)[n], const Pack<float>& x) {
  Pack<float> y = constant(p[0]);
#pragma GCC unroll 16
  for (int i = 1; i < n; ++i) y = y * x + p[i];
  return y;
}

// e^x for x <= 0; 0 below -104, as in float32. Relative error 2e-9 before rounding.
MVAE_FAST_INLINE Pack<float> exp_nonpositive(const Pack<float>& x) {
  using V = Vec<float>;
  constexpr float kShift = 12582912.0f;  // 1.5 * 2^23: adding it rounds to the nearest integer
  const Pack<float> clamped = map(x, [](V a) { return maximum(splat(-104.0f), a); });
  const Pack<float> shifted = 1.44269504f * clamped + kShift;
  const Pack<float> n = shifted - kShift;
#if defined(__FMA__)
  const Pack<float> r =
      clamped - 0.693147182f * n;  // exact product: only ln 2's own rounding, n * 2e-9, is left
#else
  const Pack<float> r = (clamped - 0.693359375f * n) - -2.12194440e-4f * n;
#endif
  const Pack<float> p = polynomial({1.38368457e-3f, 8.3748158e-3f, 4.16682256e-2f, 0.166664202f,
                                    0.499999921f, 1.00000004f, 1.0f},
                                   r);
  Pack<float> out;
  for (int i = 0; i < Pack<float>::n; ++i) {
#if defined(__AVX512F__)
    out.v[i] = (V)_mm512_scalef_ps((__m512)p.v[i], (__m512)n.v[i]);
#else
    // 2^n in two factors, both normal numbers, so that the product may be denormal.
    using I = Simd<float>::I;
    const I whole = (I)shifted.v[i] - (I)splat(kShift), half = whole >> 1;
    out.v[i] = p.v[i] * (V)((half + 127) << 23) * (V)((whole - half + 127) << 23);
#endif
  }
  return out;
}

// log(1 + e) for 0 <= e <= 1. Relative error 3e-8 before rounding.
MVAE_FAST_INLINE Pack<float> log1p_unit(const Pack<float>& e) {
  return e * polynomial({5.23269268e-3f, -2.95052324e-2f, 7.82259415e-2f, -0.136632449f,
                         0.191060063f, -0.248429821f, 0.333190968f, -0.499994931f, 0.99999997f},
                        e);
}

// e^a - 1 for a <= 0. Relative error 6.3e-9 before rounding.
MVAE_FAST_INLINE Pack<float> expm1_nonpositive(const Pack<float>& a, const Pack<float>& exp_a) {
  const Pack<float> near =
      a +
      a * (a * polynomial(
                   {1.16460679e-3f, 8.23854167e-3f, 4.16500303e-2f, 0.166665638f, 0.49999999f}, a));
  return where_negative(a + 0.5f, exp_a - 1.0f, near);
}

// 1 / x for 1 <= x <= 2: an estimate and one Newton step are cheaper than the divider, to within an
// ulp.
MVAE_FAST_INLINE Pack<float> reciprocal(const Pack<float>& x) {
#if defined(__AVX512F__)
  const Pack<float> estimate =
      map(x, [](Vec<float> a) { return (Vec<float>)_mm512_rcp14_ps((__m512)a); });
  return estimate + estimate * (1.0f - x * estimate);
#else
  return map(x, [](Vec<float> a) { return 1.0f / a; });
#endif
}

// tanh. Relative error 1.8e-8 before rounding below 0.625, absolute one ulp of 1 above.
MVAE_FAST_INLINE Pack<float> tanh_of(const Pack<float>& a) {
  const Pack<float> minus = minus_magnitude(a);
  const Pack<float> e = exp_nonpositive(2.0f * minus);
  const Pack<float> far = (1.0f - e) * reciprocal(1.0f + e);
  const Pack<float> u = a * a;
  const Pack<float> near = a + a * (u * polynomial({-6.10494801e-3f, 2.10036412e-2f,
                                                    -5.38524975e-2f, 0.133327823f, -0.333333291f},
                                                   u));
  return where_negative(minus + 0.625f, where_negative(a, 0.0f - far, far), near);
}

template <class F>
MVAE_FAST_INLINE Pack<double> each(const Pack<double>& a, F f) {
  return map(a, [f](Vec<double> x) {
    for (int64_t i = 0; i < kLanes<double>; ++i) x[i] = f(x[i]);
    return x;
  });
}

MVAE_FAST_INLINE Pack<double> exp_nonpositive(const Pack<double>& a) {
  return each(a, [](double x) { return std::exp(x); });
}
MVAE_FAST_INLINE Pack<double> log1p_unit(const Pack<double>& e) {
  return each(e, [](double x) { return std::log1p(x); });
}
MVAE_FAST_INLINE Pack<double> expm1_nonpositive(const Pack<double>& a, const Pack<double>&) {
  return each(a, [](double x) { return std::expm1(x); });
}
MVAE_FAST_INLINE Pack<double> reciprocal(const Pack<double>& x) {
  return map(x, [](Vec<double> a) { return 1.0 / a; });
}
MVAE_FAST_INLINE Pack<double> tanh_of(const Pack<double>& a) {
  return each(a, [](double x) { return std::tanh(x); });
}

// phi, phi' and phi'' of a pack of pre-activations. What a caller does not use, the compiler drops.
template <class T>
struct Phi {
  Pack<T> y, d1, d2;
};

// log(1 + e^a) = max(a, 0) + log1p(e) with e = e^-|a|, phi' = sigmoid: one exp and one reciprocal
// serve all three.
struct Softplus {
  template <class T>
  MVAE_FAST_INLINE Phi<T> at(const Pack<T>& a) {
    const Pack<T> e = exp_nonpositive(minus_magnitude(a));
    const Pack<T> upper = reciprocal(T(1) + e);
    const Pack<T> lower = e * upper;
    return {positive_part(a) + log1p_unit(e), where_negative(a, lower, upper), lower * upper};
  }
};

struct Tanh {
  template <class T>
  MVAE_FAST_INLINE Phi<T> at(const Pack<T>& a) {
    const Pack<T> y = tanh_of(a);
    const Pack<T> d1 = T(1) - y * y;
    return {y, d1, T(-2) * (y * d1)};
  }
};

struct Relu {
  template <class T>
  MVAE_FAST_INLINE Phi<T> at(const Pack<T>& a) {
    return {positive_part(a), where_negative(T(0) - a, constant(T(1)), constant(T(0))),
            constant(T(0))};
  }
};

struct Elu {
  template <class T>
  MVAE_FAST_INLINE Phi<T> at(const Pack<T>& a) {
    const Pack<T> negative = T(0) - positive_part(T(0) - a);
    const Pack<T> e = exp_nonpositive(negative);
    return {where_negative(a, expm1_nonpositive(negative, e), a),
            where_negative(T(0) - a, constant(T(1)), e),
            where_negative(T(0) - a, constant(T(0)), e)};
  }
};

// a sigmoid(a); a learned slope is folded into gates and biases before it gets here.
struct Silu {
  template <class T>
  MVAE_FAST_INLINE Phi<T> at(const Pack<T>& a) {
    const Pack<T> e = exp_nonpositive(minus_magnitude(a));
    const Pack<T> upper = reciprocal(T(1) + e);
    const Pack<T> lower = e * upper;
    const Pack<T> s = where_negative(a, lower, upper);  // sigmoid(a)
    const Pack<T> complement =
        where_negative(a, upper, lower);  // 1 - sigmoid(a), without cancellation
    return {a * s, s * (T(1) + a * complement), (s * complement) * (T(2) + a * (complement - s))};
  }
};

struct Square {
  template <class T>
  MVAE_FAST_INLINE Phi<T> at(const Pack<T>& a) {
    return {a * a, T(2) * a, constant(T(2))};
  }
};

struct Identity {
  template <class T>
  MVAE_FAST_INLINE Phi<T> at(const Pack<T>& a) {
    return {a, constant(T(1)), constant(T(0))};
  }
};

// f(Act()) for the nonlinearity's Act.
template <class F>
static auto by_nonlinearity(Nonlinearity nonlinearity, const F& f) {
  switch (nonlinearity) {
    case Nonlinearity::softplus:
      return f(Softplus());
    case Nonlinearity::tanh:
      return f(Tanh());
    case Nonlinearity::relu:
      return f(Relu());
    case Nonlinearity::elu:
      return f(Elu());
    case Nonlinearity::silu:
      return f(Silu());
    case Nonlinearity::square:
      return f(Square());
    case Nonlinearity::identity:
      break;
  }
  return f(Identity());
}

}  // namespace MVAE_FAST_ISA
}  // namespace mvae_fast
