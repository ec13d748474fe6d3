#include "lib/engine/sglang/model/class_facts.h"

#include <algorithm>
#include <utility>

#include "lib/engine/server_class.h"
#include "lib/engine/sglang/features.h"

namespace moelora::sglang {
namespace {

bool is_among(std::string_view name, const std::vector<std::string>& names) {
  return std::find(names.begin(), names.end(), name) != names.end();
}

std::vector<PackedModule> read_packed(const JsonView& json) {
  constexpr LayerKind kKinds[] = {LayerKind::qkv, LayerKind::merged, LayerKind::replicated};
  std::vector<PackedModule> out;
  for (const auto& [name, packed] : json.members()) {
    const size_t kind = packed.at("type").one_of(
        {"QKVParallelLinear", "MergedColumnParallelLinear", "ReplicatedLinear"});
    const auto splits = packed.find("splits_first");
    out.push_back({name, kKinds[kind], packed.at("parts").strings(), splits && splits->boolean()});
  }
  return out;
}

struct LayerTable {
  std::vector<PackedModule> packed;
  std::vector<std::string> row, replicated;
};

const LayerTable& layer_table() {
  static const LayerTable table = [] {
    const JsonView layers = engine_facts("sglang").at("layers");
    return LayerTable{read_packed(layers.at("packed")), layers.at("row").strings(),
                      layers.at("replicated").strings()};
  }();
  return table;
}

constexpr std::pair<std::string_view, bool ClassFacts::*> kFlags[] = {
    {"run_by_oracle", &ClassFacts::run_by_oracle},
    {"interleaves_gate_up", &ClassFacts::interleaves_gate_up},
    {"experts_in_every_layer", &ClassFacts::experts_in_every_layer},
    {"own_hidden_dim", &ClassFacts::own_hidden_dim},
    {"first_k_dense_replace", &ClassFacts::first_k_dense_replace},
    {"weights_input", &ClassFacts::weights_input},
    {"asks_for_moe_runner_config", &ClassFacts::asks_for_moe_runner_config},
    {"expert_biases", &ClassFacts::expert_biases},
    {"transformers_fallback", &ClassFacts::transformers_fallback},
    {"only_without_experts", &ClassFacts::only_without_experts},
};

constexpr std::pair<std::string_view, std::string ClassFacts::*> kTexts[] = {
    {"router_type", &ClassFacts::router_type},
    {"since", &ClassFacts::since},
    {"not_built", &ClassFacts::not_built},
    {"not_judged", &ClassFacts::not_judged},
};

struct Reader {
  ClassFacts out = {};
  std::vector<std::string> separate = {};

  void read(std::string_view key, const JsonView& value) {
    if (key == "name" || key == "families" || key == "note") return;
    if (key == "lora_modules") {
      out.lora_modules = value.strings();
    } else if (key == "lm_head") {
      out.lm_head = value.one_of({"within", "none"}) == 0 ? LmHead::within : LmHead::none;
    } else if (key == "packed") {
      out.packed = read_packed(value);
    } else if (key == "separate") {
      separate = value.strings();
    } else if (!read_text(key, value) && !read_flag(key, value)) {
      value.fail("no class of SGLang has this key");
    }
  }

  bool read_text(std::string_view key, const JsonView& value) {
    for (const auto& [name, text] : kTexts)
      if (name == key) {
        out.*text = value.string();
        if (key == "since" && !release_named(out.since)) value.fail("not a release of SGLang");
        return true;
      }
    return false;
  }

  bool read_flag(std::string_view key, const JsonView& value) {
    for (const auto& [name, flag] : kFlags)
      if (name == key) {
        out.*flag = value.boolean();
        return true;
      }
    return false;
  }

  void add_common() {
    for (const PackedModule& packed : layer_table().packed)
      if (!is_among(packed.name, separate)) out.packed.push_back(packed);
  }
};

}  // namespace

ClassFacts read_class_facts(const ModelSpec& spec) {
  Reader reader;
  if (const auto found = find_server_class("sglang", spec))
    for (const auto& [key, value] : found->members()) reader.read(key, value);
  reader.add_common();
  return std::move(reader.out);
}

bool is_row_linear(std::string_view leaf) { return is_among(leaf, layer_table().row); }

bool is_replicated_linear(std::string_view leaf) {
  return is_among(leaf, layer_table().replicated);
}

}  // namespace moelora::sglang
