// lora-validate's results against vLLM: what it refused is an error that quotes it, what it
// served whole is quiet, what it dropped or cut is said.

#include <doctest/doctest.h>
#include <fmt/core.h>

#include <algorithm>
#include <array>
#include <map>
#include <set>

#include "tests/check/vllm_deployment.h"

using namespace moelora;
using namespace moelora::test;

namespace {

// All ranks of one load.
struct Case {
  std::vector<const VllmRun*> ranks;
  const VllmRun& run() const { return *ranks.front(); }

  const VllmOutcome* refusal() const {
    for (const VllmRun* rank : ranks)
      if (!rank->outcome->served()) return rank->outcome;
    return nullptr;
  }
  bool drops() const {
    return std::any_of(ranks.begin(), ranks.end(), [](const VllmRun* rank) {
      return !rank->outcome->unused.empty() || !rank->outcome->unpaired.empty();
    });
  }
};

std::vector<Case> cases() {
  std::map<std::string, Case> by_load;
  for (const VllmRun& run : vllm_oracle().runs) {
    if (run.mode == "as3d") continue;  // no flag of the server
    if (run.version != "0.22" && run.version != "0.27" && run.version != "0.33") continue;
    by_load[fmt::format("{} {} {} {} {} {}", run.version, run.family, run.adapter, run.mode, run.tp,
                        run.max_rank)]
        .ranks.push_back(&run);
  }
  std::vector<Case> out;
  for (auto& [load, ranks] : by_load) out.push_back(std::move(ranks));
  return out;
}

std::string replaced(std::string text, const std::string& from, const std::string& to) {
  for (size_t at = 0; (at = text.find(from, at)) != std::string::npos; at += to.size())
    text.replace(at, from.size(), to);
  return text;
}

// A server text as the oracle's table spells it.
std::string normalised(const std::string& text, const VllmRun& run) {
  std::string out = replaced(text, run.folder(), "{dir}");
  out = replaced(out, "Loading lora " + run.adapter, "Loading lora oracle");
  const std::string mark = "target modules in {";
  if (const size_t at = out.find(mark); at != std::string::npos)
    out.replace(at + mark.size() - 1, out.find('}', at) - at - mark.size() + 2, "{SET}");
  return out;
}

std::string said(const VllmOutcome& refusal) {
  return refusal.text.empty() ? refusal.type : refusal.type + ": " + refusal.text;
}

// Served silently by every measure of the loader, and still not what the adapter means: what
// the notes of the oracle say of the hand-made ones, and the rule that says it.
struct Meant {
  std::string_view adapter, rule;
  std::string_view mode = "";  // in this mode alone, where given
  int64_t tp = 0;              // at this tensor parallel size alone
};
constexpr std::array<Meant, 25> kMeantOtherwise = {{
    {"peft_params_grouped_b", "VLM029"},  // marked as grouped by expert
    {"peft_patterns", "VLM009"},          // rank_pattern and alpha_pattern
    {"pe_alpha_pattern", "VLM009"},       // alpha 32 on experts by alpha_pattern
    {"pe_rank_pattern_attn", "VLM009"},   // q_proj has rank 2
    {"stacked_rank_pattern", "VLM009"},   // PEFT's factor is 8, vLLM's 2
    {"pe_rslora", "VLM010"},              // the right factor is 4
    {"pe_rslora_backbone", "VLM010"},
    {"shared_outer_bf16", "VLM010"},            // rsLoRA
    {"shared_outer_expanded", "VLM022"},        // every factor (E, ...): expert 0's is kept
    {"stacked_8_experts", "VLM016"},            // on a base with 4
    {"stacked_rank_above_buffer", "VLM016"},    // 12 experts of the config's rank
    {"stacked_small_I", "VLM016"},              // 40 instead of 48
    {"stacked_backbone", "VLM016", "mixed3d"},  // half of up_proj's rows
    {"attn_small", "VLM016"},                   // of a model with hidden size 48
    {"lm_head_vocab_smaller", "VLM016"},        // 150 of 160
    {"pe_small_H", "VLM016"},
    {"attn_big_out", "VLM025", "", 2},  // 80 instead of 64
    {"attn_k_as_big_as_q", "VLM025", "", 2},
    {"pe_big_I", "VLM025", "", 2},  // 32 instead of 24
    {"peft_params_alphabetical", "VLM025", "mixed3d", 2},
    {"peft_params_swapped_roles", "VLM025", "mixed3d", 2},
    {"pe_same_module_twice", "VLM018"},  // with and without the prefix
    {"pe_rank_negative", ""},            // CFG001: the delta's sign is flipped
    {"pe_rank_below_config", ""},        // CFG002: tensors of rank 2, config r 4
    {"pe_rank_above_buffer", ""},        // CFG002: tensors of rank 12, config r 4
}};

const Meant* meant_otherwise(const VllmRun& run) {
  for (const Meant& meant : kMeantOtherwise)
    if (run.adapter == meant.adapter && (meant.mode.empty() || run.mode == meant.mode) &&
        (meant.tp == 0 || run.tp == meant.tp))
      return &meant;
  return nullptr;
}

// Warnings of the forward pass, which no loader shows: gpt-oss in the mixed format.
bool of_forward_pass(const Rule& rule) { return rule.id == "VLM002" || rule.id == "VLM021"; }

std::string text(const RuleResults& results) {
  std::string out;
  for (const Finding& f : results.findings)
    if (f.severity != Severity::information)
      out += fmt::format("\n  {} {} {}: {} | {}", f.rule->id, severity_name(f.severity), f.where,
                         f.message, f.server_text);
  return out;
}

bool quotes(const RuleResults& results, const VllmOutcome& refusal, const VllmRun& run) {
  return std::any_of(results.findings.begin(), results.findings.end(), [&](const Finding& f) {
    return f.severity == Severity::error && normalised(f.server_text, run) == said(refusal);
  });
}

bool speaks(const RuleResults& results, std::string_view rule) {
  return std::any_of(results.findings.begin(), results.findings.end(), [&](const Finding& f) {
    return f.severity != Severity::information && f.rule->engine == &engines::vllm &&
           (rule.empty() || f.rule->id == rule);
  });
}

// Nothing above information from VLM rules, no error from those of no engine but the numeric ones
// (vllm_numbers_test.cpp). A pickle that this tool cannot read yet is one, and so are codes of FP8
// and integers, which vLLM casts as if they were numbers.
bool is_quiet(const RuleResults& results, std::string_view adapter) {
  const bool pickle = adapter.ends_with("_bin");
  const bool codes = adapter == "pe_f8_e4m3" || adapter == "pe_i8";
  return std::all_of(results.findings.begin(), results.findings.end(), [&](const Finding& f) {
    if (f.rule->engine == &engines::vllm)
      return f.severity == Severity::information || of_forward_pass(*f.rule);
    if (f.rule->numeric) return true;
    return f.severity != Severity::error || (pickle && f.rule->id == "FMT003") ||
           (codes && f.rule->id == "FMT016");
  });
}

}  // namespace

TEST_CASE("lora-validate says of every adapter what vLLM did with it, in every mode") {
  size_t refused = 0, dropped = 0, otherwise = 0, whole = 0;
  std::set<const Meant*> met;
  for (const Case& c : cases()) {
    const VllmRun& run = c.run();
    if (of_the_cpu(run)) continue;
    const RuleResults& results = check_for_vllm(run);
    INFO(run.text() << text(results));
    const Meant* meant = meant_otherwise(run);
    if (const VllmOutcome* refusal = c.refusal()) {
      ++refused;
      CHECK(quotes(results, *refusal, run));
    } else if (run.version == "0.33") {  // what became of its tensors was not recorded
      continue;
    } else if (c.drops()) {
      ++dropped;
      CHECK(speaks(results, ""));
    } else if (meant != nullptr) {
      ++otherwise;
      met.insert(meant);
      if (!meant->rule.empty()) CHECK(speaks(results, meant->rule));
    } else {
      ++whole;
      CHECK(is_quiet(results, run.adapter));
    }
  }
  CHECK(met.size() == kMeantOtherwise.size());
  CHECK(refused > 720);
  CHECK(dropped > 70);
  CHECK(otherwise > 80);
  CHECK(whole > 350);
}
