#include "tests/engine/peft_oracle.h"

#include <fmt/format.h>

#include <algorithm>
#include <filesystem>

#include "lib/base/error.h"
#include "lib/model/model_builder.h"

namespace moelora::test {
namespace {

namespace fs = std::filesystem;

PeftParts recorded_parts(const Json& parts) {
  PeftParts out;
  for (const auto& [part, how] : parts.members()) {
    if (how.is(Json::Kind::array))
      out[part] = fmt::format("scaled {:.4f}", how.items()[1].as_double());
    else
      out[part] = how.as_string() == "absent" ? "lost" : how.as_string();
  }
  return out;
}

PeftRecord record_of(const Json& row) {
  PeftRecord out;
  out.form = row.items()[0].as_string();
  out.release = row.items()[1].as_string();
  const Json& raised = row.items()[3];
  if (raised.is(Json::Kind::null))
    out.parts = recorded_parts(row.items()[2]);
  else
    out.raised = Refusal{raised.items()[1].as_string(), raised.items()[0].as_string(),
                         raised.items()[2].as_string()};
  return out;
}

std::optional<ModelSpec> spec_of(const Json& config, const std::string& family) {
  try {
    return make_model_spec(config, family, {});
  } catch (const Error&) {
    return std::nullopt;
  }
}

}  // namespace

bool PeftRecord::is_whole() const {
  return !raised && std::all_of(parts.begin(), parts.end(),
                                [](const auto& part) { return part.second == "whole"; });
}

ServedAdapter PeftFamily::adapter(const std::string& id) const {
  ServedAdapter out;
  out.name = out.folder = id;
  out.has_config = true;
  out.config = *form(id).find("config");
  WeightFile file{"adapter_model.safetensors", {}};
  for (const auto& [tensor, entry] : form(id).find("tensors")->members()) {
    Shape shape;
    for (const Json& extent : entry.items()[1].items()) shape.push_back(extent.as_int());
    file.tensors.push_back({tensor, DType::F32, shape});
  }
  out.files.push_back(std::move(file));
  return out;
}

std::vector<PeftRecord> PeftFamily::records() const {
  std::vector<PeftRecord> out;
  for (const Json& row : table.find("records")->items()) out.push_back(record_of(row));
  return out;
}

void each_peft_family(const std::function<void(const PeftFamily&)>& use) {
  JsonLimits limits;
  limits.bytes = 8 << 20;
  for (const auto& entry :
       fs::directory_iterator(std::string(MOELORA_TEST_DATA) + "/peft_oracle")) {
    const std::string name = entry.path().stem().string();
    Json table = read_json_file(entry.path().string(), limits);
    auto spec = spec_of(*table.find("config"), name);
    if (spec && !spec->peft.unknown) use({name, std::move(*spec), std::move(table)});
  }
}

}  // namespace moelora::test
