// What is to be scored, out of every kind of file that holds token ids.

#include "lib/diff/token_file.h"

#include <doctest/doctest.h>

#include <cstring>

#include "lib/io/npz_writer.h"
#include "tests/diff/written_file.h"

using namespace moelora;

namespace {

using Ids = std::vector<int64_t>;

TokenFile read(const std::string& name, const std::string& bytes) {
  const WrittenFile file(name, bytes);
  return read_tokens(file.path);
}

std::string refused(const std::string& name, const std::string& bytes) {
  return error_of([&] { read(name, bytes); });
}

Tensor integers(const Shape& shape, const Ids& values) {
  std::vector<std::byte> bytes(values.size() * 8);
  std::memcpy(bytes.data(), values.data(), bytes.size());
  return Tensor(std::make_shared<MemorySource>(DType::I64, std::move(bytes)), shape);
}

std::string npz(const TensorMap& arrays) { return npz_bytes(arrays); }

std::string golden(const std::string& name) {
  return std::string(MOELORA_TEST_DATA) + "/logprobs/" + name;
}

}  // namespace

TEST_CASE("a JSON list is one sequence, a list of lists as many of any length") {
  const TokenFile one = read("a.json", "[3, 1, 2]");
  REQUIRE(one.sequences.size() == 1);
  CHECK(one.sequences[0].tokens == Ids{3, 1, 2});
  CHECK(one.format == "ids");
  const TokenFile two = read("a.json", "[[3, 1], [4, 5, 6]]");
  REQUIRE(two.sequences.size() == 2);
  CHECK(two.sequences[1].tokens == Ids{4, 5, 6});
}

TEST_CASE("arrays are filled up with -1, or where attention_mask leaves out") {
  const TokenFile filled = read("a.npz", npz({{"tokens", integers({2, 3}, {3, 1, 2, 4, 5, -1})}}));
  REQUIRE(filled.sequences.size() == 2);
  CHECK(filled.sequences[0].tokens == Ids{3, 1, 2});
  CHECK(filled.sequences[1].tokens == Ids{4, 5});

  const TokenFile masked =
      read("a.npz", npz({{"input_ids", integers({2, 4}, {0, 3, 1, 2, 4, 5, 0, 0})},
                         {"attention_mask", integers({2, 4}, {0, 1, 1, 1, 1, 1, 0, 0})},
                         {"loss_mask", integers({2, 4}, {0, 0, 1, 1, 0, 1, 0, 0})}}));
  REQUIRE(masked.sequences.size() == 2);
  CHECK(masked.sequences[0].tokens == Ids{3, 1, 2});
  CHECK(masked.sequences[0].counted == std::vector<bool>{false, true, true});
  CHECK(masked.sequences[1].tokens == Ids{4, 5});
}

TEST_CASE("verl's batch is scored with its prompts, and its responses count") {
  const TensorMap batch = {{"input_ids", integers({2, 5}, {0, 3, 1, 2, 4, 5, 6, 7, 8, 0})},
                           {"attention_mask", integers({2, 5}, {0, 1, 1, 1, 1, 1, 1, 1, 1, 0})},
                           {"responses", integers({2, 3}, {1, 2, 4, 7, 8, 0})},
                           {"response_mask", integers({2, 3}, {1, 0, 1, 1, 1, 0})},
                           {"old_log_probs", integers({2, 3}, {-1, -1, -1, -1, -1, 0})},
                           {"rollout_log_probs", integers({2, 3}, {-1, -1, -1, -1, -1, 0})}};
  const TokenFile file = read("a.npz", npz(batch));
  REQUIRE(file.sequences.size() == 2);
  CHECK(file.sequences[0].tokens == Ids{3, 1, 2, 4});
  CHECK(file.sequences[0].prompt == 1);
  CHECK(file.sequences[0].counted == std::vector<bool>{false, true, false, true});
  CHECK(file.sequences[1].tokens == Ids{5, 6, 7, 8});
  CHECK(file.sequences[1].prompt == 2);

  TensorMap alone = batch;
  alone.erase("attention_mask");
  CHECK(has_part(refused("a.npz", npz(alone)), "has no attention_mask"));
  alone.erase("input_ids");
  CHECK(has_part(refused("a.npz", npz(alone)), "begins with a token that has a score"));
}

TEST_CASE("the files of log-probabilities have the same ids, whoever wrote them") {
  const TokenFile trainer = read_tokens(golden("trainer.safetensors"));
  REQUIRE(trainer.sequences.size() == 2);
  CHECK(trainer.sequences[0].tokens.size() == 24);
  CHECK(trainer.format == "arrays");
  for (const char* name : {"server.sglang.json", "server.openai.json", "server.vllm.json",
                           "server.npz", "pair.prime_rl.jsonl", "compare_sample_train_data.pt"}) {
    CAPTURE(name);
    const TokenFile file = read_tokens(golden(name));
    REQUIRE(file.sequences.size() == 2);
    for (size_t s = 0; s < 2; ++s) CHECK(file.sequences[s].tokens == trainer.sequences[s].tokens);
  }
}

TEST_CASE("mask and prompt lengths of a file are carried over") {
  CHECK(read_tokens(golden("server.sglang.json")).sequences[0].prompt == 24);
  const TokenFile file =
      read("a.jsonl", R"({"token_ids": [1, 2, 3], "loss_mask": [0, 1, 1],)"
                      R"( "trainer_logprobs": [0, -1, -2], "inference_logprobs": [0, -1, -2]})"
                      "\n"
                      R"({"token_ids": [4, 5], "loss_mask": [0, 0],)"
                      R"( "trainer_logprobs": [0, -1], "inference_logprobs": [0, -1]})"
                      "\n");
  REQUIRE(file.sequences.size() == 2);
  CHECK(file.sequences[0].counted == std::vector<bool>{false, true, true});
  CHECK(file.sequences[1].tokens == Ids{4, 5});
}

TEST_CASE("a list of log-probabilities has no ids") {
  CHECK(has_part(refused("a.json", "[[-1.5, -2]]"), "sequence 0, position 0: -1.5 is not a token"));
  CHECK(has_part(refused("a.json", "[[3, 1.5]]"), "sequence 0, position 1: 1.5 is not a token id"));
  CHECK(has_part(refused("a.json", "[[3, null]]"), "null is not a token id"));
}

TEST_CASE("-1 before an id is no padding") {
  CHECK(has_part(refused("a.npz", npz({{"tokens", integers({1, 3}, {3, -1, 2})}})),
                 "sequence 0, position 1: -1 is not a token id"));
}

TEST_CASE("a mask with a hole is of packed sequences") {
  CHECK(has_part(refused("a.npz", npz({{"tokens", integers({1, 3}, {3, 1, 2})},
                                       {"attention_mask", integers({1, 3}, {1, 0, 1})}})),
                 "attention_mask leaves out a token between others"));
  CHECK(has_part(refused("a.npz", npz({{"tokens", integers({1, 3}, {3, 1, 2})},
                                       {"attention_mask", integers({1, 2}, {1, 1})}})),
                 "attention_mask is [1, 2] and the tokens are [1, 3]"));
}

TEST_CASE("text is refused in one line") {
  CHECK(has_part(refused("a.txt", "The quick brown fox"), "holds text"));
  CHECK(has_part(refused("a.json", R"(["The quick", "brown fox"])"), "holds text"));
  CHECK(has_part(refused("a.jsonl", "{\"text\": \"a\"}\n{\"text\": \"b\"}\n"), "holds text"));
}

TEST_CASE("texts of tokens are no ids") {
  CHECK(has_part(refused("a.json", R"({"choices": [{"logprobs": {"tokens": ["The", " fox"],)"
                                   R"( "token_logprobs": [null, -1.5]}}]})"),
                 "sequence 0 has no token ids, only their texts"));
}

TEST_CASE("a token whose id a server did not say is named") {
  CHECK(has_part(
      refused("a.json", R"([{"prompt_logprobs": [null, {"5": {"logprob": -1.5, "rank": 1}}]}])"),
      "sequence 0, position 0: the token's id is not in the file"));
}

TEST_CASE("an answer without its prompt cannot be scored") {
  CHECK(has_part(
      refused("a.json", R"({"choices": [{"logprobs": {"tokens": ["token_id:3", "token_id:4"],)"
                        R"( "token_logprobs": [-0.5, -1.5]}}]})"),
      "sequence 0 begins with a token that has a score"));
}

TEST_CASE("processed log-probabilities are refused by name") {
  CHECK(has_part(
      refused("a.json", R"({"logprobs_mode": "processed_logprobs", "prompt_token_ids": [3, 5],)"
                        R"( "prompt_logprobs": [null, {"5": {"logprob": -1.5, "rank": 1}}]})"),
      "logprobs_mode is \"processed_logprobs\""));
  CHECK(read("a.json", R"({"logprobs_mode": "raw_logprobs", "prompt_token_ids": [3, 5],)"
                       R"( "prompt_logprobs": [null, {"5": {"logprob": -1.5, "rank": 1}}]})")
            .sequences[0]
            .tokens == Ids{3, 5});
}

TEST_CASE("what is neither is refused with what would do") {
  CHECK(has_part(refused("a.json", R"({"weights": 1})"), "holds neither token ids nor"));
  CHECK(has_part(refused("a.json", "[[1], []]"), "holds neither token ids nor"));
}
