#include <fmt/format.h>

#include <set>

#include "lib/check/define_rule.h"
#include "lib/check/rule_context.h"
#include "lib/check/specimen.h"

namespace moelora {
namespace {

// Last names of the modules, experts apart from the rest: what servers choose buffers by.
std::set<std::string> modules_of(const Subject& subject) {
  std::set<std::string> out;
  for (const FactorPair& pair : subject.parts.pairs) {
    const NamedTensor& any = subject.parts.any(pair);
    out.emplace(any.expert ? "experts" : leaf_of(any.module));
  }
  return out;
}

std::vector<std::string> lacking(const std::set<std::string>& all,
                                 const std::set<std::string>& own) {
  std::vector<std::string> out;
  for (const std::string& name : all)
    if (own.count(name) == 0) out.push_back(name);
  return out;
}

void check(RuleContext& context) {
  const auto& adapters = context.deployment().adapters;
  if (adapters.size() < 2) return;
  std::vector<std::set<std::string>> modules;
  std::set<std::string> all;
  for (const Subject& subject : adapters) {
    modules.push_back(modules_of(subject));
    all.insert(modules.back().begin(), modules.back().end());
  }
  std::string message;
  for (size_t i = 0; i < adapters.size(); ++i)
    if (const auto absent = lacking(all, modules[i]); !absent.empty() && !modules[i].empty())
      message += fmt::format("{}{} has no {}", message.empty() ? "" : "; ", adapters[i].given,
                             fmt::join(absent, ", "));
  if (message.empty()) return;
  context.report(message + "; a server allocates for all of them in every slot");
}

}  // namespace

const Rule set002_different_targets = {
    .id = "SET002",
    .name = "different-targets",
    .severity = Severity::warning,
    .whole_deployment = true,
    .what = "Adapters of one deployment adapt different modules.",
    .why =
        "A server wraps the union of their modules and gives every slot buffers for all of it: "
        "one adapter with experts makes every slot as large as an expert adapter's.",
    .fix = "Serve adapters of different targets apart, or train them alike.",
    .source = "SGLang mem_pool.py; vLLM create_lora_manager",
    .breaks = {.change = "serve it beside a copy without experts",
               .apply =
                   [](Specimen& specimen) {
                     Subject other = specimen.adapter();
                     other.given = other.folder = "other";
                     std::erase_if(other.files.front().tensors, [](const auto& entry) {
                       return entry.first.find(".experts.") != std::string::npos;
                     });
                     other.config.set("target_modules",
                                      Json::strings({"q_proj", "k_proj", "v_proj", "o_proj"}));
                     specimen.adapters.push_back(std::move(other));
                   }},
    .check = check,
};

}  // namespace moelora
