// The launch arithmetic: rows of a tile, its shared memory, the grid, the backward's windows. Plain
// C++ from sizes and a device's limits, so that it is tested without a device.
#pragma once

#include <algorithm>
#include <cstdint>

#include "plan.h"

namespace mvae_fast::cuda {

struct Device {
  int64_t sms, shared_per_block;
};

// 0 (or, of a limit, -1): to be chosen. Otherwise what a test or an experiment wants.
struct Settings {
  int rows;
  int64_t grid, shared_limit, resident_limit, window_bytes;
};
constexpr Settings kChosen = {0, 0, -1, -1, 0};

struct Launch {
  int rows;
  int64_t tiles, grid, shared_bytes;
  bool arena_in_shared;
  int64_t resident;  // packed elements in shared memory
};

// Of one solve: multiply-adds and elements a row and evaluation, packed elements an evaluation
// reads, the bytes of one of them, and those of the arena for a row.
struct Work {
  double products, elements;
  int64_t packed, packed_bytes, arena_row_bytes;
  double product_rate;  // multiply-adds a clock and SM
  bool varying;         // the tables change with time: nothing stays in shared memory
};

constexpr int kTileRows[] = {64, 32, 16};
// Thread blocks of 8 warps on an SM, as the launch bounds promise the compiler: the backward sweep
// would spill in 128 registers, and may have 255. So the grid has a block for each SM.
constexpr int kBlocks = 1;

// What a device can do in a clock and SM; they only have to rank the choices.
constexpr double kElementCycles = 0.4;  // exp and reciprocal: 16 lanes a clock, the rest: 128
constexpr double kSharedBytes = 128, kGlobalBytes = 32;
constexpr double kPhaseCycles = 1500;  // barriers and latency of an evaluation's phases

inline Launch launch_of(const Work& work, int64_t B, int rows, const Device& device,
                        const Settings& settings) {
  const int64_t limit = settings.shared_limit >= 0
                            ? std::min(settings.shared_limit, device.shared_per_block)
                            : device.shared_per_block;
  Launch x{};
  x.rows = rows;
  x.tiles = (B + rows - 1) / rows;
  const int64_t arena = work.arena_row_bytes * rows;
  x.arena_in_shared = arena <= limit;
  x.shared_bytes = x.arena_in_shared ? arena : 0;
  if (!work.varying) {
    x.resident = std::min((limit - x.shared_bytes) / work.packed_bytes, work.packed);
    if (settings.resident_limit >= 0) x.resident = std::min(x.resident, settings.resident_limit);
    x.resident &= ~int64_t{15};
  }
  x.shared_bytes += x.resident * work.packed_bytes;
  x.grid = std::max<int64_t>(1, std::min(x.tiles, device.sms));
  if (settings.grid) x.grid = settings.grid;
  return x;
}

// Clocks of an evaluation of all rows. Tiles run at once on all SMs; the fullest has `turns`.
inline double cycles(const Work& work, const Launch& x, const Device& device) {
  const double turns = static_cast<double>((x.tiles + device.sms - 1) / device.sms);
  const double products = work.products * x.rows / work.product_rate;
  const double resident = static_cast<double>(x.resident * work.packed_bytes);
  const double streamed = static_cast<double>(work.packed * work.packed_bytes) - resident;
  const double weights = resident / kSharedBytes + streamed / kGlobalBytes;
  const double elements = work.elements * x.rows * kElementCycles * (x.arena_in_shared ? 1 : 4);
  return turns * (std::max(products, weights) + elements + kPhaseCycles);
}

inline Launch choose_launch(const Work& work, int64_t B, const Device& device,
                            const Settings& settings) {
  if (settings.rows) return launch_of(work, B, settings.rows, device, settings);
  Launch best = launch_of(work, B, kTileRows[0], device, settings);
  for (int rows : kTileRows) {
    const Launch x = launch_of(work, B, rows, device, settings);
    if (cycles(work, x, device) < cycles(work, best, device)) best = x;
  }
  return best;
}

// Steps of a window of the backward whose evaluations take `bytes` each: whole checkpoint intervals
// where one fits, as a window that begins inside one recomputes its states.
inline int64_t window_steps(int64_t bytes, int64_t R, int64_t S, int64_t checkpoint,
                            int64_t states_bytes, const Settings& settings) {
  const int64_t allowed = settings.window_bytes
                              ? settings.window_bytes
                              : std::max<int64_t>(int64_t{64} << 20, states_bytes / 5);
  int64_t steps = std::max<int64_t>(1, allowed / std::max<int64_t>(1, bytes * R));
  if (steps >= S) return S;
  return steps >= checkpoint ? steps / checkpoint * checkpoint : steps;
}

// Steps whose evaluations a window of `steps` reads: one that begins between two checkpoints takes
// its states from the one before.
inline int64_t steps_read(int64_t steps, int64_t S, int64_t checkpoint) {
  return steps % checkpoint ? std::min(S, steps + checkpoint - 1) : steps;
}

// A product over rows is split into sums of about kSplitRows rows, whatever the device: its bits
// depend on the problem alone.
constexpr int64_t kSplitRows = 512, kMaxSplits = 64;

inline int64_t splits_of(int64_t rows) {
  return std::max<int64_t>(1, std::min(kMaxSplits, (rows + kSplitRows - 1) / kSplitRows));
}

inline int64_t split_rows_of(int64_t rows, int64_t splits) {
  return round_up((rows + splits - 1) / splits, 16);
}

}  // namespace mvae_fast::cuda
