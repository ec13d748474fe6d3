#include "lib/engine/sglang/scales.h"

#include <fmt/format.h>

#include <cmath>

#include "lib/adapter/tensor_name.h"
#include "lib/base/error.h"
#include "lib/base/path_pattern.h"
#include "lib/base/utf8.h"
#include "lib/engine/sglang/causes.h"
#include "lib/engine/sglang/names.h"

namespace moelora::sglang {
namespace {

// The numbers that a pattern of the config gives to modules, as PEFT matches them. A key that
// cannot be evaluated gives none: the config rules report it.
class Pattern {
 public:
  explicit Pattern(const Json* pattern) {
    if (pattern == nullptr) return;
    for (const auto& [key, value] : pattern->members())
      if (value.is_number()) table_.add(key, value.as_double());
  }

  bool empty() const { return table_.empty(); }

  const double* find(std::string_view path) const {
    try {
      return table_.find(path);
    } catch (const Error&) {
      return nullptr;
    }
  }

 private:
  PatternTable<double> table_;
};

bool is_true(const Json& config, std::string_view key) {
  const Json* value = config.find(key);
  return value != nullptr && value->is(Json::Kind::boolean) && value->as_bool();
}

void check_rslora(CpuAdapter& adapter) {
  if (!is_true(adapter.config, "use_rslora") || adapter.r <= 1) return;
  const double root = std::sqrt(static_cast<double>(adapter.r));
  adapter.add_event(
      &cause::rslora_ignored, Effect::wrong_scale,
      fmt::format("use_rslora is true: trained with scale lora_alpha / sqrt(r) = {:.6g}, served "
                  "with lora_alpha / r = {:.6g}, {:.3g} times too weak",
                  adapter.alpha / root, adapter.scale(), root));
}

void check_patterns(CpuAdapter& adapter) {
  const Pattern ranks(adapter.config.find("rank_pattern"));
  const Pattern alphas(adapter.config.find("alpha_pattern"));
  if (ranks.empty() && alphas.empty()) return;
  for (size_t i = 0; i < adapter.sources.size(); ++i) {
    const std::string& name = adapter.sources[i].name;
    if (adapter.outcome.refused[i] || !is_factor(name)) continue;
    const std::string module = parse_tensor_name(name).module;
    const double *rank = ranks.find(module), *alpha = alphas.find(module);
    const double r = rank != nullptr ? *rank : static_cast<double>(adapter.r);
    const double trained = (alpha != nullptr ? *alpha : adapter.alpha) / r;
    if (trained == adapter.scale() || (rank == nullptr && alpha == nullptr)) continue;
    EventLog::Event& event =
        adapter.outcome.events.event(&cause::patterns_ignored, Effect::wrong_scale);
    if (event.is_new())
      event.detail = fmt::format("{} was trained with scale {:.6g}, served with {:.6g}",
                                 printable(leaf_of(name)), trained, adapter.scale());
    event.sources.push_back(static_cast<int32_t>(i));
  }
}

}  // namespace

void check_scales(CpuAdapter& adapter) {
  check_rslora(adapter);
  check_patterns(adapter);
}

}  // namespace moelora::sglang
