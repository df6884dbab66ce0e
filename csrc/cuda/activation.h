// The nonlinearities with their first two derivatives: phi(a), phi'(a), phi''(a).
#pragma once

#include <cmath>

#include "../problem.h"
#include "qualifiers.h"

namespace mvae_fast::cuda {

template <class T>
struct Phi {
  T y, d1, d2;
};

// log(1 + e) for 0 <= e <= 1: a polynomial, relative error 3e-8, where log1pf would take the
// special function unit a second time (csrc/cpu/simd/activation.h has the same).
MVAE_FAST_DEVICE float log1p_unit(float e) {
  float y = 5.23269268e-3f;
  y = y * e - 2.95052324e-2f;
  y = y * e + 7.82259415e-2f;
  y = y * e - 0.136632449f;
  y = y * e + 0.191060063f;
  y = y * e - 0.248429821f;
  y = y * e + 0.333190968f;
  y = y * e - 0.499994931f;
  y = y * e + 0.99999997f;
  return e * y;
}
MVAE_FAST_DEVICE double log1p_unit(double e) {
  return std::log1p(e);
}

// 1 / x for 1 <= x <= 2, to within an ulp and without the branches of IEEE's division.
MVAE_FAST_DEVICE float reciprocal(float x) {
#if defined(__CUDACC__)
  return __fdividef(1.0f, x);
#else
  return 1.0f / x;
#endif
}
MVAE_FAST_DEVICE double reciprocal(double x) {
  return 1.0 / x;
}

// exp(-|a|) cannot overflow; the two sigmoids from it have no cancellation.
template <class T>
struct Sigmoid {
  T e, upper, lower;
  MVAE_FAST_DEVICE explicit Sigmoid(T a)
      : e(std::exp(a < T(0) ? a : -a)), upper(reciprocal(T(1) + e)), lower(e * upper) {}
};

template <Nonlinearity kind>
struct Act {
  template <class T>
  static MVAE_FAST_DEVICE Phi<T> at(T a) {
    if constexpr (kind == Nonlinearity::softplus) {
      const Sigmoid<T> s(a);
      return {(a > T(0) ? a : T(0)) + log1p_unit(s.e), a < T(0) ? s.lower : s.upper,
              s.lower * s.upper};
    } else if constexpr (kind == Nonlinearity::tanh) {
      const T y = std::tanh(a), d1 = T(1) - y * y;
      return {y, d1, T(-2) * y * d1};
    } else if constexpr (kind == Nonlinearity::relu) {
      return {a < T(0) ? T(0) : a, a > T(0) ? T(1) : T(0), T(0)};
    } else if constexpr (kind == Nonlinearity::elu) {
      if (a > T(0)) return {a, T(1), T(0)};
      const T e = std::exp(a);
      return {std::expm1(a), e, e};
    } else if constexpr (kind == Nonlinearity::silu) {
      // A learned slope is folded into gates and biases before it gets here.
      const Sigmoid<T> sigmoid(a);
      const T s = a < T(0) ? sigmoid.lower : sigmoid.upper;
      const T complement = a < T(0) ? sigmoid.upper : sigmoid.lower;
      return {a * s, s * (T(1) + a * complement), s * complement * (T(2) + a * (complement - s))};
    } else if constexpr (kind == Nonlinearity::square) {
      return {a * a, T(2) * a, T(2)};
    } else {
      return {a, T(1), T(0)};
    }
  }
};

// f(Act()) for the nonlinearity's Act, of those that ops.cpp lets pass: the branch is taken once a
// pass, not once an element.
template <class F>
MVAE_FAST_DEVICE void by_nonlinearity(Nonlinearity nonlinearity, const F& f) {
  switch (nonlinearity) {
    case Nonlinearity::softplus:
      return f(Act<Nonlinearity::softplus>());
    case Nonlinearity::tanh:
      return f(Act<Nonlinearity::tanh>());
    case Nonlinearity::relu:
      return f(Act<Nonlinearity::relu>());
    case Nonlinearity::elu:
      return f(Act<Nonlinearity::elu>());
    case Nonlinearity::silu:
      return f(Act<Nonlinearity::silu>());
    case Nonlinearity::square:
      return f(Act<Nonlinearity::square>());
    case Nonlinearity::identity:
      return f(Act<Nonlinearity::identity>());
    default:  // refused in ops.cpp
      return;
  }
}

}  // namespace mvae_fast::cuda
