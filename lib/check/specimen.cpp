#include "lib/check/specimen.h"

#include <fmt/core.h>

#include <algorithm>
#include <array>

#include "lib/adapter/init.h"
#include "lib/adapter/random_source.h"
#include "lib/base/cast.h"
#include "lib/base/error.h"
#include "lib/check/embedded_specimens.h"
#include "lib/model/base_model.h"
#include "lib/model/model_builder.h"

namespace moelora {
namespace {

// A sound adapter: what `lora-convert init` would make for a tiny base model.
struct Recipe {
  std::string_view id, base;
  const Layout* to;
  std::string_view targets;              // separated by spaces
  std::array<const Engine*, 3> engines;  // that accept it, the rest null
};

constexpr std::array<Recipe, 9> kRecipes = {{
    {"gpt_oss_attention",
     "gpt_oss",
     &layouts::peft_linear,
     "attention",
     {&engines::peft, &engines::sglang, &engines::vllm}},
    {"gpt_oss_stacked_params",
     "gpt_oss",
     &layouts::peft_params,
     "attention experts",
     {&engines::peft, &engines::vllm}},
    {"gpt_oss_stacked",
     "gpt_oss",
     &layouts::stacked_fused,
     "attention experts",
     {&engines::sglang}},
    {"qwen3_moe_per_expert",
     "qwen3_moe",
     &layouts::peft_linear,
     "attention experts",
     {&engines::sglang, &engines::vllm}},
    {"qwen3_moe_shared_outer",
     "qwen3_moe",
     &layouts::shared_outer,
     "attention experts",
     {&engines::sglang}},
    {"qwen3_moe_stacked_params",
     "qwen3_moe",
     &layouts::peft_params,
     "attention experts",
     {&engines::peft}},
    {"mixtral_per_expert", "mixtral", &layouts::peft_linear, "attention experts", {&engines::vllm}},
    {"deepseek_v3_per_expert",
     "deepseek_v3",
     &layouts::peft_linear,
     "attention experts shared",
     {&engines::sglang, &engines::vllm}},
    {"nemotron_h_per_expert", "nemotron_h", &layouts::peft_linear, "experts", {&engines::vllm}},
}};

std::vector<std::string> words(std::string_view text) {
  std::vector<std::string> out;
  while (!text.empty()) {
    const size_t space = text.find(' ');
    out.emplace_back(text.substr(0, space));
    text = space == std::string_view::npos ? "" : text.substr(space + 1);
  }
  return out;
}

void edit(Json& config, std::span<const Breaks::Member> members) {
  for (const auto& [key, json] : members) {
    if (key.empty()) continue;
    if (json.empty())
      config.erase(key);
    else
      config.set(std::string(key), parse_json(json, "an example's value"));
  }
}

void set_options(ServerOptions& options, std::span<const std::string_view> pairs) {
  std::vector<EngineChoice> engines;
  for (const Engine* engine : all_engines()) engines.push_back(parse_engine(engine->id));
  for (std::string_view pair : pairs)
    if (!pair.empty()) set_server_option(options, pair, engines);
}

Json base_config(std::string_view name) {
  for (const auto& [file, text] : embedded_specimen_bases())
    if (file == name) return parse_json(text, "schemas/specimens/" + file + ".json");
  throw Error(std::string(name), "is not a base of schemas/specimens");
}

Subject make_subject(const Conversion& fresh) {
  Subject out;
  out.given = out.folder = "adapter";
  out.has_config = true;
  // Through text, so that every key has a line.
  out.config = parse_json(fresh.config.dump(), "adapter_config.json");
  out.main_file = "adapter_model.safetensors";
  out.own_files = {out.main_file};
  out.listing = {"adapter_config.json", out.main_file};
  out.files.push_back({out.main_file, fresh.tensors});
  return out;
}

InitOptions init_options(const Recipe& recipe) {
  InitOptions out;
  out.base = fmt::format("moelora/tiny-{}", recipe.base);
  out.rank = 4;
  out.alpha = 8;
  out.targets = words(recipe.targets);
  out.to = recipe.to->id;
  out.random_b = true;
  return out;
}

}  // namespace

std::span<const std::string_view> specimen_ids() {
  static const std::vector<std::string_view> kIds = [] {
    std::vector<std::string_view> ids;
    for (const Recipe& recipe : kRecipes) ids.push_back(recipe.id);
    return ids;
  }();
  return kIds;
}

Specimen make_specimen(std::string_view id) {
  const auto recipe =
      std::find_if(kRecipes.begin(), kRecipes.end(), [&](const Recipe& r) { return r.id == id; });
  if (recipe == kRecipes.end()) throw Error(std::string(id), "is not a specimen");
  Specimen out;
  out.id = id;
  out.base_config = base_config(recipe->base);
  const InitOptions options = init_options(*recipe);
  const ModelSpec spec = make_model_spec(out.base_config, options.base);
  out.adapters.push_back(make_subject(make_adapter(options, spec)));
  for (const Engine* engine : recipe->engines)
    if (engine != nullptr) out.engines.emplace_back(engine->id);
  return out;
}

Tensor Specimen::zeros(const Shape& shape, DType dtype) const {
  return Tensor::zeros(dtype, shape);
}

Tensor Specimen::random(const Shape& shape, uint64_t seed) const {
  int64_t elements = 1;
  for (int64_t extent : shape) elements *= extent;
  return Tensor(random_source(seed, to_string(shape), elements, 0.1), shape);
}

Deployment deployment_of(Specimen specimen, std::string_view engine) {
  Deployment out;
  const std::string where = "moelora/tiny-base";
  if (!specimen.without_base) {
    BaseModel base;
    base.spec = make_model_spec(specimen.base_config, where);
    base.config = specimen.base_config;
    base.origin = where;
    out.base = std::move(base);
  }
  out.options = specimen.options;
  for (Subject& subject : specimen.adapters) {
    interpret(subject, out.base, {});
    out.adapters.push_back(std::move(subject));
  }
  out.numeric = specimen.numeric || specimen.source.has_value();
  if (specimen.source) interpret(*specimen.source, out.base, {});
  out.source = std::move(specimen.source);
  if (!engine.empty()) out.engines.push_back({parse_engine(engine), out.options, {}, {}});
  plan_engines(out);
  return out;
}

Deployment example_of(const Rule& rule) {
  const Breaks& breaks = rule.breaks;
  Specimen specimen = make_specimen(breaks.specimen);
  edit(specimen.config(), breaks.config);
  edit(specimen.base_config, breaks.base_config);
  set_options(specimen.options, breaks.options);
  if (breaks.apply != nullptr) breaks.apply(specimen);
  const bool own = breaks.engine.empty() && rule.engine != nullptr;
  return deployment_of(std::move(specimen), own ? rule.engine->id : breaks.engine);
}

}  // namespace moelora
