#include "lib/adapter/init.h"

#include <fmt/core.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <functional>
#include <numeric>

#include "lib/adapter/random_source.h"
#include "lib/base/cast.h"
#include "lib/base/nearest.h"
#include "lib/model/base_model.h"

namespace moelora {
namespace {

struct Target {
  std::string_view name;
  std::optional<Role> role;  // of its Linears; nullopt: the routed experts
};

constexpr std::array<Target, 6> kTargets = {{{"attention", Role::attention},
                                             {"mixer", Role::mixer},
                                             {"mlp", Role::dense_mlp},
                                             {"shared", Role::shared_expert},
                                             {"experts", std::nullopt},
                                             {"lm_head", Role::lm_head}}};

void check_targets(const InitOptions& options) {
  if (options.targets.empty())
    throw Error(Option::targets, "is empty", "name attention, experts, ...");
  std::vector<std::string_view> known;
  for (const Target& target : kTargets) known.push_back(target.name);
  for (const std::string& name : options.targets) {
    if (std::find(known.begin(), known.end(), name) != known.end()) continue;
    if (name == "router")
      throw Error(
          Option::targets,
          "router cannot be adapted: SGLang and vLLM have no LoRA for it and refuse the adapter",
          "leave router out");
    throw unknown_word(at_option(Option::targets), "target", name, known);
  }
}

// Fresh factors, each a function of seed and name.
class Maker {
 public:
  explicit Maker(const InitOptions& options) : options_(options) {}

  Tensor a(const std::string& name, const Shape& shape) const { return random(name + " A", shape); }
  Tensor b(const std::string& name, const Shape& shape) const {
    return options_.random_b ? random(name + " B", shape) : Tensor::zeros(options_.dtype, shape);
  }

 private:
  Tensor random(const std::string& name, const Shape& shape) const {
    const double bound = 1 / std::sqrt(static_cast<double>(shape.back()));
    const int64_t elements =
        std::accumulate(shape.begin(), shape.end(), int64_t{1}, std::multiplies<>());
    const SourcePtr source = random_source(options_.seed, name, elements, bound);
    return Tensor(cast_source(source, options_.dtype), shape);
  }

  const InitOptions& options_;
};

ExpertPair expert_pair(const Maker& maker, const InitOptions& o, const ModelSpec& spec, int layer,
                       Projection p, bool joint_a) {
  const std::string name = fmt::format("layer {} {}", layer, projection_name(p));
  const std::string a_name = joint_a ? fmt::format("layer {} gate_up_proj", layer) : name;
  const bool down = p == Projection::down;
  const int64_t e_a = o.shared_outer && !down ? 1 : spec.experts,
                e_b = o.shared_outer && down ? 1 : spec.experts;
  ExpertPair out;
  out.a = {maker.a(a_name, {e_a, o.rank, spec.in_dim(p)}).unstack(), e_a == 1};
  out.b = {maker.b(name, {e_b, spec.out_dim(p), o.rank}).unstack(), e_b == 1};
  out.scaling = {{o.rank, o.alpha, false}};
  return out;
}

void add_experts(const Maker& maker, const InitOptions& o, const ModelSpec& spec,
                 const Layout& layout, Adapter& adapter) {
  if (spec.experts == 0)
    throw Error(Option::targets, "this base model has no experts", "leave them out");
  adapter.expert_count = spec.experts;
  adapter.expert_stem = spec.factor_stem(Form::memory);
  std::vector<Projection> projections{Projection::up, Projection::down};
  if (spec.gated) projections.insert(projections.begin(), Projection::gate);
  for (int layer = 0; layer < static_cast<int>(spec.layers); ++layer)
    for (Projection p : projections)
      if (spec.is_moe(layer)) {
        const bool joint_a = joins_gate_up(layout, &spec) && spec.gated && p != Projection::down;
        adapter.experts.emplace(ExpertKey{layer, p},
                                expert_pair(maker, o, spec, layer, p, joint_a));
      }
}

// The modules of one target that are Linears where the layout names them.
void add_dense(const Maker& maker, const InitOptions& o, const ModelSpec& spec,
               const Layout& layout, const Target& target, Adapter& adapter) {
  const bool hub = in_hub_names(spec, layout.form);
  const size_t before = adapter.dense.size();
  for (const LinearSpec& linear : spec.linears)
    if (linear.role == target.role && linear.is_in(hub ? Form::hub : Form::memory) &&
        (hub ? linear.hub_linear : linear.memory_linear))
      adapter.dense[linear.memory] = {maker.a(linear.memory, {o.rank, linear.in}),
                                      maker.b(linear.memory, {linear.out, o.rank}),
                                      {o.rank, o.alpha, false},
                                      false};
  if (adapter.dense.size() == before)
    throw Error(Option::targets, fmt::format("this base model has no {}", target.name),
                "leave it out");
}

}  // namespace

AdapterConfig new_config(const std::string& base, const ModelSpec& spec, int64_t r,
                         double lora_alpha, bool use_rslora) {
  Json json = Json::object({{"base_model_name_or_path", base},
                            {"bias", "none"},
                            {"fan_in_fan_out", false},
                            {"inference_mode", true},
                            {"init_lora_weights", true},
                            {"lora_alpha", whole_or_real(lora_alpha)},
                            {"lora_dropout", 0.0},
                            {"modules_to_save", Json()},
                            {"peft_type", "LORA"},
                            {"r", r},
                            {"target_modules", Json::array()},
                            {"task_type", spec.has_encoder ? "SEQ_2_SEQ_LM" : "CAUSAL_LM"},
                            {"use_dora", false},
                            {"use_rslora", use_rslora}});
  return parse_adapter_config(std::move(json), "adapter_config.json");
}

Conversion make_adapter(const InitOptions& options) {
  check_targets(options);
  layout_by_id(options.to);
  const BaseModel base = open_base(options.base, options.model_specs, options.links);
  Conversion out = make_adapter(options, base.spec);
  // Those of a conversion speak of an input, which there is none of.
  out.notes.clear();
  if (!base.derived.empty()) out.notes.push_back(base.derived);
  return out;
}

Conversion make_adapter(const InitOptions& given, const ModelSpec& spec) {
  InitOptions o = given;
  if (o.alpha == 0) o.alpha = static_cast<double>(o.rank);
  if (!std::isfinite(o.alpha))
    throw Error(Option::alpha, "is not finite", "leave it out: alpha is then the rank");
  check_targets(o);
  const Layout& layout = layout_by_id(o.to);
  o.shared_outer = o.shared_outer || layout.shared_outer || has_rows(layout, &spec);
  const Maker maker(o);
  Adapter made;
  made.config = new_config(o.base, spec, o.rank, o.alpha);
  for (const Target& target : kTargets) {
    if (std::find(o.targets.begin(), o.targets.end(), target.name) == o.targets.end()) continue;
    if (target.role)
      add_dense(maker, o, spec, layout, target, made);
    else if (spec.has_linear_experts())
      add_dense(maker, o, spec, layout, {target.name, Role::expert}, made);
    else
      add_experts(maker, o, spec, layout, made);
  }
  PlanOptions convert;
  convert.to = o.to;
  return plan_conversion(std::move(made), spec, convert);
}

}  // namespace moelora
