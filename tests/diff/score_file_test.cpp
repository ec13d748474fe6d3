// Scores as files: each kind is read again by read_scores() with what it has a place for.

#include "lib/diff/score_file.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>

#include "lib/diff/comparison.h"
#include "lib/diff/token_file.h"
#include "tests/diff/written_file.h"

using namespace moelora;

namespace {

Sequence sequence(std::vector<int64_t> tokens, const std::vector<double>& values) {
  Sequence out;
  out.tokens = std::move(tokens);
  out.add(std::nullopt);
  for (const double value : values) out.add(value);
  return out;
}

// Two sequences of unequal length; the second of three tokens.
Scores plain() {
  Scores out;
  out.path = "made";
  out.sequences.push_back(sequence({7, 3, 1, 2}, {-0.1, -2.5, -1.0 / 3}));
  out.sequences.push_back(sequence({4, 5, 0}, {-3, -0.0078125}));
  return out;
}

Scores with_all() {
  Scores out = plain();
  out.sequences[0].counted = {false, false, true, true};
  out.sequences[0].prompt = 2;
  out.sequences[1].prompt = 1;
  out.sequences[0].top = {{}, {{3, -0.1}, {9, -4}}, {{1, -0.5}, {2, -1}}, {{8, -0.25}}};
  out.sequences[1].top = {{}, {{5, -3}, {6, -3.5}}, {{0, -0.0078125}}};
  return out;
}

Scores again(const ScoreWriter& writer, const Scores& scores, bool wide = true,
             double temperature = 1) {
  const WrittenFile file("scores" + std::string(writer.ending),
                         writer.write(scores, {wide, temperature}));
  return read_scores(file.path).first;
}

void check_same(const Scores& a, const Scores& b) {
  REQUIRE(a.sequences.size() == b.sequences.size());
  for (size_t s = 0; s < a.sequences.size(); ++s) {
    const Sequence &x = a.sequences[s], &y = b.sequences[s];
    CHECK(x.tokens == y.tokens);
    CHECK(x.scored == y.scored);
    CHECK(x.logprobs == y.logprobs);
  }
}

bool same_top(const Sequence& a, const Sequence& b) {
  const auto same = [](const TopToken& x, const TopToken& y) {
    return x.token == y.token && x.logprob == y.logprob;
  };
  return std::equal(a.top.begin(), a.top.end(), b.top.begin(), b.top.end(),
                    [&](const auto& x, const auto& y) {
                      return std::equal(x.begin(), x.end(), y.begin(), y.end(), same);
                    });
}

}  // namespace

TEST_CASE("every kind of file reads as the same doubles, whatever the lengths") {
  for (const ScoreWriter& writer : all_score_writers()) {
    CAPTURE(writer.ending);
    check_same(again(writer, plain()), plain());
    CHECK(compare_logprobs(plain(), again(writer, plain()), {}).metrics.max_abs == 0);
  }
}

TEST_CASE("narrow files hold the nearest floats") {
  for (const ScoreWriter& writer : all_score_writers()) {
    CAPTURE(writer.ending);
    const Scores read = again(writer, plain(), false), exact = plain();
    for (size_t s = 0; s < exact.sequences.size(); ++s)
      for (size_t i = 1; i < exact.sequences[s].size(); ++i)
        CHECK(static_cast<float>(read.sequences[s].logprobs[i]) ==
              static_cast<float>(exact.sequences[s].logprobs[i]));
  }
}

TEST_CASE("mask, prompt lengths and the best tokens come back where there is a place for them") {
  for (const ScoreWriter& writer : all_score_writers()) {
    CAPTURE(writer.ending);
    const Scores read = again(writer, with_all());
    REQUIRE(read.sequences.size() == 2);
    if (writer.has_mask) {
      CHECK(read.sequences[0].counted == with_all().sequences[0].counted);
    } else {
      CHECK(read.sequences[0].scored == std::vector<bool>{false, false, true, true});
    }
    if (writer.has_prompt) {
      CHECK(read.sequences[0].prompt == 2);
      CHECK(read.sequences[1].prompt == 1);
    }
    if (writer.has_top)
      for (size_t s = 0; s < 2; ++s) CHECK(same_top(read.sequences[s], with_all().sequences[s]));
  }
}

TEST_CASE("what a kind of file has no place for is told") {
  CHECK(not_held(score_writer("a.safetensors"), with_all()).empty());
  CHECK(not_held(score_writer("a.csv"), with_all()).size() == 3);
  CHECK(not_held(score_writer("a.json"), with_all()) == std::vector<std::string_view>{"the mask"});
  CHECK(not_held(score_writer("a.csv"), plain()).empty());
}

TEST_CASE("same scores, same bytes") {
  for (const ScoreWriter& writer : all_score_writers())
    CHECK(writer.write(with_all(), {}) == writer.write(with_all(), {}));
}

TEST_CASE("the temperature is kept in arrays, and read back with the tokens") {
  for (const char* name : {"a.safetensors", "a.npz"}) {
    CAPTURE(name);
    const WrittenFile file(name, score_writer(name).write(plain(), {true, 0.75}));
    CHECK(read_tokens(file.path).temperature == 0.75);
    CHECK(read_scores(file.path).first.sequences.size() == 2);
  }
}

TEST_CASE("what is written can be scored again") {
  for (const ScoreWriter& writer : all_score_writers()) {
    CAPTURE(writer.ending);
    const WrittenFile file("a" + std::string(writer.ending), writer.write(with_all(), {}));
    const TokenFile tokens = read_tokens(file.path);
    REQUIRE(tokens.sequences.size() == 2);
    for (size_t s = 0; s < 2; ++s) CHECK(tokens.sequences[s].tokens == plain().sequences[s].tokens);
  }
}

TEST_CASE("a value that is not finite stays what it is") {
  Scores scores = plain();
  scores.sequences[0].logprobs[1] = -INFINITY;
  scores.sequences[0].logprobs[2] = NAN;
  for (const ScoreWriter& writer : all_score_writers()) {
    CAPTURE(writer.ending);
    const Scores read = again(writer, scores);
    CHECK(read.sequences[0].logprobs[1] == -INFINITY);
    CHECK(std::isnan(read.sequences[0].logprobs[2]));
  }
}

TEST_CASE("another ending is refused with those that are known") {
  CHECK(error_of([] { score_writer("scores.parquet"); }) ==
        "its ending is of no kind of file that scores are written as");
}
