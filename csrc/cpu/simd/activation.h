// The nonlinearities with their first two derivatives: phi(a), phi'(a), phi''(a).
//
// float: polynomials (minimax fits). Largest errors over the whole range of float32, as tested:
// softplus 3.5 ulp, its slope 4.5; tanh 2, elu 1.3, swish 5.5; gelu 7.1 (5.7 above -4), gelu_tanh
// 4.9, selu 2, its slope 4.9, sigmoid and its slope 4.3, sin 1.9; the slopes of tanh, swish, gelu,
// gelu_tanh and sin 2.4e-7 absolute; phi'' of gelu 1.3e-7, of gelu_tanh 2.9e-7. double: the C
// library, lane by lane: gelu 2.6 ulp, gelu_tanh 2.5; doubles serve as a check, floats are the fast
// path. NaN propagates through all of them, and +-inf gives the limits, where there are any; swish
// and its derivatives have NaN where these are products of 0 and inf.
#pragma once

#include <cmath>

#include "../../problem.h"
#include "simd.h"

#if defined(__aarch64__)
#include <arm_neon.h>
#endif

namespace mvae_fast::MVAE_FAST_ISA {

// p[0] x^(n-1) + ... + p[n-1]
template <int n>
MVAE_FAST_INLINE Pack<float> polynomial(const float (&p)[n], const Pack<float>& x) {
  Pack<float> y = constant(p[0]);
#pragma GCC unroll 16
  for (int i = 1; i < n; ++i) y = y * x + p[i];
  return y;
}

// x y - xy, for xy within a few roundings of x y: to the last bit or nearly so.
template <class T>
MVAE_FAST_INLINE Vec<T> product_error(Vec<T> x, Vec<T> y, Vec<T> xy) {
  constexpr bool single = sizeof(T) == 4;
#if defined(__AVX512F__)
  if constexpr (single)
    return (Vec<T>)_mm512_fmsub_ps((__m512)x, (__m512)y, (__m512)xy);
  else
    return (Vec<T>)_mm512_fmsub_pd((__m512d)x, (__m512d)y, (__m512d)xy);
#elif defined(__FMA__)
  if constexpr (single)
    return (Vec<T>)_mm256_fmsub_ps((__m256)x, (__m256)y, (__m256)xy);
  else
    return (Vec<T>)_mm256_fmsub_pd((__m256d)x, (__m256d)y, (__m256d)xy);
#elif defined(__aarch64__)
  if constexpr (single)
    return (Vec<T>)vfmaq_f32(-(float32x4_t)xy, (float32x4_t)x, (float32x4_t)y);
  else
    return (Vec<T>)vfmaq_f64(-(float64x2_t)xy, (float64x2_t)x, (float64x2_t)y);
#else
  // By halves of the digits, whose products are exact (Dekker).
  using I = typename Simd<T>::I;
  const I upper_half = I{} - (single ? int64_t{1} << 12 : int64_t{1} << 27);
  const Vec<T> xh = (Vec<T>)((I)x & upper_half), yh = (Vec<T>)((I)y & upper_half);
  const Vec<T> xl = x - xh, yl = y - yh;
  return ((xh * yh - xy) + (xh * yl + xl * yh)) + xl * yl;
#endif
}

template <class T>
MVAE_FAST_INLINE Pack<T> product_error(const Pack<T>& x, const Pack<T>& y, const Pack<T>& xy) {
  Pack<T> out;
  MVAE_FAST_LANES out.v[i] = product_error<T>(x.v[i], y.v[i], xy.v[i]);
  return out;
}

// min(max(a, -end), end), NaN for NaN.
template <class T>
MVAE_FAST_INLINE Pack<T> within(const Pack<T>& a, T end) {
  return map(a, [end](Vec<T> x) { return -maximum(splat(-end), -maximum(splat(-end), x)); });
}

// max(a, least), NaN for NaN.
template <class T>
MVAE_FAST_INLINE Pack<T> at_least(const Pack<T>& a, T least) {
  return map(a, [least](Vec<T> x) { return maximum(splat(least), x); });
}

// e^x for x <= 0; 0 below -104, as in float32. Relative error 2e-9 before rounding. With `low`
// e^(x + low) for |low| < 1e-3, of what x lost in rounding: at -80 that is 30 ulps of the result.
MVAE_FAST_INLINE Pack<float> exp_nonpositive(const Pack<float>& x,
                                             const Pack<float>* low = nullptr) {
  using V = Vec<float>;
  constexpr float kShift = 12582912.0f;  // 1.5 * 2^23: adding it rounds to the nearest integer
  const Pack<float> clamped = map(x, [](V a) { return maximum(splat(-104.0f), a); });
  const Pack<float> shifted = 1.44269504f * clamped + kShift;
  const Pack<float> n = shifted - kShift;
#if defined(__FMA__)
  Pack<float> r =
      clamped - 0.693147182f * n;  // exact product: only ln 2's own rounding, n * 2e-9, is left
#else
  Pack<float> r = (clamped - 0.693359375f * n) - -2.12194440e-4f * n;
#endif
  if (low) r = r + *low;
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

// 1 / x to 14 bits at least.
MVAE_FAST_INLINE Pack<float> reciprocal_estimate(const Pack<float>& x) {
#if defined(__AVX512F__)
  return map(x, [](Vec<float> a) { return (Vec<float>)_mm512_rcp14_ps((__m512)a); });
#else
  return map(x, [](Vec<float> a) { return 1.0f / a; });
#endif
}

// 1 / x for 1 <= x <= 2: an estimate and one Newton step are cheaper than the divider, to within an
// ulp.
MVAE_FAST_INLINE Pack<float> reciprocal(const Pack<float>& x) {
#if defined(__AVX512F__)
  const Pack<float> estimate = reciprocal_estimate(x);
  return estimate + estimate * (1.0f - x * estimate);
#else
  return reciprocal_estimate(x);
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

// 1 / sqrt(2 pi)
constexpr double kDensity = 0.39894228040143268;

// The normal distribution's Phi(x) for x <= 0, with e = e^(-x^2/2): a factor that is a polynomial
// of t = 1 / (1 + q) with q = 0.4 |x|. Relative error 4.2e-8 before rounding. One of t counts twice
// near 0, so its Newton step asks for t + q t = 1 and not for the rounded 1 + q: phi has 4.1 ulps
// there, not 7.
MVAE_FAST_INLINE Pack<float> normal_tail(const Pack<float>& x, const Pack<float>& e) {
  const Pack<float> q = -0.4f * x, estimate = reciprocal_estimate(1.0f + q);
  const Pack<float> t = estimate + estimate * ((1.0f - estimate) - q * estimate);
  return e *
         (t * polynomial({3.22276801e-2f, -0.176874101f, 0.382408172f, -0.374100536f, 0.11947643f,
                          -2.6792828e-2f, 9.13040116e-2f, 0.133149117f, 0.159626096f, 0.159575969f},
                         t));
}

template <class T>
struct SinCos {
  Pack<T> sine, cosine;
};

// Beyond this the multiple of pi that is taken off has too many digits for the arithmetic below.
#if defined(__FMA__) || defined(__aarch64__)
constexpr float kSinEnd = 1e5f;
#else
constexpr float kSinEnd = 2.5e4f;
#endif

// Lanes of |a| > kSinEnd, inf and NaN, by the C library. Others keep what they have: a number's
// sine does not depend on its neighbours.
__attribute__((noinline)) static void sin_cos_far(const Pack<float>& a, SinCos<float>& out) {
  for (int i = 0; i < Pack<float>::n; ++i)
    for (int64_t lane = 0; lane < kLanes<float>; ++lane) {
      const double x = a.v[i][lane];
      if (std::abs(x) <= kSinEnd) continue;
      out.sine.v[i][lane] = static_cast<float>(std::sin(x));
      out.cosine.v[i][lane] = static_cast<float>(std::cos(x));
    }
}

MVAE_FAST_INLINE bool any_beyond(const Pack<float>& a, float end) {
  using I = Simd<float>::I;
  const I largest = (I)splat(end);
  I beyond{};
  for (int i = 0; i < Pack<float>::n; ++i)  // as integers, where inf and NaN are larger still
    beyond |= ((I)a.v[i] & INT32_MAX) > largest;
#if defined(__AVX512F__)
  return _mm512_test_epi32_mask((__m512i)beyond, (__m512i)beyond);
#elif defined(__AVX__)
  return _mm256_movemask_ps((__m256)beyond);
#else
  int64_t words[kVectorBytes / 8], any = 0;
  memcpy(words, &beyond, sizeof(beyond));
  for (int64_t word : words) any |= word;
  return any;
#endif
}

// With a = k pi + r, |r| <= pi/2: (-1)^k times sine and cosine of r. Errors before rounding 7e-9,
// relative that of the sine, absolute that of the cosine.
MVAE_FAST_INLINE SinCos<float> sin_cos(const Pack<float>& a) {
  using V = Vec<float>;
  using I = Simd<float>::I;
  constexpr float kShift = 12582912.0f;  // as in exp_nonpositive
  const Pack<float> shifted = 0.318309886f * a + kShift;
  const Pack<float> k = shifted - kShift;
#if defined(__FMA__) || defined(__aarch64__)
  // Exact products.
  const Pack<float> r = ((a - 3.14159274f * k) - -8.74227766e-8f * k) - -3.43024902e-15f * k;
#else
  // Parts of 11 bits, of k 13: exact products.
  const Pack<float> r =
      (((a - 3.140625f * k) - 9.67502594e-4f * k) - 1.50990672e-7f * k) - 5.12668814e-12f * k;
#endif
  const Pack<float> u = r * r;
  const Pack<float> sine =
      r + r * (u * polynomial({2.59974172e-6f, -1.98069683e-4f, 8.33303202e-3f, -0.166666582f}, u));
  const Pack<float> cosine =
      u * polynomial({-2.61401027e-7f, 2.47666885e-5f, -1.38885295e-3f, 4.1666653e-2f, -0.5f}, u) +
      1.0f;
  SinCos<float> out;
  for (int i = 0; i < Pack<float>::n; ++i) {
    const I sign = (I)shifted.v[i] << 31;
    out.sine.v[i] = (V)((I)sine.v[i] ^ sign);
    out.cosine.v[i] = (V)((I)cosine.v[i] ^ sign);
  }
  if (__builtin_expect(any_beyond(a, kSinEnd), 0)) sin_cos_far(a, out);
  return out;
}

template <class F>
MVAE_FAST_INLINE Pack<double> each(const Pack<double>& a, F f) {
  return map(a, [f](Vec<double> x) {
    for (int64_t i = 0; i < kLanes<double>; ++i) x[i] = f(x[i]);
    return x;
  });
}

MVAE_FAST_INLINE Pack<double> exp_nonpositive(const Pack<double>& a,
                                              const Pack<double>* low = nullptr) {
  const Pack<double> e = each(a, [](double x) { return std::exp(x); });
  return low ? e + e * (*low + 0.5 * (*low * *low)) : e;
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

// erfc's argument is rounded, of which the first order is put back.
MVAE_FAST_INLINE Pack<double> normal_tail(const Pack<double>& x, const Pack<double>& e) {
  constexpr double kRoot = 1.4142135623730951, kRootLow = -9.6672933134529135e-17;  // sqrt(2)
  const Pack<double> y = 0.70710678118654757 * x;
  const Pack<double> left = product_error(constant(kRoot), y, x) + kRootLow * y;  // sqrt(2) y - x
  return 0.5 * each(y, [](double q) { return std::erfc(-q); }) - kDensity * (e * left);
}
MVAE_FAST_INLINE SinCos<double> sin_cos(const Pack<double>& a) {
  return {each(a, [](double x) { return std::sin(x); }),
          each(a, [](double x) { return std::cos(x); })};
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

// a Phi(a) with the normal distribution's Phi, whose tail is computed as such: 1 + erf(a / sqrt(2))
// cancels for negative a.
struct Gelu {
  template <class T>
  MVAE_FAST_INLINE Phi<T> at(const Pack<T>& a) {
    constexpr T kEnd = sizeof(T) == 4 ? 14.5 : 39;  // from there on e is 0
    const Pack<T> c = within(a, kEnd), square = c * c;
    const Pack<T> low = T(-0.5) * product_error(c, c, square);
    const Pack<T> e = exp_nonpositive(T(-0.5) * square, &low);
    const Pack<T> tail = normal_tail(minus_magnitude(c), e);
    const Pack<T> cdf = where_negative(a, tail, T(1) - tail);
    const Pack<T> density = T(kDensity) * e;
    return {at_least(a, -kEnd) * cdf, cdf + c * density, density * (T(2) - square)};
  }
};

// a sigmoid(g) with g = k0 a + k1 a^3, which is a (1 + tanh(g/2)) / 2 without its cancellation. g
// in two numbers: the rounding of one alone would be up to 60 ulps of the result.
struct GeluTanh {
  template <class T>
  MVAE_FAST_INLINE Phi<T> at(const Pack<T>& a) {
    constexpr bool single = sizeof(T) == 4;
    constexpr T kEnd = single ? 10.75 : 22;  // from there on e^-g is 0
    // 2 sqrt(2/pi), its first half, that p - k0 be exact, and the rest; and that times 0.044715.
    constexpr T k0 = single ? 1.59570312f : 1.5957691073417664;
    constexpr T k0_low = single ? 6.59966026e-5f : 1.4263964354337909e-8;
    constexpr T k1 = single ? 0.0713548139f : 0.071354816272600249;
    constexpr T k1_low = single ? 2.39883247e-9f : -6.175149918155315e-19;
    const Pack<T> c = within(a, kEnd), minus = minus_magnitude(c), square = c * c;
    const Pack<T> p = k1 * square + k0;
    const Pack<T> p_low = product_error(constant(k1), square, p - k0) +
                          (k1 * product_error(c, c, square) + (k1_low * square + k0_low));
    const Pack<T> g = minus * p, g_low = product_error(minus, p, g) + minus * p_low;
    const Pack<T> e = exp_nonpositive(g, &g_low);
    const Pack<T> upper = reciprocal(T(1) + e);
    const Pack<T> lower = e * upper;
    const Pack<T> s = where_negative(a, lower, upper);
    const Pack<T> complement = where_negative(a, upper, lower);
    const Pack<T> slope = (T(3) * k1) * square + (k0 + k0_low);  // g'
    const Pack<T> a_slope = c * slope;
    return {at_least(a, -kEnd) * s, s * (T(1) + a_slope * complement),
            (s * complement) *
                (T(2) * slope + (T(6) * k1) * square + (a_slope * slope) * (complement - s))};
  }
};

struct Selu {
  template <class T>
  MVAE_FAST_INLINE Phi<T> at(const Pack<T>& a) {
    constexpr T kScale = 1.0507009873554804934, kSlope = 1.7580993408473768599;  // scale * alpha
    const Pack<T> negative = T(0) - positive_part(T(0) - a);
    const Pack<T> e = exp_nonpositive(negative), d = kSlope * e;
    return {where_negative(a, kSlope * expm1_nonpositive(negative, e), kScale * a),
            where_negative(T(0) - a, constant(kScale), d),
            where_negative(T(0) - a, constant(T(0)), d)};
  }
};

struct LeakyRelu {
  template <class T>
  MVAE_FAST_INLINE Phi<T> at(const Pack<T>& a) {
    constexpr T kLeak = 0.01;
    return {where_negative(a, kLeak * a, a),
            where_negative(T(0) - a, constant(T(1)), constant(kLeak)), constant(T(0))};
  }
};

struct Sigmoid {
  template <class T>
  MVAE_FAST_INLINE Phi<T> at(const Pack<T>& a) {
    const Pack<T> e = exp_nonpositive(minus_magnitude(a));
    const Pack<T> upper = reciprocal(T(1) + e);
    const Pack<T> lower = e * upper;
    const Pack<T> d1 = lower * upper;
    const Pack<T> difference = (T(1) - e) * upper;  // |1 - 2 sigmoid(a)|
    return {where_negative(a, lower, upper), d1,
            d1 * where_negative(a, difference, T(0) - difference)};
  }
};

struct Sin {
  template <class T>
  MVAE_FAST_INLINE Phi<T> at(const Pack<T>& a) {
    const SinCos<T> x = sin_cos(a);
    return {x.sine, x.cosine, T(0) - x.sine};
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
    case Nonlinearity::gelu:
      return f(Gelu());
    case Nonlinearity::gelu_tanh:
      return f(GeluTanh());
    case Nonlinearity::selu:
      return f(Selu());
    case Nonlinearity::leaky_relu:
      return f(LeakyRelu());
    case Nonlinearity::sigmoid:
      return f(Sigmoid());
    case Nonlinearity::sin:
      return f(Sin());
  }
  return f(Identity());
}

}  // namespace mvae_fast::MVAE_FAST_ISA
