#include "tests/engine/vllm_oracle.h"

#include <fmt/format.h>

#include <algorithm>
#include <filesystem>
#include <regex>

#include "lib/io/safetensors.h"
#include "lib/model/model_builder.h"

namespace moelora::test {
namespace {

namespace fs = std::filesystem;

const std::string kData = MOELORA_TEST_DATA;

std::string text_of(const Json& json, std::string_view key) {
  const Json* value = json.find(key);
  return value == nullptr ? "" : value->as_string();
}

std::vector<std::string> texts_of(const Json& json, std::string_view key) {
  std::vector<std::string> out;
  if (const Json* value = json.find(key))
    for (const Json& item : value->items()) out.push_back(item.as_string());
  return out;
}

VllmOutcome outcome_of(const Json& json) {
  return {text_of(json, "stage"),   text_of(json, "type"),      text_of(json, "text"),
          texts_of(json, "unused"), texts_of(json, "unpaired"), texts_of(json, "skipped"),
          texts_of(json, "set"),    texts_of(json, "zero")};
}

VllmClass class_of(const Json& json) {
  VllmClass out;
  out.name = text_of(json, "class");
  out.error = text_of(json, "error");
  if (!out.error.empty()) return out;
  out.stacked = json.find("is_3d_moe_weight")->as_bool();
  out.non_gated = json.find("is_non_gated_moe")->as_bool();
  out.accepted = texts_of(json, "expected");
  for (const Json& pair : json.find("wrappers")->items())
    out.wrappers.emplace_back(pair.items()[0].as_string(), pair.items()[1].as_string());
  return out;
}

std::optional<uint32_t> crc_of(const Json& json) {
  if (json.is(Json::Kind::null)) return std::nullopt;
  return static_cast<uint32_t>(json.as_int());
}

VllmOracle read_oracle() {
  const Json json = read_json_file(kData + "/vllm_adapters/outcomes.json", {16 << 20, 16});
  VllmOracle out;
  for (const Json& entry : json.find("outcomes")->items())
    out.outcomes.push_back(outcome_of(entry));
  for (const Json& row : json.find("runs")->items()) {
    const std::vector<Json>& at = row.items();
    out.runs.push_back({at[0].as_string(), at[1].as_string() == "golden", at[2].as_string(),
                        at[3].as_string(), at[4].as_string(), at[5].as_int(), at[6].as_int(),
                        at[7].as_int(), &out.outcomes[static_cast<size_t>(at[8].as_int())],
                        crc_of(at[9])});
  }
  for (const auto& [version, families] : json.find("catalogue")->members())
    for (const auto& [family, entry] : families.members())
      out.catalogue[version][family] = class_of(entry);
  return out;
}

void add_file(const std::string& path, ServedAdapter& out) {
  WeightFile& file = out.files.emplace_back();
  file.name = fs::path(path).filename().string();
  const bool pickle = file.name.ends_with(".bin");
  const std::string from = pickle ? vllm_weights_path(fs::path(path).parent_path().string()) : path;
  for (const auto& [name, tensor] : open_safetensors(from).tensors)
    file.tensors.push_back({name, tensor.dtype(), tensor.shape()});
}

}  // namespace

std::string VllmRun::folder() const {
  const std::string own = fmt::format("{}/vllm_adapters/{}/{}", kData, family, adapter);
  return fs::exists(own) ? own : fmt::format("{}/{}/{}", kData, family, adapter);
}

std::string VllmRun::text() const {
  return fmt::format("{} {}/{} {} tp{} rank {}", version, family, adapter, mode, tp, rank);
}

ServerOptions VllmRun::options() const {
  ServerOptions out;
  out.tp = tp;
  out.max_lora_rank = max_rank;
  const auto on = [&](const char* key) { out.values[key] = "on"; };
  if (mode == "fs") on("fully-sharded-loras");
  if (mode == "as3d") on("force-stacked");
  if (mode == "ep") on("enable-expert-parallel");
  if (mode.starts_with("mixed") || mode == "shared_mixed") on("enable-mixed-moe-lora-format");
  if (mode == "mixed3d") on("is-3d-lora-weight");
  if (mode.starts_with("shared")) on("enable-moe-shared-loras");
  return out;
}

bool of_the_cpu(const VllmRun& run) {
  return run.version != "0.22" && run.version != "0.27" &&
         run.adapter.ends_with("_without_B_scale1");
}

std::string without_sets(const std::string& text) {
  static const std::regex kSet(R"((modules in )\{[^}]*\})");
  return std::regex_replace(text, kSet, "$1{SET}");
}

const VllmOracle& vllm_oracle() {
  static const VllmOracle kOracle = read_oracle();
  return kOracle;
}

const VllmBase& vllm_base(const std::string& family) {
  static std::map<std::string, VllmBase> bases;
  if (const auto at = bases.find(family); at != bases.end()) return at->second;
  const std::string path = fs::exists(kData + "/" + family + "/base")
                               ? kData + "/" + family + "/base/config.json"
                               : kData + "/catalogue/" + family + "/config.json";
  VllmBase& out = bases[family];
  out.config = read_json_file(path);
  out.spec = make_model_spec(out.config, path);
  return out;
}

ServedAdapter vllm_adapter(const std::string& folder) {
  ServedAdapter out;
  out.name = "oracle";
  out.folder = "{dir}";
  out.has_config = fs::exists(folder + "/adapter_config.json");
  if (out.has_config) out.config = read_json_file(folder + "/adapter_config.json");
  std::vector<std::string> paths;
  for (const auto& entry : fs::directory_iterator(folder)) paths.push_back(entry.path().string());
  std::sort(paths.begin(), paths.end());
  for (const std::string& path : paths)
    if (path.ends_with(".safetensors") || path.ends_with(".bin")) add_file(path, out);
  return out;
}

std::string vllm_weights_path(const std::string& folder) {
  constexpr std::string_view kPickled = "_bin";
  const size_t length = folder.size() - (folder.ends_with(kPickled) ? kPickled.size() : 0);
  return folder.substr(0, length) + "/adapter_model.safetensors";
}

}  // namespace moelora::test
