// What Engine::fill makes of an adapter is, bit for bit, what the real server held in its pool, and
// what it refuses is refused in the server's words: release by release, as RESULTS.md counts it.

#include <doctest/doctest.h>
#include <fmt/format.h>

#include <cstring>

#include "lib/base/crc32.h"
#include "lib/engine/buffers.h"
#include "tests/adapter/readme_section.h"
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
                      base.config, setting.options, *EngineVersion::parse(record.release),
                      setting.rank});
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

// Which one torch makes of a NaN depends on its version: any is 0x7fc0 in the newer table.
void make_one_nan(std::vector<std::byte>& bytes) {
  for (size_t i = 0; i + 1 < bytes.size(); i += 2) {
    uint16_t bits = 0;
    std::memcpy(&bits, &bytes[i], sizeof bits);
    if ((bits & 0x7fff) > 0x7f80) bits = 0x7fc0;
    std::memcpy(&bytes[i], &bits, sizeof bits);
  }
}

// Of each buffer, layer after layer: {"qkv_proj.A": crc}.
std::map<std::string, uint32_t> digests(const TensorMap& buffers, bool one_nan) {
  std::map<std::pair<std::string, int>, const Tensor*> sorted;
  for (const auto& [name, tensor] : buffers) {
    const int layer = layer_of(name);
    const size_t skipped = layer < 0 ? 0 : name.find('.', 7) + 1;
    sorted[{name.substr(skipped), layer}] = &tensor;
  }
  std::map<std::string, uint32_t> out;
  for (const auto& [key, tensor] : sorted) {
    std::vector<std::byte> bytes = tensor->read();
    if (one_nan) make_one_nan(bytes);
    out[key.first] = crc32(out[key.first], bytes);
  }
  return out;
}

std::map<std::string, uint32_t> oracle_digests(const Json& pool) {
  std::map<std::string, uint32_t> out;
  for (const auto& [name, crc] : pool.members()) out[name] = static_cast<uint32_t>(crc.as_int());
  return out;
}

// How many of a release's starts with one adapter agree, of how many.
struct Agreement {
  struct Count {
    size_t agree = 0, all = 0;
    void add(bool agrees, size_t count = 1) {
      all += count;
      if (agrees) agree += count;
    }
    std::string text() const {
      return fmt::format("{} of {} ({:.4g} %)", agree, all,
                         100.0 * static_cast<double>(agree) / static_cast<double>(all));
    }
  };
  Count outcomes, texts, buffers;

  std::string row(std::string_view release) const {
    return fmt::format("| SGLang {} | {} | {} | {} |\n", release, outcomes.text(), texts.text(),
                       buffers.text());
  }
};

void compare_refusal(const RankBuffers& held, const OracleRecord& record, Agreement& out) {
  const bool same = held.refused && held.buffers.empty() &&
                    held.refused->stage == record.text("stage") &&
                    held.refused->type == record.text("type") &&
                    same_refusal_text(held.refused->text, record.text("text"));
  CHECK_MESSAGE(same, record.label()
                          << ": " << (held.refused ? refusal_text(*held.refused) : "served"));
  out.texts.add(same);
}

void compare_pool(const RankBuffers& held, const OracleRecord& record, Agreement& out) {
  CAPTURE(record.label());
  const auto theirs = oracle_shapes(record);
  const bool shaped = shapes(held.buffers) == theirs;
  const bool same = shaped && digests(held.buffers, record.release != kOracleReleases[0]) ==
                                  oracle_digests(*record.json.find("pool"));
  CHECK(shaped);
  CHECK(same);
  out.buffers.add(same, theirs.size());
}

Agreement agreement(std::string_view release) {
  Agreement out;
  for (const OracleRecord& record : sglang_records(release)) {
    if (record.text("adapter").empty()) continue;
    const RankBuffers held = fill(record);
    const bool refused = !record.text("stage").empty();
    out.outcomes.add(refused == held.refused.has_value());
    if (refused)
      compare_refusal(held, record, out);
    else
      compare_pool(held, record, out);
  }
  return out;
}

}  // namespace

TEST_CASE("what SGLang did with every adapter of its oracle, release by release") {
  std::string table =
      "| release | outcome | stage and text of refusals | pool buffers, bit by bit |\n"
      "|---|---|---|---|\n";
  for (const std::string_view release : kOracleReleases) {
    const Agreement counted = agreement(release);
    CHECK(counted.outcomes.all == (release == "0.5.18" ? 1893 : 1923));
    CHECK(counted.texts.all == (release == "0.5.18" ? 207 : 201));
    table += counted.row(release);
  }
  check_results_section("SGLang's loader", table);
}
