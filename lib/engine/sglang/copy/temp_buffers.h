#pragma once

#include <cstddef>
#include <cstdint>
#include <unordered_map>
#include <utility>
#include <vector>

#include "lib/engine/sglang/copy/copy_rows.h"
#include "lib/engine/sglang/features.h"
#include "lib/engine/sglang/load/cpu_adapter.h"
#include "lib/engine/sglang/model/model_class.h"
#include "lib/engine/sglang/model/targets.h"
#include "lib/engine/sglang/pool/pool.h"

namespace moelora::sglang {

// What does not change while an adapter is copied to the pool.
struct CopyContext {
  CpuAdapter& adapter;
  const ModelClass& model;
  const Features& features;
  const Wrapping& wrapping;
  WriteSink& sink;
};

// What one side of a buffer is to receive in a layer (temp_A_buffer[target] in lora/mem_pool.py):
// None, one tensor, or a dict with one an expert.
struct TempBuffer {
  bool is_dict = false;
  const Staged* tensor = nullptr;
  std::vector<std::pair<int64_t, const Staged*>> experts;  // by id as the file counts them

  bool empty() const { return tensor == nullptr && experts.empty(); }
  bool is_none() const { return tensor == nullptr && !is_dict; }
  std::vector<const Staged*> all() const;
  std::vector<int32_t> sources() const;  // of all()

  void set(const Staged& value);  // instead of all()
  // Returns what this expert had before, null for nothing. REQUIRES is_dict.
  const Staged* set(int64_t expert, const Staged& value);

 private:
  std::unordered_map<int64_t, size_t> at_;
};

struct TempBuffers {
  std::vector<TempBuffer> a, b;  // by index of the pool's buffers

  TempBuffer& of(int buffer, bool is_a) { return (is_a ? a : b)[static_cast<size_t>(buffer)]; }
  const TempBuffer& of(int buffer, bool is_a) const {
    return (is_a ? a : b)[static_cast<size_t>(buffer)];
  }
};

// The first loop of load_lora_weight_to_buffer() over a layer: which buffer each tensor is for.
// Refuses what belongs to no target; what no buffer takes is lost.
TempBuffers sort_into_buffers(const CopyContext& context, LayerWeights& weights, const Pool& pool,
                              const TargetMatcher& matcher);

// A tensor, of a layer or an embedding, that belongs to no target.
void refuse_unmatched(const CopyContext& context, const Staged& entry, const NameSet& targets);

// What is wrong with a layer although every tensor of it has the right shape: factors without a
// partner, experts without factors, one factor where every expert should have its own.
void check_pairs(const CopyContext& context, const Pool& pool, int layer,
                 const TempBuffers& buffers);

}  // namespace moelora::sglang
