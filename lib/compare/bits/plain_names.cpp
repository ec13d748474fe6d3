#include "lib/compare/bits/plain_names.h"

#include <algorithm>
#include <array>
#include <map>
#include <set>
#include <string>
#include <string_view>

#include "lib/base/error.h"
#include "lib/base/utf8.h"
#include "lib/compare/bits/names.h"

namespace moelora::packed {
namespace {

constexpr std::array<std::string_view, 6> kWrappers = {
    "_orig_mod",   "module",          "_fsdp_wrapped_module",
    "_fpw_module", "_forward_module", "_checkpoint_wrapped_module"};
constexpr std::array<std::string_view, 6> kTextPrefixes = {
    "", "model.", "backbone.", "language_model.", "language_model.model.", "model.language_model."};

std::string unwrapped(std::string_view name) {
  std::string out;
  for (size_t at = 0; at <= name.size();) {
    const size_t dot = std::min(name.find('.', at), name.size());
    const std::string_view part = name.substr(at, dot - at);
    if (std::find(kWrappers.begin(), kWrappers.end(), part) == kWrappers.end())
      out += (out.empty() ? "" : ".") + std::string(part);
    at = dot + 1;
  }
  return out;
}

bool same_bytes(const Tensor& a, const Tensor& b) {
  return a.dtype() == b.dtype() && a.shape() == b.shape() && a.read() == b.read();
}

// A module's factors by side, A and B apart from those of an embedding.
using Factors = std::map<std::pair<Side, bool>, const TensorMap::value_type*>;

bool same_factors(const Factors& a, const Factors& b) {
  return a.size() == b.size() && std::all_of(a.begin(), a.end(), [&](const auto& entry) {
           const auto other = b.find(entry.first);
           return other != b.end() && same_bytes(entry.second->second, other->second->second);
         });
}

// By what is left of a text model's prefix, then by module.
std::map<std::string, std::map<std::string, Factors>> by_tail(const TensorMap& tensors) {
  std::map<std::string, std::map<std::string, Factors>> out;
  for (const auto& entry : tensors) {
    const auto name = parse_factor_name(entry.first);
    if (!name) continue;
    const std::string module(name->module);
    const size_t layers = module.find("layers.");
    const std::string_view prefix = std::string_view(module).substr(0, layers);
    if (layers == std::string::npos ||
        std::find(kTextPrefixes.begin(), kTextPrefixes.end(), prefix) == kTextPrefixes.end())
      continue;
    out[module.substr(layers)][module].emplace(std::pair(name->side, name->embedding), &entry);
  }
  return out;
}

std::set<std::string> twins(const TensorMap& tensors) {
  std::set<std::string> out;
  for (const auto& [tail, modules] : by_tail(tensors))
    for (const auto& [module, factors] : modules)
      if (&factors != &modules.begin()->second && same_factors(factors, modules.begin()->second))
        for (const auto& [side, entry] : factors) out.insert(entry->first);
  return out;
}

}  // namespace

TensorMap with_plain_names(const TensorMap& tensors) {
  TensorMap out;
  for (const auto& [name, tensor] : tensors) {
    const auto [at, added] = out.emplace(unwrapped(name), tensor);
    if (!added && !same_bytes(at->second, tensor))
      throw Error(printable(name), "is there twice, with and without a wrapper's name");
  }
  for (const std::string& twin : twins(out)) out.erase(twin);
  return out;
}

}  // namespace moelora::packed
