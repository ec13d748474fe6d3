// Metrics against values computed independently with torch when the goldens were made
// (make_goldens.py: trainer = fp64, server = bf16, base = without the adapter).

#include <doctest/doctest.h>
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <fstream>
#include <functional>

#include "lib/base/error.h"
#include "lib/diff/comparison.h"
#include "lib/diff/logprob_format.h"
#include "tests/io/temp_folder.h"

using namespace moelora;

namespace {

std::string golden(const std::string& name) {
  return std::string(MOELORA_TEST_DATA) + "/logprobs/" + name;
}

void check_server_against_trainer(const Metrics& m) {
  CHECK(m.n == 46);
  CHECK(m.mean_abs == doctest::Approx(0.014666469).epsilon(1e-6));
  CHECK(m.max_abs == doctest::Approx(0.048632145).epsilon(1e-6));
  CHECK(m.k2 == doctest::Approx(1.85291264e-4).epsilon(1e-6));
  CHECK(m.k3 == doctest::Approx(1.84851638e-4).epsilon(1e-6));
}

// A file in a folder of its own, written by the test.
struct Written {
  TempFolder folder;
  std::string path;
  Written(const std::string& name, const std::string& text) : path(folder.path() + "/" + name) {
    std::ofstream(path, std::ios::binary) << text;
  }
};

std::string error_of(const std::function<void()>& step) {
  try {
    step();
  } catch (const Error& error) {
    return error.what();
  }
  return "no error";
}

bool has(const std::string& text, std::string_view part) {
  return text.find(part) != std::string::npos;
}

Scores scores(std::vector<double> values, std::vector<int64_t> tokens = {}) {
  Scores out;
  out.path = "made";
  Sequence& sequence = out.sequences.emplace_back();
  sequence.add(std::nullopt);
  for (const double value : values) sequence.add(value);
  sequence.tokens = std::move(tokens);
  return out;
}

}  // namespace

TEST_CASE("every format of the same scores gives the same metrics") {
  for (const char* name : {"server.safetensors", "server.sglang.json", "server.openai.json",
                           "server.vllm.json", "server.npz"}) {
    CAPTURE(name);
    check_server_against_trainer(
        compare_logprobs(golden("trainer.safetensors"), golden(name), {}).metrics);
  }
  for (const char* name : {"compare_sample_train_data.pt", "pair.prime_rl.jsonl"}) {
    CAPTURE(name);
    check_server_against_trainer(compare_logprobs(golden(name), "", {}).metrics);
  }
}

TEST_CASE("a sequence of a trainer's dump alone has its own metrics") {
  const Comparison one = compare_logprobs(golden("compare_sample_train_data_0.pt"), "", {});
  CHECK(one.metrics.n == 23);
  CHECK(one.a.side == "training_logprobs");
  CHECK(one.b.side == "sampling_logprobs");
}

TEST_CASE("every format survives the JSON report with its scores") {
  for (const char* name : {"server.safetensors", "server.sglang.json", "server.openai.json",
                           "server.vllm.json", "server.npz"}) {
    CAPTURE(name);
    const Comparison first = compare_logprobs(golden("trainer.safetensors"), golden(name), {});
    const Written report("report.json", comparison_report(first, "json", true));
    const Comparison again = compare_logprobs(report.path, "", {});
    CHECK(again.metrics.named() == first.metrics.named());
    CHECK(again.alignment.pairs.size() == first.alignment.pairs.size());
  }
}

TEST_CASE("the adapter's effect is measured against the base model, where noise cancels") {
  CompareLogprobsOptions options;
  options.base_a = options.base_b = golden("base.safetensors");
  const Comparison c =
      compare_logprobs(golden("trainer.safetensors"), golden("server.safetensors"), options);
  REQUIRE(c.delta);
  CHECK(c.delta->effect_a == doctest::Approx(1.10170).epsilon(1e-5));
  CHECK(c.verdict == Verdict::same);
  CHECK(c.statements.at(0).id == "applied");

  const Comparison unadapted =
      compare_logprobs(golden("trainer.safetensors"), golden("base.safetensors"), options);
  CHECK(unadapted.verdict == Verdict::different);  // what serves the base is not the adapter
}

TEST_CASE("thresholds, presets, floors and candidates decide; without any there is no verdict") {
  const std::string a = golden("trainer.safetensors"), b = golden("server.safetensors");
  CHECK(compare_logprobs(a, b, {}).verdict == Verdict::not_judged);
  const auto verdict = [&](const CompareLogprobsOptions& options) {
    return compare_logprobs(a, b, options).verdict;
  };
  CHECK(verdict({.thresholds = {{"k2", 1.9e-4, "--max"}}}) == Verdict::same);
  CHECK(verdict({.thresholds = {{"k2", 1.8e-4, "--max"}}}) == Verdict::different);
  CHECK(verdict({.thresholds = {{"k2", 1.9e-4, "--max"}, {"max_abs", 0.04, "--max"}}}) ==
        Verdict::different);
  CHECK(verdict({.floor = b}) == Verdict::same);  // 0.0147 <= 0.05
  CHECK(verdict({.candidates = {golden("base.safetensors")}}) == Verdict::same);
  const Comparison routed = compare_logprobs(golden("base.safetensors"), b, {.candidates = {a}});
  CHECK(routed.verdict == Verdict::different);
  CHECK(has(routed.statements.at(0).text, "nearer to"));
}

TEST_CASE("what cannot be compared is an error that names the place") {
  SUBCASE("other tokens") {
    CHECK(has(error_of([] {
                align(scores({-1, -2}, {5, 6, 7}), scores({-1, -2}, {5, 9, 7}));
              }),
              "sequence 0, position 1: token 6 against 9"));
  }
  SUBCASE("another number of sequences") {
    Scores two = scores({-1, -2});
    two.sequences.push_back(two.sequences[0]);
    CHECK(has(error_of([&] { align(scores({-1, -2}), two); }), "1 sequences against 2"));
  }
  SUBCASE("another length") {
    CHECK(has(error_of([] {
                align(scores({-1, -2}), scores({-1, -2, -3, -4}));
              }),
              "3 positions against 5"));
  }
  SUBCASE("nothing scored by both") {
    Scores none = scores({});
    none.sequences[0].add(std::nullopt);
    CHECK(has(error_of([&] { align(scores({-1}), none); }), "nothing to compare"));
  }
  SUBCASE("one side alone") {
    CHECK(has(error_of([] { compare_logprobs(golden("server.safetensors"), "", {}); }),
              "nothing to compare them with"));
  }
  SUBCASE("a control: the same is comparable") {
    CHECK(error_of([] {
            align(scores({-1, -2}, {5, 6, 7}), scores({-1, -2}, {5, 6, 7}));
          }) == "no error");
  }
}

TEST_CASE("NaN is never compared, never forgotten and never the same") {
  Scores bad = scores({-1, -2, -3});
  bad.sequences[0].logprobs[2] = std::nan("");
  const Alignment aligned = align(scores({-1, -2, -3}), bad);
  CHECK(aligned.pairs.size() == 2);
  CHECK(aligned.not_finite == 1);

  const Written a("a.csv", "token_id,logprob\n1,-1\n2,-2\n"),
      b("b.csv", "token_id,logprob\n1,-1\n2,nan\n");
  const Comparison c = compare_logprobs(a.path, b.path, {.thresholds = {{"max_abs", 1, "--max"}}});
  CHECK(c.verdict == Verdict::different);
}

TEST_CASE("what Python writes for infinity is read, in every JSON format, and is not finite") {
  const Written ours("a.json", "[-1.0, -2.0, -0.5]"), theirs("b.json", "[-1.0, -Infinity, NaN]");
  const Comparison c = compare_logprobs(ours.path, theirs.path, {});
  CHECK(c.alignment.not_finite == 2);
  CHECK(c.metrics.n == 1);
  CHECK(c.verdict == Verdict::different);
  const Written top("c.json", R"({"text": "-Infinity \"NaN\" it says", "meta_info": {
      "input_token_logprobs": [[null, 3, "NaN"], [-Infinity, 4, "b"], [-1, 5, "c"]],
      "input_top_logprobs": [null, [[-0.5, 4, "b"], [-Infinity, 9, "c"]], [[-1, 5, "c"]]]}})");
  const Sequence s = read_scores(top.path).first.sequences.at(0);
  CHECK(std::isinf(s.logprobs.at(1)));
  CHECK(s.texts.at(0) == "NaN");
  const auto metrics = compare_logprobs(top.path, top.path, {}).top;
  REQUIRE(metrics);
  CHECK(std::isfinite(metrics->kl_ab));
  const Written wrong("d.json", "[-Infinit, 1]");
  CHECK(error_of([&] { read_scores(wrong.path); }) != "no error");
}

TEST_CASE("a shift by one and another temperature are suspected") {
  const Scores trainer = read_scores(golden("trainer.safetensors")).first;
  Scores late = trainer, hot = trainer;
  for (Sequence& s : late.sequences)
    std::rotate(s.logprobs.begin() + 1, s.logprobs.begin() + 2, s.logprobs.end());
  for (Sequence& s : hot.sequences)
    for (double& value : s.logprobs) value *= 0.8;
  CHECK(suspicions(trainer, trainer, align(trainer, trainer)).empty());
  const auto shifted = suspicions(trainer, late, align(trainer, late));
  REQUIRE(shifted.size() == 1);
  CHECK(has(shifted[0], "one position earlier"));
  const auto stretched = suspicions(trainer, hot, align(trainer, hot));
  REQUIRE(stretched.size() == 1);
  CHECK(has(stretched[0], "temperature"));
  const Scores server = read_scores(golden("server.safetensors")).first;
  CHECK(suspicions(trainer, server, align(trainer, server)).empty());
}

TEST_CASE("metrics are their formulas") {
  // d = 0.5, -0.25, 0, 1 over two sequences.
  std::vector<ScorePair> pairs = {{0, 1, 1, -2, -1.5, false},
                                  {0, 2, 2, -1, -1.25, false},
                                  {1, 1, 3, -3, -3, false},
                                  {1, 2, 4, -4, -3, false}};
  const Metrics m = measure(pairs);
  CHECK(m.mean_abs == doctest::Approx(1.75 / 4));
  CHECK(m.median_abs == 0.25);
  CHECK(m.p90_abs == 1);
  CHECK(m.k1 == doctest::Approx(-1.25 / 4));
  CHECK(m.k2 == doctest::Approx((0.125 + 0.03125 + 0.5) / 4));
  const std::vector<double> d{0.5, -0.25, 0, 1};
  double k3 = 0, ratio = 0, squares = 0;
  for (const double x : d) {
    k3 += std::exp(x) - x - 1;
    ratio += std::exp(x);
    squares += std::exp(2 * x);
  }
  CHECK(m.k3 == doctest::Approx(k3 / 4));
  CHECK(m.ratio_mean == doctest::Approx(ratio / 4));
  CHECK(m.ratio_max == doctest::Approx(std::exp(1)));
  CHECK(m.ratio_min == doctest::Approx(std::exp(-0.25)));
  CHECK(m.ess == doctest::Approx(ratio * ratio / (4 * squares)));
  CHECK(m.chi2_token == doctest::Approx(squares / 4 - 1));
  CHECK(m.chi2_sequence == doctest::Approx((std::exp(0.25) + std::exp(1)) / 2 - 1));
  CHECK(m.clip_high == 0.25);
  CHECK(m.clip_low == 0);
  CHECK(m.ppl_a == doctest::Approx(std::exp(2.5)));
  CHECK(m.log_ppl_diff == doctest::Approx(-2.5 + 8.75 / 4));
  CHECK(m.prob_max_abs == doctest::Approx(std::exp(-1.5) - std::exp(-2)));
  CHECK(worst_pairs(pairs, 2)[0].token == 4);
}

TEST_CASE("top tokens agree, overlap and diverge as their lists say") {
  Scores a = scores({-1, -2}), b = a;
  a.sequences[0].top = {{}, {{7, -0.1}, {8, -3}}, {{7, -1}, {9, -1}}};
  b.sequences[0].top = {{}, {{7, -0.1}, {8, -3}}, {{9, -1}, {5, -1}}};
  const auto top = measure_top(a, b, align(a, b));
  REQUIRE(top);
  CHECK(top->n == 2);
  CHECK(top->agreement == 0.5);
  CHECK(top->overlap == 0.75);
  CHECK(top->kl_ab == doctest::Approx(0));
  CHECK(!measure_top(scores({-1}), scores({-1}), align(scores({-1}), scores({-1}))));
}

TEST_CASE("formats without goldens are read as their makers write them") {
  SUBCASE("SGLang with output and top tokens, one document") {
    const Written file("a.json", R"({"text": "x", "meta_info": {
      "input_token_logprobs": [[null, 3, "a"], [-0.5, 4, "b"]],
      "input_top_logprobs": [null, [[-0.5, 4, "b"], [-2.0, 9, "c"]]],
      "output_token_logprobs": [[-1.5, 5, "d"]], "output_top_logprobs": [[[-1.5, 5, "d"]]]}})");
    const Scores read = read_scores(file.path).first;
    REQUIRE(read.sequences.size() == 1);
    const Sequence& s = read.sequences[0];
    CHECK(s.tokens == std::vector<int64_t>{3, 4, 5});
    CHECK(s.scored == std::vector<bool>{false, true, true});
    CHECK(s.logprobs[2] == -1.5);
    CHECK(s.prompt == 2);
    CHECK(s.texts[1] == "b");
    REQUIRE(s.top.size() == 3);
    CHECK(s.top[1][1].token == 9);
  }
  SUBCASE("OpenAI chat with token ids") {
    const Written file("a.json", R"({"choices": [{"index": 0, "logprobs": {"content": [
      {"token": "token_id:7", "logprob": -0.25, "top_logprobs": [{"token": "token_id:7", "logprob": -0.25},
       {"token": "token_id:8", "logprob": -2}]}, {"token": "token_id:9", "logprob": -1}]}}]})");
    const Sequence s = read_scores(file.path).first.sequences.at(0);
    CHECK(s.tokens == std::vector<int64_t>{7, 9});
    CHECK(s.logprobs[0] == -0.25);
    CHECK(s.top[0][1].token == 8);
    CHECK(s.prompt == 0);
  }
  SUBCASE("OpenAI completion with texts: other texts are another text") {
    const std::string text =
        R"({"choices": [{"logprobs": {"tokens": ["a", "b"], "token_logprobs": [null, -1]}}]})";
    const Written one("a.json", text);
    std::string changed = text;
    changed.replace(changed.find("\"b\""), 3, "\"c\"");
    const Written two("b.json", changed);
    CHECK(compare_logprobs(one.path, one.path, {}).metrics.max_abs == 0);
    CHECK(has(error_of([&] { compare_logprobs(one.path, two.path, {}); }),
              "token \"b\" against \"c\""));
  }
  SUBCASE("vLLM's OpenAI server: prompt_logprobs in a choice, without ids") {
    const Written file("a.json", R"({"choices": [{"prompt_logprobs": [null,
      {"11": {"logprob": -3, "rank": 90}, "4": {"logprob": -0.5, "rank": 1}}]}]})");
    const Sequence s = read_scores(file.path).first.sequences.at(0);
    CHECK(s.tokens == std::vector<int64_t>{-1, 11});
    CHECK(s.logprobs[1] == -3);
    REQUIRE(s.top[1].size() == 1);
    CHECK(s.top[1][0].token == 4);
  }
  SUBCASE("miles, in the order of positions") {
    const Written file("rank_0.json", R"({"logprob_entries": [[
      {"global_position": 2, "token_id": 8, "logprob": -2, "is_valid": true},
      {"global_position": 1, "token_id": 7, "logprob": -1, "is_valid": true},
      {"global_position": 3, "token_id": 9, "logprob": -9, "is_valid": false}]]})");
    const Sequence s = read_scores(file.path).first.sequences.at(0);
    CHECK(s.tokens == std::vector<int64_t>{7, 8, 9});
    CHECK(s.logprobs[0] == -1);
    CHECK(s.scored == std::vector<bool>{true, true, false});
  }
  SUBCASE("NeMo-RL's step: padded, each value in a list of its own, the prompt is no token of it") {
    const Written file(
        "train_data_step3.jsonl",
        R"({"content": ["x"], "rewards": [1.0], "input_lengths": [4], "token_ids": [[5, 6, 7, 8, 0]],
 "token_loss_mask": [[0, 0, 1, 1, 0]], "sample_loss_mask": [1.0],
 "generation_logprobs": [[0.0, 0.0, -1.0, -2.0, 0.0]], "prev_logprobs": [[0.0, -3.0, -1.5, -2.0, 0.0]], "idx": 0})");
    const Comparison c = compare_logprobs(file.path, "", {});
    CHECK(c.a.side == "prev_logprobs");
    CHECK(c.metrics.n == 2);
    CHECK(c.metrics.max_abs == 0.5);
    CHECK(c.alignment.masked == 2);
    CHECK(c.a.sequences.at(0).tokens == std::vector<int64_t>{5, 6, 7, 8});
  }
  SUBCASE("NeMo-RL's older step, without tokens and masks") {
    const Written file("a.jsonl",
                       "{\"generation_logprobs\": [[0.0, -1.0, 0.0]], \"prev_logprobs\": [[-9.0, "
                       "-1.25, 0.0]], \"input_lengths\": [2], \"idx\": 0}\n"
                       "{\"generation_logprobs\": [[0.0, -1.0, -2.0]], \"prev_logprobs\": [[-9.0, "
                       "-1.0, -2.0]], \"input_lengths\": [3], \"idx\": 1}\n");
    const Comparison c = compare_logprobs(file.path, "", {});
    CHECK(c.metrics.n == 3);
    CHECK(c.metrics.max_abs == 0.25);
    CHECK(c.by_sequence.size() == 2);
  }
  SUBCASE("verl's batch as JSON lines; its rollout dump holds no scores") {
    const Written file("a.jsonl",
                       R"({"responses": [7, 8], "response_mask": [1, 0],
                           "old_log_probs": [-1, -9], "rollout_log_probs": [-1.5, -2]})");
    const Comparison c = compare_logprobs(file.path, "", {});
    CHECK(c.a.side == "old_log_probs");
    CHECK(c.metrics.n == 1);
    CHECK(c.metrics.max_abs == 0.5);
    const Written dump("1.jsonl",
                       R"({"input": "a", "output": "b", "gts": null, "score": 1.0, "step": 1})");
    CHECK(has(error_of([&] { read_scores(dump.path); }), "verl's rollout dump"));
  }
  SUBCASE("flat lists") {
    const Written flat("a.json", "[null, -1, -2.5]"), nested("b.json", "[[null, -1], [-2, -3]]");
    CHECK(read_scores(flat.path).first.sequences.at(0).logprobs[2] == -2.5);
    CHECK(read_scores(nested.path).first.sequences.size() == 2);
  }
  SUBCASE("CSV of both sides, in sequences, with quotes") {
    const Written file("a.csv",
                       "sequence,token,logprob_a,logprob_b\n0,\"a,b\",,\n0,c,-1,-1.5\n1,d,-2,-2\n");
    const Comparison c = compare_logprobs(file.path, "", {});
    CHECK(c.metrics.n == 2);
    CHECK(c.metrics.max_abs == 0.5);
    CHECK(c.a.sequences.at(0).texts.at(0) == "a,b");
  }
}

TEST_CASE("ids of a CSV are compared behind a byte order mark too, and are ids") {
  const Written a("a.csv", "\xEF\xBB\xBFtoken_id,logprob\n1,-1\n2,-1.5\n"),
      b("b.csv", "token_id,logprob\n1,-1\n2,-1.5\n");
  CHECK(read_scores(a.path).first.sequences.at(0).tokens == std::vector<int64_t>{1, 2});
  CHECK(compare_logprobs(a.path, b.path, {}).metrics.n == 2);
  for (const std::string id : {"1.5", "x1", "-3", ""}) {
    CAPTURE(id);
    const Written odd("odd.csv", "token_id,logprob\n7,-1\n" + id + ",-1.5\n");
    CHECK(has(error_of([&] { read_scores(odd.path); }), ":3: \"" + id + "\" is not a token id"));
  }
  const Written words("words.csv", "token,logprob\n7,-1\nx,-1.5\n");
  CHECK(read_scores(words.path).first.sequences.at(0).texts.size() == 2);
}

TEST_CASE("a file that is wrong is reported, with the place in it") {
  const std::vector<std::pair<std::string, std::string>> cases = {
      {R"({"meta_info": {"input_token_logprobs": [[null, "x"]]}})",
       "is not [log-probability, token id, text]"},
      {R"({"meta_info": {"input_token_logprobs": [["-1", 3]]}})",
       "a string where a log-probability"},
      {R"({"meta_info": {"input_token_logprobs": []}})", "holds no log-probability"},
      {R"({"meta_info": 3})", "\"meta_info\" is an integer"},
      {R"({"choices": [{"logprobs": {"tokens": ["a"], "token_logprobs": []}}]})",
       "of different lengths"},
      {R"([{"prompt_token_ids": [1], "prompt_logprobs": [null, null]}])", "differ in length"},
      {R"([{"prompt_logprobs": [{"x": {"logprob": 1}}]}])", "is not TOKEN ID"},
      {R"({"a": 1})", "in no format of log-probabilities"},
      {R"([1, "x"])", "in no format of log-probabilities"},
      {R"([1, 2)", "expected"},
      {"", "is empty"},
      {"a,b\n1,2\n", "in no format of log-probabilities"},
      {"token_id,logprob\n1,x\n", "\"x\" is not a log-probability"},
      {"token_id,logprob\n1\n", "has 1 fields, the heading 2"},
  };
  for (const auto& one : cases) {
    const std::string &text = one.first, &words = one.second;
    CAPTURE(text);
    const Written file("a.json", text);
    const std::string error = error_of([&] { read_scores(file.path); });
    CAPTURE(error);
    CHECK(has(error, words));
    CHECK(has(error, "a.json"));
  }
}

TEST_CASE("the page is one document that loads nothing and escapes what it is given") {
  const Written a("a.csv", "token,logprob\n<b>&,-1\nx,-2\n");
  const Comparison c = compare_logprobs(a.path, a.path, {});
  const std::string page = comparison_report(c, "html");
  CHECK(has(page, "<!DOCTYPE html>"));
  CHECK(has(page, "&lt;b&gt;&amp;"));
  CHECK(!has(page, "<b>&"));
  for (const char* loads : {"<script", "http://", "https://", "<link", "<img", "@import", "url("})
    CHECK(!has(page, loads));
  size_t charts = 0;
  for (size_t at = page.find("<svg"); at != std::string::npos; at = page.find("<svg", at + 1))
    ++charts;
  CHECK(charts == 4);
}
