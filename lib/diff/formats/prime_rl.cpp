// prime-rl's token exports (JSON lines): the scores of the trainer and the inference server for the
// same tokens; positions outside loss_mask hold 0.

#include "lib/base/error.h"
#include "lib/diff/logprob_format.h"

namespace moelora {
namespace {

bool claims(const ScoreInput& input) {
  const auto all = documents(input);
  return !all.empty() && all.front()->find("inference_logprobs") != nullptr &&
         all.front()->find("trainer_logprobs") != nullptr;
}

std::vector<int64_t> integers(const Json& object, std::string_view key, const std::string& path) {
  std::vector<int64_t> out;
  for (const Json& item : member(object, key, Json::Kind::array, path).items()) {
    if (!item.is(Json::Kind::integer) && !item.is(Json::Kind::boolean))
      throw Error(place_of(item, path), "is not an integer");
    out.push_back(item.is(Json::Kind::boolean) ? (item.as_bool() ? 1 : 0) : item.as_int());
  }
  return out;
}

Sequence read_side(const Json& line, std::string_view key, const std::string& path) {
  Sequence out;
  out.tokens = integers(line, "token_ids", path);
  const std::vector<int64_t> mask = integers(line, "loss_mask", path);
  const Json& values = member(line, key, Json::Kind::array, path);
  if (values.items().size() != out.tokens.size() || mask.size() != out.tokens.size())
    throw Error(place_of(values, path),
                "token_ids, loss_mask and log-probabilities differ in length");
  for (const Json& value : values.items()) out.add(number_or_null(value, path));
  for (const int64_t counted : mask) out.counted.push_back(counted != 0);
  return out;
}

ScoreFile read(const ScoreInput& input) {
  ScoreFile out;
  out.second.emplace();
  out.first.side = "trainer_logprobs";
  out.second->side = "inference_logprobs";
  for (const Json* line : documents(input)) {
    out.first.sequences.push_back(read_side(*line, "trainer_logprobs", input.path));
    out.second->sequences.push_back(read_side(*line, "inference_logprobs", input.path));
  }
  return out;
}

}  // namespace

const LogprobFormat prime_rl_format = {
    "prime-rl", "prime-rl token exports (JSON lines, both sides)", claims, read};

}  // namespace moelora
