// Every node of every config and of every family file replaced by what does not belong there: a
// spec, or an Error, and nothing else (run with the sanitizers).
#include <doctest/doctest.h>

#include "lib/base/error.h"
#include "lib/model/model_builder.h"
#include "tests/model/catalogue.h"

namespace moelora {
namespace {

const std::vector<Json>& replacements() {
  static const std::vector<Json> all = {Json(),
                                        Json(true),
                                        Json(0),
                                        Json(-1),
                                        Json(int64_t{1} << 40),
                                        Json(2.5),
                                        Json(int64_t{1} << 62),
                                        Json("x"),
                                        Json(""),
                                        Json("hidden / layers"),
                                        Json("hidden * hidden * hidden * hidden * hidden * hidden "
                                             "* hidden * hidden * hidden * hidden * hidden"),
                                        Json::array({}),
                                        Json::array({1, 2}),
                                        Json::array({"a"}),
                                        Json::object({}),
                                        Json::object({{"a", 1}})};
  return all;
}

Json& child(Json& json, size_t index) {
  if (json.is(Json::Kind::array)) return const_cast<Json&>(json.items()[index]);
  return const_cast<Json&>(json.members()[index].second);
}

size_t children(const Json& json) {
  return json.is(Json::Kind::array) ? json.items().size() : json.members().size();
}

struct Outcomes {
  int specs = 0, errors = 0;
};

template <class Build>
void replace_every_node(Json& root, Json& node, const Build& build, Outcomes& outcomes) {
  for (size_t i = 0; i < children(node); ++i) {
    replace_every_node(root, child(node, i), build, outcomes);
    const Json kept = child(node, i);
    for (const Json& other : replacements()) {
      child(node, i) = other;
      try {
        build(root);
        ++outcomes.specs;
      } catch (const Error&) {
        ++outcomes.errors;
      }
    }
    child(node, i) = kept;
  }
}

}  // namespace

TEST_CASE("A config with anything anywhere gives a spec or an Error") {
  Outcomes outcomes;
  for (const std::string& family : catalogue_families()) {
    CAPTURE(family);
    Json config = read_json_file(catalogue_entry(family).config);
    const auto build = [](const Json& json) {
      make_model_spec(json, "config.json").tensors(Form::memory);
    };
    CHECK_NOTHROW(replace_every_node(config, config, build, outcomes));
    CHECK_NOTHROW(build(config));
  }
  CHECK(outcomes.specs > 1000);
  CHECK(outcomes.errors > 1000);
}

TEST_CASE("A family file with anything anywhere gives a family or an Error") {
  Outcomes outcomes;
  for (const char* family : {"deepseek_v3", "jamba", "llama4", "nemotron_h"}) {
    CAPTURE(family);
    const std::string path =
        std::string(MOELORA_SOURCE_DIR) + "/schemas/models/" + family + ".json";
    Json json = read_json_file(path);
    const std::string catalogue = family == std::string("llama4") ? "llama4_text" : family;
    const Json config = read_json_file(catalogue_entry(catalogue).config);
    const auto build = [&](const Json& changed) {
      make_model_spec(config, "config.json", {parse_family(changed, "family.json")})
          .tensors(Form::hub);
    };
    CHECK_NOTHROW(replace_every_node(json, json, build, outcomes));
    CHECK_NOTHROW(build(json));
  }
  CHECK(outcomes.specs > 1000);
  CHECK(outcomes.errors > 1000);
}

}  // namespace moelora
