#pragma once

#include <algorithm>
#include <array>
#include <optional>
#include <sstream>
#include <string>
#include <string_view>

#include "lib/base/utf8.h"
#include "lib/model/base_model.h"
#include "lib/model/model_builder.h"
#include "lib/model/model_spec.h"

// How the fuzz targets write an adapter down: adapter_config.json up to a line "--", then one line
// a tensor: "NAME 4 64" is an F32 tensor of zeros.
namespace moelora {

// Small models of four kinds: in halves with a dense layer, interleaved, w1/w3/w2, without a gate.
inline constexpr std::array<std::string_view, 4> kBases = {
    R"({"model_type": "qwen3_moe", "hidden_size": 8, "moe_intermediate_size": 6, "intermediate_size": 10,
        "num_experts": 3, "num_experts_per_tok": 2, "num_hidden_layers": 2, "num_attention_heads": 2,
        "num_key_value_heads": 1, "head_dim": 4, "vocab_size": 20, "mlp_only_layers": [0]})",
    R"({"model_type": "gpt_oss", "hidden_size": 8, "intermediate_size": 8, "num_local_experts": 2,
        "num_experts_per_tok": 1, "num_hidden_layers": 2, "num_attention_heads": 2,
        "num_key_value_heads": 1, "head_dim": 4, "vocab_size": 20})",
    R"({"model_type": "mixtral", "hidden_size": 8, "intermediate_size": 4, "num_local_experts": 3,
        "num_experts_per_tok": 2, "num_hidden_layers": 1, "num_attention_heads": 2,
        "num_key_value_heads": 1, "head_dim": 4, "vocab_size": 20})",
    R"({"model_type": "nemotron_h", "hidden_size": 8, "moe_intermediate_size": 6, "n_routed_experts": 2,
        "num_experts_per_tok": 1, "layers_block_type": ["moe"], "num_attention_heads": 2,
        "num_key_value_heads": 1, "head_dim": 4, "vocab_size": 20, "intermediate_size": 6,
        "moe_shared_expert_intermediate_size": 4, "n_shared_experts": 1, "mamba_num_heads": 2,
        "mamba_head_dim": 4, "n_groups": 1, "ssm_state_size": 4, "conv_kernel": 2})"};

struct AdapterText {
  std::string_view config, lines;
};
inline AdapterText split_adapter(std::string_view text) {
  const size_t cut = std::min(text.find("\n--\n"), text.size());
  return {text.substr(0, cut), text.substr(std::min(cut + 4, text.size()))};
}

inline std::optional<BaseModel> base_model(size_t number) {
  if (number >= kBases.size()) return std::nullopt;
  BaseModel out;
  out.config = parse_json(kBases[number], "base");
  out.spec = make_model_spec(out.config, "base");
  return out;
}

inline constexpr int64_t kMostElements =
    1 << 16;  // zeros of any size cost nothing, comparing them does

// A name that is not UTF-8 comes from no file: every reader refuses it.
inline void add_tensor(const std::string& name, std::istringstream& words, TensorMap& tensors) {
  if (find_invalid_utf8(name)) return;
  Shape shape;
  int64_t elements = 1;
  for (int64_t dim = 0; words >> dim;) {
    if (dim < 0 || dim > kMostElements) return;
    elements *= dim;
    if (elements > kMostElements) return;
    shape.push_back(dim);
  }
  tensors[name] = Tensor::zeros(DType::F32, shape);
}

}  // namespace moelora
