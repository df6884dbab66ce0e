// A whole solve as the sequence of its launches, for a launcher that runs them on a device or, in
// the tests, on the host. Nothing here waits for the device.
#pragma once

#include "layout.h"

namespace mvae_fast::cuda {

template <class T>
struct ForwardSolve {
  ForwardPlan<T> plan{};
  Launch launch{};
  int64_t* outputs = nullptr;
  int64_t bytes = 0;  // of the workspace
};

// `memory` null: only counts its bytes.
template <class M, class T = typename M::T>
ForwardSolve<T> plan_forward(const Problem<T>& problem, const ForwardOutputs<T>& out,
                             const Device& device, const Settings& settings, void* memory) {
  using Packed = typename M::Packed;
  ForwardSolve<T> x;
  ForwardPlan<T>& p = x.plan;
  Workspace workspace(memory);
  describe(problem, Sweep::forward, p);
  const Work work = work_of<typename M::Operand>(p, Sweep::forward);
  x.launch = choose_launch(work, p.B, device, settings);
  p.rows = x.launch.rows;
  p.tile = forward_layout(p);
  take_blocks(p, x.launch, workspace);
  take_packed<T, Packed>(p, p.S * p.R, workspace);
  x.outputs = workspace.take<int64_t>(p.n_outputs > kInlineOutputs ? p.n_outputs : 0);
  p.outputs = x.outputs;
  p.z_out = out.z;
  p.logp_out = out.logp;
  p.penalty_out = out.penalty;
  p.states = out.states;
  x.bytes = workspace.used();
  return x;
}

template <class T, class Launcher>
void run_forward(const Problem<T>& problem, const ForwardSolve<T>& x, const Launcher& launcher) {
  if (!x.plan.B) return;
  if (x.plan.n_outputs > kInlineOutputs)
    launcher.copy(x.outputs, problem.outputs, problem.n_outputs);
  launcher.pack(pack_jobs(problem, x.plan, Sweep::forward, x.plan.S * x.plan.R, true), x.plan);
  launcher.forward(x.plan, x.launch);
}

template <class T>
struct BackwardSolve {
  BackwardPlan<T> plan{};
  Launch launch{};
  int64_t* outputs = nullptr;
  int64_t span = 0;  // steps of a window
  int64_t tape_bytes = 0, sums_bytes = 0;
  T* sums = nullptr;              // all column sums, to be zeroed
  T* parts[kMaxLayers + 2] = {};  // as `for_each_product` goes
  int64_t bytes = 0;              // of the workspace
};

// f(table, sets, m, k, delta, y) for every gradient (m, k) that is a product over `sets` of the
// batch's rows, in this order: those of all W_l, of M and of Q. delta and y: offsets on the tape.
template <class P, class F>
void for_each_product(P& p, const F& f) {
  auto* layers = p.layers;
  for (int l = 1; l <= p.L; ++l)
    f(p.weights, 1 + p.K, layers[l].m, layers[l - 1].m, layers[l].delta, layers[l].y);
  if (p.m.size) f(p.m, 1, layers[2].m, layers[1].m, p.m_delta, p.m_y);
  if (p.second) f(p.q, 1, layers[1].m, layers[1].m, p.q_delta, p.q_y);
}

// Elements of the partial sums of one product over the rows of `evaluations`, in groups of either
// one of them or all.
inline int64_t parts_size(bool varies, int64_t evaluations, int64_t rows, int64_t m, int64_t k) {
  const int64_t groups = varies ? evaluations : 1;
  return groups * splits_of(rows * evaluations / groups) * m * k;
}

// Lays out everything for windows of `steps` that read the evaluations of `read`; `memory` null:
// only counts it.
template <class Packed, class T>
void lay_out_window(const BackwardOutputs<T>& out, int64_t steps, int64_t read, void* memory,
                    BackwardSolve<T>& x) {
  BackwardPlan<T>& p = x.plan;
  Workspace workspace(memory);
  const int64_t evaluations = steps * p.R;
  x.span = steps;
  take_blocks(p, x.launch, workspace);
  take_packed<T, Packed>(p, read * p.R, workspace);
  x.outputs = workspace.take<int64_t>(p.n_outputs > kInlineOutputs ? p.n_outputs : 0);
  p.outputs = x.outputs;
  p.path_size = (p.checkpoint - 1) * p.tile.slot0;
  p.path = workspace.take<T>(x.launch.grid * p.path_size);
  const int64_t tiles = p.tiles;
  p.h_bar = {workspace.take<T>(steps * tiles), tiles, 0};
  if (!out.weight) return void(x.bytes = workspace.used());

  const int64_t features = p.layers[p.L].features + p.layers[p.L].m;
  const int64_t trace_width = p.exact && p.L < 3 ? (p.L == 1 ? 1 : p.layers[1].m) : 0;
  const int64_t bias_size = (p.bias_stride ? evaluations : 1) * tiles * features;
  const int64_t gate_size = p.gated ? (p.gate_stride ? evaluations : 1) * tiles * features : 0;
  const int64_t trace_size = (p.trace_stride ? evaluations : 1) * tiles * trace_width;
  x.sums_bytes = (bias_size + gate_size + trace_size) * static_cast<int64_t>(sizeof(T));
  x.sums = workspace.take<T>(bias_size + gate_size + trace_size);
  const auto sums = [&](T* parts, int64_t stride, int64_t width) {
    return ColumnSums<T>{parts, stride ? tiles * width : 0, width};
  };
  p.bias_bar = sums(x.sums, p.bias_stride, features);
  if (p.gated) p.gate_bar = sums(x.sums + bias_size, p.gate_stride, features);
  if (trace_width) p.trace_bar = sums(x.sums + bias_size + gate_size, p.trace_stride, trace_width);

  int64_t tape = 0;
  for_each_product(
      p, [&](const Block&, int64_t sets, int64_t m, int64_t k, int64_t& delta, int64_t& y) {
        const int64_t rows = sets * p.B * evaluations;
        delta = tape;
        y = delta + rows * tape_width(m);
        tape = y + rows * tape_width(k);
      });
  x.tape_bytes = tape * static_cast<int64_t>(sizeof(Packed));
  p.tape = workspace.take<Packed>(tape);
  T** next = x.parts;
  for_each_product(
      p, [&](const Block& block, int64_t sets, int64_t m, int64_t k, int64_t, int64_t) {
        *next++ = workspace.take<T>(parts_size(block.stride, evaluations, sets * p.B, m, k));
      });
  x.bytes = workspace.used();
}

template <class M, class T = typename M::T>
BackwardSolve<T> plan_backward(const Problem<T>& problem, const BackwardInputs<T>& in,
                               const BackwardOutputs<T>& out, const Device& device,
                               const Settings& settings, void* memory) {
  using Packed = typename M::Packed;
  BackwardSolve<T> x;
  BackwardPlan<T>& p = x.plan;
  describe(problem, Sweep::backward, p);
  const Work work = work_of<typename M::Operand>(p, Sweep::backward);
  x.launch = choose_launch(work, p.B, device, settings);
  p.rows = x.launch.rows;
  p.tile = backward_layout(p);
  p.grad_z = in.grad_z;
  p.grad_logp = in.grad_logp;
  p.grad_penalty = in.grad_penalty;
  p.states = in.states;
  p.z_bar = out.z;
  // What a step more takes, from the difference that one makes.
  lay_out_window<Packed>(out, 1, 1, nullptr, x);
  const int64_t one = x.bytes;
  lay_out_window<Packed>(out, 2, 2, nullptr, x);
  const int64_t step_bytes = x.bytes - one;
  const int64_t states = (p.S - 1) / p.checkpoint * p.B * p.D * static_cast<int64_t>(sizeof(T));
  const int64_t steps = window_steps(step_bytes, 1, p.S, p.checkpoint, states, settings);
  lay_out_window<Packed>(out, steps, steps_read(steps, p.S, p.checkpoint), memory, x);
  return x;
}

// The products over the rows of a window of `evaluations`, and the sums that finish all gradients.
// `start`: the first window, whose sums overwrite.
template <class T>
Jobs<ProductJob<T>> product_jobs(const BackwardSolve<T>& x, int64_t evaluations) {
  const BackwardPlan<T>& p = x.plan;
  Jobs<ProductJob<T>> jobs{};
  for_each_product(
      p, [&](const Block& block, int64_t sets, int64_t m, int64_t k, int64_t delta, int64_t y) {
        const int64_t groups = block.stride ? evaluations : 1;
        const int64_t rows = sets * p.B * evaluations / groups, splits = splits_of(rows);
        T* parts = x.parts[jobs.count];
        jobs.add({delta, y, m, k, groups, rows, splits, split_rows_of(rows, splits), parts});
      });
  return jobs;
}

template <class T>
Jobs<SumJob<T>> sum_jobs(const BackwardSolve<T>& x, const Jobs<ProductJob<T>>& products,
                         const BackwardOutputs<T>& out, int64_t steps, bool start) {
  const BackwardPlan<T>& p = x.plan;
  Jobs<SumJob<T>> jobs{};
  const int64_t evaluations = steps * p.R, first = p.step_begin * p.R;
  jobs.add({p.h_bar.parts, out.h + p.step_begin, steps, p.tiles, 1, 1, false});
  if (!out.weight) return jobs;
  const auto columns = [&](const ColumnSums<T>& sums, bool varies, T* to) {
    if (!sums.parts) return;
    jobs.add({sums.parts, to + (varies ? first * sums.tile : 0), varies ? evaluations : 1, p.tiles,
              sums.tile, sums.tile, !varies && !start});
  };
  columns(p.bias_bar, p.bias_stride, out.bias);
  columns(p.gate_bar, p.gate_stride, out.gate);
  columns(p.trace_bar, p.trace_stride, out.trace);
  int next = 0;
  const auto product = [&](const Block& block, T* to, int64_t stride) {
    const ProductJob<T>& job = products.job[next++];
    const bool varies = block.stride;
    jobs.add({job.parts, to + (varies ? first * stride : 0), job.groups, job.splits, job.m * job.k,
              stride, !varies && !start});
  };
  const int64_t weights = p.layers[p.L].weight + int64_t{p.layers[p.L].m} * p.layers[p.L - 1].m;
  for (int l = 1; l <= p.L; ++l) product(p.weights, out.weight + p.layers[l].weight, weights);
  if (p.m.size) product(p.m, out.trace, int64_t{p.layers[1].m} * p.layers[2].m);
  if (p.second) product(p.q, out.second, int64_t{p.layers[1].m} * p.layers[1].m);
  return jobs;
}

template <class T, class Launcher>
void run_backward(const Problem<T>& problem, const BackwardOutputs<T>& out, BackwardSolve<T> x,
                  const Launcher& launcher) {
  BackwardPlan<T>& p = x.plan;
  if (p.n_outputs > kInlineOutputs) launcher.copy(x.outputs, problem.outputs, problem.n_outputs);
  bool untraced = false;  // whether some evaluation writes no probe, M or Q to the tape
  for (int r = 0; r < p.R; ++r) untraced |= p.b[r] == T(0);
  const int64_t windows = (p.S + x.span - 1) / x.span;
  for (int64_t w = windows - 1; w >= 0; --w) {
    p.step_begin = w * x.span;
    p.step_end = std::min(p.step_begin + x.span, p.S);
    // The states of the first steps are recomputed from the checkpoint before them.
    const int64_t from = p.step_begin / p.checkpoint * p.checkpoint;
    p.first = from * p.R;
    const int64_t steps = p.step_end - p.step_begin;
    const bool start = p.step_end == p.S;
    if (out.weight && p.B) {
      launcher.zero(x.sums, x.sums_bytes);
      if (untraced && (p.K || p.m.size)) launcher.zero(p.tape, x.tape_bytes);
    }
    if (p.B) {
      launcher.pack(pack_jobs(problem, p, Sweep::backward, (p.step_end - from) * p.R, start), p);
      launcher.backward(p, x.launch);
    }
    Jobs<ProductJob<T>> products{};
    if (out.weight) {
      products = product_jobs(x, steps * p.R);
      launcher.products(products, p.tape);
    }
    launcher.sums(sum_jobs(x, products, out, steps, start));
  }
}

}  // namespace mvae_fast::cuda
