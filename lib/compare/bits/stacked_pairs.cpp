#include "lib/compare/bits/stacked_pairs.h"

#include <fmt/core.h>

#include <algorithm>

#include "lib/base/dotted_path.h"
#include "lib/base/error.h"

namespace moelora::packed {
namespace {

// One way to read the whole file.
struct Guess {
  bool swapped, reversed;  // reversed: the model's second parameter is the inner one
  bool lone_is_second;
};

std::string_view text_at(const Json& config, std::string_view key) {
  const Json* value = config.find(key);
  return value != nullptr && value->is(Json::Kind::string) ? std::string_view(value->as_string())
                                                           : std::string_view();
}

// A marker of the config: at the top level, or in auto_mapping.
const Json* find_marker(const Json& config, std::string_view key) {
  if (const Json* value = config.find(key)) return value;
  const Json* mapping = config.find("auto_mapping");
  return mapping != nullptr && mapping->is(Json::Kind::object) ? mapping->find(key) : nullptr;
}

std::string_view own_marker(const Json& config, std::string_view key) {
  const Json* ours = find_marker(config, "moelora");
  const bool there = ours != nullptr && ours->is(Json::Kind::object);
  return there ? text_at(*ours, key) : std::string_view();
}

// Whether one path is the other's end, whichever of the two is written with its layer.
bool same_parameter(std::string_view path, std::string_view name) {
  return ends_in(path, name) || ends_in(name, path) || ends_in(name, below_layer(path));
}

// What Unsloth's nested marker says of one parameter, or of all; "" where it says nothing.
std::string_view own_order(const Json& config, std::string_view path) {
  const Json* nested = find_marker(config, "unsloth_fused_expert_lora");
  if (nested == nullptr || !nested->is(Json::Kind::object)) return {};
  const Json* parameters = nested->find("parameters");
  if (parameters != nullptr && parameters->is(Json::Kind::object))
    for (const auto& [name, entry] : parameters->members())
      if (same_parameter(path, name) && entry.is(Json::Kind::object))
        return text_at(entry, "lora_B_layout");
  return text_at(*nested, "lora_B_layout");
}

class Resolver {
 public:
  Resolver(std::span<const StackedPair> pairs, const Json& config, const ModelSpec* spec,
           const Reading& given, const std::string& where)
      : pairs_(pairs), config_(config), spec_(spec), given_(given), where_(where) {
    first_ = spec_ != nullptr && !spec_->gated ? Projection::up : Projection::gate_up;
    read_targets();
  }

  StackedForm form() const {
    std::optional<Guess> best;
    bool other_side = false;
    for (const Guess& guess : guesses()) {
      if (!fits(guess)) continue;
      if (!best) best = guess;
      // Two oddities at once do not rival none: gate-less up and down have each other's shapes.
      other_side = other_side || (guess.swapped != best->swapped && !guess.reversed);
    }
    if (!best) refuse("no reading of the stacked pairs fits the shapes of the expert parameters");
    if (other_side && !given_side())
      refuse("shapes do not say whether lora_A of the stacked pairs lies on the input or output");
    StackedForm out{best->swapped, {}};
    for (size_t i = 0; i < pairs_.size(); ++i) out.projections.push_back(projection(*best, i));
    return out;
  }

 private:
  [[noreturn]] void refuse(std::string_view what) const { throw Error(where_, std::string(what)); }

  void read_targets() {
    const Json* targets = config_.find("target_parameters");
    if (targets == nullptr || !targets->is(Json::Kind::array)) return;
    for (const Json& target : targets->items()) {
      if (!target.is(Json::Kind::string)) continue;
      names_first_ = names_first_ || target.as_string().ends_with(projection_name(first_));
      names_second_ = names_second_ || target.as_string().ends_with("down_proj");
    }
  }

  std::optional<bool> given_side() const {
    if (given_.swapped) return given_.swapped;
    const std::string_view marker = own_marker(config_, "roles");
    if (marker.empty()) return std::nullopt;
    return marker == "swapped";
  }

  // In the order of preference.
  std::vector<Guess> guesses() const {
    std::vector<Guess> out;
    const bool second_first = names_second_ && !names_first_;
    for (const bool reversed : {false, true})
      for (const bool swapped : {false, true})
        for (const bool lone : {second_first, !second_first})
          if (!given_side() || *given_side() == swapped) out.push_back({swapped, reversed, lone});
    return out;
  }

  bool alone(size_t i) const {
    const bool before = i > 0 && pairs_[i - 1].layer == pairs_[i].layer;
    const bool after = i + 1 < pairs_.size() && pairs_[i + 1].layer == pairs_[i].layer;
    return !before && !after;
  }

  Projection projection(const Guess& guess, size_t i) const {
    if (alone(i)) return guess.lone_is_second ? Projection::down : first_;
    const bool inner = i == 0 || pairs_[i - 1].layer != pairs_[i].layer;
    return inner != guess.reversed ? first_ : Projection::down;
  }

  static int64_t in(const StackedPair& p, bool swapped) { return swapped ? p.b_dim : p.a_dim; }
  static int64_t out(const StackedPair& p, bool swapped) { return swapped ? p.a_dim : p.b_dim; }

  bool fits(const Guess& guess) const {
    for (size_t i = 0; i < pairs_.size(); ++i)
      if (spec_ != nullptr ? !fits_base(guess, i) : !fits_sibling(guess, i)) return false;
    return true;
  }

  bool fits_base(const Guess& guess, size_t i) const {
    const Projection p = projection(guess, i);
    return in(pairs_[i], guess.swapped) == spec_->in_dim(p) &&
           out(pairs_[i], guess.swapped) == spec_->out_dim(p);
  }

  // gate_up is H -> 2I and down I -> H.
  bool fits_sibling(const Guess& guess, size_t i) const {
    if (alone(i)) return guess.lone_is_second || out(pairs_[i], guess.swapped) % 2 == 0;
    if (projection(guess, i) == Projection::down) return true;
    const size_t other = i > 0 && pairs_[i - 1].layer == pairs_[i].layer ? i - 1 : i + 1;
    return out(pairs_[i], guess.swapped) == 2 * in(pairs_[other], guess.swapped) &&
           in(pairs_[i], guess.swapped) == out(pairs_[other], guess.swapped);
  }

  std::span<const StackedPair> pairs_;
  const Json& config_;
  const ModelSpec* spec_;
  const Reading& given_;
  const std::string& where_;
  Projection first_;
  bool names_first_ = false, names_second_ = false;
};

// The parameters of a module that the config names, in the class's order: weight, bias, weight,
// bias.
std::vector<std::string> named_parameters(std::string_view stem, const Json& config,
                                          const ModelSpec& spec) {
  std::vector<std::string> out;
  const Json* targets = config.find("target_parameters");
  for (const std::string& weight : {spec.memory.gate_up, spec.memory.down})
    for (const std::string& parameter : {weight, weight + "_bias"}) {
      const std::string path = fmt::format(".{}.{}", stem, parameter);
      if (targets != nullptr &&
          std::any_of(targets->items().begin(), targets->items().end(), [&](const Json& target) {
            return target.is(Json::Kind::string) && path.ends_with("." + target.as_string());
          }))
        out.push_back(parameter);
    }
  return out;
}

}  // namespace

std::vector<std::pair<std::string, size_t>> take_biases(std::vector<StackedPair>& pairs,
                                                        const Json& config, const ModelSpec* spec) {
  std::vector<std::pair<std::string, size_t>> out;
  if (spec == nullptr || !spec->expert_bias) return out;
  std::vector<StackedPair> weights;
  for (auto first = pairs.begin(); first != pairs.end();) {
    const auto last = std::find_if(
        first, pairs.end(), [&](const StackedPair& pair) { return pair.layer != first->layer; });
    const auto names = named_parameters(first->stem, config, *spec);
    for (auto pair = first; pair != last; ++pair) {
      const auto index = static_cast<size_t>(pair - first);
      const bool known = names.size() == static_cast<size_t>(last - first);
      if (!known || !names[index].ends_with("_bias")) {
        weights.push_back(*pair);
        continue;
      }
      const std::string name = fmt::format("{}.{}.lora_", pair->stem, names[index]);
      out.emplace_back(name + "A.weight", pair->a);
      out.emplace_back(name + "B.weight", pair->b);
    }
    first = last;
  }
  pairs = std::move(weights);
  return out;
}

StackedForm resolve_stacked(std::span<const StackedPair> pairs, const Json& config,
                            const ModelSpec* spec, const Reading& given, const std::string& where) {
  return Resolver(pairs, config, spec, given, where).form();
}

bool expert_major(const StackedParameter& parameter, const Json& config, const Reading& given,
                  const std::string& where) {
  if (const auto own = given.apart.find({parameter.layer, parameter.projection});
      own != given.apart.end())
    return own->second;
  if (given.expert_major) return *given.expert_major;
  std::string_view unsloth = own_order(config, parameter.path);
  const std::string_view ours = own_marker(config, "b_order");
  if (unsloth.empty() && ours == "expert-major") return true;
  if (unsloth.empty() && ours == "rank-major") return false;
  const Json* flat = find_marker(config, "lora_B_layout");
  if (unsloth.empty() && flat != nullptr && flat->is(Json::Kind::string))
    unsloth = flat->as_string();
  if (unsloth.empty() || unsloth == "rank_major") return false;
  if (unsloth == "grouped_by_expert") return true;
  throw Error(where, fmt::format("\"lora_B_layout\" of {} is \"{}\"", parameter.path, unsloth));
}

}  // namespace moelora::packed
