// OpenAI completions (logprobs.tokens, token_logprobs, top_logprobs) and chat (logprobs.content) as
// vLLM and SGLang serve them; with return_tokens_as_token_ids a token is "token_id:N".

#include "lib/base/error.h"
#include "lib/diff/logprob_format.h"
#include "lib/diff/score_input.h"

namespace moelora {
namespace {

const Json* logprobs_of(const Json& choice) {
  const Json* logprobs = choice.find("logprobs");
  return logprobs != nullptr && logprobs->is(Json::Kind::object) ? logprobs : nullptr;
}

const Json* first_choice(const ScoreInput& input) {
  const auto all = documents(input);
  if (all.empty()) return nullptr;
  const Json* choices = all.front()->find("choices");
  return choices != nullptr && choices->is(Json::Kind::array) && !choices->items().empty()
             ? &choices->items().front()
             : nullptr;
}

bool claims(const ScoreInput& input) {
  const Json* choice = first_choice(input);
  return choice != nullptr && logprobs_of(*choice) != nullptr;
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

void add_value(const Json& value, const std::string& path, Sequence& out) {
  const auto logprob = number_or_null(value, path);
  logprob ? out.add(*logprob) : out.add_unscored();
}

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
  const Json* top = logprobs.find("top_logprobs");
  const bool has_top = top != nullptr && top->is(Json::Kind::array);
  Names names;
  for (size_t i = 0; i < values.items().size(); ++i) {
    const Json& token = tokens.items()[i];
    names.add(token.is(Json::Kind::string) ? token.as_string() : "");
    add_value(values.items()[i], path, out);
    out.top.push_back(has_top && i < top->items().size() ? top_of_object(top->items()[i], path)
                                                         : std::vector<TopToken>{});
  }
  names.put_into(out);
}

std::vector<TopToken> top_of_entry(const Json& entry, const std::string& path) {
  std::vector<TopToken> out;
  const Json* list = entry.find("top_logprobs");
  if (list == nullptr || !list->is(Json::Kind::array)) return out;
  for (const Json& item : list->items()) {
    const auto id = token_id_of(member(item, "token", Json::Kind::string, path).as_string());
    const Json* logprob = item.find("logprob");
    if (id && logprob != nullptr && logprob->is_number())
      out.push_back({*id, logprob->as_double()});
  }
  return out;
}

void read_chat(const Json& content, const std::string& path, Sequence& out) {
  Names names;
  for (const Json& entry : content.items()) {
    names.add(member(entry, "token", Json::Kind::string, path).as_string());
    const Json* logprob = entry.find("logprob");
    logprob != nullptr ? add_value(*logprob, path, out) : out.add_unscored();
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
      const Json* content = logprobs.find("content");
      if (content != nullptr && content->is(Json::Kind::array)) {
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

extern const LogprobFormat openai_format;
const LogprobFormat openai_format = {"openai", "OpenAI completions and chat with logprobs (JSON)",
                                     claims, read};

}  // namespace moelora
