// The small kernels around the sweeps: packing of the tables before, products over rows and sums of
// partial sums after. Each takes a list of jobs, so that a solve needs few launches.
#pragma once

#include "plan.h"

namespace mvae_fast::cuda {

constexpr int kMaxJobs = 2 * kMaxLayers + 3;

template <class Job>
struct Jobs {
  int count;
  Job job[kMaxJobs];
  void add(const Job& x) { job[count++] = x; }
};

// A matrix of a table to fragment order: of W (n, k), or, where `transposed`, of W' from W (k, n).
template <class T>
struct PackJob {
  const T* from;
  int64_t to, n, k, from_stride, to_stride, rows;  // strides of the table's rows
  bool transposed;
};

// delta' y over `rows` rows of the tape for each group, as `splits` sums of at most `split_rows`.
template <class T>
struct ProductJob {
  int64_t delta, y;  // offsets on the tape
  int64_t m, k, groups, rows, splits, split_rows;
  T* parts;  // (groups, splits, m, k)
};

// out[group][c] (+)= sum_i parts[group][i][c], in the order of i.
template <class T>
struct SumJob {
  const T* parts;
  T* out;
  int64_t groups, count, width, out_stride;
  bool add;
};

template <class M, class T = typename M::T>
MVAE_FAST_DEVICE void pack_element(const PackJob<T>& job, typename M::Packed* packed, int64_t i) {
  const int64_t size = packed_size(job.n, job.k), steps = (job.k + 15) / 16;
  const int64_t row = i / size, at = i % size, block = at / 128, inside = at % 128;
  const int64_t n = block / steps * 8 + inside / 16, k = block % steps * 16 + inside % 16;
  const T* from = job.from + row * job.from_stride;
  const T value =
      n < job.n && k < job.k ? from[job.transposed ? k * job.n + n : n * job.k + k] : T(0);
  packed[job.to + row * job.to_stride + at] = M::Operand::pack(value);
}

// The 32 x 32 tiles of one job's sums.
template <class T>
MVAE_FAST_BOTH int64_t product_units(const ProductJob<T>& job) {
  return job.groups * job.splits * ((job.m + 31) / 32) * ((job.k + 31) / 32);
}

// One warp's tile of a job, straight from the tape: every element of it is read once a tile, in
// whole sectors, and the warps of a block, which share rows, meet in the L1 cache.
template <class M, class T = typename M::T>
MVAE_FAST_DEVICE void product_unit(const ProductJob<T>& job, const typename M::Packed* tape,
                                   int64_t unit, const typename M::Warp& warp) {
  const int64_t across = (job.k + 31) / 32, down = (job.m + 31) / 32;
  const int64_t column = unit % across * 32, row = unit / across % down * 32;
  const int64_t part = unit / across / down, split = part % job.splits;
  const int64_t ld = tape_width(job.m), ldy = tape_width(job.k);
  const int64_t first = part / job.splits * job.rows + split * job.split_rows;
  const int64_t left = job.rows - split * job.split_rows;
  const int64_t count = left < job.split_rows ? left : job.split_rows;
  const typename M::Packed* delta = tape + job.delta + first * ld + row;
  const typename M::Packed* y = tape + job.y + first * ldy + column;
  using Sums = typename M::template Accumulators<2, 4>;
  Sums sums;
  for (int64_t i = 0; i < count; i += 16)
    sums.multiply_add_rows(warp, delta + i * ld, ld, y + i * ldy, ldy, count - i);
  T* out = job.parts + part * job.m * job.k;
  sums.for_each(warp, [&](int r, int c, T value) {
    const int64_t m = row + Sums::column_of_delta(r), k = column + Sums::column_of_y(c);
    if (m < job.m && k < job.k) out[m * job.k + k] = value;
  });
}

template <class T>
MVAE_FAST_DEVICE void sum_element(const SumJob<T>& job, int64_t i) {
  const int64_t group = i / job.width, c = i % job.width;
  const T* parts = job.parts + group * job.count * job.width + c;
  T& out = job.out[group * job.out_stride + c];
  T sum = job.add ? out : T(0);
  for (int64_t part = 0; part < job.count; ++part) sum += parts[part * job.width];
  out = sum;
}

}  // namespace mvae_fast::cuda
