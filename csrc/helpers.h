// The threads that help a calling thread with a solve. Not torch's: those wait for each other at
// the end of each loop, also for one that other programs keep from running, and spin while they
// wait, which keeps the others from it.
#pragma once

#if defined(__unix__) || defined(__APPLE__)
#include <unistd.h>
#endif
#if defined(__SSE2__)
#include <immintrin.h>
#endif

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <memory>
#include <mutex>
#include <system_error>
#include <thread>

#include "denormals.h"

namespace mvae_fast {

// Shares of work, each of which is done once, by whoever comes first. The caller does what no
// helper takes, and waits for those alone that a helper has begun.
class Helpers {
 public:
  using Body = void (*)(void* context, int64_t share);
  static constexpr int64_t kMostShares = (1 << 16) - 1;

  // The calling thread's, `count` of them.
  static Helpers& of_this_thread(int64_t count) {
    thread_local std::unique_ptr<Helpers> helpers;
    if (helpers && helpers->process_ != process())
      helpers.release();  // a fork took no threads along
    if (!helpers || helpers->count_ != count) helpers.reset(new Helpers(count));
    return *helpers;
  }

  ~Helpers() {
    if (process_ != process()) return;
    const std::lock_guard<std::mutex> lock(work_->mutex);
    work_->stop = true;
    work_->announced.notify_all();
  }

  // body(context, share) for every share of n; n <= kMostShares.
  void run(int64_t n, Body body, void* context) {
    Work& w = *work_;
    w.body.store(body, std::memory_order_relaxed);
    w.context.store(context, std::memory_order_relaxed);
    w.unfinished.store(n, std::memory_order_relaxed);
    w.left.store((++calls_ << 16) | static_cast<uint64_t>(n));
    if (w.asleep.load() > 0) {
      {
        const std::lock_guard<std::mutex> lock(w.mutex);
      }
      w.announced.notify_all();
    }
    while (w.take()) {
    }
    if (spin([&] { return w.unfinished.load() == 0; })) return;
    std::unique_lock<std::mutex> lock(w.mutex);
    w.awaited.store(true);
    w.finished.wait(lock, [&] { return w.unfinished.load() == 0; });
    w.awaited.store(false);
  }

 private:
  // Outlives its Helpers as long as a thread looks at it.
  struct Work {
    std::atomic<Body> body{nullptr};
    std::atomic<void*> context{nullptr};
    // The number of the call, and in the last 16 bits how many of its shares nobody has taken: one
    // number, so that a thread that slept through a call takes nothing of the next by mistake.
    std::atomic<uint64_t> left{0};
    std::atomic<int64_t> unfinished{0}, asleep{0};
    std::atomic<bool> awaited{false};
    std::mutex mutex;
    std::condition_variable announced, finished;
    bool stop = false;

    bool any() const { return left.load() & kMostShares; }
    // Does one share, if there is one. Body and context do not change before all are finished.
    bool take() {
      uint64_t seen = left.load();
      for (;;) {
        if (!(seen & kMostShares)) return false;
        Body const run = body.load(std::memory_order_relaxed);
        void* const given = context.load(std::memory_order_relaxed);
        if (!left.compare_exchange_weak(seen, seen - 1)) continue;
        run(given, static_cast<int64_t>(seen & kMostShares) - 1);
        if (unfinished.fetch_sub(1) == 1 && awaited.load()) {
          {
            const std::lock_guard<std::mutex> lock(mutex);
          }
          finished.notify_one();
        }
        return true;
      }
    }
  };

  explicit Helpers(int64_t count)
      : work_(std::make_shared<Work>()), count_(count), process_(process()) {
    for (int64_t i = 0; i < count; ++i) {
      try {
        std::thread(help, work_).detach();
      } catch (const std::system_error&) {
        return;  // the system has no more: the caller does what they would have done
      }
    }
  }

  static void help(std::shared_ptr<Work> work) {
    const DenormalsAreZero mode;
    Work& w = *work;
    for (;;) {
      while (w.take()) {
      }
      if (spin([&] { return w.any(); })) continue;
      std::unique_lock<std::mutex> lock(w.mutex);
      ++w.asleep;
      w.announced.wait(lock, [&] { return w.stop || w.any(); });
      --w.asleep;
      if (w.stop) return;
    }
  }

  // Whether something comes true before it is cheaper to sleep. The patience outlasts the Python
  // between two solves: with 50 us a training step of a single Euler step took 1.1 to 1.2 times as
  // long on a quiet machine, with 200 as long as with torch's threads, and with four busy programs
  // on two cores as long as with one thread (there torch's took 70 times that).
  template <class F>
  static bool spin(const F& done) {
    constexpr std::chrono::microseconds kPatience{200};
    const auto start = std::chrono::steady_clock::now();
    do {
      for (int i = 0; i < 32; ++i) {
        if (done()) return true;
        pause();
      }
    } while (std::chrono::steady_clock::now() - start < kPatience);
    return false;
  }

  static void pause() {
#if defined(__SSE2__)
    _mm_pause();
#elif defined(__aarch64__)
    asm volatile("yield");
#endif
  }

  static int64_t process() {
#if defined(__unix__) || defined(__APPLE__)
    return getpid();
#else
    return 0;
#endif
  }

  const std::shared_ptr<Work> work_;
  const int64_t count_, process_;
  uint64_t calls_ = 0;
};

}  // namespace mvae_fast
