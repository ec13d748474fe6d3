#include "lib/model/rename.h"

namespace moelora {
namespace {

bool ends_component(const std::string& path, size_t at) {
  return at == path.size() || path[at] == '.';
}

size_t find_components(const std::string& path, const std::string& run) {
  for (size_t at = path.find(run); at != std::string::npos; at = path.find(run, at + 1))
    if ((at == 0 || path[at - 1] == '.') && ends_component(path, at + run.size())) return at;
  return std::string::npos;
}

}  // namespace

std::string renamed(std::string path, const Renames& renames) {
  for (const auto& [from, to] : renames) {
    const size_t at = find_components(path, from);
    if (at != std::string::npos) path.replace(at, from.size(), to);
  }
  return path;
}

std::string prefix_renamed(const std::string& path, const Renames& renames) {
  for (const auto& [from, to] : renames) {
    if (path.rfind(from, 0) == 0 && ends_component(path, from.size()))
      return to + path.substr(from.size());
  }
  return path;
}

std::string with_layer(const std::string& pattern, int layer) {
  static constexpr std::string_view kLayer = "{layer}";
  const size_t at = pattern.find(kLayer);
  if (at == std::string::npos) return pattern;
  return std::string(pattern).replace(at, kLayer.size(), std::to_string(layer));
}

}  // namespace moelora
