#pragma once

#include <algorithm>
#include <charconv>
#include <cstdint>
#include <initializer_list>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <vector>

namespace moelora {

// Names whose components dots join: modules and parameters of a model, tensors of a file.

// "q_proj" of "layers.0.self_attn.q_proj"; a name without a dot is its own leaf.
constexpr std::string_view leaf_of(std::string_view path) {
  return path.substr(path.rfind('.') + 1);  // npos + 1 is 0
}

// "layers.0.self_attn" of "layers.0.self_attn.q_proj"; "" without a dot.
constexpr std::string_view parent_of(std::string_view path) {
  const size_t dot = path.rfind('.');
  return path.substr(0, dot == std::string_view::npos ? 0 : dot);
}

// The same leaf's siblings begin so: "layers.0.self_attn."; "" without a dot.
constexpr std::string_view stem_of(std::string_view path) {
  return path.substr(0, path.rfind('.') + 1);
}

// The path with another leaf.
inline std::string sibling(std::string_view path, std::string_view leaf) {
  return std::string(stem_of(path)).append(leaf);
}

// Whether a path ends in all the components of `name`, as an entry of target_modules names it.
inline bool ends_in(std::string_view path, std::string_view name) {
  return path.ends_with(name) &&
         (path.size() == name.size() || path[path.size() - name.size() - 1] == '.');
}
inline bool ends_in_any(std::string_view path, const std::vector<std::string>& names) {
  return std::any_of(names.begin(), names.end(),
                     [&](const std::string& name) { return ends_in(path, name); });
}

// For many names: looked up by each end of the path.
using PathEnds = std::set<std::string, std::less<>>;
inline bool ends_in_any(std::string_view path, const PathEnds& names) {
  if (names.count(path) != 0) return true;
  for (size_t dot = path.find('.'); dot != std::string_view::npos; dot = path.find('.', dot + 1))
    if (names.count(path.substr(dot + 1)) != 0) return true;
  return false;
}

// A decimal index as names hold it: digits alone, no leading zeros, at most nine of them.
inline std::optional<int64_t> parse_index(std::string_view text) {
  if (text.empty() || text.size() > 9 || (text.size() > 1 && text[0] == '0')) return std::nullopt;
  int64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size() || text[0] == '-')
    return std::nullopt;
  return value;
}

// Where a path says which layer it lies in: at its first components "layers" and a number that
// another follows; without them at "transformer.blocks" and a number (DBRX). Blocks of another
// parent are a tower's.
struct LayerPlace {
  size_t begin, end;  // of the digits in the path
  int layer;
};

inline std::optional<LayerPlace> find_layer(std::string_view path) {
  for (const std::string_view word :
       std::initializer_list<std::string_view>{"layers.", "transformer.blocks."})
    for (size_t at = path.find(word); at != std::string_view::npos; at = path.find(word, at + 1)) {
      if (at > 0 && path[at - 1] != '.') continue;
      const size_t begin = at + word.size(), end = path.find('.', begin);
      if (end == std::string_view::npos) return std::nullopt;
      if (const auto layer = parse_index(path.substr(begin, end - begin)))
        return LayerPlace{begin, end, static_cast<int>(*layer)};
    }
  return std::nullopt;
}

// "self_attn.q_proj" of "model.layers.3.self_attn.q_proj"; the whole path outside the layers.
inline std::string_view below_layer(std::string_view path) {
  const auto place = find_layer(path);
  return place ? path.substr(place->end + 1) : path;
}

}  // namespace moelora
