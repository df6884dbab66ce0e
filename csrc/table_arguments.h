// The arguments of the ops that integrate a net given by its tables, on any device.
#pragma once

#include "arguments.h"

namespace mvae_fast {

struct Tables {
  const Tensor &weight, &bias;
  const std::optional<Tensor>&gate, &trace, &second;
};

template <class T>
Problem<T> check_tables(const Common& common, const Tables& x) {
  Problem<T> p = check_common<T>(common);
  const Home home = Home::of(common.z);
  const Ints& widths = common.widths;
  const int64_t rows = p.S * p.R;
  int64_t features = 0, weights = 0;
  for (int64_t l = 1; l <= p.L; ++l) {
    features = size_sum(features, widths[l]);
    weights = size_sum(weights, size_product(widths[l], widths[l - 1]));
  }
  require(features < kTooMany && weights < kTooMany, "widths are too large for any tensor");
  p.weight_stride = check_table("weight", x.weight, home, rows, weights);
  p.bias_stride = check_table("bias", x.bias, home, rows, features);
  if (x.gate) p.gate_stride = check_table("gate", *x.gate, home, rows, features);
  if (x.trace) {
    require(p.L <= 3, "trace is given for ", p.L, " layers, but a closed form exists up to 3");
    require(!p.K || (p.penalties & kFrobenius),
            "both trace and probes are given, expected at most one");
    const int64_t size = p.L == 1 ? 1 : p.L == 2 ? widths[1] : widths[1] * widths[2];
    p.trace_stride = check_table("trace", *x.trace, home, rows, size);
  }
  if (x.second) {
    require(x.trace && p.L == 2 && p.R == 1,
            "second needs trace, one hidden layer and Euler's method");
    p.second_stride = check_table("second", *x.second, home, rows, widths[1] * widths[1]);
  }
  p.weight = data<T>(x.weight);
  p.gate = data<T>(x.gate);
  p.bias = data<T>(x.bias);
  p.trace = data<T>(x.trace);
  p.second = data<T>(x.second);
  return p;
}

using Gradients = std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor>;

// Tensors for the gradients of z, h and, with `table_grads`, of the tables that there are.
inline Gradients new_gradients(const Common& common, const Tables& x, bool table_grads) {
  const auto like = [&](bool wanted, const Tensor& t) {
    return wanted ? torch::stable::new_empty(t, t.sizes())
                  : torch::stable::new_empty(common.z, {0});
  };
  const auto like_optional = [&](const std::optional<Tensor>& t) {
    return like(table_grads && t, t ? *t : common.z);
  };
  return {like(true, common.z),   like(true, common.h),      like(table_grads, x.weight),
          like_optional(x.gate),  like(table_grads, x.bias), like_optional(x.trace),
          like_optional(x.second)};
}

template <class T>
BackwardOutputs<T> addresses(const Gradients& x, const Tables& tables, bool table_grads) {
  const auto& [z, h, weight, gate, bias, trace, second] = x;
  BackwardOutputs<T> outputs{};
  outputs.z = out<T>(z);
  outputs.h = out<T>(h);
  if (!table_grads) return outputs;
  outputs.weight = out<T>(weight);
  outputs.bias = out<T>(bias);
  if (tables.gate) outputs.gate = out<T>(gate);
  if (tables.trace) outputs.trace = out<T>(trace);
  if (tables.second) outputs.second = out<T>(second);
  return outputs;
}

}  // namespace mvae_fast
