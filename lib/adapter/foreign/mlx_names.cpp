#include "lib/adapter/foreign/mlx_names.h"

#include <fmt/core.h>

#include <algorithm>
#include <array>
#include <span>

#include "lib/adapter/foreign/dialect_tools.h"
#include "lib/adapter/tensor_name.h"
#include "lib/base/dotted_path.h"
#include "lib/base/error.h"
#include "lib/model/base_model.h"

namespace moelora {
namespace {

using Text = std::string_view;

// A path within a layer that mlx-lm's class renames.
struct Renamed {
  Text hub, mlx;
};
constexpr std::array<Renamed, 3> kLfm2 = {{{"feed_forward.w1", "feed_forward.gate_proj"},
                                           {"feed_forward.w3", "feed_forward.up_proj"},
                                           {"feed_forward.w2", "feed_forward.down_proj"}}};
constexpr std::array<Renamed, 1> kKimiLinear = {{{"block_sparse_moe", "mlp"}}};

// What mlx-lm's class of a model_type does differently. Read off its sanitize(), which was run on
// every family's tensors (tests/data/pack_dialect_mlx.py); a type that is not here was not.
struct ModelClass {
  Text model_type;
  Text experts = "switch_mlp";  // what it calls the hub's "experts"
  bool router = true;           // a Linear; else a class of its own, which takes no LoRA
  bool kv_b_proj = true;        // a Linear; else split into embed_q and unembed_out
  std::span<const Renamed> renamed = {};
};

constexpr ModelClass kClasses[] = {
    {"afmoe", "experts"},
    {"deepseek_v2", "switch_mlp", false},
    {"deepseek_v3", "switch_mlp", false, false},
    {"deepseek_v32", "switch_mlp", false, false},
    {"dots1", "experts", false},
    {"ernie4_5_moe"},
    {"exaone4"},
    {"exaone_moe", "switch_mlp", false},
    {"gemma3"},
    {"gemma3_text"},
    {"gemma4", "experts.switch_glu"},
    {"gemma4_text", "experts.switch_glu"},
    {"gemma4_unified", "experts.switch_glu"},
    {"glm4"},
    {"glm4_moe", "switch_mlp", false},
    {"glm4_moe_lite", "switch_mlp", false, false},
    {"glm_moe_dsa", "switch_mlp", false, false},
    {"gpt_oss", "experts"},
    {"granite"},
    {"granitemoe"},
    {"granitemoehybrid"},
    {"hunyuan_v1_dense"},
    {"jamba"},
    {"kimi_k2", "switch_mlp", false, false},
    {"kimi_k25", "switch_mlp", false, false},
    {"kimi_linear", "switch_mlp", true, false, kKimiLinear},
    {"lfm2_moe", "switch_mlp", true, true, kLfm2},
    {"llama"},
    {"llama4", "experts"},
    {"mellum"},
    {"mimo_v2_flash", "switch_mlp", false},
    {"minimax_m2"},
    {"ministral3"},
    {"mistral"},
    {"mistral3"},
    {"mistral4", "switch_mlp", true, false},
    {"mixtral"},
    {"nemotron_h", "switch_mlp", false},
    {"olmo3"},
    {"olmoe"},
    {"phi3"},
    {"phimoe"},
    {"qwen2"},
    {"qwen2_moe"},
    {"qwen3"},
    {"qwen3_5"},
    {"qwen3_5_moe"},
    {"qwen3_moe"},
    {"qwen3_next"},
    {"qwen3_vl_moe"},
    {"seed_oss"},
    {"smollm3"},
    {"solar_open", "switch_mlp", false},
};

const ModelClass* find_class(const ModelSpec& spec) {
  const auto* const at =
      std::find_if(std::begin(kClasses), std::end(kClasses),
                   [&](const ModelClass& c) { return c.model_type == spec.model_type; });
  return at == std::end(kClasses) ? nullptr : at;
}

const ModelClass& class_of(const ModelSpec& spec) {
  if (const ModelClass* found = find_class(spec)) return *found;
  throw Error("mlx",
              fmt::format("mlx-lm 0.32.2 has no model class for \"{}\" whose names are known here",
                          spec.model_type),
              {"use ", Option::to, " a layout"});
}

constexpr Text kWrapper = "language_model.";
constexpr Text kHubText = "model.language_model.", kMlxText = "language_model.model.";

// With one component path in place of another, where it stands at component boundaries.
std::string with_component(std::string path, Text from, Text to) {
  for (size_t at = path.find(from); at != std::string::npos; at = path.find(from, at + 1)) {
    const size_t end = at + from.size();
    const bool begins = at == 0 || path[at - 1] == '.',
               ends = end == path.size() || path[end] == '.';
    if (begins && ends) return path.replace(at, from.size(), to);
  }
  return path;
}

std::string with_front(Text path, Text from, Text to) {
  if (!path.starts_with(from)) return std::string(path);
  return std::string(to).append(path.substr(from.size()));
}

// ---- mlx to hub --------------------------------------------------------------------------------

constexpr NamePattern::Word kWords[] = {{Projection::gate, "gate_proj"},
                                        {Projection::up, "up_proj"},
                                        {Projection::down, "down_proj"},
                                        {Projection::up, "fc1"},
                                        {Projection::down, "fc2"}};

// Under which stem the readers of layouts find the experts of a family.
std::string expert_stem(const ModelSpec& spec, int layer) {
  const std::string hub = spec.expert_stem(Form::hub, layer);
  return hub.ends_with(".experts") ? hub : spec.expert_stem(Form::memory, layer);
}

std::string hub_experts(const MlxExperts& experts, const ModelSpec* spec, const std::string& name) {
  const std::string word(projection_name(experts.projection));
  if (spec != nullptr) {
    const auto place = find_layer(name);
    if (!place || !spec->is_moe(place->layer))
      throw Error(name,
                  fmt::format("is of routed experts, and this {} has none there", spec->family),
                  check_base());
    return expert_stem(*spec, place->layer) + "." + word;
  }
  return std::string(parent_of(experts.container)) + ".experts." + word;
}

std::string hub_linear(Text module, const ModelSpec& spec, const std::string& name) {
  std::vector<std::string> spellings = {std::string(module), with_front(module, kMlxText, kHubText),
                                        with_front(module, kWrapper, "")};
  if (const ModelClass* known = find_class(spec))
    for (const Renamed& renamed : known->renamed)
      spellings.push_back(with_component(std::string(module), renamed.mlx, renamed.hub));
  for (const std::string& spelling : spellings)
    if (const LinearSpec* linear = spec.find_linear(spec.normalised(spelling))) return linear->hub;
  throw Error(name, fmt::format("adapts {}, which this {} does not have", module, spec.family),
              check_base());
}

}  // namespace

std::optional<MlxExperts> mlx_experts(Text module) {
  const Text container = parent_of(module), leaf = leaf_of(module);
  const bool stacked = ends_in(container, "switch_mlp") || ends_in(container, "experts.switch_glu");
  if (!stacked && !ends_in(container, "experts")) return std::nullopt;
  const auto* const word =
      std::find_if(std::begin(kWords), std::end(kWords),
                   [&](const NamePattern::Word& known) { return known.text == leaf; });
  if (word == std::end(kWords)) return std::nullopt;
  const bool below = ends_in(container, "experts.switch_glu");
  return MlxExperts{below ? parent_of(container) : container, word->projection};
}

std::string hub_module_of_mlx(Text module, const ModelSpec* spec, const std::string& name) {
  if (spec == nullptr && module.starts_with(kWrapper))
    throw needs_base(name,
                     "lies under \"language_model\", which families place differently on the hub");
  if (const auto experts = mlx_experts(module)) return hub_experts(*experts, spec, name);
  if (spec != nullptr) return hub_linear(module, *spec, name);
  for (const Renamed& renamed : kLfm2)
    if (ends_in(module, renamed.mlx))
      throw needs_base(name, fmt::format("is {} on the hub in some families, and {} in others",
                                         leaf_of(renamed.hub), leaf_of(renamed.mlx)));
  return std::string(module);
}

// ---- hub to mlx --------------------------------------------------------------------------------

namespace {

[[noreturn]] void takes_no_lora(const std::string& module, Text how, Text advice) {
  throw Error(module, fmt::format("takes no LoRA in mlx-lm: {}", how), std::string(advice));
}

// The hub's path as mlx-lm's class has it.
std::string renamed(std::string path, const ModelClass& known, const ModelSpec& spec) {
  for (const Renamed& pair : known.renamed) path = with_component(path, pair.hub, pair.mlx);
  const bool wrapped = std::any_of(spec.linears.begin(), spec.linears.end(), [](const auto& l) {
    return l.role == Role::embedding && l.hub.starts_with(kHubText);
  });
  if (wrapped && path == "lm_head") return std::string(kWrapper) + path;
  return with_front(path, kHubText, kMlxText);
}

}  // namespace

std::string mlx_module_of_hub(const std::string& module, const ModelSpec& spec) {
  const ModelClass& known = class_of(spec);
  const LinearSpec* linear = spec.find_linear(spec.normalised(module));
  if (linear == nullptr)
    throw Error(module, fmt::format("is no linear layer that mlx-lm's {} has", spec.model_type),
                "an adapter for mlx-lm holds factors of its language model alone");
  if (linear->role == Role::router && !known.router)
    takes_no_lora(module, "the router is of a class of its own",
                  "train without it; --for peft --drop router leaves routers out");
  if (!known.kv_b_proj && leaf_of(module) == "kv_b_proj")
    takes_no_lora(module, "it is split into embed_q and unembed_out",
                  "train without it, or merge the adapter into the base and convert that to MLX");
  if (linear->role == Role::lm_head && spec.tied_embeddings)
    takes_no_lora(module, "it is the embedding itself (tie_word_embeddings)",
                  "train without it, or merge the adapter into the base and convert that to MLX");
  return renamed(linear->hub, known, spec);
}

std::string mlx_module_of_experts(int layer, Projection projection, const ModelSpec& spec) {
  const ModelClass& known = class_of(spec);
  const std::string stem = renamed(expert_stem(spec, layer), known, spec);
  const std::string container = sibling(stem, known.experts);
  if (spec.gated) return container + "." + std::string(projection_name(projection));
  return container + (projection == Projection::up ? ".fc1" : ".fc2");
}

}  // namespace moelora
