// The backward sweep over one window of steps: the discrete adjoint, from the last to the first.
#pragma once

#include "adjoint.h"

namespace mvae_fast::cuda {

// to = the velocity of evaluation `row` at z.
template <class M, class T = typename M::T>
MVAE_FAST_DEVICE void velocity(const Tile<M>& t, int row, const T* z, T* to) {
  const T* y = z;
  for (int l = 1; l < t.p.L; ++l) {
    T* hidden = t.hidden(t.p.tile.y, l);
    product(t, y, t.ld(l - 1), t.weight(row, l), hidden, t.ld(l), false);
    activate(t, row, l, hidden, static_cast<T*>(nullptr), false);
    y = hidden;
  }
  velocity_from(t, row, z, y, to);
}

// The arguments of all stages of `step` from the state z, and the first `stages` velocities.
template <class M, class T = typename M::T>
MVAE_FAST_DEVICE void stages_of(const Tile<M>& t, int step, const T* z, int stages) {
  const auto& p = t.p;
  for (int r = 0; r < p.R; ++r) {
    T* input = t.stage(p.tile.inputs, r);
    combine(t, z, p.h[step], p.a + r * p.R, r, t.at(p.tile.k), input);
    if (r < stages) velocity(t, step * p.R + r, input, t.stage(p.tile.k, r));
  }
}

// Where a block keeps the states between two checkpoints.
template <class M, class T = typename M::T>
MVAE_FAST_DEVICE T* path_of(const Tile<M>& t) {
  return t.p.path + t.cta.index() * t.p.path_size;
}

// z_s of step `step` to the tile's z: saved, or recomputed from the last checkpoint before it. The
// states of a segment are recomputed once, at its last step of the window, and kept for its others.
template <class M, class T = typename M::T>
MVAE_FAST_DEVICE void load_state(const Tile<M>& t, const BackwardPlan<T>& p, int step) {
  const int every = static_cast<int>(p.checkpoint);
  const int within = step % every, segment = step / every;
  const int slot0 = p.tile.slot0;
  T* z = t.at(p.tile.z);
  if (within == 0 || within == every - 1 || step == p.step_end - 1) {
    const T* saved = segment ? p.states + (segment - 1) * p.B * p.D : p.z;
    load_rows(t, saved, p.D, z, false);
    for (int i = 0; i < within; ++i) {
      const int from = segment * every + i;
      stages_of(t, from, z, p.R);
      combine(t, z, p.h[from], p.b, p.R, t.at(p.tile.k), z);
      T* kept = path_of(t) + i * slot0;
      t.cta.each(slot0, [&](int j) { kept[j] = z[j]; });
    }
    return;
  }
  const T* kept = path_of(t) + (within - 1) * slot0;
  t.cta.each(slot0, [&](int j) { z[j] = kept[j]; });
}

// z_bar from the adjoint of the state after `step` to that of z before it.
template <class M, class T = typename M::T>
MVAE_FAST_DEVICE void backward_step(const Tile<M>& t, const BackwardPlan<T>& p, int step) {
  const TileLayout& at = p.tile;
  const T h = p.h[step];
  fill(t, t.at(at.dots), p.rows);  // per row, the adjoint of h
  if (p.R > 1) stages_of(t, step, t.at(at.z), p.R - 1);
  // Penalties add to k_bar, not to z_bar.
  const bool euler = p.R == 1, in_place = euler && !p.values;
  for (int r = p.R - 1; r >= 0; --r) {
    const int into = euler ? at.z_bar : at.input_bar + r * at.slot0;
    if (!in_place)  // k_bar_r = b_r z_bar + sum_q>r a_qr input_bar_q
      t.cta.each(at.slot0, [&](int i) {
        T sum = p.b[r] * t.at(at.z_bar)[i];
        for (int q = r + 1; q < p.R; ++q)
          if (p.a[q * p.R + r] != T(0)) sum += p.a[q * p.R + r] * t.stage(at.input_bar, q)[i];
        t.at(at.k_bar)[i] = sum;
      });
    if (!euler) fill(t, t.at(into), at.slot0);
    evaluation_adjoint(t, p, step * p.R + r, h, p.b[r], euler ? at.z : at.inputs + r * at.slot0,
                       in_place ? at.z_bar : at.k_bar, into);
  }
  if (!euler)
    t.cta.each(at.slot0, [&](int i) {
      T sum = t.at(at.z_bar)[i];
      for (int r = 0; r < p.R; ++r) sum += t.stage(at.input_bar, r)[i];
      t.at(at.z_bar)[i] = sum;
    });
  t.cta.each(1, [&](int) {
    const T* dots = t.at(at.dots);
    T sum = 0;
    for (int r = 0; r < p.rows; ++r) sum += dots[r];
    p.h_bar.parts[(step - p.step_begin) * p.h_bar.stride + t.tile] = sum;
  });
}

// The gradients of the log-density and of the penalties after output `output` join the tile's.
template <class M, class T = typename M::T>
MVAE_FAST_DEVICE void add_scalars(const Tile<M>& t, const BackwardPlan<T>& p, int output) {
  T *logp_bar = t.at(p.tile.logp), *penalty_bar = t.at(p.tile.penalty);
  const int64_t count = penalty_count(p.penalties);
  t.cta.each(t.n(), [&](int r) {
    logp_bar[r] += p.grad_logp[output * p.B + t.begin() + r];
    for_each_penalty(p.penalties, [&](int index, int kind) {
      penalty_bar[kind * p.rows + r] +=
          p.grad_penalty[(output * count + index) * p.B + t.begin() + r];
    });
  });
}

// Everything of one thread block: the tiles index, index + count, ... Between windows z_bar rests
// in the output.
template <class M, class T = typename M::T>
MVAE_FAST_DEVICE void backward_block(const typename M::Cta& cta, const BackwardPlan<T>& p, T* arena,
                                     const typename M::Packed* weights) {
  for (int tile = cta.index(); tile < p.tiles; tile += cta.count()) {
    const Tile<M> t{cta, p, arena, weights, tile};
    fill(t, arena, p.tile.size);
    T* z_bar = t.at(p.tile.z_bar);
    int output = static_cast<int>(p.n_outputs) - 1;
    if (p.step_end < p.S) {
      load_rows(t, p.z_bar, p.D, z_bar, false);
      for (; output >= 0 && p.output(output) > p.step_end; --output) add_scalars(t, p, output);
    }
    for (int step = static_cast<int>(p.step_end) - 1; step >= p.step_begin; --step) {
      if (output >= 0 && p.output(output) == step + 1) {
        load_rows(t, p.grad_z + output * p.B * p.D, p.D, z_bar, true);
        add_scalars(t, p, output--);
      }
      load_state(t, p, step);
      backward_step(t, p, step);
    }
    store_rows(t, z_bar, p.z_bar);
  }
}

}  // namespace mvae_fast::cuda
