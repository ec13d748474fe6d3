#include "lib/engine/sglang/pool/pool.h"

#include <algorithm>

#include "lib/engine/sglang/model/hidden_dim.h"

namespace moelora::sglang {
namespace {

bool is_embedding(std::string_view name) { return name == "embed_tokens" || name == "lm_head"; }

bool is_row_parallel(std::string_view name) {
  return name == "o_proj" || name == "out_proj" || name == "down_proj" || name == "down_proj_moe";
}

bool is_replicated(std::string_view name) {
  return name == "fused_qkv_a_proj_with_mqa" || name == "fc1_latent_proj" ||
         name == "fc2_latent_proj" || name.starts_with("indexer.");
}

class PoolBuilder {
 public:
  PoolBuilder(const ModelClass& model, const Features& features, const PoolRequest& request,
              const Rank& rank)
      : model_(model), features_(features) {
    out_.request = request;
    out_.rank = rank;
    out_.local_ids = rank.ep > 1 && model.experts % rank.ep == 0;
    out_.local_experts = out_.local_ids ? model.experts / rank.ep : model.experts;
    set_vocab_shard();
  }

  Pool build() {
    const NameSet& targets = out_.request.targets;
    for (std::string_view group : {"embed_tokens", "lm_head"})
      if (targets.count(group) != 0) add_embeddings(group);
    for (const std::string& target : targets)
      if (!is_embedding(target)) add_target(target);
    std::sort(out_.buffers.begin(), out_.buffers.end(),
              [](const Buffer& a, const Buffer& b) { return a.name < b.name; });
    return std::move(out_);
  }

 private:
  // The vocabulary is padded to a multiple of 64 and the padded one split evenly; 64 each for tp.
  void set_vocab_shard() {
    const int64_t tp = out_.rank.tp, vocab = model_.config.vocab;
    out_.vocab_count = vocab;
    if (tp <= 1) return;
    const int64_t step = 64;
    const int64_t padded = (vocab + step - 1) / step * step;
    const int64_t share = padded / tp;
    out_.vocab_first = std::min(vocab, out_.rank.tp_rank * share);
    out_.vocab_count = std::min(vocab, out_.vocab_first + share) - out_.vocab_first;
  }

  void add_embeddings(std::string_view group) {
    for (const char* name : {"embed_tokens", "lm_head"}) {
      if (out_.request.targets.count(std::string_view(name)) == 0) continue;
      const HiddenDim dim = hidden_dim(model_, features_, name, 0);
      const int64_t rows = std::string_view(name) == "lm_head" ? out_.vocab_count : dim.out;
      out_.embeddings.push_back({group == "lm_head" ? "lm_head" : "embedding",
                                 name,
                                 {out_.request.max_rank, dim.in},
                                 {rows, out_.request.max_rank}});
    }
  }

  void add_target(const std::string& target) {
    const bool ambiguous = target == "gate_up_proj" || target == "down_proj";
    if (!ambiguous || !model_.has_moe) return add(target);
    if (!features_.moe_without_shared &&
        (model_.config.shared_intermediate == 0 || !model_.config.has_num_experts))
      return add(target);
    if (model_.config.has_shared_experts()) add(target);
    add(target + "_moe");
  }

  void add(const std::string& name) {
    const HiddenDim first = hidden_dim(model_, features_, name, 0);
    if (!first.ok()) {
      out_.errors.push_back({name, first.error_type, first.error_text});
      return;
    }
    Buffer& buffer = out_.buffers.emplace_back();
    buffer.name = name;
    buffer.moe = name.ends_with("_moe");
    buffer.stacked = stacked_multiply(model_, name);
    for (int layer = 0; layer < model_.layers(); ++layer) {
      const HiddenDim dim = hidden_dim(model_, features_, name, layer);
      buffer.a.push_back(a_shape(buffer, dim.in));
      buffer.b.push_back(b_shape(buffer, dim.out));
    }
  }

  int64_t split_of(const Buffer& buffer) const {
    return buffer.moe ? out_.rank.moe_tp : out_.rank.tp;
  }

  Shape a_shape(const Buffer& buffer, int64_t in) const {
    if (is_row_parallel(buffer.name)) in /= split_of(buffer);
    const int64_t rows = buffer.stacked * out_.request.max_rank;
    if (!buffer.moe) return {rows, in};
    const bool shared = out_.request.shared_outer && buffer.name == "gate_up_proj_moe";
    return {shared ? 1 : out_.local_experts, rows, in};
  }

  Shape b_shape(const Buffer& buffer, int64_t out) const {
    if (!is_row_parallel(buffer.name) && !is_replicated(buffer.name))
      out = column_share(buffer, out);
    if (!buffer.moe) return {out, out_.request.max_rank};
    const bool shared = out_.request.shared_outer && buffer.name == "down_proj_moe";
    return {shared ? 1 : out_.local_experts, out, out_.request.max_rank};
  }

  // Of k and v every rank has at least one head.
  int64_t column_share(const Buffer& buffer, int64_t out) const {
    const int64_t split = split_of(buffer);
    const HfConfig& config = model_.config;
    if (buffer.name != "qkv_proj" || config.kv_heads >= split) return out / split;
    const int64_t kv = 2 * config.kv_heads * config.head_dim;
    return (out - kv) / split + 2 * config.head_dim;
  }

  const ModelClass& model_;
  const Features& features_;
  Pool out_;
};

}  // namespace

const Buffer* Pool::find(std::string_view name) const {
  const int index = index_of(name);
  return index < 0 ? nullptr : &buffers[static_cast<size_t>(index)];
}

int Pool::index_of(std::string_view name) const {
  for (size_t i = 0; i < buffers.size(); ++i)
    if (buffers[i].name == name) return static_cast<int>(i);
  return -1;
}

Pool make_pool(const ModelClass& model, const Features& features, const PoolRequest& request,
               const Rank& rank) {
  return PoolBuilder(model, features, request, rank).build();
}

}  // namespace moelora::sglang
