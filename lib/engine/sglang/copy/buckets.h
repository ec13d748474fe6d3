#pragma once

#include <cstdint>
#include <unordered_map>
#include <utility>
#include <vector>

#include "lib/engine/sglang/features.h"
#include "lib/engine/sglang/load/cpu_adapter.h"
#include "lib/engine/sglang/model/model_class.h"
#include "lib/engine/sglang/model/targets.h"
#include "lib/engine/sglang/pool/pool.h"

namespace moelora::sglang {

// What one side of a buffer is to receive in a layer: nothing, one tensor, or one an expert.
struct Held {
  bool is_dict = false;
  const Staged* tensor = nullptr;
  std::vector<std::pair<int64_t, const Staged*>> experts;  // by id as the file counts them

  bool empty() const { return tensor == nullptr && experts.empty(); }
  bool is_none() const { return tensor == nullptr && !is_dict; }
  std::vector<const Staged*> all() const;

  void set(const Staged& value);  // instead of all()
  // Returns what this expert had before, null for nothing. REQUIRES is_dict.
  const Staged* set(int64_t expert, const Staged& value);

 private:
  std::unordered_map<int64_t, size_t> at_;
};

struct LayerBuckets {
  std::vector<Held> a, b;  // by index of the pool's buffers
};

// The first loop of load_lora_weight_to_buffer() over a layer: which buffer each tensor is for
// (lora/mem_pool.py). Refuses what belongs to no target; what no buffer takes is lost.
LayerBuckets sort_into_buckets(CpuAdapter& adapter, LayerWeights& weights, const Pool& pool,
                               const TargetMatcher& matcher, const Features& features);

}  // namespace moelora::sglang
