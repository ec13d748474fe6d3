#include "tests/model/catalogue.h"

#include <doctest/doctest.h>
#include <fmt/format.h>

#include <algorithm>
#include <regex>
#include <set>

#include "lib/model/model_builder.h"
#include "lib/model/model_spec.h"

namespace moelora {
namespace {

using Named = std::map<std::string, Shape>;

// What a spec does not list: norms, convolutions, state-space vectors, sinks and correction
// biases are not matrices that an adapter can target.
bool is_beside_the_spec(const std::string& name) {
  static const std::regex other(
      R"(.*(norm|layernorm|norm_f|sinks|A_log|\.D|dt_bias|conv1d|conv\.conv|e_score_correction_bias|expert_bias)(\.weight|\.bias)?)");
  return std::regex_match(name, other);
}

Named comparable(const Named& all) {
  Named out;
  for (const auto& [name, shape] : all) {
    if (!is_beside_the_spec(name)) out.emplace(name, shape);
  }
  return out;
}

// One line a difference, "" when equal.
std::string difference(const Named& expected, const Named& found) {
  std::string out;
  for (const auto& [name, shape] : expected) {
    const auto it = found.find(name);
    if (it == found.end())
      out += fmt::format("missing {} {}\n", name, to_string(shape));
    else if (it->second != shape)
      out += fmt::format("{} is {}, expected {}\n", name, to_string(it->second), to_string(shape));
  }
  for (const auto& [name, shape] : found) {
    if (expected.count(name) == 0) out += fmt::format("extra {} {}\n", name, to_string(shape));
  }
  return out;
}

Named listed(const ModelSpec& spec, Form form) {
  const auto tensors = spec.tensors(form);
  const Named out(tensors.begin(), tensors.end());
  CHECK(out.size() == tensors.size());
  return out;
}

ModelSpec spec_of(const std::string& path) { return make_model_spec(read_json_file(path), path); }

std::string last_component(const std::string& path) { return path.substr(path.rfind('.') + 1); }

}  // namespace

TEST_CASE("The catalogue's 22 families are all described") {
  const auto families = catalogue_families();
  CHECK(families.size() == 22);
  for (const std::string& family : families) {
    CAPTURE(family);
    CHECK_NOTHROW(spec_of(catalogue_entry(family).config));
  }
}

TEST_CASE("Every name and shape follows from config.json alone, in both forms") {
  for (const std::string& family : catalogue_families()) {
    CAPTURE(family);
    const CatalogueEntry entry = catalogue_entry(family);
    const ModelSpec spec = spec_of(entry.config);
    CHECK(difference(comparable(entry.saved), listed(spec, Form::hub)) == "");
    CHECK(difference(comparable(entry.memory), listed(spec, Form::memory)) == "");
  }
}

TEST_CASE("What transformers holds as nn.Linear is a memory_linear, and nothing else is") {
  for (const std::string& family : catalogue_families()) {
    CAPTURE(family);
    const CatalogueEntry entry = catalogue_entry(family);
    const ModelSpec spec = spec_of(entry.config);
    for (const auto& [path, class_name] : entry.classes) {
      const std::string module = path;
      CAPTURE(module);
      if (class_name == "Linear") CHECK(spec.find_linear(module) != nullptr);
    }
    const std::set<std::string> names(entry.linear_names.begin(), entry.linear_names.end());
    for (const LinearSpec& linear : spec.linears) {
      CAPTURE(linear.memory);
      CHECK(linear.memory_linear == (names.count(last_component(linear.memory)) != 0));
    }
  }
}

TEST_CASE("The hub's module paths normalize to those in memory") {
  for (const std::string& family : catalogue_families()) {
    CAPTURE(family);
    const ModelSpec spec = spec_of(catalogue_entry(family).config);
    for (const LinearSpec& linear : spec.linears) {
      CHECK(spec.normalised(linear.hub) == linear.memory);
      CHECK(spec.normalised(linear.memory) == linear.memory);
    }
  }
}

}  // namespace moelora
