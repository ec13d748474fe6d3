// The HTML reports of lora-diff and of lora-convert inspect.

#include <doctest/doctest.h>

#include <cmath>
#include <string>

#include "lib/base/error.h"
#include "lib/diff/inspection_page.h"
#include "lib/diff/prediction.h"
#include "lib/diff/weight_comparison.h"

using namespace moelora;

namespace {

const std::string kData = MOELORA_TEST_DATA;

bool has(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

WeightComparison compared(const std::string& a, const std::string& b) {
  CompareWeightsOptions options;
  options.base = kData + "/gpt_oss/base";
  options.spectrum = true;
  return compare_weights(kData + "/gpt_oss/" + a, kData + "/gpt_oss/" + b, options);
}

// So many layers of so many experts, all different; one pair is 1e9 times as far apart.
WeightComparison large(int layers, int experts) {
  WeightComparison out;
  out.a.path = out.b.path = "<i>&\"";
  for (int layer = 0; layer < layers; ++layer)
    for (int expert = 0; expert < experts; ++expert)
      for (const char* projection : {"down_proj", "gate_proj", "up_proj"}) {
        Distance& d = out.diff.pairs.emplace_back();
        d.key = {projection, layer, expert};
        d.norm_a = 1 + 0.001 * expert;
        d.norm_b = 1 + 0.002 * expert;
        d.apart = 0.01 * (1 + std::fabs(std::sin(layer * 31 + expert)));
        d.effective_rank_a = d.effective_rank_b = 3;
      }
  out.diff.pairs[7].apart = 1e7;
  return out;
}

}  // namespace

TEST_CASE("two adapters: verdict, heat maps, spectrum of the worst pair, tables") {
  const std::string page = weight_html(compared("peft_params", "peft_params_grouped_b_unmarked"),
                                       {"a command", "a day"});
  for (const char* part :
       {"different: 24 of 32 pairs", "same up to: a stacked lora_B", "Distance by module and layer",
        "Distance by layer and routed expert", "Spectrum of the worst pair", "Effective rank",
        "Worst pairs", "layer 1 expert 1 gate_proj", "and 4 more beyond the tolerance", "a command",
        "a day", "What the numbers mean", "note: A: the order of the columns"})
    CHECK_MESSAGE(has(page, part), part);
  CHECK(!has(page, "<script"));
  // A and B have four singular values, A - B three.
  const std::string spectrum = page.substr(page.find("aria-label=\"Spectrum"));
  CHECK(has(spectrum.substr(0, spectrum.find("</svg>")), ">4</text>"));
}

TEST_CASE("what one adapter alone has, and adapters that are the same, have their page too") {
  const std::string fewer = weight_html(compared("peft_params", "attention_only"));
  CHECK(has(fewer, "In A only"));
  CHECK(has(fewer, "layer 0 expert 0 down_proj"));
  CHECK(!has(fewer, "routed expert</b>"));
  const std::string same = weight_html(compared("attention_only", "attention_only"));
  CHECK(has(same, "same: all 8 pairs are identical"));
  CHECK(!has(same, "Spectrum"));
  CHECK(!has(same, "Worst pairs"));
}

TEST_CASE("the spectrum is taken where it is asked for, of the worst pair") {
  const WeightComparison c = compared("peft_params", "peft_params_rslora");
  REQUIRE(c.spectrum);
  CHECK(c.spectrum->key == c.worst()->key);
  CHECK(
      !compare_weights(kData + "/gpt_oss/lone_q", kData + "/gpt_oss/attention_only", {}).spectrum);
}

TEST_CASE("a page of 36,864 tensors is small, and an outlier takes no shade from the others") {
  const std::string page = weight_html(large(48, 128));
  CHECK(page.size() < 300000);
  CHECK(has(page, "Shades clipped: 1 cells above"));
  CHECK(has(page, "up to 9.98e+06"));
  CHECK(!has(page, "<i>"));
  CHECK(weight_html(large(94, 512)).size() < 300000);  // and of 289,000
}

TEST_CASE("the pictures fit a terminal") {
  const std::string blocks =
      weight_blocks(compared("peft_params", "peft_params_grouped_b_unmarked"), 80);
  CHECK(has(blocks, "Distance by module and layer, by layer (0 to 1):"));
  CHECK(has(blocks, "\x1b[48;5;151m"));
  CHECK(has(blocks, "0 or below rounding"));
}

TEST_CASE("an adapter: layout, norms, dead experts, use of the rank") {
  LoadOptions options;
  options.base = kData + "/gpt_oss/base";
  const std::string path = kData + "/gpt_oss/peft_params";
  const Inspection found = inspect(path, options);
  InspectedValues values = inspect_values(path, options);
  REQUIRE(values.sizes.size() == 32);
  const std::string page = inspection_html(found, values);
  for (const char* part :
       {"layout peft-params", "Norm by module and layer", "Norm by layer and routed expert",
        "Use of the rank", "Dead experts", "None: every expert", "experts.gate_proj"})
    CHECK_MESSAGE(has(page, part), part);
  for (DeltaSize& size : values.sizes)
    if (size.key.layer == 1 && size.key.expert == 2) size.norm = 0;
  const std::string dead = inspection_html(found, values);
  CHECK(has(dead, "<td>1</td><td>1</td><td>4</td><td class=\"prose\">2</td>"));
  CHECK(has(dead, "0: adds nothing"));
  CHECK(has(inspection_blocks(values, 100), "Use of the rank, by layer"));
}

TEST_CASE("a checkpoint's page lists tensors, and not more than a page holds") {
  const std::string path = kData + "/gpt_oss/base";
  Inspection found = inspect(path);
  CHECK(!found.is_adapter);
  CHECK(has(inspection_html(found, {}), "Bytes by type"));
  for (int i = 0; i < 40000; ++i) found.tensors.push_back({std::to_string(i), DType::F32, {1}, 4});
  const std::string page = inspection_html(found, {});
  CHECK(page.size() < 100000);
  CHECK(has(page, "and 39"));
}

TEST_CASE("values that cannot be measured are said, not drawn") {
  const Inspection found = inspect(kData + "/gpt_oss/peft_params");
  const std::string page = inspection_html(found, {{}, "it is <broken>"});
  CHECK(has(page, "The values were not measured: it is &lt;broken&gt;"));
  CHECK(!has(page, "Use of the rank"));
}

TEST_CASE("a comparison with the files names base and adapter, how they were computed, as data") {
  const std::string tokens = kData + "/logprobs/server.sglang.json";
  ScoreFilesOptions files;
  files.base = kData + "/gpt_oss/base";
  files.adapter = kData + "/gpt_oss/peft_params";
  files.precision = Precision::f64;
  Comparison found = compare_with_files(tokens, files, {});
  const std::string page = comparison_html(found);
  CHECK(has(page, "<p>B: the files of <code>"));
  CHECK(has(page, "/gpt_oss/peft_params</code>, computed in double precision at temperature 1"));
  found.files->adapter = "<i>";
  CHECK(has(comparison_html(found), "with the adapter <code>&lt;i&gt;</code>"));
  found.files->adapter = "";
  CHECK(has(comparison_html(found), "</code> alone, computed"));
  found.files.reset();
  CHECK(has(comparison_html(found), "<p>B: <code>"));
}

TEST_CASE("a prediction: verdict by server, shares of the reasons as bars, worst tokens") {
  PredictOptions options;
  options.base = kData + "/gpt_oss/base";
  options.adapter = kData + "/gpt_oss/per_expert";
  options.engines = {"sglang@0.5.23", "vllm@0.33"};
  options.most = {"k2=1e-3"};
  Predictions found = predict(kData + "/logprobs/server.sglang.json", options);
  const std::string page = prediction_html(found, {"a command", "a day"});
  for (const char* part :
       {"a command", "a day", "<h2>sglang@0.5.23</h2>",
        "verdict bad\">beyond the thresholds: k2 0.6", "Share of k3 by reason",
        "SGL016: computed otherwise: gate_proj", "<code>SGL016</code>", " %<", "Worst tokens",
        "logp server", "<h2>vllm@0.33</h2>", "<pre>refused: ValueError"})
    CHECK_MESSAGE(has(page, part), part);
  CHECK(!has(page, "<script"));
  CHECK(page == prediction_report(found, "html", {"a command", "a day"}));
  CHECK_THROWS_AS(prediction_report(found, "pdf"), Error);

  found.files.adapter = found.notes[0] = found.servers[1].not_served = "<i>";
  for (std::string* text : {&found.servers[0].engine, &found.servers[0].shares[0].what,
                            &found.servers[0].shares[0].rules[0]})
    *text = "<i>";
  CHECK(!has(prediction_html(found), "<i>"));
}
