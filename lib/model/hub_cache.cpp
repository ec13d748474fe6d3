#include "lib/model/hub_cache.h"

#include <fmt/core.h>

#include <algorithm>
#include <cctype>
#include <cstdlib>
#include <filesystem>

#include "lib/base/error.h"
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

// The commit that refs/main of a repository's folder names; "" for none.
std::string main_commit(const fs::path& repository) try {
  constexpr uint64_t kMost = 1 << 10;
  std::string text = read_text({repository.string(), "refs/main", Links::within}, kMost);
  text.resize(text.find_last_not_of(" \t\r\n") + 1);
  return text;
} catch (const MachineError&) {
  throw;
} catch (const Error&) {
  return "";
}

bool is_commit(const std::string& text) {
  return !text.empty() && std::all_of(text.begin(), text.end(),
                                      [](unsigned char c) { return std::isalnum(c) != 0; });
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
  const fs::path repository = cache_folder() / repository_folder(name);
  fs::path missing = repository / "refs" / "main";
  if (const std::string commit = main_commit(repository); is_commit(commit)) {
    missing = repository / "snapshots" / commit;
    if (is_folder(missing.string())) return missing.string();
  }
  tried += fmt::format("; the hub cache has no {}", missing.string());
  return std::nullopt;
}

std::string snapshot_in(const std::string& folder) {
  const std::string snapshots = join_path(folder, "snapshots");
  if (!is_folder(snapshots)) return "";
  if (const std::string commit = main_commit(folder); is_commit(commit)) {
    const std::string named = join_path(snapshots, commit);
    if (is_folder(named)) return named;
  }
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
