#pragma once

#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "lib/model/model_spec.h"

namespace moelora::vllm {

// What one model class of vLLM accepts and wraps: what its source says and the oracle's catalogue
// of 22 tiny models confirmed (goldens/oracles/vllm.md, section 5). Lists are separated by blanks.
struct ModelClass {
  std::string_view name;         // "GptOssForCausalLM": architectures[0] of the base's config
  std::string_view model_types;  // that it serves where the config names no architecture

  // The modules of a layer that LoRA can reach, in the order in which the class builds them, which
  // is the order in which an adapter is copied. A module is there in the layers whose Linears it
  // holds; "a=b" takes the shape of the base's Linear b.
  std::string_view modules;
  std::string_view experts;         // module of the routed experts: "mlp.experts"
  std::string_view words;           // of one expert: gate, up, down; up, down where it has no gate
  bool stacked = false;             // is_3d_moe_weight: wants gate_up of all experts in one tensor
  bool embeddings = false;          // has embedding_modules: embed_tokens and lm_head take LoRA
  std::string_view unwrapped = {};  // Linears that pass the name gate and take no LoRA

  // WeightsMapper: names of the adapter as this class spells them. "from>to".
  std::string_view prefixes = {}, substrings = {}, suffixes = {};
  std::string_view skipped = {};  // name prefixes that are passed over without a word

  // The server cannot start with LoRA before this release; "" starts in all, kNever in none.
  std::string_view starts_since = {}, start_error = {};
};

inline constexpr std::string_view kNever = "never";

std::span<const ModelClass> model_classes();

// The class of the base's config: by architectures[0], else by model_type. Null when none is known.
const ModelClass* find_model_class(const ModelSpec& spec);

// WeightsMapper: substrings, then prefixes, then suffixes, each where it occurs, once.
class NameMapper {
 public:
  explicit NameMapper(const ModelClass& model);
  std::string map(std::string name) const;

 private:
  using Replacements = std::vector<std::pair<std::string_view, std::string_view>>;
  Replacements substrings_, prefixes_, suffixes_;
};

std::vector<std::string_view> words_of(std::string_view list);

}  // namespace moelora::vllm
