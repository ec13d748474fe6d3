// What a server is expected to compute, as scores. What its kernels make of which buffers is tested
// in tests/engine, and what that comes to in tests/forward/served_test.py.

#include "lib/diff/prediction.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>

#include "tests/diff/written_file.h"

using namespace moelora;

namespace {

std::string data(const std::string& name) { return std::string(MOELORA_TEST_DATA) + "/" + name; }

TokenFile ids() { return {"ids.json", "ids", {{{3, 1, 2, 7, 9, 4}}}}; }
std::string trainer() { return data("logprobs/trainer.safetensors"); }

ScoreFilesOptions on_gpt_oss(const std::string& adapter, const std::string& engine = "") {
  ScoreFilesOptions out;
  out.base = data("gpt_oss/base");
  out.adapter = adapter.empty() ? "" : data("gpt_oss/" + adapter);
  out.engine = engine;
  out.precision = Precision::f64;
  return out;
}

PredictOptions predicting(const std::string& adapter, std::vector<std::string> engines) {
  PredictOptions out;
  static_cast<ScoreFilesOptions&>(out) = on_gpt_oss(adapter);
  out.engines = std::move(engines);
  return out;
}

double apart(const FileScores& a, const FileScores& b) {
  double out = 0;
  const std::vector<double>& x = a.scores.sequences[0].logprobs;
  for (size_t i = 1; i < x.size(); ++i)
    out = std::max(out, std::abs(x[i] - b.scores.sequences[0].logprobs[i]));
  return out;
}

bool has_note(const std::vector<std::string>& notes, const std::string& part) {
  return std::any_of(notes.begin(), notes.end(),
                     [&](const std::string& note) { return note.find(part) != std::string::npos; });
}

}  // namespace

TEST_CASE("a server that serves an adapter whole has the scores of the files") {
  const FileScores files = score_files(ids(), on_gpt_oss("attention_only"));
  CHECK(files.engine.empty());
  for (const std::string engine : {"sglang@0.5.23", "vllm@0.33"}) {
    CAPTURE(engine);
    ScoreFilesOptions options = on_gpt_oss("attention_only", engine);
    options.server_pairs = {"tp-size=2"};
    const FileScores served = score_files(ids(), options);
    CHECK(served.engine == engine);
    CHECK(apart(served, files) < 1e-12);
    CHECK_FALSE(has_note(served.notes, "computes"));
  }
}

TEST_CASE("a kernel's defect is in a server's scores, and a note counts the deltas that have it") {
  const FileScores served = score_files(ids(), on_gpt_oss("per_expert", "sglang@0.5.23"));
  CHECK(apart(served, score_files(ids(), on_gpt_oss("per_expert"))) > 0.1);
  CHECK(has_note(served.notes, "sglang@0.5.23 computes 16 of the adapter's 24 deltas otherwise"));
}

TEST_CASE("what a server computes without is counted") {
  const FileScores served = score_files(ids(), on_gpt_oss("lora_bias", "sglang@0.5.23"));
  CHECK(has_note(served.notes, "computes without 8 tensors beside the deltas"));
}

TEST_CASE("a server that refuses the adapter has no scores") {
  CHECK(error_of([] {
          score_files(ids(), on_gpt_oss("peft_params", "sglang@0.5.23"));
        }).find("refused: ValueError: Cannot find target module name") == 0);
  CHECK(error_of([] {
          score_files(ids(), on_gpt_oss("", "sglang"));
        }).find("is missing: a server computes a base alone") == 0);
  CHECK(error_of([] { score_files(ids(), on_gpt_oss("no such", "sglang")); }) == "does not exist");
}

TEST_CASE("a release later than any known is computed as the last known, and that is said") {
  const FileScores later = score_files(ids(), on_gpt_oss("per_expert", "sglang@9.9"));
  CHECK(apart(later, score_files(ids(), on_gpt_oss("per_expert", "sglang@0.5.23"))) == 0);
  CHECK(has_note(later.notes, "sglang@9.9 is later than its rules are known to"));
}

TEST_CASE("predicted are all servers that were asked for, and reasons take their share away") {
  const Predictions found =
      predict(trainer(), predicting("per_expert", {"vllm@0.33", "sglang@0.5.23"}));
  REQUIRE(found.servers.size() == 2);
  CHECK_FALSE(found.passes());
  CHECK(found.servers[0].not_served.find("refused: ValueError") == 0);
  CHECK_FALSE(found.servers[0].against_files);

  const Prediction& server = found.servers[1];
  REQUIRE(server.against_files);
  REQUIRE(server.shares.size() == 2);
  for (const PredictedShare& share : server.shares) {
    CHECK(share.rules == std::vector<std::string>{"SGL016"});
    CHECK(share.deltas == 8);
    CHECK(share.without.k3 < server.against_files->metrics.k3);
  }
  CHECK(server.shares[0].without.k3 <= server.shares[1].without.k3);
}

TEST_CASE("a gate passes a server that is near enough") {
  PredictOptions options = predicting("per_expert", {"sglang@0.5.23"});
  options.most = {"k2=5e-3"};
  CHECK_FALSE(predict(trainer(), options).passes());
  options.most = {"k2=5"};
  CHECK(predict(trainer(), options).passes());
}

TEST_CASE("there is nothing to predict without an adapter or a server") {
  CHECK(error_of([] { predict(trainer(), predicting("", {"sglang"})); }) ==
        "is missing: there is nothing to predict of");
  CHECK(error_of([] { predict(trainer(), predicting("per_expert", {})); }) ==
        "are missing: which server is to be predicted?");
}
