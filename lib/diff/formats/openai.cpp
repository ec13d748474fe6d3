// OpenAI completions (logprobs.tokens, token_logprobs, top_logprobs) and chat (logprobs.content) as
// vLLM and SGLang serve them; with return_tokens_as_token_ids a token is "token_id:N".

#include "lib/base/dotted_path.h"
#include "lib/base/error.h"
#include "lib/diff/logprob_format.h"

namespace moelora {
namespace {

const Json* logprobs_of(const Json& choice) {
  const Json* logprobs = choice.find("logprobs");
  return logprobs != nullptr && logprobs->is(Json::Kind::object) ? logprobs : nullptr;
}

const Json* first_choice(const ScoreInput& input) {
  const auto all = documents(input);
  if (all.empty()) return nullptr;
  const Json* choices = find_list(*all.front(), "choices");
  return choices != nullptr && !choices->items().empty() ? &choices->items().front() : nullptr;
}

bool claims(const ScoreInput& input) {
  const Json* choice = first_choice(input);
  return choice != nullptr && logprobs_of(*choice) != nullptr;
}

// "token_id:17" -> 17.
std::optional<int64_t> token_id_of(std::string_view text) {
  constexpr std::string_view kPrefix = "token_id:";
  if (!text.starts_with(kPrefix)) return std::nullopt;
  return parse_index(text.substr(kPrefix.size()));
}

// A token's id where its text is "token_id:N"; ids are kept only when every token has one.
struct Names {
  std::vector<int64_t> ids;
  std::vector<std::string> texts;
  bool all_ids = true;

  void add(const std::string& text) {
    const auto id = token_id_of(text);
    all_ids = all_ids && id.has_value();
    ids.push_back(id.value_or(-1));
    texts.push_back(text);
  }
  void put_into(Sequence& sequence) {
    (all_ids ? sequence.tokens : ids) = std::move(ids);
    if (!all_ids) sequence.texts = std::move(texts);
  }
};

// {"token_id:17": -0.3, ...}, best first as the server lists them.
std::vector<TopToken> top_of_object(const Json& object, const std::string& path) {
  std::vector<TopToken> out;
  if (!object.is(Json::Kind::object)) return out;
  for (const auto& [text, value] : object.members()) {
    const auto id = token_id_of(text);
    const auto logprob = number_or_null(value, path);
    if (id && logprob) out.push_back({*id, *logprob});
  }
  return out;
}

void read_completion(const Json& logprobs, const std::string& path, Sequence& out) {
  const Json& tokens = member(logprobs, "tokens", Json::Kind::array, path);
  const Json& values = member(logprobs, "token_logprobs", Json::Kind::array, path);
  if (tokens.items().size() != values.items().size())
    throw Error(place_of(values, path), "token_logprobs and tokens are of different lengths");
  const Json* top = find_list(logprobs, "top_logprobs");
  Names names;
  for (size_t i = 0; i < values.items().size(); ++i) {
    const Json& token = tokens.items()[i];
    names.add(token.is(Json::Kind::string) ? token.as_string() : "");
    out.add(number_or_null(values.items()[i], path));
    std::vector<TopToken>& best = out.top.emplace_back();
    if (top != nullptr && i < top->items().size()) best = top_of_object(top->items()[i], path);
  }
  names.put_into(out);
}

std::vector<TopToken> top_of_entry(const Json& entry, const std::string& path) {
  std::vector<TopToken> out;
  const Json* list = find_list(entry, "top_logprobs");
  if (list == nullptr) return out;
  for (const Json& item : list->items()) {
    const auto id = token_id_of(member(item, "token", Json::Kind::string, path).as_string());
    const Json* logprob = item.find("logprob");
    if (id && logprob != nullptr && is_score(*logprob)) out.push_back({*id, score_of(*logprob)});
  }
  return out;
}

void read_chat(const Json& content, const std::string& path, Sequence& out) {
  Names names;
  for (const Json& entry : content.items()) {
    names.add(member(entry, "token", Json::Kind::string, path).as_string());
    const Json* logprob = entry.find("logprob");
    out.add(logprob != nullptr ? number_or_null(*logprob, path) : std::nullopt);
    out.top.push_back(top_of_entry(entry, path));
  }
  names.put_into(out);
}

ScoreFile read(const ScoreInput& input) {
  ScoreFile out;
  for (const Json* document : documents(input)) {
    for (const Json& choice : member(*document, "choices", Json::Kind::array, input.path).items()) {
      const Json& logprobs = member(choice, "logprobs", Json::Kind::object, input.path);
      Sequence& sequence = out.first.sequences.emplace_back();
      if (const Json* content = find_list(logprobs, "content")) {
        sequence.prompt = 0;  // chat answers hold the answer only
        read_chat(*content, input.path, sequence);
      } else {
        read_completion(logprobs, input.path, sequence);
      }
      tidy(sequence);
    }
  }
  return out;
}

}  // namespace

const LogprobFormat openai_format = {"openai", "OpenAI completions and chat with logprobs (JSON)",
                                     claims, read};

}  // namespace moelora
