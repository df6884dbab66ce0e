// Denormal numbers as zero. A processor takes them in microcode: up to a hundred times as long for
// an instruction, where states die out or gradients vanish.
#pragma once

#include <cstdint>

#if defined(__SSE2__)
#include <immintrin.h>
#endif

namespace mvae_fast {

// From here to the end of the scope this thread's arithmetic takes denormal operands for zero and
// rounds denormal results to it. Then the thread has the modes and flags that it came with.
class DenormalsAreZero {
 public:
  DenormalsAreZero() : before_(get()) { set(before_ | kBits); }
  ~DenormalsAreZero() { set(before_); }
  DenormalsAreZero(const DenormalsAreZero&) = delete;
  DenormalsAreZero& operator=(const DenormalsAreZero&) = delete;

 private:
#if defined(__SSE2__)
  using Register = unsigned int;
  static constexpr Register kBits = _MM_FLUSH_ZERO_ON | 0x0040;  // FTZ and DAZ of MXCSR
  static Register get() { return _mm_getcsr(); }
  static void set(Register x) { _mm_setcsr(x); }
#elif defined(__aarch64__)
  using Register = uint64_t;
  static constexpr Register kBits = Register{1} << 24;  // FZ of FPCR
  static Register get() {
    Register x;
    asm volatile("mrs %0, fpcr" : "=r"(x));
    return x;
  }
  static void set(Register x) { asm volatile("msr fpcr, %0" : : "r"(x) : "memory"); }
#else
  using Register = int;
  static constexpr Register kBits = 0;
  static Register get() { return 0; }
  static void set(Register) {}
#endif

  const Register before_;
};

}  // namespace mvae_fast
