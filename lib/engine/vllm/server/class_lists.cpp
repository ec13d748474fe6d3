#include "lib/engine/vllm/server/class_lists.h"

#include <algorithm>
#include <vector>

#include "lib/engine/server_class.h"
#include "lib/engine/vllm/releases.h"

namespace moelora::vllm {

std::optional<JsonView> entry_of(std::string_view list, const ModelSpec& spec) {
  if (spec.derived) return std::nullopt;
  for (const JsonView& entry : engine_facts("vllm").at(list).items()) {
    const std::vector<std::string> families = entry.strings_or_none("families");
    if (spec.architecture.empty()
            ? std::find(families.begin(), families.end(), spec.family) != families.end()
            : entry.at("name").string() == spec.architecture)
      return entry;
  }
  return std::nullopt;
}

const Release& release_of(const JsonView& json) {
  const Release* out = find_release(json.string());
  if (out == nullptr) json.fail("not a release of vLLM that this tool knows");
  return *out;
}

bool is_in_range(const JsonView& json, const EngineVersion& version) {
  const auto has = [&](std::string_view key, bool otherwise) {
    const auto at = json.find(key);
    return at ? version.has(release_of(*at)) : otherwise;
  };
  return has("since", true) && !has("before", false);
}

std::string why_not_judged(const ModelSpec& spec, const EngineVersion& version) {
  const auto json = entry_of("not_judged", spec);
  if (!json) return "";
  json->allow_only({"name", "families", "why", "since"});
  return is_in_range(*json, version) ? json->at("why").string() : "";
}

}  // namespace moelora::vllm
