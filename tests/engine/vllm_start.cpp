#include "tests/engine/vllm_start.h"

#include "lib/io/json.h"
#include "lib/model/model_builder.h"
#include "tests/model/loader_bases.h"

namespace moelora::test {

namespace {

BaseModel base_named(const std::string& name) {
  if (is_loader_base(name)) return loader_model(name);
  return open_base(std::string(MOELORA_TEST_DATA) + "/families/" + name);
}

}  // namespace

VllmStart::VllmStart(const std::string& family, const std::string& release)
    : base(base_named(family)), version(*EngineVersion::parse(release)) {}

VllmStart VllmStart::with(const std::string& key, const Json& value) const {
  VllmStart out = *this;
  out.base.config.set(key, value);
  out.base.spec = make_model_spec(out.base.config, "config.json");
  return out;
}

vllm::Server VllmStart::server(const ServerOptions& options) const {
  return vllm::make_server({{}, base.spec, base.config, options, version});
}

ServerPlan VllmStart::plan(const std::vector<std::string>& modules) const {
  ServedAdapter adapter;
  adapter.name = adapter.folder = "adapter";
  adapter.has_config = true;
  adapter.config = parse_json(R"({"r": 2, "lora_alpha": 2, "target_modules": []})", "config");
  WeightFile& file = adapter.files.emplace_back();
  file.name = "adapter_model.safetensors";
  for (const std::string& module : modules)
    for (const char* side : {".lora_A.weight", ".lora_B.weight"})
      file.tensors.push_back({"base_model.model." + module + side, DType::BF16, {2, 2}});
  return find_engine("vllm")->plan({{&adapter, 1}, base.spec, base.config, {}, version});
}

const PlanEvent* event(const AdapterPlan& plan, const Cause& cause) {
  for (const PlanEvent& entry : plan.events)
    if (entry.cause == &cause) return &entry;
  return nullptr;
}

}  // namespace moelora::test
