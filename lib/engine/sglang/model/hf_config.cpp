#include "lib/engine/sglang/model/hf_config.h"

#include <algorithm>

namespace moelora::sglang {
namespace {

// Some ten times what exists: keeps products of two within int64.
constexpr int64_t kMost = int64_t{1} << 28;

class Reader {
 public:
  explicit Reader(const Json& config) : top_(config), text_(config.find("text_config")) {}

  const Json* find(std::string_view key) const {
    const Json* found = text_ != nullptr ? text_->find(key) : nullptr;
    if (found == nullptr) found = top_.find(key);
    return found != nullptr && found->is(Json::Kind::null) ? nullptr : found;
  }

  std::optional<int64_t> number(std::string_view key) const {
    const Json* value = find(key);
    if (value == nullptr || !value->is(Json::Kind::integer)) return std::nullopt;
    return std::clamp<int64_t>(value->as_int(), 0, kMost);
  }

  int64_t number(std::string_view key, int64_t otherwise) const {
    return number(key).value_or(otherwise);
  }

 private:
  const Json& top_;
  const Json* text_;
};

// "qwen3_moe" is QwenMoeConfig's spelling of itself: Qwen3MoeConfig.
std::string config_class(const std::string& model_type) {
  std::string out;
  bool capital = true;
  for (char c : model_type) {
    if (c == '_') {
      capital = true;
      continue;
    }
    out += capital && c >= 'a' && c <= 'z' ? static_cast<char>(c - 'a' + 'A') : c;
    capital = false;
  }
  return out + "Config";
}

const LinearSpec* first_linear(const ModelSpec& spec, std::string_view ending) {
  for (const LinearSpec& linear : spec.linears)
    if (linear.hub.ends_with(ending)) return &linear;
  return nullptr;
}

void read_attention(const Reader& reader, const ModelSpec& spec, HfConfig& out) {
  out.heads = std::max<int64_t>(1, reader.number("num_attention_heads", 1));
  out.kv_heads = std::max<int64_t>(1, reader.number("num_key_value_heads", out.heads));
  out.head_dim = reader.number("head_dim", 0);
  const LinearSpec* k = first_linear(spec, ".k_proj");
  if (out.head_dim == 0 && k != nullptr) out.head_dim = k->out / out.kv_heads;
  if (out.head_dim == 0) out.head_dim = out.hidden / out.heads;
  out.v_head_dim = reader.number("v_head_dim", out.head_dim);
  out.q_lora_rank = reader.number("q_lora_rank");
  out.kv_lora_rank = reader.number("kv_lora_rank");
  out.qk_nope = reader.number("qk_nope_head_dim");
  out.qk_rope = reader.number("qk_rope_head_dim");
}

// first_k_dense_replace, where the config leaves it to its class's default.
std::optional<int64_t> first_dense(const Reader& reader, const ModelSpec& spec, bool has_default) {
  if (const auto given = reader.number("first_k_dense_replace")) return given;
  if (!has_default) return std::nullopt;
  const auto moe = std::find(spec.moe_layers.begin(), spec.moe_layers.end(), true);
  return moe - spec.moe_layers.begin();
}

}  // namespace

HfConfig read_hf_config(const Json& base_config, const ModelSpec& spec, bool has_first_dense) {
  const Reader reader(base_config);
  HfConfig out;
  out.type = config_class(spec.model_type);
  out.hidden = spec.hidden;
  out.layers = spec.layers;
  out.vocab = spec.vocab;
  read_attention(reader, spec, out);
  const LinearSpec* dense = first_linear(spec, ".mlp.gate_proj");
  out.intermediate =
      reader.number("intermediate_size", dense != nullptr ? dense->out : spec.intermediate);
  out.moe_intermediate = reader.number("moe_intermediate_size");
  out.first_dense = first_dense(reader, spec, has_first_dense);
  out.n_shared_experts = reader.number("n_shared_experts");
  out.moe_layer_freq = std::max<int64_t>(1, reader.number("moe_layer_freq", 1));
  out.shared_intermediate = reader.number("shared_expert_intermediate_size", 0);
  out.has_num_experts = reader.find("num_experts") != nullptr;
  return out;
}

}  // namespace moelora::sglang
