#include "lib/engine/sglang/start.h"

#include <fmt/core.h>

#include "lib/base/error.h"
#include "lib/engine/server_class.h"
#include "lib/engine/sglang/runners.h"

namespace moelora::sglang {
namespace {

bool brings_class(const ModelSpec& spec) {
  return spec.engines.is(Json::Kind::object) && spec.engines.find("sglang") != nullptr;
}

}  // namespace

// A class is the base's own, by name; a family's first stands in where the config names none.
std::string class_not_known(const PlanRequest& request) {
  const ModelSpec& spec = request.spec;
  const std::string& name = spec.architecture;
  const auto found = find_server_class("sglang", spec);
  if (!found)
    return fmt::format("no class of SGLang is known here for {}",
                       name.empty() ? "the family " + spec.family : name);
  const std::string known = found->at("name").string();
  if (!name.empty() && !brings_class(spec) && known != name)
    return fmt::format("{} is no class of SGLang that is known here (that of the family {} is {})",
                       name, spec.family, known);
  if (!make_model_class(spec, request.base_config).facts.transformers_fallback) return "";
  return fmt::format(
      "SGLang has no class {}: it falls back to a class of Transformers, whose modules are others",
      known);
}

Server start_server(const PlanRequest& request) {
  if (std::string why = class_not_known(request); !why.empty())
    throw Error(why, "what becomes of an adapter is not known");
  const ModelClass model = make_model_class(request.spec, request.base_config);
  Server server(model, features_of(request.version), launch_of(request.options));
  const bool empty = starts_empty(request.options);
  server.start(empty ? std::span<const ServedAdapter>() : request.adapters);
  if (empty && server.has_pool())
    for (const ServedAdapter& adapter : request.adapters) server.load(adapter);
  server.add_events(check_arguments(request, server.features()), check_runner(request, server));
  return server;
}

}  // namespace moelora::sglang
