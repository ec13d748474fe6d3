#include "lib/engine/sglang/pool/pool.h"

#include <fmt/core.h>

#include <algorithm>

#include "lib/engine/sglang/causes.h"
#include "lib/engine/sglang/model/targets.h"

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

// Split over the ranks of attention alone: SGLang takes their widths from the config to this day.
bool is_attention(std::string_view name) {
  return name == "qkv_proj" || name == "qkvr" || name == "q_b_proj" || name == "kv_b_proj" ||
         name == "o_proj" || name == "out_proj" || name == "wo_ud" || name == "in_proj" ||
         name == "in_proj_qkvz";
}

// A rank's columns and rows of a module.
struct Share {
  int64_t in, out;
};

struct PoolBuilder {
  const ModelClass& model;
  const Features& features;
  Pool out;

  void build() {
    out.local_ids = out.rank.ep > 1 && model.experts % out.rank.ep == 0;
    out.local_experts = out.local_ids ? model.experts / out.rank.ep : model.experts;
    set_vocab_shard();
    const NameSet& targets = out.request.targets;
    for (std::string_view group : {"embed_tokens", "lm_head"})
      if (targets.count(group) != 0) add_embeddings(group);
    for (const std::string& target : targets)
      if (!is_embedding(target)) add_target(target);
    std::sort(out.buffers.begin(), out.buffers.end(),
              [](const Buffer& a, const Buffer& b) { return a.name < b.name; });
  }

  // The vocabulary is padded to a multiple of 64 and the padded one split evenly; 64 each for tp.
  void set_vocab_shard() {
    const int64_t tp = out.rank.tp, vocab = model.config.vocab;
    out.vocab_count = vocab;
    if (tp <= 1) return;
    const int64_t step = 64;
    const int64_t padded = (vocab + step - 1) / step * step;
    const int64_t share = padded / tp;
    out.vocab_first = std::min(vocab, out.rank.tp_rank * share);
    out.vocab_count = std::min(vocab, out.vocab_first + share) - out.vocab_first;
  }

  void add_embeddings(std::string_view group) {
    for (const char* name : {"embed_tokens", "lm_head"}) {
      if (out.request.targets.count(std::string_view(name)) == 0) continue;
      const HiddenDim dim = hidden_dim(model, features, name, 0);
      const int64_t rows = std::string_view(name) == "lm_head" ? out.vocab_count : dim.out;
      out.embeddings.push_back({group == "lm_head" ? "lm_head" : "embedding",
                                name,
                                {out.request.max_rank, dim.in},
                                {rows, out.request.max_rank}});
    }
  }

  void add_target(const std::string& target) {
    const bool ambiguous = target == "gate_up_proj" || target == "down_proj";
    if (!ambiguous || !model.has_moe) return add(target);
    if (!features.moe_without_shared &&
        (model.config.shared_intermediate == 0 || !model.config.has_num_experts))
      return add(target);
    if (model.config.has_shared_experts()) add(target);
    add(target + "_moe");
  }

  void add(const std::string& name) {
    const HiddenDim first = hidden_dim(model, features, name, 0);
    if (!first.ok()) {
      out.errors.push_back({name, first.error_type, first.error_text});
      return;
    }
    Buffer& buffer = out.buffers.emplace_back();
    buffer.name = name;
    buffer.moe = name.ends_with("_moe");
    buffer.stacked = stacked_multiply(model, name);
    for (int layer = 0; layer < model.layers(); ++layer) {
      const HiddenDim dim = hidden_dim(model, features, name, layer);
      const auto own = own_share(buffer, layer);
      buffer.a.push_back(own && is_row_parallel(name) ? Shape{a_rows(buffer), own->in}
                                                      : a_shape(buffer, dim.in));
      buffer.b.push_back(own && is_column(name) ? Shape{own->out, out.request.max_rank}
                                                : b_shape(buffer, dim.out));
    }
  }

  // LoRAMemoryPool._dense_local_dim(): of the layer itself, where it has such a module.
  std::optional<Share> own_share(const Buffer& buffer, int layer) const {
    if (!features.dense_width_of_layer || buffer.moe || is_attention(buffer.name))
      return std::nullopt;
    for (const ClassModule& module : model.modules) {
      if (module.layer != layer || module.leaf() != buffer.name) continue;
      const bool whole = module.kind == LayerKind::replicated || module.kind == LayerKind::row;
      return Share{module.kind == LayerKind::row ? module.in / out.rank.tp : module.in,
                   whole ? module.rows() : module.rows() / out.rank.tp};
    }
    return std::nullopt;
  }

  static bool is_column(std::string_view name) {
    return !is_row_parallel(name) && !is_replicated(name);
  }

  int64_t a_rows(const Buffer& buffer) const { return buffer.stacked * out.request.max_rank; }

  int64_t split_of(const Buffer& buffer) const {
    return buffer.moe ? out.rank.moe_tp : out.rank.tp;
  }

  Shape a_shape(const Buffer& buffer, int64_t in) const {
    if (is_row_parallel(buffer.name)) in /= split_of(buffer);
    const int64_t rows = a_rows(buffer);
    if (!buffer.moe) return {rows, in};
    return {out.is_outer(buffer, true) ? 1 : out.local_experts, rows, in};
  }

  Shape b_shape(const Buffer& buffer, int64_t rows) const {
    if (is_column(buffer.name)) rows = column_share(buffer, rows);
    if (!buffer.moe) return {rows, out.request.max_rank};
    return {out.is_outer(buffer, false) ? 1 : out.local_experts, rows, out.request.max_rank};
  }

  // Of k and v every rank has at least one head.
  int64_t column_share(const Buffer& buffer, int64_t rows) const {
    const int64_t split = split_of(buffer);
    const HfConfig& config = model.config;
    if (buffer.name != "qkv_proj" || config.kv_heads >= split) return rows / split;
    const int64_t kv = 2 * config.kv_heads * config.head_dim;
    return (rows - kv) / split + 2 * config.head_dim;
  }
};

// The type the server runs the model in.
std::string dtype_of(const Json& base_config) {
  for (const char* key : {"dtype", "torch_dtype"})
    if (const Json* dtype = base_config.find(key))
      if (dtype->is(Json::Kind::string) && dtype->as_string() != "bfloat16") return "f16";
  return "bf16";
}

// The width of an MLP that every token passes: dense layers and shared experts.
int64_t width_of(const ClassModule& module) {
  return module.kind == LayerKind::merged && !module.out.empty() ? module.out.front() : 0;
}

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

bool Pool::is_outer(const Buffer& buffer, bool is_a) const {
  return request.shared_outer && buffer.name == (is_a ? "gate_up_proj_moe" : "down_proj_moe");
}

std::string buffer_name(int layer, std::string_view buffer, bool is_a) {
  const char side = is_a ? 'A' : 'B';
  return layer < 0 ? fmt::format("{}.{}", buffer, side)
                   : fmt::format("layers.{}.{}.{}", layer, buffer, side);
}

Pool make_pool(const ModelClass& model, const Features& features, const PoolRequest& request,
               const Rank& rank) {
  PoolBuilder builder{model, features, {}};
  builder.out.request = request;
  builder.out.rank = rank;
  builder.build();
  return std::move(builder.out);
}

MemoryPlan plan_memory(const Pool& pool, int64_t slots, const Json& base_config) {
  MemoryPlan out;
  out.slots = slots;
  out.dtype = dtype_of(base_config);
  for (const Buffer& buffer : pool.buffers) {
    for (const Shape& shape : buffer.a) out.add(buffer.name + ".A", shape);
    for (const Shape& shape : buffer.b) out.add(buffer.name + ".B", shape);
  }
  for (const EmbeddingBuffer& buffer : pool.embeddings) {
    out.add(fmt::format("{}.{}.A", buffer.group, buffer.name), buffer.a);
    out.add(fmt::format("{}.{}.B", buffer.group, buffer.name), buffer.b);
  }
  return out;
}

std::optional<PlanEvent> check_divisibility(const ModelClass& model, int64_t tp, int64_t ep) {
  struct Split {
    std::string_view what;
    int64_t number;
    std::string_view over;
    int64_t ranks;
  };
  const int64_t kv_heads = model.config.kv_heads;
  std::vector<Split> splits{{"tp ranks", tp, "ep groups, which are", ep},
                            {"attention heads", model.config.heads, "tp ranks, which are", tp}};
  if (kv_heads >= tp)
    splits.push_back({"kv heads", kv_heads, "tp ranks, which are", tp});
  else
    splits.push_back({"tp ranks", tp, "kv heads, which are", kv_heads});
  if (model.has_moe) {
    splits.push_back({"columns of an expert (intermediate size)", model.intermediate,
                      "expert-parallel tp ranks, which are", tp / ep});
    splits.push_back({"experts", model.experts, "ep groups, which are", ep});
  }
  for (const ClassModule& module : model.modules)
    splits.push_back(
        {"columns of an MLP (intermediate size)", width_of(module), "tp ranks, which are", tp});
  for (const auto& [what, number, over, ranks] : splits)
    if (ranks >= 1 && number % ranks != 0)
      return PlanEvent{&cause::tp_divisibility,
                       Effect::refused,
                       {},
                       fmt::format("{} {} do not split over {} {}", what, number, over, ranks),
                       Refusal{"build the model", "AssertionError",
                               fmt::format("{} is not divisible by {}", number, ranks), false}};
  return std::nullopt;
}

}  // namespace moelora::sglang
