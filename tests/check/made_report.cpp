#include "tests/check/made_report.h"

#include <array>

namespace moelora {

const Rule kLoneQ = {.id = "SGL902",
                     .name = "lone-q",
                     .severity = Severity::error,
                     .engine = &engines::sglang,
                     .what = "q_proj has factors, v_proj has none",
                     .why = "The server dies: KeyError: 'v_proj'.",
                     .fix = "lora-convert adapter {adapter} OUT --to peft-linear",
                     .source = "sgl-project/sglang, https://example.org/pull/1 (merged)"};
const Rule kDeadPattern = {.id = "CFG903",
                           .name = "dead-pattern",
                           .severity = Severity::warning,
                           .what = "a pattern matches no module",
                           .why = "It changes nothing.",
                           .fix = "delete it",
                           .source = "peft/utils/other.py"};
const Rule kCoverage = {.id = "MOD907",
                        .name = "coverage",
                        .severity = Severity::information,
                        .what = "always",
                        .why = "So that one sees what is adapted.",
                        .fix = "nothing",
                        .source = "none"};
const Rule kMixed = {.id = "SET901",
                     .name = "mixed",
                     .severity = Severity::error,
                     .engine = &engines::sglang,
                     .what = "two forms together",
                     .why = "The first adapter decides.",
                     .fix = "convert one of them",
                     .source = "none"};

namespace {

Subject made_adapter(const std::string& path) {
  Subject out;
  out.given = out.folder = path;
  out.listing = {"adapter_config.json", "adapter_model.safetensors"};
  return out;
}

EngineRun sglang_run() {
  static const Engine kServer = {.id = "sglang",
                                 .title = "SGLang",
                                 .releases = {},
                                 .newest = "0.5.18",
                                 .known_to = "",
                                 .options = {},
                                 .plan = nullptr};
  EngineRun out{{&kServer, *EngineVersion::parse("0.5.18")}, {}, ServerPlan{}, ""};
  out.plan->memory.rows = {{"qkv_proj.A", {3, 8, 64}, 2, 6144}, {"o_proj.B", {64, 8}, 2, 2048}};
  out.plan->memory.slots = 3;
  out.plan->memory.dtype = "bf16";
  out.plan->adapters.resize(2);
  return out;
}

}  // namespace

Finding& MadeReport::add(const Rule& rule, std::optional<size_t> adapter, std::string message) {
  Finding& f = results.findings.emplace_back();
  f.rule = &rule;
  f.severity = rule.severity;
  if (rule.engine != nullptr) f.engine = "sglang@0.5.18";
  f.adapter = adapter;
  f.message = std::move(message);
  f.fix = rule.fix;
  return f;
}

MadeReport sound_report() {
  MadeReport out;
  out.deployment.adapters = {made_adapter("adapters/a"), made_adapter("adapters/b")};
  out.deployment.engines.push_back(sglang_run());
  out.deployment.engines.emplace_back().choice = parse_engine("peft@0.21");
  out.results.rules_run = 42;
  return out;
}

MadeReport broken_report() {
  MadeReport out = sound_report();
  Finding& lone = out.add(kLoneQ, 0, "q_proj without v_proj");
  lone.file = "adapter_model.safetensors";
  for (int layer = 0; layer < 30; ++layer)
    lone.names.push_back("layers." + std::to_string(10 + layer) + ".q_proj.lora_A.weight");
  lone.where = lone.names.front();
  lone.server_text = "KeyError: 'v_proj'";
  lone.fix = "lora-convert adapter adapters/a OUT --to peft-linear";
  Finding& pattern = out.add(kDeadPattern, 0, "\"q_prj\" matches no module");
  pattern.file = "adapter_config.json";
  pattern.line = 12;
  pattern.column = 5;
  pattern.where = "rank_pattern";
  out.add(kCoverage, 0, "attention of 2 layers");
  out.add(kMixed, std::nullopt, "a is shared outer, b is not");
  Finding waived = out.add(kDeadPattern, 1, "\"k_prj\" matches no module");
  out.results.findings.pop_back();
  out.waived.push_back({waived, "trained that way", ".moelora.json:3:5"});
  out.results.skipped = {{"MOD001, MOD002", "no base model was given (--base)"}};
  out.results.notes = {"columns of lora_B are read rank-major"};
  return out;
}

MadeReport hostile_report() {
  MadeReport out = sound_report();
  out.deployment.adapters[0] = made_adapter("a|b <c>&\"d\"`e\n::error::f\xff");
  Finding& f = out.add(kLoneQ, 0,
                       "\x1b[31m ##[error] @user [x](http://y) 50% <img> a|b &rlm;\n::warning::z");
  f.names = {"n\xff\x1b]0;t\a", "::stop-commands::x", "a_b*c*", "\u202e\u200b\U000e0041&rlm;"};
  f.where = f.names.front();
  f.server_text = "line 1\n::error::line 2 `tick` ``two`` \x1b[31m\u009b\u2028##vso[x]";
  f.fix = "--%0A::error:: \x1b]0;t\a\u202e";
  return out;
}

}  // namespace moelora
