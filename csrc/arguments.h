// What the ops that integrate a net have in common, on any device: arguments and their checks.
#pragma once

#include "sizes.h"
#include "torch_face.h"

namespace mvae_fast {

struct Common {
  const Tensor &z, &h;
  const std::optional<Tensor>& probes;
  const Ints& widths;
  int64_t nonlinearity;
  bool residual;
  const Doubles &a, &b;
  const Ints& outputs;
  int64_t checkpoint_every, penalties;
  int64_t operands;
};

// Everything of the problem but the net.
template <class T>
Problem<T> check_common(const Common& x) {
  const Home home = Home::of(x.z);
  const int64_t L = static_cast<int64_t>(x.widths.size()) - 1;
  require(L >= 1, "widths has ", L + 1, " entries, expected at least 2");
  for (int64_t m : x.widths) require(m >= 1, "widths holds ", m, ", expected positive widths");
  const int64_t D = x.widths.front();
  require(x.widths.back() == D, "widths goes from ", D, " to ", x.widths.back(),
          ", expected the same");
  check("z", x.z, home, {-1, D});
  check("h", x.h, home, {-1});

  Problem<T> p{};
  p.B = x.z.size(0);
  p.S = x.h.size(0);
  p.L = L;
  require(p.S >= 1, "h has no steps, expected at least one");
  p.R = static_cast<int64_t>(x.b.size());
  require(p.R >= 1 && x.a.size() == x.b.size() * x.b.size(), "a has ", x.a.size(),
          " entries and b ", p.R, ", expected R * R and R");
  for (int64_t i = 0; i < p.R; ++i)
    for (int64_t j = i; j < p.R; ++j)
      require(x.a[static_cast<size_t>(i * p.R + j)] == 0,
              "a must be zero on and above its diagonal");
  require(p.R > 1 || x.b[0] == 1, "b is ", x.b[0], " for a single stage, expected 1");
  require(size_product(p.S, p.R) < kTooMany, "h has ", p.S, " steps, too many of ", p.R, " stages");
  require(x.checkpoint_every >= 1, "checkpoint_every is ", x.checkpoint_every, ", expected >= 1");
  require(x.penalties >= 0 && x.penalties < 2 * kFrobenius, "penalties is ", x.penalties,
          ", expected a sum of 1, 2, 4 and 8");
  require(!(x.penalties & kFrobenius) || x.probes,
          "penalties includes that of J eps without probes");
  require(x.operands >= 0 && x.operands <= static_cast<int64_t>(Operands::tf32), "operands is ",
          x.operands, ", expected 0 to 3");
  require(!x.operands || home.dtype == ScalarType::Float, "rounded operands need a float32 z");
  if (x.probes) {
    check("probes", *x.probes, home, {-1, p.B, D}, false);
    p.K = x.probes->size(0);
    p.probe_stride = x.probes->stride(0);
    p.probe_row_stride = p.B > 1 ? x.probes->stride(1) : D;
    require(D == 1 || x.probes->stride(2) == 1, "probes must be contiguous in its last axis");
    require(p.probe_row_stride == 0 || p.probe_row_stride == D,
            "probes must be contiguous or expanded over rows");
  }
  require(!x.outputs.empty() && x.outputs.back() == p.S,
          "outputs must end with the number of steps, ", p.S);
  for (size_t i = 0; i < x.outputs.size(); ++i)
    require(x.outputs[i] > (i ? x.outputs[i - 1] : 0), "outputs must ascend from 1");

  p.widths = x.widths.data();
  p.nonlinearity = nonlinearity_of(x.nonlinearity);
  p.operands = static_cast<Operands>(x.operands);
  p.residual = x.residual;
  p.penalties = x.penalties;
  p.a = x.a.data();
  p.b = x.b.data();
  // The same states are saved, and the room for those between two stays within the steps.
  p.checkpoint = x.checkpoint_every < p.S ? x.checkpoint_every : p.S;
  p.z = data<T>(x.z);
  p.h = data<T>(x.h);
  p.probes = p.K ? data<T>(x.probes) : nullptr;
  p.outputs = x.outputs.data();
  p.n_outputs = static_cast<int64_t>(x.outputs.size());
  return p;
}

inline int64_t penalty_count(int64_t penalties) {
  int64_t count = 0;
  for (; penalties; penalties /= 2) count += penalties % 2;
  return count;
}

using Outputs = std::tuple<Tensor, Tensor, Tensor, Tensor>;

template <class T>
Outputs new_outputs(const Problem<T>& p, const Tensor& like, bool save) {
  const int64_t D = p.widths[0], saved = save ? (p.S - 1) / p.checkpoint : 0;
  return {torch::stable::new_empty(like, {p.n_outputs, p.B, D}),
          torch::stable::new_empty(like, {p.n_outputs, p.B}),
          torch::stable::new_empty(like, {p.n_outputs, penalty_count(p.penalties), p.B}),
          torch::stable::new_empty(like, {saved, p.B, D})};
}

template <class T>
ForwardOutputs<T> addresses(const Outputs& x, bool save) {
  return {out<T>(std::get<0>(x)), out<T>(std::get<1>(x)), out<T>(std::get<2>(x)),
          save ? out<T>(std::get<3>(x)) : nullptr};
}

struct GradOutputs {
  const Tensor &z, &logp, &penalty, &states;
};

template <class T>
BackwardInputs<T> check_gradients(const Problem<T>& p, const GradOutputs& x) {
  const int64_t D = p.widths[0];
  const Home home = Home::of(x.z);
  check("grad_z_out", x.z, home, {p.n_outputs, p.B, D});
  check("grad_logp_out", x.logp, home, {p.n_outputs, p.B});
  check("grad_penalty_out", x.penalty, home, {p.n_outputs, penalty_count(p.penalties), p.B});
  check("states", x.states, home, {(p.S - 1) / p.checkpoint, p.B, D});
  return {data<T>(x.z), data<T>(x.logp), data<T>(x.penalty), data<T>(x.states)};
}

}  // namespace mvae_fast
