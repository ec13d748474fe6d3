#include "lib/check/forward.h"

#include <fmt/core.h>

#include <algorithm>
#include <cmath>
#include <new>

#include "lib/base/utf8.h"
#include "lib/compare/forward_check.h"
#include "lib/io/weights.h"
#include "lib/model/base_model.h"

namespace moelora {
namespace {

const Adapter& canonical(const Subject& as_given) {
  const Subject& subject = in_peft_form(as_given);
  if (subject.loaded) return subject.loaded->adapter;
  throw subject.adapter_error ? *subject.adapter_error : Error(subject.given, "could not be read");
}

// The weights of a base model's experts, where they can be had.
class BaseAtHand {
 public:
  // `layer`: one whose experts are tried.
  BaseAtHand(const BaseModel& base, int layer) : spec_(base.spec), where_(base.values_folder()) {
    if (where_.empty() || !open(base.links)) return;
    try {
      read_base_weights(weights_.tensors, spec_, layer, where_);
      usable_ = true;
    } catch (const MachineError&) {
      throw;
    } catch (const Error& error) {
      why_not_ = error.what();
    }
  }

  ForwardBase base() const {
    if (!usable_) return {};
    return {&weights_.tensors, &spec_, where_};
  }
  const std::string& why_not() const { return why_not_; }  // "" also where there are none

 private:
  bool open(Links links) try {
    weights_ = open_weights(where_, {"model"}, {false, links});
    return true;
  } catch (const MachineError&) {
    throw;
  } catch (const Error&) {
    return false;  // read_base_headers() has said so
  }

  const ModelSpec& spec_;
  std::string where_, why_not_;
  Weights weights_;
  bool usable_ = false;
};

StageReport over_base(const Subject& adapter, const Subject& source,
                      const ForwardCheckOptions& options) {
  const Adapter &packed = canonical(adapter), &from = canonical(source);
  if (from.experts.empty() && packed.experts.empty())
    throw Error(adapter.given, "has no LoRA on routed experts");
  if (!adapter.base)
    return check_forward(packed, from, layer_of(from.experts.empty() ? packed : from), {}, options);
  const auto& experts = from.experts.empty() ? packed.experts : from.experts;
  const BaseAtHand base(*adapter.base, experts.begin()->first.layer);
  StageReport out = check_forward(packed, from, moe_layer(adapter.base->spec, adapter.base->config),
                                  base.base(), options);
  if (!base.why_not().empty())
    out.base += fmt::format(", as the base's own cannot be used: {}", base.why_not());
  return out;
}

// Rounded up to a power of ten: the rest is of the machine.
std::string about(double relative) {
  if (relative == 0) return "exactly";
  return fmt::format("to {:.0e} of their norm", std::pow(10, std::ceil(std::log10(relative))));
}

std::string place(const LayerDeltaError& error) {
  return fmt::format("layer {} expert {} {}", error.layer, error.expert,
                     projection_name(error.projection));
}

std::string run_text(const StageReport& report) {
  return fmt::format("on {}, base weights: {}; {} tokens a layer", report.device, report.base,
                     report.tokens);
}

std::string result_text(const StageReport& report) {
  const size_t off = report.differences.size();
  if (off == 0)
    return fmt::format("all {} deltas in {} layers are the source's, {}", report.deltas,
                       report.layers, about(report.relative));
  return fmt::format("{} of {} deltas in {} layers are not the source's", off, report.deltas,
                     report.layers);
}

}  // namespace

void run_forward(Subject& adapter, const Subject& source, const ForwardCheckOptions& options) {
  try {
    adapter.forward = over_base(adapter, source, options);
  } catch (const Cancelled&) {
    throw;
  } catch (const MachineError&) {
    throw;
  } catch (const std::bad_alloc&) {
    throw;
  } catch (const std::exception& error) {
    adapter.forward_not_run = error.what();
  }
}

void add_forward_notes(const std::vector<Subject>& adapters, RuleResults& results) {
  for (const Subject& adapter : adapters) {
    if (!adapter.forward_not_run.empty())
      results.skipped.push_back({"the forward of " + adapter.given, adapter.forward_not_run});
    if (!adapter.forward) continue;
    results.notes.push_back(fmt::format("forward of {}: {} ({})", adapter.given,
                                        result_text(*adapter.forward), run_text(*adapter.forward)));
  }
}

std::string differences_text(const StageReport& report) {
  const auto worst =
      std::max_element(report.differences.begin(), report.differences.end(),
                       [](const auto& a, const auto& b) { return a.relative < b.relative; });
  const std::string off = worst->relative >= kBeyond
                              ? "which gives no number"
                              : fmt::format("off by {:.3g} %", worst->relative * 100);
  return fmt::format(
      "the forward on {} gives deltas that are not the source's: {} of {}, most in {}, {}",
      report.device, report.differences.size(), report.deltas, place(*worst), off);
}

}  // namespace moelora
