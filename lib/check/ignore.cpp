#include "lib/check/ignore.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <filesystem>

#include "lib/base/error.h"
#include "lib/base/nearest.h"
#include "lib/base/utf8.h"
#include "lib/io/disk/look.h"
#include "lib/model/json_view.h"

namespace moelora {
namespace {

namespace fs = std::filesystem;

std::string relative_to(const std::string& folder, const std::string& path) {
  std::error_code ignored;
  const fs::path from = fs::absolute(folder.empty() ? "." : folder, ignored).lexically_normal();
  const fs::path whole = fs::absolute(path, ignored).lexically_normal();
  std::string out = whole.lexically_relative(from / "").generic_string();
  if (out.ends_with('/')) out.pop_back();
  return out;
}

bool names(const Waiver& waiver, const Subject& adapter) {
  return !waiver.adapter.empty() &&
         glob_matches(waiver.adapter, relative_to(waiver.folder, adapter.given));
}

// That something could not be judged: a server that was asked for, of which no rule was run, or an
// adapter that cannot be read.
bool is_not_judged(const Finding& finding, const Deployment& deployment) {
  if (finding.unjudged) return true;
  if (finding.adapter && finding.severity == Severity::error &&
      is_unreadable(deployment.adapters[*finding.adapter]))
    return true;
  if (finding.adapter || finding.severity != Severity::error) return false;
  return std::any_of(
      deployment.engines.begin(), deployment.engines.end(), [&](const EngineRun& run) {
        return run.choice.label() == finding.engine && (!run.plan || !run.plan->not_known.empty());
      });
}

bool covers(const Waiver& waiver, const Finding& finding, const Deployment& deployment) {
  if (waiver.rule != finding.rule) return false;
  const auto named = [&](const Subject& adapter) { return names(waiver, adapter); };
  if (is_not_judged(finding, deployment))
    return finding.adapter
               ? named(deployment.adapters[*finding.adapter])
               : std::all_of(deployment.adapters.begin(), deployment.adapters.end(), named);
  if (waiver.adapter.empty()) return true;
  return finding.adapter && named(deployment.adapters[*finding.adapter]);
}

std::string text(const JsonView& json) {
  if (json.string().find_first_not_of(" \t\n") == std::string::npos) json.fail("is empty");
  return json.string();
}

// Paths are meant from the file's folder, wherever the tool is started.
std::string base_path(const std::string& base, const fs::path& folder) {
  const std::string below = (folder / base).string();
  return is_there(below) ? below : base;
}

std::string option(const JsonView& json) {
  if (json.json().is(Json::Kind::boolean)) return json.boolean() ? "on" : "off";
  return json.json().is_number() ? json.json().dump(-1) : text(json);
}

JsonView required(const JsonView& json, const char* key, const char* hint) {
  if (const auto found = json.find(key)) return *found;
  json.fail(std::string("the key \"") + key + "\" is missing", hint);
}

Waiver waiver(const JsonView& json, const fs::path& folder) {
  json.allow_only({"rule", "reason", "adapter"});
  const JsonView rule = required(json, "rule", "write the rule's id or name");
  const JsonView reason = required(json, "reason", "write why the finding can be lived with");
  Waiver out{&rule_named(text(rule), rule.place()), text(reason), "", json.where(),
             folder.string()};
  if (const auto adapter = json.find("adapter")) out.adapter = text(*adapter);
  return out;
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

std::string unused_text(const Waiver& waiver, const RuleResults& results) {
  const bool found = std::any_of(results.findings.begin(), results.findings.end(),
                                 [&](const Finding& f) { return f.rule == waiver.rule; });
  if (!found)
    return fmt::format("{}: nothing to ignore: {} found nothing", waiver.from, waiver.rule->id);
  if (!waiver.adapter.empty())
    return fmt::format("{}: nothing to ignore: {} found nothing in {}", waiver.from,
                       waiver.rule->id, waiver.adapter);
  return fmt::format(
      "{}: not ignored: what could not be checked is ignored only where an entry of {} names the "
      "adapter",
      waiver.from, kProjectFile);
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

std::string find_project_file(const std::string& folder) {
  std::error_code ignored;
  std::string up, found;
  const auto holds = [](const fs::path& at, const char* name) {
    return is_there((at / name).string());
  };
  fs::path at = fs::absolute(folder, ignored).lexically_normal();
  if (!at.has_filename() && at != at.root_path()) at = at.parent_path();  // "a/b/"
  for (;; at = at.parent_path()) {
    if (!up.empty() && ::access(at.c_str(), X_OK) != 0 && errno == EACCES) break;
    if (found.empty() && holds(at, kProjectFile) && !holds(at, "adapter_config.json"))
      found = up + kProjectFile;
    if (holds(at, ".git")) return found;
    if (at == at.root_path()) break;
    up += "../";
  }
  return found == kProjectFile ? found : "";
}

Project read_project(const std::string& path) {
  const Json file = read_json_file(path);
  const JsonView json(file, path);
  const fs::path folder = fs::path(path).parent_path();
  json.allow_only({"$schema", "base", "engines", "server_options", "ignore"});
  Project out;
  for (const auto& [key, value] : json.members()) {
    if (key == "base") out.base = base_path(text(value), folder);
    if (key == "engines")
      for (const JsonView& engine : value.items()) out.engines.push_back(text(engine));
    if (key == "server_options")
      for (const auto& [name, option_value] : value.members())
        out.server_options.push_back(name + "=" + option(option_value));
    if (key == "ignore")
      for (const JsonView& ignore : value.items()) out.waivers.push_back(waiver(ignore, folder));
  }
  return out;
}

}  // namespace moelora
