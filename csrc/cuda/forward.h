// The forward sweep: a thread block carries its tiles of rows through all layers and all steps
// (docs/math.md, sections 2 and 3).
#pragma once

#include "activation.h"
#include "penalties.h"
#include "tile.h"

namespace mvae_fast::cuda {

// to (+)= sum_c x[r][c] y[r][c] for every row.
template <class M, class T = typename M::T>
MVAE_FAST_DEVICE void row_dots(const Tile<M>& t, int width, int ld, const T* x, const T* y, T* to,
                               bool add) {
  t.cta.each_row(t.p.rows, [&](int r, auto lanes) {
    T sum = 0;
    lanes.each(width, [&](int c) { sum += x[r * ld + c] * y[r * ld + c]; });
    sum = lanes.sum(sum);
    if (lanes.first()) to[r] = add ? to[r] + sum : sum;
  });
}

// Layer l of evaluation `row`: from W y to y, in place; where wanted also phi' and, for a net of
// one hidden layer, the exact trace.
template <class M, class T = typename M::T>
MVAE_FAST_DEVICE void activate(const Tile<M>& t, int row, int l, T* w, T* d1, bool traced) {
  const int m = t.m(l), ld = t.ld(l);
  const T* table = traced ? t.p.trace + row * t.p.trace_stride : nullptr;
  T* tau = t.at(t.p.tile.tau);
  by_nonlinearity(t.p.nonlinearity, [&](auto act) {
    t.cta.each_row(t.p.rows, [&](int r, auto lanes) {
      T sum = 0;
      lanes.each(m, [&](int c) {
        const auto phi = act.at(t.gate(row, l, c) * w[r * ld + c] + t.bias(row, l, c));
        w[r * ld + c] = phi.y;
        if (d1) d1[r * ld + c] = phi.d1;
        if (traced) sum += phi.d1 * table[c];
      });
      if (!traced) return;
      sum = lanes.sum(sum);
      if (lanes.first()) tau[r] = sum;
    });
  });
}

// W_L v of probe k to `u`, from phi' of all hidden layers. Layer l's W v and v go to w_of(l) and
// v_of(l), which may be one.
template <class M, class W, class V, class T = typename M::T>
MVAE_FAST_DEVICE void tangents(const Tile<M>& t, int row, int k, const W& w_of, const V& v_of) {
  const Plan<T>& p = t.p;
  T* eps = t.at(p.tile.eps);
  load_rows(t, p.probes + k * p.probe_stride, p.probe_row_stride, eps, false);
  const T* v = eps;
  for (int l = 1; l < p.L; ++l) {
    T *w = w_of(l), *to = v_of(l);
    const T* d1 = t.hidden(p.tile.d1, l);
    product(t, v, t.ld(l - 1), t.weight(row, l), w, t.ld(l), false);
    const int m = t.m(l), ld = t.ld(l);
    t.cta.each_row(p.rows, [&](int r, auto lanes) {
      lanes.each(
          m, [&](int c) { to[r * ld + c] = t.gate(row, l, c) * d1[r * ld + c] * w[r * ld + c]; });
    });
    v = to;
  }
  product(t, v, t.ld(p.L - 1), t.weight(row, p.L), t.at(p.tile.u), t.ld(0), false);
}

// The traces of all probes, and `scale` times their |J eps|^2, from phi' of all hidden layers.
template <class M, class T = typename M::T>
MVAE_FAST_DEVICE void add_probe_traces(const Tile<M>& t, int evaluation, T scale) {
  const Plan<T>& p = t.p;
  for (int k = 0; k < p.K; ++k) {
    const int row = here(evaluation);
    T *eps = t.at(p.tile.eps), *u = t.at(p.tile.u);
    const auto slot = [&](int l) { return t.at(p.tile.tangent_v) + l % 2 * p.tile.slot; };
    tangents(t, row, k, slot, slot);
    T *tau = t.at(p.tile.tau), *penalty = t.at(p.tile.penalty) + kFrobeniusRow * p.rows;
    t.cta.each_row(p.rows, [&](int r, auto lanes) {
      T dot = 0, square = 0;
      lanes.each(p.D, [&](int c) {
        const T e = eps[r * t.ld(0) + c], v = t.gate(row, p.L, c) * u[r * t.ld(0) + c];
        const T total = p.residual ? v - e : v;
        dot += e * v;
        square += total * total;
      });
      dot = lanes.sum(dot);
      square = lanes.sum(square);
      if (!lanes.first()) return;
      if (p.probe_trace) tau[r] += dot;
      if (p.frobenius) penalty[r] += scale * square;
    });
  }
}

// Evaluation `row` of the net at `z`: the last layer's product (before gate and bias) to f, and,
// where `traced`, tau.
template <class M, class T = typename M::T>
MVAE_FAST_DEVICE void evaluate(const Tile<M>& t, int row, T scale, const T* z, bool traced, T* f) {
  const Plan<T>& p = t.p;
  const bool slopes = traced && (p.K || p.second || (p.exact && p.L == 3));
  const bool by_table = traced && p.exact && p.L == 2;
  T* tau = t.at(p.tile.tau);
  if (!by_table) {
    const T start = traced && p.exact && p.L == 1 ? p.trace[row * p.trace_stride] : T(0);
    t.cta.each(p.rows, [&](int r) { tau[r] = start; });
  }
  const T* y = z;
  for (int l = 1; l < p.L; ++l) {
    T* to = t.at(p.tile.y) + l % 2 * p.tile.slot;
    product(t, y, t.ld(l - 1), t.weight(row, l), to, t.ld(l), false);
    activate(t, row, l, to, slopes ? t.hidden(p.tile.d1, l) : nullptr, by_table);
    y = to;
  }
  T* const times = t.at(p.tile.product);
  if (traced && p.exact && p.L == 3) {
    product(t, t.hidden(p.tile.d1, 1), t.ld(1), t.trace_matrix(row), times, t.ld(2), false);
    row_dots(t, t.m(2), t.ld(2), times, t.hidden(p.tile.d1, 2), tau, false);
  }
  if (p.second) {
    const T* d1 = t.hidden(p.tile.d1, 1);
    product(t, d1, t.ld(1), t.second_matrix(row), times, t.ld(1), false);
    row_dots(t, t.m(1), t.ld(1), times, d1, t.at(p.tile.tau_second), false);
  }
  if (M::kProbes && traced && p.K) add_probe_traces(t, row, scale);
  product(t, y, t.ld(p.L - 1), t.weight(row, p.L), f, t.ld(0), false);
}

// f = G f + C [- input]: from the last layer's product to the velocity.
template <class M, class T = typename M::T>
MVAE_FAST_DEVICE void finish_velocity(const Tile<M>& t, int row, const T* input, T* f) {
  const Plan<T>& p = t.p;
  const int ld = t.ld(0);
  t.cta.each_row(p.rows, [&](int r, auto lanes) {
    lanes.each(p.D, [&](int c) {
      const T v = t.gate(row, p.L, c) * f[r * ld + c] + t.bias(row, p.L, c);
      f[r * ld + c] = p.residual ? v - input[r * ld + c] : v;
    });
  });
}

// One step: z to the next state, logp to its log-density change.
template <class M, class T = typename M::T>
MVAE_FAST_DEVICE void forward_step(const Tile<M>& t, int step) {
  const Plan<T>& p = t.p;
  const T h = p.h[step];
  T *z = t.at(p.tile.z), *k = t.at(p.tile.k);
  T *logp = t.at(p.tile.logp), *tau = t.at(p.tile.tau), *second = t.at(p.tile.tau_second);
  for (int r = 0; r < p.R; ++r) {
    const int row = step * p.R + r;
    const T scale = h * p.b[r];
    const bool traced = (p.exact || p.K) && p.b[r] != T(0);
    const T* input = z;
    if (r > 0) {
      combine(t, z, h, p.a + r * p.R, r, k, t.at(p.tile.input));
      input = t.at(p.tile.input);
    }
    T* velocity = k + r * p.tile.slot0;
    evaluate(t, row, scale, input, traced, velocity);
    if (traced)
      t.cta.each(p.rows, [&](int i) {
        logp[i] -= scale * tau[i];
        if (p.second) logp[i] += h * h / 2 * second[i];
      });
    finish_velocity(t, row, input, velocity);
    if (p.values && p.b[r] != T(0)) add_value_penalties(t, velocity, scale);
  }
  combine(t, z, h, p.b, p.R, k, z);
}

template <class M, class T = typename M::T>
MVAE_FAST_DEVICE void write_output(const Tile<M>& t, const ForwardPlan<T>& p, int output) {
  const T *logp = t.at(p.tile.logp), *penalty = t.at(p.tile.penalty);
  const int64_t at = output * p.B + t.begin(), count = penalty_count(p.penalties);
  store_rows(t, t.at(p.tile.z), p.z_out + output * p.B * p.D);
  t.cta.each(t.n(), [&](int r) {
    p.logp_out[at + r] = logp[r];
    for_each_penalty(p.penalties, [&](int index, int kind) {
      p.penalty_out[(output * count + index) * p.B + t.begin() + r] = penalty[kind * p.rows + r];
    });
  });
}

// Everything of one thread block: the tiles index, index + count, ...
template <class M, class T = typename M::T>
MVAE_FAST_DEVICE void forward_block(const typename M::Cta& cta, const ForwardPlan<T>& p, T* arena,
                                    const typename M::Packed* weights) {
  for (int tile = cta.index(); tile < p.tiles; tile += cta.count()) {
    const Tile<M> t{cta, p, arena, weights, tile};
    // The whole arena once: columns past a width are never written, and have to be finite.
    fill(t, arena, p.tile.size);
    load_rows(t, p.z, p.D, t.at(p.tile.z), false);
    int output = 0;
    for (int step = 0; step < p.S; ++step) {
      forward_step(t, step);
      const int done = step + 1;
      if (p.states && done < p.S && done % p.checkpoint == 0)
        store_rows(t, t.at(p.tile.z), p.states + (done / p.checkpoint - 1) * p.B * p.D);
      if (p.output(output) == done) write_output(t, p, output++);
    }
  }
}

}  // namespace mvae_fast::cuda
