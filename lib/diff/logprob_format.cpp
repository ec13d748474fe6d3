#include "lib/diff/logprob_format.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "lib/adapter/tensor_name.h"
#include "lib/base/error.h"
#include "lib/diff/place.h"

namespace moelora {

#define MOELORA_ENTRY(name) extern const LogprobFormat name##_format;
#include "formats.inc"
#undef MOELORA_ENTRY

namespace {

constexpr std::array kAll = {
#define MOELORA_ENTRY(name) &name##_format,
#include "formats.inc"
#undef MOELORA_ENTRY
};

std::string formats_hint() {
  std::string out = "formats: ";
  for (const LogprobFormat* format : kAll)
    out += fmt::format("{}{}", format == kAll.front() ? "" : "; ", format->summary);
  return out;
}

void finish(const std::string& path, std::string_view format, Scores& scores) {
  scores.path = path;
  scores.format = format;
  for (const Sequence& sequence : scores.sequences)
    if (std::find(sequence.scored.begin(), sequence.scored.end(), true) != sequence.scored.end())
      return;
  throw Error(path, "holds no log-probability",
              "ask the server for them: examples/capture_logprobs.sh shows how");
}

}  // namespace

std::span<const LogprobFormat* const> all_logprob_formats() { return kAll; }

ScoreFile read_scores(const std::string& path) {
  const ScoreInput input = read_score_input(path);
  for (const LogprobFormat* format : kAll) {
    if (!format->claims(input)) continue;
    ScoreFile out = format->read(input);
    finish(path, format->id, out.first);
    if (out.second) finish(path, format->id, *out.second);
    return out;
  }
  throw Error(path, "is in no format of log-probabilities that is known", formats_hint());
}

std::vector<const Json*> documents(const ScoreInput& input) {
  std::vector<const Json*> out;
  for (const Json& line : input.json_lines) out.push_back(&line);
  if (!input.json) return out;
  if (!input.json->is(Json::Kind::array)) return {&*input.json};
  for (const Json& item : input.json->items()) out.push_back(&item);
  return out;
}

std::optional<double> number_or_null(const Json& value, const std::string& where) {
  if (value.is(Json::Kind::null)) return std::nullopt;
  if (!value.is_number())
    throw Error(place_of(value, where),
                fmt::format("{} where a log-probability was expected", value.kind_name()));
  return value.as_double();
}

const Json& member(const Json& object, std::string_view key, Json::Kind kind,
                   const std::string& path) {
  const Json* value = object.find(key);
  if (value == nullptr) throw Error(place_of(object, path), fmt::format("has no \"{}\"", key));
  if (!value->is(kind))
    throw Error(place_of(*value, path),
                fmt::format("\"{}\" is {}, which was not expected", key, value->kind_name()));
  return *value;
}

std::optional<int64_t> token_id_of(std::string_view text) {
  constexpr std::string_view kPrefix = "token_id:";
  if (!text.starts_with(kPrefix)) return std::nullopt;
  return parse_index(text.substr(kPrefix.size()));
}

Triple read_triple(const Json& entry, const std::string& path) {
  if (!entry.is(Json::Kind::array) || entry.items().size() < 2 ||
      !entry.items()[1].is(Json::Kind::integer))
    throw Error(place_of(entry, path), "is not [log-probability, token id, text]");
  const auto& items = entry.items();
  const bool text = items.size() > 2 && items[2].is(Json::Kind::string);
  return {number_or_null(items[0], path), items[1].as_int(), text ? items[2].as_string() : ""};
}

void tidy(Sequence& sequence) {
  const auto& texts = sequence.texts;
  if (std::all_of(texts.begin(), texts.end(), [](const auto& text) { return text.empty(); }))
    sequence.texts.clear();
  const auto& top = sequence.top;
  if (std::all_of(top.begin(), top.end(), [](const auto& list) { return list.empty(); }))
    sequence.top.clear();
}

void Sequence::add(double logprob) {
  logprobs.push_back(logprob);
  scored.push_back(true);
}

void Sequence::add_unscored() {
  logprobs.push_back(0);
  scored.push_back(false);
}

}  // namespace moelora
