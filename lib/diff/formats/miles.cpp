// miles' rank_*.json: {"logprob_entries": [[{global_position, token_id, logprob, is_valid}]]}.

#include <algorithm>

#include "lib/base/error.h"
#include "lib/diff/logprob_format.h"

namespace moelora {
namespace {

constexpr std::string_view kKey = "logprob_entries";

bool claims(const ScoreInput& input) { return input.json && input.json->find(kKey) != nullptr; }

bool is_valid(const Json& entry) {
  const Json* valid = entry.find("is_valid");
  return valid == nullptr || !valid->is(Json::Kind::boolean) || valid->as_bool();
}

int64_t position_of(const Json* entry, const std::string& path) {
  return member(*entry, "global_position", Json::Kind::integer, path).as_int();
}

Sequence read_sequence(const Json& list, const std::string& path) {
  std::vector<const Json*> entries;
  for (const Json& entry : list.items()) entries.push_back(&entry);
  std::stable_sort(entries.begin(), entries.end(), [&](const Json* x, const Json* y) {
    return position_of(x, path) < position_of(y, path);
  });
  Sequence out;
  for (const Json* entry : entries) {
    const Json* value = entry->find("logprob");
    const auto logprob = value != nullptr ? number_or_null(*value, path) : std::nullopt;
    out.add(is_valid(*entry) ? logprob : std::nullopt);
    out.tokens.push_back(member(*entry, "token_id", Json::Kind::integer, path).as_int());
  }
  return out;
}

ScoreFile read(const ScoreInput& input) {
  ScoreFile out;
  for (const Json& list : member(*input.json, kKey, Json::Kind::array, input.path).items()) {
    if (!list.is(Json::Kind::array))
      throw Error(place_of(list, input.path), "is not a list of entries");
    out.first.sequences.push_back(read_sequence(list, input.path));
  }
  return out;
}

}  // namespace

const LogprobFormat miles_format = {"miles", "miles rank_*.json (logprob_entries)", claims, read};

}  // namespace moelora
