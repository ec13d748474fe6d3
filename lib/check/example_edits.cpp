#include "lib/check/example_edits.h"

#include "lib/adapter/tensor_name.h"

namespace moelora {

void remove_module(Specimen& specimen, std::string_view leaf) {
  specimen.remove("." + std::string(leaf) + ".");
  std::vector<std::string> left;
  for (const Json& target : specimen.config().find("target_modules")->items())
    if (target.as_string() != leaf) left.push_back(target.as_string());
  specimen.config().set("target_modules", Json::strings(left));
}

void set_targets(Specimen& specimen, std::initializer_list<std::string_view> targets) {
  specimen.config().set("target_modules", Json::strings({targets.begin(), targets.end()}));
}

void add_pair(Specimen& specimen, const std::string& module, int64_t in, int64_t out) {
  const int64_t r = specimen.config().find("r")->as_int();
  specimen.set(lora_name(module, Side::A), specimen.random({r, in}, 1));
  specimen.set(lora_name(module, Side::B), specimen.random({out, r}, 2));
}

}  // namespace moelora
