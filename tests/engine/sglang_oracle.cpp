#include "tests/engine/sglang_oracle.h"

#include <fmt/format.h>

#include <algorithm>
#include <filesystem>

#include "lib/model/model_builder.h"
#include "lib/model/model_spec.h"

namespace moelora::test {
namespace {

const std::string kData = MOELORA_TEST_DATA;
const std::string kAdapters = kData + "/sglang_adapters";

std::vector<OracleRecord> read_records(std::string_view release) {
  std::vector<OracleRecord> out;
  JsonLimits limits;
  limits.bytes = 8 << 20;
  const bool oldest = release == kOracleReleases[0];
  const std::string folder = oldest ? kAdapters : kData + "/sglang_newest";
  const Json table = read_json_file(folder + "/outcomes.json", limits);
  for (const auto& [family, records] : table.members())
    for (const Json& record : records.items())
      out.push_back({std::string(release), family, record});
  return out;
}

std::string without_tied(const std::string& family) {
  return family == "qwen3_dense_tied" ? "qwen3_dense" : family;
}

Json base_config(const std::string& family, const std::string& variant) {
  const bool dense = family.starts_with("qwen3_dense");
  Json config = read_json_file(dense ? kAdapters + "/qwen3_dense/base/config.json"
                                     : kData + "/" + family + "/base/config.json");
  if (family == "qwen3_dense_tied") config.set("tie_word_embeddings", true);
  if (family == "deepseek_v3") config.set("moe_layer_freq", 1);
  if (variant == "q40") config.set("q_lora_rank", 40);
  if (variant == "no_shared") config.set("n_shared_experts", Json());
  return config;
}

std::vector<Family> families() {
  const std::string file = kAdapters + "/qwen3_dense/family.json";
  return {parse_family(read_json_file(file), file)};
}

}  // namespace

std::string OracleRecord::text(std::string_view key) const {
  const Json* value = json.find(key);
  return value != nullptr && value->is(Json::Kind::string) ? value->as_string() : "";
}

std::string OracleRecord::label() const {
  const std::string scenario = text("scenario");
  return scenario.empty() ? fmt::format("{}/{}/{}", family, text("adapter"), text("setting"))
                          : fmt::format("{}/scenario/{}", family, scenario);
}

sglang::Features OracleRecord::features() const {
  return sglang::features_of(*EngineVersion::parse(release));
}

const std::vector<OracleRecord>& sglang_records(std::string_view release) {
  static std::map<std::string_view, std::vector<OracleRecord>> read;
  const auto [at, fresh] = read.try_emplace(release);
  if (fresh) at->second = read_records(release);
  return at->second;
}

std::string sglang_folder(const std::string& family, const std::string& adapter) {
  const std::string path = "/" + without_tied(family) + "/" + adapter;
  for (const std::string& folder : {kData + "/sglang_newest", kAdapters})  // with its values first
    if (std::filesystem::exists(folder + path)) return folder + path;
  return kData + "/" + family + "/" + adapter;
}

bool has_sglang_adapter(const std::string& family, const std::string& adapter) {
  return std::filesystem::exists(sglang_folder(family, adapter));
}

const OracleBase& sglang_base(const std::string& family, const std::string& variant) {
  static std::map<std::string, OracleBase> made;
  OracleBase& base = made[family + "/" + variant];
  if (base.spec.family.empty()) {
    base.config = base_config(family, variant);
    base.spec = make_model_spec(base.config, family, families());
  }
  return base;
}

std::string with_sorted_sets(const std::string& text) {
  std::string out;
  size_t done = 0;
  for (size_t open = text.find('{'); open != std::string::npos; open = text.find('{', done)) {
    const size_t close = text.find('}', open);
    if (close == std::string::npos) break;
    std::vector<std::string> items;
    std::string inside = text.substr(open + 1, close - open - 1);
    for (size_t comma = inside.find(", "); comma != std::string::npos; comma = inside.find(", ")) {
      items.push_back(inside.substr(0, comma));
      inside.erase(0, comma + 2);
    }
    items.push_back(inside);
    std::sort(items.begin(), items.end());
    out += text.substr(done, open - done) + fmt::format("{{{}}}", fmt::join(items, ", "));
    done = close + 1;
  }
  return out + text.substr(done);
}

}  // namespace moelora::test
