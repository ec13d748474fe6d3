// What two trainers dump of a step, JSON lines with both sides:
//   NeMo-RL  train_data_step*.jsonl (grpo.py, log_batched_dict_as_jsonl): prev_logprobs of the
//            trainer, generation_logprobs of the server, padded, 0 where nothing was generated;
//            input_lengths, and since 2025-11 token_ids, token_loss_mask, sample_loss_mask. Each
//            value is a list of the one sample's.
//   verl     the names of its batch (core_algos.py): old_log_probs, rollout_log_probs, responses,
//            response_mask. What rollout_data_dir writes has texts and scores alone.

#include <algorithm>
#include <array>

#include "lib/base/error.h"
#include "lib/diff/logprob_format.h"

namespace moelora {
namespace {

struct Keys {
  std::string_view trainer, server, tokens, mask, lengths, sample_mask;
};

constexpr std::array<Keys, 2> kKeys = {
    {{"prev_logprobs", "generation_logprobs", "token_ids", "token_loss_mask", "input_lengths",
      "sample_loss_mask"},
     {"old_log_probs", "rollout_log_probs", "responses", "response_mask", "", ""}}};

bool is_rollout_dump(const Json& line) {
  return line.find("input") != nullptr && line.find("output") != nullptr &&
         line.find("score") != nullptr && line.find("step") != nullptr;
}

const Keys* keys_of(const Json& line) {
  for (const Keys& keys : kKeys)
    if (line.find(keys.trainer) != nullptr && line.find(keys.server) != nullptr) return &keys;
  return nullptr;
}

bool claims(const ScoreInput& input) {
  const auto all = documents(input);
  return !all.empty() && all.front()->is(Json::Kind::object) &&
         (keys_of(*all.front()) != nullptr || is_rollout_dump(*all.front()));
}

// The value of one sample: itself, or the one item of a list that wraps it.
const Json& unwrapped(const Json& value, Json::Kind kind) {
  const bool wraps = value.is(Json::Kind::array) && value.items().size() == 1 &&
                     (kind == Json::Kind::array ? value.items().front().is(kind) : true);
  return wraps ? value.items().front() : value;
}

const Json* find_of_sample(const Json& line, std::string_view key, Json::Kind kind) {
  const Json* value = key.empty() ? nullptr : line.find(key);
  return value == nullptr ? nullptr : &unwrapped(*value, kind);
}

// How many positions are no padding.
size_t length_of(const Json& line, const Keys& keys, size_t most, const std::string& path) {
  const Json* value = find_of_sample(line, keys.lengths, Json::Kind::integer);
  if (value == nullptr) return most;
  if (!value->is(Json::Kind::integer) || value->as_int() < 0)
    throw Error(place_of(*value, path), "is not the length of a sequence");
  return std::min(most, static_cast<size_t>(value->as_int()));
}

bool is_set(const Json& value, const std::string& path) {
  if (value.is(Json::Kind::boolean)) return value.as_bool();
  return number_or_null(value, path).value_or(0) != 0;
}

class Line {
 public:
  Line(const Json& line, const Keys& keys, const std::string& path)
      : line_(line), keys_(keys), path_(path) {}

  std::pair<Sequence, Sequence> read() {
    const Json &trainer = list(keys_.trainer), &server = list(keys_.server);
    if (trainer.items().size() != server.items().size())
      throw Error(place_of(server, path_), "the two sides differ in length");
    const size_t length = length_of(line_, keys_, trainer.items().size(), path_);
    std::pair<Sequence, Sequence> out;
    for (size_t i = 0; i < length; ++i) {
      out.first.add(number_or_null(trainer.items()[i], path_));
      out.second.add(number_or_null(server.items()[i], path_));
    }
    out.second.counted = counted(out.second, length);
    if (const Json* tokens = find_of_sample(line_, keys_.tokens, Json::Kind::array))
      out.first.tokens = out.second.tokens = ids(*tokens, length);
    return out;
  }

 private:
  const Json& list(std::string_view key) const {
    const Json& value = *find_of_sample(line_, key, Json::Kind::array);
    if (!value.is(Json::Kind::array)) throw Error(place_of(value, path_), "is not a list");
    return value;
  }

  std::vector<int64_t> ids(const Json& tokens, size_t length) const {
    if (!tokens.is(Json::Kind::array) || tokens.items().size() < length)
      throw Error(place_of(tokens, path_), "has fewer tokens than log-probabilities");
    std::vector<int64_t> out;
    for (size_t i = 0; i < length; ++i) {
      const Json& id = tokens.items()[i];
      if (!id.is(Json::Kind::integer)) throw Error(place_of(id, path_), "is not a token id");
      out.push_back(id.as_int());
    }
    return out;
  }

  // Without a mask: a server's 0 stands for a token that it did not generate.
  std::vector<bool> counted(const Sequence& server, size_t length) const {
    std::vector<bool> out;
    const Json* mask = find_of_sample(line_, keys_.mask, Json::Kind::array);
    const Json* sample = find_of_sample(line_, keys_.sample_mask, Json::Kind::real);
    const bool used = sample == nullptr || is_set(*sample, path_);
    if (mask != nullptr && (!mask->is(Json::Kind::array) || mask->items().size() < length))
      throw Error(place_of(*mask, path_), "is shorter than the log-probabilities");
    for (size_t i = 0; i < length; ++i)
      out.push_back(used &&
                    (mask != nullptr ? is_set(mask->items()[i], path_) : server.logprobs[i] != 0));
    return out;
  }

  const Json& line_;
  const Keys& keys_;
  const std::string& path_;
};

ScoreFile read(const ScoreInput& input) {
  const Keys* keys = keys_of(*documents(input).front());
  if (keys == nullptr && is_rollout_dump(*documents(input).front()))
    throw Error(input.path, "is verl's rollout dump: it holds texts and scores, no log-probability",
                "set actor_rollout_ref.rollout.calculate_log_probs and save rollout_log_probs and "
                "old_log_probs of the batch");
  ScoreFile out;
  out.second.emplace();
  for (const Json* line : documents(input)) {
    if (keys == nullptr || keys_of(*line) != keys)
      throw Error(place_of(*line, input.path), "lacks the log-probabilities of a side");
    out.first.side = keys->trainer;
    out.second->side = keys->server;
    auto [trainer, server] = Line(*line, *keys, input.path).read();
    out.first.sequences.push_back(std::move(trainer));
    out.second->sequences.push_back(std::move(server));
  }
  return out;
}

}  // namespace

const LogprobFormat rl_dumps_format = {
    "rl-dumps", "NeMo-RL train_data_step*.jsonl, verl batches as JSON lines (both sides)", claims,
    read};

}  // namespace moelora
