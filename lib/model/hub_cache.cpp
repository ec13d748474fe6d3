#include "lib/model/hub_cache.h"

#include <fmt/core.h>

#include <algorithm>
#include <cctype>
#include <cstdlib>
#include <filesystem>
#include <utility>
#include <vector>

#include "lib/base/error.h"
#include "lib/base/utf8.h"
#include "lib/io/disk/look.h"
#include "lib/io/file.h"

namespace moelora {
namespace {

namespace fs = std::filesystem;

std::string environment(const char* name) {
  const char* value = std::getenv(name);
  return value == nullptr ? "" : value;
}

fs::path cache_folder() {
  if (const std::string hub = environment("HF_HUB_CACHE"); !hub.empty()) return hub;
  if (const std::string home = environment("HF_HOME"); !home.empty()) return fs::path(home) / "hub";
  if (const std::string xdg = environment("XDG_CACHE_HOME"); !xdg.empty())
    return fs::path(xdg) / "huggingface" / "hub";
  return fs::path(environment("HOME")) / ".cache" / "huggingface" / "hub";
}

std::string repository_folder(const std::string& name) {
  std::string out = "models--" + name;
  const size_t slash = out.find('/');
  return slash == std::string::npos ? out : out.replace(slash, 1, "--");
}

bool is_commit(const std::string& text) {
  return !text.empty() && std::all_of(text.begin(), text.end(),
                                      [](unsigned char c) { return std::isalnum(c) != 0; });
}

// The snapshot that refs/main of a repository's folder leads to, or why it leads to none.
struct MainSnapshot {
  std::string folder, fault;
};

MainSnapshot main_snapshot(const fs::path& repository) try {
  constexpr uint64_t kMost = 1 << 10;
  const std::string main = (repository / "refs" / "main").string();
  if (is_absent(main)) return {"", fmt::format("the hub cache has no {}", main)};
  std::string text = read_text({repository.string(), "refs/main", Links::within}, kMost);
  text.resize(text.find_last_not_of(" \t\r\n") + 1);
  if (!is_commit(text))
    return {"", fmt::format("{} holds {}, which is no commit", main, in_quotes(text, 40))};
  const std::string folder = (repository / "snapshots" / text).string();
  if (is_folder(folder)) return {folder, ""};
  return {"", fmt::format("{} names a snapshot that is not there: {}", main, folder)};
} catch (const MachineError&) {
  throw;
} catch (const Error& error) {
  return {"", error.what()};
}

}  // namespace

// "org/name" or "name" of characters a hub name may have: it becomes part of a path.
bool is_hub_name(const std::string& name) {
  const auto allowed = [](unsigned char c) {
    return std::isalnum(c) != 0 || c == '-' || c == '_' || c == '.' || c == '/';
  };
  return !name.empty() && std::all_of(name.begin(), name.end(), allowed) && name.front() != '/' &&
         name.find("..") == std::string::npos && std::count(name.begin(), name.end(), '/') <= 1;
}

std::optional<std::string> find_hub_snapshot(const std::string& name, std::string& tried) {
  if (!is_hub_name(name)) {
    tried += "; it is not a hub name either";
    return std::nullopt;
  }
  MainSnapshot found = main_snapshot(cache_folder() / repository_folder(name));
  if (found.fault.empty()) return std::move(found.folder);
  tried += "; " + found.fault;
  return std::nullopt;
}

std::optional<HubCacheFault> hub_cache_fault(const std::string& name) {
  if (!is_hub_name(name)) return std::nullopt;
  const fs::path repository = cache_folder() / repository_folder(name);
  if (!is_folder(repository.string())) return std::nullopt;
  MainSnapshot found = main_snapshot(repository);
  if (found.fault.empty()) return std::nullopt;
  std::string advice = fmt::format("Download it again: hf download {}", name);
  const std::string snapshots = (repository / "snapshots").string();
  if (!is_folder(snapshots)) return HubCacheFault{std::move(found.fault), std::move(advice)};
  const std::vector<std::string> there = names_in(snapshots);
  if (!there.empty())
    advice += fmt::format(", or name one of its snapshots: {}", join_path(snapshots, there.back()));
  return HubCacheFault{std::move(found.fault), std::move(advice)};
}

std::string snapshot_in(const std::string& folder) {
  const std::string snapshots = join_path(folder, "snapshots");
  if (!is_folder(snapshots)) return "";
  if (MainSnapshot found = main_snapshot(folder); found.fault.empty())
    return std::move(found.folder);
  std::string only;
  for (const std::string& name : names_in(snapshots)) {
    const std::string each = join_path(snapshots, name);
    if (!is_folder(each)) continue;
    if (!only.empty()) return "";
    only = each;
  }
  return only;
}

}  // namespace moelora
