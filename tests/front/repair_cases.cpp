#include "tests/front/repair_cases.h"

#include <doctest/doctest.h>
#include <fmt/format.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <map>

#include "lib/check/specimen.h"
#include "lib/io/output.h"
#include "lib/io/tensor_writer.h"

namespace moelora::test {
namespace {

namespace fs = std::filesystem;

void write_text(const std::string& path, const std::string& text) {
  fs::create_directories(fs::path(path).parent_path());
  std::FILE* file = std::fopen(path.c_str(), "wbe");
  REQUIRE(file != nullptr);
  REQUIRE(std::fwrite(text.data(), 1, text.size(), file) == text.size());
  REQUIRE(std::fclose(file) == 0);
}

void write_adapter_folder(const std::string& path, const Json& config, const TensorMap& tensors,
                          uint64_t max_shard_size) {
  OutputFolder out(path, {}, {false, false});
  WriteOptions how;
  how.max_shard_size = max_shard_size;
  write_weights(out, "adapter_model", tensors, how);
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

// Runs it in a shell; what it printed.
struct Ran {
  int status;
  std::string text;
};
Ran run(const RepairCase& of, const std::string& command) {
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
      if (!in_quotes && fix[end] == '\\' && end + 1 < fix.size()) {
        ++end;  // what is behind it stands for itself
        continue;
      }
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
ValidateOptions options_after(const RepairCase& of, const Finding& finding) {
  ValidateOptions out = of.options;
  constexpr std::string_view kRank = "start the server with --max-lora-rank ";
  if (const size_t at = finding.fix.find(kRank); at != std::string::npos)
    out.max_lora_rank = std::strtol(finding.fix.c_str() + at + kRank.size(), nullptr, 10);
  return out;
}

std::optional<Validation> in_shell(const RepairCase& of, const std::string& command,
                                   const Finding& finding) {
  const Ran ran = run(of, command);
  CAPTURE(ran.text);
  CHECK(ran.status == 0);
  if (ran.status != 0) return std::nullopt;
  return validate({of.out()}, options_after(of, finding));
}

// What the command stands for, as --fix runs it.
std::optional<Validation> in_process(const RepairCase& of, const Finding& finding) {
  fs::remove_all(of.out());
  try {
    repair_adapter(*finding.repair, of.out());
  } catch (const Error& error) {
    const std::string said = error.what();
    FAIL_CHECK(said);
    return std::nullopt;
  }
  return validate({of.out()}, options_after(of, finding));
}

}  // namespace

RepairCase on_disk(const TempFolder& temp, const std::string& name, const Json& base_config,
                   const Json& config, const TensorMap& tensors, uint64_t max_shard_size) {
  RepairCase out{name, temp.path("it's " + name), {}};
  write_text(out.folder + "/base/config.json", base_config.dump());
  write_adapter_folder(out.adapter(), config, tensors, max_shard_size);
  out.options.base = out.folder + "/base";
  return out;
}

std::optional<RepairCase> example_case(const TempFolder& temp, const Rule& rule) {
  if (rule.breaks.change.empty()) return std::nullopt;
  const Deployment deployment = example_of(rule);
  const Subject& subject = deployment.adapters.front();
  if (!deployment.base || !subject.problems.empty() || !subject.has_config ||
      subject.tensors.empty())
    return std::nullopt;
  RepairCase out =
      on_disk(temp, std::string(rule.id), deployment.base->config, subject.config, subject.tensors);
  for (const EngineRun& run : deployment.engines) out.options.engines.push_back(run.choice.label());
  if (!deployment.engines.empty()) {
    out.options.server_options = pairs_of(deployment.options);
    out.options.gpu_memory = deployment.options.gpu_memory;
    out.options.compute_capability = deployment.options.compute_capability;
  }
  if (deployment.source) {
    out.options.source = out.folder + "/source";
    write_adapter_folder(out.options.source, deployment.source->config, deployment.source->tensors,
                         0);
  }
  out.options.numeric = deployment.numeric && (!deployment.engines.empty() || deployment.source);
  return out;
}

int check_commands(const RepairCase& of, const Validation& before, const Commands& which) {
  std::map<std::string, std::optional<Validation>> outputs;  // of each command, judged once
  int checked = 0;
  for (const Finding& finding : before.findings) {
    if (which.only != nullptr && finding.rule->id != which.only->id) continue;
    for (const std::string& command : commands_in(finding)) {
      CAPTURE(of.name);
      CAPTURE(finding.rule->id);
      CAPTURE(finding.engine);
      CAPTURE(command);
      ++checked;
      const bool repairs = finding.repair && finding.repair->command() == command;
      const bool shell = !repairs || which.in_shell == nullptr || which.in_shell == finding.rule;
      const auto [at, fresh] = outputs.try_emplace(command);
      if (fresh) at->second = shell ? in_shell(of, command, finding) : in_process(of, finding);
      if (!at->second) continue;
      CHECK(!still_there(finding, *at->second));
      CHECK(fmt::format("{}", fmt::join(new_errors(before, *at->second), "\n")) == "");
    }
  }
  return checked;
}

}  // namespace moelora::test
