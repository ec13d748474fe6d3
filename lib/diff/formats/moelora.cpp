// lora-diff's own JSON report with --with-scores: both sides of a comparison.

#include "lib/base/error.h"
#include "lib/diff/logprob_format.h"

namespace moelora {
namespace {

constexpr std::string_view kSchema = "moelora.logprobs/1";

bool claims(const ScoreInput& input) {
  const Json* schema = input.json ? input.json->find("schema") : nullptr;
  return schema != nullptr && schema->is(Json::Kind::string) && schema->as_string() == kSchema;
}

size_t prompt_of(const Json& value, const Sequence& sequence, const std::string& path) {
  const auto most = static_cast<int64_t>(sequence.size());
  if (!value.is(Json::Kind::integer) || value.as_int() < 0 || value.as_int() > most)
    throw Error(place_of(value, path), "is not how many of the tokens are the prompt");
  return static_cast<size_t>(value.as_int());
}

Sequence read_side(const Json& object, std::string_view side, const std::string& path) {
  Sequence out;
  for (const Json& value : member(object, side, Json::Kind::array, path).items())
    out.add(number_or_null(value, path));
  for (const Json& id : member(object, "tokens", Json::Kind::array, path).items()) {
    if (!id.is(Json::Kind::integer)) throw Error(place_of(id, path), "is not a token id");
    out.tokens.push_back(id.as_int());
  }
  if (!out.tokens.empty() && out.tokens.size() != out.size())
    throw Error(place_of(object, path), "tokens and log-probabilities differ in length");
  if (const Json* prompt = object.find("prompt")) out.prompt = prompt_of(*prompt, out, path);
  return out;
}

ScoreFile read(const ScoreInput& input) {
  ScoreFile out;
  out.second.emplace();
  const Json* scores = find_list(*input.json, "scores");
  if (scores == nullptr)
    throw Error(input.path, "is a report of lora-diff without the scores themselves",
                "write it with --with-scores");
  for (const Json& sequence : scores->items()) {
    out.first.sequences.push_back(read_side(sequence, "a", input.path));
    out.second->sequences.push_back(read_side(sequence, "b", input.path));
  }
  return out;
}

}  // namespace

const LogprobFormat moelora_format = {
    "moelora", "lora-diff logprobs --format json --with-scores (both sides)", claims, read};

}  // namespace moelora
