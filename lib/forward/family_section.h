#pragma once

#include <cstdint>
#include <initializer_list>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "lib/model/base_model.h"
#include "lib/model/expressions.h"
#include "lib/model/forward_facts.h"
#include "lib/model/json_view.h"

namespace moelora {

// An object of a family's "forward" (schemas/model_spec.schema.json), read for one base model: what
// it says of config keys is looked up in config.json. Errors name the place in the family's file,
// or the key that the config lacks. Refers to the BaseModel.
class FamilySection {
 public:
  // The whole of it. Throws Error for a family that has none.
  explicit FamilySection(const BaseModel& base);

  const BaseModel& base() const { return *base_; }
  const ModelSpec& spec() const { return base_->spec; }

  // A key of the config: below the model's own object, then at the top; null counts as absent.
  std::optional<JsonView> config(std::string_view key) const;

  std::optional<FamilySection> find(std::string_view key) const;  // an object
  std::vector<FamilySection> list(std::string_view key) const;    // of objects; none when absent

  std::string text(std::string_view key, std::string_view otherwise = {}) const;

  // The index of the word in `choices`, which is 0 when the key is absent.
  size_t one_of(std::string_view key, std::initializer_list<std::string_view> choices) const;

  // A real number: itself, the name of a config key, or
  //   {"keys": [KEY..], "default": X, "power": P, "times": SIZE}: the first key that the config
  //   has, else X, to the power P, times a size; with {"words": {WORD: X, ...}} the key is a word,
  //   and any other an Error; {"value": SIZE, ...} is a size instead of "keys" and "default"
  // `otherwise` when the section does not have it. Throws Error for a config without the key.
  double number(std::string_view key, double otherwise) const;

  // A size: an expression of the family's "values", or a rule as of number(); `otherwise` when the
  // section does not have it.
  int64_t size(std::string_view key, int64_t otherwise) const;

  // true, false, or what is not zero where it holds: a value's name, or a rule as of number().
  bool flag(std::string_view key, bool otherwise = false) const;

  // One entry a layer: the name of a choice of the family's "layers", after "not " its opposite, or
  // a choice as "layers" has it. `otherwise` for all when the section does not have it.
  std::vector<bool> layers(std::string_view key, bool otherwise) const;

  void allow_only(std::initializer_list<std::string_view> keys) const { json_.allow_only(keys); }
  Location place(std::string_view key) const { return json_.at(key).place(); }  // Error when absent
  [[noreturn]] void fail(std::string_view key, const std::string& what) const;

 private:
  FamilySection(const BaseModel& base, JsonView json) : base_(&base), json_(std::move(json)) {}
  const ForwardFacts& facts() const { return *base_->spec.forward; }
  double rule(const JsonView& json) const;

  const BaseModel* base_;
  JsonView json_;
};

// A number of the config, 1 for true and 0 for false; Error at the key for anything else.
double config_number(const JsonView& json);

}  // namespace moelora
