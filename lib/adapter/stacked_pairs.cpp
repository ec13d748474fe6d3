#include "lib/adapter/stacked_pairs.h"

#include <fmt/core.h>

#include <algorithm>
#include <map>

#include "lib/adapter/expert_collector.h"

namespace moelora {
namespace {

// One way to read the whole file: the side A is on, whether a doubly targeted module nests its
// second parameter innermost (PEFT on bnb-parametrized experts, axolotl 0.15), and what a lone pair
// is.
struct Hypothesis {
  Roles roles;
  bool second_inside;
  bool lone_is_second;
};

struct Parameters {
  Projection first, second;  // in registration order: gate_up (or up) before down
};

Parameters parameters(const ModelSpec* spec) {
  const bool gated = spec == nullptr || spec->gated;
  return {gated ? Projection::gate_up : Projection::up, Projection::down};
}

// The pairs of each layer, as a view into the file's list.
std::vector<std::span<const StackedPair>> by_layer(std::span<const StackedPair> pairs) {
  std::vector<std::span<const StackedPair>> out;
  for (size_t begin = 0; begin < pairs.size();) {
    size_t end = begin;
    while (end < pairs.size() && pairs[end].layer == pairs[begin].layer) ++end;
    out.push_back(pairs.subspan(begin, end - begin));
    begin = end;
  }
  return out;
}

Projection projection_of(const Hypothesis& h, const Parameters& p, size_t pairs, size_t index) {
  const bool second = pairs == 1 ? h.lone_is_second : (index == 1) != h.second_inside;
  return second ? p.second : p.first;
}

struct Dims {
  int64_t in, out;
};

Dims dims(const StackedPair& pair, Roles roles) {
  return roles == Roles::natural ? Dims{pair.a_dim(), pair.b_dim()}
                                 : Dims{pair.b_dim(), pair.a_dim()};
}

// Without a base model: gate_up is H -> 2I and down I -> H, which ties two pairs of a layer
// together.
bool fits_itself(std::span<const StackedPair> layer, const Hypothesis& h, const Parameters& p) {
  if (layer.size() == 1) {
    const Projection only = projection_of(h, p, 1, 0);
    return only != Projection::gate_up || dims(layer[0], h.roles).out % 2 == 0;
  }
  const size_t gate_up = projection_of(h, p, 2, 0) == p.first ? 0 : 1;
  const Dims wide = dims(layer[gate_up], h.roles), narrow = dims(layer[1 - gate_up], h.roles);
  return wide.out == 2 * narrow.in && wide.in == narrow.out;
}

bool feasible(std::span<const StackedPair> layer, const Hypothesis& h, const Parameters& p,
              const ModelSpec* spec) {
  if (spec == nullptr) return fits_itself(layer, h, p);
  for (size_t i = 0; i < layer.size(); ++i) {
    const Projection projection = projection_of(h, p, layer.size(), i);
    const Dims d = dims(layer[i], h.roles);
    if (d.in != spec->in_dim(projection) || d.out != spec->out_dim(projection)) return false;
  }
  return true;
}

std::string shown(const StackedPair& pair) {
  return fmt::format("{} {} and lora_B {}", pair.a->name, to_string(pair.a->tensor.shape()),
                     to_string(pair.b->tensor.shape()));
}

[[noreturn]] void nothing_fits(std::span<const StackedPair> pairs, const ReadContext& context) {
  const StackedPair& pair = pairs.front();
  if (context.spec == nullptr)
    throw Error(shown(pair),
                "no reading of the pairs of a layer as gate_up [2I, H] and down [H, I] fits",
                {"name the base model with ", Option::base});
  const ModelSpec& spec = *context.spec;
  const Parameters p = parameters(context.spec);
  throw Error(
      shown(pair),
      fmt::format("fits no expert parameter of this base model: {} is {} -> {}, {} is {} -> {}{}",
                  projection_name(p.first), spec.in_dim(p.first), spec.out_dim(p.first),
                  projection_name(p.second), spec.in_dim(p.second), spec.out_dim(p.second),
                  context.options.roles
                      ? fmt::format(" (with --roles {})", roles_name(*context.options.roles))
                      : ""),
      {"check ", Option::base, " and ", Option::roles});
}

[[noreturn]] void roles_unknown(const StackedPair& pair, const ReadContext& context) {
  std::string known = context.spec != nullptr
                          ? "the shapes are the same with A on the input and with A on the output"
                          : "without the base model, lora_A may lie on the input or on the output";
  if (!context.config.peft_version.empty())
    known += fmt::format("; it was saved by PEFT {}", context.config.peft_version);
  Hint say{"say ", Option::roles,
           " natural (A over the input: gpt-oss, and PEFT 0.19.1 and newer everywhere) or ",
           Option::roles,
           " swapped (A over the output: PEFT 0.18 and older on [E, out, in] experts)"};
  if (context.spec == nullptr)
    say = Hint{"name the base model with ", Option::base, ", or "} + std::move(say);
  throw Error(shown(pair), known, std::move(say));
}

[[noreturn]] void parameter_unknown(const StackedPair& pair, const Parameters& p) {
  throw Error(
      shown(pair),
      fmt::format(
          "a lone stacked pair may be {} or {}, and neither shapes nor target_parameters say which",
          projection_name(p.first), projection_name(p.second)),
      {"name the base model with ", Option::base,
       ", or put the parameter into target_parameters of adapter_config.json"});
}

// What target_parameters says a lone pair is: false first, true second, nullopt when it names both
// or none.
std::optional<bool> lone_from_config(const AdapterConfig& config, const Parameters& p) {
  bool first = false, second = false;
  for (const std::string& name : config.target_parameters) {
    first = first || name.ends_with(projection_name(p.first));
    second = second || name.ends_with(projection_name(p.second));
  }
  if (first == second) return std::nullopt;
  return second;
}

// Drops the hypotheses for which `keep` is false, unless that would leave none.
template <class F>
void prefer(std::vector<Hypothesis>& all, F&& keep) {
  if (std::any_of(all.begin(), all.end(), keep))
    std::erase_if(all, [&](const Hypothesis& h) { return !keep(h); });
}

// Without a gate, up and down have each other's shapes, and what PEFT writes today reads as well as
// two oddities at once: old PEFT's roles and the nesting of parametrized experts.
void settle_ungated(std::vector<Hypothesis>& all) {
  if (std::any_of(all.begin(), all.end(), [](const Hypothesis& h) {
        return h.roles == Roles::natural && !h.second_inside;
      }))
    std::erase_if(all,
                  [](const Hypothesis& h) { return h.roles == Roles::swapped && h.second_inside; });
}

}  // namespace

std::vector<StackedPair> pair_up(std::span<const ExpertTensor> tensors) {
  std::map<std::pair<int, int>, StackedPair> pairs;  // by layer, then outermost last
  for (const ExpertTensor& t : tensors) {
    const int depth = t.path.nesting;
    if (t.tensor.rank() != 2)
      throw Error(t.name,
                  fmt::format("has shape {}, expected two dims", to_string(t.tensor.shape())));
    StackedPair& pair = pairs[{t.path.layer, -depth}];
    pair.layer = t.path.layer;
    pair.nesting = depth;
    const ExpertTensor*& slot = t.side == Side::A ? pair.a : pair.b;
    if (slot != nullptr)
      throw Error(t.name, fmt::format("names the same factor as {}", slot->name),
                  "keep one of them");
    slot = &t;
  }
  std::vector<StackedPair> out;
  for (const auto& entry : pairs) {
    const StackedPair& pair = entry.second;
    if (pair.a == nullptr || pair.b == nullptr) {
      const ExpertTensor& there = pair.a == nullptr ? *pair.b : *pair.a;
      throw orphan(there.name, pair.a == nullptr ? Side::A : Side::B);
    }
    if (pair.a->tensor.dim(0) != pair.b->tensor.dim(1))
      throw Error(shown(pair),
                  fmt::format("{} rows of lora_A and {} columns of lora_B, expected E*r of both",
                              pair.a->tensor.dim(0), pair.b->tensor.dim(1)));
    out.push_back(pair);
  }
  return out;
}

std::string_view parameter_name(const ModelSpec* spec, Projection projection) {
  if (spec == nullptr || spec->memory.numbered) return projection_name(projection);
  const ExpertStorage& s = spec->memory;
  const std::string& name = projection == Projection::gate_up ? s.gate_up
                            : projection == Projection::gate  ? s.gate
                            : projection == Projection::up    ? s.up
                                                              : s.down;
  return name.empty() ? projection_name(projection) : std::string_view(name);
}

std::string parameter_path(const ModelSpec* spec, std::string stem, Projection projection) {
  constexpr std::string_view kOfFactors = ".experts";
  if (spec != nullptr && spec->memory.stem != spec->factor_stem(Form::memory) &&
      stem.ends_with(kOfFactors))
    stem.resize(stem.size() - kOfFactors.size());
  return fmt::format("{}.{}", stem, parameter_name(spec, projection));
}

StackedReading read_stacked_pairs(std::span<const StackedPair> pairs, const ReadContext& context) {
  const Parameters p = parameters(context.spec);
  const auto layers = by_layer(pairs);
  for (const auto& layer : layers)
    if (layer.size() > 2)
      throw Error(layer[2].a->name, "more than two expert parameters are targeted (expert biases?)",
                  {"name in target_parameters what each pair is of, and the base model with ",
                   Option::base});
  std::vector<Hypothesis> left;
  for (Roles roles : {Roles::natural, Roles::swapped})
    for (bool second_inside : {false, true})
      for (bool lone_is_second : {false, true}) {
        const Hypothesis h{roles, second_inside, lone_is_second};
        if (context.options.roles && *context.options.roles != roles) continue;
        if (std::all_of(layers.begin(), layers.end(),
                        [&](const auto& layer) { return feasible(layer, h, p, context.spec); }))
          left.push_back(h);
      }
  if (left.empty()) nothing_fits(pairs, context);

  const auto lone =
      std::find_if(layers.begin(), layers.end(), [](const auto& l) { return l.size() == 1; });
  if (const auto second = lone_from_config(context.config, p))
    prefer(left, [&](const Hypothesis& h) { return h.lone_is_second == *second; });
  if (lone != layers.end() && std::any_of(left.begin(), left.end(), [&](const Hypothesis& h) {
        return h.lone_is_second != left.front().lone_is_second;
      }))
    parameter_unknown(lone->front(), p);
  settle_ungated(left);
  if (!context.options.roles && context.config.roles)
    prefer(left, [&](const Hypothesis& h) { return h.roles == *context.config.roles; });
  if (std::any_of(left.begin(), left.end(),
                  [&](const Hypothesis& h) { return h.roles != left.front().roles; }))
    roles_unknown(pairs.front(), context);
  prefer(left, [](const Hypothesis& h) { return !h.second_inside; });

  StackedReading out;
  out.roles = left.front().roles;
  for (const auto& layer : layers)
    for (size_t i = 0; i < layer.size(); ++i)
      out.projection.push_back(projection_of(left.front(), p, layer.size(), i));
  return out;
}

}  // namespace moelora
