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
