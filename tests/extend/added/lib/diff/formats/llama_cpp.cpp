// An example of a logprob format: the answer of llama.cpp's server to /completion with n_probs:
// {"completion_probabilities": [{"id": 17, "token": "a", "logprob": -0.3}, ...]}.

#include "lib/diff/logprob_format.h"

namespace moelora {
namespace {

constexpr std::string_view kKey = "completion_probabilities";

bool claims(const ScoreInput& input) {
  return input.json && input.json->is(Json::Kind::object) && input.json->find(kKey) != nullptr;
}

ScoreFile read(const ScoreInput& input) {
  Sequence sequence;
  for (const Json& entry : member(*input.json, kKey, Json::Kind::array, input.path).items()) {
    sequence.tokens.push_back(member(entry, "id", Json::Kind::integer, input.path).as_int());
    const Json* value = entry.find("logprob");
    sequence.add(value != nullptr ? number_or_null(*value, input.path) : std::nullopt);
  }
  ScoreFile out;
  out.first.sequences.push_back(std::move(sequence));
  return out;
}

}  // namespace

const LogprobFormat llama_cpp_format = {"llama-cpp", "llama.cpp's server, /completion with n_probs",
                                        claims, read};

}  // namespace moelora
