// SGLang /generate with return_logprob: meta_info.input_token_logprobs and output_token_logprobs
// are lists of [logprob, token id, text], the first input entry without a value.

#include "lib/base/error.h"
#include "lib/diff/logprob_format.h"

namespace moelora {
namespace {

constexpr std::string_view kMeta = "meta_info";

struct Triple {
  std::optional<double> logprob;
  int64_t token;
  std::string text;
};

Triple read_triple(const Json& entry, const std::string& path) {
  if (!entry.is(Json::Kind::array) || entry.items().size() < 2 ||
      !entry.items()[1].is(Json::Kind::integer))
    throw Error(place_of(entry, path), "is not [log-probability, token id, text]");
  const auto& items = entry.items();
  const bool text = items.size() > 2 && items[2].is(Json::Kind::string);
  return {number_or_null(items[0], path), items[1].as_int(), text ? items[2].as_string() : ""};
}

bool claims(const ScoreInput& input) {
  const auto all = documents(input);
  return !all.empty() && all.front()->find(kMeta) != nullptr;
}

void add_top(const Json* list, size_t count, const std::string& path, Sequence& out) {
  for (size_t i = 0; i < count; ++i) {
    std::vector<TopToken>& top = out.top.emplace_back();
    if (list == nullptr || i >= list->items().size() || !list->items()[i].is(Json::Kind::array))
      continue;
    for (const Json& entry : list->items()[i].items()) {
      const Triple triple = read_triple(entry, path);
      if (triple.logprob) top.push_back({triple.token, *triple.logprob});
    }
  }
}

void add_tokens(const Json& meta, std::string_view side, const std::string& path, Sequence& out) {
  const Json* list = find_list(meta, std::string(side) + "_token_logprobs");
  if (list == nullptr) return;
  for (const Json& entry : list->items()) {
    const Triple triple = read_triple(entry, path);
    out.add(triple.logprob);
    out.tokens.push_back(triple.token);
    out.texts.push_back(triple.text);
  }
  add_top(find_list(meta, std::string(side) + "_top_logprobs"), list->items().size(), path, out);
}

ScoreFile read(const ScoreInput& input) {
  ScoreFile out;
  for (const Json* document : documents(input)) {
    const Json& meta = member(*document, kMeta, Json::Kind::object, input.path);
    Sequence& sequence = out.first.sequences.emplace_back();
    add_tokens(meta, "input", input.path, sequence);
    sequence.prompt = sequence.size();
    add_tokens(meta, "output", input.path, sequence);
    tidy(sequence);
  }
  return out;
}

}  // namespace

const LogprobFormat sglang_format = {
    "sglang", "SGLang /generate with return_logprob (JSON, single or batched)", claims, read};

}  // namespace moelora
