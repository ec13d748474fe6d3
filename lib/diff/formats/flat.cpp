// A JSON list of log-probabilities, or of such lists: no tokens.

#include <algorithm>

#include "lib/diff/logprob_format.h"

namespace moelora {
namespace {

bool is_value(const Json& value) { return is_score(value) || value.is(Json::Kind::null); }

bool is_flat(const Json& list) {
  return list.is(Json::Kind::array) && !list.items().empty() &&
         std::all_of(list.items().begin(), list.items().end(), is_value);
}

bool claims(const ScoreInput& input) {
  if (!input.json || !input.json->is(Json::Kind::array)) return false;
  const auto& items = input.json->items();
  return is_flat(*input.json) ||
         (!items.empty() && std::all_of(items.begin(), items.end(), is_flat));
}

Sequence read_sequence(const Json& list, const std::string& path) {
  Sequence out;
  for (const Json& value : list.items()) out.add(number_or_null(value, path));
  return out;
}

ScoreFile read(const ScoreInput& input) {
  ScoreFile out;
  if (is_flat(*input.json)) {
    out.first.sequences.push_back(read_sequence(*input.json, input.path));
    return out;
  }
  for (const Json& list : input.json->items())
    out.first.sequences.push_back(read_sequence(list, input.path));
  return out;
}

}  // namespace

const LogprobFormat flat_format = {"flat", "a JSON list of numbers, or of lists of numbers", claims,
                                   read};

}  // namespace moelora
