#pragma once

#include <map>
#include <utility>
#include <vector>

#include "lib/engine/sglang/load/cpu_adapter.h"

namespace moelora::sglang {

// `source` as SGLang copies it into its BF16 pool. lora_B of experts is first multiplied on the CPU
// (lora/mem_pool.py, `w * lora_adapter.scaling`): by the factor in F32 (F64 for F64), rounded once
// to the type of the file, so that F16 rounds twice and overflows to infinity; BF16 rounds once.
// Then all is cast to BF16: F64 by way of F32, every NaN to 0x7FFF as the GPU does. Throws Error
// for a type that is no float type.
SourcePtr pool_source(SourcePtr source);
SourcePtr scaled_pool_source(SourcePtr source, double scale);

// The tensors of an adapter's files as its pool holds them. Tensors that share a source share its
// cast, so that the writer still reads each source once.
class PoolValues {
 public:
  // `values`: of served.files, in their order. REQUIRES: `adapter` was read of `served`.
  PoolValues(const CpuAdapter& adapter, const ServedAdapter& served,
             const std::vector<TensorMap>& values);

  // Of the adapter's source `id`; `scaled`: multiplied by the adapter's scale.
  const Tensor& of(int32_t id, bool scaled);

 private:
  const Tensor& in_file(int32_t id) const;

  const CpuAdapter& adapter_;
  std::vector<const TensorMap*> files_;  // by index in the adapter's list of files
  std::map<std::pair<int32_t, bool>, Tensor> tensors_;
  std::map<std::pair<SourcePtr, bool>, SourcePtr> sources_;
};

}  // namespace moelora::sglang
