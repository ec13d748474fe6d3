#include "lib/model/expressions.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cctype>
#include <charconv>
#include <optional>

#include "lib/base/error.h"

namespace moelora {

class DimensionParser {
 public:
  DimensionParser(std::string_view text, const std::string& where) : text_(text), where_(where) {}

  Dimension parse() {
    Dimension out;
    out.text_ = std::string(text_);
    out.sum_.push_back({product(), false});
    while (true) {
      if (accept('+'))
        out.sum_.push_back({product(), false});
      else if (accept('-'))
        out.sum_.push_back({product(), true});
      else
        break;
    }
    if (at_ != text_.size()) fail(fmt::format("unexpected '{}'", text_[at_]));
    return out;
  }

 private:
  std::vector<Dimension::Factor> product() {
    std::vector<Dimension::Factor> factors = {factor(false)};
    while (true) {
      if (accept('*'))
        factors.push_back(factor(false));
      else if (accept('/'))
        factors.push_back(factor(true));
      else
        return factors;
    }
  }

  Dimension::Factor factor(bool divides) {
    skip_spaces();
    const size_t begin = at_;
    while (at_ < text_.size() && is_word(text_[at_])) ++at_;
    const std::string_view word = text_.substr(begin, at_ - begin);
    if (word.empty()) fail("expected a name or a number");
    if (std::isdigit(static_cast<unsigned char>(word[0])) == 0)
      return {std::string(word), 1, divides};
    return {"", number(word), divides};
  }

  int64_t number(std::string_view word) {
    int64_t out = 0;
    const auto [end, error] = std::from_chars(word.data(), word.data() + word.size(), out);
    if (error != std::errc() || end != word.data() + word.size())
      fail(fmt::format("\"{}\" is not a number", word));
    return out;
  }

  static bool is_word(char c) {
    return std::isalnum(static_cast<unsigned char>(c)) != 0 || c == '_';
  }

  void skip_spaces() {
    while (at_ < text_.size() && text_[at_] == ' ') ++at_;
  }

  bool accept(char c) {
    skip_spaces();
    if (at_ == text_.size() || text_[at_] != c) return false;
    ++at_;
    return true;
  }

  [[noreturn]] void fail(const std::string& what) {
    throw Error(where_, fmt::format("{} at character {} of \"{}\"", what, at_ + 1, text_),
                "write a sum of products of names and integers, e.g. \"2 * heads * head_dim\"");
  }

  std::string_view text_;
  const std::string& where_;
  size_t at_ = 0;
};

namespace {

std::optional<int64_t> apply(int64_t left, int64_t right, bool divides) {
  int64_t out = 0;
  if (!divides)
    return __builtin_mul_overflow(left, right, &out) ? std::nullopt : std::optional(out);
  if (right <= 0 || left % right != 0) return std::nullopt;
  return left / right;
}

int64_t lookup(const Values& values, const std::string& name, const std::string& where) {
  const auto found = values.find(name);
  if (found == values.end()) {
    throw Error(where, fmt::format("no value is called \"{}\"", name),
                "define it under \"values\"");
  }
  return found->second;
}

}  // namespace

Dimension::Dimension(int64_t constant)
    : text_(std::to_string(constant)), sum_({Product{{Factor{"", constant, false}}, false}}) {}

Dimension Dimension::parse(std::string_view text, const std::string& where) {
  return DimensionParser(text, where).parse();
}

Dimension Dimension::parse(const JsonView& json) {
  if (json.json().is(Json::Kind::integer)) return Dimension(json.integer());
  if (!json.json().is(Json::Kind::string))
    json.fail_kind("an expression such as \"2 * heads * head_dim\"");
  return parse(json.string(), json.where());
}

int64_t Dimension::value(const Values& values, const std::string& where) const {
  int64_t sum = 0;
  for (const Product& product : sum_) {
    int64_t total = 1;
    for (const Factor& f : product.factors) {
      const int64_t factor = f.name.empty() ? f.number : lookup(values, f.name, where);
      const auto next = apply(total, factor, f.divides);
      if (!next) {
        throw Error(where,
                    fmt::format("\"{}\": {} {} {} {}", text_, total, f.divides ? "/" : "*", factor,
                                f.divides ? "is not a whole number" : "is too large"));
      }
      total = *next;
    }
    if (product.is_negative ? __builtin_sub_overflow(sum, total, &sum)
                            : __builtin_add_overflow(sum, total, &sum))
      throw Error(where, fmt::format("\"{}\" is too large", text_));
  }
  return sum;
}

std::vector<std::string> Dimension::names() const {
  std::vector<std::string> out;
  for (const Product& product : sum_) {
    for (const Factor& f : product.factors)
      if (!f.name.empty()) out.push_back(f.name);
  }
  return out;
}

namespace {

// transformers' SwitchTransformersConfig, of 5.24: one layer in so many is sparse.
int64_t sparse_step(int64_t layers, int64_t sparse) {
  return sparse > 0 ? layers / sparse : layers;
}

}  // namespace

const ValueFunction* find_value_function(std::string_view name) {
  static const std::vector<ValueFunction> all = {
      // transformers' JambaConfig: "auto" is ceil(hidden_size / 16).
      {"mamba_dt_rank",
       {"hidden"},
       [](const Values& values) { return (values.at("hidden") + 15) / 16; }},
      {"switch_encoder_step",
       {"encoder_layers", "sparse_encoder_layers"},
       [](const Values& values) {
         return sparse_step(values.at("encoder_layers"), values.at("sparse_encoder_layers"));
       }},
      {"switch_decoder_step",
       {"decoder_layers", "sparse_decoder_layers"},
       [](const Values& values) {
         return sparse_step(values.at("decoder_layers"), values.at("sparse_decoder_layers"));
       }}};
  const auto found = std::find_if(
      all.begin(), all.end(), [&](const ValueFunction& function) { return function.name == name; });
  return found == all.end() ? nullptr : &*found;
}

namespace {

std::optional<Dimension> find_dimension(const JsonView& json, std::string_view key) {
  const auto found = json.find(key);
  return found ? std::optional(Dimension::parse(*found)) : std::nullopt;
}

// One entry per layer: an array of words, numbers or booleans, or a string of one character per
// layer.
std::vector<std::string> pattern_entries(const JsonView& json) {
  std::vector<std::string> out;
  if (json.json().is(Json::Kind::string)) {
    for (const char c : json.string()) out.emplace_back(1, c);
    return out;
  }
  for (const JsonView& item : json.items())
    out.push_back(item.json().is(Json::Kind::string) ? item.string() : item.json().dump(-1));
  return out;
}

std::vector<bool> from_pattern(const JsonView& json, const std::vector<std::string>& values,
                               int64_t count, bool longer) {
  const auto entries = pattern_entries(json);
  const auto size = static_cast<int64_t>(entries.size());
  if (longer ? size < count : size != count)
    json.fail(fmt::format("has {} entries, but the model has {} layers", size, count));
  std::vector<bool> out;
  for (int64_t i = 0; i < count; ++i)
    out.push_back(std::find(values.begin(), values.end(), entries[static_cast<size_t>(i)]) !=
                  values.end());
  return out;
}

// A layer that a list names, and where.
struct Listed {
  int64_t layer;
  JsonView place;
};

// [1, 2], or "1,2".
std::vector<Listed> listed(const JsonView& json) {
  std::vector<Listed> out;
  if (!json.json().is(Json::Kind::string)) {
    for (const JsonView& item : json.items()) out.push_back({item.integer(), item});
    return out;
  }
  std::string_view rest = json.string();
  while (!rest.empty()) {
    const std::string_view word = rest.substr(0, rest.find(','));
    rest.remove_prefix(std::min(rest.size(), word.size() + 1));
    int64_t layer = 0;
    const auto [end, error] = std::from_chars(word.data(), word.data() + word.size(), layer);
    if (error != std::errc() || end != word.data() + word.size())
      json.fail(fmt::format("\"{}\" is not a layer", word));
    out.push_back({layer, json});
  }
  return out;
}

std::vector<bool> from_list(const std::vector<Listed>& list, int64_t count, int64_t base,
                            bool longer) {
  std::vector<bool> out(static_cast<size_t>(count));
  for (const auto& [name, place] : list) {
    const int64_t layer = name - base;
    if (longer && layer >= count) continue;
    if (layer < 0 || layer >= count)
      place.fail(fmt::format("layer {} is not one of the model's {} layers", name, count));
    out[static_cast<size_t>(layer)] = true;
  }
  return out;
}

}  // namespace

LayerChoice::Rule LayerChoice::parse_rule(const JsonView& json) {
  if (json.json().is(Json::Kind::string)) {
    json.one_of({"all"});
    return {};
  }
  json.allow_only({"from", "to", "every", "first", "list", "except", "pattern", "values", "longer",
                   "base", "only", "if"});
  Rule rule = {find_dimension(json, "from"),
               find_dimension(json, "to"),
               find_dimension(json, "every"),
               find_dimension(json, "first"),
               find_dimension(json, "if"),
               json.string_or_empty("list"),
               json.string_or_empty("except"),
               json.string_or_empty("pattern"),
               {},
               std::nullopt,
               json.is_true("longer"),
               0};
  if (const auto base = json.find("base")) rule.base = base->integer();
  if (const auto only = json.find("only")) {
    rule.only.emplace();
    for (const Listed& one : listed(*only)) rule.only->push_back(one.layer);
  }
  if (!rule.pattern.empty()) rule.values = json.at("values").one_or_more_strings();
  if (rule.first && !rule.every) json.fail("\"first\" says nothing without \"every\"");
  return rule;
}

LayerChoice LayerChoice::parse(const JsonView& json) {
  LayerChoice out;
  if (!json.json().is(Json::Kind::array)) {
    out.rules_.push_back(parse_rule(json));
    return out;
  }
  for (const JsonView& item : json.items()) out.rules_.push_back(parse_rule(item));
  if (out.rules_.empty()) json.fail("found no alternative, expected at least one");
  return out;
}

std::vector<bool> LayerChoice::layers(int64_t count, const Values& values, const FindKey& config,
                                      const std::string& family) const {
  const auto rule = std::find_if(rules_.begin(), rules_.end(),
                                 [&](const Rule& r) { return r.key().empty() || config(r.key()); });
  if (rule == rules_.end()) {
    std::vector<std::string> keys;
    for (const Rule& r : rules_) keys.push_back(r.key());
    config("")->fail(fmt::format("none of these keys is there: {}", fmt::join(keys, ", ")));
  }
  const auto number = [&](const std::optional<Dimension>& d, int64_t otherwise) {
    return d ? d->value(values, family) : otherwise;
  };
  if (number(rule->only_if, 1) == 0) return std::vector<bool>(static_cast<size_t>(count));
  const int64_t from = number(rule->from, 0), step = number(rule->every, 1);
  int64_t last = number(rule->to, -1);
  if (last < 0) last = count - 1;
  if (step < 1)
    config("")->fail(
        fmt::format("\"{}\" is {}, but layers come every 1 or more", rule->every->text(), step));
  const int64_t first = number(rule->first, step - 1);

  std::vector<bool> out(static_cast<size_t>(count), true);
  if (!rule->list.empty())
    out = from_list(listed(*config(rule->list)), count, rule->base, rule->longer);
  if (rule->only) {
    std::vector<Listed> list;
    for (const int64_t layer : *rule->only) list.push_back({layer, *config("")});
    out = from_list(list, count, rule->base, rule->longer);
  }
  if (!rule->pattern.empty())
    out = from_pattern(*config(rule->pattern), rule->values, count, rule->longer);
  const auto except = rule->except.empty() ? std::nullopt : config(rule->except);
  const std::vector<bool> excluded =
      except ? from_list(listed(*except), count, rule->base, rule->longer)
             : std::vector<bool>(out.size());
  for (int64_t i = 0; i < count; ++i) {
    const auto at = static_cast<size_t>(i);
    out[at] =
        out[at] && !excluded[at] && i >= from && i <= last && i >= first && (i - first) % step == 0;
  }
  return out;
}

std::vector<std::string> LayerChoice::value_names() const {
  std::vector<std::string> out;
  for (const Rule& rule : rules_) {
    for (const auto* d : {&rule.from, &rule.to, &rule.every, &rule.first, &rule.only_if}) {
      if (!*d) continue;
      for (std::string& name : (*d)->names()) out.push_back(std::move(name));
    }
  }
  return out;
}

}  // namespace moelora
