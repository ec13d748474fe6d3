#include "lib/model/model_spec.h"

#include <fmt/core.h>

#include <algorithm>
#include <charconv>

namespace moelora {
namespace {

constexpr std::string_view kLayer = "{layer}";

}  // namespace

std::string_view projection_name(Projection projection) {
  constexpr std::string_view kNames[] = {"gate_proj", "up_proj", "gate_up_proj", "down_proj"};
  return kNames[static_cast<size_t>(projection)];
}

std::string_view role_name(Role role) {
  constexpr std::string_view kNames[] = {
      "attention", "mixer",   "dense MLP", "shared expert", "shared expert gate",
      "router",    "lm_head", "embedding", "routed experts"};
  return kNames[static_cast<size_t>(role)];
}

std::string ModelSpec::expert_stem(Form form, int layer) const {
  return with_layer(storage(form).stem, layer);
}

int64_t ModelSpec::out_dim(Projection p) const {
  if (p == Projection::down) return expert_in;
  return p == Projection::gate_up ? 2 * intermediate : intermediate;
}

int64_t ModelSpec::in_dim(Projection p) const {
  return p == Projection::down ? intermediate : expert_in;
}

int64_t ModelSpec::batched_experts(Projection p) const {
  return p == Projection::down ? experts : experts + idle_experts;
}

Shape ModelSpec::parameter_shape(const ExpertStorage& storage, Projection p) const {
  const int64_t count = batched_experts(p), out = out_dim(p), in = in_dim(p);
  switch (storage.axes) {
    case ExpertAxes::in_out:
      return {count, in, out};
    case ExpertAxes::out_in:
      return {count, out, in};
    case ExpertAxes::rows:
      return p == Projection::down ? Shape{count * in, out} : Shape{count * out, in};
  }
  return {};
}

std::string ModelSpec::factor_stem(Form form) const {
  constexpr std::string_view kExperts = "experts";
  const std::string& stem = storage(form).stem;
  const std::string_view below = std::string_view(stem).substr(stem.find(kLayer) + kLayer.size());
  for (size_t at = below.find(kExperts); at != std::string_view::npos;
       at = below.find(kExperts, at + 1)) {
    const std::string_view after = below.substr(at + kExperts.size());
    if (at > 0 && below[at - 1] == '.' && (after.empty() || after[0] == '.')) return stem;
  }
  return stem + ".experts";
}

void ModelSpec::index_linears() {
  by_module_.clear();
  for (size_t i = 0; i < linears.size(); ++i) {
    by_module_.emplace(linears[i].memory, i);
    by_module_.emplace(linears[i].hub, i);
  }
}

bool ModelSpec::has_linear_experts() const {
  return std::any_of(linears.begin(), linears.end(),
                     [](const LinearSpec& linear) { return linear.role == Role::expert; });
}

const LinearSpec* ModelSpec::find_linear(std::string_view module) const {
  const auto found = by_module_.find(module);
  return found == by_module_.end() ? nullptr : &linears[found->second];
}

std::string ModelSpec::normalised(std::string module) const {
  // A name that the model has is no trainer's spelling, though a rule may fit a part of it.
  if (const LinearSpec* known = find_linear(module)) return known->memory;
  module = renamed(std::move(module), aliases);
  const LinearSpec* linear = find_linear(module);
  return linear == nullptr ? module : linear->memory;
}

ModelSpec::ModelSpec() : hub{}, memory{} {}
ModelSpec::ModelSpec(const ModelSpec&) = default;
ModelSpec::ModelSpec(ModelSpec&&) noexcept = default;
ModelSpec& ModelSpec::operator=(const ModelSpec&) = default;
ModelSpec& ModelSpec::operator=(ModelSpec&&) noexcept = default;
ModelSpec::~ModelSpec() = default;

GateUpOrder required_gate_up_order(const ModelSpec& spec) {
  if (spec.gate_up_order) return *spec.gate_up_order;
  const std::string text =
      "nothing says in which order the rows of gate and up lie in a fused gate_up_proj";
  if (!spec.derived)
    throw Error(spec.model_type, text,
                {"set \"gate_up_order\" in a copy of ", spec.family_file, ", and pass it with ",
                 Option::model_spec});
  throw Error(
      spec.model_type, text,
      {"write the family down with lora-convert spec, set \"gate_up_order\" there, and pass "
       "the file with ",
       Option::model_spec});
}

GateUpOrder required_gate_up_order(const ModelSpec& spec, const ExpertStorage& storage) {
  return storage.order ? *storage.order : required_gate_up_order(spec);
}

std::vector<StoredProjection> stored_projections(const ExpertStorage& s) {
  std::vector<StoredProjection> out;
  for (const StoredProjection& p :
       {StoredProjection{Projection::gate, s.gate}, StoredProjection{Projection::up, s.up},
        StoredProjection{Projection::gate_up, s.gate_up},
        StoredProjection{Projection::down, s.down}}) {
    if (!p.name.empty()) out.push_back(p);
  }
  return out;
}

ExpertStorage per_expert_storage(const ModelSpec& spec) {
  if (spec.hub.numbered) return spec.hub;
  return {true,
          spec.factor_stem(Form::memory),
          spec.gated ? "gate_proj" : "",
          "up_proj",
          "",
          "down_proj",
          ExpertAxes::out_in};
}

ExpertStorage fused_storage(const ModelSpec& spec) {
  return spec.hub.numbered ? spec.memory : spec.hub;
}

std::string layer_stem(const ModelSpec& spec) {
  return spec.hub.stem.substr(0, spec.hub.stem.find(kLayer) + kLayer.size());
}

std::pair<int, std::string> split_stem(const std::string& name, const std::string& stem) {
  const std::pair<int, std::string> none = {-1, ""};
  const size_t mark = stem.find(kLayer);
  if (mark == std::string::npos || name.compare(0, mark, stem, 0, mark) != 0) return none;
  int layer = 0;
  const char* end = name.data() + name.size();
  const auto [rest, error] = std::from_chars(name.data() + mark, end, layer);
  const std::string tail = stem.substr(mark + kLayer.size()) + ".";
  const std::string after(rest, end);
  if (error != std::errc() || layer < 0 || after.rfind(tail, 0) != 0) return none;
  return {layer, after.substr(tail.size())};
}

namespace {

using Tensors = std::vector<std::pair<std::string, Shape>>;

void add_numbered(const ModelSpec& spec, const ExpertStorage& storage, const std::string& stem,
                  Tensors& out) {
  for (int64_t e = 0; e < spec.experts; ++e) {
    for (const auto& [projection, name] : stored_projections(storage)) {
      const std::string module = fmt::format("{}.{}.{}", stem, e, name);
      const int64_t rows = spec.out_dim(projection);
      out.emplace_back(module + ".weight", Shape{rows, spec.in_dim(projection)});
      if (spec.expert_bias) out.emplace_back(module + ".bias", Shape{rows});
    }
  }
}

void add_batched(const ModelSpec& spec, const ExpertStorage& storage, const std::string& stem,
                 Tensors& out) {
  for (const auto& [projection, name] : stored_projections(storage)) {
    const std::string parameter = fmt::format("{}.{}", stem, name);
    out.emplace_back(parameter, spec.parameter_shape(storage, projection));
    if (spec.expert_bias)
      out.emplace_back(parameter + "_bias", Shape{spec.experts, spec.out_dim(projection)});
  }
}

void add_linear(const LinearSpec& linear, Form form, Tensors& out) {
  const std::string& module = form == Form::hub ? linear.hub : linear.memory;
  const bool stored_in_out = linear.role == Role::embedding;
  out.emplace_back(module + ".weight",
                   stored_in_out ? Shape{linear.in, linear.out} : Shape{linear.out, linear.in});
  if (linear.bias) out.emplace_back(module + ".bias", Shape{linear.out});
}

}  // namespace

std::vector<std::pair<std::string, Shape>> ModelSpec::tensors(Form form) const {
  Tensors out;
  for (const LinearSpec& linear : linears) {
    const bool left_out = linear.role == Role::lm_head && tied_embeddings && form == Form::hub;
    if (!left_out && linear.is_in(form)) add_linear(linear, form, out);
  }
  for (int layer = 0; layer < layers; ++layer) {
    if (!is_moe(layer)) continue;
    const std::string stem = expert_stem(form, layer);
    storage(form).numbered ? add_numbered(*this, storage(form), stem, out)
                           : add_batched(*this, storage(form), stem, out);
  }
  return out;
}

}  // namespace moelora
