// Every lora-convert that a finding prints is run as it is printed, and its output is judged: the
// finding is gone, and no error is new.

#include <doctest/doctest.h>
#include <fmt/format.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <set>

#include "lib/adapter/init.h"
#include "lib/check/report.h"
#include "lib/check/specimen.h"
#include "lib/io/output.h"
#include "lib/io/tensor_writer.h"
#include "lib/model/base_model.h"
#include "lib/model/model_builder.h"
#include "lib/moelora.h"
#include "tests/adapter/made_adapter.h"
#include "tests/io/temp_folder.h"

using namespace moelora;

namespace {

namespace fs = std::filesystem;

// An adapter and its base on disk, and how they are asked about.
struct Case {
  std::string name, folder;
  ValidateOptions options;

  std::string adapter() const { return folder + "/adapter"; }
  std::string out() const { return folder + "/OUT"; }
};

void write_text(const std::string& path, const std::string& text) {
  fs::create_directories(fs::path(path).parent_path());
  std::FILE* file = std::fopen(path.c_str(), "wbe");
  REQUIRE(file != nullptr);
  REQUIRE(std::fwrite(text.data(), 1, text.size(), file) == text.size());
  REQUIRE(std::fclose(file) == 0);
}

void write_adapter_folder(const std::string& path, const Json& config, const TensorMap& tensors) {
  OutputFolder out(path, {}, {false, false});
  write_weights(out, "adapter_model", tensors, {});
  out.commit("adapter_config.json", config.dump() + "\n");
}

std::vector<std::string> pairs_of(const ServerOptions& options) {
  std::vector<std::string> out;
  if (options.tp > 1) out.push_back(fmt::format("tp-size={}", options.tp));
  if (options.ep > 1) out.push_back(fmt::format("ep-size={}", options.ep));
  if (options.max_lora_rank) out.push_back(fmt::format("max-lora-rank={}", *options.max_lora_rank));
  if (options.max_loras) out.push_back(fmt::format("max-loras={}", *options.max_loras));
  for (const auto& [key, value] : options.values) out.push_back(key + "=" + value);
  return out;
}

// The folder's name is one that a shell must be told to leave alone.
Case on_disk(const TempFolder& temp, const std::string& name, const Json& base_config,
             const Json& config, const TensorMap& tensors) {
  Case out{name, temp.path("it's " + name), {}};
  write_text(out.folder + "/base/config.json", base_config.dump());
  write_adapter_folder(out.adapter(), config, tensors);
  out.options.base = out.folder + "/base";
  return out;
}

// nullopt for an example that is no folder of readable files, or has no base.
std::optional<Case> example_case(const TempFolder& temp, const Rule& rule) {
  if (rule.breaks.change.empty()) return std::nullopt;
  const Deployment deployment = example_of(rule);
  const Subject& subject = deployment.adapters.front();
  if (!deployment.base || !subject.problems.empty() || !subject.has_config ||
      subject.tensors.empty())
    return std::nullopt;
  Case out =
      on_disk(temp, std::string(rule.id), deployment.base->config, subject.config, subject.tensors);
  for (const EngineRun& run : deployment.engines) out.options.engines.push_back(run.choice.label());
  if (!deployment.engines.empty()) {
    out.options.server_options = pairs_of(deployment.options);
    out.options.gpu_memory = deployment.options.gpu_memory;
    out.options.compute_capability = deployment.options.compute_capability;
  }
  out.options.numeric = deployment.numeric && !deployment.engines.empty();
  return out;
}

// Runs it in a shell; what it printed.
struct Ran {
  int status;
  std::string text;
};
Ran run(const Case& of, const std::string& command) {
  fs::remove_all(of.out());
  const std::string log = of.folder + "/log", script = of.folder + "/run.sh";
  write_text(script, fmt::format("PATH=\"{}:$PATH\"\n{}\n", MOELORA_BIN, command));
  std::string quoted_folder;
  for (const char c : of.folder)
    quoted_folder += c == '\'' ? std::string("'\\''") : std::string(1, c);
  const int status =
      std::system(fmt::format("cd '{}' && sh run.sh >log 2>&1", quoted_folder).c_str());
  std::string text;
  if (std::FILE* file = std::fopen(log.c_str(), "rbe")) {
    char buffer[4096];
    while (const size_t n = std::fread(buffer, 1, sizeof buffer, file)) text.append(buffer, n);
    std::fclose(file);
  }
  return {status, text};
}

// Every lora-convert of a fix, up to the words around it.
std::vector<std::string> commands_in(const Finding& finding) {
  constexpr std::string_view kStart = "lora-convert adapter ";
  std::vector<std::string> out;
  const std::string& fix = finding.fix;
  for (size_t at = fix.find(kStart); at != std::string::npos; at = fix.find(kStart, at + 1)) {
    bool in_quotes = false;
    size_t end = at;
    for (; end < fix.size(); ++end) {
      if (fix[end] == '\'') in_quotes = !in_quotes;
      const std::string_view rest = std::string_view(fix).substr(end);
      if (!in_quotes && (rest.starts_with("; ") || rest.starts_with(", ") ||
                         rest.starts_with(" (") || rest.starts_with(" marks ")))
        break;
    }
    out.push_back(fix.substr(at, end - at));
  }
  return out;
}

bool still_there(const Finding& finding, const Validation& after) {
  return std::any_of(after.findings.begin(), after.findings.end(), [&](const Finding& f) {
    return f.rule == finding.rule && f.severity >= finding.severity;
  });
}

std::vector<std::string> new_errors(const Validation& before, const Validation& after) {
  std::vector<std::string> out;
  for (const Finding& f : after.findings) {
    const bool known = std::any_of(
        before.findings.begin(), before.findings.end(),
        [&](const Finding& old) { return old.rule == f.rule && old.severity == Severity::error; });
    if (f.severity == Severity::error && !known)
      out.push_back(fmt::format("{} {}", f.rule->id, f.message));
  }
  return out;
}

// The server as it must be started for the output, where the fix says so.
ValidateOptions options_after(const Case& of, const Finding& finding) {
  ValidateOptions out = of.options;
  constexpr std::string_view kRank = "start the server with --max-lora-rank ";
  if (const size_t at = finding.fix.find(kRank); at != std::string::npos)
    out.max_lora_rank = std::strtol(finding.fix.c_str() + at + kRank.size(), nullptr, 10);
  return out;
}

// Returns how many commands were run.
int check_commands(const Case& of, const Validation& before) {
  int runs = 0;
  std::set<std::string> seen;
  for (const Finding& finding : before.findings)
    for (const std::string& command : commands_in(finding)) {
      CAPTURE(of.name);
      CAPTURE(finding.rule->id);
      CAPTURE(command);
      const Ran ran = run(of, command);
      CAPTURE(ran.text);
      CHECK(ran.status == 0);
      if (ran.status != 0) continue;
      ++runs;
      const Validation after = validate({of.out()}, options_after(of, finding));
      CHECK(!still_there(finding, after));
      CHECK(fmt::format("{}", fmt::join(new_errors(before, after), "\n")) == "");
    }
  return runs;
}

}  // namespace

TEST_CASE("every command that an example's findings print repairs them") {
  const TempFolder temp;
  int runs = 0;
  std::set<std::string_view> without;
  for (const Rule* rule : all_rules()) {
    const auto of = example_case(temp, *rule);
    if (!of) continue;
    const Validation before = validate({of->adapter()}, of->options);
    runs += check_commands(*of, before);
    for (const Finding& finding : before.findings)
      if (finding.rule == rule && rule->remedy != Remedy::by_hand && !finding.repair)
        without.insert(rule->id);
  }
  CHECK(runs > 60);
  // Integers for factors, modules of another base, a release that serves no such adapter right,
  // names of fused modules that the base has apart, a rank that the config contradicts.
  CHECK(fmt::format("{}", fmt::join(without, " ")) ==
        "FMT016 FMT018 MOD001 SGL017 SGL022 VLM003 VLM006 VLM018 VLM025");
}

// ---- made cases ----

namespace {

using test::MadeAdapter;

Case made_case(const TempFolder& temp, const std::string& name, const MadeAdapter& made,
               const std::string& family, const std::string& engine) {
  Case out{name, temp.path("it's " + name), {}};
  fs::create_directories(out.folder);
  made.write(out.adapter());
  out.options.base = std::string(MOELORA_TEST_DATA) + "/catalogue/" + family;
  if (!engine.empty()) out.options.engines = {engine};
  return out;
}

std::vector<const Finding*> findings_of(const Validation& found, std::string_view rule) {
  std::vector<const Finding*> out;
  for (const Finding& finding : found.findings)
    if (finding.rule->id == rule) out.push_back(&finding);
  return out;
}

std::string above_information(const Validation& found) {
  std::string out;
  for (const Finding& finding : found.findings)
    if (finding.severity != Severity::information)
      out += fmt::format("{} {}\n", finding.rule->id, finding.message);
  return out;
}

// Linear attention, full attention and a router of the catalogue's Qwen3.5.
MadeAdapter qwen3_5(const std::string& targets, bool router) {
  const ModelSpec spec = test::catalogue_base("qwen3_5_moe_text").spec;
  MadeAdapter made(R"({"peft_type": "LORA", "r": 2, "lora_alpha": 4, "target_modules": )" +
                   targets + "}");
  const auto add = [&](const std::string& module) {
    const LinearSpec* linear = spec.find_linear(module);
    REQUIRE(linear != nullptr);
    made.pair(module, {2, linear->in}, {linear->out, 2});
  };
  add("model.layers.0.linear_attn.in_proj_qkv");
  add("model.layers.0.linear_attn.in_proj_z");
  add("model.layers.0.linear_attn.out_proj");
  if (router) add("model.layers.0.mlp.shared_expert_gate");
  return made;
}

}  // namespace

TEST_CASE("one fault does not hide others: an expression in target_modules, a router, a split") {
  const TempFolder temp;
  const Case of = made_case(
      temp, "regex",
      qwen3_5(R"("^model\\..*\\.(in_proj_qkv|in_proj_z|out_proj|shared_expert_gate)$")", true),
      "qwen3_5_moe_text", "sglang");
  const Validation found = validate({of.adapter()}, of.options);
  for (const std::string rule : {"SGL001", "SGL008", "SGL022"}) {
    CAPTURE(rule);
    CAPTURE(above_information(found));
    const auto findings = findings_of(found, rule);
    REQUIRE(!findings.empty());
    REQUIRE(findings.front()->repair);
    CHECK(findings.front()->repair->drop == std::vector<std::string>{"router"});
    CHECK(findings.front()->fix.find("leaves out the factors of --drop router") !=
          std::string::npos);
  }
  CHECK(check_commands(of, found) >= 3);
  CHECK(find_repair(found) == nullptr);  // --fix leaves nothing out
}

TEST_CASE("what a conversion cuts from in_proj_qkv for SGLang is verified and raises no finding") {
  const TempFolder temp;
  const Case of =
      made_case(temp, "gdn", qwen3_5(R"(["in_proj_qkv", "in_proj_z", "out_proj"])", false),
                "qwen3_5_moe_text", "sglang");
  ConvertOptions convert_options;
  convert_options.base = of.options.base;
  convert_options.engine = "sglang";
  convert_options.verify = true;
  const ConvertResult made = convert(of.adapter(), of.out(), convert_options);
  CHECK(made.verified > 0);
  CHECK(above_information(validate({of.out()}, of.options)) == "");
  ValidateOptions numeric = of.options;
  numeric.engines.clear();
  numeric.numeric = true;
  numeric.source = of.adapter();
  CHECK(above_information(validate({of.out()}, numeric)) == "");
}

TEST_CASE("an up_proj of a model without gates is not told to add a gate") {
  const TempFolder temp;
  InitOptions init;
  init.base = "moelora/tiny-nemotron_h";
  init.rank = 4;
  init.targets = {"shared"};
  init.to = "peft-linear";
  init.random_b = true;
  const Json base = make_specimen("nemotron_h_per_expert").base_config;
  const Conversion fresh = make_adapter(init, make_model_spec(base, init.base));
  Case of = on_disk(temp, "nemotron", base, fresh.config, fresh.tensors);
  of.options.engines = {"sglang"};
  const Validation found = validate({of.adapter()}, of.options);
  const auto findings = findings_of(found, "SGL005");
  REQUIRE(!findings.empty());
  CHECK(findings.front()->fix.find("Add gate_proj") == std::string::npos);
  CHECK(findings.front()->fix.find("has no gate_proj") != std::string::npos);
  CHECK(!findings.front()->repair);
  ConvertOptions options;
  options.base = of.options.base;
  options.engine = "sglang";
  try {
    convert(of.adapter(), of.out(), options);
    FAIL("was converted");
  } catch (const Error& error) {
    CHECK(error.hint().find("has no gate_proj") != std::string::npos);
  }
}

TEST_CASE("embeddings that --drop leaves out do not fail the verification") {
  const TempFolder temp;
  const ModelSpec spec = test::catalogue_base("qwen3_moe").spec;
  MadeAdapter made(R"({"peft_type": "LORA", "r": 2, "lora_alpha": 4, "target_modules": ["o_proj",
                       "embed_tokens"]})");
  const LinearSpec* o = spec.find_linear("model.layers.0.self_attn.o_proj");
  REQUIRE(o != nullptr);
  made.pair(o->memory, {2, o->in}, {o->out, 2});
  made.add("base_model.model.model.embed_tokens.lora_embedding_A", {2, spec.vocab});
  made.add("base_model.model.model.embed_tokens.lora_embedding_B", {spec.hidden, 2});
  const Case of = made_case(temp, "embeddings", made, "qwen3_moe", "");
  for (const char* engine : {"sglang", "vllm", "peft"}) {
    CAPTURE(engine);
    ConvertOptions options;
    options.base = of.options.base;
    options.engine = engine;
    options.drop = {"embeddings"};
    options.verify = true;
    options.force = true;
    CHECK(convert(of.adapter(), of.out(), options).verified > 0);
  }
}

TEST_CASE("a conversion for another base writes that base's name") {
  const TempFolder temp;
  InitOptions init;
  init.base = "openai/gpt-oss-20b";
  init.rank = 1;
  init.targets = {"attention"};
  init.to = "peft-linear";
  init.random_b = true;
  init.dtype = DType::BF16;
  const Conversion fresh = make_adapter(init);
  const Case of = on_disk(temp, "named", Json::object({}), fresh.config, fresh.tensors);
  ConvertOptions options;
  options.engine = "sglang";
  options.dry_run = true;
  const auto named = [&](const std::string& base) {
    options.base = base;
    const std::string config = convert(of.adapter(), of.out(), options).config;
    return *parse_json(config, "adapter_config.json").find("base_model_name_or_path");
  };
  CHECK(named("").as_string() == "openai/gpt-oss-20b");
  CHECK(named("lmsys/gpt-oss-20b-bf16").as_string() == "lmsys/gpt-oss-20b-bf16");
  CHECK(find_named_base("lmsys/gpt-oss-20b-bf16", {}, false));  // what MOD008 recommends
}
