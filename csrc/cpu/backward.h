// The backward sweep: the discrete adjoint of the Euler steps (docs/math.md, section 4). Only the
// states z_s were saved; each step recomputes its hidden layers, but not the last one: both
// gradients that would need f come out of other products (h_bar from y . W'z_bar, the last gate's
// from its weight's).
#pragma once

#include <initializer_list>

#include "solve.h"

namespace mvae_fast {
namespace MVAE_FAST_ISA {

// One worker's share of the gradients that are summed over rows.
template <class T>
struct RowSums {
  T *h, *weight, *gate, *bias, *trace;

  static RowSums take(const Solve<T>& s, bool tables, Arena& arena) {
    RowSums x{};
    x.h = arena.take<T>(s.p->S);
    if (!tables) return x;
    x.weight = arena.take<T>(s.weight_rows * s.gradient_size);
    x.gate = arena.take<T>(s.gate_rows * s.padded_features);
    x.bias = arena.take<T>(s.bias_rows * s.padded_features);
    x.trace = arena.take<T>(s.trace_rows * s.trace_gradient_size);
    return x;
  }
  void clear(const Solve<T>& s) const {
    memset(h, 0, s.p->S * sizeof(T));
    if (!weight) return;
    memset(weight, 0, s.weight_rows * s.gradient_size * sizeof(T));
    memset(gate, 0, s.gate_rows * s.padded_features * sizeof(T));
    memset(bias, 0, s.bias_rows * s.padded_features * sizeof(T));
    memset(trace, 0, s.trace_rows * s.trace_gradient_size * sizeof(T));
  }
  T* weight_of(const Solve<T>& s, int64_t step, int64_t l) const {
    return weight ? weight + (s.weight_rows > 1 ? step : 0) * s.gradient_size + s.layers[l].gradient
                  : nullptr;
  }
  T* gate_of(const Solve<T>& s, int64_t step, int64_t l) const {
    return weight && s.gate_rows ? gate + (s.gate_rows > 1 ? step : 0) * s.padded_features +
                                       s.layers[l].padded_features
                                 : nullptr;
  }
  T* bias_of(const Solve<T>& s, int64_t step, int64_t l) const {
    return weight ? bias + (s.bias_rows > 1 ? step : 0) * s.padded_features +
                        s.layers[l].padded_features
                  : nullptr;
  }
  T* trace_of(const Solve<T>& s, int64_t step) const {
    return weight && s.trace_rows ? trace + (s.trace_rows > 1 ? step : 0) * s.trace_gradient_size
                                  : nullptr;
  }
};

template <class T>
struct BackwardTile {
  int64_t slot;                 // elements of one hidden layer's tile
  T *z, *z_bar, *scaled, *top;  // z_s; its adjoint; h z_bar; G_L z_bar
  T *w, *y, *d1, *d2, *t;       // per hidden layer: W y, phi, phi', phi'', coefficient of phi''
  T *g, *y_bar;                 // G_l a_bar_l and W_l' of it
  T *tangent_w, *tangent_v;     // per hidden layer: W v and v of one probe
  T* tangent_sum;               // per probe: G_1 u_bar_1 summed over steps
  T *tau, *tau_bar, *logp_bar;
  Probes<T> probes;
  RowSums<T> sums;

  static BackwardTile take(const Solve<T>& s, bool tables, Arena& arena) {
    BackwardTile x{};
    const int64_t rows0 = kTile * leading<T>(s.D), hidden = s.L - 1;
    x.slot = kTile * s.widest;
    for (T** piece : {&x.z, &x.z_bar, &x.scaled, &x.top}) *piece = arena.take<T>(rows0);
    for (T** piece : {&x.w, &x.y, &x.d1, &x.d2}) *piece = arena.take<T>(hidden * x.slot);
    x.g = arena.take<T>(x.slot);
    x.y_bar = arena.take<T>(x.slot);
    for (T** piece : {&x.tau, &x.tau_bar, &x.logp_bar}) *piece = arena.take<T>(kTile);
    if (s.p->K || s.p->trace) x.t = arena.take<T>(hidden * x.slot);
    x.probes = Probes<T>::take(s, arena);
    if (s.p->K) {
      x.tangent_w = arena.take<T>(hidden * x.slot);
      x.tangent_v = arena.take<T>(hidden * x.slot);
      x.tangent_sum = arena.take<T>(s.p->K * x.probes.rows * x.probes.ld1);
    }
    x.sums = RowSums<T>::take(s, tables, arena);
    return x;
  }
  T* hidden(T* base, int64_t l) const { return base + (l - 1) * slot; }
};

// Recomputes w, y, phi' and phi'' of every hidden layer from z_s.
template <class T>
static void recompute(const Solve<T>& s, const BackwardTile<T>& t, int64_t step, int64_t n,
                      Activate<T> all) {
  const T* y = t.z;
  for (int64_t l = 1; l < s.L; ++l) {
    const Layer& layer = s.layers[l];
    T* w = t.hidden(t.w, l);
    rows_times<T>(n, layer.m, s.layers[l - 1].m, y, s.layers[l - 1].ld, s.forward_weight(step, l),
                  w, layer.ld, false);
    all({n, padded<T>(layer.m), layer.ld, w, s.gates(step, l), s.biases(step, l), t.hidden(t.y, l),
         t.hidden(t.d1, l), t.hidden(t.d2, l), nullptr, nullptr});
    y = t.hidden(t.y, l);
  }
}

// tau, the coefficients t of phi'' and the table's own gradient, for an exact trace in closed form.
template <class T>
static void closed_form_trace(const Solve<T>& s, const BackwardTile<T>& t, int64_t step,
                              int64_t n) {
  const T* table = s.trace_row(s.trace_forward, step);
  T* gradient = t.sums.trace_of(s, step);
  if (s.L == 1) {
    for (int64_t r = 0; r < n; ++r) {
      t.tau[r] = table[0];
      if (gradient) gradient[0] += t.tau_bar[r];
    }
    return;
  }
  const Layer& first = s.layers[1];
  const T* d1 = t.hidden(t.d1, 1);
  if (s.L == 2) {
    add_row_dots<T>(n, padded<T>(first.m), d1, first.ld, table, 0, T(1), t.tau);
    scale_rows<T>(n, padded<T>(first.m), t.tau_bar, table, 0, t.hidden(t.t, 1), first.ld);
    if (gradient)
      add_scaled_column_sums<T>(n, padded<T>(first.m), t.tau_bar, d1, first.ld, gradient);
    return;
  }
  const Layer& second = s.layers[2];
  const T* d1_second = t.hidden(t.d1, 2);
  T *t1 = t.hidden(t.t, 1), *t2 = t.hidden(t.t, 2);
  rows_times<T>(n, second.m, first.m, d1, first.ld, table, t2, second.ld, false);
  add_row_dots<T>(n, padded<T>(second.m), t2, second.ld, d1_second, second.ld, T(1), t.tau);
  scale_rows<T>(n, padded<T>(second.m), t.tau_bar, t2, second.ld, t2, second.ld);
  scale_rows<T>(n, padded<T>(second.m), t.tau_bar, d1_second, second.ld, t.g, second.ld);
  rows_times<T>(n, first.m, second.m, t.g, second.ld, s.trace_row(s.trace_backward, step), t1,
                first.ld, false);
  if (gradient)
    outer_product<T>(second.m, first.m, n, t.g, second.ld, d1, first.ld, gradient,
                     padded<T>(first.m));
}

// The last layer's weight and gate gradients from the adjoint of its output (before the gate, over
// `scale`).
template <class T>
static void last_layer_gradients(const Solve<T>& s, const BackwardTile<T>& t, int64_t step,
                                 int64_t n, const T* a, int64_t lda, T scale, const T* scaled,
                                 const T* y, int64_t ldy) {
  T* weight = t.sums.weight_of(s, step, s.L);
  if (!weight) return;
  const int64_t before = s.layers[s.L - 1].m, ld = s.layers[s.L].gradient_ld;
  if (T* gate = t.sums.gate_of(s, step, s.L))
    gated_outer_product<T>(s.D, before, n, a, lda, y, ldy, scale, s.gates(step, s.L),
                           s.backward_weight(step, s.L), gate, weight, ld);
  else
    outer_product<T>(s.D, before, n, scaled, lda, y, ldy, weight, ld);
}

// The tangent streams of all probes: tau, the coefficients t of phi'', and their part of the
// tables' gradients.
template <class T>
static void probe_traces(const Solve<T>& s, const BackwardTile<T>& t, int64_t step, int64_t n) {
  const Probes<T>& probes = t.probes;
  const int64_t ld0 = s.layers[0].ld;
  for (int64_t k = 0; k < s.p->K; ++k) {
    const T* v = probes.eps_of(k);
    int64_t ldv = probes.stride(probes.ld0);
    for (int64_t l = 1; l < s.L; ++l) {
      const Layer& layer = s.layers[l];
      const T* w = probes.x_of(k);
      int64_t ldw = probes.stride(probes.ld1);
      if (l > 1) {
        rows_times<T>(n, layer.m, s.layers[l - 1].m, v, ldv, s.forward_weight(step, l),
                      t.hidden(t.tangent_w, l), layer.ld, false);
        w = t.hidden(t.tangent_w, l);
        ldw = layer.ld;
      }
      tangent<T>(n, padded<T>(layer.m), t.hidden(t.d1, l), layer.ld, s.gates(step, l), w, ldw,
                 t.hidden(t.tangent_v, l));
      v = t.hidden(t.tangent_v, l);
      ldv = layer.ld;
    }
    const Layer& last = s.layers[s.L - 1];
    add_row_dots<T>(n, padded<T>(last.m), v, ldv, probes.q_of(k), probes.stride(probes.ldq), T(1),
                    t.tau);
    scale_rows<T>(n, padded<T>(s.D), t.tau_bar, probes.eps_of(k), probes.stride(probes.ld0),
                  t.scaled, ld0);
    last_layer_gradients<T>(s, t, step, n, t.scaled, ld0, T(1), t.scaled, v, ldv);
    if (s.L > 1)
      scale_rows<T>(n, padded<T>(last.m), t.tau_bar, probes.q_of(k), probes.stride(probes.ldq),
                    t.y_bar, last.ld);
    for (int64_t l = s.L - 1; l >= 1; --l) {
      const Layer& layer = s.layers[l];
      const T* w = l > 1 ? t.hidden(t.tangent_w, l) : probes.x_of(k);
      const int64_t ldw = l > 1 ? layer.ld : probes.stride(probes.ld1);
      tangent_adjoint<T>(n, padded<T>(layer.m), layer.ld, t.hidden(t.d1, l), s.gates(step, l), w,
                         ldw, t.y_bar, k == 0, t.hidden(t.t, l), t.g, t.sums.gate_of(s, step, l));
      T* weight = t.sums.weight_of(s, step, l);
      if (l > 1) {
        const Layer& below = s.layers[l - 1];
        if (weight)
          outer_product<T>(layer.m, below.m, n, t.g, layer.ld, t.hidden(t.tangent_v, l - 1),
                           below.ld, weight, layer.gradient_ld);
        rows_times<T>(n, below.m, layer.m, t.g, layer.ld, s.backward_weight(step, l), t.y_bar,
                      below.ld, false);
      } else if (weight && s.weight_rows > 1) {
        outer_product<T>(layer.m, s.D, n, t.g, layer.ld, probes.eps_of(k),
                         probes.stride(probes.ld0), weight, layer.gradient_ld);
      } else if (weight) {
        // W_1's part is sum_s (G_1 u_bar_1)' eps: eps does not change, so sum over the steps first.
        T* total = t.tangent_sum + k * probes.rows * probes.ld1;
        if (probes.rows > 1)
          add_rows<T>(n, padded<T>(layer.m), t.g, layer.ld, total, probes.ld1);
        else
          add_column_sums<T>(n, padded<T>(layer.m), T(1), t.g, layer.ld, total);
      }
    }
  }
}

// The main stream: from z_bar at step s + 1 to z_bar at step s, adding every table's gradient.
template <class T>
static void adjoint_step(const Solve<T>& s, const BackwardTile<T>& t, int64_t step, int64_t n) {
  const Problem<T>& p = *s.p;
  const int64_t D = s.D, ld0 = s.layers[0].ld;
  const T h = p.h[step];
  const Layer& last = s.layers[s.L - 1];
  const T* y = s.L > 1 ? t.hidden(t.y, s.L - 1) : t.z;
  const int64_t width0 = padded<T>(D);

  // h_bar = sum z_bar . f - logp_bar . tau, with z_bar . f = (W_L' G_L z_bar) . y + z_bar . C_L [-
  // z_bar . z].
  T dots[kTile] = {};
  scale_columns<T>(n, width0, T(1), s.gates(step, s.L), t.z_bar, ld0, t.top, ld0);
  rows_times<T>(n, last.m, D, t.top, ld0, s.backward_weight(step, s.L), t.y_bar, last.ld, false);
  add_row_dots<T>(n, padded<T>(last.m), t.y_bar, last.ld, y, last.ld, T(1), dots);
  add_row_dots<T>(n, width0, t.z_bar, ld0, s.biases(step, s.L), 0, T(1), dots);
  if (p.residual) add_row_dots<T>(n, width0, t.z_bar, ld0, t.z, ld0, T(-1), dots);
  for (int64_t r = 0; r < n; ++r) t.sums.h[step] += dots[r] - t.logp_bar[r] * t.tau[r];

  if (T* bias = t.sums.bias_of(s, step, s.L)) add_column_sums<T>(n, width0, h, t.z_bar, ld0, bias);
  scale_columns<T>(n, width0, h, s.ones, t.z_bar, ld0, t.scaled, ld0);
  last_layer_gradients<T>(s, t, step, n, t.z_bar, ld0, h, t.scaled, y, last.ld);

  if (p.residual) scale_columns<T>(n, width0, T(1) - h, s.ones, t.z_bar, ld0, t.z_bar, ld0);
  if (s.L == 1) {
    scale_columns<T>(n, width0, h, s.ones, t.y_bar, ld0, t.y_bar, ld0);
    add_rows<T>(n, width0, t.y_bar, ld0, t.z_bar, ld0);
    return;
  }
  for (int64_t l = s.L - 1; l >= 1; --l) {
    const Layer &layer = s.layers[l], &below = s.layers[l - 1];
    adjoint<T>(n, padded<T>(layer.m), layer.ld, l == s.L - 1 ? h : T(1), t.hidden(t.d1, l), t.y_bar,
               t.hidden(t.d2, l), t.t ? t.hidden(t.t, l) : nullptr, s.gates(step, l),
               t.hidden(t.w, l), t.g, t.sums.bias_of(s, step, l), t.sums.gate_of(s, step, l));
    if (T* weight = t.sums.weight_of(s, step, l))
      outer_product<T>(layer.m, below.m, n, t.g, layer.ld, l > 1 ? t.hidden(t.y, l - 1) : t.z,
                       below.ld, weight, layer.gradient_ld);
    T* to = l > 1 ? t.y_bar : t.z_bar;
    rows_times<T>(n, below.m, layer.m, t.g, layer.ld, s.backward_weight(step, l), to, below.ld,
                  l == 1);
  }
}

template <class T>
static void backward_tile(const Solve<T>& s, const BackwardInputs<T>& in,
                          const BackwardOutputs<T>& out, BackwardTile<T>& t, int64_t begin,
                          int64_t n) {
  const Problem<T>& p = *s.p;
  const int64_t D = s.D, ld0 = s.layers[0].ld;
  const Activate<T> all = activation<T, Keep::all>(p.nonlinearity);
  memset(t.z_bar, 0, n * ld0 * sizeof(T));
  memset(t.logp_bar, 0, n * sizeof(T));
  if (p.K) {
    t.probes.load_tile(s, begin, n);
    memset(t.tangent_sum, 0, p.K * t.probes.rows * t.probes.ld1 * sizeof(T));
  }
  int64_t output = p.n_outputs - 1;
  for (int64_t step = p.S - 1; step >= 0; --step) {
    if (output >= 0 && p.outputs[output] == step + 1) {
      const int64_t at = output * p.B + begin;
      add_rows<T>(n, D, in.grad_z + at * D, D, t.z_bar, ld0);
      for (int64_t r = 0; r < n; ++r) t.logp_bar[r] += in.grad_logp[at + r];
      --output;
    }
    const T* state = step ? in.states + ((step - 1) * p.B + begin) * D : p.z + begin * D;
    copy_rows<T>(n, D, state, D, t.z, ld0);
    recompute<T>(s, t, step, n, all);
    for (int64_t r = 0; r < n; ++r) {
      t.tau[r] = 0;
      t.tau_bar[r] = -p.h[step] * t.logp_bar[r];
    }
    if (p.trace) closed_form_trace<T>(s, t, step, n);
    if (p.K) {
      t.probes.products(s, step, n, step == p.S - 1);
      probe_traces<T>(s, t, step, n);
    }
    adjoint_step<T>(s, t, step, n);
  }
  if (p.K && s.L > 1 && s.weight_rows == 1 && t.sums.weight)
    for (int64_t k = 0; k < p.K; ++k)
      outer_product<T>(s.layers[1].m, D, smaller(t.probes.rows, n),
                       t.tangent_sum + k * t.probes.rows * t.probes.ld1, t.probes.ld1,
                       t.probes.eps_of(k), t.probes.ld0, t.sums.weight_of(s, 0, 1),
                       s.layers[1].gradient_ld);
  for (int64_t r = 0; r < n; ++r) memcpy(out.z + (begin + r) * D, t.z_bar + r * ld0, D * sizeof(T));
}

// to[i] = sum over workers of from[i], in worker order: the same bits for the same number of
// threads.
template <class T>
static void add_workers(int64_t n, const T* from, int64_t workers, int64_t worker_stride, T* to) {
  for (int64_t i = 0; i < n; ++i) to[i] = from[i];
  for (int64_t w = 1; w < workers; ++w)
    for (int64_t i = 0; i < n; ++i) to[i] += from[w * worker_stride + i];
}

// One worker's part of the sum of all workers' gradients, from their padded layout into the
// caller's.
template <class T>
static void reduce(const Solve<T>& s, const RowSums<T>& first, int64_t stride,
                   const BackwardOutputs<T>& out, int64_t workers, int64_t worker) {
  if (worker == 0) add_workers<T>(s.p->S, first.h, workers, stride, out.h);
  if (!out.weight) return;
  const auto features = [&](int64_t rows, const T* from, T* to) {
    for (int64_t step = 0; step < rows; ++step)
      for (int64_t l = 1; l <= s.L; ++l)
        add_workers<T>(s.layers[l].m, from + step * s.padded_features + s.layers[l].padded_features,
                       workers, stride, to + step * s.features + s.layers[l].features);
  };
  if (worker == 0) {
    features(s.bias_rows, first.bias, out.bias);
    if (out.gate) features(s.gate_rows, first.gate, out.gate);
  }
  for (int64_t step = 0; step < s.weight_rows; ++step)
    for (int64_t l = 1; l <= s.L; ++l) {
      const Layer& layer = s.layers[l];
      const int64_t before = s.layers[l - 1].m;
      for (int64_t i = share(layer.m, workers, worker); i < share(layer.m, workers, worker + 1);
           ++i)
        add_workers<T>(
            before, first.weight + step * s.gradient_size + layer.gradient + i * layer.gradient_ld,
            workers, stride, out.weight + step * s.weights + layer.weight + i * before);
    }
  if (!out.trace) return;
  const int64_t rows = s.L == 3 ? s.layers[2].m : 1, columns = s.L == 1 ? 1 : s.layers[1].m;
  for (int64_t step = 0; step < s.trace_rows; ++step)
    for (int64_t i = share(rows, workers, worker); i < share(rows, workers, worker + 1); ++i)
      add_workers<T>(columns, first.trace + step * s.trace_gradient_size + i * padded<T>(columns),
                     workers, stride, out.trace + (step * rows + i) * columns);
}

template <class T>
static int64_t backward_workspace(const Problem<T>& p, const BackwardOutputs<T>& out,
                                  int64_t workers) {
  Arena arena(nullptr);
  const Solve<T> s = lay_out(p, true, arena);
  Arena one(nullptr);
  BackwardTile<T>::take(s, out.weight != nullptr, one);
  return arena.used() + workers * one.used();
}

template <class T>
static void backward(const Problem<T>& p, const BackwardInputs<T>& in,
                     const BackwardOutputs<T>& out, const Threads& threads, void* workspace) {
  Arena arena(workspace);
  const Solve<T> s = lay_out(p, true, arena);
  prepare(s, threads);
  struct Context {
    const Solve<T>* s;
    const BackwardInputs<T>* in;
    const BackwardOutputs<T>* out;
    int64_t workers;
    char* scratch;
    int64_t scratch_size;

    BackwardTile<T> tile(int64_t worker) const {
      Arena arena(scratch + worker * scratch_size);
      return BackwardTile<T>::take(*s, out->weight != nullptr, arena);
    }
  } context{&s, &in, &out, threads.n, static_cast<char*>(workspace) + arena.used(), 0};
  Arena one(nullptr);
  BackwardTile<T>::take(s, out.weight != nullptr, one);
  context.scratch_size = one.used();
  threads.run(
      threads.n,
      [](void* opaque, int64_t worker) {
        const Context& c = *static_cast<Context*>(opaque);
        BackwardTile<T> tile = c.tile(worker);
        tile.sums.clear(*c.s);
        const int64_t begin = share(c.s->p->B, c.workers, worker),
                      end = share(c.s->p->B, c.workers, worker + 1);
        const int64_t tiles = (end - begin + kTile - 1) / kTile;
        for (int64_t i = 0; i < tiles; ++i) {
          const int64_t from = begin + share(end - begin, tiles, i),
                        to = begin + share(end - begin, tiles, i + 1);
          backward_tile<T>(*c.s, *c.in, *c.out, tile, from, to - from);
        }
      },
      &context);
  threads.run(
      threads.n,
      [](void* opaque, int64_t worker) {
        const Context& c = *static_cast<Context*>(opaque);
        reduce<T>(*c.s, c.tile(0).sums, c.scratch_size / static_cast<int64_t>(sizeof(T)), *c.out,
                  c.workers, worker);
      },
      &context);
}

}  // namespace MVAE_FAST_ISA
}  // namespace mvae_fast
