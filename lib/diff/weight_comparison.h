#pragma once

#include <optional>
#include <string>
#include <vector>

#include "lib/adapter/config/adapter_config.h"
#include "lib/base/page/page.h"
#include "lib/compare/spectrum.h"
#include "lib/compare/weight_distance.h"

namespace moelora {

// `from` is the layout of both.
struct CompareWeightsOptions : LoadOptions {
  double tolerance = 1e-6;  // relative distance up to which two deltas are the same
  int threads = 0;
  bool spectrum = false;  // of the worst pair too
};

// Two adapters in weight space, whatever their layouts.
struct WeightComparison {
  struct Side {
    std::string path, layout;  // layout: "dense" without routed experts
    int64_t pairs = 0;
  };
  Side a, b;
  double tolerance = 0;
  WeightDiff diff;
  std::vector<std::string> extras;  // saved modules, biases ...: those that differ, in words
  // Keys of the configs that change what is computed beside factors and scales (use_dora, variants
  // of LoRA) and differ: "use_dora" is true in A and not set in B.
  std::vector<std::string> settings;
  std::optional<SameUpTo> same_up_to;  // looked for only where something differs
  std::optional<Spectrum> spectrum;    // of worst(), where asked for and not identical
  std::vector<std::string> notes;

  // Every place is in both, within the tolerance, and so are the extras and settings.
  bool same() const;
  const Distance* worst() const;  // null without a common place
};

// Throws Error when an adapter cannot be read, or when they have not one place in common: nothing
// compared is never "the same".
WeightComparison compare_weights(const std::string& a, const std::string& b,
                                 const CompareWeightsOptions& options);

// Its reports, in lib/diff/reports. JSON is schemas/weight_diff.schema.json; HTML is a page of
// lib/base/page.
std::string weight_text(const WeightComparison& comparison);
std::string weight_json(const WeightComparison& comparison);
std::string weight_html(const WeightComparison& comparison, const PageOrigin& origin = {});

// The heat maps of that page as blocks in 256 colors, for a terminal of so many columns (0:
// unknown).
std::string weight_blocks(const WeightComparison& comparison, size_t width);

}  // namespace moelora
