#include "lib/check/define_rule.h"

#include <algorithm>

#include "lib/adapter/tensor_name.h"
#include "lib/check/specimen.h"

namespace moelora {
namespace {

bool has(const std::string& name, std::string_view part) {
  return name.find(part) != std::string::npos;
}

}  // namespace

size_t remove_tensors(Specimen& specimen, std::string_view part) {
  return std::erase_if(specimen.tensors(),
                       [&](const auto& entry) { return has(entry.first, part); });
}

size_t rename_tensors(Specimen& specimen, std::string_view part, std::string_view to) {
  TensorMap renamed;
  size_t count = 0;
  for (auto& [name, tensor] : specimen.tensors()) {
    std::string next = name;
    if (const size_t at = next.find(part); at != std::string::npos) {
      next.replace(at, part.size(), to);
      ++count;
    }
    renamed.emplace(std::move(next), std::move(tensor));
  }
  specimen.tensors() = std::move(renamed);
  return count;
}

void replace_tensors(Specimen& specimen, std::string_view part,
                     std::initializer_list<int64_t> shape) {
  for (auto& [name, tensor] : specimen.tensors())
    if (has(name, part)) tensor = specimen.random(shape);
}

void cut_tensors(Specimen& specimen, std::string_view part, int axis, int64_t extent) {
  for (auto& [name, tensor] : specimen.tensors())
    if (has(name, part)) tensor = tensor.slice(axis, 0, extent);
}

void set_tensor(Specimen& specimen, std::string_view name, std::initializer_list<int64_t> shape) {
  specimen.tensors()[std::string(name)] = specimen.random(shape);
}

void remove_module(Specimen& specimen, std::string_view leaf) {
  remove_tensors(specimen, "." + std::string(leaf) + ".");
  std::vector<std::string> left;
  for (const Json& target : specimen.config().find("target_modules")->items())
    if (target.as_string() != leaf) left.push_back(target.as_string());
  specimen.config().set("target_modules", Json::strings(left));
}

void set_targets(Specimen& specimen, std::initializer_list<std::string_view> targets) {
  specimen.config().set("target_modules", Json::strings({targets.begin(), targets.end()}));
}

void set_pair(Specimen& specimen, std::string_view module, std::initializer_list<int64_t> a,
              std::initializer_list<int64_t> b) {
  specimen.tensors()[lora_name(module, Side::A)] = specimen.random(a, 1);
  specimen.tensors()[lora_name(module, Side::B)] = specimen.random(b, 2);
}

void add_pair(Specimen& specimen, std::string_view module, int64_t in, int64_t out) {
  const int64_t r = specimen.config().find("r")->as_int();
  set_pair(specimen, module, {r, in}, {out, r});
}

}  // namespace moelora
