#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "lib/base/tensor.h"
#include "lib/engine/plan.h"
#include "lib/engine/python_text.h"
#include "lib/engine/sglang/features.h"
#include "lib/engine/sglang/model/model_class.h"

namespace moelora::sglang {

// One process of the server. Attention, dense layers and the vocabulary are split over all `tp`
// ranks; the experts over `ep` groups (whole experts, contiguous) and within a group over moe_tp.
struct Rank {
  int64_t tp = 1, tp_rank = 0;
  int64_t ep = 1, ep_rank = 0;
  int64_t moe_tp = 1, moe_tp_rank = 0;
};

inline Rank rank_of(int64_t tp, int64_t ep, int64_t index) {
  const int64_t moe_tp = tp / ep;
  return {tp, index, ep, index / moe_tp, moe_tp, index % moe_tp};
}

// The model itself on such ranks: heads, widths and experts that do not split over tp and ep ranks.
std::optional<PlanEvent> check_divisibility(const ModelClass& model, int64_t tp, int64_t ep);

// The buffers of one module in every layer, of one slot. Dense: A [c*R, in], B [out, R]; experts:
// A [E, c*R, in], B [E, out, R] (E is 1 for the outer factor that a shared-outer pool holds once);
// c factors stacked, R the pool's rank.
struct Buffer {
  std::string name;  // "qkv_proj", "gate_up_proj_moe"
  bool moe = false;
  int64_t stacked = 1;      // c
  std::vector<Shape> a, b;  // by layer
};

// A buffer of embed_tokens or lm_head. SGLang allocates both names in the group of each target.
struct EmbeddingBuffer {
  std::string group;  // "embedding" or "lm_head"
  std::string name;   // "embed_tokens" or "lm_head"
  Shape a, b;         // [R, in], [out, R]
};

struct PoolError {
  std::string module, type, text;
};

struct PoolRequest {
  NameSet targets;
  int64_t max_rank = 0;
  bool shared_outer = false;
};

// LoRAMemoryPool: what one rank allocates.
struct Pool {
  PoolRequest request;
  Rank rank;
  std::vector<Buffer> buffers;  // by name
  std::vector<EmbeddingBuffer> embeddings;
  std::vector<PoolError> errors;  // the first ends the start-up

  const Buffer* find(std::string_view name) const;
  int index_of(std::string_view name) const;  // in `buffers`, -1 for none
  // Whether one side of a buffer is the outer factor that all experts share.
  bool is_outer(const Buffer& buffer, bool is_a) const;

  int64_t local_experts = 1;  // of this rank
  bool local_ids = false;     // expert ids count from this rank's first
  int64_t first_expert() const { return local_ids ? rank.ep_rank * local_experts : 0; }
  int64_t vocab_first = 0, vocab_count = 0;  // this rank's rows of lm_head
};

// "layers.0.qkv_proj.A"; of an embedding (layer -1) "lm_head.B".
std::string buffer_name(int layer, std::string_view buffer, bool is_a);

Pool make_pool(const ModelClass& model, const Features& features, const PoolRequest& request,
               const Rank& rank);

// Bytes of one rank's pool. SGLang allocates a buffer in every layer, dense ones included.
MemoryPlan plan_memory(const Pool& pool, int64_t slots, const Json& base_config);

}  // namespace moelora::sglang
