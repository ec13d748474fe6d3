#include "lib/engine/sglang/start.h"

#include <fmt/core.h>

#include "lib/base/error.h"
#include "lib/engine/server_class.h"
#include "lib/engine/sglang/features.h"
#include "lib/engine/sglang/model/class_facts.h"
#include "lib/engine/sglang/runners.h"

namespace moelora::sglang {
namespace {

bool brings_class(const ModelSpec& spec) {
  return spec.engines.is(Json::Kind::object) && spec.engines.find("sglang") != nullptr;
}

// Why nothing is said of an adapter for this class; "" where something is.
std::string not_judged(const ClassFacts& facts, const std::string& name,
                       const PlanRequest& request) {
  if (!facts.not_built.empty())
    return fmt::format("SGLang does not start with {}: {}", name, facts.not_built);
  if (facts.transformers_fallback)
    return fmt::format(
        "SGLang has no class {}: it falls back to a class of Transformers, whose modules are "
        "others",
        name);
  if (!facts.since.empty() && !request.version.has(*release_named(facts.since)))
    return fmt::format("SGLang has the class {} since {} only", name, facts.since);
  if (facts.only_without_experts && request.spec.experts > 0)
    return fmt::format("SGLang's class {} is known here for bases without experts only", name);
  if (!facts.not_judged.empty())
    return fmt::format("SGLang's class {} is not judged: {}", name, facts.not_judged);
  return "";
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
  return not_judged(read_class_facts(spec), known, request);
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
