#include "lib/check/ignore.h"

#include <fmt/format.h>

#include <algorithm>
#include <filesystem>

#include "lib/base/error.h"
#include "lib/base/nearest.h"
#include "lib/base/utf8.h"

namespace moelora {
namespace {

namespace fs = std::filesystem;

std::string told_from(const std::string& folder, const std::string& path) {
  std::error_code ignored;
  const fs::path from = fs::absolute(folder.empty() ? "." : folder, ignored).lexically_normal();
  const fs::path whole = fs::absolute(path, ignored).lexically_normal();
  std::string out = whole.lexically_relative(from / "").generic_string();
  if (out.ends_with('/')) out.pop_back();
  return out;
}

bool covers(const Waiver& waiver, const Finding& finding, const Deployment& deployment) {
  if (waiver.rule != finding.rule) return false;
  if (waiver.adapter.empty()) return true;
  if (!finding.adapter) return false;
  const std::string& path = deployment.adapters[*finding.adapter].given;
  return glob_matches(waiver.adapter, told_from(waiver.folder, path));
}

}  // namespace

std::vector<Waived> take_waived(RuleResults& results, const Deployment& deployment,
                                std::span<const Waiver> waivers) {
  std::vector<Waived> waived;
  std::vector<Finding> kept;
  for (Finding& finding : results.findings) {
    const auto waiver = std::find_if(waivers.begin(), waivers.end(), [&](const Waiver& w) {
      return covers(w, finding, deployment);
    });
    if (waiver == waivers.end())
      kept.push_back(std::move(finding));
    else
      waived.push_back({std::move(finding), waiver->reason, waiver->from});
  }
  results.findings = std::move(kept);
  return waived;
}

std::vector<const Waiver*> unused(std::span<const Waiver> waivers, std::span<const Waived> waived) {
  std::vector<const Waiver*> out;
  for (const Waiver& waiver : waivers)
    if (std::none_of(waived.begin(), waived.end(), [&](const Waived& w) {
          return w.finding.rule == waiver.rule && w.from == waiver.from;
        }))
      out.push_back(&waiver);
  return out;
}

const Rule& rule_named(std::string_view id_or_name, Location location) {
  if (const Rule* rule = find_rule(id_or_name)) return *rule;
  std::vector<std::string_view> known;
  for (const Rule* rule : all_rules()) known.insert(known.end(), {rule->id, rule->name});
  throw unknown_word(std::move(location), "rule", id_or_name, known,
                     "lora-validate --list-rules lists them");
}

bool glob_matches(std::string_view glob, std::string_view text) {
  size_t g = 0, t = 0, star = std::string_view::npos, resume = 0;
  while (t < text.size()) {
    if (g < glob.size() && glob[g] == '*') {
      star = g++;
      resume = t;
    } else if (g < glob.size() && (glob[g] == '?' || glob[g] == text[t])) {
      ++g, ++t;
    } else if (star != std::string_view::npos) {
      g = star + 1;
      t = ++resume;
    } else {
      return false;
    }
  }
  return glob.find_first_not_of('*', g) == std::string_view::npos;
}

}  // namespace moelora
