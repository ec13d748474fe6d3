#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "lib/base/tensor.h"
#include "lib/engine/sglang/features.h"
#include "lib/engine/sglang/model/model_class.h"
#include "lib/engine/sglang/pool/rank.h"
#include "lib/engine/python_text.h"

namespace moelora::sglang {

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

// What the server holds adapters against when one is loaded after the start.
struct PoolLimits {
  int64_t max_lora_rank = 0;
  NameSet targets;
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
  int64_t local_experts = 1;                  // of this rank
  bool local_ids = false;                     // expert ids count from this rank's first
  int64_t vocab_first = 0, vocab_count = 0;   // this rank's rows of lm_head
};

Pool make_pool(const ModelClass& model, const Features& features, const PoolRequest& request,
               const Rank& rank);

}  // namespace moelora::sglang
