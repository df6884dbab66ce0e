// The table of the exact trace of a velocity, from its coefficients, and its gradients
// (docs/math.md, section 2). One hidden layer: c = G_1 * ((W_1 * W_2') G_2), a panel of hidden
// units at a time. Two hidden layers: M = W_2 * Q with Q = diag(G_2) W_3' diag(G_3) W_1' diag(G_1),
// a tile of rows at a time; W_1 is at hand packed, so only W_3' is scaled.
#pragma once

#include <initializer_list>

#include "coefficients.h"

namespace mvae_fast::MVAE_FAST_ISA {

// Rows of M that a worker makes at a time: whole panels.
template <class T>
constexpr int64_t kTraceRows = kTile / (2 * kLanes<T>)*(2 * kLanes<T>);

template <class T>
struct TraceScratch {
  T *w1, *product, *bar, *r, *q;  // one hidden layer: panels (D, 2 vectors), (rows, 2 vectors)
  T *a, *m, *a_bar;               // two: tiles of rows i of A and M, and the adjoint of A
  Products<T> products;

  static TraceScratch take(const Solve<T>& s, Arena& arena) {
    TraceScratch x{};
    if (!s.p->layers || !s.exact) return x;
    constexpr int64_t width = 2 * kLanes<T>;
    if (s.L == 2) {
      for (T** piece : {&x.w1, &x.product, &x.bar}) *piece = arena.take<T>(s.D, width);
      x.r = arena.take<T>(s.trace_rows, width);
      x.q = arena.take<T>(s.trace_rows, width);
    } else if (s.L == 3) {
      const int64_t ld0 = leading<T>(s.D), ld1 = leading<T>(s.p->widths[1]);
      x.a = arena.take<T>(kTraceRows<T>, ld0);
      x.m = arena.take<T>(kTraceRows<T>, ld1);
      x.a_bar = arena.take<T>(kTraceRows<T>, ld0);
      x.products = Products<T>::take(s.bf16, s.widest, arena);
    }
    return x;
  }
};

// to[i] *= from[i] for i < n; the rest of `width` becomes zero.
template <class T>
static void multiply_row(int64_t n, int64_t width, const T* from, T* to) {
  int64_t f = 0;
  for (; f + kLanes<T> <= n; f += kLanes<T>) store(to + f, load(to + f) * load(from + f));
  for (; f < n; ++f) to[f] *= from[f];
  for (; f < width; ++f) to[f] = 0;
}

// c (n rows of `ldc`) = sum_d G_2[row, d] P[d, :] for a panel P.
template <class T>
static void gates_times_panel(const Solve<T>& x, int64_t n, int64_t width, const T* panel, T* c,
                              int64_t ldc) {
  const int64_t ldg = x.gate_rows > 1 ? x.padded_features : 0;
  for (int64_t row = 0; row < n; row += kTileRows)
    run_tile<Numbers<T>, false>(smaller(kTileRows, n - row), width, x.D, x.gates(row, 2), ldg,
                                panel, width, c + row * ldc, ldc, false);
}

// The panel of W_1' at hidden unit j, and of W_1' * W_2 to scratch.product.
template <class T>
static const T* trace_panels(const Solve<T>& x, const TraceScratch<T>& scratch, int64_t j) {
  const Coefficients<const T>&first = x.p->layers[0], &second = x.p->layers[1];
  const int64_t m = x.layers[1].m, width = panel_width<T>(m, j), full = smaller(width, m - j);
  const T* w1 = x.forward + x.layers[1].forward + j * x.D;  // packed by this worker
  if (x.bf16) {
    pack_panel<T>(scratch.w1, m, j, first.weight, 1, first.ld, 0, x.D);
    w1 = scratch.w1;
  }
  memcpy(scratch.product, w1, x.D * width * sizeof(T));
  for (int64_t d = 0; d < x.D; ++d)
    multiply_row<T>(full, width, second.weight + d * second.ld + j, scratch.product + d * width);
  return w1;
}

template <class T>
static void trace_one_hidden(const Solve<T>& x, const TraceScratch<T>& scratch, int64_t workers,
                             int64_t worker) {
  const int64_t m = x.layers[1].m;
  for_each_panel<T>(m, workers, worker, [&](int64_t j) {
    const int64_t width = panel_width<T>(m, j);
    trace_panels<T>(x, scratch, j);
    T* c = x.trace_forward + j;
    gates_times_panel<T>(x, x.trace_rows, width, scratch.product, c, x.trace_size);
    if (x.gate_rows)
      for (int64_t row = 0; row < x.trace_rows; ++row)
        multiply_row<T>(width, width, x.gates(row, 1) + j, c + row * x.trace_size);
  });
}

// From the gradient of c to those of the weights and gates, added to this worker's sums.
template <class T>
static void trace_one_hidden_gradients(const Solve<T>& x, const TraceScratch<T>& scratch,
                                       const RowSums<T>& first, const RowSums<T>& own,
                                       int64_t workers, int64_t stride, int64_t worker) {
  const Coefficients<const T>& last = x.p->layers[1];
  const int64_t m = x.layers[1].m, rows = x.trace_rows;
  for_each_panel<T>(m, workers, worker, [&](int64_t j) {
    const int64_t width = panel_width<T>(m, j), full = smaller(width, m - j);
    const T* const w1_panel = trace_panels<T>(x, scratch, j);
    if (x.gate_rows) gates_times_panel<T>(x, rows, width, scratch.product, scratch.q, width);
    for (int64_t row = 0; row < rows; ++row) {
      T* r = scratch.r + row * width;  // the adjoint of (W_1 * W_2') G_2
      add_workers(first.trace, row * x.trace_size + j, width, workers, stride, r);
      if (!x.gate_rows) continue;
      T* gate_bar = own.gate_of(x, row, 1) + j;
      for (int64_t f = 0; f < full; ++f) gate_bar[f] += r[f] * scratch.q[row * width + f];
      multiply_row<T>(width, width, x.gates(row, 1) + j, r);
      T* last_bar = own.gate_of(x, row, 2);
      for (int64_t d = 0; d < x.D; ++d) {
        Vec<T> dot{};
        for (int64_t f = 0; f < width; f += kLanes<T>)
          dot += load(r + f) * load(scratch.product + d * width + f);
        last_bar[d] += sum<T>(dot);
      }
    }
    const int64_t ldg = x.gate_rows > 1 ? x.padded_features : 0;
    for (int64_t d = 0; d < x.D; d += kTileRows)
      run_tile<Numbers<T>, true>(smaller(kTileRows, x.D - d), width, rows, x.gates(0, 2) + d, ldg,
                                 scratch.r, width, scratch.bar + d * width, width, false);
    for (int64_t d = 0; d < x.D; ++d) {
      T* bar = scratch.bar + d * width;
      const T* w1 = w1_panel + d * width;
      T* last_bar = own.weight_of(x, 0, 2) + d * x.layers[2].gradient_ld + j;
      for (int64_t f = 0; f < width; f += kLanes<T>)
        store(last_bar + f, load(last_bar + f) + load(bar + f) * load(w1 + f));
      multiply_row<T>(full, width, last.weight + d * last.ld + j, bar);
    }
    add_transposed<T>(x.D, full, scratch.bar, width,
                      own.weight_of(x, 0, 1) + j * x.layers[1].gradient_ld,
                      x.layers[1].gradient_ld);
  });
}

// trace = sum_i G_i W_ii, without hidden layers.
template <class T>
static void trace_no_hidden(const Solve<T>& x) {
  const Coefficients<const T>& layer = x.p->layers[0];
  for (int64_t row = 0; row < x.trace_rows; ++row) {
    T total = 0;
    for (int64_t i = 0; i < x.D; ++i) total += x.gates(row, 1)[i] * layer.weight[i * layer.ld + i];
    copy_rows<T>(1, 1, &total, 0, x.trace_forward + row * x.trace_size, 0);
  }
}

template <class T>
static void trace_no_hidden_gradients(const Solve<T>& x, const RowSums<T>& first,
                                      const RowSums<T>& own, int64_t workers, int64_t stride) {
  const Coefficients<const T>& layer = x.p->layers[0];
  for (int64_t row = 0; row < x.trace_rows; ++row) {
    T bar;
    add_workers(first.trace, row * x.trace_size, 1, workers, stride, &bar);
    T* gate_bar = own.gate_of(x, row, 1);
    for (int64_t i = 0; i < x.D; ++i) {
      own.weight_of(x, 0, 1)[i * x.layers[1].gradient_ld + i] += bar * x.gates(row, 1)[i];
      if (gate_bar) gate_bar[i] += bar * layer.weight[i * layer.ld + i];
    }
  }
}

// f(i, n) for every tile of `worker`'s share of the rows of M.
template <class T, class F>
static void for_each_trace_tile(int64_t m2, int64_t workers, int64_t worker, F f) {
  const int64_t tiles = (m2 + kTraceRows<T> - 1) / kTraceRows<T>;
  for (int64_t k = share(tiles, workers, worker); k < share(tiles, workers, worker + 1); ++k)
    f(k * kTraceRows<T>, smaller(kTraceRows<T>, m2 - k * kTraceRows<T>));
}

// W_3' once per solve, each worker its rows.
template <class T>
static void transpose_third(const Solve<T>& x, int64_t workers, int64_t worker) {
  const Coefficients<const T>& q = x.p->layers[2];
  const int64_t m2 = x.layers[2].m, width0 = padded<T>(x.D);
  for_each_trace_tile<T>(m2, workers, worker, [&](int64_t i, int64_t n) {
    memset(x.third + i * width0, 0, n * width0 * sizeof(T));
    add_transposed<T>(x.D, n, q.weight + i, q.ld, x.third + i * width0, width0);
    if (x.third_bar) memset(x.third_bar + i * width0, 0, n * width0 * sizeof(T));
  });
}

// Rows i .. i + n of A = diag(G_2) W_3' diag(G_3), of which Q / G_1 = A W_1'.
template <class T>
static void trace_rows(const Solve<T>& x, const TraceScratch<T>& scratch, int64_t row, int64_t i,
                       int64_t n) {
  const int64_t width0 = padded<T>(x.D), ld0 = x.layers[0].ld;
  scale_columns<T>(n, width0, T(1), x.gates(row, 3), x.third + i * width0, width0, scratch.a, ld0);
  scale_rows<T>(n, width0, x.gates(row, 2) + i, scratch.a, ld0, scratch.a, ld0);
}

// M of every evaluation in the window, each worker its rows, packed.
template <class T>
static void trace_two_hidden(const Solve<T>& x, const TraceScratch<T>& scratch, bool constant,
                             int64_t workers, int64_t worker) {
  const Coefficients<const T>& middle = x.p->layers[1];
  const int64_t m1 = x.layers[1].m, m2 = x.layers[2].m, ld1 = x.layers[1].ld;
  const int64_t width1 = padded<T>(m1);
  for_window(x, x.trace_rows, constant, [&](int64_t at, int64_t row) {
    T* forward = x.trace_forward + at * x.trace_size;
    T* backward = x.trace_backward ? x.trace_backward + at * x.trace_size : nullptr;
    for_each_trace_tile<T>(m2, workers, worker, [&](int64_t i, int64_t n) {
      trace_rows<T>(x, scratch, row, i, n);
      T* loop = x.loop ? x.loop + (at * m2 + i) * width1 : scratch.m;
      const int64_t ld = x.loop ? width1 : ld1;
      scratch.products.rows_times(n, m1, x.D, scratch.a, x.layers[0].ld, x.forward_weight(row, 1),
                                  loop, ld, false);
      scale_columns<T>(n, width1, T(1), x.gates(row, 1), loop, ld, scratch.m, ld1);
      for (int64_t r = 0; r < n; ++r)
        multiply_row<T>(m1, width1, middle.weight + (i + r) * middle.ld, scratch.m + r * ld1);
      // As if M began i rows before the tile.
      const T* m = scratch.m - i * ld1;
      for (int64_t j = i; j < i + n; j += 2 * kLanes<T>)
        Products<T>::pack(x.bf16, forward, m1, m2, j, m, 1, ld1, 0, m1);
      if (backward)
        for (int64_t j = 0; j < m1; j += 2 * kLanes<T>)
          Products<T>::pack(x.bf16, backward, m2, m1, j, m, ld1, 1, i, i + n);
    });
  });
}

// From the gradients of the window's M to those of weights and gates, added to this worker's sums.
template <class T>
static void trace_two_hidden_gradients(const Solve<T>& x, const TraceScratch<T>& scratch,
                                       const RowSums<T>& first, const RowSums<T>& own,
                                       bool constant, int64_t workers, int64_t stride,
                                       int64_t worker) {
  const Coefficients<const T>& middle = x.p->layers[1];
  const int64_t m1 = x.layers[1].m, m2 = x.layers[2].m, D = x.D;
  const int64_t ld0 = x.layers[0].ld, ld1 = x.layers[1].ld;
  const int64_t width0 = padded<T>(D), width1 = padded<T>(m1);
  for_window(x, x.trace_rows, constant, [&](int64_t at, int64_t row) {
    const T *g1 = x.gates(row, 1), *g2 = x.gates(row, 2), *g3 = x.gates(row, 3);
    T *g1_bar = own.gate_of(x, row, 1), *g2_bar = own.gate_of(x, row, 2),
      *g3_bar = own.gate_of(x, row, 3);
    for_each_trace_tile<T>(m2, workers, worker, [&](int64_t i, int64_t n) {
      trace_rows<T>(x, scratch, row, i, n);
      for (int64_t r = 0; r < n; ++r) {
        T* m_bar = scratch.m + r * ld1;
        const T* loop = x.loop + (at * m2 + i + r) * width1;
        add_workers(first.trace, at * x.trace_gradient_size + (i + r) * width1, width1, workers,
                    stride, m_bar);
        T* middle_bar = own.weight_of(x, row, 2) + (i + r) * x.layers[2].gradient_ld;
        for (int64_t f = 0; f < width1; f += kLanes<T>)
          store(middle_bar + f,
                load(middle_bar + f) + load(g1 + f) * (load(m_bar + f) * load(loop + f)));
        multiply_row<T>(m1, width1, middle.weight + (i + r) * middle.ld, m_bar);
        if (g1_bar)
          for (int64_t f = 0; f < width1; f += kLanes<T>)
            store(g1_bar + f, load(g1_bar + f) + load(m_bar + f) * load(loop + f));
      }
      scale_columns<T>(n, width1, T(1), g1, scratch.m, ld1, scratch.m, ld1);
      scratch.products.rows_times(n, D, m1, scratch.m, ld1, x.backward_weight(row, 1),
                                  scratch.a_bar, ld0, false);
      scratch.products.outer_product(m1, D, n, scratch.m, ld1, scratch.a, ld0,
                                     own.weight_of(x, row, 1), x.layers[1].gradient_ld);
      for (int64_t r = 0; r < n; ++r) {
        const T* a_bar = scratch.a_bar + r * ld0;
        const T* third = x.third + (i + r) * width0;
        T* third_bar = x.third_bar + (i + r) * width0;
        Vec<T> dot{};
        for (int64_t f = 0; f < width0; f += kLanes<T>) {
          const Vec<T> gated = load(a_bar + f) * load(g3 + f);
          dot += gated * load(third + f);
          store(third_bar + f, load(third_bar + f) + g2[i + r] * gated);
          if (g3_bar)
            store(g3_bar + f, load(g3_bar + f) + g2[i + r] * (load(a_bar + f) * load(third + f)));
        }
        if (g2_bar) g2_bar[i + r] += sum<T>(dot);
      }
    });
  });
}

// The gradient of W_3' to W_3's, after all windows.
template <class T>
static void transpose_third_gradient(const Solve<T>& x, const RowSums<T>& own, int64_t workers,
                                     int64_t worker) {
  const int64_t width0 = padded<T>(x.D);
  for_each_trace_tile<T>(x.layers[2].m, workers, worker, [&](int64_t i, int64_t n) {
    add_transposed<T>(n, x.D, x.third_bar + i * width0, width0, own.weight_of(x, 0, 3) + i,
                      x.layers[3].gradient_ld);
  });
}

// The gradients of the table, of the present window if it has one, on to the weights and gates.
template <class T, class Sums, class Scratch>
static void trace_gradients(const Solve<T>& x, const Threads& threads, const RowSums<T>& first,
                            int64_t stride, bool finish, const Sums& sums_of,
                            const Scratch& scratch_of) {
  const int64_t workers = threads.n;
  if (!x.exact) return;
  if (x.L == 1) {
    if (finish) trace_no_hidden_gradients<T>(x, first, first, workers, stride);
  } else if (x.L == 2) {
    if (finish)
      run_workers(threads, [&](int64_t worker) {
        trace_one_hidden_gradients<T>(x, scratch_of(worker), first, sums_of(worker), workers,
                                      stride, worker);
      });
  } else if (finish || x.trace_rows > 1) {
    run_workers(threads, [&](int64_t worker) {
      trace_two_hidden_gradients<T>(x, scratch_of(worker), first, sums_of(worker), finish, workers,
                                    stride, worker);
      if (finish) transpose_third_gradient<T>(x, sums_of(worker), workers, worker);
    });
  }
}

}  // namespace mvae_fast::MVAE_FAST_ISA
