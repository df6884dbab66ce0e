// The primitives of the CPU's kernels against plain loops and the C library, without torch: for
// compilers and processors where the package itself cannot be tested. Compiled as
// csrc/cpu/kernels.cpp is, once per instruction set:
//
//   c++ -std=c++17 -O3 -fno-math-errno -fno-trapping-math -DMVAE_FAST_ISA=avx2 -mavx2 -mfma
//       -I csrc tests/cpp/primitives.cpp -o primitives && ./primitives
//
// Prints the first case that fails of each kind and exits with 1, or a line that says what passed.

#include <cmath>
#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <limits>
#include <random>
#include <type_traits>
#include <vector>

#include "cpu/simd/products.h"
#include "cpu/simd/sums.h"

namespace mvae_fast::MVAE_FAST_ISA {
namespace {

int failures = 0, cases = 0;

__attribute__((format(printf, 2, 3))) void expect(bool good, const char* format, ...) {
  ++cases;
  if (good) return;
  ++failures;
  va_list arguments;
  va_start(arguments, format);
  std::vprintf(format, arguments);
  std::printf("\n");
  va_end(arguments);
}

template <class T>
constexpr const char* kName = std::is_same_v<T, float> ? "float" : "double";

template <class T>
constexpr double kEpsilon = std::numeric_limits<T>::epsilon();

std::mt19937_64 generator(0);

template <class T>
std::vector<T> random_numbers(int64_t n) {
  std::normal_distribution<double> normal;
  std::vector<T> x(static_cast<size_t>(n));
  for (T& value : x) value = static_cast<T>(normal(generator));
  return x;
}

// What a product's sum of n terms may be off, whatever its order: n roundings of its terms' size.
template <class T>
double bound(int64_t n, double magnitude) {
  return kEpsilon<T> * static_cast<double>(n + 1) * magnitude;
}

// C (rows, n) (+)= A (rows, k) B (k, n), of B packed from either orientation.
template <class T>
void check_rows_times(int64_t rows, int64_t n, int64_t k, bool transposed, bool accumulate) {
  const int64_t lda = leading<T>(k), ldc = leading<T>(n);
  const std::vector<T> a = random_numbers<T>(rows * lda), b = random_numbers<T>(k * n);
  std::vector<T> c = random_numbers<T>(rows * ldc), packed(static_cast<size_t>(k * padded<T>(n)));
  const std::vector<T> before = c;
  const int64_t along = transposed ? 1 : n, across = transposed ? k : 1;
  Arena none(nullptr);
  const Products<T> products = Products<T>::take(false, 0, none);
  for (int64_t worker = 0; worker < 2; ++worker)
    Products<T>::pack(false, packed.data(), k, n, b.data(), along, across, 2, worker);
  products.rows_times(rows, n, k, a.data(), lda, packed.data(), c.data(), ldc, accumulate);
  for (int64_t i = 0; i < rows; ++i)
    for (int64_t j = 0; j < padded<T>(n); ++j) {
      double exact = accumulate ? before[i * ldc + j] : 0, magnitude = std::abs(exact);
      for (int64_t t = 0; t < k && j < n; ++t) {
        const double term = static_cast<double>(a[i * lda + t]) * b[t * along + j * across];
        exact += term;
        magnitude += std::abs(term);
      }
      const double error = std::abs(c[i * ldc + j] - exact);
      if (error <= bound<T>(k, magnitude)) continue;
      return expect(false, "rows_times<%s> (%d x %d) by %d%s%s: off by %g at (%d, %d)", kName<T>,
                    int(rows), int(k), int(n), transposed ? ", transposed" : "",
                    accumulate ? ", added" : "", error, int(i), int(j));
    }
  expect(true, " ");
}

// C (m, n) += A (rows, m)' B (rows, n), plain and gated.
template <class T>
void check_outer_product(int64_t m, int64_t n, int64_t rows, bool gated) {
  const int64_t lda = leading<T>(m), ldb = leading<T>(n), ldc = padded<T>(n);
  const std::vector<T> a = random_numbers<T>(rows * lda), w = random_numbers<T>(m * n),
                       gate = random_numbers<T>(m);
  std::vector<T> b = random_numbers<T>(rows * ldb), c = random_numbers<T>(m * ldc),
                 packed(static_cast<size_t>(m * padded<T>(n))), gate_gradient(m, T(0));
  const std::vector<T> before = c;
  const T scale = T(0.25);
  Arena none(nullptr);
  const Products<T> products = Products<T>::take(false, 0, none);
  if (gated) {
    Products<T>::pack(false, packed.data(), m, n, w.data(), n, 1, 1, 0);
    products.gated_outer_product(m, n, rows, a.data(), lda, b.data(), ldb, scale, gate.data(),
                                 packed.data(), gate_gradient.data(), c.data(), ldc);
  } else {
    products.outer_product(m, n, rows, a.data(), lda, b.data(), ldb, c.data(), ldc);
  }
  for (int64_t i = 0; i < m; ++i) {
    double gate_exact = 0, gate_magnitude = 0;
    for (int64_t j = 0; j < n; ++j) {
      double product = 0, magnitude = 0;
      for (int64_t r = 0; r < rows; ++r) {
        const double term = static_cast<double>(a[r * lda + i]) * b[r * ldb + j];
        product += term;
        magnitude += std::abs(term);
      }
      gate_exact += scale * w[i * n + j] * product;
      gate_magnitude += std::abs(scale * w[i * n + j]) * magnitude;
      const double factor = gated ? static_cast<double>(scale) * gate[i] : 1;
      const double exact = before[i * ldc + j] + factor * product;
      magnitude = std::abs(before[i * ldc + j]) + std::abs(factor) * magnitude;
      const double error = std::abs(c[i * ldc + j] - exact);
      if (error <= bound<T>(rows + 2, magnitude)) continue;
      return expect(false, "outer_product<%s>%s (%d x %d) over %d rows: off by %g at (%d, %d)",
                    kName<T>, gated ? ", gated" : "", int(m), int(n), int(rows), error, int(i),
                    int(j));
    }
    const double error = std::abs(gate_gradient[i] - gate_exact);
    if (gated && error > bound<T>(rows + n, gate_magnitude))
      return expect(false, "gated_outer_product<%s> (%d x %d) over %d rows: gate off by %g at %d",
                    kName<T>, int(m), int(n), int(rows), error, int(i));
  }
  expect(true, " ");
}

// to = from transposed and added, at any size.
template <class T>
void check_transposed(int64_t rows, int64_t columns) {
  const int64_t ld_from = padded<T>(columns), ld = padded<T>(rows);
  const std::vector<T> from = random_numbers<T>(rows * ld_from);
  std::vector<T> to(static_cast<size_t>(columns * ld), T(0));
  add_transposed<T>(rows, columns, from.data(), ld_from, to.data(), ld);
  for (int64_t i = 0; i < rows; ++i)
    for (int64_t j = 0; j < columns; ++j)
      if (to[j * ld + i] != from[i * ld_from + j])
        return expect(false, "add_transposed<%s> (%d x %d): wrong at (%d, %d)", kName<T>, int(rows),
                      int(columns), int(i), int(j));
  expect(true, " ");
}

// The sums over a tile's rows and along them.
template <class T>
void check_sums(int64_t rows, int64_t columns) {
  const int64_t width = padded<T>(columns), ld = leading<T>(columns);
  std::vector<T> a = random_numbers<T>(rows * ld), weight = random_numbers<T>(rows);
  for (int64_t r = 0; r < rows; ++r)
    for (int64_t f = columns; f < ld; ++f) a[r * ld + f] = 0;
  std::vector<T> sums(static_cast<size_t>(width), T(1)), scaled = sums;
  std::vector<T> dots(static_cast<size_t>(rows), T(1));
  add_column_sums<T>(rows, width, T(0.5), a.data(), ld, sums.data());
  add_scaled_column_sums<T>(rows, width, weight.data(), a.data(), ld, scaled.data());
  add_row_dots<T>(rows, width, a.data(), ld, a.data(), ld, T(0.5), dots.data());
  for (int64_t f = 0; f < columns; ++f) {
    double plain = 1, scaled_sum = 1, magnitude = 1, scaled_magnitude = 1;
    for (int64_t r = 0; r < rows; ++r) {
      const double value = a[r * ld + f], term = value * weight[r];
      plain += value / 2;
      magnitude += std::abs(value) / 2;
      scaled_sum += term;
      scaled_magnitude += std::abs(term);
    }
    if (std::abs(sums[f] - plain) > bound<T>(rows, magnitude) ||
        std::abs(scaled[f] - scaled_sum) > bound<T>(rows, scaled_magnitude))
      return expect(false, "column sums<%s> of (%d x %d): off by %g and %g in column %d", kName<T>,
                    int(rows), int(columns), std::abs(sums[f] - plain),
                    std::abs(scaled[f] - scaled_sum), int(f));
  }
  for (int64_t r = 0; r < rows; ++r) {
    double exact = 1;
    for (int64_t f = 0; f < columns; ++f)
      exact += static_cast<double>(a[r * ld + f]) * a[r * ld + f] / 2;
    if (std::abs(dots[r] - exact) > bound<T>(columns, exact))
      return expect(false, "add_row_dots<%s> of (%d x %d): off by %g in row %d", kName<T>,
                    int(rows), int(columns), std::abs(dots[r] - exact), int(r));
  }
  expect(true, " ");
}

// Many additions to the sums of several workers: no further off than a few of them would be.
template <class T>
void check_long_sums(int64_t workers, int64_t additions) {
  constexpr int64_t kRows = 2, kSize = 71, n = kRows * kSize;
  Arena one(nullptr);
  Sums<T>::take(kRows, kSize, additions, one);
  std::vector<char> memory(static_cast<size_t>(workers * one.used() + 64));
  char* const start = memory.data() + (64 - reinterpret_cast<uintptr_t>(memory.data()) % 64) % 64;
  std::vector<double> exact(n, 0.0);
  for (int64_t w = 0; w < workers; ++w) {
    Arena own(start + w * one.used());
    const Sums<T> sums = Sums<T>::take(kRows, kSize, additions, own);
    sums.clear();
    for (int64_t i = 1; i <= additions; ++i) {
      for (int64_t j = 0; j < n; ++j) {
        const T value = static_cast<T>(1 + (i * (j + 7)) % 13 / 13.0);
        sums.part[j] += value;
        exact[j] += value;
      }
      if (i % kAdditions == 0) sums.flush();
    }
  }
  Arena own(start);
  std::vector<T> total(n);
  add_workers(Sums<T>::take(kRows, kSize, additions, own), 0, n, workers, one.used(), total.data());
  for (int64_t j = 0; j < n; ++j) {
    const double error = std::abs(total[j] - exact[j]);
    if (error > 4 * std::numeric_limits<float>::epsilon() * exact[j])
      return expect(false, "sums<%s> of %d additions by %d workers: off by %g of %g at %d",
                    kName<T>, int(additions), int(workers), error, exact[j], int(j));
  }
  expect(true, " ");
}

// phi, phi' and phi'' by the C library. The wider type where there is one, so that its own rounding
// does not count. Written to cancel nowhere.
struct Exact {
  long double y, d1, d2;
};

Exact exact(Nonlinearity nonlinearity, long double a) {
  const long double e = std::exp(-std::abs(a)), upper = 1 / (1 + e), lower = e * upper;
  const long double s = a < 0 ? lower : upper, complement = a < 0 ? upper : lower;
  switch (nonlinearity) {
    case Nonlinearity::softplus:
      return {(a > 0 ? a : 0) + std::log1p(e), s, lower * upper};
    case Nonlinearity::tanh: {
      const long double y = std::tanh(a),
                        d1 = 4 * std::exp(-2 * std::abs(a)) /
                             ((1 + std::exp(-2 * std::abs(a))) * (1 + std::exp(-2 * std::abs(a))));
      return {y, d1, -2 * y * d1};
    }
    case Nonlinearity::relu:
      return {a > 0 ? a : 0, a > 0 ? 1.0L : 0.0L, 0};
    case Nonlinearity::elu:
      return {a > 0 ? a : std::expm1(a), a > 0 ? 1 : std::exp(a), a > 0 ? 0 : std::exp(a)};
    case Nonlinearity::silu:
      return {a * s, s * (1 + a * complement), s * complement * (2 + a * (complement - s))};
    case Nonlinearity::square:
      return {a * a, 2 * a, 2};
    case Nonlinearity::identity:
      break;
    case Nonlinearity::gelu: {
      const long double cdf = std::erfc(-a * std::sqrt(0.5L)) / 2;
      const long double density = std::exp(-a * a / 2) * 0.398942280401432677939946L;
      return {a * cdf, cdf + a * density, density * (2 - a * a)};
    }
    case Nonlinearity::gelu_tanh: {
      const long double k0 = 1.59576912160573071175978L, k1 = 0.044715L * k0;
      const long double g = k0 * a + k1 * a * a * a, slope = k0 + 3 * k1 * a * a;
      const long double gate = 1 / (1 + std::exp(-g)), rest = 1 / (1 + std::exp(g));
      return {a * gate, gate + a * slope * gate * rest,
              gate * rest * (2 * slope + 6 * k1 * a * a + a * slope * slope * (rest - gate))};
    }
    case Nonlinearity::selu: {
      const long double scale = 1.05070098735548049341934L,
                        slope = scale * 1.67326324235437728481704L;
      return {a > 0 ? scale * a : slope * std::expm1(a), a > 0 ? scale : slope * std::exp(a),
              a > 0 ? 0 : slope * std::exp(a)};
    }
    case Nonlinearity::leaky_relu:
      return {a > 0 ? a : 0.01L * a, a > 0 ? 1 : 0.01L, 0};
    case Nonlinearity::sigmoid:
      return {s, lower * upper, -lower * upper * std::tanh(a / 2)};
    case Nonlinearity::sin:
      return {std::sin(a), std::cos(a), -std::sin(a)};
  }
  return {a, 1, 0};
}

// Bounds in ulps of the exact value, or where negative absolute ones, in units of epsilon: of what
// passes through zero, or is a difference.
struct Bounds {
  const char* name;
  Nonlinearity nonlinearity;
  double y, d1, d2;
};

constexpr Bounds kBounds[] = {{"softplus", Nonlinearity::softplus, 4, 5, 10},
                              {"tanh", Nonlinearity::tanh, 2.5, -2.5, -5},
                              {"relu", Nonlinearity::relu, 0, 0, 0},
                              {"elu", Nonlinearity::elu, 2, 5, 5},
                              {"silu", Nonlinearity::silu, 6, -2.5, -5},
                              {"square", Nonlinearity::square, 0.5, 0, 0},
                              {"identity", Nonlinearity::identity, 0, 0, 0},
                              {"gelu", Nonlinearity::gelu, 7.5, -2.5, -5},
                              {"gelu_tanh", Nonlinearity::gelu_tanh, 6, -2.5, -5},
                              {"selu", Nonlinearity::selu, 3, 5, 5},
                              {"leaky_relu", Nonlinearity::leaky_relu, 1, 0.5, 0},
                              {"sigmoid", Nonlinearity::sigmoid, 4, 6, -1},
                              {"sin", Nonlinearity::sin, 2, -2, 2}};

// In units of the last place of `wanted`; below the normal numbers, of theirs, and so up to 64
// times the smallest: a factor may be below while its product with the pre-activation is not.
template <class T>
double error_in_ulps(T got, long double wanted, double limit) {
  const long double difference = std::abs(static_cast<long double>(got) - wanted);
  if (limit < 0) return static_cast<double>(difference / kEpsilon<T>);
  int exponent = 0;
  std::frexp(wanted, &exponent);
  const int smallest = std::numeric_limits<T>::min_exponent + 6;
  const int place = (exponent > smallest ? exponent : smallest) - std::numeric_limits<T>::digits;
  return static_cast<double>(std::ldexp(difference, -place));
}

template <class T, class Act>
void check_activation(const Bounds& bounds, Act) {
  std::vector<T> points{T(0), -T(0)};
  const double largest = std::is_same_v<T, float> ? 80 : 300;
  for (double size = 1e-30; size < largest; size *= 1.01)
    for (double sign : {1.0, -1.0}) points.push_back(static_cast<T>(sign * size));
  constexpr int64_t width = Pack<T>::n * kLanes<T>;
  while (points.size() % width) points.push_back(T(1));
  double worst[3] = {}, where[3] = {};
  const double limits[3] = {bounds.y, bounds.d1, bounds.d2};
  for (size_t at = 0; at < points.size(); at += width) {
    Pack<T> a;
    for (int i = 0; i < Pack<T>::n; ++i) a.v[i] = load(points.data() + at + i * kLanes<T>);
    const Phi<T> phi = Act::at(a);
    for (int i = 0; i < Pack<T>::n; ++i)
      for (int64_t lane = 0; lane < kLanes<T>; ++lane) {
        const T x = points[at + i * kLanes<T> + lane];
        const Exact wanted = exact(bounds.nonlinearity, x);
        const T got[3] = {phi.y.v[i][lane], phi.d1.v[i][lane], phi.d2.v[i][lane]};
        const long double values[3] = {wanted.y, wanted.d1, wanted.d2};
        for (int k = 0; k < 3; ++k) {
          const double error = error_in_ulps(got[k], values[k], limits[k]);
          if (error > worst[k] || error != error) {
            worst[k] = error;
            where[k] = x;
          }
        }
      }
  }
  const char* names[3] = {"", "'", "''"};
  for (int k = 0; k < 3; ++k)
    expect(worst[k] <= std::abs(limits[k]), "%s%s<%s> at %.9g: off by %.3g %s, allowed %.3g",
           bounds.name, names[k], kName<T>, where[k], worst[k], limits[k] < 0 ? "epsilon" : "ulps",
           std::abs(limits[k]));
}

// NaN comes through, and infinities give the limits of phi, phi' and phi'', where these are finite.
template <class T, class Act>
void check_limits(const Bounds& bounds, Act) {
  const T infinity = std::numeric_limits<T>::infinity();
  const double scale = 1.05070098735548049342, least = 1.75809934084737685994;
  const bool gelu =
      bounds.nonlinearity == Nonlinearity::gelu || bounds.nonlinearity == Nonlinearity::gelu_tanh;
  const bool selu = bounds.nonlinearity == Nonlinearity::selu;
  const Phi<T> none = Act::at(constant(std::numeric_limits<T>::quiet_NaN()));
  const Phi<T> low = Act::at(constant(-infinity)), high = Act::at(constant(infinity));
  for (int i = 0; i < Pack<T>::n; ++i) {
    expect(std::isnan(none.y.v[i][0]), "%s<%s>: no NaN of NaN", bounds.name, kName<T>);
    if (bounds.nonlinearity == Nonlinearity::sin)
      expect(std::isnan(low.y.v[i][0]) && std::isnan(high.d1.v[i][0]),
             "sin<%s>: no NaN of infinity", kName<T>);
    if (gelu || selu || bounds.nonlinearity == Nonlinearity::sigmoid) {
      const T above = gelu || selu ? infinity : T(1);
      const T slope = gelu ? T(1) : selu ? T(scale) : T(0);
      expect(low.y.v[i][0] == (selu ? T(-least) : T(0)) && high.y.v[i][0] == above &&
                 low.d1.v[i][0] == 0 && high.d1.v[i][0] == slope && low.d2.v[i][0] == 0 &&
                 high.d2.v[i][0] == 0,
             "%s<%s>: wrong limits", bounds.name, kName<T>);
    }
  }
}

// Beyond where the reduction by multiples of pi is exact, and at the borders.
template <class T>
void check_large_sines() {
  constexpr int64_t width = Pack<T>::n * kLanes<T>;
  std::vector<T> points;
  for (double size = 300; size < 1e30; size *= 1.003)
    for (double sign : {1.0, -1.0}) points.push_back(static_cast<T>(sign * size));
  for (int k = 1; k < 40'000; k += 7)  // where a sine is small
    points.push_back(static_cast<T>(k * 3.14159265358979323846));
  points.resize(points.size() / width * width);
  for (size_t at = 0; at < points.size(); at += width) {
    Pack<T> a;
    for (int i = 0; i < Pack<T>::n; ++i) a.v[i] = load(points.data() + at + i * kLanes<T>);
    const Phi<T> phi = Sin::at(a);
    for (int i = 0; i < Pack<T>::n; ++i)
      for (int64_t lane = 0; lane < kLanes<T>; ++lane) {
        const long double x = points[at + i * kLanes<T> + lane];
        const double sine = error_in_ulps(phi.y.v[i][lane], std::sin(x), 2);
        const double cosine = error_in_ulps(phi.d1.v[i][lane], std::cos(x), -2);
        if (sine <= 2 && cosine <= 2) continue;
        return expect(false, "sin<%s> at %.9Lg: off by %.3g ulps, cosine by %.3g epsilon", kName<T>,
                      x, sine, cosine);
      }
  }
  expect(true, " ");
}

template <class T>
void check_all() {
  for (int64_t rows : {1, 2, 5, 12, 13, 48})
    for (int64_t n : {1, 3, 8, 17, 33, 70})
      for (int64_t k : {1, 2, 7, 16, 31, 70})
        for (int flags = 0; flags < 4; ++flags)
          check_rows_times<T>(rows, n, k, flags & 1, flags & 2);
  for (int64_t m : {1, 5, 13, 64})
    for (int64_t n : {1, 9, 32, 67})
      for (int64_t rows : {1, 2, 47, 48})
        for (bool gated : {false, true}) check_outer_product<T>(m, n, rows, gated);
  for (int64_t rows : {1, 3, 16, 37})
    for (int64_t columns : {1, 4, 16, 33}) {
      check_transposed<T>(rows, columns);
      check_sums<T>(rows, columns);
    }
  for (int64_t workers : {1, 2, 5})
    for (int64_t additions : {1, 64, 65, 100'000}) check_long_sums<T>(workers, additions);
  for (const Bounds& bounds : kBounds)
    by_nonlinearity(bounds.nonlinearity, [&](auto act) {
      check_activation<T>(bounds, act);
      check_limits<T>(bounds, act);
    });
  check_large_sines<T>();
}

}  // namespace
}  // namespace mvae_fast::MVAE_FAST_ISA

#define MVAE_FAST_TEXT_OF(x) #x
#define MVAE_FAST_TEXT(x) MVAE_FAST_TEXT_OF(x)

int main() {
  namespace here = mvae_fast::MVAE_FAST_ISA;
  here::check_all<float>();
  here::check_all<double>();
  if (here::failures == 0)
    std::printf("%s: %d cases passed\n", MVAE_FAST_TEXT(MVAE_FAST_ISA), here::cases);
  return here::failures == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
