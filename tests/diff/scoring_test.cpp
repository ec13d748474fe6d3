// From a file of tokens to a file of scores: what is carried over, assumed and refused. What the
// scores are is tested in tests/forward.

#include "lib/diff/scoring.h"

#include <doctest/doctest.h>

#include "lib/diff/comparison.h"
#include "tests/diff/written_file.h"

using namespace moelora;

namespace {

std::string data(const std::string& name) { return std::string(MOELORA_TEST_DATA) + "/" + name; }

ScoreFilesOptions on_gpt_oss(const std::string& adapter = "") {
  ScoreFilesOptions out;
  out.base = data("gpt_oss/base");
  if (!adapter.empty()) out.adapter = data("gpt_oss/" + adapter);
  out.precision = Precision::f64;
  return out;
}

TokenFile ids(std::vector<std::vector<int64_t>> sequences) {
  TokenFile out{"ids.json", "ids", {}};
  for (auto& tokens : sequences) out.sequences.push_back({std::move(tokens)});
  return out;
}

std::string refused(const TokenFile& tokens, const ScoreFilesOptions& options = on_gpt_oss()) {
  return error_of([&] { score_files(tokens, options); });
}

}  // namespace

TEST_CASE("the trainer's scores come out of the files that it trained") {
  const std::string trainer = data("logprobs/trainer.safetensors");
  const FileScores scored = score_files(trainer, on_gpt_oss("peft_params"));
  CHECK(scored.tokens() == 48);
  CHECK(scored.scored() == 46);
  const Comparison found = compare_logprobs(read_scores(trainer).first, scored.scores, {});
  CHECK(found.metrics.n == 46);
  CHECK(found.metrics.max_abs < 2e-5);
}

TEST_CASE("mask, prompt's length and temperature are carried over") {
  TokenFile tokens = ids({{3, 1, 2, 7}, {4, 5}});
  tokens.sequences[0].counted = {true, true, false, true};
  tokens.sequences[0].prompt = 2;
  tokens.temperature = 0.5;
  const FileScores scored = score_files(tokens, on_gpt_oss());
  CHECK(scored.temperature == 0.5);
  CHECK(scored.scored() == 3);
  CHECK(scored.scores.sequences[0].counted == tokens.sequences[0].counted);
  CHECK(scored.scores.sequences[0].prompt == 2);
  CHECK(scored.scores.sequences[1].size() == 2);

  tokens.temperature.reset();
  ScoreFilesOptions options = on_gpt_oss();
  options.temperature = 0.5;
  CHECK(score_files(tokens, options).scores.sequences[0].logprobs ==
        scored.scores.sequences[0].logprobs);
  CHECK(score_files(tokens, on_gpt_oss()).scores.sequences[0].logprobs !=
        scored.scores.sequences[0].logprobs);
}

TEST_CASE("what a file does not say is said") {
  const FileScores scored = score_files(ids({{3, 1}}), on_gpt_oss());
  REQUIRE(!scored.notes.empty());
  CHECK(scored.notes[0] ==
        "ids.json does not say: mask (every token counts), prompts' lengths, "
        "temperature (1 is assumed)");
}

TEST_CASE("the best tokens are beside the scores, best first") {
  ScoreFilesOptions options = on_gpt_oss();
  options.top = 3;
  const FileScores scored = score_files(ids({{3, 1, 2}}), options);
  const Sequence& sequence = scored.scores.sequences[0];
  REQUIRE(sequence.top.size() == 3);
  CHECK(sequence.top[0].empty());
  for (size_t i = 1; i < 3; ++i) {
    REQUIRE(sequence.top[i].size() == 3);
    CHECK(sequence.top[i][0].logprob >= sequence.top[i][1].logprob);
    CHECK(sequence.top[i][0].logprob >= sequence.logprobs[i]);
  }
}

TEST_CASE("what cannot be scored is refused by name") {
  ScoreFilesOptions nothing = on_gpt_oss();
  nothing.base.clear();
  CHECK(has_part(refused(ids({{3, 1}}), nothing), "is missing: nothing says which model"));
  CHECK(has_part(refused(ids({{3}, {1}})), "has no sequence of two tokens"));
  CHECK(has_part(refused(ids({{3, 1}, {}})), "sequence 1 has no tokens"));
  CHECK(
      has_part(refused(ids({{3, 1 << 30}})), "token 1073741824 is not in the model's vocabulary"));
  TokenFile masked = ids({{3, 1}});
  masked.sequences[0].counted = {true, false};
  CHECK(has_part(refused(masked), "leaves out every token that has a score"));
  ScoreFilesOptions cold = on_gpt_oss();
  cold.temperature = 0;
  CHECK(has_part(refused(ids({{3, 1}}), cold), "is 0, expected more than 0"));
  ScoreFilesOptions config_alone = on_gpt_oss();
  config_alone.base = data("qwen3_moe/base");
  CHECK(has_part(refused(ids({{3, 1}}), config_alone), "holds no weights"));
  ScoreFilesOptions other = on_gpt_oss();
  other.adapter = data("qwen3_moe/peft_params");
  CHECK(refused(ids({{3, 1}}), other) != "no error");
}

TEST_CASE("a server is compared with the files that it was given") {
  CompareLogprobsOptions options;
  options.most = {"k2=5e-3"};
  const std::string server = data("logprobs/server.sglang.json");
  const Comparison right = compare_with_files(server, on_gpt_oss("peft_params"), options);
  CHECK(right.metrics.n == 46);
  CHECK(right.metrics.k2 == doctest::Approx(1.85e-4).epsilon(0.01));
  CHECK(right.verdict == Verdict::same);
  CHECK(compare_with_files(server, on_gpt_oss(), options).verdict == Verdict::different);
  CHECK(has_part(error_of([&] {
                   compare_with_files(data("logprobs/pair.prime_rl.jsonl"), on_gpt_oss(), options);
                 }),
                 "holds the scores of two systems"));
}
