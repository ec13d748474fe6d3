// What the engine has no place for: refused, or left out at the user's word and measured.

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>

#include "lib/base/cast.h"
#include "lib/base/error.h"
#include "lib/engine/fit/delta_norm.h"
#include "lib/engine/fit/embeddings.h"
#include "lib/engine/fit/saved_modules.h"
#include "lib/engine/fit/step.h"
#include "lib/engine/vllm/server/model_class.h"

namespace moelora::fit {
namespace {

// What of an adapter a --drop means.
struct Part {
  DropKind kind;
  std::vector<std::string> dense, extras;
};

bool is_gate(const FitContext& context, const std::string& module) {
  const LinearSpec* linear = context.spec.find_linear(module);
  return linear != nullptr &&
         (linear->role == Role::router || linear->role == Role::shared_expert_gate);
}

bool is_embedding(const FitContext& context, const std::string& module) {
  const LinearSpec* linear = context.spec.find_linear(module);
  return linear != nullptr && (linear->role == Role::lm_head || linear->role == Role::embedding);
}

DropKind kind_of(const Extra& extra) {
  switch (extra.kind) {
    case ExtraKind::embedding_factor:
      return DropKind::embeddings;
    case ExtraKind::lora_bias:
      return DropKind::bias;
    default:
      return DropKind::saved_modules;
  }
}

bool is_bias(const std::string& name) { return name.ends_with(".bias"); }

std::array<Part, 4> parts_of(const FitContext& context) {
  std::array<Part, 4> out{{{DropKind::router, {}, {}},
                           {DropKind::bias, {}, {}},
                           {DropKind::saved_modules, {}, {}},
                           {DropKind::embeddings, {}, {}}}};
  const auto part = [&](DropKind kind) -> Part& { return out[static_cast<size_t>(kind)]; };
  for (const auto& entry : context.adapter.dense) {
    if (is_gate(context, entry.first)) part(DropKind::router).dense.push_back(entry.first);
    if (is_embedding(context, entry.first)) part(DropKind::embeddings).dense.push_back(entry.first);
  }
  for (const auto& [name, extra] : context.adapter.extras) {
    const bool bias = extra.kind == ExtraKind::other && is_bias(name);
    part(bias ? DropKind::bias : kind_of(extra)).extras.push_back(name);
  }
  return out;
}

// Whether the engine has a place for it. What depends on the model class beyond this is said by
// the engine's plan of what is written.
bool holds(const FitContext& context, DropKind kind) {
  if (context.is("peft")) return true;
  if (kind == DropKind::router) return context.is("vllm");
  if (kind != DropKind::embeddings) return false;
  const auto model = context.is("vllm") ? vllm::find_model_class(context.spec) : std::nullopt;
  return !model || model->embeddings;
}

// ---- what is lost ----------------------------------------------------------------------------

double bias_norm(const FitContext& context, const std::string& name, const Tensor& bias) {
  double sum = 0;
  for (double value : read_double(bias)) sum += value * value;
  const auto pair = context.adapter.dense.find(name.substr(0, name.find(".lora_B.bias")));
  const double scale = pair == context.adapter.dense.end() ? 1 : pair->second.scaling.value();
  return std::fabs(scale) * std::sqrt(sum);
}

std::vector<Delta> embedding_deltas(const Adapter& adapter) {
  std::vector<Delta> out;
  for (const EmbeddingPair& pair : embedding_pairs(adapter))
    out.push_back(
        {adapter.extras.at(pair.a).tensor, adapter.extras.at(pair.b).tensor, pair.scaling.value()});
  return out;
}

// nullopt: some of it is a full weight whose original is not known.
std::optional<double> norm_of(const FitContext& context, const Part& part) {
  std::vector<Delta> deltas;
  for (const std::string& module : part.dense) {
    const DensePair& pair = context.adapter.dense.at(module);
    deltas.push_back({pair.a, pair.b, pair.scaling.value()});
  }
  if (part.kind == DropKind::embeddings)
    for (Delta& delta : embedding_deltas(context.adapter)) deltas.push_back(std::move(delta));
  double norm = delta_norm(deltas, context.options.threads);
  for (const std::string& name : part.extras) {
    if (part.kind == DropKind::embeddings) continue;
    const Tensor& tensor = context.adapter.extras.at(name).tensor;
    const std::optional<double> change = part.kind == DropKind::bias
                                             ? bias_norm(context, name, tensor)
                                             : saved_change(context, name, tensor);
    if (!change) return std::nullopt;
    norm = std::hypot(norm, *change);
  }
  return norm;
}

// Of all low-rank deltas.
double whole_norm(const FitContext& context) {
  std::vector<Delta> deltas = expert_deltas(context.adapter);
  for (Delta& delta : embedding_deltas(context.adapter)) deltas.push_back(std::move(delta));
  for (const auto& entry : context.adapter.dense)
    deltas.push_back({entry.second.a, entry.second.b, entry.second.scaling.value()});
  return delta_norm(deltas, context.options.threads);
}

std::string share_text(const DroppedPart& dropped) {
  if (!dropped.norm) return "what it changed is not known: the base's weights are not here";
  if (dropped.whole == 0) return "its delta is 0";
  return fmt::format("its delta has the norm {:.4g} of {:.4g}, {:.3g} % of the whole",
                     *dropped.norm, dropped.whole, 100 * *dropped.norm / dropped.whole);
}

void drop(FitContext& context, const Part& part) {
  DroppedPart out{std::string(drop_name(part.kind)), part.dense, norm_of(context, part), 0};
  out.modules.insert(out.modules.end(), part.extras.begin(), part.extras.end());
  std::sort(out.modules.begin(), out.modules.end());
  out.whole = whole_norm(context);
  const bool low_rank = part.kind == DropKind::router || part.kind == DropKind::embeddings;
  if (!low_rank && out.norm) out.whole = std::hypot(out.whole, *out.norm);
  for (const std::string& module : part.dense) context.adapter.dense.erase(module);
  for (const std::string& name : part.extras) context.adapter.extras.erase(name);
  context.note(drop_unheld.name, fmt::format("dropped ({}): {}; {}", out.kind, some_of(out.modules),
                                             share_text(out)));
  context.fitting.dropped.push_back(std::move(out));
}

[[noreturn]] void refuse(const FitContext& context, const Part& part) {
  const std::string& first = part.dense.empty() ? part.extras.front() : part.dense.front();
  const size_t more = part.dense.size() + part.extras.size() - 1;
  throw Error(
      first,
      fmt::format("{} has no place for it{}", context.title(),
                  more == 0 ? "" : fmt::format(", nor for {} more of its kind", more)),
      {Option::drop, fmt::format(" {} leaves it out and says what is lost", drop_name(part.kind))});
}

// ---- what no --drop can help -----------------------------------------------------------------

void refuse_dora(const FitContext& context) {
  if (context.is("peft")) return;
  for (const auto& [name, extra] : context.adapter.extras)
    if (extra.kind == ExtraKind::magnitude)
      throw Error(name, fmt::format("{} knows no DoRA", context.title()),
                  "merge the adapter into the base, or train without use_dora");
  if (context.adapter.config.use_dora)
    throw Error(context.adapter.config.where,
                fmt::format("\"use_dora\" is true; {} knows no DoRA", context.title()),
                "merge the adapter into the base, or train without use_dora");
}

// The frozen weight of an adapted embedding that PEFT saves beside its factors: the base has it.
void leave_base_weights(FitContext& context) {
  if (context.is("peft")) return;
  std::vector<std::string> left;
  for (const auto& [name, extra] : context.adapter.extras) {
    if (extra.kind != ExtraKind::base_weight) continue;
    const size_t dot = base_weight_name(name).rfind('.');
    const LinearSpec* linear = context.spec.find_linear(base_weight_name(name).substr(0, dot));
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

void run(FitContext& context) {
  refuse_dora(context);
  leave_base_weights(context);
  for (const Part& part : parts_of(context)) {
    if (part.dense.empty() && part.extras.empty()) continue;
    if (context.drops(part.kind))
      drop(context, part);
    else if (!holds(context, part.kind))
      refuse(context, part);
  }
}

}  // namespace

const FitStep drop_unheld = {"drop", "sglang, vllm, peft",
                             "with --drop only: routers, biases, saved modules, embeddings that "
                             "the engine cannot hold; says "
                             "how much of the delta that was",
                             run};

}  // namespace moelora::fit
