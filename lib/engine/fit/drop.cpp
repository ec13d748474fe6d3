#include "lib/engine/fit/drop.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <functional>
#include <map>
#include <set>

#include "lib/adapter/expert_biases.h"
#include "lib/adapter/names/text_names.h"
#include "lib/base/cast.h"
#include "lib/base/dotted_path.h"
#include "lib/base/error.h"
#include "lib/engine/fit/deltas.h"
#include "lib/engine/variants.h"
#include "lib/io/weights.h"

namespace moelora::fit {
namespace {

// What of an adapter a --drop means.
struct Part {
  std::vector<std::string> dense, extras;
  bool experts = false;  // with all factors of routed experts
};

// What TRL, verl and others put on a model that scores: trained along, saved whole or as factors.
bool is_value_head(std::string_view name) {
  if (find_layer(name)) return false;  // a module of a layer that is called so
  constexpr std::array<std::string_view, 4> kHeads = {"v_head.", "value_head.", "critic_head.",
                                                      "reward_head."};
  return std::any_of(kHeads.begin(), kHeads.end(), [&](std::string_view head) {
    const size_t at = name.find(head);
    return at != std::string_view::npos && (at == 0 || name[at - 1] == '.');
  });
}

DropKind kind_of(const std::string& name, const Extra& extra) {
  if (is_in_vision(name)) return DropKind::vision;
  if (is_value_head(name)) return DropKind::value_head;
  if (extra.kind == ExtraKind::embedding_factor) return DropKind::embeddings;
  const bool bias =
      extra.kind == ExtraKind::other && (name.ends_with(".bias") || is_expert_bias(name));
  return bias || extra.kind == ExtraKind::lora_bias ? DropKind::bias : DropKind::saved_modules;
}

// All that is no tower's. Where no tower has a factor, nothing would be left.
void add_text(const FitContext& context, std::map<DropKind, Part>& parts) {
  const Adapter& adapter = context.adapter;
  const auto vision = parts.find(DropKind::vision);
  if (context.drops(DropKind::vision))
    throw Error(at_option(Option::drop, std::string(drop_name(DropKind::text))),
                "with vision leaves nothing", "drop one of the two");
  if (vision == parts.end() || vision->second.dense.empty())
    throw Error(
        at_option(Option::drop, std::string(drop_name(DropKind::text))),
        "the adapter has no factors of a vision or audio tower, so that nothing would be left",
        "leave it out");
  Part text{{}, {}, !adapter.experts.empty()};
  for (const auto& entry : adapter.dense)
    if (!is_in_vision(entry.first)) text.dense.push_back(entry.first);
  for (const auto& entry : adapter.extras)
    if (!is_in_vision(entry.first)) text.extras.push_back(entry.first);
  parts = {{DropKind::vision, std::move(vision->second)}, {DropKind::text, std::move(text)}};
}

std::map<DropKind, Part> parts_of(const FitContext& context) {
  std::map<DropKind, Part> out;
  for (const auto& entry : context.adapter.dense)
    if (const auto kind = drop_of(entry.first, context.spec()))
      out[*kind].dense.push_back(entry.first);
  for (const auto& [name, extra] : context.adapter.extras)
    out[kind_of(name, extra)].extras.push_back(name);
  if (context.drops(DropKind::text)) add_text(context, out);
  return out;
}

// ---- what is lost ----------------------------------------------------------------------------

double distance(const Tensor& a, const Tensor& b) {
  const std::vector<double> x = read_double(a), y = read_double(b);
  double sum = 0;
  for (size_t i = 0; i < x.size(); ++i) sum += (x[i] - y[i]) * (x[i] - y[i]);
  return std::sqrt(sum);
}

std::optional<Weights> base_weights(const BaseModel& base) {
  if (base.values_folder().empty()) return std::nullopt;
  try {
    return open_weights(base.values_folder(), {"model"}, {false, base.links});
  } catch (const MachineError&) {
    throw;
  } catch (const Error&) {  // a config.json alone
    return std::nullopt;
  }
}

// "lm_head.weight" of "lm_head.base_layer.weight".
std::string base_weight_name(std::string name) {
  const size_t at = name.find(".base_layer.");
  return at == std::string::npos ? name : name.erase(at, 11);
}

// What a full tensor in an adapter (a saved module, a base_layer weight) changes: its difference
// from the base's own, Frobenius; nullopt where the base's weights are not at hand or have no
// tensor of that name and shape.
std::optional<double> saved_change(const FitContext& context, const std::string& name,
                                   const Tensor& saved) {
  const std::optional<Weights> weights = base_weights(context.base);
  if (!weights) return std::nullopt;
  const std::string wanted = base_weight_name(name);
  const size_t dot = wanted.rfind('.');
  const LinearSpec* linear = context.spec().find_linear(wanted.substr(0, dot));
  for (const std::string& spelled :
       {wanted, linear == nullptr ? wanted : linear->hub + wanted.substr(dot)}) {
    const auto found = weights->tensors.find(spelled);
    if (found == weights->tensors.end() || found->second.shape() != saved.shape()) continue;
    return distance(saved, found->second);
  }
  return std::nullopt;
}

double bias_norm(const FitContext& context, const std::string& name, const Tensor& bias) {
  double sum = 0;
  for (double value : read_double(bias)) sum += value * value;
  const auto pair = context.adapter.dense.find(name.substr(0, name.find(".lora_B.bias")));
  const double scale = pair == context.adapter.dense.end() ? 1 : pair->second.scaling.value();
  return std::fabs(scale) * std::sqrt(sum);
}

std::vector<Delta> embedding_deltas(const Adapter& adapter,
                                    const std::function<bool(const std::string&)>& takes) {
  std::vector<Delta> out;
  for (const EmbeddingPair& pair : embedding_pairs(adapter))
    if (takes(pair.a))
      out.push_back({adapter.extras.at(pair.a).tensor, adapter.extras.at(pair.b).tensor,
                     pair.scaling.value()});
  return out;
}

std::vector<Delta> expert_bias_deltas(const Adapter& adapter, const ModelSpec& spec) {
  std::vector<Delta> out;
  for (const auto& [key, bias] : expert_biases(adapter, &spec))
    out.push_back({adapter.extras.at(bias.a).tensor, adapter.extras.at(bias.b).tensor,
                   adapter.config.scaling(bias.path).value()});
  return out;
}

// nullopt: some of it is a full weight whose original is not known.
std::optional<double> norm_of(const FitContext& context, DropKind kind, const Part& part) {
  std::vector<Delta> deltas;
  for (const std::string& module : part.dense) {
    const DensePair& pair = context.adapter.dense.at(module);
    deltas.push_back({pair.a, pair.b, pair.scaling.value()});
  }
  const bool text = kind == DropKind::text;
  const std::set<std::string> extras(part.extras.begin(), part.extras.end());
  for (Delta& delta : embedding_deltas(
           context.adapter, [&](const std::string& name) { return extras.count(name) != 0; }))
    deltas.push_back(std::move(delta));
  if (kind == DropKind::bias || text)
    for (Delta& delta : expert_bias_deltas(context.adapter, context.spec()))
      deltas.push_back(std::move(delta));
  if (part.experts)
    for (const auto& entry : deltas_of(context.adapter))
      if (entry.first.expert >= 0) deltas.push_back(entry.second);
  double norm = delta_norm(deltas, context.options.threads);
  for (const std::string& name : part.extras) {
    const Extra& extra = context.adapter.extras.at(name);
    if (is_expert_bias(name) || extra.kind == ExtraKind::embedding_factor) continue;  // above
    const bool bias = kind == DropKind::bias || extra.kind == ExtraKind::lora_bias;
    const std::optional<double> change =
        bias ? bias_norm(context, name, extra.tensor) : saved_change(context, name, extra.tensor);
    if (!change) return std::nullopt;
    norm = std::hypot(norm, *change);
  }
  return norm;
}

// Of all low-rank deltas.
double whole_norm(const FitContext& context) {
  std::vector<Delta> deltas =
      embedding_deltas(context.adapter, [](const std::string&) { return true; });
  for (const auto& entry : deltas_of(context.adapter)) deltas.push_back(entry.second);
  return delta_norm(deltas, context.options.threads);
}

std::string share_text(const LeftOut& dropped, DropKind kind) {
  if (kind == DropKind::value_head) return "it scores texts and takes no part in writing them";
  if (!dropped.norm) return "what it changed is not known: the base's weights are not here";
  if (dropped.whole == 0) return "its delta is 0";
  return fmt::format("its delta has the norm {:.4g} of {:.4g}, {:.3g} % of the whole",
                     *dropped.norm, dropped.whole, 100 * *dropped.norm / dropped.whole);
}

void drop(FitContext& context, DropKind kind, const Part& part) {
  LeftOut out{std::string(drop_name(kind)), part.dense, std::nullopt, 0};
  out.modules.insert(out.modules.end(), part.extras.begin(), part.extras.end());
  std::sort(out.modules.begin(), out.modules.end());
  if (context.options.measure) {
    out.norm = norm_of(context, kind, part);
    out.whole = whole_norm(context);
    const bool low_rank = kind == DropKind::router || kind == DropKind::embeddings ||
                          kind == DropKind::vision || kind == DropKind::text;
    if (!low_rank && out.norm) out.whole = std::hypot(out.whole, *out.norm);
  }
  for (const std::string& module : part.dense) context.adapter.dense.erase(module);
  if (part.experts) context.adapter.experts.clear();
  for (const std::string& name : part.extras) context.adapter.extras.erase(name);
  context.note(drop_unheld.name, fmt::format("dropped ({}): {}; {}", out.kind, some_of(out.modules),
                                             share_text(out, kind)));
  if (kind == DropKind::text)  // check_served() of fit.cpp does not ask a plan then
    context.note(drop_unheld.name,
                 fmt::format("not checked: what {} makes of the towers' factors", context.title()));
  context.changes.left_out.push_back(std::move(out));
}

[[noreturn]] void refuse(const FitContext& context, DropKind kind, const Part& part) {
  const std::string& first = part.dense.empty() ? part.extras.front() : part.dense.front();
  const size_t more = part.dense.size() + part.extras.size() - 1;
  throw DropNeeded(first,
                   fmt::format("{} has no place for it{}", context.title(),
                               more == 0 ? "" : fmt::format(", nor for {} more of its kind", more)),
                   kind);
}

// ---- what no --drop can help -----------------------------------------------------------------

void refuse_dora(const FitContext& context) {
  const Hint hint = "merge the adapter into the base, or train without use_dora";
  for (const auto& [name, extra] : context.adapter.extras)
    if (extra.kind == ExtraKind::magnitude)
      throw Error(name, fmt::format("{} does not serve DoRA", context.title()), hint);
  if (context.adapter.config.use_dora)
    throw Error(context.adapter.config.where,
                fmt::format("\"use_dora\" is true; {} does not serve DoRA", context.title()), hint);
}

void refuse_variants(const FitContext& context) {
  for (const Variant& variant : all_variants())
    if (variant.is_on(context.adapter.config.json) && !variant.training_only)
      throw Error(in_file(context.adapter.config.where, std::string(variant.key)),
                  fmt::format("{}: {} has nothing of the kind, {}", variant.title, context.title(),
                              variant.effect),
                  "train without it, or serve with PEFT");
}

// The frozen weight of an adapted embedding that PEFT saves beside its factors: the base has it.
void leave_base_weights(FitContext& context) {
  std::vector<std::string> left;
  for (const auto& [name, extra] : context.adapter.extras) {
    if (extra.kind != ExtraKind::base_weight) continue;
    const size_t dot = base_weight_name(name).rfind('.');
    const LinearSpec* linear = context.spec().find_linear(base_weight_name(name).substr(0, dot));
    if (linear == nullptr || linear->role == Role::router) continue;
    const bool table = linear->role == Role::embedding;
    const Shape own{table ? linear->in : linear->out, table ? linear->out : linear->in};
    if (extra.tensor.shape() == own) left.push_back(name);
  }
  if (left.empty()) return;
  for (const std::string& name : left) context.adapter.extras.erase(name);
  context.note(
      drop_unheld.name,
      fmt::format("left out {}: the base's own weight, which LoRA does not train", some_of(left)));
}

void drop_or_refuse(FitContext& context) {
  const auto holds = context.engine().holds;  // null: it has a place for everything
  if (holds != nullptr) {
    refuse_dora(context);
    refuse_variants(context);
    leave_base_weights(context);
  }
  for (const auto& [kind, part] : parts_of(context))
    if (context.drops(kind))
      drop(context, kind, part);
    else if (holds != nullptr && !holds(kind, context.target))
      refuse(context, kind, part);
}

// ---- the config ------------------------------------------------------------------------------

// Whether `key` holds something else than null, false, "" or `harmless`.
bool says(const Json& config, std::string_view key, std::string_view harmless = "") {
  const Json* value = config.find(key);
  if (value == nullptr || value->is(Json::Kind::null)) return false;
  if (value->is(Json::Kind::boolean)) return value->as_bool();
  if (value->is(Json::Kind::string))
    return value->as_string() != harmless && !value->as_string().empty();
  if (value->is(Json::Kind::array)) return !value->items().empty();
  return true;
}

// The tensors these keys speak of are gone by now: dropped, or never there.
void make_plain(FitContext& context) {
  const Json& config = context.adapter.config.json;
  std::vector<std::pair<std::string_view, Json>> changes;
  if (says(config, "bias", "none")) changes.emplace_back("bias", "none");
  if (says(config, "lora_bias")) changes.emplace_back("lora_bias", false);
  if (says(config, "modules_to_save")) changes.emplace_back("modules_to_save", Json());
  set_config(context, plain_config.name, std::move(changes));
}

}  // namespace

std::optional<DropKind> drop_of(const std::string& module, const ModelSpec& spec) {
  if (is_in_vision(module)) return DropKind::vision;
  if (is_value_head(module + ".")) return DropKind::value_head;
  const LinearSpec* linear = spec.find_linear(module);
  if (linear == nullptr) return std::nullopt;
  const Role role = linear->role;
  if (role == Role::router || role == Role::shared_expert_gate) return DropKind::router;
  if (role == Role::lm_head || role == Role::embedding) return DropKind::embeddings;
  return std::nullopt;
}

void set_config(FitContext& context, std::string_view step,
                std::vector<std::pair<std::string_view, Json>> changes) {
  if (changes.empty()) return;
  std::vector<std::string> shown;
  for (auto& [key, value] : changes) {
    shown.push_back(fmt::format("{} {}", key, value.dump(-1)));
    context.adapter.config.json.set(key, std::move(value));
  }
  context.note(step, fmt::format("adapter_config.json says {}", fmt::join(shown, ", ")));
}

const FitStep drop_unheld = {"drop",
                             "with --drop only: routers, biases, saved modules, embeddings that "
                             "the engine cannot hold; says "
                             "how much of the delta that was",
                             drop_or_refuse, true};

const FitStep plain_config = {"plain-config", "bias and modules_to_save that no tensor is left for",
                              make_plain};

}  // namespace moelora::fit
