// From a problem to a plan: offsets on a tile's arena, among the packed matrices, in the workspace.
#pragma once

#include <initializer_list>

#include "jobs.h"
#include "launch.h"
#include "penalties.h"

namespace mvae_fast::cuda {

// Hands out 256-byte aligned pieces of a workspace, or, without one, counts them.
class Workspace {
 public:
  explicit Workspace(void* base) : base_(static_cast<char*>(base)) {}
  template <class T>
  T* take(int64_t n) {
    T* piece = base_ ? reinterpret_cast<T*>(base_ + used_) : nullptr;
    used_ += round_up(n * static_cast<int64_t>(sizeof(T)), 256);
    return piece;
  }
  int64_t used() const { return used_; }

 private:
  char* base_;
  int64_t used_ = 0;
};

inline int64_t widest(const Layer* layers, int L) {
  int64_t ld = 0;
  for (int l = 0; l <= L; ++l) ld = std::max<int64_t>(ld, layers[l].ld);
  return ld;
}

class TileArena {
 public:
  explicit TileArena(int64_t rows) : rows_(rows) {}
  // `n` rows-high pieces of row length `ld`, if `wanted`.
  int64_t take(bool wanted, int64_t n, int64_t ld) {
    const int64_t at = used_;
    if (wanted) used_ += n * ld * rows_;
    return at;
  }
  int64_t used() const { return used_; }

 private:
  int64_t rows_, used_ = 0;
};

template <class T>
void lay_out_common(const Plan<T>& p, TileArena& arena, TileLayout& x) {
  const int64_t ld = widest(p.layers, p.L), ld0 = p.layers[0].ld;
  x.slot = ld * p.rows;
  x.slot0 = ld0 * p.rows;
  x.z = arena.take(true, 1, ld0);
  x.eps = arena.take(p.K, 1, ld0);
  x.u = arena.take(p.K || p.gated, 1, ld0);
  x.product = arena.take(p.second || (p.exact && p.L == 3), 1, ld);
  x.tau = arena.take(true, 1, 1);
  x.tau_second = arena.take(true, 1, 1);
  x.logp = arena.take(true, 1, 1);
  x.penalty = arena.take(true, kPenalties, 1);
}

template <class T>
TileLayout forward_layout(const Plan<T>& p) {
  TileLayout x{};
  TileArena arena(p.rows);
  lay_out_common(p, arena, x);
  const int64_t ld = widest(p.layers, p.L), ld0 = p.layers[0].ld;
  const bool slopes = p.K || p.second || (p.exact && p.L == 3);
  x.input = arena.take(p.R > 1, 1, ld0);
  x.k = arena.take(true, p.R, ld0);
  x.y = arena.take(true, p.L > 2 ? 2 : 1, ld);
  if (p.L == 2) x.y -= x.slot;  // only layer 1's, at y + slot, is ever used
  x.d1 = arena.take(slopes, p.L - 1, ld);
  x.tangent_v = arena.take(p.K, 2, ld);
  x.size = arena.used();
  return x;
}

template <class T>
TileLayout backward_layout(const Plan<T>& p) {
  TileLayout x{};
  TileArena arena(p.rows);
  lay_out_common(p, arena, x);
  const int64_t ld = widest(p.layers, p.L), ld0 = p.layers[0].ld, hidden = p.L - 1;
  const bool stages = p.R > 1, recomputes = stages || p.checkpoint > 1;
  const bool table_only = p.exact && p.L == 2 && !p.second && !p.K;
  x.y = arena.take(true, hidden, ld);
  x.w = p.gated ? arena.take(true, hidden, ld) : x.y;  // without gates W y is overwritten
  x.d1 = arena.take(true, hidden, ld);
  x.d2 = arena.take(true, hidden, ld);
  x.t = arena.take((p.exact || p.K) && !table_only, hidden, ld);
  x.tangent_w = arena.take(p.K, hidden, ld);
  x.tangent_v = arena.take(p.K, hidden, ld);
  x.u_bar = arena.take(p.K, 1, ld0);
  x.z_bar = arena.take(true, 1, ld0);
  x.k_bar = arena.take(stages || p.values, 1, ld0);
  x.top = arena.take(true, 1, ld0);
  x.y_bar[0] = arena.take(p.L != 2, 1, ld);
  x.y_bar[1] = arena.take(p.L > 1, 1, ld);
  x.k = arena.take(recomputes, p.R, ld0);
  x.inputs = arena.take(recomputes, p.R, ld0);
  x.input_bar = arena.take(stages, p.R, ld0);
  x.tau_bar = arena.take(true, 1, 1);
  x.factor = arena.take(true, 1, 1);
  x.dots = arena.take(true, 1, 1);
  x.size = arena.used();
  return x;
}

enum class Sweep { forward, backward };

// The sizes of a problem, its tables, and the offsets of its packed matrices.
template <class T>
void describe(const Problem<T>& problem, Sweep sweep, Plan<T>& p) {
  const bool backward = sweep == Sweep::backward;
  p.B = problem.B;
  p.S = problem.S;
  p.K = problem.K;
  p.checkpoint = std::min(problem.checkpoint, problem.S);  // steps are counted in 32 bits
  p.penalties = problem.penalties;
  p.L = static_cast<int>(problem.L);
  p.R = static_cast<int>(problem.R);
  p.D = static_cast<int>(problem.widths[0]);
  p.nonlinearity = problem.nonlinearity;
  p.residual = problem.residual;
  p.exact = problem.trace;
  p.second = problem.second;
  p.gated = problem.gate;
  p.probe_trace = p.K && !p.exact;
  p.frobenius = p.K && (p.penalties & kFrobenius);
  p.values = p.penalties & ~kFrobenius;
  for (int i = 0; i < p.R * p.R; ++i) p.a[i] = static_cast<T>(problem.a[i]);
  for (int i = 0; i < p.R; ++i) p.b[i] = static_cast<T>(problem.b[i]);
  p.z = problem.z;
  p.h = problem.h;
  p.probes = problem.probes;
  p.gate = problem.gate;
  p.bias = problem.bias;
  p.trace = problem.trace;
  p.probe_stride = problem.probe_stride;
  p.probe_row_stride = problem.probe_row_stride;
  p.gate_stride = problem.gate_stride;
  p.bias_stride = problem.bias_stride;
  p.trace_stride = problem.trace_stride;
  p.n_outputs = problem.n_outputs;
  for (int64_t i = 0; i < std::min<int64_t>(p.n_outputs, kInlineOutputs); ++i)
    p.inline_outputs[i] = problem.outputs[i];

  int64_t features = 0, weight = 0, packed = 0;
  for (int l = 0; l <= p.L; ++l) {
    const int64_t m = problem.widths[l], before = l ? problem.widths[l - 1] : 0;
    Layer& layer = p.layers[l];
    layer = Layer{};
    layer.m = static_cast<int>(m);
    layer.ld = static_cast<int>(leading(m));
    layer.features = features;
    layer.weight = weight;
    if (!l) continue;
    features += m;
    weight += m * before;
  }
  // In the order in which shared memory is worth most: the backward needs W_L itself only for
  // gates and penalties.
  const auto take = [&](int64_t& offset, int l) {
    offset = packed;
    packed += packed_size(p.layers[l].m, p.layers[l - 1].m);
  };
  for (int l = 1; l < p.L; ++l) take(p.layers[l].forward, l);
  for (int l = 1; backward && l <= p.L; ++l) take(p.layers[l].backward, l);
  take(p.layers[p.L].forward, p.L);
  p.weights = {0, packed, problem.weight_stride ? packed : 0};
  if (p.exact && p.L == 3) {
    p.trace_backward = packed_size(p.layers[2].m, p.layers[1].m);
    const int64_t size = p.trace_backward * (backward ? 2 : 1);
    p.m = {0, size, problem.trace_stride ? size : 0};
  }
  if (p.second) {
    const int64_t size = packed_size(p.layers[1].m, p.layers[1].m);
    p.q = {0, size, problem.second_stride ? size : 0};
  }
}

template <class T>
bool tables_vary(const Plan<T>& p) {
  return p.weights.stride || p.m.stride || p.q.stride;
}

// What an evaluation of the sweep costs with operands Op.
template <class Op, class T>
Work work_of(const Plan<T>& p, Sweep sweep) {
  Work x{};
  double widths = 0;
  for (int l = 1; l <= p.L; ++l) {
    x.products += static_cast<double>(p.layers[l].m) * p.layers[l - 1].m;
    widths += p.layers[l].m;
  }
  const double sets = static_cast<double>(1 + p.K) * (sweep == Sweep::backward ? 2 : 1);
  x.products = x.products * sets + static_cast<double>(p.m.size + p.q.size);
  x.elements = widths * sets;
  x.packed = p.weights.size + p.m.size + p.q.size;
  x.packed_bytes = sizeof(typename Op::template Packed<T>);
  x.product_rate = Op::kRate;
  x.varying = tables_vary(p);
  Plan<T> one = p;
  one.rows = 16;
  const TileLayout tile = sweep == Sweep::backward ? backward_layout(one) : forward_layout(one);
  x.arena_row_bytes = tile.size / 16 * static_cast<int64_t>(sizeof(T));
  return x;
}

// Room for `rows` rows of every packed table that varies, and one of every other.
template <class T, class Packed>
void take_packed(Plan<T>& p, int64_t rows, Workspace& workspace) {
  int64_t at = 0;
  for (Block* block : {&p.weights, &p.m, &p.q}) {
    block->offset = at;
    at += block->stride ? rows * block->size : block->size;
  }
  p.packed = workspace.take<Packed>(at);
}

template <class T>
void take_blocks(Plan<T>& p, const Launch& launch, Workspace& workspace) {
  p.rows = launch.rows;
  p.tiles = launch.tiles;
  p.arena_in_shared = launch.arena_in_shared;
  p.resident = launch.resident;
  p.arena_bytes = round_up(p.tile.size * static_cast<int64_t>(sizeof(T)), 256);
  p.arena = workspace.take<char>(launch.arena_in_shared ? 0 : launch.grid * p.arena_bytes);
}

// The jobs that pack `rows` evaluations from `first` on of the tables that vary, and, where `all`,
// the others.
template <class T>
Jobs<PackJob<T>> pack_jobs(const Problem<T>& problem, const Plan<T>& p, Sweep sweep, int64_t rows,
                           bool all) {
  const bool backward = sweep == Sweep::backward;
  Jobs<PackJob<T>> jobs{};
  const auto add = [&](const T* table, int64_t stride, const Block& block, int64_t offset,
                       int64_t n, int64_t k, bool transposed) {
    if (!stride && !all) return;
    jobs.add({table + p.first * stride, block.offset + offset, n, k, stride, block.stride,
              stride ? rows : 1, transposed});
  };
  for (int l = 1; l <= p.L; ++l) {
    const Layer& layer = p.layers[l];
    const int64_t before = p.layers[l - 1].m;
    const T* table = problem.weight + layer.weight;
    add(table, problem.weight_stride, p.weights, layer.forward, layer.m, before, false);
    if (backward)
      add(table, problem.weight_stride, p.weights, layer.backward, before, layer.m, true);
  }
  if (p.m.size) {
    const int64_t m1 = p.layers[1].m, m2 = p.layers[2].m;
    add(problem.trace, problem.trace_stride, p.m, 0, m2, m1, false);
    if (backward) add(problem.trace, problem.trace_stride, p.m, p.trace_backward, m1, m2, true);
  }
  if (p.second)
    add(problem.second, problem.second_stride, p.q, 0, p.layers[1].m, p.layers[1].m, false);
  return jobs;
}

}  // namespace mvae_fast::cuda
