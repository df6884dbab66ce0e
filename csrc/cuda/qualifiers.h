// The device code is templates that compile for a GPU and, to be tested without one, for the host.
#pragma once

#if defined(__CUDACC__)
#define MVAE_FAST_DEVICE __device__ __forceinline__
#define MVAE_FAST_CALL __device__ __noinline__
#define MVAE_FAST_BOTH __host__ __device__ __forceinline__
#define MVAE_FAST_UNROLL _Pragma("unroll")
#else
#define MVAE_FAST_DEVICE inline
#define MVAE_FAST_CALL inline
#define MVAE_FAST_BOTH inline
#define MVAE_FAST_UNROLL
#endif

namespace mvae_fast::cuda {

// The same address or number, for the compiler a new one: what follows from it is computed where it
// is used. Known to be the same in all steps, the addresses of thirty buffers and as many tables
// would each take registers for all of them.
template <class T>
MVAE_FAST_DEVICE T here(T x) {
#if defined(__CUDACC__)
  if constexpr (sizeof(T) == 8)
    asm volatile("" : "+l"(x));
  else
    asm volatile("" : "+r"(x));
#endif
  return x;
}

}  // namespace mvae_fast::cuda
