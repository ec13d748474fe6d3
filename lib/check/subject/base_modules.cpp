#include "lib/check/subject/base_modules.h"

#include <algorithm>
#include <set>

#include "lib/adapter/names/text_names.h"
#include "lib/adapter/tensor_name.h"
#include "lib/base/dotted_path.h"
#include "lib/base/nearest.h"
#include "lib/check/subject/module_paths.h"
#include "lib/model/base_model.h"

namespace moelora {
namespace {

constexpr size_t kMostQuestions = 48;
constexpr std::string_view kLayer = "layers.{n}.";

std::string_view below_number(std::string_view pattern) {
  const size_t at = pattern.find(kLayer);
  return at == std::string_view::npos ? "" : pattern.substr(at + kLayer.size());
}

// "model.layers.{n}.x" with the numbers of "layers.3.x" back in, as far as they go.
std::string with_numbers(std::string pattern, std::string_view module) {
  size_t at = 0;
  while ((at = pattern.find("{n}", at)) != std::string::npos) {
    size_t digit = module.find_first_of("0123456789");
    while (digit != std::string_view::npos && digit > 0 && module[digit - 1] != '.')
      digit = module.find_first_of("0123456789", digit + 1);
    if (digit == std::string_view::npos) return pattern;
    const size_t end = std::min(module.find('.', digit), module.size());
    pattern.replace(at, 3, module.substr(digit, end - digit));
    at += end - digit;
    module.remove_prefix(end);
  }
  return pattern;
}

}  // namespace

BaseModules::BaseModules(const BaseModel& base, const BaseHeaders* headers)
    : spec_(base.spec), headers_(headers) {
  std::set<std::string> known;
  for (const LinearSpec& linear : spec_.linears) {
    known.insert(without_numbers(linear.memory));
    known.insert(without_numbers(linear.hub));
  }
  for (const ExpertStorage* storage : {&spec_.hub, &spec_.memory}) {
    const std::string stem = without_numbers(with_layer(storage->stem, 0));
    const std::string expert = storage->numbered ? stem + ".{n}." : stem + ".";
    for (const std::string& name : {storage->gate, storage->up, storage->gate_up, storage->down})
      if (!name.empty()) known.insert(expert + name);
  }
  known_.assign(known.begin(), known.end());
}

bool BaseModules::is_expert_stem(const std::string& stem) const {
  const std::string memory = spec_.factor_stem(Form::memory);
  if (stem == spec_.factor_stem(Form::hub) || stem == memory) return true;
  return with_layer(memory, 0) == spec_.normalised(with_layer(stem, 0));
}

ModuleFit BaseModules::fit_expert(const ExpertPath& place) const {
  if (place.form == ExpertPath::Form::unknown) return ModuleFit::no_layout;
  const bool with_gate =
      place.projection == Projection::gate || place.projection == Projection::gate_up;
  // Tinker calls the up of experts without a gate w1.
  if (with_gate && !spec_.gated && place.form != ExpertPath::Form::named) return ModuleFit::unknown;
  return is_expert_stem(place.stem) ? ModuleFit::sound : ModuleFit::unknown;
}

ModuleFit BaseModules::fit_dense(const NamedTensor& tensor) const {
  if (tensor.linear >= 0 || joint_module(spec_, tensor.module) != nullptr) return ModuleFit::sound;
  const bool stored = headers_ != nullptr &&
                      (headers_->weights.count(tensor.module + ".weight") != 0 ||
                       headers_->weights.count(spec_.normalised(tensor.module) + ".weight") != 0);
  return stored ? ModuleFit::sound : ModuleFit::unknown;
}

ModuleFit BaseModules::fit(const NamedTensor& tensor) const {
  if (is_in_tower(tensor.module))
    return tensor.layer >= 0 ? ModuleFit::foreign_tower : ModuleFit::outside_text;
  // An encoder and a decoder have a last layer each: a name of neither is unknown.
  if (!spec_.has_encoder && tensor.layer >= spec_.layers) return ModuleFit::out_of_range;
  return tensor.expert ? fit_expert(*tensor.expert) : fit_dense(tensor);
}

std::string BaseModules::nearest_to(const std::string& module) {
  const std::string pattern = without_numbers(module);
  const auto asked = nearest_.find(pattern);
  if (asked == nearest_.end() && nearest_.size() >= kMostQuestions) return "";
  std::string& best = asked != nearest_.end() ? asked->second : nearest_[pattern];
  if (asked == nearest_.end()) {
    const std::string_view below = below_number(pattern);
    for (const std::string& known : known_)  // only the wrapper's prefix differs
      if (best.empty() && !below.empty() && below_number(known) == below) best = known;
    for (const std::string& known : known_)  // only the block differs
      if (best.empty() && leaf_of(known) == leaf_of(pattern)) best = known;
    const std::vector<std::string_view> all(known_.begin(), known_.end());
    if (best.empty()) best = nearest(pattern, all).value_or("");
  }
  return best.empty() ? "" : with_numbers(best, module);
}

}  // namespace moelora
