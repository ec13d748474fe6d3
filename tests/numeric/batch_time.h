#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "lib/numeric/device_forward.h"

namespace moelora::test {

// Microseconds of `count` runs after `warmup` ones, of the batches in turn.
inline std::vector<float> batch_time(std::span<DeviceBatch* const> batches, int warmup, int count) {
  std::vector<kernels::Batch*> handles;
  for (const DeviceBatch* batch : batches) handles.push_back(batch->handle());
  std::vector<float> out(static_cast<size_t>(count));
  kernels::Failure failure;
  const kernels::Api& api = batches[0]->layer().device().api();
  check_device(api.batch_time(handles.data(), static_cast<int32_t>(handles.size()), warmup, count,
                              out.data(), &failure),
               failure);
  return out;
}

}  // namespace moelora::test
