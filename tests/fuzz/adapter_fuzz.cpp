// An adapter is adapter_config.json up to a line "--", then one line a tensor: "NAME 4 64" is an
// F32 tensor of zeros. Three words of their own instead of a tensor: "base 2" reads it with that
// one of kBases, "order expert-major" and "roles swapped" say what the flags would.

#include <algorithm>
#include <array>
#include <sstream>

#include "lib/adapter/convert.h"
#include "tests/fuzz/fuzz.h"

namespace {

using namespace moelora;

// Small models of four kinds: in halves with a dense layer, interleaved, w1/w3/w2, without a gate.
constexpr std::array<std::string_view, 4> kBases = {
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

struct Input {
  AdapterFiles files;
  std::optional<BaseModel> base;
  ReadOptions read;
};

std::optional<BaseModel> base_model(size_t number) {
  if (number >= kBases.size()) return std::nullopt;
  BaseModel out;
  out.config = parse_json(kBases[number], "base");
  out.spec = make_model_spec(out.config, "base");
  return out;
}

constexpr int64_t kMostElements = 1 << 16;  // zeros of any size cost nothing, comparing them does

void add_tensor(const std::string& name, std::istringstream& words, TensorMap& tensors) {
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

void add_line(const std::string& line, Input& input) {
  std::istringstream words(line);
  std::string first, second;
  words >> first;
  if (first == "base") {
    size_t number = kBases.size();
    words >> number;
    input.base = base_model(number);
  } else if (first == "order" || first == "roles") {
    words >> second;
    if (first == "order") input.read.b_order = parse_b_order(second);
    if (first == "roles") input.read.roles = parse_roles(second);
  } else if (!first.empty()) {
    add_tensor(first, words, input.files.weights.tensors);
  }
}

Input parse(std::string_view text) {
  const size_t cut = std::min(text.find("\n--\n"), text.size());
  Input input;
  input.files.config = parse_adapter_config(parse_json(text.substr(0, cut), "f"), "f");
  std::istringstream lines{std::string(text.substr(std::min(cut + 4, text.size())))};
  for (std::string line; std::getline(lines, line);) add_line(line, input);
  return input;
}

// What was written reads back as the same factors and scales.
void require_verified(const Conversion& c) {
  AdapterFiles files;
  files.config = parse_adapter_config(parse_json(c.config.dump(), "w"), "w");
  files.weights.tensors = c.tensors;
  try {
    verify_conversion(c, std::move(files), "w", 1);
  } catch (const Error&) {
    require(false);
  }
}

}  // namespace

// What can be read can be written in each layout and verified, or an Error says why not.
void fuzz(std::string_view text) {
  Input input = parse(text);
  const LoadedAdapter loaded =
      interpret_adapter(std::move(input.files), std::move(input.base), "", input.read);
  for (const Layout* layout : all_layouts()) {
    ConvertOptions options;
    options.to = layout->id;
    try {
      require_verified(plan_conversion(loaded, options));
    } catch (const Error&) {
    }
  }
}
