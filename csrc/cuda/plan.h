// One solve as its kernels see it: sizes, tables, and where everything lies. A Plan is a kernel's
// parameter, so that all of it is in constant memory and none of it in registers.
#pragma once

#include <cstdint>

#include "../problem.h"
#include "qualifiers.h"

namespace mvae_fast::cuda {

constexpr int kMaxLayers = 24;
constexpr int kMaxStages = 8;
constexpr int kInlineOutputs = 8;
constexpr int kWarps = 8;  // of a thread block
constexpr int kLanes = 32;
constexpr int kThreads = kWarps * kLanes;

MVAE_FAST_BOTH int64_t round_up(int64_t n, int64_t to) {
  return (n + to - 1) / to * to;
}

// Elements between the rows of a tile of width m: whole mma steps of 16, and an odd number of them,
// so that the 16-byte loads of 8 lanes, two rows of 4, fall into different banks.
MVAE_FAST_BOTH int64_t leading(int64_t m) {
  const int64_t steps = (m + 15) / 16;
  return 16 * (steps | 1);
}

// A matrix in fragment order: blocks of 16 (k) x 8 (n), all k of one n after the other.
MVAE_FAST_BOTH int64_t packed_size(int64_t n, int64_t k) {
  return round_up(n, 16) * round_up(k, 16);
}

// Layer l = 1 .. L; of l = 0 only the widths count.
struct Layer {
  int m, ld;                  // width, row length of its tiles
  int64_t features;           // offset in a row of gates or biases
  int64_t weight;             // offset in a row of the weight table
  int64_t forward, backward;  // offsets of W and W' among the packed weights
  int64_t delta, y;           // offsets on the tape, see Tape
};

// A table packed into matrices: at `offset` elements, one block of `size` per row it has. `stride`:
// 0 or size.
struct Block {
  int64_t offset, size, stride;
};

// What backward keeps for a gradient that is a product over rows of the batch: both operands, as
// rows of `width` padded to 32, for every evaluation of a window. Weights have 1 + K sets of rows,
// the main stream's and the probes'.
MVAE_FAST_BOTH int64_t tape_width(int64_t m) {
  return round_up(m, 32);
}

// Offsets of the tile's buffers, in elements from the start of its arena; each hidden layer's share
// of `w` .. `tangent_v` is `slot` long, each stage's of `k` .. `input_bar` `slot0`.
struct TileLayout {
  int slot, slot0;
  int z, input, k;                  // k: by stage
  int w, y, d1, d2, t;              // W y; phi, phi', phi''; coefficient of phi''
  int eps, tangent_w, tangent_v;    // a probe; W v and v of it, by layer
  int u, u_bar;                     // W_L v; the adjoint of J eps
  int product;                      // M phi' or Q phi'
  int z_bar, k_bar, top, y_bar[2];  // adjoints; top: G_L k_bar
  int inputs, input_bar;            // by stage
  int tau, tau_second, logp, dots;  // one value a row
  int tau_bar, factor, penalty;     // penalty: kPenalties values a row
  int size;
};

template <class T>
struct Plan {
  int64_t B, S, tiles, K, checkpoint, penalties;
  int rows, L, R, D;  // rows: of a tile
  Nonlinearity nonlinearity;
  bool residual, exact, second, gated;
  bool probe_trace, frobenius, values;  // which of the trace and the penalties are wanted
  T a[kMaxStages * kMaxStages], b[kMaxStages];
  Layer layers[kMaxLayers + 1];

  const T *z, *h, *probes, *gate, *bias, *trace;
  int64_t probe_stride, probe_row_stride, gate_stride, bias_stride, trace_stride;
  int64_t n_outputs, inline_outputs[kInlineOutputs];
  const int64_t* outputs;  // in device memory; where there are more than kInlineOutputs

  // Packed weights, M and Q. Elements below `resident` are copied to shared memory, by each thread
  // block once; where a table varies none are. M' follows M at `trace_backward`.
  const void* packed;
  Block weights, m, q;
  int64_t trace_backward, resident;
  int64_t first;  // the evaluation that the first packed row of a table that varies is for

  TileLayout tile;
  bool arena_in_shared;
  char* arena;  // a slice of arena_bytes for each thread block
  int64_t arena_bytes;
  T* path;  // a slice of path_size for each thread block
  int64_t path_size;

  MVAE_FAST_BOTH int64_t output(int64_t i) const {
    return n_outputs <= kInlineOutputs ? inline_outputs[i] : outputs[i];
  }
};

template <class T>
struct ForwardPlan : Plan<T> {
  T *z_out, *logp_out, *penalty_out, *states;  // as in ForwardOutputs
};

// Sums over the rows of a tile, of one row per evaluation of the window (or one in all): a tile's
// part lies `tile` apart, an evaluation's `stride` (0: it adds to what the tile has).
template <class T>
struct ColumnSums {
  T* parts;  // null: not wanted
  int64_t stride, tile;
};

template <class T>
struct BackwardPlan : Plan<T> {
  const T *grad_z, *grad_logp, *grad_penalty, *states;
  T* z_bar;                            // (B, D), also between windows
  int64_t step_begin, step_end;        // of the window
  void* tape;                          // null: no gradients of tables
  int64_t m_delta, m_y, q_delta, q_y;  // offsets on the tape
  ColumnSums<T> gate_bar, bias_bar, trace_bar, h_bar;
};

}  // namespace mvae_fast::cuda
