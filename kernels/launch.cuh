#pragma once

#include <cuda_runtime.h>

#include <cstdint>

#include "kernels/status.h"

namespace moelora::kernels {

inline constexpr unsigned kThreads = 256;

// One block per row.
template <class... Expected, class... Given>
void launch_rows(cudaStream_t stream, int64_t rows, void (*kernel)(Expected...), Given... given) {
  if (rows == 0) return;
  cudaLaunchConfig_t config = {};
  config.gridDim = dim3(static_cast<unsigned>(rows));
  config.blockDim = dim3(kThreads);
  config.stream = stream;
  check(cudaLaunchKernelEx(&config, kernel, static_cast<Expected>(given)...), "launch a kernel");
}

}  // namespace moelora::kernels
