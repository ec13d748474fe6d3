// What Engine::fill makes of an adapter is, bit for bit, what the real server held in its pool.

#include <doctest/doctest.h>
#include <fmt/format.h>

#include "lib/base/crc32.h"
#include "lib/engine/buffers.h"
#include "tests/engine/served_from_folder.h"
#include "tests/engine/sglang_compare.h"

using namespace moelora;
using namespace moelora::test;

namespace {

struct Setting {
  ServerOptions options;
  int64_t rank = 0;
};

Setting setting_of(const std::string& name) {
  Setting out;
  if (name == "R8") out.options.max_lora_rank = 8;
  if (name.starts_with("tp2")) out.options.tp = 2;
  if (name.starts_with("tp2ep2")) out.options.ep = 2;
  if (name.ends_with(".1")) out.rank = 1;
  return out;
}

RankBuffers fill(const OracleRecord& record) {
  const std::string adapter = record.text("adapter");
  const std::string folder = sglang_folder(record.family, adapter);
  const OracleBase& base = sglang_base(record.family, adapter.ends_with("_q40") ? "q40" : "");
  const Setting setting = setting_of(record.text("setting"));
  const Engine& engine = *find_engine("sglang");
  return engine.fill({served_from_folder(folder), values_from_folder(folder), base.spec,
                      base.config, setting.options, *EngineVersion::parse("0.5.18"), setting.rank});
}

// The extents of a buffer of the oracle, the slots left out.
Shape slot_shape(const Json& extents) {
  Shape out;
  for (size_t i = 1; i < extents.items().size(); ++i) out.push_back(extents.items()[i].as_int());
  return out;
}

// Every buffer that a wrapped layer of the oracle's server reads.
std::map<std::string, Shape> oracle_shapes(const OracleRecord& record) {
  std::map<std::string, Shape> out;
  const Json& buffers = *record.json.find("buffers");
  for (const auto& [layer, modules] : record.json.find("owned")->members())
    for (const Json& module : modules.items())
      for (const char* side : {"A", "B"}) {
        const std::string name = fmt::format("{}.{}", module.as_string(), side);
        out[fmt::format("layers.{}.{}", layer, name)] =
            slot_shape(buffers.find(name)->items()[std::stoul(layer)]);
      }
  for (const auto& [name, crc] : record.json.find("pool")->members())
    if (name.starts_with("embed_tokens") || name.starts_with("lm_head")) {
      const std::string group = name.starts_with("embed") ? "embedding" : "lm_head";
      const char side = name.back();
      out[name] = slot_shape(*buffers.find(
          fmt::format("{}_{}_buffer.{}", group, side, name.substr(0, name.size() - 2))));
    }
  return out;
}

std::map<std::string, Shape> shapes(const TensorMap& buffers) {
  std::map<std::string, Shape> out;
  for (const auto& [name, tensor] : buffers) out[name] = tensor.shape();
  return out;
}

int layer_of(const std::string& name) {
  return name.starts_with("layers.") ? std::stoi(name.substr(7)) : -1;
}

// Of each buffer, layer after layer: {"qkv_proj.A": crc}.
std::map<std::string, uint32_t> digests(const TensorMap& buffers) {
  std::map<std::pair<std::string, int>, const Tensor*> sorted;
  for (const auto& [name, tensor] : buffers) {
    const int layer = layer_of(name);
    const size_t skipped = layer < 0 ? 0 : name.find('.', 7) + 1;
    sorted[{name.substr(skipped), layer}] = &tensor;
  }
  std::map<std::string, uint32_t> out;
  for (const auto& [key, tensor] : sorted) out[key.first] = crc32(out[key.first], tensor->read());
  return out;
}

std::map<std::string, uint32_t> oracle_digests(const Json& pool) {
  std::map<std::string, uint32_t> out;
  for (const auto& [name, crc] : pool.members()) out[name] = static_cast<uint32_t>(crc.as_int());
  return out;
}

}  // namespace

TEST_CASE("an adapter's filled buffers are bit for bit SGLang's pool") {
  size_t pools = 0, buffers = 0;
  for (const OracleRecord& record : sglang_records()) {
    const Json* pool = record.json.find("pool");
    if (pool == nullptr) continue;
    CAPTURE(record.label());
    const RankBuffers held = fill(record);
    REQUIRE(!held.refused);
    CHECK(shapes(held.buffers) == oracle_shapes(record));
    CHECK(digests(held.buffers) == oracle_digests(*pool));
    ++pools;
    buffers += held.buffers.size();
  }
  CHECK(pools == 1686);
  CHECK(buffers == 17664);
}

TEST_CASE("an adapter that SGLang refuses has no buffers, but its words") {
  size_t refused = 0;
  for (const OracleRecord& record : sglang_records()) {
    if (record.text("adapter").empty() || record.text("stage").empty()) continue;
    CAPTURE(record.label());
    const RankBuffers held = fill(record);
    REQUIRE(held.refused);
    CHECK(held.buffers.empty());
    CHECK(held.refused->stage == record.text("stage"));
    CHECK(held.refused->type == record.text("type"));
    CHECK(same_refusal_text(held.refused->text, record.text("text")));
    ++refused;
  }
  CHECK(refused == 207);
}
