// vLLM's prompt_logprobs: a list with one object a prompt token, null first; an object maps token
// ids to {logprob, rank, decoded_token}: the prompt's own token, and the best ones.

#include <algorithm>

#include "lib/base/dotted_path.h"
#include "lib/base/error.h"
#include "lib/diff/logprob_format.h"

namespace moelora {
namespace {

constexpr std::string_view kKey = "prompt_logprobs";

// The objects that hold prompt_logprobs: the documents (a dump of RequestOutput) or their choices
// (the OpenAI server).
std::vector<const Json*> holders(const ScoreInput& input) {
  std::vector<const Json*> out;
  for (const Json* document : documents(input)) {
    const Json* choices = find_list(*document, "choices");
    if (document->find(kKey) != nullptr) {
      out.push_back(document);
    } else if (choices != nullptr) {
      for (const Json& choice : choices->items())
        if (choice.find(kKey) != nullptr) out.push_back(&choice);
    }
  }
  return out;
}

bool claims(const ScoreInput& input) {
  const auto all = holders(input);
  return !all.empty() && all.front()->find(kKey)->is(Json::Kind::array);
}

struct Entry {
  int64_t token;
  double logprob;
  int64_t rank;
};

std::vector<Entry> entries_of(const Json& object, const std::string& path) {
  std::vector<Entry> out;
  for (const auto& [key, value] : object.members()) {
    const auto token = parse_index(key);
    const Json* logprob = value.find("logprob");
    if (!token || logprob == nullptr || !is_score(*logprob))
      throw Error(place_of(value, path), "is not TOKEN ID: {\"logprob\": ..}");
    const Json* rank = value.find("rank");
    const bool ranked = rank != nullptr && rank->is(Json::Kind::integer);
    out.push_back({*token, score_of(*logprob), ranked ? rank->as_int() : 0});
  }
  return out;
}

// The best tokens: the prompt's own is among the entries whatever its rank.
std::vector<TopToken> best(std::vector<Entry> entries) {
  const auto most = static_cast<int64_t>(entries.size());
  std::erase_if(entries, [&](const Entry& e) { return e.rank < 1 || e.rank > most; });
  std::sort(entries.begin(), entries.end(),
            [](const Entry& x, const Entry& y) { return x.rank < y.rank; });
  std::vector<TopToken> out;
  for (const Entry& e : entries) out.push_back({e.token, e.logprob});
  return out;
}

void add_position(const Json& object, const Json* id, const std::string& path, Sequence& out) {
  const std::vector<Entry> entries = entries_of(object, path);
  const int64_t token = id != nullptr ? id->as_int() : entries.empty() ? -1 : entries[0].token;
  const auto own = std::find_if(entries.begin(), entries.end(),
                                [&](const Entry& e) { return e.token == token; });
  out.add(own == entries.end() ? std::nullopt : std::optional(own->logprob));
  out.tokens.push_back(token);
  out.top.push_back(best(entries));
}

Sequence read_sequence(const Json& holder, const std::string& path) {
  Sequence out;
  const Json& list = member(holder, kKey, Json::Kind::array, path);
  const Json* ids = find_list(holder, "prompt_token_ids");
  if (ids != nullptr && ids->items().size() != list.items().size())
    throw Error(place_of(list, path), "prompt_logprobs and prompt_token_ids differ in length");
  for (size_t i = 0; i < list.items().size(); ++i) {
    const Json* id = ids != nullptr ? &ids->items()[i] : nullptr;
    if (id != nullptr && !id->is(Json::Kind::integer))
      throw Error(place_of(*id, path), "is not a token id");
    const Json& object = list.items()[i];
    if (object.is(Json::Kind::object)) {
      add_position(object, id, path, out);
      continue;
    }
    out.add(std::nullopt);  // null: nothing comes before the first token
    out.tokens.push_back(id != nullptr ? id->as_int() : -1);
    out.top.emplace_back();
  }
  out.prompt = out.size();
  tidy(out);
  return out;
}

ScoreFile read(const ScoreInput& input) {
  ScoreFile out;
  for (const Json* holder : holders(input))
    out.first.sequences.push_back(read_sequence(*holder, input.path));
  return out;
}

}  // namespace

const LogprobFormat vllm_format = {"vllm", "vLLM prompt_logprobs (JSON)", claims, read};

}  // namespace moelora
