#include "lib/engine/fit/module_names.h"

#include <fmt/core.h>

#include "lib/adapter/names/text_names.h"
#include "lib/adapter/tensor_name.h"
#include "lib/base/error.h"
#include "lib/model/base_model.h"

namespace moelora::fit {
namespace {

class Places {
 public:
  explicit Places(const ModelSpec& spec) : spec_(spec) {
    for (const LinearSpec& linear : spec.linears)
      for (const std::string* name : {&linear.memory, &linear.hub})
        if (std::string key = text_tail(*name); !key.empty())
          by_tail_.emplace(std::move(key), &linear);
  }

  // The base's own name of a module that has another one; null where it is right or unknown.
  const LinearSpec* other_name(const std::string& module) const {
    if (spec_.find_linear(module) != nullptr) return nullptr;
    const auto found = by_tail_.find(text_tail(module));
    return found == by_tail_.end() ? nullptr : found->second;
  }

 private:
  const ModelSpec& spec_;
  std::map<std::string, const LinearSpec*> by_tail_;
};

void check(const std::string& module, const DensePair& pair, const LinearSpec& linear) {
  if (linear.in == pair.a.dim(1) && linear.out == pair.b.dim(0)) return;
  throw Error(module,
              fmt::format("adapts {} -> {}, but {} of this base model is {} -> {}", pair.a.dim(1),
                          pair.b.dim(0), linear.memory, linear.in, linear.out),
              check_base());
}

void move_dense(FitContext& context, const Places& places, std::vector<std::string>& moved) {
  auto& dense = context.adapter.dense;
  for (auto at = dense.begin(); at != dense.end();) {
    const LinearSpec* linear = places.other_name(at->first);
    const auto here = at++;
    if (linear == nullptr) continue;
    check(here->first, here->second, *linear);
    if (dense.count(linear->memory) != 0)
      throw Error(here->first, "and " + linear->memory + " are the same module of this base model",
                  "keep one of them");
    moved.push_back(here->first);
    auto node = dense.extract(here);
    node.key() = linear->memory;
    dense.insert(std::move(node));
  }
}

void move_extras(FitContext& context, const Places& places, std::vector<std::string>& moved) {
  auto& extras = context.adapter.extras;
  for (auto at = extras.begin(); at != extras.end();) {
    const TensorName name = parse_tensor_name(at->first);
    const LinearSpec* linear = places.other_name(name.module);
    const auto here = at++;
    if (linear == nullptr || here->second.kind != ExtraKind::embedding_factor) continue;
    moved.push_back(here->first);
    auto node = extras.extract(here);
    node.key().replace(0, name.module.size(), linear->memory);
    extras.insert(std::move(node));
  }
}

bool other_stem(const FitContext& context) {
  const std::string& stem = context.adapter.expert_stem;
  return !context.adapter.experts.empty() && stem != context.spec().factor_stem(Form::hub) &&
         stem != context.spec().factor_stem(Form::memory);
}

void run(FitContext& context) {
  const Places places(context.spec());
  std::vector<std::string> moved;
  move_dense(context, places, moved);
  move_extras(context, places, moved);
  if (other_stem(context)) moved.push_back(context.adapter.expert_stem);
  if (!moved.empty())
    context.note(module_names.name,
                 fmt::format("renamed to the modules of this base model: {}", some_of(moved)));
}

}  // namespace

const FitStep module_names = {
    "module-names",
    "a text model's names in a multimodal wrapper, or the reverse: the base's own prefix", run,
    true};

}  // namespace moelora::fit
