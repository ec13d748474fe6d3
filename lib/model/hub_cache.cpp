#include "lib/model/hub_cache.h"

#include <fmt/format.h>

#include <algorithm>
#include <cctype>
#include <cstdlib>
#include <filesystem>
#include <fstream>

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

// "org/name" or "name" of characters a hub name may have: it becomes part of a path.
bool is_hub_name(const std::string& name) {
  const auto allowed = [](unsigned char c) {
    return std::isalnum(c) != 0 || c == '-' || c == '_' || c == '.' || c == '/';
  };
  return !name.empty() && std::all_of(name.begin(), name.end(), allowed) && name.front() != '/' &&
         name.find("..") == std::string::npos && std::count(name.begin(), name.end(), '/') <= 1;
}

std::string repository_folder(const std::string& name) {
  std::string out = "models--" + name;
  const size_t slash = out.find('/');
  return slash == std::string::npos ? out : out.replace(slash, 1, "--");
}

std::string first_word(const fs::path& path) {
  std::ifstream in(path);
  std::string out;
  in >> out;
  return out;
}

bool is_commit(const std::string& text) {
  return !text.empty() && std::all_of(text.begin(), text.end(),
                                      [](unsigned char c) { return std::isalnum(c) != 0; });
}

}  // namespace

HubSnapshot find_hub_snapshot(const std::string& name) {
  if (!is_hub_name(name)) return {"", "it is no hub name either"};
  const fs::path repository = cache_folder() / repository_folder(name);
  const fs::path ref = repository / "refs" / "main";
  const std::string commit = first_word(ref);
  if (!is_commit(commit)) return {"", fmt::format("the hub cache has no {}", ref.string())};
  const fs::path snapshot = repository / "snapshots" / commit;
  std::error_code ignored;
  if (!fs::is_directory(snapshot, ignored))
    return {"", fmt::format("the hub cache has no {}", snapshot.string())};
  return {snapshot.string(), ""};
}

}  // namespace moelora
